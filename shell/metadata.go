package shell

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"giggle/fault"
	"giggle/metadata"
	"giggle/peer"
)

// ServeMetadata starts the metadata server of a shell, as Cloud Shell has one: with its user's own identity, on a port
// of its own on loopback, where the kernel says which local user calls. Tokens come from the platform on the data
// directory. It serves until stop is called; Env names it afterwards.
func (s *Session) ServeMetadata(data string) (stop func(), err error) {
	defer fault.Wrap(&err, "shell.ServeMetadata")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	id := metadata.Identity{
		ProjectID:     s.Project,
		ProjectNumber: s.ProjectNumber,
		Region:        s.Region,
		InstanceID:    "giggle-shell",
		Account:       s.Owner,
		Scopes:        Scopes(),
	}
	server := &http.Server{
		Handler:           onlyFor(os.Geteuid(), metadata.New(id, tokens{Dial(data)}, time.Now)),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), // the terminal is the user's
	}
	go func() { _ = server.Serve(l) }() // ends with Close
	s.Metadata = l.Addr().String()
	return func() { _ = server.Close() }, nil
}

// onlyFor lets one local user in, and nobody else: root could have the tokens anyway, but root's programs act for
// others.
func onlyFor(uid int, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if ok {
			other, err := peer.TCPUser(r.RemoteAddr, local.String())
			ok = err == nil && other == uid
		}
		if !ok {
			http.Error(w, "This metadata server answers the user of its shell only.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// tokens are tokens of the user's own, from the platform's socket.
type tokens struct{ platform *http.Client }

func (t tokens) AccessToken(ctx context.Context, _ string, scopes []string) (string, time.Time, error) {
	return t.get(ctx, "/v1/accessToken", url.Values{"scope": scopes})
}

func (t tokens) IDToken(ctx context.Context, _, audience string) (string, error) {
	token, _, err := t.get(ctx, "/v1/idToken", url.Values{"audience": {audience}})
	return token, err
}

func (t tokens) get(ctx context.Context, path string, q url.Values) (token string, expires time.Time, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://giggle"+path+"?"+q.Encode(), nil)
	if err != nil {
		return "", time.Time{}, err
	}
	res, err := t.platform.Do(req)
	if err != nil {
		return "", time.Time{}, err
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires"`
		Message string    `json:"message"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&answer); err != nil {
		return "", time.Time{}, err
	}
	if res.StatusCode != http.StatusOK {
		return "", time.Time{}, errors.New(answer.Message)
	}
	return answer.Token, answer.Expires, nil
}
