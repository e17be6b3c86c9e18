package oauth_test

import (
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/api/oauth"
	"giggle/iam"
	"giggle/store"
)

// Whatever form is sent to whichever endpoint: the answer is JSON, a refusal is the caller's fault, and none
// gets a token.
func FuzzForms(f *testing.F) {
	st, err := store.Open(f.Context(), filepath.Join(f.TempDir(), "db"), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = st.Close() })
	ids, err := iam.New(f.Context(), iam.Config{Store: st, Owner: "you@giggle.test", Now: time.Now})
	if err != nil {
		f.Fatal(err)
	}
	h := oauth.New(ids, time.Now, slog.New(slog.DiscardHandler))
	paths := []string{"/token", "/tokeninfo", "/revoke", "/oauth2/v1/tokeninfo", "/v1/userinfo", "/oauth2/v2/userinfo"}
	for i, form := range []string{
		"grant_type=refresh_token&refresh_token=1//giggle.AAAA", "access_token=x&access_token=y", "token=%zz",
		"id_token=a.b.c", "", ";=&",
		"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c",
	} {
		f.Add(byte(i), form)
	}
	f.Fuzz(func(t *testing.T, which byte, form string) {
		r := httptest.NewRequest("POST", paths[int(which)%len(paths)], strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer "+form)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var out map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out["error"] == nil || w.Code < 400 ||
			w.Code >= 500 {
			t.Errorf("%s %q = %d %s", r.URL.Path, form, w.Code, w.Body)
		}
	})
}
