package openai_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"giggle/fault"
	"giggle/vertex"
	"giggle/vertex/openai"
)

func server(t *testing.T, status int, answer string) (*openai.Backend, *map[string]any) {
	t.Helper()
	asked := map[string]any{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer secret" ||
			json.Unmarshal(b, &asked) != nil {
			t.Errorf("%s %s %v %s, %v", r.Method, r.URL, r.Header, b, err)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return &openai.Backend{Client: s.Client(), URL: s.URL, Model: "big", Key: "secret"}, &asked
}

const good = `data: {"model":"big-1","choices":[{"index":0,"delta":{"role":"assistant","content":"Why "}}]}

data: {"model":"big-1","choices":[{"index":0,"delta":{"content":"not?"},"finish_reason":"stop"}]}

data: {"model":"big-1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15}}

data: [DONE]

`

func TestQuestionAndAnswer(t *testing.T) {
	b, asked := server(t, 200, good)
	half, seed := 0.5, int64(7)
	r := &vertex.Request{
		System: "be funny",
		Turns: []vertex.Turn{
			{
				Role:  vertex.User,
				Parts: []vertex.Part{{Text: "what?"}, {Media: &vertex.Media{Type: "image/png", Data: []byte("hi")}}},
			},
			{
				Role:  vertex.Model,
				Parts: []vertex.Part{{Call: &vertex.Call{Name: "f", Args: json.RawMessage(`{"a":1}`)}}},
			},
			{
				Role:  vertex.User,
				Parts: []vertex.Part{{Reply: &vertex.Reply{Name: "f", Response: json.RawMessage(`{"b":2}`)}}},
			},
			{Role: vertex.User, Parts: []vertex.Part{{Text: "go on"}}},
		},
		Tools: []vertex.Tool{{Name: "f", Parameters: json.RawMessage(`{"type":"object"}`)}},
		Config: vertex.Generation{
			Temperature: &half,
			Seed:        &seed,
			MaxTokens:   100,
			Stop:        []string{"END"},
			JSON:        true,
			MustCall:    true,
		},
	}
	var text string
	a, err := b.Generate(t.Context(), r, func(c vertex.Chunk) error { text += c.Text; return nil })
	if err != nil || text != "Why not?" || a != (vertex.Answer{
		Finish: vertex.Stop,
		Usage:  vertex.Usage{Prompt: 11, Output: 4},
		Model:  "big-1",
	}) {
		t.Errorf("%q, %+v, %v", text, a, err)
	}
	want := map[string]any{
		"model": "big", "stream": true, "stream_options": map[string]any{"include_usage": true},
		"messages": []any{
			map[string]any{"role": "system", "content": "be funny"},
			map[string]any{"role": "user", "content": []any{
				map[string]any{"type": "text", "text": "what?"},
				map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/png;base64,aGk="}},
			}},
			map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{
				map[string]any{"index": 0.0, "id": "call_f_0", "type": "function",
					"function": map[string]any{"name": "f", "arguments": `{"a":1}`}},
			}},
			map[string]any{"role": "tool", "content": `{"b":2}`, "tool_call_id": "call_f_0"},
			map[string]any{"role": "user", "content": "go on"},
		},
		"tools": []any{map[string]any{"type": "function",
			"function": map[string]any{"name": "f", "description": "",
				"parameters": map[string]any{"type": "object"}}}},
		"tool_choice": "required", "response_format": map[string]any{"type": "json_object"},
		"temperature": 0.5, "seed": 7.0, "max_tokens": 100.0, "stop": []any{"END"},
	}
	if diff := cmp.Diff(want, *asked); diff != "" {
		t.Error(diff)
	}
	if n, err := b.Count(t.Context(), r); err != nil || n != 11 {
		t.Errorf("count: %d, %v", n, err)
	}
}

// The pieces of a call come one by one and are put together.
func TestCallsOfFunctions(t *testing.T) {
	b, _ := server(t, 200, `data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\"a\""}}]}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":-5},{"index":1000000}]},"finish_reason":"tool_calls"}]}

data: [DONE]
`)
	var calls []vertex.Call
	_, err := b.Generate(t.Context(), &vertex.Request{},
		func(c vertex.Chunk) error { calls = append(calls, c.Calls...); return nil })
	if err != nil || len(calls) != 1 || calls[0].ID != "c1" || calls[0].Name != "f" ||
		string(calls[0].Args) != `{"a":1}` {
		t.Errorf("%+v, %v", calls, err)
	}
}

func TestFailures(t *testing.T) {
	for what, tt := range map[string]struct {
		status int
		body   string
		code   fault.Code
		text   string
	}{
		"no such model":      {404, `{"error":{"message":"no big"}}`, fault.NotFound, "no big"},
		"a wrong key":        {401, `{"error":{"message":"bad key"}}`, fault.PermissionDenied, "bad key"},
		"too many":           {429, `{"error":{"message":"slow down"}}`, fault.ResourceExhausted, "slow down"},
		"a server's own":     {502, "bad gateway", fault.Unavailable, "bad gateway"},
		"an error in events": {200, "data: {\"error\":{\"message\":\"oops\"}}\n", fault.Unavailable, "oops"},
		"no JSON":            {200, "data: hello\n", fault.Unavailable, "OpenAI's form"},
		"half an answer":     {200, "data: {\"choices\":[]}\n", fault.Unavailable, "broke off"},
	} {
		t.Run(what, func(t *testing.T) {
			b, _ := server(t, tt.status, tt.body)
			_, err := b.Generate(t.Context(), &vertex.Request{}, func(vertex.Chunk) error { return nil })
			if f := fault.From(err); f == nil || f.Code != tt.code || !strings.Contains(f.Message, tt.text) ||
				strings.Contains(f.Message, "secret") {
				t.Errorf("%v, want %v with %q", err, tt.code, tt.text)
			}
		})
	}
	b, _ := server(t, 200, "data: {\"choices\":[]}\n\ndata: [DONE]\n")
	if _, err := b.Count(t.Context(), &vertex.Request{}); !fault.Is(err, fault.Unimplemented) {
		t.Errorf("a server that does not count: %v", err)
	}
}
