package mirror

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"giggle/blob"
	"giggle/fault"
)

// endpoint is where the images of a registry are asked for: the registry itself, or a mirror of it.
type endpoint struct {
	host     string
	prefix   string // before the repository, "" for none
	insecure bool   // plain HTTP
	ca       string // file of certificates to trust besides the machine's, "" for none
	inside   bool   // it may be at an address that isn't public
	auth     authn.AuthConfig
}

// client reads from one repository at one endpoint. It is closed after use.
type client struct {
	host  string
	repo  name.Repository
	http  *http.Client
	base  *watched
	auth  authn.AuthConfig
	login bool // whether these are taken is the question
}

const (
	maxRedirects = 5
)

// accepted are the media types of manifests and indexes.
var accepted = strings.Join([]string{
	string(types.OCIImageIndex), string(types.DockerManifestList), string(types.OCIManifestSchema1),
	string(types.DockerManifestSchema2),
}, ", ")

// newClient returns a client for a repository, which is named as the registry itself names it. It asks nothing yet.
func newClient(
	e endpoint, repository string, proxy func(*url.URL) (*url.URL, error), stalls time.Duration,
) (*client, error) {
	opts := []name.Option{}
	if e.insecure {
		opts = append(opts, name.Insecure)
	}
	full := e.host + "/" + strings.TrimPrefix(e.prefix+"/"+repository, "/")
	repo, err := name.NewRepository(full, opts...)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "%.200q is not the name of a repository.", full)
	}
	g := &guard{host: repo.RegistryStr(), inside: e.inside}
	t := &http.Transport{
		DialContext:         g.dial,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: maxDownloads,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // what is hashed is what was sent
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if e.ca != "" {
		if t.TLSClientConfig.RootCAs, err = rootsWith(e.ca); err != nil {
			return nil, err
		}
	}
	if proxy != nil {
		t.Proxy = func(r *http.Request) (*url.URL, error) {
			u, err := proxy(r.URL)
			if u != nil {
				g.through(net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), proxyPorts[u.Scheme])))
			}
			return u, err
		}
	}
	base := &watched{inner: t, guard: g, plain: e.insecure || isLocal(g.host), stalls: stalls}
	return &client{host: shown(repo.RegistryStr()), repo: repo, base: base, auth: e.auth}, nil
}

var proxyPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// shown is a registry's host as people write it.
func shown(host string) string {
	if host == dockerHub {
		return "docker.io"
	}
	return host
}

// isLocal reports whether a host is this machine by its name: plain HTTP to it leaves the machine nowhere.
func isLocal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}

// rootsWith are the machine's certificates and those of a file.
func rootsWith(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.FailedPrecondition, "The certificates of a registry can't be read: %v.", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.FailedPrecondition, "%s has no certificate in PEM.", file)
	}
	return pool, nil
}

// connect asks the registry how it wants to be asked, and gets a token where it wants one.
func (c *client) connect(ctx context.Context) error {
	who := authn.Anonymous
	if c.auth != (authn.AuthConfig{}) {
		who = authn.FromConfig(c.auth)
	}
	t, err := transport.NewWithContext(ctx, c.repo.Registry, who, c.base, []string{c.repo.Scope(transport.PullScope)})
	if err != nil {
		return c.failure(ctx, err)
	}
	c.http = &http.Client{Transport: t, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fault.New(fault.Unavailable, "%s redirects without end.", c.host)
		}
		return nil
	}}
	return nil
}

// verify asks the registry whether it takes the client's credentials.
func (c *client) verify(ctx context.Context) error {
	if err := c.connect(ctx); err != nil {
		return err
	}
	u := url.URL{Scheme: c.repo.Scheme(), Host: c.repo.RegistryStr(), Path: "/v2/"}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return c.failure(ctx, err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode == http.StatusOK {
		return err
	}
	return c.refusal(resp.StatusCode, "")
}

func (c *client) close() { c.base.inner.CloseIdleConnections() }

// url is an address of the repository.
func (c *client) url(kind, reference string) string {
	u := url.URL{Scheme: c.repo.Scheme(), Host: c.repo.RegistryStr(), Path: "/v2/" + c.repo.RepositoryStr() + "/" + kind + "/" + reference}
	return u.String()
}

// do sends a request; every status but those expected is the registry's refusal, as a fault.
func (c *client) do(
	ctx context.Context, method, kind, reference string, h http.Header, ok ...int,
) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.url(kind, reference), nil)
	if err != nil {
		return nil, err
	}
	if h != nil {
		r.Header = h
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.failure(ctx, err)
	}
	for _, code := range ok {
		if resp.StatusCode == code {
			return resp, nil
		}
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return nil, c.refusal(resp.StatusCode, words(b))
}

