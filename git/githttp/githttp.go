// Package githttp is Git's smart HTTP protocol (versions 0 to 2) at
// https://source.developers.google.com/p/PROJECT/r/REPO, as Cloud Source Repositories speaks it.
//
// It serves git clients for package git, which keeps the repositories. It authenticates, asks who may do what, bounds
// what comes in and records pushes; it decides nothing itself. The dumb protocol is refused.
//
// Rules: https://git-scm.com/docs/http-protocol and https://git-scm.com/docs/protocol-v2.
package githttp

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"

	"giggle/fault"
	"giggle/git"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/resource"
)

// Host is the name that it serves.
const Host = "source.developers.google.com"

// Authorizer is the identity side: *iam.IAM.
type Authorizer interface {
	Credential(ctx context.Context, header, host string) (iam.Credential, error)
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
}

// Recorder keeps the audit log: *audit.Log.
type Recorder interface {
	Record(e audit.Event) error
	Begin(ctx context.Context, e audit.Event) (context.Context, *audit.Pending)
}

// Config is what New needs.
type Config struct {
	Repos    *git.Repos
	Identity Authorizer
	Project  resource.FindProject
	Enabled  func(project, service string) error // fails when an API is disabled in a project
	Audit    Recorder
	NewID    func() string       // of requests
	Admit    func(n int64) error // asked before a push's bytes are taken in, for the disk reserve; nil admits all
	Log      *slog.Logger
}

// New returns the handler of the host.
func New(cfg Config) http.Handler {
	if cfg.Admit == nil {
		cfg.Admit = func(int64) error { return nil }
	}
	return &server{cfg}
}

type server struct{ Config }

// service is the API that a project can disable.
const service = "sourcerepo.googleapis.com"

// permissions are what each service needs on the repository.
var permissions = map[git.Service]string{git.UploadPack: "source.repos.get", git.ReceivePack: "source.repos.update"}

// maxFetch bounds what a client says that it has and wants, in bytes.
const maxFetch = 32 << 20

// request is one call.
type request struct {
	*http.Request
	project, repo string
	service       git.Service
	advertise     bool // the first step: the list of refs
	id            string
	who           iam.Principal
}

// resource is the name that policies are kept under.
func (r *request) resource() string { return git.Resource(r.project, r.repo) }

// ServeHTTP authenticates, authorises and serves one request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := &request{Request: r, id: s.NewID()}
	w.Header().Set("X-Goog-Request-Id", req.id)
	body := &started{ResponseWriter: w}
	err := s.serve(body, req)
	if req.service != "" {
		s.record(req, err)
	}
	if err == nil || errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return
	}
	if fault.From(err).Code == fault.Internal {
		s.Log.Error("git", "request", req.id, "repo", req.resource(), "service", req.service, "err", err)
	}
	if body.wrote {
		panic(http.ErrAbortHandler) // half an answer must not look whole
	}
	writeError(w, err)
}

// started remembers whether an answer has begun.
type started struct {
	http.ResponseWriter
	wrote bool
}

func (s *started) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *started) Write(b []byte) (int, error) {
	s.wrote = true
	n, err := s.ResponseWriter.Write(b)
	if err == nil {
		_ = http.NewResponseController(s.ResponseWriter).Flush() // progress is to be seen while it is progress
	}
	return n, err
}

// prefaced writes something before the first that is written: no answer has begun when there is none.
type prefaced struct {
	w       io.Writer
	preface string
}

func (p *prefaced) Write(b []byte) (int, error) {
	if p.preface != "" {
		if _, err := io.WriteString(p.w, p.preface); err != nil {
			return 0, err
		}
		p.preface = ""
	}
	return p.w.Write(b)
}

// route reads the path "/p/PROJECT/r/REPO/…".
func (s *server) route(r *request) error {
	f := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 5)
	if len(f) != 5 || f[0] != "p" || f[2] != "r" {
		return fault.New(fault.NotFound, "A repository is at https://%s/p/PROJECT/r/REPO.", Host)
	}
	r.project, r.repo = f[1], strings.TrimSuffix(f[3], ".git")
	if git.CheckName(r.repo) != nil {
		return fault.New(fault.NotFound, "%.100q is not a name of a repository.", r.repo)
	}
	switch rest := f[4]; {
	case rest == "info/refs" && r.Method == http.MethodGet:
		r.service, r.advertise = git.Service(r.URL.Query().Get("service")), true
	case r.Method == http.MethodPost:
		r.service = git.Service(rest)
	}
	if permissions[r.service] == "" {
		r.service = ""
		return fault.New(fault.NotFound, "Only Git's smart HTTP protocol is served here.")
	}
	return nil
}

