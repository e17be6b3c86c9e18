package registry

import (
	"net/http"
	"time"
)

// getBlob answers GET and HEAD of a blob, with ranges.
func (s *server) getBlob(w http.ResponseWriter, r *request) error {
	d, err := parseDigest(r.ref)
	if err != nil {
		return err
	}
	if _, err := s.Artifacts.Blob(r.Context(), r.image.Repository, d); err != nil {
		return err
	}
	f, _, err := s.Blobs.Open(r.Context(), d)
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Etag", `"`+string(d)+`"`)
	h.Set("Cache-Control", "private, max-age=31536000, immutable") // content under its own digest never changes
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r.Request, "", time.Time{}, f)
	return nil
}

// deleteBlob takes a blob out of the repository.
func (s *server) deleteBlob(w http.ResponseWriter, r *request) error {
	d, err := parseDigest(r.ref)
	if err != nil {
		return err
	}
	if err := s.Artifacts.DeleteBlob(r.Context(), r.image.Repository, d); err != nil {
		return err
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// path is where the image of a request is, in answers: by the name that the client has for it. Relative, so that it is
// right behind any proxy.
func (r *request) path(tail string) string { return "/v2/" + r.name + tail }
