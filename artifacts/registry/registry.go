// Package registry is the wire form of Artifact Registry's Docker repositories: the OCI distribution protocol on
// LOCATION-docker.pkg.dev, with Docker's token endpoint.
//
// It serves docker, skopeo, crane, cosign and whatever else speaks the protocol, for packages artifacts and blob, which
// keep what it takes in. It asks who may do what and decides nothing itself. The hosts of Container Registry (gcr.io,
// us.gcr.io, …) are each the repository of that name, made by the first push.
//
// Rules: https://github.com/opencontainers/distribution-spec,
// https://distribution.github.io/distribution/spec/auth/token and
// https://cloud.google.com/artifact-registry/docs/docker/authentication.
package registry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/quota"
	"giggle/resource"
)

// Blobs is where content lies: *blob.Dir.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, want blob.Digest) (blob.Info, error)
	Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error)
	BeginUpload(ctx context.Context) (string, error)
	AppendUpload(ctx context.Context, id string, offset int64, r io.Reader) (int64, error)
	UploadSize(ctx context.Context, id string) (int64, error)
	CommitUpload(ctx context.Context, id string, want blob.Digest) (blob.Info, error)
	AbortUpload(ctx context.Context, id string) error
	Reserve(d blob.Digest) (release func())
}

// Authorizer is the identity side: *iam.IAM.
type Authorizer interface {
	CheckAssertion(ctx context.Context, raw string, audiences ...string) (iam.Assertion, error)
	AccessToken(p iam.Principal, scopes []string) (token string, expires time.Time, err error)
	Credential(ctx context.Context, header, host string) (iam.Credential, error)
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
}

// Recorder keeps the audit log: *audit.Log.
type Recorder interface {
	Record(e audit.Event) error
	Begin(ctx context.Context, e audit.Event) (context.Context, *audit.Pending)
}

var (
	_ Blobs      = (*blob.Dir)(nil)
	_ Authorizer = (*iam.IAM)(nil)
)

// Config is what New needs.
type Config struct {
	Artifacts *artifacts.Artifacts
	Blobs     Blobs
	Identity  Authorizer
	Project   resource.FindProject
	Audit     Recorder
	NewID     func() string // of requests
	Admit     func() error  // asked before bytes are taken in, for the disk reserve; nil admits all
	Bytes     *quota.Bytes  // what comes in for a project; nil admits all
	Log       *slog.Logger
	Now       func() time.Time // nil is the clock
}

// New returns the handler of all locations' hosts. The location is the one in the Host.
func New(cfg Config) http.Handler {
	if cfg.Admit == nil {
		cfg.Admit = func() error { return nil }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &server{cfg}
}

type server struct{ Config }

// The permissions on a repository.
const (
	download = "artifactregistry.repositories.downloadArtifacts"
	upload   = "artifactregistry.repositories.uploadArtifacts"
	remove   = "artifactregistry.repositories.deleteArtifacts"
)

// request is one call of the protocol on its way to its handler.
type request struct {
	*http.Request
	route
	host  artifacts.Registry
	id    string // in the answer and in the audit log
	image artifacts.Image
	who   iam.Principal
}

// handler serves one route. What it returns goes to writeError; it must not have written before.
type handler func(w http.ResponseWriter, r *request) error

// endpoint is what a route needs and who serves it.
type endpoint struct {
	permission string
	serve      handler
}

// endpoints are the routes of the specification, by noun and method.
func (s *server) endpoint(n noun, method string) (endpoint, bool) {
	e, ok := map[noun]map[string]endpoint{
		blobNoun: {
			"GET": {download, s.getBlob}, "HEAD": {download, s.getBlob}, "DELETE": {remove, s.deleteBlob},
		},
		uploadsNoun: {
			"POST": {upload, s.startUpload},
		},
		uploadNoun: {
			"GET": {upload, s.uploadStatus}, "PATCH": {upload, s.appendUpload}, "PUT": {upload, s.finishUpload},
			"DELETE": {upload, s.cancelUpload},
		},
		manifestNoun: {
			"GET": {download, s.getManifest}, "HEAD": {download, s.getManifest}, "PUT": {upload, s.putManifest},
			"DELETE": {remove, s.deleteManifest},
		},
		tagsNoun:      {"GET": {download, s.listTags}},
		referrersNoun: {"GET": {download, s.listReferrers}},
	}[n][method]
	return e, ok
}

// ServeHTTP authenticates, authorises and serves one request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0") // Docker's own clients look for it
	if err := s.serve(w, r); err != nil {
		s.writeError(w, r, err)
	}
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) error {
	host, ok := artifacts.ParseHost(hostname(r.Host))
	if !ok {
		return fault.New(fault.Unimplemented,
			"Giggle serves no registry at %.80s; push to LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE.", r.Host)
	}
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/v2/token":
		return s.token(w, r)
	case "/v2":
		return s.ping(w, r)
	case "/v2/_catalog":
		return s.catalog(w, r, host)
	}
	rt, ok := parseRoute(r.URL.Path)
	if !ok {
		return coded("NAME_INVALID",
			fault.New(fault.NotFound, "%.100q is no path of the registry protocol.", r.URL.Path))
	}
	read := host.Image
	if rt.noun == tagsNoun {
		read = host.Folder
	}
	image, err := s.image(rt.name, read)
	if err != nil {
		return err
	}
	e, ok := s.endpoint(rt.noun, r.Method)
	if !ok {
		return coded("UNSUPPORTED",
			fault.New(fault.Unimplemented, "%.20s is not a method of %.100s.", r.Method, r.URL.Path))
	}
	req := &request{
		Request: r,
		route:   rt,
		host:    host,
		id:      s.NewID(),
		image:   image,
	}
	w.Header().Set("X-Goog-Request-Id", req.id)
	if req.who, err = s.authenticate(r); err != nil {
		return err
	}
	if _, writes := methods[rt.noun][r.Method]; !writes {
		err = s.admitted(w, req, e)
		s.record(req, e, err)
		return err
	}
	ctx, pending := s.Audit.Begin(r.Context(), event(req, e, nil))
	req.Request = r.WithContext(ctx)
	err = s.admitted(w, req, e)
	if !fault.Is(err, fault.Unauthenticated) {
		s.logged(req, pending.End(event(req, e, err)))
	}
	return err
}

