// Package openai has models that a server with OpenAI's chat API runs answer
// (https://platform.openai.com/docs/api-reference/chat): llama.cpp, vLLM, and Ollama too.
package openai

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"giggle/fault"
	"giggle/vertex"
)

// maxLine bounds one line of an answer, in bytes.
const maxLine = 4 << 20

// Backend is a model of a server.
type Backend struct {
	Client *http.Client
	URL    string // of the server, without /v1
	Model  string
	Key    string // sent as a bearer token, "" for none
}

var _ vertex.Backend = (*Backend)(nil)

// Name is what the server calls the model.
func (b *Backend) Name() string { return b.Model }

// Abilities are all: which the model has, the server says.
func (b *Backend) Abilities() vertex.Abilities {
	return vertex.Abilities{Images: true, Tools: true, JSON: true}
}

type message struct {
	Role       string     `json:"role"`
	Content    any        `json:"content"` // a text, or a list of parts
	ToolCalls  []toolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

type part struct {
	Type     string            `json:"type"`
	Text     string            `json:"text,omitempty"`
	ImageURL map[string]string `json:"image_url,omitempty"`
}

type toolCall struct {
	Index    int    `json:"index"`
	ID       string `json:"id,omitempty"`
	Type     string `json:"type,omitempty"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type chunk struct {
	Model   string `json:"model"`
	Choices []struct {
		Delta struct {
			Content   string     `json:"content"`
			ToolCalls []toolCall `json:"tool_calls"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	} `json:"usage"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// callID names the n-th call of a function in a conversation: Gemini's calls need no ids, OpenAI's do.
func callID(given, name string, n int) string {
	if given != "" {
		return given
	}
	return fmt.Sprintf("call_%s_%d", name, n)
}

// ask writes a question in OpenAI's form.
func (b *Backend) ask(r *vertex.Request) map[string]any {
	var messages []message
	if r.System != "" {
		messages = append(messages, message{Role: "system", Content: r.System})
	}
	calls, replies := map[string]int{}, map[string]int{}
	for _, t := range r.Turns {
		m := message{Role: "user"}
		if t.Role == vertex.Model {
			m.Role = "assistant"
		}
		var parts []part
		for _, p := range t.Parts {
			switch {
			case p.Media != nil:
				uri := "data:" + p.Media.Type + ";base64," + base64.StdEncoding.EncodeToString(p.Media.Data)
				parts = append(parts, part{Type: "image_url", ImageURL: map[string]string{"url": uri}})
			case p.Call != nil:
				c := toolCall{
					Index: len(m.ToolCalls),
					ID:    callID(p.Call.ID, p.Call.Name, calls[p.Call.Name]),
					Type:  "function",
				}
				calls[p.Call.Name]++
				c.Function.Name, c.Function.Arguments = p.Call.Name, string(p.Call.Args)
				m.ToolCalls = append(m.ToolCalls, c)
			case p.Reply != nil:
				id := callID(p.Reply.ID, p.Reply.Name, replies[p.Reply.Name])
				replies[p.Reply.Name]++
				messages = append(messages, message{Role: "tool", Content: string(p.Reply.Response), ToolCallID: id})
			default:
				parts = append(parts, part{Type: "text", Text: p.Text})
			}
		}
		switch {
		case len(parts) == 0 && len(m.ToolCalls) == 0:
			continue
		case len(parts) == 1 && parts[0].Type == "text":
			m.Content = parts[0].Text
		case len(parts) > 0:
			m.Content = parts
		}
		messages = append(messages, m)
	}
	out := map[string]any{"model": b.Model, "messages": messages, "stream": true,
		"stream_options": map[string]bool{"include_usage": true}}
	configure(out, r)
	return out
}

func configure(out map[string]any, r *vertex.Request) {
	c := r.Config
	for name, v := range map[string]*float64{
		"temperature": c.Temperature, "top_p": c.TopP, "presence_penalty": c.PresencePenalty,
		"frequency_penalty": c.FrequencyPenalty,
	} {
		if v != nil {
			out[name] = *v
		}
	}
	if c.Seed != nil {
		out["seed"] = *c.Seed
	}
	if c.MaxTokens > 0 {
		out["max_tokens"] = c.MaxTokens
	}
	if len(c.Stop) > 0 {
		out["stop"] = c.Stop
	}
	switch {
	case c.Schema != nil:
		out["response_format"] = map[string]any{"type": "json_schema",
			"json_schema": map[string]any{"name": "answer", "schema": c.Schema}}
	case c.JSON:
		out["response_format"] = map[string]string{"type": "json_object"}
	}
	var tools []any
	for _, t := range r.Tools {
		f := map[string]any{"name": t.Name, "description": t.Description}
		if t.Parameters != nil {
			f["parameters"] = t.Parameters
		}
		tools = append(tools, map[string]any{"type": "function", "function": f})
	}
	if tools != nil {
		out["tools"] = tools
		if c.MustCall {
			out["tool_choice"] = "required"
		}
	}
}

// Generate answers, piece by piece. Calls of functions come at the end, whole.
func (b *Backend) Generate(
	ctx context.Context, r *vertex.Request, emit func(vertex.Chunk) error,
) (vertex.Answer, error) {
	a := vertex.Answer{Finish: vertex.Stop, Model: b.Model}
	var calls []toolCall
	err := b.chat(ctx, b.ask(r), func(c chunk) error {
		if c.Model != "" {
			a.Model = c.Model
		}
		if c.Usage != nil {
			a.Usage = vertex.Usage{Prompt: c.Usage.PromptTokens, Output: c.Usage.CompletionTokens}
		}
		for _, choice := range c.Choices {
			switch choice.FinishReason {
			case "length":
				a.Finish = vertex.Length
			case "content_filter":
				a.Finish = vertex.Blocked
			}
			for _, d := range choice.Delta.ToolCalls {
				if d.Index < 0 || d.Index > 100 {
					continue
				}
				for len(calls) <= d.Index {
					calls = append(calls, toolCall{})
				}
				to := &calls[d.Index]
				to.ID += d.ID
				to.Function.Name += d.Function.Name
				to.Function.Arguments += d.Function.Arguments
			}
			if choice.Delta.Content != "" {
				if err := emit(vertex.Chunk{Text: choice.Delta.Content}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil || len(calls) == 0 {
		return a, err
	}
	var out vertex.Chunk
	for _, c := range calls {
		args := json.RawMessage(c.Function.Arguments)
		if !json.Valid(args) {
			args = json.RawMessage("{}")
		}
		out.Calls = append(out.Calls, vertex.Call{ID: c.ID, Name: c.Function.Name, Args: args})
	}
	return a, emit(out)
}

// Count asks for one token and reads how many the prompt had.
func (b *Backend) Count(ctx context.Context, r *vertex.Request) (n int, err error) {
	q := b.ask(r)
	q["max_tokens"] = 1
	err = b.chat(ctx, q, func(c chunk) error {
		if c.Usage != nil {
			n = c.Usage.PromptTokens
		}
		return nil
	})
	if err == nil && n == 0 {
		err = fault.New(fault.Unimplemented, "The server at %s does not say how many tokens a prompt has.", b.URL)
	}
	return n, err
}

// chat sends a question and calls emit for each event of the answer.
func (b *Backend) chat(ctx context.Context, q map[string]any, emit func(chunk) error) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.URL+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if b.Key != "" {
		req.Header.Set("Authorization", "Bearer "+b.Key)
	}
	res, err := b.Client.Do(req)
	if err != nil {
		return b.unreachable(ctx, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // for the message only
		var c chunk
		message := strings.TrimSpace(string(text))
		if json.Unmarshal(text, &c) == nil && c.Error != nil {
			message = c.Error.Message
		}
		code, ok := map[int]fault.Code{400: fault.InvalidArgument, 401: fault.PermissionDenied,
			403: fault.PermissionDenied, 404: fault.NotFound, 429: fault.ResourceExhausted}[res.StatusCode]
		if !ok {
			code = fault.Unavailable
		}
		return fault.New(code, "The model's server at %s answered %d: %.500s", b.URL, res.StatusCode, message)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 4<<10), maxLine)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if data = strings.TrimSpace(data); !ok || data == "" {
			continue
		}
		if data == "[DONE]" {
			return nil
		}
		var c chunk
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			return fault.New(fault.Unavailable, "The server at %s does not answer in OpenAI's form: %v.", b.URL, err)
		}
		if c.Error != nil {
			return fault.New(fault.Unavailable, "The server at %s failed: %.500s", b.URL, c.Error.Message)
		}
		if err := emit(c); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return b.unreachable(ctx, err)
	}
	return fault.New(fault.Unavailable, "The answer of the server at %s broke off.", b.URL)
}

func (b *Backend) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f := fault.New(fault.Unavailable, "The model's server at %s can't be reached.", b.URL)
	f.Cause = err
	return f
}
