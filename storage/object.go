package storage

import (
	"bytes"
	"context"
	"crypto/md5"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"giggle/blob"
	"giggle/fault"
	"giggle/quota"
	"giggle/store"
)

// Attrs is what a client may say of an object beside its bytes.
type Attrs struct {
	ContentType        string
	ContentEncoding    string
	ContentDisposition string
	ContentLanguage    string
	CacheControl       string
	StorageClass       string
	CustomTime         time.Time // zero if there is none
	Metadata           map[string]string
}

// Object is one generation of an object: the live one, a noncurrent one, or one that is soft-deleted.
type Object struct {
	Bucket, Name string
	Attrs
	Generation     int64
	Metageneration int64
	Size           int64 // bytes
	Digest         blob.Digest
	MD5            []byte // nil for a composed object and for a log that grows
	CRC32C         uint32 // Castagnoli
	Components     int    // of a composed object
	Created        time.Time
	Updated        time.Time
	Log            string // id of the file that it grows in; "" once it is finished

	Replaced    time.Time // when it ceased to be live; zero for a live one
	SoftDeleted time.Time // when it was; zero if it isn't
	HardDelete  time.Time // of a soft-deleted one: when it goes
}

var objects = objectTable("storage.object", "Object")

// objectTable is a table whose rows need their bytes and count them to their project.
func objectTable(kind, noun string) store.Table[Object] {
	return store.NewTable[Object](kind, noun).
		By(func(_ string, o Object) string { return string(o.Digest) }).
		Sum(func(tx *store.Tx, _ string, o Object) (string, int64, error) {
			b, err := getBucket(tx, o.Bucket)
			return quota.Stored(b.Project), o.Size, err
		})
}

// key is the row name of an object. A bucket's name has no slash, so rows of a bucket lie together in name order.
func key(bucket, name string) string { return bucket + "/" + name }

// Conditions are the preconditions of a request; nil is no condition. A generation of 0 means that there is no object.
type Conditions struct {
	GenerationMatch, GenerationNotMatch         *int64
	MetagenerationMatch, MetagenerationNotMatch *int64
}

func unmet(reason, name string, have int64) error {
	e := fault.New(fault.FailedPrecondition,
		"At least one of the pre-conditions you specified did not hold: %s (now %d).", name, have)
	e.Reason = reason
	return e
}

// check compares the conditions with an object; nil is none.
func (c Conditions) check(o *Object) error {
	var gen int64
	if o != nil {
		gen = o.Generation
	}
	if c.GenerationMatch != nil && *c.GenerationMatch != gen {
		return unmet(ReasonPrecondition, "ifGenerationMatch", gen)
	}
	if c.GenerationNotMatch != nil && *c.GenerationNotMatch == gen {
		return unmet(ReasonNotModified, "ifGenerationNotMatch", gen)
	}
	if o == nil {
		if c.MetagenerationMatch != nil {
			return unmet(ReasonPrecondition, "ifMetagenerationMatch", 0)
		}
		return nil
	}
	return c.CheckMeta(o.Metageneration)
}

// CheckMeta compares the conditions with a metageneration.
func (c Conditions) CheckMeta(meta int64) error {
	if c.MetagenerationMatch != nil && *c.MetagenerationMatch != meta {
		return unmet(ReasonPrecondition, "ifMetagenerationMatch", meta)
	}
	if c.MetagenerationNotMatch != nil && *c.MetagenerationNotMatch == meta {
		return unmet(ReasonNotModified, "ifMetagenerationNotMatch", meta)
	}
	return nil
}

// Insert says what object a client's bytes are to become.
type Insert struct {
	Bucket, Name string
	Attrs        Attrs
	If           Conditions
	MD5          []byte  // what the client says of its bytes; nil if nothing
	CRC32C       *uint32 // likewise
	By           string  // who began a resumable upload: its URL alone lets whoever has it go on as them
	Size         int64   `json:"-"` // what Put's bytes are announced to be; 0 if nobody says
	// MayReplace is asked when there is an object of that name, in the transaction that replaces it: to replace is to
	// delete. Nil: it may be replaced.
	MayReplace func() error `json:"-"`
}

// check refuses an insert before its bytes are read.
func (in *Insert) check() error {
	if err := checkObjectName(in.Name); err != nil {
		return err
	}
	size := 0
	for k, v := range in.Attrs.Metadata {
		size += len(k) + len(v)
	}
	if size > 8<<10 {
		return fault.Invalid("metadata", "custom metadata is limited to 8 KiB")
	}
	return nil
}

