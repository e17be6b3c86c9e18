package vertex_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"giggle/fault"
	"giggle/store"
	"giggle/vertex"
)

// named is a backend that is nothing but its address.
type named string

func (n named) Name() string              { return string(n) }
func (named) Abilities() vertex.Abilities { return vertex.Abilities{} }
func (n named) Generate(context.Context, *vertex.Request, func(vertex.Chunk) error) (vertex.Answer, error) {
	return vertex.Answer{Model: string(n)}, nil
}
func (named) Count(context.Context, *vertex.Request) (int, error) { return 0, nil }

func open(_, address string) (vertex.Backend, error) {
	if strings.HasPrefix(address, "ftp:") {
		return nil, fault.Invalid("backend", "no ftp")
	}
	return named(address), nil
}

func newModels(t *testing.T, path string, perMinute int) *vertex.Models {
	t.Helper()
	st, err := store.Open(t.Context(), path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return vertex.New(vertex.Config{
		Store:     st,
		Open:      open,
		PerMinute: perMinute,
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
	})
}

func TestRoutes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	m := newModels(t, path, 0)
	answers := func(m *vertex.Models, project, model, want string) {
		t.Helper()
		_, b, err := m.Resolve(t.Context(), project, model)
		if want == "" {
			if !fault.Is(err, fault.NotFound) {
				t.Errorf("%s of %s: %v, %v, want NotFound", model, project, b, err)
			}
			return
		}
		if err != nil || b != named(want) {
			t.Errorf("%s of %s: %v, %v, want %s", model, project, b, err, want)
		}
	}
	answers(m, "a", "gemini-2.0-flash", vertex.Embedded)
	answers(m, "a", "gemma3:4b", "")
	answers(m, "a", "gemini-"+strings.Repeat("x", 200), "")
	for _, r := range []vertex.Route{{
		Project: "a",
		Model:   "*",
		Backend: "ollama://h/m",
	}, {Project: "a", Model: "gemini-2.5-pro", Backend: "openai://h/m"},
		{Project: "a", Model: "gemma3:4b", Backend: "run://s/m"}} {
		if err := m.Use(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	again := newModels(t, path, 0) // what was set survives
	for _, m := range []*vertex.Models{m, again} {
		answers(m, "a", "gemini-2.0-flash", "ollama://h/m")
		answers(m, "a", "gemini-2.5-pro", "openai://h/m")
		answers(m, "a", "gemma3:4b", "run://s/m")
		answers(m, "a", "other", "")
		answers(m, "b", "gemini-2.5-pro", vertex.Embedded)
	}
	if err := m.Forget(t.Context(), "a", "gemini-2.5-pro"); err != nil {
		t.Fatal(err)
	}
	answers(m, "a", "gemini-2.5-pro", "ollama://h/m")
	if err := m.Forget(t.Context(), "a", "gemini-2.5-pro"); !fault.Is(err, fault.NotFound) {
		t.Errorf("forgotten twice: %v", err)
	}
	all, err := m.Routes(t.Context(), "a")
	if err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
	for _, r := range []vertex.Route{{
		Model:   "",
		Backend: "embedded:",
	}, {Model: "a/b", Backend: "embedded:"}, {Model: "a", Backend: "ftp://x/y"}, {Model: "a", Backend: "nothing"},
		{Model: "a", Backend: "://"}} {
		if r.Project = "a"; !fault.Is(m.Use(t.Context(), r), fault.InvalidArgument) {
			t.Errorf("%+v was taken", r)
		}
	}
}

func TestQuotaOfAMinute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	st, err := store.Open(t.Context(), path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	synctest.Test(t, func(t *testing.T) {
		m := vertex.New(vertex.Config{
			Store:     st,
			Open:      open,
			PerMinute: 2,
			Now:       time.Now,
			Log:       slog.New(slog.DiscardHandler),
		})
		for range 2 {
			if err := m.Admit("a", "x"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Second)
		err := m.Admit("a", "x")
		if f := fault.From(err); f == nil || f.Code != fault.ResourceExhausted || f.RetryAfter != 40*time.Second {
			t.Errorf("the third: %v", err)
		}
		if err := m.Admit("b", "x"); err != nil {
			t.Errorf("another project: %v", err)
		}
		time.Sleep(40 * time.Second)
		if err := m.Admit("a", "x"); err != nil {
			t.Errorf("the next minute: %v", err)
		}
	})
}

func TestCheckNamesTheField(t *testing.T) {
	ask := func(p ...vertex.Part) *vertex.Request {
		return &vertex.Request{
			Turns: []vertex.Turn{{Role: vertex.User, Parts: []vertex.Part{{Text: "x"}}}, {Role: vertex.User, Parts: p}},
		}
	}
	for want, r := range map[string]*vertex.Request{
		"turns[1].parts[0].media": ask(vertex.Part{Media: &vertex.Media{}}),
		"turns[1].parts[1].call":  ask(vertex.Part{}, vertex.Part{Call: &vertex.Call{}}),
		"turns[1].parts[0].reply": ask(vertex.Part{Reply: &vertex.Reply{}}),
		"tools":                   {Tools: []vertex.Tool{{}}},
		"config.json":             {Config: vertex.Generation{JSON: true}},
	} {
		err := r.Check(vertex.Abilities{})
		if f := fault.From(err); f == nil || f.Code != fault.Unimplemented || f.Fields[0].Path != want {
			t.Errorf("%v, want %s", err, want)
		}
		if err := r.Check(vertex.Abilities{Images: true, Tools: true, JSON: true}); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// closing is a backend that something runs of.
type closing struct {
	named
	closed *int
}

func (c closing) Close() error { *c.closed++; return nil }

// What was forgotten runs no more, and is opened anew when a route leads there again: the file may be another one.
func TestAForgottenBackendIsClosed(t *testing.T) {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	opened, closed := 0, 0
	m := vertex.New(vertex.Config{
		Store: st,
		Now:   time.Now,
		Log:   slog.New(slog.DiscardHandler),
		Open: func(_, address string) (vertex.Backend, error) {
			opened++
			return closing{named(address), &closed}, nil
		},
	})
	for round := 1; round <= 2; round++ {
		if err := m.Use(t.Context(), vertex.Route{Project: "a", Model: "mine", Backend: "embedded:mine"}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.Resolve(t.Context(), "a", "mine"); err != nil {
			t.Fatal(err)
		}
		if err := m.Forget(t.Context(), "a", "mine"); err != nil {
			t.Fatal(err)
		}
		if opened != round || closed != round {
			t.Errorf("round %d: opened %d, closed %d", round, opened, closed)
		}
	}
	if err := m.Use(t.Context(), vertex.Route{Project: "a", Model: "mine", Backend: "embedded:mine"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil || closed != 3 {
		t.Errorf("closed %d at the end, %v", closed, err)
	}
}
