package storagejson

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/logging/audit"
	"giggle/rest"
	"giggle/storage"
)

// maxMetadata is the largest metadata part of an upload, in bytes.
const maxMetadata = 256 << 10

// startUpload answers POST …/o: the whole object (media, multipart), or the beginning of a resumable upload.
func (s *Server) startUpload(ctx context.Context, r *rest.Request) (any, error) {
	q := r.Query
	if r.System.Get("upload_id") != "" { // Google's Go clients send the pieces with POST
		return s.continueUpload(ctx, r)
	}
	in := storage.Insert{Bucket: r.Params["bucket"], Name: q.Get("name")}
	if in.Name != "" { // else the metadata has it, which is the beginning of the body
		if err := s.mayInsert(ctx, &in); err != nil {
			return nil, err
		}
	}
	var err error
	if in.If, err = conditions(q, ""); err != nil {
		return nil, err
	}
	if r.Header.Get("X-Goog-Encryption-Algorithm") != "" {
		return nil, fault.NotImplemented("x-goog-encryption-algorithm", "Giggle has no customer-supplied keys.")
	}
	if err := refuse(q); err != nil {
		return nil, err
	}
	if e := q.Get("contentEncoding"); e != "" {
		in.Attrs.ContentEncoding = e
	}
	switch r.System.Get("uploadType") {
	case "media":
		in.Attrs.ContentType = r.Header.Get("Content-Type")
		if err := headerHashes(&in, r.Header); err != nil {
			return nil, err
		}
		if in.Name == "" {
			return nil, fault.Invalid("name", "Required: an upload needs the name of its object.")
		}
		if r.Header.Get("Content-Encoding") == "" {
			in.Size = max(r.ContentLength, 0)
		}
		return s.put(ctx, r, in, r.Body)
	case "multipart":
		return s.multipart(ctx, r, in)
	case "resumable":
		return s.startResumable(ctx, r, in)
	}
	return nil, fault.Invalid("uploadType", "Invalid value: want media, multipart or resumable, not %.40q.",
		r.System.Get("uploadType"))
}

// mayInsert fails when the caller may not create the object that an insert names, wherever its name stood: only a name
// in the query was authorised before. To replace one takes the permission to delete it, too
// (https://cloud.google.com/storage/docs/access-control/iam-json).
func (s *Server) mayInsert(ctx context.Context, in *storage.Insert) error {
	in.MayReplace = s.mayReplace(ctx, in.Bucket, in.Name)
	audit.Note(ctx, func(e *audit.Event) {
		e.Resource = "projects/_/buckets/" + in.Bucket + "/objects/" + in.Name
	})
	return s.Allow(ctx, "storage.objects.create", in.Bucket, in.Name)
}

// mayReplace asks whether the caller may replace an object.
func (s *Server) mayReplace(ctx context.Context, bucket, name string) func() error {
	return func() error { return s.Allow(ctx, "storage.objects.delete", bucket, name) }
}

// put stores one body.
func (s *Server) put(ctx context.Context, r *rest.Request, in storage.Insert, body io.Reader) (any, error) {
	body, err := decoded(r.Header, body)
	if err != nil {
		return nil, err
	}
	o, err := s.Storage.Put(ctx, in, fromClient{body})
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}

// decoded undoes a compression in flight, which is no property of the object.
func decoded(h http.Header, body io.Reader) (io.Reader, error) {
	if !strings.EqualFold(h.Get("Content-Encoding"), "gzip") {
		return body, nil
	}
	z, err := gzip.NewReader(body)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "The body is not valid gzip.")
	}
	return z, nil
}

// fromClient marks the errors of reading a body as the client's, so that a broken connection is no failure of ours.
type fromClient struct{ r io.Reader }

func (c fromClient) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		var known *fault.Error
		if !errors.As(err, &known) {
			err = &fault.Error{Code: fault.InvalidArgument, Message: "The request body ended early.", Cause: err}
		}
	}
	return n, err
}

// describeUpload adds what the metadata says to an insert. A name in the query comes first.
func describeUpload(in *storage.Insert, body objectBody) error {
	if in.Name == "" {
		in.Name = body.Name
	}
	if in.Name == "" {
		return fault.Invalid("name", "Required: an upload needs the name of its object.")
	}
	body.apply(&in.Attrs)
	return hashes(in, body.MD5Hash, body.CRC32C)
}

