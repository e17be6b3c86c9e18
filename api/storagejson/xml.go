package storagejson

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"giggle/fault"
	"giggle/logging/audit"
	"giggle/rest"
	"giggle/storage"
)

// The XML API: objects by their path, listings, and uploads of parts
// (https://cloud.google.com/storage/docs/xml-api/reference-methods). Signed URLs lead here.

const (
	xmlNamespace = "http://doc.s3.amazonaws.com/2006-03-01"
	maxComplete  = 1 << 20 // bytes of the list of parts that an upload is completed with
	maxListed    = 1000
)

// xmlRules say what the methods need; those that may be about a bucket or an object ask themselves.
var xmlRules = map[string]string{"PUT": "storage.xml.put", "POST": "storage.xml.post", "DELETE": "storage.xml.delete"}

func (s *Server) registerXML(m *rest.Mux) {
	const path = "/{bucket}/{object=**}"
	options := []rest.RouteOption{rest.Errors(writeXMLError), rest.Unescaped(), rest.MaxBody(-1)}
	m.HandleFunc("GET", path, "storage.objects.get", s.getByPath, options...)
	m.HandleFunc("PUT", path, xmlRules["PUT"], s.putByPath, options...)
	m.HandleFunc("POST", path, xmlRules["POST"], s.postByPath, options...)
	m.HandleFunc("DELETE", path, xmlRules["DELETE"], s.deleteByPath, options...)
	m.HandleFunc("GET", "/{bucket}", "storage.objects.list", s.listByPath, rest.Errors(writeXMLError))
}

// byPath is the object that a request's path names, under the conditions of its headers.
func byPath(r *rest.Request) (bucket, name string, generation int64, cond storage.Conditions, err error) {
	bucket, name = r.Params["bucket"], r.Params["object"]
	if generation, err = number(r.Query, "generation", 0); err != nil {
		return
	}
	for header, to := range map[string]**int64{
		"X-Goog-If-Generation-Match": &cond.GenerationMatch, "X-Goog-If-Metageneration-Match": &cond.MetagenerationMatch,
	} {
		if v := r.Header.Get(header); v != "" {
			n, e := strconv.ParseInt(v, 10, 64)
			if e != nil || n < 0 {
				return bucket, name, 0, cond, fault.Invalid(header, "Invalid value: %.40q is not a number of 0 or more.", v)
			}
			*to = &n
		}
	}
	return
}

// unserved fails on a subresource of a bucket or an object that isn't implemented: it must not be taken for the whole.
func unserved(r *rest.Request) error {
	for _, name := range []string{
		"acl", "billing", "compose", "cors", "defaultObjectAcl", "encryption", "encryptionConfig", "lifecycle", "location",
		"logging", "policy", "requestPayment", "restore", "retention", "storageClass", "tagging", "versioning", "versions",
		"website", "websiteConfig",
	} {
		if r.Query.Has(name) {
			return fault.NotImplemented(name, "Giggle's XML API has objects, listings and uploads of parts: use the JSON API.")
		}
	}
	return nil
}

// getByPath answers GET /BUCKET/OBJECT. The object's name is the rest of the path, slashes and all.
func (s *Server) getByPath(ctx context.Context, r *rest.Request) (any, error) {
	if err := unserved(r); err != nil {
		return nil, err
	}
	bucket, name, generation, cond, err := byPath(r)
	switch {
	case err != nil:
		return nil, err
	case name == "":
		if err := s.Allow(ctx, "storage.objects.list", bucket, ""); err != nil {
			return nil, err
		}
		return s.listByPath(ctx, r)
	case r.Query.Has("uploadId"):
		return s.listParts(ctx, r)
	}
	answer, err := s.bytes(ctx, r, bucket, name, generation, cond)
	if write, ok := answer.(rest.Write); ok && err == nil {
		return rest.Write(func(w http.ResponseWriter) { write(&overriding{w, r.Query}) }), nil
	}
	return answer, err
}

// overriding puts the headers in place that a URL asks for: response-content-disposition and the like.
type overriding struct {
	http.ResponseWriter
	query url.Values
}

