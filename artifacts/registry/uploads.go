package registry

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
)

// startUpload begins an upload; takes a whole blob where its digest comes with it; or mounts the blob of another
// repository that the caller may read, and begins an upload where it can't.
func (s *server) startUpload(w http.ResponseWriter, r *request) error {
	if _, err := s.Artifacts.Repository(r.Context(), r.image.Repository); err != nil {
		return err
	}
	q := r.URL.Query()
	if mount := q.Get("mount"); mount != "" {
		d, err := parseDigest(mount)
		if err != nil {
			return err
		}
		done, err := s.mount(r, d, q.Get("from"))
		if err != nil {
			return err
		}
		if done {
			return created(w, r, d)
		}
	} else if digest := q.Get("digest"); digest != "" {
		d, err := parseDigest(digest)
		if err != nil {
			return err
		}
		if err := s.Admit(); err != nil {
			return err
		}
		if err := s.Bytes.Admit(r.Context(), r.image.Repository.Project, max(r.ContentLength, 0)); err != nil {
			return err
		}
		coming := s.Bytes.Begin(r.image.Repository.Project)
		defer coming.End()
		defer s.Blobs.Reserve(d)() // until the repository has it
		info, err := s.Blobs.Put(r.Context(), coming.Reader(r.Context(), fromClient{r.Body}, 0), d)
		if err != nil {
			return uploadFault(err)
		}
		coming.End()
		return s.keep(w, r, info)
	}
	id, err := s.Blobs.BeginUpload(r.Context())
	if err != nil {
		return err
	}
	return progress(w, r, id, 0, http.StatusAccepted)
}

// mount makes a blob the repository's own without its bytes being sent. Without a source, or with one that the caller
// may not read, it does so only where the repository has the blob already.
func (s *server) mount(r *request, d blob.Digest, from string) (bool, error) {
	source := r.image.Repository
	if from != "" {
		image, err := s.image(from, r.host.Image)
		if err != nil {
			return false, nil // names no image here, so it mounts nothing
		}
		source = image.Repository
		if s.Identity.Authorize(r.Context(), r.who, download, source.String()) != nil {
			source = resource.Child{}
		}
	}
	for _, c := range []resource.Child{r.image.Repository, source} {
		if c == (resource.Child{}) {
			continue
		}
		err := s.Artifacts.MountBlob(r.Context(), r.image.Repository, c, d)
		if err == nil || !fault.Is(err, fault.NotFound) {
			return err == nil, err
		}
	}
	return false, nil
}

// uploadStatus says how far an upload is.
func (s *server) uploadStatus(w http.ResponseWriter, r *request) error {
	n, err := s.Blobs.UploadSize(r.Context(), r.ref)
	if err != nil {
		return uploadFault(err)
	}
	return progress(w, r, r.ref, n, http.StatusNoContent)
}

// appendUpload takes one chunk.
func (s *server) appendUpload(w http.ResponseWriter, r *request) error {
	n, err := s.chunk(w, r)
	if err != nil {
		return err
	}
	return progress(w, r, r.ref, n, http.StatusAccepted)
}

// finishUpload takes the last chunk, if there is one, and makes the upload a blob.
func (s *server) finishUpload(w http.ResponseWriter, r *request) error {
	d, err := parseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	if _, err := s.chunk(w, r); err != nil {
		return err
	}
	defer s.Blobs.Reserve(d)() // until the repository has it
	info, err := s.Blobs.CommitUpload(r.Context(), r.ref, d)
	if err != nil {
		return uploadFault(err)
	}
	s.Bytes.EndUpload(r.ref)
	return s.keep(w, r, info)
}

