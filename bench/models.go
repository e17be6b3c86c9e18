package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"giggle/bench/demo"
	"giggle/shell"
)

// question is what the embedded model is asked: some 20 tokens.
const question = "tell me a terrible dad joke about tech"

// withModels runs a platform on which a project may ask models as often as it likes.
func (r *run) withModels(ctx context.Context, do func(p *platform, c *demo.Client) error) error {
	return r.withPlatform(ctx, []string{"--model-requests-per-minute", "0"}, do)
}

// firstToken measures from the request to the first text of the embedded model, over TLS: with no process of the model,
// and with one.
func firstToken(ctx context.Context, r *run) error {
	return r.withModels(ctx, func(p *platform, c *demo.Client) error {
		var cold, warm series
		ask := func() (time.Duration, error) {
			start := time.Now()
			var first time.Duration
			err := stream(ctx, c, embeddedModel, func(string) {
				if first == 0 {
					first = time.Since(start)
				}
			})
			if err == nil && first == 0 {
				err = errors.New("the model gave no text")
			}
			return first, err
		}
		for shot := range r.n + 1 { // the first one warms the files up
			if err := p.killModel(); err != nil {
				return err
			}
			after, err := ask()
			if err != nil {
				return err
			}
			then, err := ask()
			if err != nil {
				return err
			}
			if shot > 0 {
				cold, warm = append(cold, after), append(warm, then)
			}
		}
		r.times("embedded_first_token", cold, "", nil, goal{p50: 150})
		r.times("embedded_first_token_warm", warm, "", nil, goal{})
		return nil
	})
}

// killModel ends the process of the embedded model, as it ends when nobody used it for a while.
func (p *platform) killModel() error {
	pids, err := children(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || !slices.Contains(strings.Split(string(line), "\x00"), "model-runner") {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
			return err
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(statusPoll) {
			if _, err := os.Stat(dir); err != nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d does not end", pid)
			}
		}
	}
	return nil
}

// The models that are asked: the first is the embedded one's, the second the fake server's.
const (
	embeddedModel = "gemini-2.0-flash-001"
	fakeModel     = "gemini-2.5-flash"
)

func modelURL(c *demo.Client, model, verb string) string {
	return "https://aiplatform.googleapis.com/v1/projects/" + c.Project() +
		"/locations/us-central1/publishers/google/models/" + model + ":" + verb
}

func body(text string) io.Reader {
	// strings
	b, _ := json.Marshal(map[string]any{"contents": []any{map[string]any{"role": "user",
		"parts": []any{map[string]string{"text": text}}}}})
	return bytes.NewReader(b)
}

// post sends one question and returns the answer's body.
func post(
	ctx context.Context, url string, in io.Reader, send func(*http.Request) (*http.Response, error),
) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := send(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return nil, errors.Join(fmt.Errorf("%s: %s: %s", url, res.Status, text), res.Body.Close())
	}
	return res.Body, nil
}

// stream asks a model over REST and gives emit each piece of text as it comes.
func stream(ctx context.Context, c *demo.Client, model string, emit func(text string)) error {
	out, err := post(ctx, modelURL(c, model, "streamGenerateContent")+"?alt=sse", body(question), c.Do)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var piece struct {
			Candidates []struct {
				Content struct{ Parts []struct{ Text string } }
			}
		}
		if err := json.Unmarshal([]byte(data), &piece); err != nil {
			return fmt.Errorf("%q: %w", data, err)
		}
		for _, candidate := range piece.Candidates {
			for _, part := range candidate.Content.Parts {
				if part.Text != "" {
					emit(part.Text)
				}
			}
		}
	}
	return lines.Err()
}

// fake is a server with Ollama's API which has the answer at once: so many pieces, with a pause after each.
type fake struct {
	pieces int
	pause  time.Duration
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20)); err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	for i := range f.pieces {
		fmt.Fprintf(w, `{"model":"fake","message":{"role":"assistant","content":"%d "},"done":false}`+"\n", i)
		if f.pause > 0 {
			_ = http.NewResponseController(w).Flush()
			time.Sleep(f.pause)
		}
	}
	fmt.Fprintln(w, `{"model":"fake","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":10,"eval_count":10}`)
}

// withFake runs a platform with the fake server behind fakeModel. Direct asks that server itself.
func (r *run) withFake(ctx context.Context, f *fake, do func(c *demo.Client, direct func() error) error) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // ends with Close
	defer func() { _ = server.Close() }()
	return r.withModels(ctx, func(p *platform, c *demo.Client) error {
		socket := shell.Dial(p.data)
		defer socket.CloseIdleConnections()
		route, err := json.Marshal(map[string]string{"project": c.Project(), "model": fakeModel,
			"backend": "ollama://" + l.Addr().String() + "/fake"})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://giggle/v1/models", bytes.NewReader(route))
		if err != nil {
			return err
		}
		res, err := socket.Do(req)
		if err != nil {
			return err
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("the model's route: %s, %v", res.Status, err)
		}
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		return do(c, func() error {
			in := strings.NewReader(`{"model":"fake","messages":[{"role":"user","content":"` + question +
				`"}],"stream":true}`)
			return drain(post(ctx, "http://"+l.Addr().String()+"/api/chat", in, client.Do))
		})
	})
}