func (o *overriding) WriteHeader(status int) {
	for _, name := range []string{"Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language",
		"Content-Type", "Expires"} {
		if v := o.query.Get("response-" + strings.ToLower(name)); v != "" && status < 300 {
			o.Header().Set(name, v)
		}
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *overriding) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// described reads what a request's headers say of the object that it makes.
func described(r *rest.Request, in *storage.Insert) error {
	h := r.Header
	if h.Get("X-Goog-Encryption-Algorithm") != "" || h.Get("X-Goog-Encryption-Kms-Key-Name") != "" {
		return fault.NotImplemented("x-goog-encryption-algorithm", "Giggle has no encryption keys of customers.")
	}
	if h.Get("X-Goog-Acl") != "" {
		return refuse(url.Values{"predefinedAcl": {h.Get("X-Goog-Acl")}})
	}
	in.Attrs = storage.Attrs{
		ContentType:        h.Get("Content-Type"),
		ContentEncoding:    h.Get("Content-Encoding"),
		ContentDisposition: h.Get("Content-Disposition"),
		ContentLanguage:    h.Get("Content-Language"),
		CacheControl:       h.Get("Cache-Control"),
		StorageClass:       h.Get("X-Goog-Storage-Class"),
	}
	if err := checkClass(in.Attrs.StorageClass); err != nil {
		return err
	}
	if v := h.Get("X-Goog-Custom-Time"); v != "" {
		at, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return fault.Invalid("x-goog-custom-time", "Invalid value: want a time as of RFC 3339.")
		}
		in.Attrs.CustomTime = at.UTC()
	}
	for name, values := range h {
		if key, ok := strings.CutPrefix(name, "X-Goog-Meta-"); ok {
			if in.Attrs.Metadata == nil {
				in.Attrs.Metadata = map[string]string{}
			}
			in.Attrs.Metadata[strings.ToLower(key)] = strings.Join(values, ",")
		}
	}
	return headerHashes(in, h)
}

// inserting is the object that a request makes, if the caller may.
func (s *Server) inserting(ctx context.Context, r *rest.Request) (in storage.Insert, err error) {
	bucket, name, _, cond, err := byPath(r)
	if err != nil {
		return in, err
	}
	if name == "" {
		return in, fault.New(fault.Unimplemented,
			"Buckets are not made by Giggle's XML API: use the JSON API, as gcloud does.")
	}
	if err := unserved(r); err != nil {
		return in, err
	}
	in = storage.Insert{Bucket: bucket, Name: name, If: cond}
	if err := s.mayInsert(ctx, &in); err != nil {
		return in, err
	}
	return in, described(r, &in)
}

