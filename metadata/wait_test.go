package metadata_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"giggle/metadata"
)

var identity = metadata.Identity{
	ProjectID:     "giggle",
	ProjectNumber: "123456789012",
	Region:        "europe-north1",
	InstanceID:    "i1",
	Account:       "a@b.test",
	Scopes:        []string{cloudPlatform},
}

func TestWaitForChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := metadata.New(identity, tokens{}, time.Now)
		get := func(ctx context.Context, query string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(ctx, "GET", "/computeMetadata/v1/instance/id"+query, nil)
			r.Header.Set("Metadata-Flavor", "Google")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		etag := get(t.Context(), "").Header().Get("ETag")
		if len(etag) != 16 {
			t.Fatalf("ETag = %q", etag)
		}
		start := time.Now()
		w := get(t.Context(), "?wait_for_change=true&timeout_sec=30&last_etag="+etag)
		if took := time.Since(start); took != 30*time.Second || w.Body.String() != "i1" ||
			w.Header().Get("ETag") != etag {
			t.Errorf("after %v: %q %q", took, w.Body, w.Header())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		// for ever, as it were
		for _, query := range []string{"?wait_for_change=true", "?wait_for_change=true&timeout_sec=2000000000"} {
			if start = time.Now(); get(ctx, query).Body.String() != "i1" || time.Since(start) != 5*time.Minute {
				t.Errorf("%s ended after %v", query, time.Since(start))
			}
		}
		// Few wait at once; the others are told, and those that leave make room.
		leaving, leave := context.WithCancel(ctx)
		var waiting sync.WaitGroup
		for range 32 {
			waiting.Go(func() { get(leaving, "?wait_for_change=true") })
		}
		synctest.Wait()
		if w := get(ctx, "?wait_for_change=true"); w.Code != http.StatusTooManyRequests {
			t.Errorf("one more that waits = %d %q", w.Code, w.Body)
		}
		if w := get(ctx, ""); w.Code != http.StatusOK {
			t.Errorf("one that does not wait, meanwhile = %d %q", w.Code, w.Body)
		}
		leave()
		waiting.Wait()
		if w := get(ctx, "?wait_for_change=true&timeout_sec=1"); w.Code != http.StatusOK {
			t.Errorf("one that waits when the others have left = %d %q", w.Code, w.Body)
		}
	})
}

// counting makes tokens with a number, good for an hour.
type counting struct {
	n   int
	now *time.Time
}

func (c *counting) AccessToken(context.Context, string, []string) (string, time.Time, error) {
	c.n++
	return fmt.Sprint("token ", c.n), c.now.Add(time.Hour), nil
}

func (c *counting) IDToken(context.Context, string, string) (string, error) {
	c.n++
	return fmt.Sprint("not.a.jwt", c.n), nil
}

func TestTokensAreKeptAndRenewedEarly(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	made := &counting{now: &now}
	h := metadata.New(identity, made, func() time.Time { return now })
	for _, tt := range []struct {
		after time.Duration
		token string
		left  string
	}{
		{0, "token 1", "3600"}, {30 * time.Minute, "token 1", "1800"}, {55 * time.Minute, "token 1", "300"},
		{55*time.Minute + time.Second, "token 2", "3600"},
	} {
		now = time.Unix(1_000_000, 0).Add(tt.after)
		r := httptest.NewRequest("GET", "/computeMetadata/v1/instance/service-accounts/default/token", nil)
		r.Header.Set("Metadata-Flavor", "Google")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !strings.Contains(w.Body.String(), tt.token) || !strings.Contains(w.Body.String(), `"expires_in":`+tt.left) {
			t.Errorf("after %v: %s, want %s with %s s", tt.after, w.Body, tt.token, tt.left)
		}
	}
}
