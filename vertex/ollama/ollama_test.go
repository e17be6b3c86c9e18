package ollama_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"giggle/fault"
	"giggle/vertex"
	"giggle/vertex/ollama"
)

// server answers /api/chat with lines and keeps the last question. The lines are those of Ollama 0.17.4.
func server(t *testing.T, status int, lines string) (*ollama.Backend, *map[string]any) {
	t.Helper()
	asked := map[string]any{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/api/chat" || json.Unmarshal(b, &asked) != nil {
			t.Errorf("%s %s %s, %v", r.Method, r.URL, b, err)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, lines)
	}))
	t.Cleanup(s.Close)
	return &ollama.Backend{Client: s.Client(), URL: s.URL, Model: "gemma3:4b"}, &asked
}

const good = `{"model":"gemma3:4b","message":{"role":"assistant","content":"Why "},"done":false}
{"model":"gemma3:4b","message":{"role":"assistant","content":"not?"},"done":false}
{"model":"gemma3:4b","message":{"role":"assistant","content":""},"done":true,"done_reason":"length","prompt_eval_count":11,"eval_count":4}
`

func number[T any](v T) *T { return &v }

func TestQuestionAndAnswer(t *testing.T) {
	b, asked := server(t, 200, good)
	r := &vertex.Request{
		System: "be funny",
		Turns: []vertex.Turn{
			{
				Role: vertex.User,
				Parts: []vertex.Part{{Text: "look: "}, {Text: "what?"},
					{Media: &vertex.Media{Type: "image/png", Data: []byte("hi")}}},
			},
			{
				Role:  vertex.Model,
				Parts: []vertex.Part{{Call: &vertex.Call{Name: "f", Args: json.RawMessage(`{"a":1}`)}}},
			},
			{
				Role:  vertex.User,
				Parts: []vertex.Part{{Reply: &vertex.Reply{Name: "f", Response: json.RawMessage(`{"b":2}`)}}},
			},
		},
		Tools: []vertex.Tool{{Name: "f", Description: "does", Parameters: json.RawMessage(`{"type":"object"}`)}},
		Config: vertex.Generation{
			Temperature:     number(0.5),
			TopP:            number(0.9),
			TopK:            number(40),
			Seed:            number(int64(7)),
			MaxTokens:       100,
			Stop:            []string{"END"},
			PresencePenalty: number(1.0),
			Schema:          json.RawMessage(`{"type":"array"}`),
		},
	}
	var text string
	a, err := b.Generate(t.Context(), r, func(c vertex.Chunk) error { text += c.Text; return nil })
	if err != nil || text != "Why not?" || a != (vertex.Answer{
		Finish: vertex.Length,
		Usage:  vertex.Usage{Prompt: 11, Output: 4},
		Model:  "gemma3:4b",
	}) {
		t.Errorf("%q, %+v, %v", text, a, err)
	}
	want := map[string]any{
		"model": "gemma3:4b", "stream": true,
		"messages": []any{
			map[string]any{"role": "system", "content": "be funny"},
			map[string]any{"role": "user", "content": "look: what?", "images": []any{"aGk="}},
			map[string]any{"role": "assistant", "content": "",
				"tool_calls": []any{map[string]any{"function": map[string]any{"name": "f",
					"arguments": map[string]any{"a": 1.0}}}}},
			map[string]any{"role": "tool", "content": `{"b":2}`, "tool_name": "f"},
		},
		"tools": []any{map[string]any{"type": "function",
			"function": map[string]any{"name": "f", "description": "does",
				"parameters": map[string]any{"type": "object"}}}},
		"format": map[string]any{"type": "array"},
		"options": map[string]any{"temperature": 0.5, "top_p": 0.9, "top_k": 40.0, "seed": 7.0, "num_predict": 100.0,
			"stop": []any{"END"}, "presence_penalty": 1.0},
	}
	if diff := cmp.Diff(want, *asked); diff != "" {
		t.Error(diff)
	}
}