// sums are the running hashes of an object's bytes.
type sums struct {
	md5 hash.Hash
	crc hash.Hash32
	n   int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newSums() *sums { return &sums{md5: md5.New(), crc: crc32.New(castagnoli)} }

func (s *sums) Write(p []byte) (int, error) {
	s.md5.Write(p)
	s.crc.Write(p)
	s.n += int64(len(p))
	return len(p), nil
}

// Put stores what r yields as an object, in place of the one of that name. It returns when it is on disk.
func (s *Storage) Put(ctx context.Context, in Insert, r io.Reader) (_ Object, err error) {
	defer fault.Wrap(&err, "storage.Put(%.64s)", in.Bucket)
	at, err := s.admits(ctx, &in, in.Size)
	if err != nil {
		return Object{}, err
	}
	coming := s.bytes.Begin(at.project)
	defer coming.End()
	h := newSums()
	info, err := s.blobs.Put(ctx, io.TeeReader(coming.Reader(ctx, r, at.replaced), h), "")
	if err != nil {
		return Object{}, err
	}
	coming.End()
	return s.insert(ctx, in, info, h, h.md5.Sum(nil), 0)
}

// spot is where an object is to be: in which project, and in place of how many bytes, which the project then has no
// more.
type spot struct {
	project  string
	replaced int64
}

// spotOf returns where an object is to be.
func spotOf(tx *store.Tx, bucket, name string) (at spot, err error) {
	b, err := getBucket(tx, bucket)
	if err != nil {
		return at, err
	}
	at.project = b.Project
	if b.keeps() {
		return at, nil
	}
	row, err := objects.Get(tx, key(bucket, name))
	if fault.Is(err, fault.NotFound) {
		return at, nil
	}
	at.replaced = row.Value.Size
	return at, err
}

// room refuses n bytes that are announced where the platform or the project has no room for them.
func (s *Storage) room(ctx context.Context, at spot, n int64) error {
	if err := s.admit(n); err != nil || n == 0 {
		return err
	}
	return s.bytes.Admit(ctx, at.project, n-at.replaced)
}

// admits refuses what would be refused at the end anyway, before any of the n bytes that are announced is taken.
func (s *Storage) admits(ctx context.Context, in *Insert, n int64) (at spot, err error) {
	if err := in.check(); err != nil {
		return at, err
	}
	err = s.store.View(ctx, func(tx *store.Tx) error {
		if at, err = spotOf(tx, in.Bucket, in.Name); err != nil {
			return err
		}
		_, err := target(tx, *in)
		return err
	})
	if err != nil {
		return at, err
	}
	return at, s.room(ctx, at, n)
}

// target returns the object that a write would replace, nil if none, after checking bucket, conditions and whether it
// may be replaced.
func target(tx *store.Tx, in Insert) (*Object, error) {
	if _, err := getBucket(tx, in.Bucket); err != nil {
		return nil, err
	}
	row, err := objects.Get(tx, key(in.Bucket, in.Name))
	var have *Object
	switch {
	case err == nil:
		have = &row.Value
	case !fault.Is(err, fault.NotFound):
		return nil, err
	}
	err = in.If.check(have)
	if f := fault.From(err); f != nil && f.Reason == ReasonNotModified {
		f.Reason = ReasonPrecondition // for a write there is no "not modified"
	}
	if err == nil && have != nil && in.MayReplace != nil {
		err = in.MayReplace()
	}
	return have, err
}

// insert makes the row of bytes that are on disk.
func (s *Storage) insert(
	ctx context.Context, in Insert, info blob.Info, h *sums, sum []byte, components int,
) (o Object, err error) {
	if in.MD5 != nil && !bytes.Equal(in.MD5, sum) {
		return o, fault.New(fault.InvalidArgument, "Provided MD5 hash does not match the content: %x is not %x.",
			in.MD5, sum)
	}
	if in.CRC32C != nil && *in.CRC32C != h.crc.Sum32() {
		return o, fault.New(fault.InvalidArgument, "Provided CRC32C %08x does not match the content's %08x.",
			*in.CRC32C, h.crc.Sum32())
	}
	o = Object{
		Bucket:         in.Bucket,
		Name:           in.Name,
		Attrs:          in.Attrs,
		Metageneration: 1,
		Size:           info.Size,
		Digest:         info.Digest,
		MD5:            sum,
		CRC32C:         h.crc.Sum32(),
		Components:     components,
	}
	release, err := s.blobs.Hold(ctx, o.Digest) // until the row says that it is needed
	if err != nil {
		return o, err
	}
	defer release()
	var was blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		was, err = s.place(tx, &o, in)
		return err
	})
	s.release(was, err)
	return o, err
}