// headerHashes reads X-Goog-Hash ("crc32c=…,md5=…") and Content-MD5.
func headerHashes(in *storage.Insert, h http.Header) error {
	if err := hashes(in, h.Get("Content-MD5"), ""); err != nil {
		return err
	}
	for _, value := range h.Values("X-Goog-Hash") {
		for _, pair := range strings.Split(value, ",") {
			name, sum, _ := strings.Cut(strings.TrimSpace(pair), "=")
			var err error
			switch name {
			case "md5":
				err = hashes(in, sum, "")
			case "crc32c":
				err = hashes(in, "", sum)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Server) multipart(ctx context.Context, r *rest.Request, in storage.Insert) (any, error) {
	body, err := decoded(r.Header, r.Body)
	if err != nil {
		return nil, err
	}
	parts, err := readRelated(r.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, err
	}
	meta, err := parseObjectBody(parts.metadata)
	if err != nil {
		return nil, err
	}
	in.Attrs.ContentType = parts.contentType
	if err := describeUpload(&in, meta); err != nil {
		return nil, err
	}
	if err := s.mayInsert(ctx, &in); err != nil {
		return nil, err
	}
	if err := headerHashes(&in, r.Header); err != nil {
		return nil, err
	}
	o, err := s.Storage.Put(ctx, in, fromClient{parts.data})
	if err != nil {
		return nil, err
	}
	return newObjectResource(s.base(r.Request), o), nil
}

func (s *Server) startResumable(ctx context.Context, r *rest.Request, in storage.Insert) (any, error) {
	raw, err := io.ReadAll(io.LimitReader(fromClient{r.Body}, maxMetadata+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxMetadata {
		return nil, fault.New(fault.InvalidArgument, "The metadata is longer than %d bytes.", maxMetadata)
	}
	meta, err := parseObjectBody(raw)
	if err != nil {
		return nil, err
	}
	in.Attrs.ContentType = r.Header.Get("X-Upload-Content-Type")
	if err := describeUpload(&in, meta); err != nil {
		return nil, err
	}
	if err := s.mayInsert(ctx, &in); err != nil {
		return nil, err
	}
	total := int64(-1)
	if v := r.Header.Get("X-Upload-Content-Length"); v != "" {
		if total, err = strconv.ParseInt(v, 10, 64); err != nil || total < 0 {
			return nil, fault.Invalid("X-Upload-Content-Length", "Invalid value: want a number of bytes.")
		}
	}
	return s.begin(ctx, r, in, total)
}

// begin starts a resumable upload of total bytes, -1 if nobody knows, at a URL that is the key to it.
func (s *Server) begin(ctx context.Context, r *rest.Request, in storage.Insert, total int64) (rest.Raw, error) {
	in.By = guard.Caller(ctx).Member
	u, err := s.Storage.BeginUpload(ctx, in, total)
	if err != nil {
		return rest.Raw{}, err
	}
	q := url.Values{"uploadType": {"resumable"}, "upload_id": {u.ID}, "name": {in.Name}}
	return rest.Raw{Header: http.Header{
		"Location":             {s.base(r.Request) + r.URL.EscapedPath() + "?" + q.Encode()},
		"X-Guploader-Uploadid": {u.ID},
		"Content-Type":         {"text/plain; charset=utf-8"},
		"Content-Length":       {"0"},
		"X-Goog-Upload-Status": {"active"},
		"Cache-Control":        {"no-cache"},
	}}, nil
}

// contentRange is "bytes FIRST-LAST/TOTAL", "bytes */TOTAL" or "bytes */*"; LAST and TOTAL may be * in the first form,
// too: Google's library for Node.js sends "bytes 0-*/*" for a stream.
var contentRange = regexp.MustCompile(`^bytes (?:(\d{1,18})-(\d{1,18}|\*)|\*)/(\d{1,18}|\*)$`)

// piece is what a PUT brings.
type piece struct {
	query       bool  // asks only how far the upload is
	first, size int64 // size -1: to the end of the body
	total       int64 // -1: not known yet
}

func parsePiece(h http.Header, length int64) (piece, error) {
	v := strings.TrimSpace(h.Get("Content-Range"))
	if v == "" { // the whole object in one PUT
		if h.Get("Content-Encoding") != "" {
			length = -1 // that of the compressed bytes
		}
		return piece{size: -1, total: length}, nil
	}
	m := contentRange.FindStringSubmatch(v)
	bad := fault.Invalid("Content-Range", "Invalid value %.60q: want bytes FIRST-LAST/TOTAL or bytes */TOTAL.", v)
	if m == nil {
		return piece{}, bad
	}
	p := piece{total: -1}
	if m[3] != "*" {
		p.total, _ = strconv.ParseInt(m[3], 10, 64) // 18 digits always fit
	}
	if m[1] == "" {
		p.query = true
		return p, nil
	}
	first, _ := strconv.ParseInt(m[1], 10, 64)
	if m[2] == "*" { // the rest of the object, as long as it may be
		if p.total >= 0 && first > p.total {
			return piece{}, bad
		}
		p.first, p.size = first, -1
		return p, nil
	}
	last, _ := strconv.ParseInt(m[2], 10, 64)
	if last < first || p.total >= 0 && last >= p.total {
		return piece{}, bad
	}
	p.first, p.size = first, last-first+1
	return p, nil
}

// continueUpload answers PUT to the URL of a resumable upload: 308 with what it has, or the object.
func (s *Server) continueUpload(ctx context.Context, r *rest.Request) (any, error) {
	bucket, id := r.Params["bucket"], r.System.Get("upload_id")
	p, err := parsePiece(r.Header, r.ContentLength)
	if err != nil {
		return nil, err
	}
	u, size, err := s.Storage.Upload(ctx, bucket, id)
	if err != nil {
		return nil, err
	}
	if u.Done == nil { // a caller who knows the upload's id still has to have the permission
		if err := s.Allow(ctx, "storage.objects.create", bucket, u.Insert.Name); err != nil {
			return nil, err
		}
	}
	var said storage.Insert
	if err := headerHashes(&said, r.Header); err != nil {
		return nil, err
	}
	sender := storage.Sender{
		MayReplace: s.mayReplace(ctx, bucket, u.Insert.Name),
		MD5:        said.MD5,
		CRC32C:     said.CRC32C,
	}
	switch {
	case u.Done != nil:
	case p.query && p.total != size: // how far?
		// To be told here that there is no room for the rest is better than in the middle of it: most clients read no
		// answer before they have sent all, and only find the connection closed.
		if err := s.Storage.Room(ctx, u, max(p.total, u.Total)-size); err != nil {
			return nil, err
		}
		return incomplete(r, size), nil
	case p.query: // "bytes */N": that was all
		if u, size, err = s.Storage.Append(ctx, bucket, id, size, p.total, http.NoBody, sender); err != nil {
			return nil, err
		}
	default:
		body, err := decoded(r.Header, r.Body) // its Content-Range counts the bytes before compression
		if err != nil {
			return nil, err
		}
		body = fromClient{body}
		if p.size >= 0 {
			body = &exactly{r: body, left: p.size}
		}
		u, size, err = s.Storage.Append(ctx, bucket, id, p.first, p.total, body, sender)
		if fault.Is(err, fault.OutOfRange) { // a piece is missing: say from where to go on
			return incomplete(r, size), nil
		}
		if err == nil && u.Done == nil && p.size < 0 { // one PUT of unknown length: it ends where the body ends
			u, size, err = s.Storage.Append(ctx, bucket, id, size, size, http.NoBody, sender)
		}
		if err != nil {
			return nil, err
		}
	}
	if u.Done == nil {
		return incomplete(r, size), nil
	}
	return newObjectResource(s.base(r.Request), *u.Done), nil
}

// incomplete is 308 with the bytes that are here. Of none there is no Range. Google's Go clients, whose HTTP library
// would follow a 308, ask for it in a header.
func incomplete(r *rest.Request, size int64) rest.Raw {
	h := http.Header{"Content-Length": {"0"}}
	if size > 0 {
		h.Set("Range", fmt.Sprintf("bytes=0-%d", size-1))
	}
	if r.Header.Get("X-Guploader-No-308") == "yes" {
		h.Set("X-Http-Status-Code-Override", "308")
		return rest.Raw{Header: h}
	}
	return rest.Raw{Status: http.StatusPermanentRedirect, Header: h}
}

// exactly fails when a body is not as long as its Content-Range says.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if int64(len(p)) > e.left+1 {
		p = p[:e.left+1]
	}
	n, err := e.r.Read(p)
	if int64(n) > e.left {
		return int(e.left), fault.New(fault.InvalidArgument, "The body is longer than its Content-Range says.")
	}
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = fault.New(fault.InvalidArgument, "The body is shorter than its Content-Range says.")
	}
	return n, err
}

// statusCancelled is what Cloud Storage answers to a cancelled upload.
const statusCancelled = 499

func (s *Server) cancelUpload(ctx context.Context, r *rest.Request) (any, error) {
	u, _, err := s.Storage.Upload(ctx, r.Params["bucket"], r.System.Get("upload_id"))
	if err != nil {
		return nil, err
	}
	if err := s.Allow(ctx, "storage.objects.create", r.Params["bucket"], u.Insert.Name); err != nil {
		return nil, err
	}
	if err := s.Storage.AbortUpload(ctx, r.Params["bucket"], r.System.Get("upload_id")); err != nil {
		return nil, err
	}
	return rest.Raw{Status: statusCancelled, Header: http.Header{"Content-Length": {"0"}}}, nil
}
