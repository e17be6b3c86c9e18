package dockerfile

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"giggle/blob"
	"giggle/fault"
)

// stage is the registry in the network of one project's BuildKit, which RUN steps are not in. It serves the mirror of
// foreign images to read, and to each build under way one repository to push its image to: bytes go into the platform's
// blobs, names are forgotten. Of those blobs it has only what the project's builds have pushed themselves: an image
// can't be made of a digest.
//
// Rules: https://github.com/opencontainers/distribution-spec, as far as BuildKit's client goes.
type stage struct {
	blobs   *blob.Dir
	foreign Foreign
	say     func(line string) // to the builds under way: BuildKit does not tell for which of them it asks
	// familiar is the mirror's name of a reference.
	familiar func(ref string) (string, error)

	mu      sync.Mutex
	secrets map[string]string // by the name of the repository
	own     map[blob.Digest]struct{}
	reasons map[string]string // why there is no image of a name
}

func newStage(cfg Config, say func(line string)) *stage {
	return &stage{
		blobs:    cfg.Blobs,
		foreign:  cfg.Foreign,
		say:      say,
		familiar: cfg.Familiar,
		secrets:  map[string]string{},
		reasons:  map[string]string{},
		own:      map[blob.Digest]struct{}{},
	}
}

// NoIdentity answers in place of the metadata server: RUN steps have no identity, as on Cloud Build without
// --network=cloudbuild.
func NoIdentity(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Metadata-Flavor", "Google")
	http.Error(w, "RUN steps of a Dockerfile have no identity: use a build step of its own for what needs a token.",
		http.StatusNotFound)
}

// stageUser is the user name that goes with a repository's secret.
const stageUser = "build"

// maxManifest bounds a manifest, in bytes.
const maxManifest = 4 << 20

// repository is where one build pushes to.
type repository struct {
	name, secret string
}

// open makes a repository for one build.
func (s *stage) open() (_ repository, done func()) {
	r := repository{"stage/" + strings.ToLower(rand.Text()), rand.Text()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[r.name] = r.secret
	return r, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.secrets, r.name)
	}
}

// maxReasons bounds what is remembered of images that are not there.
const maxReasons = 100

// refuse remembers why there is no image of a name: of an answer to a HEAD, BuildKit sees the status only.
func (s *stage) refuse(familiar string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reasons) >= maxReasons {
		clear(s.reasons)
	}
	s.reasons[familiar] = fault.From(err).Message
}

// refused returns why there is no image of a name, "" where nothing is known but that.
func (s *stage) refused(ref string) string {
	familiar, err := s.familiar(ref)
	if err != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.reasons, familiar)
	return s.reasons[familiar]
}

// put keeps bytes that a build has pushed. What a build has had in its hands, its project may have again.
func (s *stage) put(ctx context.Context, from io.Reader, want blob.Digest) (blob.Digest, error) {
	info, err := s.blobs.Put(ctx, from, want)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own[info.Digest] = struct{}{}
	return info.Digest, nil
}

// pushed reports whether the project's builds have pushed a blob.
func (s *stage) pushed(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.own[blob.Digest(digest)]
	return ok
}

// forget takes all blobs from the project.
func (s *stage) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.own)
}

// ServeHTTP serves BuildKit and its client.
func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	var err error
	switch {
	case ok && path == "":
		w.WriteHeader(http.StatusOK)
	case ok && strings.HasPrefix(path, "mirror/"):
		err = s.serveMirror(w, r, strings.TrimPrefix(path, "mirror/"))
	case ok && strings.HasPrefix(path, "stage/"):
		err = s.serveStage(w, r, path)
	default:
		err = fault.New(fault.NotFound, "Not found.")
	}
	if err != nil {
		f := fault.From(err)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.Code.HTTPStatus())
		code := "UNKNOWN"
		if f.Code == fault.NotFound {
			code = "MANIFEST_UNKNOWN"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": f.Message}}})
	}
}

// split cuts "NAME/KIND/REFERENCE".
func split(path, kind string) (name, reference string, ok bool) {
	i := strings.LastIndex(path, "/"+kind+"/")
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+len(kind)+2:], true
}

func (s *stage) serveMirror(w http.ResponseWriter, r *http.Request, path string) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return fault.New(fault.PermissionDenied, "The mirror is read-only.")
	}
	if _, digest, ok := split(path, "blobs"); ok {
		return send(w, r, s.foreign, digest, "application/octet-stream")
	}
	name, reference, ok := split(path, "manifests")
	if !ok {
		return fault.New(fault.NotFound, "Not found.")
	}
	ref, pinned := name+":"+reference, strings.Contains(reference, ":")
	if pinned {
		ref = name + "@" + reference
	}
	if ns := r.URL.Query().Get("ns"); ns != "" {
		ref = ns + "/" + ref
	}
	familiar, err := s.familiar(ref)
	if err != nil {
		return err
	}
	digest, err := s.foreign.Resolve(r.Context(), familiar, s.say)
	if pinned { // that of an index, perhaps, or a part of one
		digest = reference
	}
	if err == nil || pinned && fault.Is(err, fault.NotFound) {
		return sendManifest(w, r, s.foreign, digest)
	}
	if !fault.Is(err, fault.NotFound) {
		s.refuse(familiar, err)
	}
	return err
}

// opener has blobs.
type opener interface {
	Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error)
}

