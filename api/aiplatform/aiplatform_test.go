package aiplatform_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/api/aiplatform"
	"giggle/api/guard"
	"giggle/api/guard/guardtest"
	"giggle/fault"
	"giggle/logging/audit/audittest"
	"giggle/rest"
	"giggle/vertex"
)

// backend answers with pieces, and remembers what it was asked.
type backend struct {
	can    vertex.Abilities
	pieces []vertex.Chunk
	answer vertex.Answer
	err    error
	asked  []*vertex.Request
	begun  chan struct{} // not nil: closed when it answers, which it does until the client leaves
	left   chan struct{} // closed then
}

func (b *backend) Name() string { return "tiny-1" }

func (b *backend) Abilities() vertex.Abilities { return b.can }

func (b *backend) Generate(
	ctx context.Context, r *vertex.Request, emit func(vertex.Chunk) error,
) (vertex.Answer, error) {
	b.asked = append(b.asked, r)
	for _, p := range b.pieces {
		if err := emit(p); err != nil {
			return vertex.Answer{}, err
		}
	}
	if b.begun != nil {
		close(b.begun)
		<-ctx.Done()
		close(b.left)
		return vertex.Answer{}, ctx.Err()
	}
	return b.answer, b.err
}

func (b *backend) Count(_ context.Context, r *vertex.Request) (int, error) {
	b.asked = append(b.asked, r)
	return 7, b.err
}

type world struct {
	*guardtest.World
	backend *backend
	models  *vertex.Models
}

func newWorld(t *testing.T) *world {
	b := &backend{
		pieces: []vertex.Chunk{{Text: "Why did "}, {Text: "the byte cross the bus?"}},
		answer: vertex.Answer{Finish: vertex.Stop, Usage: vertex.Usage{Prompt: 5, Output: 8}, Model: "tiny-1"},
	}
	w := newWorldOf(t, b)
	w.backend = b
	return w
}

// newWorldOf is a world in which b answers.
func newWorldOf(t *testing.T, b vertex.Backend) *world {
	w := &world{World: guardtest.New(t)}
	w.models = vertex.New(vertex.Config{
		Store:     w.Store,
		PerMinute: 100,
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
		Open: func(_, address string) (vertex.Backend, error) {
			if address == vertex.Embedded {
				return b, nil
			}
			return nil, fault.Invalid("backend", "no %s", address)
		},
	})
	w.ServeAPI(t, guard.API{
		Host:   "aiplatform.googleapis.com",
		Rules:  aiplatform.Rules,
		Denied: aiplatform.Denied,
	}, func(m *rest.Mux) {
		aiplatform.New(aiplatform.Config{
			Models:  w.models,
			Project: w.Projects.Find,
			NewID:   func() string { return "id-1" },
			Now:     time.Now,
		}).Register(m)
	})
	return w
}

const (
	modelName = "projects/giggle/locations/us-central1/publishers/google/models/gemini-2.0-flash-001"
	hello     = `"contents":[{"role":"user","parts":[{"text":"tell me a joke"}]}]`
)

func TestGenerateContent(t *testing.T) {
	for _, version := range []string{"/v1/", "/v1beta1/"} {
		w := newWorld(t)
		out := w.Call(t, "POST", version+modelName+":generateContent",
			"{"+hello+`,"systemInstruction":{"parts":[{"text":"be funny"}]},"safetySettings":[{"category":"HARM_CATEGORY_HATE_SPEECH","threshold":"BLOCK_NONE"}],
			"generationConfig":{"temperature":0.5,"topP":0.9,"topK":40,"maxOutputTokens":100,"stopSequences":["END"],"seed":3,"presencePenalty":1,"candidateCount":2},"labels":{"a":"b"}}`, 200)
		b, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`"modelVersion":"tiny-1"`, `"finishReason":"STOP"`, `"text":"Why did the byte cross the bus?"`, `"index":1`,
			`"role":"model"`,
			`"promptTokenCount":5`, `"candidatesTokenCount":16`, `"totalTokenCount":21`, `"responseId":"id-1"`,
		} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s: no %s in %s", version, want, b)
			}
		}
		if strings.Contains(string(b), "promptFeedback") {
			t.Errorf("%s: a promptFeedback is a refusal for the libraries: %s", version, b)
		}
		if len(w.backend.asked) != 2 {
			t.Fatalf("%s: asked %d times for two candidates", version, len(w.backend.asked))
		}
		r, second := w.backend.asked[0], w.backend.asked[1]
		c := r.Config
		if r.System != "be funny" || len(r.Turns) != 1 || r.Turns[0].Text() != "tell me a joke" ||
			*c.Temperature != 0.5 || *c.TopK != 40 || c.MaxTokens != 100 ||
			len(c.Stop) != 1 || *c.Seed != 3 || *second.Config.Seed != 4 || *c.PresencePenalty != 1 {
			t.Errorf("%s: asked %+v, then %+v", version, r, second)
		}
	}
}

