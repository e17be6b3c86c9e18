package registry

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
)

// reference reads what follows /manifests/: a digest, or a tag.
func (r *request) reference() (artifacts.Reference, error) {
	ref := artifacts.Reference{Image: r.image}
	if d, err := blob.ParseDigest(r.ref); err == nil {
		ref.Digest = d
		return ref, nil
	}
	if !artifacts.IsTag(r.ref) {
		return ref, coded("MANIFEST_INVALID",
			fault.New(fault.InvalidArgument, "%.150q is neither a tag nor a digest.", r.ref))
	}
	ref.Tag = r.ref
	return ref, nil
}

// getManifest answers GET and HEAD of a manifest, in the form that it was pushed in. For a client that does not take
// that form, it is not there.
func (s *server) getManifest(w http.ResponseWriter, r *request) error {
	ref, err := r.reference()
	if err != nil {
		return err
	}
	m, body, err := s.Artifacts.ReadManifest(r.Context(), ref)
	if err != nil {
		return err
	}
	if accept := r.Header.Values("Accept"); !accepts(accept, m.MediaType) {
		of := "tag '" + ref.Tag
		if ref.Digest != "" {
			of = "digest '" + string(ref.Digest)
		}
		return coded(artifacts.ReasonManifest, fault.New(fault.NotFound,
			"Manifest with %s' has media type '%s', but client accepts '%.300s'.", of, m.MediaType,
			strings.Join(accept, ",")))
	}
	h := w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Docker-Content-Digest", string(m.Digest))
	h.Set("Etag", `"`+string(m.Digest)+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the status is out
	}
	return nil
}

// accepts reports whether Accept headers take a media type (RFC 9110 §12.5.1); no header takes all of them.
func accepts(headers []string, mediaType string) bool {
	list := strings.Join(headers, ",")
	if strings.TrimSpace(list) == "" {
		return true
	}
	kind, _, _ := strings.Cut(mediaType, "/")
	for part := range strings.SplitSeq(list, ",") {
		accepted, parameters, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(accepted)) {
		case "*/*", kind + "/*", strings.ToLower(mediaType):
			if !refused(parameters) {
				return true
			}
		}
	}
	return false
}

// refused reports whether the parameters of a media range have the weight 0.
func refused(parameters string) bool {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if q, err := strconv.ParseFloat(value, 64); strings.EqualFold(name, "q") && err == nil && q == 0 {
			return true
		}
	}
	return false
}

// maxTags bounds the tags that come with one manifest; the specification asks for ten at least.
const maxTags = 100

// putManifest takes a manifest under a tag, or under its digest with any number of tags as parameters.
func (s *server) putManifest(w http.ResponseWriter, r *request) error {
	ref, err := r.reference()
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if digest := q.Get("digest"); digest != "" && ref.Digest == "" {
		if ref.Digest, err = parseDigest(digest); err != nil { // a tag on a digest that is not sha256
			return err
		}
	}
	tags := q["tag"]
	if len(tags) > maxTags {
		return coded("MANIFEST_INVALID", fault.New(fault.InvalidArgument, "More than %d tags.", maxTags))
	}
	for _, t := range tags {
		if !artifacts.IsTag(t) {
			return coded("MANIFEST_INVALID", fault.New(fault.InvalidArgument, "%.150q is not a tag.", t))
		}
	}
	if ref.Tag != "" {
		tags = append(tags, ref.Tag)
	}
	if err := s.Admit(); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, artifacts.MaxManifest))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return coded("MANIFEST_TOO_LARGE",
			fault.New(fault.InvalidArgument, "The manifest has more than %d bytes.", artifacts.MaxManifest))
	}
	if err != nil {
		return coded("MANIFEST_INVALID", &fault.Error{
			Code:    fault.InvalidArgument,
			Message: "The body ended too early.",
			Cause:   err,
		})
	}
	m, err := s.Artifacts.PutManifest(r.Context(), r.image, tags, ref.Digest, r.Header.Get("Content-Type"), body)
	if err != nil {
		return uploadFault(err)
	}
	h := w.Header()
	h.Set("Location", r.path("/manifests/"+string(m.Digest)))
	h.Set("Docker-Content-Digest", string(m.Digest))
	if m.Subject != "" {
		h.Set("OCI-Subject", string(m.Subject)) // says that the referrers API knows it
	}
	for _, t := range q["tag"] {
		h.Add("OCI-Tag", t)
	}
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// deleteManifest removes a tag, or a manifest that nothing refers to.
func (s *server) deleteManifest(w http.ResponseWriter, r *request) error {
	ref, err := r.reference()
	if err != nil {
		return err
	}
	if ref.Digest != "" {
		err = s.Artifacts.DeleteManifest(r.Context(), r.image, ref.Digest)
	} else {
		err = s.Artifacts.DeleteTag(r.Context(), r.image, ref.Tag)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
	return nil
}