// putByPath answers PUT /BUCKET/OBJECT: the object, a copy of another, a part of one, or a piece of a resumable upload.
func (s *Server) putByPath(ctx context.Context, r *rest.Request) (any, error) {
	if r.System.Get("upload_id") != "" {
		answer, err := s.continueUpload(ctx, r)
		if o, ok := answer.(objectResource); ok {
			return rest.Raw{Header: madeHeader(o)}, err
		}
		return answer, err
	}
	in, err := s.inserting(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.Query.Has("uploadId") {
		return s.putPart(ctx, r, in)
	}
	if from := r.Header.Get("X-Goog-Copy-Source"); from != "" {
		return s.copyByPath(ctx, r, in, from)
	}
	in.Size = max(r.ContentLength, 0)
	o, err := s.Storage.Put(ctx, in, fromClient{r.Body})
	if err != nil {
		return nil, err
	}
	return rest.Raw{Header: madeHeader(newObjectResource("", o))}, nil
}

// madeHeader are the headers that tell of an object that was made.
func madeHeader(o objectResource) http.Header {
	h := http.Header{
		"Etag":                         {`"` + o.Etag + `"`},
		"X-Goog-Generation":            {fmt.Sprint(o.Generation)},
		"X-Goog-Metageneration":        {fmt.Sprint(o.Metageneration)},
		"X-Goog-Hash":                  {"crc32c=" + o.CRC32C},
		"X-Goog-Stored-Content-Length": {fmt.Sprint(o.Size)},
		"Content-Type":                 {"text/html; charset=UTF-8"},
		"Content-Length":               {"0"},
	}
	if sum, err := base64.StdEncoding.DecodeString(o.MD5Hash); err == nil && len(sum) > 0 {
		h.Set("Etag", `"`+hex.EncodeToString(sum)+`"`)
		h.Add("X-Goog-Hash", "md5="+o.MD5Hash)
	}
	return h
}

func (s *Server) copyByPath(ctx context.Context, r *rest.Request, in storage.Insert, from string) (any, error) {
	plain, err := url.PathUnescape(from)
	bucket, name, ok := strings.Cut(strings.TrimPrefix(plain, "/"), "/")
	if err != nil || !ok || name == "" {
		return nil, fault.Invalid("x-goog-copy-source", "Invalid value: want /BUCKET/OBJECT.")
	}
	if err := s.Allow(ctx, "storage.objects.get", bucket, name); err != nil {
		return nil, err
	}
	src := storage.Source{Bucket: bucket, Name: name}
	if v := r.Header.Get("X-Goog-Copy-Source-Generation"); v != "" {
		if src.Generation, err = strconv.ParseInt(v, 10, 64); err != nil {
			return nil, fault.Invalid("x-goog-copy-source-generation", "Invalid value: want a number.")
		}
	}
	var attrs *storage.Attrs
	switch v := r.Header.Get("X-Goog-Metadata-Directive"); v {
	case "", "COPY":
	case "REPLACE":
		attrs = &in.Attrs
	default:
		return nil, fault.Invalid("x-goog-metadata-directive", "Invalid value: want COPY or REPLACE.")
	}
	o, err := s.Storage.Copy(ctx, src, in, attrs)
	if err != nil {
		return nil, err
	}
	return writeXML(struct {
		XMLName      xml.Name `xml:"CopyObjectResult"`
		LastModified string
		ETag         string
	}{LastModified: stamp(o.Updated), ETag: xmlETag(o)})
}

func (s *Server) deleteByPath(ctx context.Context, r *rest.Request) (any, error) {
	if r.System.Get("upload_id") != "" {
		return s.cancelUpload(ctx, r)
	}
	bucket, name, generation, cond, err := byPath(r)
	if err == nil {
		err = unserved(r)
	}
	if err == nil && name == "" {
		err = fault.New(fault.Unimplemented, "Buckets are not deleted by Giggle's XML API: use the JSON API, as gcloud does.")
	}
	if err != nil {
		return nil, err
	}
	audit.Note(ctx, func(e *audit.Event) { e.Resource = "projects/_/buckets/" + bucket + "/objects/" + name })
	if r.Query.Has("uploadId") {
		if err := s.Allow(ctx, "storage.multipartUploads.abort", bucket, name); err != nil {
			return nil, err
		}
		return noContent, s.Storage.AbortMultipart(ctx, bucket, name, r.Query.Get("uploadId"))
	}
	if err := s.Allow(ctx, "storage.objects.delete", bucket, name); err != nil {
		return nil, err
	}
	return noContent, s.Storage.Delete(ctx, bucket, name, generation, cond)
}

// postByPath answers POST /BUCKET/OBJECT: the beginning of a resumable upload or of one of parts, or the end of that.
func (s *Server) postByPath(ctx context.Context, r *rest.Request) (any, error) {
	if r.System.Get("upload_id") != "" {
		return s.putByPath(ctx, r)
	}
	if r.Params["object"] == "" {
		return nil, fault.New(fault.Unimplemented,
			"Uploads by HTML forms are not implemented by Giggle: use a signed URL with PUT.")
	}
	in, err := s.inserting(ctx, r)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Query.Has("uploads"):
		return s.beginParts(ctx, in)
	case r.Query.Has("uploadId"):
		return s.completeParts(ctx, r, in)
	case strings.EqualFold(r.Header.Get("X-Goog-Resumable"), "start"):
		answer, err := s.begin(ctx, r, in, -1)
		answer.Status = http.StatusCreated
		return answer, err
	}
	return nil, fault.Invalid("x-goog-resumable", "Want x-goog-resumable: start, ?uploads or ?uploadId.")
}