func (s *server) serve(w *started, r *request) (err error) {
	if err := s.route(r); err != nil {
		return err
	}
	if r.who, err = s.authenticate(r); err != nil {
		return err
	}
	if p, err := s.Project(r.project); err == nil { // of no project: no caller has a role there
		r.project = p.ID
	}
	if err := s.Identity.Authorize(r.Context(), r.who, permissions[r.service], r.resource()); err != nil {
		return err
	}
	if err := s.Enabled(r.project, service); err != nil {
		return err
	}
	repo, err := s.Repos.Get(r.Context(), r.project, r.repo)
	if err != nil {
		return err
	}
	if r.service == git.ReceivePack && repo.Mirror != "" {
		return fault.New(fault.PermissionDenied, "%s is a mirror of %s: push there.", repo.Name, repo.Mirror)
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	if r.service == git.ReceivePack {
		if err := s.Admit(0); err != nil {
			return err
		}
	}
	if r.advertise {
		h.Set("Content-Type", "application/x-"+string(r.service)+"-advertisement")
		out := &prefaced{w: w}
		if version(r.Request) < 2 || r.service == git.ReceivePack {
			line := "# service=" + string(r.service) + "\n"
			out.preface = fmt.Sprintf("%04x%s0000", len(line)+4, line)
		}
		return s.Repos.Advertise(r.Context(), repo, r.service, version(r.Request), out)
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-"+string(r.service)+"-request" {
		return fault.New(fault.InvalidArgument, "The content type %.60q does not fit the service.", got)
	}
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	h.Set("Content-Type", "application/x-"+string(r.service)+"-result")
	if r.service != git.ReceivePack {
		return s.Repos.Serve(r.Context(), repo, r.service, version(r.Request), body, w)
	}
	ctx, pending := s.Audit.Begin(r.Context(), event(r, nil))
	err = s.Repos.Serve(ctx, repo, r.service, version(r.Request), body, w)
	s.logged(r, pending.End(event(r, err)))
	return err
}

// body is what the client sends, unpacked where it packed it. A push has its limit in git itself; what a fetch sends is
// bounded here.
func (s *server) body(w http.ResponseWriter, r *request) (io.Reader, error) {
	// The answer begins while the request still comes in.
	_ = http.NewResponseController(w).EnableFullDuplex()
	var body io.Reader = r.Body
	switch r.Header.Get("Content-Encoding") {
	case "", "identity":
	case "gzip", "x-gzip":
		gz, err := gzip.NewReader(body)
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "The body is not gzip.")
		}
		body = gz
	default:
		return nil, fault.New(fault.InvalidArgument, "The content encoding is not known.")
	}
	if r.service == git.UploadPack {
		return io.LimitReader(body, maxFetch), nil
	}
	return admitted{body, s.Admit}, nil
}

// admitted is a push as long as there is room for it.
type admitted struct {
	r     io.Reader
	admit func(n int64) error
}

func (a admitted) Read(p []byte) (int, error) {
	if err := a.admit(int64(len(p))); err != nil {
		return 0, err
	}
	return a.r.Read(p)
}

// version is the protocol that a client asks for. What it says beside that is not passed on.
func version(r *http.Request) int {
	for _, f := range strings.Split(r.Header.Get("Git-Protocol"), ":") {
		switch f {
		case "version=2":
			return 2
		case "version=1":
			return 1
		}
	}
	return 0
}

// authenticate returns who sends a request: by an access token, as Bearer or as the password of Basic, which is what
// gcloud's credential helper gives to git.
func (s *server) authenticate(r *request) (iam.Principal, error) {
	header := r.Header.Get("Authorization")
	if _, password, ok := r.BasicAuth(); ok {
		header = "Bearer " + password
	}
	c, err := s.Identity.Credential(r.Context(), header, "")
	if err != nil {
		return c.Principal, err
	}
	if c.Principal == iam.Anonymous {
		return c.Principal, iam.Unauthenticated("CREDENTIALS_MISSING")
	}
	return c.Principal, c.CheckScope(service, string(r.service), r.service == git.UploadPack)
}

// writeError answers in text, which git shows its user.
func writeError(w http.ResponseWriter, err error) {
	f := fault.From(err)
	if f.Code == fault.Unauthenticated {
		w.Header().Set("WWW-Authenticate", `Basic realm="Giggle"`)
	}
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds())))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(f.Code.HTTPStatus())
	_, _ = fmt.Fprintln(w, f.Message)
}

// record writes a request that is no push to the audit log if it was refused to an authenticated caller.
func (s *server) record(r *request, err error) {
	if fault.Is(err, fault.PermissionDenied) {
		s.logged(r, s.Audit.Record(event(r, err)))
	}
}

func (s *server) logged(r *request, err error) {
	if err != nil {
		s.Log.Error("a push is missing in the audit log", "repo", r.resource(), "request", r.id, "err", err)
	}
}

// event is a request as the audit log takes it, with what came of it.
func event(r *request, err error) audit.Event {
	e := audit.Event{
		RequestID:  r.id,
		Service:    service,
		Method:     string(r.service),
		Project:    r.project,
		Resource:   r.resource(),
		Permission: permissions[r.service],
		Data:       true,
		Member:     r.who.Member,
		UserAgent:  r.UserAgent(),
	}
	e.Caller, _, _ = net.SplitHostPort(r.RemoteAddr)
	if f := fault.From(err); f != nil {
		e.Code, e.Message = int32(f.Code), f.Message
	}
	return e
}
