package metadata_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gce "cloud.google.com/go/compute/metadata"

	"giggle/metadata"
)

// Google's own library for Go finds what it asks for.
func TestGoogleLibrary(t *testing.T) {
	now := time.Unix(0, 0)
	h := metadata.New(metadata.Identity{
		ProjectID:     "giggle",
		ProjectNumber: "123456789012",
		Region:        "europe-north1",
		InstanceID:    "i1",
		Account:       "a@b.test",
		Scopes:        []string{cloudPlatform},
	}, tokens{}, func() time.Time { return now })
	server := httptest.NewServer(h)
	defer server.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	c := gce.NewClient(server.Client())
	ctx := t.Context()
	if !gce.OnGCE() {
		t.Error("the library does not find the server")
	}
	for name, ask := range map[string]struct {
		got  func() (string, error)
		want string
	}{
		"project id": {func() (string, error) { return c.ProjectIDWithContext(ctx) }, "giggle"},
		"number":     {func() (string, error) { return c.NumericProjectIDWithContext(ctx) }, "123456789012"},
		"instance":   {func() (string, error) { return c.InstanceIDWithContext(ctx) }, "i1"},
		"zone":       {func() (string, error) { return c.ZoneWithContext(ctx) }, "europe-north1-1"},
		"e-mail":     {func() (string, error) { return c.EmailWithContext(ctx, "") }, "a@b.test"},
		"scopes": {func() (string, error) {
			s, err := c.ScopesWithContext(ctx, "default")
			return strings.Join(s, " "), err
		}, cloudPlatform},
		"token": {func() (string, error) {
			return c.GetWithContext(ctx, "instance/service-accounts/default/token?scopes="+cloudPlatform)
		}, `{"access_token":"access of a@b.test","expires_in":3600,"token_type":"Bearer"}`},
		"identity": {func() (string, error) {
			return c.GetWithContext(ctx,
				"instance/service-accounts/default/identity?audience=https://x.run.app&format=full")
		}, "id of a@b.test for https://x.run.app"},
		"universe": {func() (string, error) {
			return c.GetWithContext(ctx,
				"universe/universe-domain")
		}, "googleapis.com"},
	} {
		got, err := ask.got()
		if err != nil || strings.TrimSpace(got) != ask.want {
			t.Errorf("%s is %q (%v), want %q", name, got, err, ask.want)
		}
	}
	if _, err := c.InstanceAttributeValueWithContext(ctx, "none"); err == nil {
		t.Error("an attribute that is not there was found")
	} else if _, ok := err.(gce.NotDefinedError); !ok {
		t.Errorf("an attribute that is not there: %v, want NotDefinedError", err)
	}
}