// writeXML is an answer in XML.
func writeXML(v any) (rest.Raw, error) {
	body, err := xml.Marshal(v)
	if err != nil {
		return rest.Raw{}, err
	}
	return rest.Raw{
		Header: http.Header{"Content-Type": {"application/xml; charset=UTF-8"}},
		Body:   bytes.NewReader(append([]byte(xml.Header), body...)),
	}, nil
}

func xmlETag(o storage.Object) string {
	if o.MD5 != nil {
		return `"` + hex.EncodeToString(o.MD5) + `"`
	}
	return `"` + etag(o.Generation, o.Metageneration) + `"`
}

type xmlContents struct {
	Key            string
	Generation     int64
	MetaGeneration int64
	LastModified   string
	ETag           string
	Size           int64
	StorageClass   string
}

type xmlPrefix struct{ Prefix string }

type xmlList struct {
	XMLName               xml.Name `xml:"ListBucketResult"`
	Namespace             string   `xml:"xmlns,attr"`
	Name                  string
	Prefix                string
	Marker                *string
	NextMarker            string `xml:",omitempty"`
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              *int
	MaxKeys               int
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []xmlContents
	CommonPrefixes        []xmlPrefix
}

// xmlLimit reads how many things an answer may have.
func xmlLimit(r *rest.Request, name string) (int, error) {
	n, err := number(r.Query, name, maxListed)
	return int(min(n, maxListed)), err
}

// listByPath answers GET /BUCKET, in both versions of the listing
// (https://cloud.google.com/storage/docs/xml-api/get-bucket-list).
func (s *Server) listByPath(ctx context.Context, r *rest.Request) (any, error) {
	if err := unserved(r); err != nil {
		return nil, err
	}
	if r.Query.Has("uploads") {
		return s.listUploads(ctx, r)
	}
	q := r.Query
	limit, err := xmlLimit(r, "max-keys")
	if err != nil {
		return nil, err
	}
	key := func(name string) string { return name }
	switch q.Get("encoding-type") {
	case "":
	case "url":
		key = url.QueryEscape
	default:
		return nil, fault.Invalid("encoding-type", "Invalid value: want url.")
	}
	out := xmlList{
		Namespace:    xmlNamespace,
		Name:         r.Params["bucket"],
		Prefix:       key(q.Get("prefix")),
		MaxKeys:      limit,
		Delimiter:    key(q.Get("delimiter")),
		EncodingType: q.Get("encoding-type"),
	}
	query := storage.Query{
		Bucket:    r.Params["bucket"],
		Prefix:    q.Get("prefix"),
		Delimiter: q.Get("delimiter"),
		Limit:     max(limit, 1),
	}
	same := strings.Join([]string{"xml", query.Bucket, query.Prefix, query.Delimiter}, "\x00")
	second := q.Get("list-type") == "2"
	switch {
	case second:
		out.StartAfter, query.After = q.Get("start-after"), q.Get("start-after")
		if token := q.Get("continuation-token"); token != "" {
			out.ContinuationToken = token
			if query.After, err = s.Pages.Last(same, token); err != nil {
				return nil, err
			}
		}
	case q.Has("list-type") && q.Get("list-type") != "1":
		return nil, fault.Invalid("list-type", "Invalid value: want 2.")
	default:
		marker := q.Get("marker")
		out.Marker, query.After = &marker, marker
	}
	if d := query.Delimiter; d != "" && strings.HasSuffix(query.After, d) && query.After > query.Prefix {
		query.After += "\xff" // a prefix of the page before: what it stands for was there
	}
	page := storage.Page{}
	if limit > 0 {
		if page, err = s.Storage.List(ctx, query); err != nil {
			return nil, err
		}
	} else if _, err := s.Storage.Bucket(ctx, query.Bucket); err != nil {
		return nil, err
	}
	for _, o := range page.Objects {
		out.Contents = append(out.Contents, xmlContents{
			Key:            key(o.Name),
			Generation:     o.Generation,
			MetaGeneration: o.Metageneration,
			LastModified:   stamp(o.Updated),
			ETag:           xmlETag(o),
			Size:           o.Size,
			StorageClass:   o.StorageClass,
		})
	}
	for _, p := range page.Prefixes {
		out.CommonPrefixes = append(out.CommonPrefixes, xmlPrefix{key(p)})
	}
	out.IsTruncated = page.Next != ""
	if second {
		n := len(page.Objects) + len(page.Prefixes)
		out.KeyCount, out.NextContinuationToken = &n, s.Pages.Token(same, page.Next)
	} else {
		out.NextMarker = key(strings.TrimSuffix(page.Next, "\xff"))
	}
	return writeXML(out)
}

