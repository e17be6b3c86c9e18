// Package ollama has models that an Ollama server runs answer, over its chat API
// (https://github.com/ollama/ollama/blob/main/docs/api.md).
package ollama

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"giggle/fault"
	"giggle/vertex"
)

// maxLine bounds one line of an answer, in bytes.
const maxLine = 4 << 20

// Backend is a model of an Ollama server.
type Backend struct {
	Client *http.Client
	URL    string // of the server, without a slash at its end
	Model  string // as the server calls it
}

var _ vertex.Backend = (*Backend)(nil)

// Name is what the server calls the model.
func (b *Backend) Name() string { return b.Model }

// Abilities are all: which the model has, the server says.
func (b *Backend) Abilities() vertex.Abilities {
	return vertex.Abilities{Images: true, Tools: true, JSON: true}
}

type message struct {
	Role      string     `json:"role"`
	Content   string     `json:"content"`
	Images    [][]byte   `json:"images,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
	ToolName  string     `json:"tool_name,omitempty"`
}

type toolCall struct {
	Function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	} `json:"function"`
}

type tool struct {
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type function struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

type request struct {
	Model    string          `json:"model"`
	Messages []message       `json:"messages"`
	Tools    []tool          `json:"tools,omitempty"`
	Format   json.RawMessage `json:"format,omitempty"`
	Options  map[string]any  `json:"options,omitempty"`
	Stream   bool            `json:"stream"`
}

type response struct {
	Model           string  `json:"model"`
	Message         message `json:"message"`
	Done            bool    `json:"done"`
	DoneReason      string  `json:"done_reason"`
	PromptEvalCount int     `json:"prompt_eval_count"`
	EvalCount       int     `json:"eval_count"`
	Error           string  `json:"error"`
}

// ask writes a question in Ollama's form.
func (b *Backend) ask(r *vertex.Request) request {
	out := request{Model: b.Model, Stream: true, Options: options(r.Config)}
	if r.System != "" {
		out.Messages = append(out.Messages, message{Role: "system", Content: r.System})
	}
	for _, t := range r.Turns {
		out.Messages = append(out.Messages, messagesOf(t)...)
	}
	for _, t := range r.Tools {
		out.Tools = append(out.Tools, tool{"function", function{t.Name, t.Description, t.Parameters}})
	}
	switch {
	case r.Config.Schema != nil:
		out.Format = r.Config.Schema
	case r.Config.JSON:
		out.Format = json.RawMessage(`"json"`)
	}
	return out
}

// messagesOf writes a turn: what functions returned are messages of their own.
func messagesOf(t vertex.Turn) []message {
	m := message{Role: "user"}
	if t.Role == vertex.Model {
		m.Role = "assistant"
	}
	var replies []message
	for _, p := range t.Parts {
		switch {
		case p.Media != nil:
			m.Images = append(m.Images, p.Media.Data)
		case p.Call != nil:
			var c toolCall
			c.Function.Name, c.Function.Arguments = p.Call.Name, p.Call.Args
			m.ToolCalls = append(m.ToolCalls, c)
		case p.Reply != nil:
			replies = append(replies, message{Role: "tool", ToolName: p.Reply.Name, Content: string(p.Reply.Response)})
		default:
			m.Content += p.Text
		}
	}
	if m.Content == "" && len(m.Images)+len(m.ToolCalls) == 0 && len(replies) > 0 {
		return replies
	}
	return append(replies, m)
}

func options(c vertex.Generation) map[string]any {
	o := make(map[string]any)
	set := func(name string, v *float64) {
		if v != nil {
			o[name] = *v
		}
	}
	set("temperature", c.Temperature)
	set("top_p", c.TopP)
	set("presence_penalty", c.PresencePenalty)
	set("frequency_penalty", c.FrequencyPenalty)
	if c.TopK != nil {
		o["top_k"] = *c.TopK
	}
	if c.Seed != nil {
		o["seed"] = *c.Seed
	}
	if c.MaxTokens > 0 {
		o["num_predict"] = c.MaxTokens
	}
	if len(c.Stop) > 0 {
		o["stop"] = c.Stop
	}
	return o
}

// Generate answers, piece by piece.
func (b *Backend) Generate(
	ctx context.Context, r *vertex.Request, emit func(vertex.Chunk) error,
) (vertex.Answer, error) {
	last, err := b.chat(ctx, b.ask(r), func(p response) error {
		c := vertex.Chunk{Text: p.Message.Content}
		for _, call := range p.Message.ToolCalls {
			c.Calls = append(c.Calls, vertex.Call{Name: call.Function.Name, Args: call.Function.Arguments})
		}
		if c.Text == "" && c.Calls == nil {
			return nil
		}
		return emit(c)
	})
	if err != nil {
		return vertex.Answer{}, err
	}
	a := vertex.Answer{
		Finish: vertex.Stop,
		Model:  last.Model,
		Usage:  vertex.Usage{Prompt: last.PromptEvalCount, Output: last.EvalCount},
	}
	if last.DoneReason == "length" {
		a.Finish = vertex.Length
	}
	if a.Model == "" {
		a.Model = b.Model
	}
	return a, nil
}

// Count asks for one token and reads how many the prompt had: Ollama has no call that only counts.
func (b *Backend) Count(ctx context.Context, r *vertex.Request) (int, error) {
	q := b.ask(r)
	q.Options["num_predict"] = 1
	last, err := b.chat(ctx, q, func(response) error { return nil })
	return last.PromptEvalCount, err
}

// chat sends a question and calls emit for each line of the answer but the error's. It returns the last.
func (b *Backend) chat(ctx context.Context, q request, emit func(response) error) (last response, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return last, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.URL+"/api/chat", bytes.NewReader(body))
	if err != nil {
		return last, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := b.Client.Do(req)
	if err != nil {
		return last, unreachable(ctx, b.URL, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	if res.StatusCode != http.StatusOK {
		return last, b.refused(res)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 4<<10), maxLine)
	for lines.Scan() {
		var p response
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return last, fault.New(fault.Unavailable, "The Ollama server at %s does not answer as Ollama does: %v.",
				b.URL, err)
		}
		if p.Error != "" {
			return last, fault.New(fault.Unavailable, "The Ollama server at %s failed: %.500s", b.URL, p.Error)
		}
		if err := emit(p); err != nil {
			return last, err
		}
		if last = p; p.Done {
			return last, nil
		}
	}
	if err := lines.Err(); err != nil {
		return last, unreachable(ctx, b.URL, err)
	}
	return last, fault.New(fault.Unavailable, "The answer of the Ollama server at %s broke off.", b.URL)
}

// unreachable is the fault of a server that can't be asked; the end of ctx is nobody's fault.
func unreachable(ctx context.Context, url string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f := new(fault.Error); errors.As(err, &f) { // of the client's transport, which knows why
		return f
	}
	f := fault.New(fault.Unavailable, "The Ollama server at %s can't be reached.", url)
	f.Cause = err
	return f
}

// refused is the fault of an answer that is no success.
func (b *Backend) refused(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var e struct {
		Error string `json:"error"`
	}
	if err = errors.Join(err, json.Unmarshal(text, &e)); err != nil || e.Error == "" {
		e.Error = strings.TrimSpace(string(text))
	}
	code := fault.Unavailable
	switch res.StatusCode {
	case http.StatusNotFound:
		code = fault.NotFound
	case http.StatusBadRequest:
		code = fault.InvalidArgument
	case http.StatusUnauthorized, http.StatusForbidden:
		code = fault.PermissionDenied
	case http.StatusTooManyRequests:
		code = fault.ResourceExhausted
	}
	return fault.New(code, "The model's server at %s answered %d: %.500s", b.URL, res.StatusCode, e.Error)
}