// admitted serves a request of an authenticated caller, if they may.
func (s *server) admitted(w http.ResponseWriter, req *request, e endpoint) error {
	r, image := req.Request, req.image
	if err := s.Identity.Authorize(r.Context(), req.who, e.permission, image.Repository.String()); err != nil {
		if fault.Is(err, fault.Unauthenticated) { // in the words that Artifact Registry has for this
			return &fault.Error{
				Code:  fault.Unauthenticated,
				Cause: err,
				Message: fmt.Sprintf(
					"Unauthenticated request. Unauthenticated requests do not have permission %q on resource %q (or it may not exist). `gcloud auth configure-docker %s` makes docker log in.",
					e.permission, image.Repository, req.host.Host),
			}
		}
		return err
	}
	if e.permission == upload && artifacts.IsLegacy(image.Repository) {
		if err := s.createOnPush(req); err != nil {
			return err
		}
	}
	return e.serve(w, req)
}

// createOnPush makes the repository behind a host of Container Registry for the first push to it.
func (s *server) createOnPush(r *request) error {
	_, err := s.Artifacts.Repository(r.Context(), r.image.Repository)
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	const permission = "artifactregistry.repositories.createOnPush"
	if err := s.Identity.Authorize(r.Context(), r.who, permission, r.image.Repository.Location.String()); err != nil {
		return &fault.Error{
			Code:  fault.PermissionDenied,
			Cause: err,
			Message: r.image.Repository.ID +
				" repo does not exist. Creating on push requires the " + permission +
				" permission (roles/artifactregistry.createOnPushWriter).",
		}
	}
	return s.Artifacts.CreateOnPush(r.Context(), r.image.Repository)
}

// image reads the name of an image as its host does; its project is named by id afterwards. A project that there is not
// stays as it is: no caller has a role there.
func (s *server) image(name string, read func(string) (artifacts.Image, error)) (artifacts.Image, error) {
	image, err := read(name)
	if err != nil {
		return image, err
	}
	if p, err := s.Project(image.Repository.Project); err == nil {
		of := image.Repository
		image.Repository = resource.Repository(p.ID, of.Location.Location, of.ID)
	}
	return image, nil
}

// hostname is a Host header without its port, in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(host)
}

// ping answers whether this is a registry, and whether the caller's credentials are good for anything.
func (s *server) ping(w http.ResponseWriter, r *http.Request) error {
	who, err := s.authenticate(r)
	if err != nil {
		return err
	}
	if who == iam.Anonymous && !anonymousToken(r) {
		return iam.Unauthenticated("CREDENTIALS_MISSING")
	}
	return writeJSON(w, http.StatusOK, "application/json", struct{}{})
}
