package metadata_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"giggle/metadata"
)

type longTokens struct{ tokens }

func (longTokens) AccessToken(_ context.Context, account string, _ []string) (string, time.Time, error) {
	return "access of " + account, time.Now().Add(time.Hour), nil
}

// BenchmarkToken asks for an access token 1,000 times a second over loopback, whether the answers come or not, and
// beside it a server that only writes as many bytes. The goal is a p99 of at most 1 ms.
func BenchmarkToken(b *testing.B) {
	const path = "/computeMetadata/v1/instance/service-accounts/default/token"
	b.Run("metadata", func(b *testing.B) { atRate(b, metadata.New(identity, longTokens{}, time.Now), path) })
	b.Run("bare", func(b *testing.B) {
		atRate(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"access of a@b.test","expires_in":3600,"token_type":"Bearer"}`)
		}), path)
	})
}

func atRate(b *testing.B, h http.Handler, path string) {
	server := httptest.NewServer(h)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	took := make([]time.Duration, b.N)
	failed := make([]error, b.N)
	var wg sync.WaitGroup
	start := time.Now()
	b.ResetTimer()
	for i := range b.N {
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Millisecond)))
		sent := time.Now() // not when it was due: the timer's lateness, up to a millisecond, is not the server's
		wg.Go(func() {
			req, _ := http.NewRequest(http.MethodGet, server.URL+path, nil)
			req.Header.Set("Metadata-Flavor", "Google")
			res, err := client.Do(req)
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if err == nil && res.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %s", res.Status)
				}
			}
			took[i], failed[i] = time.Since(sent), err
		})
	}
	wg.Wait()
	b.StopTimer()
	for _, err := range failed {
		if err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) }
	b.ReportMetric(at(0.5), "p50-µs")
	b.ReportMetric(at(0.99), "p99-µs")
}