// release tells that an object isn't what it was any more, if what changed it went well.
func (s *Storage) release(was blob.Digest, err error) {
	if err == nil && was != "" {
		s.freed(was)
	}
}

// place writes o in place of the object of its name, and returns what is needed no more of that one.
func (s *Storage) place(tx *store.Tx, o *Object, in Insert) (was blob.Digest, err error) {
	have, err := target(tx, in)
	if err != nil {
		return "", err
	}
	b, err := getBucket(tx, in.Bucket)
	if err != nil {
		return "", err
	}
	var last int64
	if have != nil {
		last = have.Generation
		if was, err = b.retire(tx, *have, b.Versioning); err != nil {
			return "", err
		}
	}
	if o.StorageClass == "" {
		o.StorageClass = b.StorageClass
	}
	o.Replaced, o.SoftDeleted, o.HardDelete = time.Time{}, time.Time{}, time.Time{}
	o.Generation = s.generation(last)
	o.Created, o.Updated = tx.Now().UTC(), tx.Now().UTC()
	_, err = objects.Put(tx, key(o.Bucket, o.Name), *o)
	return was, err
}

// Object describes an object: the live one, or any generation that isn't soft-deleted.
func (s *Storage) Object(
	ctx context.Context, bucket, name string, generation int64, cond Conditions,
) (o Object, err error) {
	defer fault.Wrap(&err, "storage.Object(%.64s)", bucket)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		o, err = getObject(tx, bucket, name, generation, cond)
		return err
	})
	if err == nil && o.Log != "" {
		if st, e := os.Stat(s.logFile(o.Log)); e == nil {
			o.Size = st.Size()
		}
	}
	return o, err
}

// section is a file up to the size that it had when it was opened.
type section struct {
	*io.SectionReader
	io.Closer
}

func getObject(tx *store.Tx, bucket, name string, generation int64, cond Conditions) (Object, error) {
	if _, err := getBucket(tx, bucket); err != nil {
		return Object{}, err
	}
	row, err := objects.Get(tx, key(bucket, name))
	if generation != 0 && (fault.Is(err, fault.NotFound) || err == nil && row.Value.Generation != generation) {
		row, err = versions.Get(tx, versionKey(bucket, name, generation))
		if err == nil && !row.Value.SoftDeleted.IsZero() {
			err = fault.New(fault.NotFound, "soft-deleted")
		}
	}
	if fault.Is(err, fault.NotFound) {
		if c := cond.check(nil); c != nil {
			return Object{}, c
		}
		return Object{}, noObject(bucket, name, generation)
	}
	if err != nil {
		return Object{}, err
	}
	return row.Value, cond.check(&row.Value)
}

func noObject(bucket, name string, generation int64) error {
	if generation != 0 {
		return fault.New(fault.NotFound, "No such object: %s/%s#%d", clip(bucket), clip(name), generation)
	}
	return fault.New(fault.NotFound, "No such object: %s/%s", clip(bucket), clip(name))
}

// Open returns an object and its bytes, to be closed by the caller. Of a log that grows it is what there is now:
// Object.Size bytes.
func (s *Storage) Open(
	ctx context.Context, bucket, name string, generation int64, cond Conditions,
) (_ Object, _ io.ReadSeekCloser, err error) {
	defer fault.Wrap(&err, "storage.Open(%.64s)", bucket)
	for {
		o, err := s.Object(ctx, bucket, name, generation, cond)
		if err != nil {
			return Object{}, nil, err
		}
		if o.Log == "" {
			r, _, err := s.blobs.Open(ctx, o.Digest)
			return o, r, err
		}
		f, err := os.Open(s.logFile(o.Log))
		if os.IsNotExist(err) && ctx.Err() == nil {
			continue // it was finished in between: the row says so now
		}
		if err != nil {
			return Object{}, nil, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return Object{}, nil, err
		}
		o.Size = st.Size()
		return o, section{io.NewSectionReader(f, 0, o.Size), f}, nil
	}
}

// UpdateObject changes what is said of an object with fn.
func (s *Storage) UpdateObject(
	ctx context.Context, bucket, name string, generation int64, cond Conditions, fn func(*Attrs) error,
) (o Object, err error) {
	defer fault.Wrap(&err, "storage.UpdateObject(%.64s)", bucket)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if o, err = getObject(tx, bucket, name, generation, cond); err != nil {
			return err
		}
		a := o.Attrs
		a.Metadata = maps.Clone(a.Metadata)
		if err := fn(&a); err != nil {
			return err
		}
		if err := (&Insert{Name: name, Attrs: a}).check(); err != nil {
			return err
		}
		o.Attrs = a
		o.Metageneration++
		o.Updated = tx.Now().UTC()
		return putObject(tx, o)
	})
	return o, err
}