// A question is a read of data: only one that is refused is in the audit log.
func TestQuestionsAreNotAudited(t *testing.T) {
	w := newWorld(t)
	for _, verb := range []string{":generateContent", ":streamGenerateContent", ":countTokens"} {
		w.CallAs(t, w.Stranger, "POST", "/v1/"+modelName+verb, "{"+hello+"}", 403)
		if status, text := w.Raw(t, w.Owner, "POST", "/v1/"+modelName+verb, "{"+hello+"}"); status != 200 {
			t.Errorf("%s: %d %s", verb, status, text)
		}
	}
	all := audittest.Calls(t, w.Audit)
	if len(all) != 3 {
		t.Fatalf("%d entries, want the three that were refused", len(all))
	}
	for _, call := range all {
		if call.Status.Code != 7 {
			t.Errorf("%+v", call)
		}
	}
}

func TestStreams(t *testing.T) {
	for query, wants := range map[string][]string{
		"?alt=sse":                           {`data: {"candidates":[{"content":{"role":"model","parts":[{"text":"Why did "}]}`, `"finishReason":"STOP"`, `"usageMetadata"`, `"modelVersion":"tiny-1"`},
		"":                                   {`"text": "Why did "`, `"finishReason": "STOP"`},
		"?%24alt=json%3Benum-encoding%3Dint": {`"finishReason":1`},
	} {
		w := newWorld(t)
		status, text := w.Raw(t, w.Owner, "POST", "/v1beta1/"+modelName+":streamGenerateContent"+query, "{"+hello+"}")
		if status != 200 {
			t.Fatalf("%s: %d %s", query, status, text)
		}
		for _, want := range wants {
			if !strings.Contains(flat(text), flat(want)) {
				t.Errorf("%s: no %s in %s", query, want, text)
			}
		}
		if query != "?alt=sse" {
			var all []map[string]any
			if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) < 2 {
				t.Errorf("%s: no JSON array of pieces: %v %s", query, err, text)
			}
			continue
		}
		for line := range strings.Lines(text) { // the library fails on any other line
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "data: ") {
				t.Errorf("a line that is no data: %q", line)
			}
		}
	}
}

func flat(s string) string { return strings.NewReplacer("\n", "", " ", "").Replace(s) }

func TestFunctionsImagesAndJSON(t *testing.T) {
	w := newWorld(t)
	w.backend.can = vertex.Abilities{Images: true, Tools: true, JSON: true}
	w.backend.pieces = []vertex.Chunk{{
		Calls: []vertex.Call{{Name: "weather", Args: json.RawMessage(`{"city":"Oslo"}`)}},
	}}
	out := w.Call(t, "POST", "/v1/"+modelName+":generateContent", `{"contents":[
		{"role":"user","parts":[{"text":"weather?"},{"inlineData":{"mimeType":"image/png","data":"aGk="}}]},
		{"role":"model","parts":[{"functionCall":{"name":"weather","args":{"city":"Bergen"}}}]},
		{"role":"user","parts":[{"functionResponse":{"name":"weather","response":{"rain":true}}}]}],
		"tools":[{"functionDeclarations":[{"name":"weather","description":"of a city","parameters":{"type":"OBJECT","properties":{"city":{"type":"STRING","nullable":true}},"required":["city"]}}]}],
		"generationConfig":{"responseMimeType":"application/json","responseSchema":{"type":"ARRAY","items":{"type":"INTEGER"},"minItems":"1"}}}`, 200)
	b, err := json.Marshal(out)
	if err != nil || !strings.Contains(string(b), `"functionCall":{"args":{"city":"Oslo"},"name":"weather"}`) {
		t.Errorf("%s, %v", b, err)
	}
	r := w.backend.asked[0]
	if p := r.Turns[0].Parts[1]; string(p.Media.Data) != "hi" || p.Media.Type != "image/png" {
		t.Errorf("image: %+v", p)
	}
	if c := r.Turns[1].Parts[0].Call; c.Name != "weather" || flat(string(c.Args)) != `{"city":"Bergen"}` ||
		r.Turns[1].Role != vertex.Model {
		t.Errorf("call: %+v", r.Turns[1])
	}
	if p := r.Turns[2].Parts[0].Reply; p.Name != "weather" || flat(string(p.Response)) != `{"rain":true}` {
		t.Errorf("reply: %+v", p)
	}
	if got := string(r.Tools[0].Parameters); got != `{"properties":{"city":{"type":["string","null"]}},"required":["city"],"type":"object"}` {
		t.Errorf("parameters: %s", got)
	}
	if got := string(r.Config.Schema); got != `{"items":{"type":"integer"},"minItems":1,"type":"array"}` {
		t.Errorf("schema: %s", got)
	}
}

