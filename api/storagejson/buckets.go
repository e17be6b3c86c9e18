package storagejson

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/storage"
)

// kept are the settings of a bucket that Giggle keeps and returns, though nothing depends on them here: access is
// always uniform, and browsers reach objects by the console only.
var kept = []string{"iamConfiguration", "cors", "website", "rpo"}

// refused are the settings that would change what happens to objects. They may be sent empty or false.
var refused = []string{
	"acl", "defaultObjectAcl", "autoclass", "billing", "customPlacementConfig", "defaultEventBasedHold", "encryption",
	"hierarchicalNamespace",
	"ipFilter", "lifecycle", "logging", "objectRetention", "retentionPolicy",
}

// bucketBody is a bucket as a client sends it, field by field.
type bucketBody map[string]json.RawMessage

func readBucket(r *rest.Request) (bucketBody, error) {
	raw, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	if err := refuse(r.Query); err != nil {
		return nil, err
	}
	if err := strict(raw, new(bucketFields)); err != nil {
		return nil, err
	}
	body := bucketBody{}
	if err := strict(raw, &body); err != nil {
		return nil, err
	}
	for _, name := range refused {
		if v, ok := body[name]; ok && meant(v) {
			return nil, fault.NotImplemented(name, "Giggle's buckets have no such setting.")
		}
	}
	return body, nil
}

// meant reports whether a JSON value says anything: false, null, "", "0", 0, and what is made of them only, do not.
func meant(raw json.RawMessage) bool {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return true
	}
	return meantValue(v)
}

func meantValue(v any) bool {
	switch t := v.(type) {
	case map[string]any:
		for _, e := range t {
			if meantValue(e) {
				return true
			}
		}
		return false
	case []any:
		return len(t) > 0
	case string:
		return t != "" && t != "0"
	case float64:
		return t != 0
	case bool:
		return t
	}
	return false
}

// text reads a field of the body as a string, "" if it is absent.
func (b bucketBody) text(name string) (s string, err error) {
	if raw, ok := b[name]; ok {
		if json.Unmarshal(raw, &s) != nil {
			return "", fault.Invalid(name, "Invalid value: want a string.")
		}
	}
	return s, nil
}

// apply changes a bucket as a JSON merge patch does (RFC 7396): null takes away.
func (b bucketBody) apply(to *storage.Bucket) error {
	if raw, ok := b["labels"]; ok {
		var labels map[string]*string
		if json.Unmarshal(raw, &labels) != nil {
			return fault.Invalid("labels", "Invalid value: want an object of strings.")
		}
		if labels == nil {
			to.Labels = nil
		}
		out := map[string]string{}
		for k, v := range to.Labels {
			out[k] = v
		}
		for k, v := range labels {
			if v == nil {
				delete(out, k)
				continue
			}
			out[k] = *v
		}
		to.Labels = out
	}
	if _, ok := b["storageClass"]; ok {
		class, err := b.text("storageClass")
		if err != nil {
			return err
		}
		if err := checkClass(class); err != nil {
			return err
		}
		to.StorageClass = class
	}
	if raw, ok := b["versioning"]; ok {
		var v struct{ Enabled bool }
		_ = json.Unmarshal(raw, &v) // it is a bucketFields
		to.Versioning = v.Enabled
	}
	if raw, ok := b["softDeletePolicy"]; ok {
		var err error
		if to.SoftDelete, err = softDelete(raw, to.SoftDelete); err != nil {
			return err
		}
	}
	config := map[string]json.RawMessage{}
	for k, v := range to.Config {
		config[k] = v
	}
	for _, name := range kept {
		raw, ok := b[name]
		switch {
		case !ok:
		case bytes.Equal(bytes.TrimSpace(raw), []byte("null")):
			delete(config, name)
		default:
			config[name] = raw
		}
	}
	to.Config = config
	return nil
}

