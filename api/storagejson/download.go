package storagejson

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"giggle/fault"
	"giggle/rest"
	"giggle/storage"
)

// download answers with an object's bytes: alt=media, or below /download/.
func (s *Server) download(ctx context.Context, r *rest.Request) (any, error) {
	bucket, name, generation, cond, err := which(r)
	if err != nil {
		return nil, err
	}
	return s.bytes(ctx, r, bucket, name, generation, cond)
}

// bytes serves content. A request for a range gets 206 or 416 and never 200: gcloud's log tail adds what it gets to
// what it has, and takes 416 for "nothing new".
func (s *Server) bytes(
	ctx context.Context, r *rest.Request, bucket, name string, generation int64, cond storage.Conditions,
) (any, error) {
	if r.Header.Get("X-Goog-Encryption-Algorithm") != "" {
		return nil, fault.NotImplemented("x-goog-encryption-algorithm", "Giggle has no customer-supplied keys.")
	}
	o, content, err := s.Storage.Open(ctx, bucket, name, generation, cond)
	if err != nil {
		return nil, err
	}
	return rest.Write(func(w http.ResponseWriter) {
		defer content.Close()
		h := w.Header()
		describe(h, o)
		if o.Log == "" && !isJSON(r.URL.Path) {
			h.Set("Etag", xmlETag(o))
		}
		if o.ContentEncoding == "gzip" && !acceptsGzip(r.Header) {
			gunzip(h, w, r.Method, content)
			return
		}
		if o.Size == 0 && r.Header.Get("Range") != "" { // net/http would answer 200
			h.Set("Content-Range", "bytes */0")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		var modified time.Time
		if o.Log == "" {
			modified = o.Updated
		}
		http.ServeContent(w, r.Request, "", modified, content)
	}), nil
}

func acceptsGzip(h http.Header) bool {
	return strings.Contains(strings.ToLower(h.Get("Accept-Encoding")), "gzip")
}

// gunzip answers with the decompressed bytes of an object that was stored compressed, for a client that does not know
// the compression (https://cloud.google.com/storage/docs/transcoding). Ranges do not apply then.
func gunzip(h http.Header, w http.ResponseWriter, method string, content io.Reader) {
	h.Del("Content-Encoding")
	h.Set("X-Goog-Stored-Content-Encoding", "gzip")
	h.Set("Warning", "214 UploadServer gunzipped")
	z, err := gzip.NewReader(content)
	if err != nil { // it only says that it is gzip
		http.Error(w, "The object is not valid gzip.", http.StatusServiceUnavailable)
		return
	}
	if method == http.MethodHead {
		return
	}
	if _, err := io.Copy(w, z); err != nil {
		panic(http.ErrAbortHandler) // the client must not take half for the whole
	}
}

// describe sets the headers that say what the bytes are.
func describe(h http.Header, o storage.Object) {
	kind := o.ContentType
	if kind == "" {
		kind = "application/octet-stream"
	}
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	for name, v := range map[string]string{
		"Content-Encoding": o.ContentEncoding, "Content-Disposition": o.ContentDisposition,
		"Content-Language": o.ContentLanguage, "Cache-Control": o.CacheControl,
	} {
		if v != "" {
			h.Set(name, v)
		}
	}
	if o.CacheControl == "" {
		h.Set("Cache-Control", "private, max-age=0")
	}
	h.Set("X-Goog-Generation", fmt.Sprint(o.Generation))
	h.Set("X-Goog-Metageneration", fmt.Sprint(o.Metageneration))
	h.Set("X-Goog-Storage-Class", o.StorageClass)
	h.Set("X-Goog-Stored-Content-Length", fmt.Sprint(o.Size))
	for k, v := range o.Metadata {
		h.Set("X-Goog-Meta-"+k, v)
	}
	if o.Log != "" {
		return
	}
	h.Set("Etag", `"`+etag(o.Generation, o.Metageneration)+`"`)
	h.Add("X-Goog-Hash", "crc32c="+crc(o.CRC32C))
	if o.MD5 != nil {
		h.Add("X-Goog-Hash", "md5="+base64.StdEncoding.EncodeToString(o.MD5))
	}
}