// words is what a registry says in the body of a refusal.
func words(body []byte) string {
	var e struct {
		Errors []struct{ Message string } `json:"errors"`
	}
	if json.Unmarshal(body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Message
}

// refusal is the fault of a status.
func (c *client) refusal(status int, said string) error {
	if said != "" {
		said = fmt.Sprintf(" (%.200q)", said)
	}
	switch {
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && c.login:
		return fault.New(fault.PermissionDenied, "%s does not take these credentials%s.", c.host, said)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fault.New(fault.PermissionDenied,
			"%s gives %s out to nobody it doesn't know: there is no such image, or it is private%s. `giggle images login %s` says who asks.",
			c.host, c.repo.RepositoryStr(), said, c.host)
	case status == http.StatusNotFound:
		return fault.New(fault.FailedPrecondition, "%s has no such image%s.", c.host, said)
	case status == http.StatusTooManyRequests:
		f := fault.New(fault.ResourceExhausted,
			"%s gives out no more images to this machine for now: its rate limit is reached%s%s. `giggle images login %s` may raise it.",
			c.host, c.base.resets(), said, c.host)
		f.RetryAfter = c.base.wait()
		return f
	}
	return fault.New(fault.Unavailable, "%s answers %d %s%s.", c.host, status, http.StatusText(status), said)
}

// failure is the fault of a request that has no answer, or of a handshake that was refused.
func (c *client) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return context.Cause(ctx)
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return known
	}
	// Before what the same host says without TLS, where that was tried, too.
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return fault.New(fault.FailedPrecondition,
			"%s can't be trusted: %v. The file of --registries names the certificates of a registry (\"ca\").", c.host,
			certificate.Err)
	}
	var refused *transport.Error
	if errors.As(err, &refused) {
		said := ""
		if len(refused.Errors) > 0 {
			said = refused.Errors[0].Message
		}
		return c.refusal(refused.StatusCode, said)
	}
	var dns *net.DNSError
	var op *net.OpError
	why := err.Error()
	switch {
	case errors.As(err, &dns):
		why = dns.Error()
	case errors.As(err, &op):
		why = op.Error()
	case errors.Is(err, context.DeadlineExceeded):
		why = "it does not answer in time"
	}
	return &fault.Error{
		Code:    fault.Unavailable,
		Message: fmt.Sprintf("%s can't be reached: %.300s.", c.host, why),
		Cause:   err,
	}
}

// document is a manifest or an index, as it was sent.
type document struct {
	raw    []byte
	digest string
	index  bool
}

// manifest gets a manifest or an index by its tag or digest.
func (c *client) manifest(ctx context.Context, reference string) (document, error) {
	resp, err := c.do(ctx, http.MethodGet, "manifests", reference, http.Header{"Accept": {accepted}}, http.StatusOK)
	if err != nil {
		return document{}, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return document{}, c.failure(ctx, err)
	}
	if len(raw) > maxDocument {
		return document{}, fault.New(fault.FailedPrecondition, "%s sends a manifest of more than %d MiB.", c.host,
			maxDocument>>20)
	}
	d := document{raw: raw, digest: string(blob.FromBytes(raw))}
	want := reference
	if !strings.Contains(want, ":") {
		want = resp.Header.Get("Docker-Content-Digest")
	}
	if strings.HasPrefix(want, "sha256:") && want != d.digest {
		return document{}, fault.New(fault.DataLoss, "%s sends %s as %.80s: it is damaged, or not what it says.", c.host,
			d.digest, want)
	}
	var probe struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &probe); err != nil {
		return document{}, fault.New(fault.DataLoss, "%s sends a manifest that can't be read: %v.", c.host, err)
	}
	d.index = probe.MediaType.IsIndex() || len(probe.Manifests) > 0
	return d, nil
}