func drain(out io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, out)
	return errors.Join(err, out.Close())
}

// overhead measures what Vertex AI adds to a backend: the same question over REST and gRPC, both over TLS, and to the
// backend itself, one after the other.
func overhead(ctx context.Context, r *run) error {
	return r.withFake(ctx, &fake{pieces: 1}, func(c *demo.Client, direct func() error) error {
		ways := []func() error{
			direct,
			func() error { return drain(post(ctx, modelURL(c, fakeModel, "generateContent"), body(question), c.Do)) },
			func() error { return grpc(ctx, c) },
		}
		times := make([]series, len(ways))
		for shot := range r.n + 20 {
			for i, ask := range ways {
				start := time.Now()
				if err := ask(); err != nil {
					return err
				}
				if took := time.Since(start); shot >= 20 { // the first ones open connections
					times[i] = append(times[i], took)
				}
			}
		}
		for i, name := range []string{"vertex_overhead", "vertex_overhead_grpc"} {
			var more series
			for k, d := range times[i+1] {
				more = append(more, d-times[0][k])
			}
			r.times(name, more, "", nil, goal{p50: 1})
			r.last().Note = fmt.Sprintf("p50 %.2f ms through Vertex AI, %.2f ms to the backend itself",
				times[i+1].quantile(0.5), times[0].quantile(0.5))
		}
		return nil
	})
}

// grpc asks the fake model over gRPC. The message is written by hand (GenerateContentRequest: contents = 2, model = 5;
// Content: role = 1, parts = 2; Part: text = 1): no more of gRPC is needed here.
func grpc(ctx context.Context, c *demo.Client) error {
	field := func(number byte, value []byte) []byte { // of less than 16 KiB
		n := len(value)
		if n < 128 {
			return append([]byte{number<<3 | 2, byte(n)}, value...)
		}
		return append([]byte{number<<3 | 2, byte(n) | 128, byte(n >> 7)}, value...)
	}
	_, name, _ := strings.Cut(modelURL(c, fakeModel, ""), "/v1/")
	content := append(field(1, []byte("user")), field(2, field(1, []byte(question)))...)
	message := append(field(2, content), field(5, []byte(strings.TrimSuffix(name, ":")))...)
	frame := append([]byte{0, 0, 0, byte(len(message) >> 8), byte(len(message))}, message...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"https://aiplatform.googleapis.com/google.cloud.aiplatform.v1.PredictionService/GenerateContent",
		bytes.NewReader(frame))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	if err := drain(res.Body, nil); err != nil {
		return err
	}
	if status := res.Trailer.Get("Grpc-Status") + res.Header.Get("Grpc-Status"); status != "0" {
		return fmt.Errorf("gRPC status %q: %s%s", status, res.Trailer.Get("Grpc-Message"),
			res.Header.Get("Grpc-Message"))
	}
	return nil
}

// streams50 reads 50 streams at once and looks whether each piece of each came, in order.
func streams50(ctx context.Context, r *run) error {
	const parallel, pieces = 50, 100
	return r.withFake(ctx, &fake{pieces: pieces, pause: 5 * time.Millisecond},
		func(c *demo.Client, _ func() error) error {
			var want strings.Builder
			for i := range pieces {
				fmt.Fprintf(&want, "%d ", i)
			}
			var mu sync.Mutex
			var whole series
			var failed []string
			for range r.n {
				var wg sync.WaitGroup
				for range parallel {
					wg.Go(func() {
						start := time.Now()
						var got strings.Builder
						err := stream(ctx, c, fakeModel, func(text string) { got.WriteString(text) })
						mu.Lock()
						defer mu.Unlock()
						whole = append(whole, time.Since(start))
						if err != nil {
							failed = append(failed, err.Error())
						} else if got.String() != want.String() {
							failed = append(failed, fmt.Sprintf("%.60q came", got.String()))
						}
					})
				}
				wg.Wait()
			}
			r.times("vertex_streams_50", whole, "", nil, goal{})
			last := r.last()
			last.Goal, last.Met = "every piece, in order", len(failed) == 0
			last.Note = fmt.Sprintf("%d streams of %d pieces in some 0.5 s, %d at once; %d failed", len(whole), pieces,
				parallel, len(failed))
			if len(failed) > 0 {
				last.Note += ": " + failed[0]
			}
			return nil
		})
}