// cancelUpload drops an upload.
func (s *server) cancelUpload(w http.ResponseWriter, r *request) error {
	defer s.Bytes.EndUpload(r.ref)
	if err := s.Blobs.AbortUpload(r.Context(), r.ref); err != nil {
		return uploadFault(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// contentRange is START-END, as the distribution specification has it: without a unit, the end included.
var contentRange = regexp.MustCompile(`^([0-9]{1,18})-([0-9]{1,18})$`)

// chunk adds a request's body to an upload and returns the size so far. Chunks come in order: one that starts elsewhere
// than at the end is a 416 with the range that is there.
func (s *server) chunk(w http.ResponseWriter, r *request) (int64, error) {
	if err := s.Admit(); err != nil {
		return 0, err
	}
	have, err := s.Blobs.UploadSize(r.Context(), r.ref)
	if err != nil {
		return 0, uploadFault(err)
	}
	start, length := have, r.ContentLength
	if header := r.Header.Get("Content-Range"); header != "" {
		m := contentRange.FindStringSubmatch(header)
		if m == nil {
			return 0, coded("RANGE_INVALID",
				fault.New(fault.InvalidArgument, "Content-Range %.60q is not START-END.", header))
		}
		first, _ := strconv.ParseInt(m[1], 10, 64) // digits, and few of them
		last, _ := strconv.ParseInt(m[2], 10, 64)
		if last < first {
			return 0, coded("RANGE_INVALID",
				fault.New(fault.InvalidArgument, "Content-Range %s ends before it starts.", header))
		}
		start, length = first, last-first+1
		if r.ContentLength >= 0 && r.ContentLength != length {
			return 0, coded("SIZE_INVALID",
				fault.New(fault.InvalidArgument, "Content-Range %s is not the body's %d bytes.", header,
					r.ContentLength))
		}
	}
	if length == 0 {
		return have, nil
	}
	if err := s.Bytes.Admit(r.Context(), r.image.Repository.Project, max(length, 0)); err != nil {
		return 0, err
	}
	body := s.Bytes.Upload(r.image.Repository.Project, r.ref, have).Reader(r.Context(),
		fromClient{limit(r.Body, length)}, 0)
	n, err := s.Blobs.AppendUpload(r.Context(), r.ref, start, body)
	if fault.Is(err, fault.OutOfRange) {
		setProgress(w, r, r.ref, n)
		return 0, coded("RANGE_INVALID", fault.From(err))
	}
	return n, uploadFault(err)
}

// keep makes a blob that was uploaded the repository's.
func (s *server) keep(w http.ResponseWriter, r *request, info blob.Info) error {
	if err := s.Artifacts.AddBlob(r.Context(), r.image.Repository, info); err != nil {
		return err
	}
	return created(w, r, info.Digest)
}

func created(w http.ResponseWriter, r *request, d blob.Digest) error {
	h := w.Header()
	h.Set("Location", r.path("/blobs/"+string(d)))
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// progress says where an upload goes on, and how far it is.
func progress(w http.ResponseWriter, r *request, id string, n int64, status int) error {
	setProgress(w, r, id, n)
	if status != http.StatusNoContent {
		w.Header().Set("Content-Length", "0")
	}
	w.WriteHeader(status)
	return nil
}

func setProgress(w http.ResponseWriter, r *request, id string, n int64) {
	h := w.Header()
	h.Set("Location", r.path("/blobs/uploads/"+id))
	h.Set("Range", fmt.Sprintf("0-%d", max(n-1, 0))) // of an empty upload, too, as distribution has it
	h.Set("Docker-Upload-UUID", id)
}

// uploadFault gives a fault of the blob store the specification's code.
func uploadFault(err error) error {
	switch {
	case fault.Is(err, fault.NotFound):
		return coded("BLOB_UPLOAD_UNKNOWN", fault.New(fault.NotFound, "There is no such upload; it may have expired."))
	case fault.Is(err, fault.InvalidArgument) && fault.From(err).Reason == "":
		e := *fault.From(err)
		return coded("DIGEST_INVALID", &e)
	}
	return err
}

// fromClient is a request's body, whose failures are the client's.
type fromClient struct{ r io.Reader }

func (c fromClient) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // Read returns io.EOF itself
		err = &fault.Error{
			Code:    fault.InvalidArgument,
			Reason:  "BLOB_UPLOAD_INVALID",
			Message: "The body ended too early.",
			Cause:   err,
		}
	}
	return n, err
}

// limit is a body of which n bytes are announced, all for n < 0. More is an error, and so is less.
func limit(body io.Reader, n int64) io.Reader {
	if n < 0 {
		return body
	}
	return &limited{body, n}
}

type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left == 0 {
		var one [1]byte
		if n, _ := io.ReadFull(l.r, one[:]); n > 0 {
			return 0, coded("SIZE_INVALID",
				fault.New(fault.InvalidArgument, "The body is longer than its Content-Range."))
		}
		return 0, io.EOF
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	if err == io.EOF && l.left > 0 { //nolint:errorlint // Read returns io.EOF itself
		err = coded("SIZE_INVALID", fault.New(fault.InvalidArgument, "The body is shorter than its Content-Range."))
	}
	return n, err
}