func TestCountTokens(t *testing.T) {
	w := newWorld(t)
	out := w.Call(t, "POST", "/v1beta1/"+modelName+":countTokens", `{"model":"`+modelName+`",`+hello+"}", 200)
	if out["totalTokens"] != 7.0 || out["totalBillableCharacters"] != 11.0 {
		t.Errorf("%v", out)
	}
	w.Call(t, "POST", "/v1beta1/"+modelName+":countTokens",
		`{"model":"`+strings.Replace(modelName, "giggle", "another-project", 1)+`",`+hello+"}", 400)
}

// What is not implemented or can't be is refused by its path, before the backend is asked.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		body   string
		status int
		field  string
	}{
		{`{}`, 400, "contents"},
		{`{"contents":[{"role":"user"}]}`, 400, "contents[0].parts"},
		{`{"contents":[{"role":"nobody","parts":[{"text":"x"}]}]}`, 400, "contents[0].role"},
		{`{"contents":[{"parts":[{}]}]}`, 400, "contents[0].parts[0]"},
		{`{"contents":[{"parts":[{"fileData":{"fileUri":"gs://a/b","mimeType":"image/png"}}]}]}`, 405, "contents[0].parts[0].fileData"},
		{`{"contents":[{"parts":[{"inlineData":{"mimeType":"audio/wav","data":"aGk="}}]}]}`, 405, "contents[0].parts[0].inlineData.mimeType"},
		{`{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"aGk="}}]}]}`, 405, "contents[0].parts[0].inlineData"},
		{`{` + hello + `,"cachedContent":"projects/x"}`, 405, "cachedContent"},
		{`{` + hello + `,"tools":[{"googleSearch":{}}]}`, 405, "tools[0].googleSearch"},
		{`{` + hello + `,"tools":[{"functionDeclarations":[{"name":"f"}]}]}`, 405, "tools"},
		{`{` + hello + `,"generationConfig":{"responseMimeType":"application/json"}}`, 405, "generationConfig.responseMimeType"},
		{`{` + hello + `,"generationConfig":{"responseMimeType":"text/x.enum"}}`, 405, "generationConfig.responseMimeType"},
		{`{` + hello + `,"generationConfig":{"responseLogprobs":true}}`, 405, "generationConfig.responseLogprobs"},
		{`{` + hello + `,"generationConfig":{"thinkingConfig":{}}}`, 405, "generationConfig.thinkingConfig"},
		{`{` + hello + `,"generationConfig":{"temperature":3}}`, 400, "generationConfig.temperature"},
		{`{` + hello + `,"generationConfig":{"temperature":"NaN"}}`, 400, "generationConfig.temperature"},
		{`{` + hello + `,"generationConfig":{"candidateCount":9}}`, 400, "generationConfig.candidateCount"},
		{`{` + hello + `,"generationConfig":{"maxOutputTokens":-1}}`, 400, "generationConfig.maxOutputTokens"},
		{`{` + hello + `,"generationConfig":{"responseSchema":{"type":"STRING"}}}`, 400, "generationConfig.responseMimeType"},
	} {
		for _, method := range []string{":generateContent", ":streamGenerateContent"} {
			status, text := w.Raw(t, w.Owner, "POST", "/v1beta1/"+modelName+method, tt.body)
			if status != tt.status || !strings.Contains(text, `"`+tt.field+`"`) {
				t.Errorf("%s %s: %d %s, want %d and %s", method, tt.body, status, text, tt.status, tt.field)
			}
		}
	}
	if len(w.backend.asked) != 0 {
		t.Error("a refused request reached the backend")
	}
}

