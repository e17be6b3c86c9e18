// Package metadata is the metadata server of Compute Engine and Cloud Run, as Google's client libraries ask it:
// project, region, instance id, and tokens of the service account that the caller runs as.
//
// It serves instances and build steps, each through a listener of its own, so it knows who is asking. It makes no
// tokens itself. The rules are those of https://cloud.google.com/compute/docs/metadata/querying-metadata and of the
// Cloud Run container contract. Nothing in it changes while an instance lives, but for its tokens.
package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Identity is who asks.
type Identity struct {
	ProjectID     string
	ProjectNumber string
	Region        string // "europe-north1"
	InstanceID    string
	Account       string   // e-mail address of the service account
	Scopes        []string // of its access tokens
}

// Tokens makes tokens of service accounts.
type Tokens interface {
	AccessToken(ctx context.Context, account string, scopes []string) (token string, expires time.Time, err error)
	IDToken(ctx context.Context, account, audience string) (string, error)
}

// New returns the server for one caller.
func New(id Identity, tokens Tokens, now func() time.Time) http.Handler {
	return &server{id: id, tokens: newCached(tokens, now), now: now, waits: make(chan struct{}, maxWaits)}
}

type server struct {
	id     Identity
	tokens *cached
	now    func() time.Time
	waits  chan struct{} // holds one for each that waits for a change
}

// leaf is a value that is made when it is asked for. A nil error and no value is left out of recursive answers.
type leaf func(r *http.Request) (value any, err error)

// badRequest is an error of the caller's.
type badRequest string

func (e badRequest) Error() string { return string(e) }

// tree is the whole of what there is: maps are directories, strings values, leafs made on demand.
func (s *server) tree() map[string]any {
	account := map[string]any{
		"aliases":  []string{"default"},
		"email":    s.id.Account,
		"scopes":   s.id.Scopes,
		"token":    leaf(s.token),
		"identity": leaf(s.identity),
	}
	return map[string]any{
		"instance": map[string]any{
			"id":               s.id.InstanceID,
			"region":           "projects/" + s.id.ProjectNumber + "/regions/" + s.id.Region,
			"zone":             "projects/" + s.id.ProjectNumber + "/zones/" + s.id.Region + "-1",
			"service-accounts": map[string]any{"default": account, s.id.Account: account},
		},
		"project":  map[string]any{"project-id": s.id.ProjectID, "numeric-project-id": json.Number(s.id.ProjectNumber)},
		"universe": map[string]any{"universe-domain": "googleapis.com"},
	}
}

// ServeHTTP answers one query.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Metadata-Flavor", "Google")
	h.Set("Server", "Metadata Server for Cloud Run")
	h.Set("X-Frame-Options", "0")
	path := strings.Trim(r.URL.Path, "/")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		fail(w, http.StatusMethodNotAllowed, "Only GET is allowed.")
		return
	case r.Header.Get("X-Forwarded-For") != "": // a proxy that was tricked into asking for another
		fail(w, http.StatusForbidden, "A request with X-Forwarded-For is refused.")
		return
	case path == "": // how libraries find out that they are on Google Cloud
		text(w, "computeMetadata/\n")
		return
	case path == "computeMetadata":
		text(w, "v1/\n")
		return
	// the older name
	case !strings.EqualFold(r.Header.Get("Metadata-Flavor"), "Google") && !isTrue(r.Header.Get("X-Google-Metadata-Request")):
		fail(w, http.StatusForbidden, "Missing required header: Metadata-Flavor: Google")
		return
	}
	rest, ok := strings.CutPrefix(path, "computeMetadata/v1")
	if !ok || rest != "" && rest[0] != '/' {
		fail(w, http.StatusNotFound, "Not found.")
		return
	}
	node, ok := s.find(rest)
	if !ok {
		fail(w, http.StatusNotFound, "Not found.")
		return
	}
	a, err := s.render(r, node)
	if err == nil && isTrue(r.URL.Query().Get("wait_for_change")) {
		if err = s.wait(r, a.etag()); err == nil {
			a, err = s.render(r, node) // a token may be another one by now
		}
	}
	var bad badRequest
	switch {
	case err == nil:
		h.Set("Content-Type", a.kind)
		h.Set("ETag", a.etag())
		_, _ = w.Write(a.body)
	case errors.Is(err, errWaits):
		fail(w, http.StatusTooManyRequests, err.Error())
	case errors.As(err, &bad):
		fail(w, http.StatusBadRequest, err.Error())
	case r.Context().Err() != nil: // the caller left
	default:
		fail(w, http.StatusInternalServerError, err.Error())
	}
}

// find returns the node of a path below v1.
func (s *server) find(path string) (node any, ok bool) {
	node = s.tree()
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue
		}
		if name == "universe_domain" { // as older libraries ask
			name = "universe-domain"
		}
		dir, isDir := node.(map[string]any)
		if node, ok = dir[name]; !isDir || !ok {
			return nil, false
		}
	}
	return node, true
}

func (s *server) token(r *http.Request) (any, error) {
	scopes := s.id.Scopes
	if want := r.URL.Query().Get("scopes"); want != "" {
		scopes = strings.FieldsFunc(want, func(c rune) bool { return c == ',' || c == ' ' })
		for _, x := range scopes {
			if !slices.Contains(s.id.Scopes, x) &&
				!slices.Contains(s.id.Scopes, "https://www.googleapis.com/auth/cloud-platform") {
				return nil, badRequest("The scope " + x + " is not one of this instance's.")
			}
		}
	}
	token, expires, err := s.tokens.accessToken(r.Context(), s.id.Account, scopes)
	if err != nil {
		return nil, err
	}
	return struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		TokenType   string `json:"token_type"`
	}{token, int(expires.Sub(s.now()) / time.Second), "Bearer"}, nil
}

func (s *server) identity(r *http.Request) (any, error) {
	q := r.URL.Query()
	audience := q.Get("audience")
	if audience == "" {
		return nil, badRequest("non-empty audience parameter required")
	}
	// The claims that format=full and licenses add are about a virtual machine: Cloud Run has none to add.
	if f := q.Get("format"); f != "" && !strings.EqualFold(f, "standard") && !strings.EqualFold(f, "full") {
		return nil, badRequest("format must be standard or full")
	}
	if l := q.Get("licenses"); l != "" && !strings.EqualFold(l, "true") && !strings.EqualFold(l, "false") {
		return nil, badRequest("licenses must be TRUE or FALSE")
	}
	token, err := s.tokens.idToken(r.Context(), s.id.Account, audience)
	if err != nil {
		return nil, err
	}
	return token, nil
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "application/text")
	_, _ = w.Write([]byte(s))
}

func fail(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(why + "\n"))
}