// softDelete reads a soft delete policy, null for none; otherwise is the duration where it names none. Its values are
// those of https://cloud.google.com/storage/docs/soft-delete#retention-duration.
func softDelete(raw json.RawMessage, otherwise time.Duration) (time.Duration, error) {
	var p *struct{ RetentionDurationSeconds json.RawMessage }
	if json.Unmarshal(raw, &p) != nil || p == nil {
		return 0, nil
	}
	if p.RetentionDurationSeconds == nil {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(strings.Trim(string(p.RetentionDurationSeconds), `"`), 10, 64)
	most, least := int64(storage.MaxSoftDelete/time.Second), int64(storage.DefaultSoftDelete/time.Second)
	if err != nil || n != 0 && (n < least || n > most) {
		return 0, fault.Invalid("softDeletePolicy.retentionDurationSeconds",
			"Invalid value: want 0, or %d to %d seconds (7 to 90 days).", least, most)
	}
	return time.Duration(n) * time.Second, nil
}

// classes are the storage classes, the legacy ones included.
var classes = []string{
	"STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY",
}

func checkClass(class string) error {
	if class != "" && !slices.Contains(classes, class) {
		return fault.Invalid("storageClass", "Invalid value: the storage class %.40q is none of %s.", class,
			strings.Join(classes, ", "))
	}
	return nil
}

// defaultIAM is what a bucket has that said nothing of access: there are no ACLs here, so it is uniform.
const defaultIAM = `{"bucketPolicyOnly":{"enabled":true},"uniformBucketLevelAccess":{"enabled":true},"publicAccessPrevention":"inherited"}`

func (s *Server) bucketResource(base string, b storage.Bucket) (map[string]any, error) {
	p, err := s.Project(b.Project)
	if err != nil {
		return nil, err
	}
	kind := "multi-region"
	if resource.IsRegion(strings.ToLower(b.Location)) {
		kind = "region"
	}
	out := map[string]any{
		"kind": "storage#bucket", "id": b.Name, "name": b.Name, "selfLink": base + "/storage/v1/b/" + b.Name,
		"projectNumber": p.Number,
		"generation":    fmt.Sprint(b.Generation), "metageneration": fmt.Sprint(b.Metageneration),
		"etag":     etag(b.Generation, b.Metageneration),
		"location": b.Location, "locationType": kind, "storageClass": b.StorageClass,
		"timeCreated": stamp(b.Created), "updated": stamp(b.Updated), "iamConfiguration": json.RawMessage(defaultIAM),
	}
	if len(b.Labels) > 0 {
		out["labels"] = b.Labels
	}
	if b.Versioning {
		out["versioning"] = map[string]bool{"enabled": true}
	}
	policy := map[string]string{"retentionDurationSeconds": fmt.Sprint(int64(b.SoftDelete / time.Second))}
	if b.SoftDelete > 0 {
		policy["effectiveTime"] = stamp(b.SoftDeleteFrom)
	}
	out["softDeletePolicy"] = policy
	for _, k := range kept {
		if v, ok := b.Config[k]; ok {
			out[k] = v
		}
	}
	return out, nil
}

// stamp is a time as the JSON API writes it, in milliseconds.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func (s *Server) listBuckets(ctx context.Context, r *rest.Request) (any, error) {
	p, err := s.Project(r.Query.Get("project"))
	if err != nil {
		return nil, err
	}
	limit, err := pageSize(r.Query)
	if err != nil {
		return nil, err
	}
	query := "buckets/" + p.ID + "/" + r.Query.Get("prefix")
	after, err := s.Pages.Last(query, r.Query.Get("pageToken"))
	if err != nil {
		return nil, err
	}
	found, more, err := s.Storage.Buckets(ctx, p.ID, r.Query.Get("prefix"), after, limit)
	if err != nil {
		return nil, err
	}
	items := []any{}
	if soft, err := flag(r.Query, "softDeleted"); err != nil {
		return nil, err
	} else if soft {
		found, more = nil, false // what is in a bucket is, but no bucket ever
	}
	for _, b := range found {
		item, err := s.bucketResource(s.base(r.Request), b)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	out := map[string]any{"kind": "storage#buckets", "items": items}
	if more {
		out["nextPageToken"] = s.Pages.Token(query, found[len(found)-1].Name)
	}
	return out, nil
}

func (s *Server) insertBucket(ctx context.Context, r *rest.Request) (any, error) {
	p, err := s.Project(r.Query.Get("project"))
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(r.Query.Get("enableObjectRetention"), "true") {
		return nil, fault.NotImplemented("enableObjectRetention", "Giggle's buckets have no object retention.")
	}
	body, err := readBucket(r)
	if err != nil {
		return nil, err
	}
	b := storage.Bucket{Project: p.ID, SoftDelete: storage.DefaultSoftDelete}
	if b.Name, err = body.text("name"); err != nil {
		return nil, err
	}
	if b.Location, err = body.text("location"); err != nil {
		return nil, err
	}
	if err := body.apply(&b); err != nil {
		return nil, err
	}
	if b, err = s.Storage.CreateBucket(ctx, b); err != nil {
		return nil, err
	}
	return s.bucketResource(s.base(r.Request), b)
}

func (s *Server) getBucket(ctx context.Context, r *rest.Request) (any, error) {
	cond, err := conditions(r.Query, "")
	if err != nil {
		return nil, err
	}
	generation, err := number(r.Query, "generation", 0)
	if err != nil {
		return nil, err
	}
	soft, err := flag(r.Query, "softDeleted")
	if err != nil {
		return nil, err
	}
	b, err := s.Storage.Bucket(ctx, r.Params["bucket"])
	if err != nil {
		return nil, err
	}
	if soft || generation != 0 && generation != b.Generation {
		return nil, fault.New(fault.NotFound, "The specified bucket %q has no such generation.", b.Name)
	}
	if err := cond.CheckMeta(b.Metageneration); err != nil {
		return nil, err
	}
	return s.bucketResource(s.base(r.Request), b)
}

// storageLayout is what gcloud asks before it lists: whether a bucket has real folders. None has.
func (s *Server) storageLayout(ctx context.Context, r *rest.Request) (any, error) {
	b, err := s.Storage.Bucket(ctx, r.Params["bucket"])
	if err != nil {
		return nil, err
	}
	full, err := s.bucketResource("", b)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"kind": "storage#storageLayout", "bucket": b.Name, "location": b.Location, "locationType": full["locationType"],
		"hierarchicalNamespace": map[string]bool{"enabled": false},
	}, nil
}

