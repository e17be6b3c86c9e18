package shell

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// platform is the socket of a platform that makes tokens.
func platform(t *testing.T) (data string) {
	t.Helper()
	data = t.TempDir()
	l, err := net.Listen("unix", filepath.Join(data, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/accessToken", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "ya29." + strings.Join(r.URL.Query()["scope"], "+"),
			"expires": time.Now().Add(time.Hour)})
	})
	m.HandleFunc("GET /v1/idToken", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("audience") == "refuse" {
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(map[string]any{"code": 7, "message": "Not you."})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "id for " + r.URL.Query().Get("audience")})
	})
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: m}}
	s.Start()
	t.Cleanup(s.Close)
	return data
}

func TestShellHasAMetadataServer(t *testing.T) {
	s := &Session{
		Project:       "giggle",
		ProjectNumber: "123456789012",
		Region:        "europe-north1",
		Owner:         "you@giggle.test",
		Dir:           t.TempDir(),
	}
	if env := strings.Join(s.Env(nil), "\n"); strings.Contains(env, "GCE_METADATA") {
		t.Errorf("a metadata server is named before there is one:\n%s", env)
	}
	stop, err := s.ServeMetadata(platform(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	env := strings.Join(s.Env([]string{"GCE_METADATA_ROOT=elsewhere", "GCE_METADATA_HOST=elsewhere"}), "\n")
	if !strings.Contains(env, "GCE_METADATA_HOST="+s.Metadata) || strings.Contains(env, "elsewhere") {
		t.Errorf("the environment does not lead to the metadata server:\n%s", env)
	}
	for path, want := range map[string]string{
		"project/project-id":                      "giggle",
		"project/numeric-project-id":              "123456789012",
		"instance/region":                         "projects/123456789012/regions/europe-north1",
		"instance/service-accounts/default/email": "you@giggle.test",
		"instance/service-accounts/default/token?scopes=https://www.googleapis.com/auth/cloud-platform": `{"access_token":"ya29.https://www.googleapis.com/auth/cloud-platform","expires_in":`,
		"instance/service-accounts/default/identity?audience=https://x.run.app":                         "id for https://x.run.app",
		"instance/service-accounts/default/identity?audience=refuse":                                    "Not you.",
	} {
		if got := get(t, "http://"+s.Metadata+"/computeMetadata/v1/"+path); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata-Flavor", "Google")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Every local user can connect to 127.0.0.1: the owner's tokens are not for them.
func TestMetadataIsForItsUserOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root, to be somebody else")
	}
	s := &Session{Project: "giggle", Owner: "you@giggle.test", Dir: t.TempDir()}
	stop, err := s.ServeMetadata(platform(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	as := func(uid uint32) string {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "curl", "-s", "--noproxy", "*", "-H", "Metadata-Flavor: Google",
			"http://"+s.Metadata+"/computeMetadata/v1/instance/service-accounts/default/token")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("curl as %d: %v: %s", uid, err, out)
		}
		return string(out)
	}
	if got := as(0); !strings.Contains(got, "access_token") {
		t.Errorf("its own user got %q", got)
	}
	if got := as(65534); strings.Contains(got, "ya29") || !strings.Contains(got, "answers the user of its shell only") {
		t.Errorf("another user got %q", got)
	}
}