// uploadID reads the id of an upload of parts, or says that it is none.
func uploadID(r *rest.Request) (string, error) {
	id := r.Query.Get("uploadId")
	if id == "" || len(id) > 100 || strings.ContainsAny(id, "/\x00") {
		e := fault.New(fault.NotFound, "The upload ID may be invalid, or the upload may have been aborted or completed.")
		e.Reason = storage.ReasonNoUpload
		return "", e
	}
	return id, nil
}

func (s *Server) beginParts(ctx context.Context, in storage.Insert) (any, error) {
	if err := s.Allow(ctx, "storage.multipartUploads.create", in.Bucket, in.Name); err != nil {
		return nil, err
	}
	in.MD5, in.CRC32C = nil, nil // those of the empty body
	u, err := s.Storage.BeginMultipart(ctx, in, rand.Text())
	if err != nil {
		return nil, err
	}
	answer, err := writeXML(struct {
		XMLName   xml.Name `xml:"InitiateMultipartUploadResult"`
		Namespace string   `xml:"xmlns,attr"`
		Bucket    string
		Key       string
		UploadID  string `xml:"UploadId"`
	}{Namespace: xmlNamespace, Bucket: in.Bucket, Key: in.Name, UploadID: u.ID})
	if err == nil { // Google's library for Node.js takes only JSON and text for other than bytes
		answer.Header.Set("Content-Type", "text/xml; charset=UTF-8")
	}
	return answer, err
}

func (s *Server) putPart(ctx context.Context, r *rest.Request, in storage.Insert) (any, error) {
	id, err := uploadID(r)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(r.Query.Get("partNumber"))
	if err != nil {
		return nil, fault.Invalid("partNumber", "Part number must be an integer between 1 and %d, inclusive.", storage.MaxParts)
	}
	p, err := s.Storage.PutPart(ctx, in.Bucket, in.Name, id, n, max(r.ContentLength, 0), in.MD5, fromClient{r.Body})
	if err != nil {
		return nil, err
	}
	return rest.Raw{Header: http.Header{
		"Etag":           {`"` + p.ETag() + `"`},
		"X-Goog-Hash":    {"md5=" + base64.StdEncoding.EncodeToString(p.MD5)},
		"Content-Length": {"0"},
	}}, nil
}

// completion is the body that completes an upload.
type completion struct {
	XMLName xml.Name `xml:"CompleteMultipartUpload"`
	Parts   []struct {
		Number int    `xml:"PartNumber"`
		ETag   string `xml:"ETag"`
	} `xml:"Part"`
}

func malformedXML() error {
	e := fault.New(fault.InvalidArgument, "The XML you provided was not well-formed or did not validate against our published schema.")
	e.Reason = "MalformedCompleteMultipartUploadRequest"
	return e
}

func parseCompletion(r io.Reader) (of []storage.Part, err error) {
	body, err := io.ReadAll(io.LimitReader(r, maxComplete+1))
	if err != nil {
		return nil, err
	}
	var c completion
	if len(body) > maxComplete || xml.Unmarshal(body, &c) != nil || len(c.Parts) == 0 {
		return nil, malformedXML()
	}
	for _, p := range c.Parts {
		sum, err := hex.DecodeString(strings.Trim(strings.TrimSpace(p.ETag), `"`))
		if err != nil || p.Number < 1 || p.Number > storage.MaxParts {
			return nil, malformedXML()
		}
		of = append(of, storage.Part{Number: p.Number, MD5: sum})
	}
	return of, nil
}