func (s *Server) patchBucket(ctx context.Context, r *rest.Request) (any, error) {
	return s.changeBucket(ctx, r, false)
}

func (s *Server) updateBucket(ctx context.Context, r *rest.Request) (any, error) {
	return s.changeBucket(ctx, r, true)
}

// changeBucket patches a bucket, or replaces all that can be said of it.
func (s *Server) changeBucket(ctx context.Context, r *rest.Request, replace bool) (any, error) {
	cond, err := conditions(r.Query, "")
	if err != nil {
		return nil, err
	}
	body, err := readBucket(r)
	if err != nil {
		return nil, err
	}
	b, err := s.Storage.UpdateBucket(ctx, r.Params["bucket"], cond, func(b *storage.Bucket) error {
		if replace {
			b.Labels, b.Config, b.Versioning = nil, nil, false
		}
		return body.apply(b)
	})
	if err != nil {
		return nil, err
	}
	return s.bucketResource(s.base(r.Request), b)
}

func (s *Server) deleteBucket(ctx context.Context, r *rest.Request) (any, error) {
	cond, err := conditions(r.Query, "")
	if err != nil {
		return nil, err
	}
	if err := s.Storage.DeleteBucket(ctx, r.Params["bucket"], cond); err != nil {
		return nil, err
	}
	return noContent, nil
}