// putObject writes an object over itself.
func putObject(tx *store.Tx, o Object) (err error) {
	if o.Replaced.IsZero() && o.SoftDeleted.IsZero() {
		_, err = objects.Put(tx, key(o.Bucket, o.Name), o)
	} else {
		_, err = versions.Put(tx, versionKey(o.Bucket, o.Name, o.Generation), o)
	}
	return err
}

// Delete removes the live object, which a bucket with versioning keeps as a noncurrent one, or the generation that is
// named. What is removed for good is soft-deleted where the bucket has a policy for that.
func (s *Storage) Delete(ctx context.Context, bucket, name string, generation int64, cond Conditions) (err error) {
	defer fault.Wrap(&err, "storage.Delete(%.64s)", bucket)
	var was blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		o, err := getObject(tx, bucket, name, generation, cond)
		if err != nil {
			return err
		}
		was, err = remove(tx, o, generation == 0)
		return err
	})
	s.release(was, err)
	return err
}

// remove deletes the row of an object; archive leaves a noncurrent one where the bucket has versions.
func remove(tx *store.Tx, o Object, archive bool) (was blob.Digest, err error) {
	b, err := getBucket(tx, o.Bucket)
	if err != nil {
		return "", err
	}
	if o.Replaced.IsZero() {
		err = objects.Delete(tx, key(o.Bucket, o.Name))
	} else {
		err = versions.Delete(tx, versionKey(o.Bucket, o.Name, o.Generation))
	}
	if err != nil {
		return "", err
	}
	return b.retire(tx, o, archive && b.Versioning)
}

// Source names an object that is read to make another.
type Source struct {
	Bucket, Name string
	Generation   int64 // 0 for the present one
	If           Conditions
}

// Copy makes an object of the same bytes. Attrs nil keeps those of the source.
func (s *Storage) Copy(ctx context.Context, from Source, to Insert, attrs *Attrs) (o Object, err error) {
	defer fault.Wrap(&err, "storage.Copy(%.64s)", from.Bucket)
	if err := to.check(); err != nil {
		return o, err
	}
	var was blob.Digest
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		src, err := getObject(tx, from.Bucket, from.Name, from.Generation, from.If)
		if err != nil {
			return err
		}
		if src.Log != "" {
			return stillWritten(src)
		}
		o = src
		o.Bucket, o.Name, o.Metageneration = to.Bucket, to.Name, 1
		o.StorageClass = "" // that of the bucket
		if attrs != nil {
			o.Attrs = *attrs
		}
		was, err = s.place(tx, &o, to)
		return err
	})
	s.release(was, err)
	return o, err
}

// MaxComponents is how many objects one Compose takes.
const MaxComponents = 32

// Compose makes an object of the bytes of others in the same bucket, one after the other. It has no MD5.
func (s *Storage) Compose(ctx context.Context, to Insert, from []Source) (_ Object, err error) {
	defer fault.Wrap(&err, "storage.Compose(%.64s)", to.Bucket)
	if len(from) == 0 || len(from) > MaxComponents {
		return Object{}, fault.Invalid("sourceObjects", "the number of source components must be 1 to %d, not %d",
			MaxComponents, len(from))
	}
	var readers []io.Reader
	components := 0
	to.Size = 0
	for _, f := range from {
		o, r, err := s.Open(ctx, to.Bucket, f.Name, f.Generation, f.If)
		if err != nil {
			return Object{}, err
		}
		defer r.Close()
		readers = append(readers, io.LimitReader(r, o.Size))
		components += max(1, o.Components)
		to.Size += o.Size
	}
	at, err := s.admits(ctx, &to, to.Size)
	if err != nil {
		return Object{}, err
	}
	coming := s.bytes.Begin(at.project)
	defer coming.End()
	h := newSums()
	info, err := s.blobs.Put(ctx, io.TeeReader(coming.Reader(ctx, io.MultiReader(readers...), at.replaced), h), "")
	if err != nil {
		return Object{}, err
	}
	coming.End()
	return s.insert(ctx, to, info, h, nil, components)
}

// checkObjectName holds the rules of https://cloud.google.com/storage/docs/objects#naming.
func checkObjectName(name string) error {
	switch {
	case name == "" || len(name) > 1024 || !utf8.ValidString(name):
		return fault.Invalid("name", "an object name has 1 to 1024 bytes of valid UTF-8")
	case name == "." || name == ".." || strings.ContainsAny(name, "\r\n\x00") ||
		strings.HasPrefix(name, ".well-known/acme-challenge/"):
		return fault.Invalid("name", "the object name %q is not allowed", clip(name))
	}
	return nil
}
