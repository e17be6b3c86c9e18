package storagejson

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"giggle/fault"
	"giggle/rest"
	"giggle/storage"
)

// objectResource is an object as the JSON API writes it.
type objectResource struct {
	Kind               string            `json:"kind"`
	ID                 string            `json:"id"`
	SelfLink           string            `json:"selfLink"`
	MediaLink          string            `json:"mediaLink"`
	Name               string            `json:"name"`
	Bucket             string            `json:"bucket"`
	Generation         int64             `json:"generation,string"`
	Metageneration     int64             `json:"metageneration,string"`
	ContentType        string            `json:"contentType,omitempty"`
	ContentEncoding    string            `json:"contentEncoding,omitempty"`
	ContentDisposition string            `json:"contentDisposition,omitempty"`
	ContentLanguage    string            `json:"contentLanguage,omitempty"`
	CacheControl       string            `json:"cacheControl,omitempty"`
	StorageClass       string            `json:"storageClass"`
	Size               int64             `json:"size,string"`
	MD5Hash            string            `json:"md5Hash,omitempty"`
	CRC32C             string            `json:"crc32c,omitempty"`
	Etag               string            `json:"etag"`
	ComponentCount     int               `json:"componentCount,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	CustomTime         string            `json:"customTime,omitempty"`
	TimeCreated        string            `json:"timeCreated"`
	Updated            string            `json:"updated"`
	TimeFinalized      string            `json:"timeFinalized,omitempty"`
	TimeClass          string            `json:"timeStorageClassUpdated"`
	TimeDeleted        string            `json:"timeDeleted,omitempty"`
	SoftDeleteTime     string            `json:"softDeleteTime,omitempty"`
	HardDeleteTime     string            `json:"hardDeleteTime,omitempty"`
}

func etag(generation, meta int64) string {
	b := binary.AppendVarint(binary.AppendVarint([]byte{8}, generation), meta)
	return base64.StdEncoding.EncodeToString(b)
}

func crc(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func newObjectResource(base string, o storage.Object) objectResource {
	path := fmt.Sprintf("/storage/v1/b/%s/o/%s", o.Bucket, url.PathEscape(o.Name))
	out := objectResource{
		Kind:               "storage#object",
		ID:                 fmt.Sprintf("%s/%s/%d", o.Bucket, o.Name, o.Generation),
		SelfLink:           base + path,
		MediaLink:          fmt.Sprintf("%s/download%s?generation=%d&alt=media", base, path, o.Generation),
		Name:               o.Name,
		Bucket:             o.Bucket,
		Generation:         o.Generation,
		Metageneration:     o.Metageneration,
		ContentType:        o.ContentType,
		ContentEncoding:    o.ContentEncoding,
		ContentDisposition: o.ContentDisposition,
		ContentLanguage:    o.ContentLanguage,
		CacheControl:       o.CacheControl,
		StorageClass:       o.StorageClass,
		Size:               o.Size,
		Etag:               etag(o.Generation, o.Metageneration),
		ComponentCount:     o.Components,
		Metadata:           o.Metadata,
		TimeCreated:        stamp(o.Created),
		Updated:            stamp(o.Updated),
		TimeClass:          stamp(o.Created),
	}
	if o.Log == "" { // what grows has no hash yet
		out.CRC32C, out.TimeFinalized = crc(o.CRC32C), stamp(o.Created)
	}
	if o.MD5 != nil {
		out.MD5Hash = base64.StdEncoding.EncodeToString(o.MD5)
	}
	for _, t := range []struct {
		at time.Time
		to *string
	}{
		{o.CustomTime, &out.CustomTime}, {o.Replaced, &out.TimeDeleted}, {o.SoftDeleted, &out.SoftDeleteTime},
		{o.HardDelete, &out.HardDeleteTime},
	} {
		if !t.at.IsZero() {
			*t.to = stamp(t.at)
		}
	}
	return out
}

// objectBody is an object as a client sends it. A pointer tells "" and absent apart; a null of metadata takes a key
// away.
type objectBody struct {
	Name               string             `json:"name"`
	Bucket             string             `json:"bucket"`
	ContentType        *string            `json:"contentType"`
	ContentEncoding    *string            `json:"contentEncoding"`
	ContentDisposition *string            `json:"contentDisposition"`
	ContentLanguage    *string            `json:"contentLanguage"`
	CacheControl       *string            `json:"cacheControl"`
	StorageClass       *string            `json:"storageClass"`
	CustomTime         *time.Time         `json:"customTime"`
	Metadata           map[string]*string `json:"metadata"`
	MD5Hash            string             `json:"md5Hash"`
	CRC32C             string             `json:"crc32c"`

	// What Giggle does not do.
	ACL       json.RawMessage `json:"acl"`
	Retention json.RawMessage `json:"retention"`
	EventHold bool            `json:"eventBasedHold"`
	TempHold  bool            `json:"temporaryHold"`
	KMSKey    string          `json:"kmsKeyName"`
	Contexts  json.RawMessage `json:"contexts"`

	objectFields // what only the server sets

	present bool     // whether the client sent a body at all
	nulls   []string // the fields that are null: a patch takes them away
}

func parseObjectBody(raw []byte) (b objectBody, err error) {
	if len(strings.TrimSpace(string(raw))) == 0 {
		return b, nil
	}
	if err := strict(raw, &b); err != nil {
		return b, err
	}
	var each map[string]json.RawMessage
	if err := strict(raw, &each); err != nil {
		return b, err
	}
	for name, v := range each {
		if string(v) == "null" {
			b.nulls = append(b.nulls, name)
		}
	}
	if b.StorageClass != nil {
		if err := checkClass(*b.StorageClass); err != nil {
			return b, err
		}
	}
	b.present = true
	for name, on := range map[string]bool{
		"acl": meantOrNone(b.ACL), "retention": meantOrNone(b.Retention), "eventBasedHold": b.EventHold,
		"temporaryHold": b.TempHold,
		"kmsKeyName":    b.KMSKey != "", "contexts": meantOrNone(b.Contexts),
	} {
		if on {
			return b, fault.NotImplemented(name, "Giggle's objects have no such setting.")
		}
	}
	return b, nil
}

func meantOrNone(raw json.RawMessage) bool { return raw != nil && meant(raw) }

func readObjectBody(r *rest.Request) (objectBody, error) {
	raw, err := r.ReadBody()
	if err != nil {
		return objectBody{}, err
	}
	return parseObjectBody(raw)
}

// apply changes what is said of an object, as a JSON merge patch does (RFC 7396): null takes away.
func (b *objectBody) apply(a *storage.Attrs) {
	for _, f := range []struct {
		name string
		from *string
		to   *string
	}{
		{"contentType", b.ContentType, &a.ContentType},
		{"contentEncoding", b.ContentEncoding, &a.ContentEncoding},
		{"contentDisposition", b.ContentDisposition, &a.ContentDisposition},
		{"contentLanguage", b.ContentLanguage, &a.ContentLanguage},
		{"cacheControl", b.CacheControl, &a.CacheControl},
		{"storageClass", b.StorageClass, &a.StorageClass},
	} {
		switch {
		case f.from != nil:
			*f.to = *f.from
		case f.name != "storageClass" && slices.Contains(b.nulls, f.name):
			*f.to = ""
		}
	}
	if slices.Contains(b.nulls, "metadata") {
		a.Metadata = nil
	}
	if b.CustomTime != nil {
		a.CustomTime = b.CustomTime.UTC()
	}
	for k, v := range b.Metadata {
		if v == nil {
			delete(a.Metadata, k)
			continue
		}
		if a.Metadata == nil {
			a.Metadata = map[string]string{}
		}
		a.Metadata[k] = *v
	}
}

// hashes reads the hashes that a client gives of its bytes: base64, of 16 and 4 bytes.
func hashes(in *storage.Insert, md5Hash, crc32c string) error {
	if md5Hash != "" {
		b, err := base64.StdEncoding.DecodeString(md5Hash)
		if err != nil || len(b) != 16 {
			return fault.Invalid("md5Hash", "Invalid value: want the base64 of 16 bytes.")
		}
		in.MD5 = b
	}
	if crc32c != "" {
		b, err := base64.StdEncoding.DecodeString(crc32c)
		if err != nil || len(b) != 4 {
			return fault.Invalid("crc32c", "Invalid value: want the base64 of 4 bytes.")
		}
		n := binary.BigEndian.Uint32(b)
		in.CRC32C = &n
	}
	return nil
}

// listing is the answer of objects.list.
type listing struct {
	Kind     string           `json:"kind"`
	Next     string           `json:"nextPageToken,omitempty"`
	Prefixes []string         `json:"prefixes,omitempty"`
	Items    []objectResource `json:"items,omitempty"`
}

func (s *Server) listObjects(ctx context.Context, r *rest.Request) (any, error) {
	q := r.Query
	if q.Get("filter") != "" {
		return nil, fault.NotImplemented("filter", "Giggle's objects have no contexts to filter by.")
	}
	if err := refuse(q); err != nil {
		return nil, err
	}
	limit, err := pageSize(q)
	if err != nil {
		return nil, err
	}
	query := storage.Query{
		Bucket:      r.Params["bucket"],
		Prefix:      q.Get("prefix"),
		Delimiter:   q.Get("delimiter"),
		StartOffset: q.Get("startOffset"),
		EndOffset:   q.Get("endOffset"),
		Limit:       limit,
	}
	folders := false // there are none but those that objects make
	for name, to := range map[string]*bool{
		"includeTrailingDelimiter": &query.Trailing, "versions": &query.Versions, "softDeleted": &query.SoftDeleted,
		"includeFoldersAsPrefixes": &folders,
	} {
		if *to, err = flag(q, name); err != nil {
			return nil, err
		}
	}
	switch {
	case query.Versions && query.SoftDeleted:
		return nil, fault.Invalid("softDeleted", "Invalid argument: softDeleted and versions exclude each other.")
	case folders && query.Delimiter != "/":
		return nil, fault.Invalid("includeFoldersAsPrefixes", "Invalid argument: it goes with the delimiter / only.")
	}
	if glob := q.Get("matchGlob"); glob != "" {
		if query.Delimiter != "" && query.Delimiter != "/" {
			return nil, fault.Invalid("matchGlob", "Invalid argument: it goes with the delimiter / only.")
		}
		if query.Match, err = parseGlob(glob); err != nil {
			return nil, err
		}
	}
	same := strings.Join([]string{"objects", query.Bucket, query.Prefix, query.Delimiter, query.StartOffset,
		query.EndOffset, q.Get("matchGlob"), fmt.Sprint(query.Versions, query.SoftDeleted)}, "\x00")
	if query.After, err = s.Pages.Last(same, q.Get("pageToken")); err != nil {
		return nil, err
	}
	out := listing{Kind: "storage#objects"}
	page, err := s.Storage.List(ctx, query)
	if err != nil {
		return nil, err
	}
	out.Prefixes = page.Prefixes
	for _, o := range page.Objects {
		out.Items = append(out.Items, newObjectResource(s.base(r.Request), o))
	}
	out.Next = s.Pages.Token(same, page.Next)
	return out, nil
}

// which reads what object a request means, and under which conditions.
func which(r *rest.Request) (bucket, name string, generation int64, cond storage.Conditions, err error) {
	bucket, name = r.Params["bucket"], r.Params["object"]
	if err = refuse(r.Query); err != nil {
		return
	}
	if generation, err = number(r.Query, "generation", 0); err != nil {
		return
	}
	cond, err = conditions(r.Query, "")
	return
}

func (s *Server) getObject(ctx context.Context, r *rest.Request) (any, error) {
	if r.Media {
		return s.download(ctx, r)
	}
	bucket, name, generation, cond, err := which(r)
	if err != nil {
		return nil, err
	}
	soft, err := flag(r.Query, "softDeleted")
	if err != nil {
		return nil, err
	}
	if soft && generation == 0 {
		return nil, fault.Invalid("generation", "Required: a soft-deleted object is named by its generation, too.")
	}
	var o storage.Object
	if soft {
		if o, err = s.Storage.SoftDeleted(ctx, bucket, name, generation); err == nil {
			err = cond.CheckMeta(o.Metageneration)
		}
	} else {
		o, err = s.Storage.Object(ctx, bucket, name, generation, cond)
	}
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}

func (s *Server) patchObject(ctx context.Context, r *rest.Request) (any, error) {
	bucket, name, generation, cond, err := which(r)
	if err != nil {
		return nil, err
	}
	body, err := readObjectBody(r)
	if err != nil {
		return nil, err
	}
	o, err := s.Storage.UpdateObject(ctx, bucket, name, generation, cond, func(a *storage.Attrs) error {
		had := a.CustomTime
		if r.Method == "PUT" {
			*a = storage.Attrs{StorageClass: a.StorageClass, CustomTime: had}
		}
		body.apply(a)
		if a.CustomTime.Before(had) || slices.Contains(body.nulls, "customTime") && !had.IsZero() {
			return fault.Invalid("customTime", "Custom time cannot be removed or set to an earlier time.")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}

func (s *Server) deleteObject(ctx context.Context, r *rest.Request) (any, error) {
	bucket, name, generation, cond, err := which(r)
	if err != nil {
		return nil, err
	}
	if err := s.Storage.Delete(ctx, bucket, name, generation, cond); err != nil {
		return nil, err
	}
	return noContent, nil
}

func (s *Server) copyObject(ctx context.Context, r *rest.Request) (any, error) {
	o, err := s.copied(ctx, r)
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}

// rewrite is the answer of objects.rewrite. A copy is one row here, so it is always done.
type rewrite struct {
	Kind     string         `json:"kind"`
	Written  int64          `json:"totalBytesRewritten,string"`
	Size     int64          `json:"objectSize,string"`
	Done     bool           `json:"done"`
	Resource objectResource `json:"resource"`
}

func (s *Server) rewriteObject(ctx context.Context, r *rest.Request) (any, error) {
	o, err := s.copied(ctx, r)
	if err != nil {
		return nil, err
	}
	return rewrite{"storage#rewriteResponse", o.Size, o.Size, true, newObjectResource(s.base(r.Request), o)}, nil
}

func (s *Server) copied(ctx context.Context, r *rest.Request) (o storage.Object, err error) {
	if err := refuse(r.Query); err != nil {
		return o, err
	}
	if n, err := number(r.Query, "maxBytesRewrittenPerCall", 1<<20); err != nil || n == 0 || n%(1<<20) != 0 {
		return o, fault.Invalid("maxBytesRewrittenPerCall", "Invalid value: want a multiple of 1 MiB.")
	}
	if r.Query.Get("rewriteToken") != "" { // no rewrite goes on in a second call
		return o, fault.Invalid("rewriteToken", "Invalid value: it is no token that was given out.")
	}
	from := storage.Source{Bucket: r.Params["bucket"], Name: r.Params["object"]}
	to := storage.Insert{Bucket: r.Params["destinationBucket"], Name: r.Params["destinationObject"]}
	to.MayReplace = s.mayReplace(ctx, to.Bucket, to.Name)
	if err := s.Allow(ctx, "storage.objects.get", from.Bucket, from.Name); err != nil {
		return o, err
	}
	if from.Generation, err = number(r.Query, "sourceGeneration", 0); err != nil {
		return o, err
	}
	if from.If, err = conditions(r.Query, "Source"); err != nil {
		return o, err
	}
	if to.If, err = conditions(r.Query, ""); err != nil {
		return o, err
	}
	body, err := readObjectBody(r)
	if err != nil {
		return o, err
	}
	var attrs *storage.Attrs
	if body.present {
		attrs = &storage.Attrs{}
		if body.ContentType == nil { // a body without a type keeps the source's
			src, err := s.Storage.Object(ctx, from.Bucket, from.Name, from.Generation, storage.Conditions{})
			if err != nil {
				return o, err
			}
			attrs.ContentType = src.ContentType
		}
		body.apply(attrs)
	}
	return s.Storage.Copy(ctx, from, to, attrs)
}

func (s *Server) moveObject(ctx context.Context, r *rest.Request) (any, error) {
	from := storage.Source{Bucket: r.Params["bucket"], Name: r.Params["object"]}
	to := storage.Insert{Bucket: from.Bucket, Name: r.Params["destinationObject"]}
	to.MayReplace = s.mayReplace(ctx, to.Bucket, to.Name)
	err := refuse(r.Query)
	if err == nil {
		err = s.Allow(ctx, "storage.objects.create", to.Bucket, to.Name)
	}
	if err == nil {
		from.If, err = conditions(r.Query, "Source")
	}
	if err == nil {
		to.If, err = conditions(r.Query, "")
	}
	if err != nil {
		return nil, err
	}
	o, err := s.Storage.Move(ctx, from, to)
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}

func (s *Server) restoreObject(ctx context.Context, r *rest.Request) (any, error) {
	bucket, name, generation, cond, err := which(r)
	if err != nil {
		return nil, err
	}
	if generation == 0 {
		return nil, fault.Invalid("generation", "Required: which generation is to be restored.")
	}
	if err := s.Allow(ctx, "storage.objects.create", bucket, name); err != nil {
		return nil, err
	}
	if _, err := flag(r.Query, "copySourceAcl"); err != nil { // there is none
		return nil, err
	}
	o, err := s.Storage.Restore(ctx, generation, storage.Insert{
		Bucket:     bucket,
		Name:       name,
		If:         cond,
		MayReplace: s.mayReplace(ctx, bucket, name),
	})
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}

// composeBody is the body of objects.compose.
type composeBody struct {
	Kind        text            `json:"kind"`
	Destination json.RawMessage `json:"destination"`
	Sources     []struct {
		Name          string `json:"name"`
		Generation    int64  `json:"generation,string"`
		Preconditions struct {
			GenerationMatch *int64 `json:"ifGenerationMatch,string"`
		} `json:"objectPreconditions"`
	} `json:"sourceObjects"`
	DeleteSources bool `json:"deleteSourceObjects"`
}

func (s *Server) compose(ctx context.Context, r *rest.Request) (any, error) {
	to := storage.Insert{Bucket: r.Params["bucket"], Name: r.Params["object"]}
	to.MayReplace = s.mayReplace(ctx, to.Bucket, to.Name)
	raw, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	if err := refuse(r.Query); err != nil {
		return nil, err
	}
	var body composeBody
	if err := strict(raw, &body); err != nil {
		return nil, err
	}
	if body.DeleteSources {
		return nil, fault.NotImplemented("deleteSourceObjects", "Delete the sources with a request of their own.")
	}
	dest, err := parseObjectBody(body.Destination)
	if err != nil {
		return nil, err
	}
	if dest.Bucket != "" && dest.Bucket != to.Bucket || dest.Name != "" && dest.Name != to.Name {
		return nil, fault.Invalid("destination", "It is not the object that the request's path names.")
	}
	dest.apply(&to.Attrs) // not its crc32c: gcloud 528 sends that of the first component
	if to.If, err = conditions(r.Query, ""); err != nil {
		return nil, err
	}
	if len(body.Sources) > storage.MaxComponents {
		return nil, fault.Invalid("sourceObjects", "has %d objects, and may have %d.", len(body.Sources),
			storage.MaxComponents)
	}
	var from []storage.Source
	for _, src := range body.Sources {
		if err := s.Allow(ctx, "storage.objects.get", to.Bucket, src.Name); err != nil {
			return nil, err
		}
		from = append(from, storage.Source{Bucket: to.Bucket, Name: src.Name, Generation: src.Generation,
			If: storage.Conditions{GenerationMatch: src.Preconditions.GenerationMatch}})
	}
	o, err := s.Storage.Compose(ctx, to, from)
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}
