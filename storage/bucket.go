package storage

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/quota"
	"giggle/store"
)

// Bucket is one bucket. Bucket names are unique over all projects.
type Bucket struct {
	Name           string
	Project        string // id
	Location       string // upper case, such as "EUROPE-NORTH1"; "US" if the maker named none
	StorageClass   string
	Labels         map[string]string
	Config         map[string]json.RawMessage // settings that are kept and returned but mean nothing here, by JSON name
	Versioning     bool                       // what is replaced or deleted stays as a noncurrent object
	SoftDelete     time.Duration              // how long what is deleted for good may be restored; 0 for not at all
	SoftDeleteFrom time.Time                  // since when so
	Generation     int64
	Metageneration int64
	Created        time.Time
	Updated        time.Time

	// Reserved lets a bucket that is made have a name that is the platform's own.
	Reserved bool `json:"-"`
}

// BucketKind is the kind of buckets' rows.
const BucketKind = "storage.bucket"

var buckets = store.NewTable[Bucket](BucketKind, "Bucket").By(func(_ string, b Bucket) string { return b.Project })

// BucketName returns the name that policies have for the bucket of a row: with the project that it is in.
func BucketName(tx *store.Tx, row string) (string, error) {
	b, err := buckets.Get(tx, row)
	return "projects/" + b.Value.Project + "/buckets/" + row, err
}

// CreateBucket makes a bucket. A name that is taken is AlreadyExists, whichever project has it.
func (s *Storage) CreateBucket(ctx context.Context, b Bucket) (_ Bucket, err error) {
	defer fault.Wrap(&err, "storage.CreateBucket(%.64s)", b.Name)
	if err := checkBucketName(b.Name, b.Reserved); err != nil {
		return Bucket{}, err
	}
	if b.Project == "" {
		return Bucket{}, fault.Invalid("project", "a bucket needs a project")
	}
	if b.Location = strings.ToUpper(b.Location); b.Location == "" {
		b.Location = "US"
	}
	if b.StorageClass == "" {
		b.StorageClass = "STANDARD"
	}
	b.Generation, b.Metageneration = s.generation(0), 1
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		b.Created, b.Updated, b.SoftDeleteFrom = tx.Now().UTC(), tx.Now().UTC(), tx.Now().UTC()
		if _, err := buckets.Create(tx, b.Name, b); err != nil {
			return err
		}
		have, err := buckets.CountBy(tx, b.Project, s.quotas.Of(quota.Buckets)+1)
		if err != nil {
			return err
		}
		return s.quotas.Admit(quota.Buckets, "project "+b.Project, have-1)
	})
	if fault.Is(err, fault.AlreadyExists) {
		return Bucket{}, fault.New(fault.AlreadyExists,
			"The bucket %q already exists. Bucket names are unique over all projects; choose another.", b.Name)
	}
	return b, err
}

// Bucket returns a bucket, or NotFound.
func (s *Storage) Bucket(ctx context.Context, name string) (b Bucket, err error) {
	defer fault.Wrap(&err, "storage.Bucket(%.64s)", name)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		b, err = getBucket(tx, name)
		return err
	})
	return b, err
}

// BucketProject returns the id of the project that has the bucket, or NotFound: for who asks whether a call is allowed.
func (s *Storage) BucketProject(ctx context.Context, name string) (string, error) {
	b, err := s.Bucket(ctx, name)
	return b.Project, err
}

func getBucket(tx *store.Tx, name string) (Bucket, error) {
	row, err := buckets.Get(tx, name)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "The specified bucket %q does not exist.", clip(name))
	}
	return row.Value, err
}

// Buckets returns the buckets of a project whose names start with prefix and come after the name after, in order, and
// whether there are more; limit is at least 1.
func (s *Storage) Buckets(
	ctx context.Context, project, prefix, after string, limit int,
) (out []Bucket, more bool, err error) {
	defer fault.Wrap(&err, "storage.Buckets(%s)", project)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := buckets.List(tx, prefix, after, 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.Value.Project != project {
				continue
			}
			if len(out) == limit {
				more = true
				return nil
			}
			out = append(out, r.Value)
		}
		return nil
	})
	return out, more, err
}

