package aiplatform_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"giggle/vertex"
)

// counter answers with numbers, after the name that the question has. It says the first only, until so many calls are
// under way.
type counter struct {
	pieces int
	begun  sync.WaitGroup
}

func (c *counter) Name() string                { return "counter" }
func (c *counter) Abilities() vertex.Abilities { return vertex.Abilities{} }

func (c *counter) Count(context.Context, *vertex.Request) (int, error) { return 1, nil }

func (c *counter) Generate(_ context.Context, r *vertex.Request, emit func(vertex.Chunk) error) (vertex.Answer, error) {
	for i := range c.pieces {
		if err := emit(vertex.Chunk{Text: fmt.Sprintf("%s:%d ", r.Turns[0].Text(), i)}); err != nil {
			return vertex.Answer{}, err
		}
		if i == 0 {
			c.begun.Done()
			c.begun.Wait()
		}
	}
	return vertex.Answer{Finish: vertex.Stop, Model: "counter"}, nil
}

// Fifty streams at once, half of them over REST and half over gRPC, on TLS connections that they share: every piece of
// each arrives, in order, and nothing of another.
func TestFiftyStreams(t *testing.T) {
	const streams, pieces = 50, 300
	c := &counter{pieces: pieces}
	c.begun.Add(streams)
	w := newWorldOf(t, c)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.Host = "aiplatform.googleapis.com"
		w.Handler().ServeHTTP(out, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	conn, err := grpc.NewClient(server.Listener.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(roots, "example.com")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	overGRPC := func(name string) (string, error) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w.Owner)
		s, err := aiplatformpb.NewPredictionServiceClient(conn).StreamGenerateContent(ctx,
			&aiplatformpb.GenerateContentRequest{
				Model: modelName,
				Contents: []*aiplatformpb.Content{{
					Role:  "user",
					Parts: []*aiplatformpb.Part{{Data: &aiplatformpb.Part_Text{Text: name}}},
				}},
			})
		if err != nil {
			return "", err
		}
		var text strings.Builder
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return text.String(), nil
			}
			if err != nil {
				return text.String(), err
			}
			for _, p := range m.GetCandidates()[0].GetContent().GetParts() {
				text.WriteString(p.GetText())
			}
		}
	}
	overREST := func(name string) (string, error) {
		question := fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":%q}]}]}`, name)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			server.URL+"/v1/"+modelName+":streamGenerateContent?alt=sse", strings.NewReader(question))
		if err != nil {
			return "", err
		}
		req.Header.Set("Authorization", "Bearer "+w.Owner)
		req.Header.Set("Content-Type", "application/json")
		res, err := server.Client().Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		var text strings.Builder
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var m struct {
				Candidates []struct {
					Content struct{ Parts []struct{ Text string } }
				}
			}
			if err := json.Unmarshal([]byte(data), &m); err != nil {
				return "", fmt.Errorf("%q: %w", data, err)
			}
			for _, p := range m.Candidates[0].Content.Parts {
				text.WriteString(p.Text)
			}
		}
		if res.StatusCode != http.StatusOK {
			return text.String(), errors.New(res.Status)
		}
		return text.String(), lines.Err()
	}
	var wg sync.WaitGroup
	for k := range streams {
		wg.Go(func() {
			name, read := fmt.Sprintf("s%d", k), overREST
			if k%2 == 1 {
				read = overGRPC
			}
			got, err := read(name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			var want strings.Builder
			for i := range pieces {
				fmt.Fprintf(&want, "%s:%d ", name, i)
			}
			if got != want.String() {
				t.Errorf("%s: %d bytes came and %d were sent: %.80q …", name, len(got), want.Len(), got)
			}
		})
	}
	wg.Wait()
}
