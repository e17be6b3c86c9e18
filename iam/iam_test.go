package iam_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/fault"
	"giggle/iam"
	"giggle/store"
)

const (
	owner   = "you@giggle.test"
	project = "projects/giggle"
	service = "projects/giggle/locations/europe-north1/services/jokes"
	number  = "123456789012"
)

type world struct {
	*iam.IAM
	store *store.Store
	now   time.Time

	governed []iam.Governed
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: time.Unix(1_800_000_000, 0)}
	var err error
	w.store, err = store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), func() time.Time { return w.now })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	w.open(t)
	return w
}

func (w *world) open(t testing.TB) {
	t.Helper()
	var err error
	w.IAM, err = iam.New(t.Context(), iam.Config{
		Store: w.store, Owner: owner, Now: func() time.Time { return w.now }, Governed: w.governed,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// BearerFor returns whom a header of a call to a host is of.
func (w *world) BearerFor(ctx context.Context, header, host string) (iam.Principal, error) {
	c, err := w.Credential(ctx, header, host)
	return c.Principal, err
}

// Bearer is BearerFor where the host of the call is not known.
func (w *world) Bearer(ctx context.Context, header string) (iam.Principal, error) {
	return w.BearerFor(ctx, header, "")
}

func (w *world) bind(t testing.TB, name, role string, members ...string) iam.Policy {
	t.Helper()
	p, err := w.SetPolicy(t.Context(), name, iam.Policy{Bindings: []iam.Binding{{Role: role, Members: members}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAuthorize(t *testing.T) {
	w := newWorld(t)
	w.bind(t, project, "roles/owner", "user:"+owner)
	w.bind(t, service, "roles/run.invoker", "serviceAccount:caller@giggle.iam.gserviceaccount.com")
	open := service + "-open"
	w.bind(t, open, "roles/run.invoker", "allUsers")
	caller := iam.ServiceAccount("caller@giggle.iam.gserviceaccount.com")
	for _, tt := range []struct {
		who        iam.Principal
		permission string
		on         string
		want       bool
	}{
		{iam.User(owner), "run.services.delete", service, true},
		{iam.User(owner), "run.services.delete", "projects/other/locations/l/services/s", false},
		{iam.User("eve@giggle.test"), "run.services.get", service, false},
		{caller, "run.routes.invoke", service, true},
		{caller, "run.services.get", service, false},
		{iam.Anonymous, "run.routes.invoke", service, false},
		{iam.Anonymous, "run.routes.invoke", open, true},
		{iam.User("eve@giggle.test"), "run.routes.invoke", open, true},
	} {
		err := w.Authorize(t.Context(), tt.who, tt.permission, tt.on)
		if (err == nil) != tt.want {
			t.Errorf("%s %s on %s: %v, want allowed=%v", tt.who, tt.permission, tt.on, err, tt.want)
		}
		if err == nil {
			continue
		}
		want := fault.PermissionDenied
		if tt.who == iam.Anonymous {
			want = fault.Unauthenticated
		}
		if !fault.Is(err, want) {
			t.Errorf("%s %s: %v, want %v", tt.who, tt.permission, err, want)
		}
	}
	w.open(t) // a restart reads the same policies
	if !w.Allowed(iam.Anonymous, "run.routes.invoke", open) {
		t.Error("the policy is gone after a restart")
	}
}

func TestPolicyEtag(t *testing.T) {
	w := newWorld(t)
	if p := w.Policy(service); len(p.Bindings) != 0 || p.Etag == "" {
		t.Fatalf("a policy that was never set is %+v", p)
	}
	first, err := w.SetPolicy(t.Context(), service, w.Policy(service))
	if err != nil {
		t.Fatal(err)
	}
	w.bind(t, service, "roles/run.invoker", "allUsers")
	if _, err := w.SetPolicy(t.Context(), service, first); !fault.Is(err, fault.Aborted) {
		t.Errorf("set with an old etag = %v, want ABORTED", err)
	}
	for _, bad := range []iam.Policy{
		{Version: 2}, {Bindings: []iam.Binding{{Role: "owner"}}},
		{Bindings: []iam.Binding{{Role: "roles/x", Members: []string{"eve"}}}},
	} {
		if _, err := w.SetPolicy(t.Context(), service, bad); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("SetPolicy(%+v) = %v, want INVALID_ARGUMENT", bad, err)
		}
	}
	if !w.Allowed(iam.Anonymous, "run.routes.invoke", service) {
		t.Error("a refused policy changed something")
	}
}

// A policy is there only with its resource, whatever comes when: it can't be set on what isn't there, and nothing made
// later under the name has it.
func TestPolicyGoesWithItsResource(t *testing.T) {
	things := store.NewTable[string]("test.thing", "Thing")
	w := newWorld(t)
	w.governed = []iam.Governed{{
		Collection: "things",
		Kind:       things.Kind(),
		Row:        path.Base,
		Name:       func(_ *store.Tx, row string) (string, error) { return "projects/giggle/things/" + row, nil },
	}}
	w.open(t)
	const name = "projects/giggle/things/x"
	open := iam.Policy{Bindings: []iam.Binding{{Role: "roles/run.invoker", Members: []string{"allUsers"}}}}
	change := func(fn func(tx *store.Tx) error) {
		t.Helper()
		if err := w.store.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	create := func() {
		t.Helper()
		change(func(tx *store.Tx) error { _, err := things.Create(tx, "x", ""); return err })
	}
	if _, err := w.SetPolicy(t.Context(), name, open); !fault.Is(err, fault.NotFound) {
		t.Fatalf("set on what isn't there: %v", err)
	}
	for range 3 {
		create()
		if w.Allowed(iam.Anonymous, "run.routes.invoke", name) {
			t.Fatal("the new thing has the policy of the one before")
		}
		if _, err := w.SetPolicy(t.Context(), name, open); err != nil ||
			!w.Allowed(iam.Anonymous, "run.routes.invoke", name) {
			t.Fatal("the policy doesn't hold", err)
		}
		change(func(tx *store.Tx) error { return things.Delete(tx, "x") })
		if w.Allowed(iam.Anonymous, "run.routes.invoke", name) {
			t.Fatal("the policy has outlived the thing")
		}
		w.open(t) // and on the disk
		if w.Allowed(iam.Anonymous, "run.routes.invoke", name) {
			t.Fatal("the policy has outlived the thing on the disk")
		}
	}
	// Whoever sets a policy while the thing goes and comes back gets an error, or set it on one of them: never on both.
	create()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				_, err := w.SetPolicy(t.Context(), name, open)
				if err != nil && !fault.Is(err, fault.NotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			_ = w.store.Update(t.Context(), func(tx *store.Tx) error { return things.Delete(tx, "x") })
			_ = w.store.Update(t.Context(),
				func(tx *store.Tx) error { _, err := things.Create(tx, "x", ""); return err })
		}
	})
	wg.Wait()
	change(func(tx *store.Tx) error { return things.Delete(tx, "x") })
	create()
	if w.Allowed(iam.Anonymous, "run.routes.invoke", name) {
		t.Error("a policy was set on a thing that was gone")
	}
}

func TestMembers(t *testing.T) {
	for s, want := range map[string]bool{
		"allUsers": true, "allAuthenticatedUsers": true, "user:a@b.test": true,
		"serviceAccount:x@p.iam.gserviceaccount.com": true,
		"domain:giggle.test":                         true, "projectOwner:giggle": true, "user:": false,
		"user:a": false, "a@b.test": false,
		"everyone:x":          false,
		"user:Eve <a@b.test>": false, "domain:x": false,
	} {
		if err := iam.CheckMember(s); (err == nil) != want {
			t.Errorf("CheckMember(%q) = %v", s, err)
		}
	}
}

func TestAccessAndRefreshTokens(t *testing.T) {
	w := newWorld(t)
	access, expires, err := w.AccessToken(iam.User(owner), []string{iam.ScopeCloudPlatform})
	if err != nil || expires.Sub(w.now) != time.Hour {
		t.Fatalf("AccessToken: %v, expires %v", err, expires)
	}
	refresh, err := w.RefreshToken(iam.User(owner), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.open(t) // tokens outlive a restart
	p, err := w.Bearer(t.Context(), "Bearer "+access)
	if err != nil || p != iam.User(owner) {
		t.Fatalf("Bearer = %v, %v", p, err)
	}
	for name, header := range map[string]string{
		"basic": "Basic " + access, "forged": "Bearer " + access[:len(access)-2] + "AA", "refresh": "Bearer " + refresh,
		"empty": "Bearer ",
	} {
		if _, err := w.Bearer(t.Context(), header); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s = %v, want UNAUTHENTICATED", name, err)
		}
	}
	w.now = w.now.Add(time.Hour)
	if _, err := w.Bearer(t.Context(), "Bearer "+access); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an expired token = %v", err)
	}
	if tok, err := w.CheckRefreshToken(refresh); err != nil || tok.Principal() != iam.User(owner) {
		t.Errorf("CheckRefreshToken = %v, %v", tok, err)
	}
	if _, err := w.CheckRefreshToken(access); err == nil {
		t.Error("an access token was taken for a refresh token")
	}
}

// A service takes tokens for its URLs, whatever path they have, and for its own audiences as they are
// (https://cloud.google.com/run/docs/authenticating/service-to-service; what Cloud Scheduler, Cloud Tasks and Eventarc
// put in is the URL that they call).
func TestServiceTokens(t *testing.T) {
	w := newWorld(t)
	hosts := []string{"jokes-ab12-lz.a.run.app", "jokes-123456789012.europe-north1.run.app"}
	for audience, want := range map[string]bool{
		"https://jokes-ab12-lz.a.run.app":                       true,
		"https://jokes-ab12-lz.a.run.app/":                      true,
		"https://jokes-ab12-lz.a.run.app/jobs/run":              true,
		"https://jokes-123456789012.europe-north1.run.app/a/b/": true,
		"HTTPS://Jokes-ab12-lz.A.run.app/x":                     true,
		"https://jokes-ab12-lz.a.run.app:443/x":                 true,
		"https://jokes-ab12-lz.a.run.app/%2e%2e/x":              true,
		"api://mine":                                           true,
		"https://mine.example/path":                            true,
		"https://jokes-ab12-lz.a.run.app/jobs?x=1":             false,
		"https://jokes-ab12-lz.a.run.app?":                     false,
		"https://jokes-ab12-lz.a.run.app/#x":                   false,
		"http://jokes-ab12-lz.a.run.app/":                      false,
		"https://jokes-ab12-lz.a.run.app:8443/":                false,
		"https://me@jokes-ab12-lz.a.run.app/":                  false,
		"https://jokes-ab12-lz.a.run.app.evil.example/":        false,
		"https://evil.example/https://jokes-ab12-lz.a.run.app": false,
		"https://next---jokes-ab12-lz.a.run.app/":              false,
		"jokes-ab12-lz.a.run.app":                              false,
		"//jokes-ab12-lz.a.run.app/":                           false,
		"https://mine.example/path/deeper":                     false,
		"https://mine.example":                                 false,
		"api://mine/":                                          false,
		"https://":                                             false,
		"":                                                     false,
	} {
		raw, err := w.IDToken(iam.User(owner), audience)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.CheckServiceToken(raw, hosts, []string{"api://mine", "https://mine.example/path"})
		if (err == nil) != want {
			t.Errorf("for %q: %v, want it taken: %v", audience, err, want)
		}
	}
}

func TestIDTokens(t *testing.T) {
	w := newWorld(t)
	raw, err := w.IDToken(iam.User(owner), "https://jokes.run.app")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from the cache
		c, err := w.CheckIDToken(raw, "https://other", "https://jokes.run.app")
		if err != nil || c.Principal() != iam.User(owner) || c.Issuer != iam.Issuer {
			t.Fatalf("CheckIDToken = %+v, %v", c, err)
		}
	}
	other := newWorld(t)
	foreign, err := other.IDToken(iam.User(owner), "https://jokes.run.app")
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, raw, audience string) {
		t.Helper()
		if _, err := w.CheckIDToken(raw, audience); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s = %v, want UNAUTHENTICATED", name, err)
		}
	}
	check("wrong audience", raw, "https://other")
	check("another platform's key", foreign, "https://jokes.run.app")
	check("no signature", raw[:len(raw)-10], "https://jokes.run.app")
	check("rubbish", "a.b.c", "https://jokes.run.app")
	old := raw
	w.now = w.now.Add(30*24*time.Hour + time.Minute)
	if err := w.RotateKeys(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.KeySet().Keys); n != 2 {
		t.Errorf("%d keys after the rotation, want 2", n)
	}
	check("expired", old, "https://jokes.run.app")
	fresh, err := w.IDToken(iam.User(owner), "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.CheckIDToken(fresh, "a"); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
	w.now = w.now.Add(72 * time.Hour)
	if err := w.RotateKeys(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.KeySet().Keys); n != 1 {
		t.Errorf("%d keys once the overlap is over, want 1", n)
	}
}

func TestServiceAccountAssertion(t *testing.T) {
	w := newWorld(t)
	err := w.store.Update(t.Context(),
		func(tx *store.Tx) error { return w.CreateDefaults(tx, "giggle", number, "user:you@giggle.test") })
	if err != nil {
		t.Fatal(err)
	}
	email := iam.ComputeAccount(number)
	_, file, err := w.CreateKey(t.Context(), "-", email)
	if err != nil {
		t.Fatal(err)
	}
	var key struct {
		ID    string `json:"private_key_id"`
		PEM   string `json:"private_key"`
		Email string `json:"client_email"`
	}
	if err := json.Unmarshal(file, &key); err != nil || key.Email != email {
		t.Fatalf("key file: %v, for %q", err, key.Email)
	}
	block, _ := pem.Decode([]byte(key.PEM))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(issuer, audience string, age time.Duration) string {
		s, err := jose.NewSigner(jose.SigningKey{
			Algorithm: jose.RS256,
			Key:       jose.JSONWebKey{Key: private, KeyID: key.ID},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jwt.Signed(s).Claims(jwt.Claims{
			Issuer:   issuer,
			Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(w.now),
			Expiry:   jwt.NewNumericDate(w.now.Add(age)),
		}).Claims(map[string]any{"scope": "a b"}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	const endpoint = "https://oauth2.googleapis.com/token"
	a, err := w.CheckAssertion(t.Context(), sign(email, endpoint, time.Hour), endpoint)
	if err != nil || a.Principal != iam.ServiceAccount(email) || len(a.Scopes) != 2 {
		t.Fatalf("CheckAssertion = %+v, %v", a, err)
	}
	for name, raw := range map[string]string{
		"another issuer":   sign("eve@giggle.test", endpoint, time.Hour),
		"another audience": sign(email, "https://evil", time.Hour),
		"a week":           sign(email, endpoint, 7*24*time.Hour), "expired": sign(email, endpoint, -time.Hour),
		"rubbish": "x",
	} {
		if _, err := w.CheckAssertion(t.Context(), raw, endpoint); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s = %v, want INVALID_ARGUMENT", name, err)
		}
	}
}
