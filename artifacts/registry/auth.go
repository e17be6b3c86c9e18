package registry

import (
	"context"
	"net/http"
	"strings"

	"giggle/artifacts"
	"giggle/fault"
	"giggle/iam"
)

// anonymous is the token of those who have no credentials: clients want one before they try. It proves nothing.
const anonymous = "anonymous"

// maxForm bounds the form of a token request.
const maxForm = 64 << 10

// tokenLife is how many seconds clients keep a token before they ask again. It is an access token in its own right,
// with a life of its own; this is the specification's least.
const tokenLife = 60

// tokenUser reports whether the password of a user name is an access token: `gcloud auth configure-docker` logs in as
// _dcgcloud_token, `gcloud container images` as _token, docker-credential-gcr as _dcgcr_VERSION_token, and Google's
// documentation as oauth2accesstoken (https://cloud.google.com/artifact-registry/docs/docker/authentication).
func tokenUser(name string) bool {
	switch name {
	case "_dcgcloud_token", "_token", "oauth2accesstoken":
		return true
	}
	return strings.HasPrefix(name, "_dcgcr_") && strings.HasSuffix(name, "_token")
}

// authenticate returns who sends a request: by an access token, as Bearer or as the password of Basic.
func (s *server) authenticate(r *http.Request) (iam.Principal, error) {
	if anonymousToken(r) {
		return iam.Anonymous, nil
	}
	user, password, basic := r.BasicAuth()
	if !basic {
		return s.bearer(r, r.Header.Get("Authorization"))
	}
	token, err := s.logIn(r.Context(), user, password)
	if err != nil {
		return iam.Anonymous, err
	}
	return s.bearer(r, "Bearer "+token)
}

// bearer returns whose token a header carries, if the token is for what the request does.
func (s *server) bearer(r *http.Request, header string) (iam.Principal, error) {
	c, err := s.Identity.Credential(r.Context(), header, "")
	if err == nil {
		err = c.CheckScope("artifactregistry.googleapis.com", r.Method+" "+r.URL.Path,
			r.Method == http.MethodGet || r.Method == http.MethodHead)
	}
	return c.Principal, err
}

// logIn returns the access token that a user's password is, or that it stands for.
func (s *server) logIn(ctx context.Context, user, password string) (string, error) {
	switch {
	case tokenUser(user):
		return password, nil
	case user == "_json_key", user == "_json_key_base64":
		who, err := s.keyHolder(ctx, password, user == "_json_key_base64")
		if err != nil {
			return "", err
		}
		token, _, err := s.Identity.AccessToken(who, []string{iam.ScopeCloudPlatform})
		return token, err
	}
	return "", iam.Unauthenticated("")
}

// anonymousToken reports whether a request carries an unauthenticated client's token.
func anonymousToken(r *http.Request) bool {
	return r.Header.Get("Authorization") == "Bearer "+anonymous
}

// token answers Docker's token requests. The token that it gives is the access token that came as the password: what
// it is good for is decided with each request, and not before.
func (s *server) token(w http.ResponseWriter, r *http.Request) error {
	user, password, ok := r.BasicAuth()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost: // RFC 6749 §4.3, as containerd and Docker send it
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			return &fault.Error{Code: fault.InvalidArgument, Message: "The body is not a form.", Cause: err}
		}
		switch grant := r.PostForm.Get("grant_type"); {
		case grant == "password":
			user, password, ok = r.PostForm.Get("username"), r.PostForm.Get("password"), true
		case !ok:
			return coded("UNSUPPORTED",
				fault.New(fault.Unimplemented, "The grant type %.40q is not implemented; use \"password\".", grant))
		}
	default:
		return coded("UNSUPPORTED",
			fault.New(fault.Unimplemented, "%.20s is not a method of the token endpoint.", r.Method))
	}
	token := anonymous
	switch header := r.Header.Get("Authorization"); {
	case ok && (user != "" || password != ""):
		var err error
		if token, err = s.logIn(r.Context(), user, password); err != nil {
			return err
		}
	case !ok && header != "":
		_, token, _ = strings.Cut(header, " ")
	}
	if token != anonymous {
		c, err := s.Identity.Credential(r.Context(), "Bearer "+token, "")
		if err != nil {
			return err
		}
		if c.Principal == iam.Anonymous {
			return iam.Unauthenticated("")
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusOK, "application/json", struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}{token, token, tokenLife})
}

// challenge tells a client where to get a token, and for what.
func challenge(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	host := hostname(r.Host)
	if _, ok := artifacts.ParseHost(host); !ok {
		return `Bearer realm="Giggle"`
	}
	c := `Bearer realm="` + scheme + `://` + cleanHost(r.Host) + `/v2/token",service="` + host + `"`
	rt, ok := parseRoute(r.URL.Path)
	if !ok {
		return c
	}
	if registry, _ := artifacts.ParseHost(host); !clean(registry, rt.name) {
		return c // what is in a header must be clean
	}
	actions := "pull"
	if rt.noun == uploadsNoun || rt.noun == uploadNoun || r.Method == http.MethodPut || r.Method == http.MethodPost {
		actions = "pull,push"
	} else if r.Method == http.MethodDelete {
		actions = "delete"
	}
	return c + `,scope="repository:` + rt.name + `:` + actions + `"`
}

func clean(registry artifacts.Registry, name string) bool {
	_, err := registry.Image(name)
	return err == nil
}

// cleanHost is a Host header whose name is known to be one of ours, without what may not stand in a quoted string.
func cleanHost(host string) string { return strings.NewReplacer(`"`, "", `\`, "").Replace(host) }
