package giggle_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/api/giggle"
	"giggle/fault"
	"giggle/iam"
	"giggle/vertex"
	"giggle/vertex/library"
)

// modeller may do everything with the models of one project.
type modeller struct{ giggle.Identity }

func (modeller) Authorize(_ context.Context, _ iam.Principal, permission, resource string) error {
	if strings.HasPrefix(permission, "aiplatform.") && resource == "projects/giggle" {
		return nil
	}
	return fault.New(fault.PermissionDenied, "no %s on %s", permission, resource)
}

// table has two routes, and two files, one of which only Ollama can run.
type table struct{ giggle.Models }

func (table) Routes(context.Context, string) ([]vertex.Route, error) {
	return []vertex.Route{{
		Project: "giggle",
		Model:   "small",
		Backend: "embedded:small",
	}, {Project: "giggle", Model: "*", Backend: vertex.Embedded}}, nil
}

func (table) Files(context.Context, string) ([]library.Model, error) {
	return []library.Model{
		{Project: "giggle", Name: "large", Source: "large.gguf", Digest: "sha256:2", Size: 2, Unfit: "it is large"},
		{
			Project: "giggle",
			Name:    "small",
			Source:  "s.gguf",
			Digest:  "sha256:1",
			Size:    1,
			Title:   "Small",
			Added:   time.Unix(0, 0).UTC(),
		},
	}, nil
}

func (table) Add(_ context.Context, project, name, source string, file io.Reader) (library.Model, error) {
	m := library.Model{Project: project, Name: name, Source: source}
	if file == nil {
		m.Source = "a copy of " + source
		return m, nil
	}
	b, err := io.ReadAll(file)
	if m.Size = int64(len(b)); m.Size > 5 {
		m.Unfit = "it is large"
	}
	return m, err
}

func TestModels(t *testing.T) {
	h := giggle.New(giggle.Config{
		Identity: modeller{},
		Models:   table{},
		Caller:   func(int) (iam.Principal, error) { return iam.User("you@giggle.test"), nil },
	}).Handler()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	call := func(method, query, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+query, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}

	code, body := call("GET", "/v1/models?project=giggle", "")
	var all []giggle.Route
	if err := json.Unmarshal([]byte(body), &all); err != nil || code != 200 || len(all) != 3 {
		t.Fatalf("%d %s, %v", code, body, err)
	}
	small, rest, large := all[0], all[1], all[2]
	if small.Backend != "embedded:small" || small.File == nil || small.File.Source != "s.gguf" ||
		small.File.Title != "Small" {
		t.Errorf("a model with a file: %+v", small)
	}
	if rest.Model != "*" || rest.File != nil {
		t.Errorf("a route without a file: %+v", rest)
	}
	if large.Model != "large" || large.Backend != "" || large.File == nil || large.File.Unfit != "it is large" {
		t.Errorf("a file without a route: %+v", large)
	}

	for _, tt := range []struct {
		query, body string
		code        int
		want        []string
	}{
		{"project=giggle&name=n&source=f.gguf", "12345", 200, []string{`"backend":"embedded:n"`, `"source":"f.gguf"`,
			`"bytes":5`}},
		{"project=giggle&name=n&source=f.gguf", "123456", 200, []string{`"backend":""`, `"unfit":"it is large"`}},
		{"project=giggle&name=n&source=f.gguf&from=small", "", 200, []string{`"source":"a copy of small"`,
			`"backend":"embedded:n"`}},
		{"project=other&name=n&source=f.gguf", "1", 403, []string{"aiplatform.models.upload"}},
	} {
		code, body := call("PUT", "/v1/models:add?"+tt.query, tt.body)
		for _, w := range tt.want {
			if code != tt.code || !strings.Contains(body, w) {
				t.Errorf("%s: %d %s, want %d and %s", tt.query, code, body, tt.code, w)
			}
		}
	}
	for _, path := range []string{"/v1/models?project=other", "/v1/models"} {
		if code, body := call("GET", path, ""); code != 403 {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