func TestCallsOfFunctions(t *testing.T) {
	b, _ := server(t, 200, `{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},"done":false}
{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}`)
	var calls []vertex.Call
	a, err := b.Generate(t.Context(), &vertex.Request{},
		func(c vertex.Chunk) error { calls = append(calls, c.Calls...); return nil })
	if err != nil || len(calls) != 1 || calls[0].Name != "f" || string(calls[0].Args) != `{"a":1}` ||
		a.Finish != vertex.Stop || a.Model != "gemma3:4b" {
		t.Errorf("%+v, %+v, %v", calls, a, err)
	}
}

func TestCount(t *testing.T) {
	b, asked := server(t, 200, good)
	n, err := b.Count(t.Context(), &vertex.Request{})
	if err != nil || n != 11 || (*asked)["options"].(map[string]any)["num_predict"] != 1.0 {
		t.Errorf("%d, %v, asked %v", n, err, *asked)
	}
}

func TestFailures(t *testing.T) {
	for what, tt := range map[string]struct {
		status int
		body   string
		code   fault.Code
		text   string
	}{
		"no such model":        {404, `{"error":"model 'gemma3:4b' not found"}`, fault.NotFound, "model 'gemma3:4b' not found"},
		"a bad question":       {400, `{"error":"does not support tools"}`, fault.InvalidArgument, "does not support tools"},
		"a private service":    {403, "<html>Forbidden</html>", fault.PermissionDenied, "Forbidden"},
		"a full service":       {429, "Rate exceeded.", fault.ResourceExhausted, "Rate exceeded"},
		"a server that breaks": {500, "", fault.Unavailable, "500"},
		"an error in a line":   {200, `{"error":"out of memory"}`, fault.Unavailable, "out of memory"},
		"no JSON":              {200, "hello", fault.Unavailable, "as Ollama does"},
		"half an answer": {200, `{"message":{"content":"x"},"done":false}` +
			"\n", fault.Unavailable, "broke off"},
		"a line without end": {200, `{"message":{"content":"` + strings.Repeat("x", 5<<20) +
			`"}}`, fault.Unavailable, "can't be reached"},
	} {
		t.Run(what, func(t *testing.T) {
			b, _ := server(t, tt.status, tt.body)
			_, err := b.Generate(t.Context(), &vertex.Request{}, func(vertex.Chunk) error { return nil })
			if f := fault.From(err); f == nil || f.Code != tt.code || !strings.Contains(f.Message, tt.text) {
				t.Errorf("%v, want %v with %q", err, tt.code, tt.text)
			}
		})
	}
	gone := &ollama.Backend{Client: &http.Client{}, URL: "http://127.0.0.1:1", Model: "m"}
	if _, err := gone.Count(t.Context(), &vertex.Request{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no server: %v", err)
	}
	knows := &ollama.Backend{Client: &http.Client{Transport: refuses{}}, URL: "http://x", Model: "m"}
	if _, err := knows.Count(t.Context(), &vertex.Request{}); !fault.Is(err, fault.PermissionDenied) ||
		!strings.Contains(fault.From(err).Message, "roles/run.invoker") {
		t.Errorf("a transport that knows why: %v", err)
	}
	b, _ := server(t, 200, good)
	stop := errors.New("stop")
	if _, err := b.Generate(t.Context(), &vertex.Request{}, func(vertex.Chunk) error { return stop }); !errors.Is(err,
		stop) {
		t.Errorf("a receiver that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Generate(ctx, &vertex.Request{}, func(vertex.Chunk) error { return nil }); !errors.Is(err,
		context.Canceled) {
		t.Errorf("a client that left: %v", err)
	}
}

// refuses is a transport that is told no.
type refuses struct{}

func (refuses) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, fault.New(fault.PermissionDenied, "Grant roles/run.invoker.")
}
