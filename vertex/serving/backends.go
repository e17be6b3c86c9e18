package serving

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
	"giggle/secrets"
	"giggle/vertex"
	"giggle/vertex/ollama"
	"giggle/vertex/openai"
)

// open returns the backend at an address (vertex.Route.Backend).
func (s *Serving) open(project, address string) (vertex.Backend, error) {
	bad := func(why string) error { return fault.Invalid("backend", "%.200q: %s", address, why) }
	u, err := url.Parse(address)
	if err != nil {
		return nil, bad("is no address")
	}
	model := strings.TrimPrefix(u.Path, "/")
	scheme, secure := strings.CutSuffix(u.Scheme, "+https")
	server := "http://" + u.Host
	if secure {
		server = "https://" + u.Host
	}
	switch scheme {
	case "embedded":
		return s.embeddedModel(project, u.Opaque)
	case "ollama", "openai":
		if u.Host == "" || model == "" {
			return nil, bad("write " + scheme + "://HOST:PORT/MODEL")
		}
		if scheme == "ollama" {
			return &ollama.Backend{Client: &http.Client{}, URL: server, Model: model}, nil
		}
		key, err := s.modelKey(project, u.Query().Get("key"))
		return &openai.Backend{Client: &http.Client{}, URL: server, Model: model, Key: key}, err
	case "run":
		if u.Host == "" || model == "" {
			return nil, bad("write run://SERVICE/MODEL?region=REGION")
		}
		return s.serviceModel(project, u.Host, u.Query().Get("region"), model)
	}
	return nil, bad("is not embedded:, ollama://HOST:PORT/MODEL, openai://HOST:PORT/MODEL or run://SERVICE/MODEL?region=REGION")
}

// modelKey reads the key of a model's server: a secret of the project, SECRET/VERSION. It is never a path that the
// caller names: what is read is sent to a server that he names too.
func (s *Serving) modelKey(project, key string) (string, error) {
	if key == "" {
		return "", nil
	}
	name, version, _ := strings.Cut(key, "/")
	b, err := s.cfg.Secrets.Get(secrets.Name(project, name, version))
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// serviceModel is a model that a Cloud Run service of this platform has, behind Ollama's API. It is called as Vertex
// AI's service agent of the project, which needs roles/run.invoker on a private service.
func (s *Serving) serviceModel(project, service, region, model string) (vertex.Backend, error) {
	if !resource.IsRegion(region) {
		return nil, fault.Invalid("backend", "region=%.60s is not one of Cloud Run's", region)
	}
	p, err := s.cfg.Project(project)
	if err != nil {
		return nil, err
	}
	at := s.cfg.ServiceURL(p, resource.Service(p.ID, region, service))
	client := &http.Client{
		Transport: &invoker{serving: s, who: iam.ServiceAccount(iam.ModelAgent(p.Number)), audience: at},
	}
	return &ollama.Backend{Client: client, URL: at, Model: model}, nil
}

// invoker sends requests to a service over the platform's own edge, with an ID token of an account.
type invoker struct {
	serving  *Serving
	who      iam.Principal
	audience string

	once sync.Once
	next http.RoundTripper

	mu      sync.Mutex
	token   string
	expires time.Time
}

// RoundTrip sends a request with a token.
func (i *invoker) RoundTrip(r *http.Request) (*http.Response, error) {
	i.once.Do(func() {
		i.next = &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: i.serving.cfg.Roots},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", i.serving.cfg.Edge())
			},
			ForceAttemptHTTP2: true,
			IdleConnTimeout:   time.Minute,
		}
	})
	token, err := i.idToken()
	if err != nil {
		return nil, err
	}
	out := r.Clone(r.Context())
	out.Header.Set("Authorization", "Bearer "+token)
	res, err := i.next.RoundTrip(out)
	if err == nil && res.StatusCode == http.StatusForbidden {
		_ = res.Body.Close() // a page for browsers
		return nil, fault.New(fault.PermissionDenied,
			"The service at %s may not be called by %s. Grant that account roles/run.invoker on it.", i.audience, i.who)
	}
	return res, err
}

// idToken returns a token that is good for a while yet.
func (i *invoker) idToken() (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if now := i.serving.cfg.Now(); i.token == "" || now.After(i.expires) {
		token, err := i.serving.cfg.Identity.IDToken(i.who, i.audience)
		if err != nil {
			return "", err
		}
		i.token, i.expires = token, now.Add(iam.AccessTokenAge/2)
	}
	return i.token, nil
}