func TestWhoMayAskWhat(t *testing.T) {
	w := newWorld(t)
	out := w.CallAs(t, w.Stranger, "POST", "/v1/"+modelName+":generateContent", "{"+hello+"}", 403)
	b, err := json.Marshal(out)
	if err != nil || !strings.Contains(string(b),
		"Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/"+modelName+
			"' (or it may not exist).\"") ||
		!strings.Contains(string(b), `"domain":"aiplatform.googleapis.com"`) ||
		!strings.Contains(string(b), "IAM_PERMISSION_DENIED") {
		t.Errorf("%s, %v", b, err)
	}
	w.CallAs(t, "", "POST", "/v1/"+modelName+":generateContent", "{"+hello+"}", 401)
	w.Call(t, "POST", "/v1/"+strings.Replace(modelName, "gemini-2.0-flash-001", "claude", 1)+":generateContent",
		"{"+hello+"}", 404)
	w.Call(t, "POST", "/v1/projects/giggle/locations/us-central1/endpoints/1:predict", "{}", 405)
	w.Call(t, "GET", "/v1/projects/giggle/locations/us-central1/datasets", "", 405)
	if out := w.Call(t, "GET", "/v1beta1/publishers/google/models", "", 200); len(out["publisherModels"].([]any)) == 0 {
		t.Errorf("%v", out)
	}
	w.Call(t, "GET", "/v1/publishers/google/models/gemini-2.5-pro", "", 200)
	w.Call(t, "GET", "/v1/publishers/google/models/none", "", 404)
}

func TestQuota(t *testing.T) {
	w := newWorld(t)
	for range 100 {
		w.Call(t, "POST", "/v1/"+modelName+":countTokens", "{"+hello+"}", 200)
	}
	out := w.Call(t, "POST", "/v1/"+modelName+":generateContent", "{"+hello+"}", 429)
	b, err := json.Marshal(out)
	if err != nil || !strings.Contains(string(b), "RESOURCE_EXHAUSTED") ||
		!strings.Contains(string(b), "google.rpc.RetryInfo") {
		t.Errorf("%s, %v", b, err)
	}
	w.Call(t, "POST", "/v1/"+strings.Replace(modelName, "2.0-flash-001", "2.5-pro", 1)+":generateContent",
		"{"+hello+"}", 200)
}

func TestABackendThatFails(t *testing.T) {
	w := newWorld(t)
	w.backend.err = fault.New(fault.Unavailable, "The Ollama server can't be reached.")
	w.Call(t, "POST", "/v1/"+modelName+":generateContent", "{"+hello+"}", 503)
	w.backend.pieces = nil
	w.Call(t, "POST", "/v1/"+modelName+":streamGenerateContent", "{"+hello+"}", 503)
	w.backend.err, w.backend.answer = nil, vertex.Answer{Finish: vertex.Length}
	out := w.Call(t, "POST", "/v1/"+modelName+":generateContent", "{"+hello+"}", 200)
	parts := out["candidates"].([]any)[0].(map[string]any)["content"].(map[string]any)["parts"].([]any)
	if len(parts) != 1 || out["candidates"].([]any)[0].(map[string]any)["finishReason"] != "MAX_TOKENS" {
		t.Errorf("an answer without text: %v", out)
	}
}

// A client that leaves stops the backend.
func TestAClientThatLeaves(t *testing.T) {
	w := newWorld(t)
	w.backend.begun, w.backend.left = make(chan struct{}), make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "POST",
		"https://aiplatform.googleapis.com/v1/"+modelName+":streamGenerateContent?alt=sse",
		strings.NewReader("{"+hello+"}"))
	r.Header.Set("Authorization", "Bearer "+w.Owner)
	r.Header.Set("Content-Type", "application/json")
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}()
	select {
	case <-w.backend.begun:
	case <-done:
		t.Fatal("it ended before the backend was asked")
	}
	leave()
	<-w.backend.left
	<-done
}