// UpdateBucket changes a bucket with fn, if its metageneration meets the conditions. fn must not change its identity.
func (s *Storage) UpdateBucket(
	ctx context.Context, name string, cond Conditions, fn func(*Bucket) error,
) (b Bucket, err error) {
	defer fault.Wrap(&err, "storage.UpdateBucket(%.64s)", name)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		have, err := getBucket(tx, name)
		if err != nil {
			return err
		}
		if err := cond.CheckMeta(have.Metageneration); err != nil {
			return err
		}
		b = have
		if err := fn(&b); err != nil {
			return err
		}
		b.Name, b.Project, b.Location = have.Name, have.Project, have.Location
		b.Generation, b.Created = have.Generation, have.Created
		b.Metageneration, b.Updated = have.Metageneration+1, tx.Now().UTC()
		if b.SoftDeleteFrom = have.SoftDeleteFrom; b.SoftDelete != have.SoftDelete {
			b.SoftDeleteFrom = tx.Now().UTC()
		}
		_, err = buckets.Put(tx, name, b)
		return err
	})
	return b, err
}

// DeleteBucket removes a bucket without live or noncurrent objects, and its soft-deleted ones with it. One with objects
// is Aborted (a conflict).
func (s *Storage) DeleteBucket(ctx context.Context, name string, cond Conditions) (err error) {
	defer fault.Wrap(&err, "storage.DeleteBucket(%.64s)", name)
	var gone []blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		b, err := getBucket(tx, name)
		if err != nil {
			return err
		}
		if err := cond.CheckMeta(b.Metageneration); err != nil {
			return err
		}
		live, err := objects.List(tx, name+"/", "", 1)
		if err != nil {
			return err
		}
		old, err := versions.List(tx, name+"/", "", 0)
		if err != nil {
			return err
		}
		for _, r := range old {
			if r.Value.SoftDeleted.IsZero() {
				live = append(live, r)
				break
			}
		}
		if len(live) > 0 {
			e := fault.New(fault.Aborted,
				"The bucket you tried to delete is not empty. `gcloud storage rm --recursive gs://%s` removes its objects too.", name)
			e.Reason = ReasonNotEmpty
			return e
		}
		gone = nil
		for _, r := range old {
			if err := versions.Delete(tx, r.Name); err != nil {
				return err
			}
			gone = append(gone, r.Value.Digest)
		}
		begun, err := multiparts.List(tx, name+"/", "", 0)
		if err != nil {
			return err
		}
		for _, r := range begun {
			of, err := dropMultipart(tx, name, r.Value.ID)
			if err != nil {
				return err
			}
			gone = append(gone, of...)
		}
		return buckets.Delete(tx, name)
	})
	for _, d := range gone {
		s.release(d, err)
	}
	return err
}

// checkBucketName holds the rules of https://cloud.google.com/storage/docs/buckets#naming.
func checkBucketName(name string, reserved bool) error {
	bad := func(why string) error { return fault.Invalid("name", "Invalid bucket name %q: %s.", clip(name), why) }
	limit := 63
	if strings.Contains(name, ".") {
		limit = 222
	}
	if len(name) < 3 || len(name) > limit {
		return bad("it must have 3 to 63 characters, up to 222 with dots")
	}
	for _, part := range strings.Split(name, ".") {
		if part == "" || len(part) > 63 {
			return bad("each part between dots must have 1 to 63 characters")
		}
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && c != '-' && c != '_' && c != '.' {
			return bad("it may have lower-case letters, digits, dashes, underscores and dots")
		}
		if !alnum && (i == 0 || i == len(name)-1) {
			return bad("it must start and end with a letter or digit")
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return bad("it looks like an IP address")
	}
	if strings.HasPrefix(name, "goog") {
		return bad("it must not start with goog")
	}
	if parent := "googleusercontent.com"; (name == parent || strings.HasSuffix(name, "."+parent)) && !reserved {
		return fault.New(fault.PermissionDenied,
			"Another user owns the domain %s or a parent domain: the platform's own buckets have such names.",
			clip(name))
	}
	return nil
}

// clip bounds what a message repeats of a hostile name.
func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}