// sendManifest sends a manifest with the media type that it names.
func sendManifest(w http.ResponseWriter, r *http.Request, blobs opener, digest string) error {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	f, info, err := blobs.Open(r.Context(), d)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	if info.Size > maxManifest {
		return fault.New(fault.NotFound, "%s is no manifest.", digest)
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	var probe struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(raw, &probe) != nil || probe.MediaType == "" {
		probe.MediaType = "application/vnd.oci.image.manifest.v1+json"
	}
	return send(w, r, blobs, digest, probe.MediaType)
}

func send(w http.ResponseWriter, r *http.Request, blobs opener, digest, mediaType string) error {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	f, info, err := blobs.Open(r.Context(), d)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, r, "", info.ModTime, f)
	return nil
}

func (s *stage) serveStage(w http.ResponseWriter, r *http.Request, path string) error {
	repository, ok := s.repository(r, path)
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="build"`)
		return fault.New(fault.Unauthenticated, "This repository is a build's own.")
	}
	rest := strings.TrimPrefix(path, repository+"/")
	ctx := r.Context()
	switch {
	case strings.HasPrefix(rest, "blobs/uploads/"):
		return s.upload(w, r, repository)
	case strings.HasPrefix(rest, "blobs/"):
		d := strings.TrimPrefix(rest, "blobs/")
		if err := s.have(ctx, d); err != nil {
			return err
		}
		return send(w, r, s.blobs, d, "application/octet-stream")
	case strings.HasPrefix(rest, "manifests/") && r.Method == http.MethodPut:
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
		if err != nil {
			return fault.New(fault.InvalidArgument, "The manifest is too big.")
		}
		if err := s.complete(ctx, raw); err != nil {
			return err
		}
		d, err := s.put(ctx, bytes.NewReader(raw), "")
		if err != nil {
			return err
		}
		w.Header().Set("Docker-Content-Digest", string(d))
		w.Header().Set("Location", r.URL.Path)
		w.WriteHeader(http.StatusCreated)
		return nil
	case strings.HasPrefix(rest, "manifests/sha256:"):
		d := strings.TrimPrefix(rest, "manifests/")
		if err := s.have(ctx, d); err != nil {
			return err
		}
		return sendManifest(w, r, s.blobs, d)
	}
	return fault.New(fault.NotFound, "Not found.")
}

// repository is the build's repository that a request with its secret is for.
func (s *stage) repository(r *http.Request, path string) (string, bool) {
	user, password, ok := r.BasicAuth()
	parts := strings.SplitN(path, "/", 3)
	if !ok || len(parts) < 3 || user != stageUser {
		return "", false
	}
	name := parts[0] + "/" + parts[1]
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, ok := s.secrets[name]
	return name, ok && subtle.ConstantTimeCompare([]byte(secret), []byte(password)) == 1
}

// upload takes a layer or a configuration, in one piece.
func (s *stage) upload(w http.ResponseWriter, r *http.Request, repository string) error {
	ctx := r.Context()
	switch r.Method {
	case http.MethodPost:
		if d := r.URL.Query().Get("mount"); d != "" && s.have(ctx, d) == nil {
			w.Header().Set("Docker-Content-Digest", d)
			w.Header().Set("Location", "/v2/"+repository+"/blobs/"+d)
			w.WriteHeader(http.StatusCreated)
			return nil
		}
		w.Header().Set("Location", "/v2/"+repository+"/blobs/uploads/"+rand.Text())
		w.WriteHeader(http.StatusAccepted)
		return nil
	case http.MethodPut:
		want, err := blob.ParseDigest(r.URL.Query().Get("digest"))
		if err != nil {
			return err
		}
		if _, err := s.put(ctx, r.Body, want); err != nil {
			return err
		}
		w.Header().Set("Docker-Content-Digest", string(want))
		w.Header().Set("Location", "/v2/"+repository+"/blobs/"+string(want))
		w.WriteHeader(http.StatusCreated)
		return nil
	}
	return fault.New(fault.Unimplemented, "%.20s is not a method of uploads.", r.Method)
}

// complete makes sure that all that a manifest or an index refers to is the project's: what has a manifest of it can be
// pulled.
func (s *stage) complete(ctx context.Context, raw []byte) error {
	type descriptor struct {
		Digest string `json:"digest"`
	}
	var m struct {
		Config    *descriptor  `json:"config"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
		Subject   *descriptor  `json:"subject"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fault.New(fault.InvalidArgument, "This is no manifest.")
	}
	all := append(m.Layers, m.Manifests...)
	for _, one := range []*descriptor{m.Config, m.Subject} {
		if one != nil {
			all = append(all, *one)
		}
	}
	for _, one := range all {
		if err := s.have(ctx, one.Digest); err != nil {
			return err
		}
	}
	return nil
}

// have makes sure that a blob is the project's or the mirror's, that the platform has it, and that no collection
// removes it soon. The mirror's are copied.
func (s *stage) have(ctx context.Context, digest string) error {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	hold := func() error {
		release, err := s.blobs.Hold(ctx, d)
		if err == nil {
			release()
		}
		return err
	}
	if s.pushed(digest) {
		return hold()
	}
	f, _, err := s.foreign.Open(ctx, d)
	if err != nil {
		return err
	}
	if err := hold(); err == nil || !fault.Is(err, fault.NotFound) {
		return errors.Join(err, f.Close())
	}
	_, err = s.blobs.Put(ctx, f, d)
	return errors.Join(err, f.Close())
}