func (s *Server) completeParts(ctx context.Context, r *rest.Request, in storage.Insert) (any, error) {
	id, err := uploadID(r)
	if err != nil {
		return nil, err
	}
	of, err := parseCompletion(fromClient{r.Body})
	if err != nil {
		return nil, err
	}
	sender := storage.Sender{MayReplace: in.MayReplace, CRC32C: in.CRC32C}
	o, err := s.Storage.CompleteMultipart(ctx, in.Bucket, in.Name, id, of, sender, in.If)
	if err != nil {
		return nil, err
	}
	return writeXML(struct {
		XMLName   xml.Name `xml:"CompleteMultipartUploadResult"`
		Namespace string   `xml:"xmlns,attr"`
		Location  string
		Bucket    string
		Key       string
		ETag      string
	}{
		Namespace: xmlNamespace,
		Location:  s.base(r.Request) + "/" + o.Bucket + "/" + escape(o.Name, true),
		Bucket:    o.Bucket,
		Key:       o.Name,
		ETag:      xmlETag(o),
	})
}

type xmlPart struct {
	PartNumber   int
	LastModified string
	ETag         string
	Size         int64
}

func (s *Server) listParts(ctx context.Context, r *rest.Request) (any, error) {
	bucket, name := r.Params["bucket"], r.Params["object"]
	if err := s.Allow(ctx, "storage.multipartUploads.listParts", bucket, name); err != nil {
		return nil, err
	}
	id, err := uploadID(r)
	if err != nil {
		return nil, err
	}
	limit, err := xmlLimit(r, "max-parts")
	if err != nil {
		return nil, err
	}
	after, err := number(r.Query, "part-number-marker", 0)
	if err != nil {
		return nil, err
	}
	u, all, more, err := s.Storage.Multipart(ctx, bucket, name, id, int(min(after, storage.MaxParts)), max(limit, 1))
	if err != nil {
		return nil, err
	}
	out := struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		Namespace            string   `xml:"xmlns,attr"`
		Bucket               string
		Key                  string
		UploadID             string `xml:"UploadId"`
		StorageClass         string
		PartNumberMarker     int64
		NextPartNumberMarker int
		MaxParts             int
		IsTruncated          bool
		Part                 []xmlPart
	}{
		Namespace:        xmlNamespace,
		Bucket:           bucket,
		Key:              name,
		UploadID:         id,
		StorageClass:     u.Insert.Attrs.StorageClass,
		PartNumberMarker: after,
		MaxParts:         limit,
		IsTruncated:      more,
	}
	for _, p := range all {
		out.Part = append(out.Part, xmlPart{p.Number, stamp(p.Put), `"` + p.ETag() + `"`, p.Size})
		out.NextPartNumberMarker = p.Number
	}
	return writeXML(out)
}

type xmlUpload struct {
	Key          string
	UploadID     string `xml:"UploadId"`
	StorageClass string
	Initiated    string
}

func (s *Server) listUploads(ctx context.Context, r *rest.Request) (any, error) {
	bucket := r.Params["bucket"]
	if err := s.Allow(ctx, "storage.multipartUploads.list", bucket, ""); err != nil {
		return nil, err
	}
	for _, name := range []string{"key-marker", "upload-id-marker", "delimiter"} {
		if r.Query.Get(name) != "" {
			return nil, fault.NotImplemented(name, "Giggle lists the first %d uploads.", maxListed)
		}
	}
	limit, err := xmlLimit(r, "max-uploads")
	if err != nil {
		return nil, err
	}
	all, err := s.Storage.Multiparts(ctx, bucket, max(limit, 1))
	if err != nil {
		return nil, err
	}
	out := struct {
		XMLName     xml.Name `xml:"ListMultipartUploadsResult"`
		Namespace   string   `xml:"xmlns,attr"`
		Bucket      string
		Prefix      string
		MaxUploads  int
		IsTruncated bool
		Upload      []xmlUpload
	}{
		Namespace:  xmlNamespace,
		Bucket:     bucket,
		Prefix:     r.Query.Get("prefix"),
		MaxUploads: limit,
	}
	for _, u := range all {
		if strings.HasPrefix(u.Insert.Name, out.Prefix) {
			out.Upload = append(out.Upload, xmlUpload{u.Insert.Name, u.ID, u.Insert.Attrs.StorageClass, stamp(u.Begun)})
		}
	}
	return writeXML(out)
}