// current is the digest that a tag has now, "" where the registry doesn't say without sending it.
func (c *client) current(ctx context.Context, tag string) (string, error) {
	resp, err := c.do(ctx, http.MethodHead, "manifests", tag, http.Header{"Accept": {accepted}}, http.StatusOK)
	if err != nil {
		return "", err
	}
	return resp.Header.Get("Docker-Content-Digest"), resp.Body.Close()
}

// platformOf takes this machine's image out of an index.
func platformOf(raw []byte) (v1.Descriptor, error) {
	var index v1.IndexManifest
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&index); err != nil {
		return v1.Descriptor{}, fault.New(fault.DataLoss, "The index can't be read: %v.", err)
	}
	var have []string
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.Satisfies(platform) {
			return d, nil
		}
		if d.Platform.OS != "unknown" { // what is attached to an image, such as an attestation
			have = append(have, d.Platform.String())
		}
	}
	return v1.Descriptor{}, fault.New(fault.FailedPrecondition, "There is no image for %s in it, only for %.200s.",
		platform, strings.Join(have, ", "))
}

// watched is the way to a registry: it sees that no request and no answer hangs, that a document stays small, and that
// nothing goes where it may not.
type watched struct {
	inner  *http.Transport
	guard  *guard
	plain  bool // HTTP without TLS is meant
	stalls time.Duration

	mu    sync.Mutex
	limit http.Header // of the last answer that said that there were too many requests
}

// bulk marks a request for a layer, whose answer may be long.
type bulk struct{}

func errStalled(after time.Duration) error {
	return fault.New(fault.Unavailable, "The registry sent nothing for %v.", after)
}

// RoundTrip sends a request.
func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && (r.URL.Scheme != "http" || !w.plain) {
		return nil, fault.New(fault.PermissionDenied,
			"%s is asked over TLS only. The file of --registries may say that a registry has none (\"insecure\").",
			r.URL.Host)
	}
	// A proxy looks names up itself; what is no name can be judged here.
	if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil {
		port := cmp.Or(r.URL.Port(), map[string]string{"http": "80"}[r.URL.Scheme], "443")
		if err := w.guard.admit(net.JoinHostPort(r.URL.Hostname(), port), a); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(w.stalls, func() { cancel(errStalled(w.stalls)) })
	end := func() { timer.Stop(); cancel(nil) }
	resp, err := w.inner.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cause := context.Cause(ctx)
		end()
		var stalled *fault.Error
		if errors.As(cause, &stalled) {
			err = stalled
		}
		return nil, err
	}
	timer.Reset(w.stalls)
	if resp.StatusCode == http.StatusTooManyRequests {
		w.mu.Lock()
		w.limit = resp.Header.Clone()
		w.mu.Unlock()
	}
	left := int64(maxDocument + 1)
	if r.Context().Value(bulk{}) != nil {
		left = 1 << 62
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, ctx: ctx, timer: timer, end: end, stalls: w.stalls, left: left}
	return resp, nil
}

// watchedBody ends when nothing has come for a while.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context
	timer  *time.Timer
	end    func()
	stalls time.Duration
	left   int64
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fault.New(fault.FailedPrecondition, "The registry's answer has more than %d MiB.", maxDocument>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.timer.Reset(b.stalls)
	var stalled *fault.Error
	if err != nil && err != io.EOF && errors.As(context.Cause(b.ctx), &stalled) {
		err = stalled
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.end()
	return b.ReadCloser.Close()
}

// wait is how long a registry that limits requests wants to be left alone, 0 where it does not say.
func (w *watched) wait() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	after := w.limit.Get("Retry-After")
	if n, err := strconv.Atoi(after); err == nil && n >= 0 {
		return min(time.Duration(n)*time.Second, 24*time.Hour)
	}
	if t, err := http.ParseTime(after); err == nil {
		return max(time.Until(t).Round(time.Second), 0)
	}
	return 0
}

// resets says when requests are taken again, as far as the registry says it.
func (w *watched) resets() string {
	if d := w.wait(); d > 0 {
		return fmt.Sprintf("; it resets in %v", d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// Docker Hub: "100;w=21600", so many in so many seconds.
	limit, window, ok := strings.Cut(w.limit.Get("RateLimit-Limit"), ";w=")
	n, err := strconv.Atoi(window)
	if !ok || err != nil || n <= 0 || n > 1<<20 {
		return ""
	}
	return fmt.Sprintf("; it is %.10s in %v", limit, time.Duration(n)*time.Second)
}
