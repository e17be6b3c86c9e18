package vertex

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/store"
)

// Route says which backend answers for a model of a project.
type Route struct {
	Project string
	Model   string // an id such as "gemini-2.0-flash-001", or "*" for every gemini model that has no route of its own
	// "embedded:", "embedded:NAME", "ollama://HOST:PORT/MODEL", "openai://HOST:PORT/MODEL", "run://SERVICE/MODEL"
	Backend string
}

var routes = store.NewTable[Route]("models.route", "Model")

// Config is what New needs.
type Config struct {
	Store *store.Store
	// Open returns the backend at an address. It fails with InvalidArgument on an address that can't be one.
	Open func(project, address string) (Backend, error)
	// PerMinute is how many requests a project may make of one model in a minute.
	PerMinute int
	Now       func() time.Time
	Log       *slog.Logger
}

// Models is the models of a platform.
type Models struct {
	cfg Config

	mu       sync.Mutex
	backends map[string]Backend // by project and address
	minutes  map[string]minute  // by project and model
	known    map[string]Route   // by project and model: what was read since the last change
	changes  int                // of routes
}

// minute counts the requests of one.
type minute struct {
	start time.Time
	n     int
}

// New returns the models in the store.
func New(cfg Config) *Models {
	return &Models{
		cfg:      cfg,
		backends: make(map[string]Backend),
		minutes:  make(map[string]minute),
		known:    make(map[string]Route),
	}
}

// Embedded is the address of the model that comes with the platform.
const Embedded = "embedded:"

// id is the form of a model's id.
var id = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:@-]{0,99}$`)

// Gemini reports whether an id is one of Google's models, for which a backend stands in.
func Gemini(model string) bool { return strings.HasPrefix(model, "gemini-") && id.MatchString(model) }

func rowName(project, model string) string { return "projects/" + project + "/models/" + model }

// Use makes a backend answer for a model, or for "*".
func (m *Models) Use(ctx context.Context, r Route) (err error) {
	defer fault.Wrap(&err, "vertex.Use(%s)", r.Model)
	if r.Model != "*" && !id.MatchString(r.Model) {
		return fault.Invalid("model", "%.100q is not the id of a model", r.Model)
	}
	if _, err := m.backend(r.Project, r.Backend); err != nil {
		return err
	}
	defer m.forgetKnown()
	return m.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		_, err := routes.Put(tx, rowName(r.Project, r.Model), r)
		return err
	})
}

// Forget removes a model's route. It fails with NotFound.
func (m *Models) Forget(ctx context.Context, project, model string) (err error) {
	defer fault.Wrap(&err, "vertex.Forget(%s)", model)
	var gone Route
	defer m.forgetKnown()
	err = m.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := routes.Get(tx, rowName(project, model))
		if err != nil {
			return err
		}
		gone = row.Value
		return routes.Delete(tx, row.Name)
	})
	if err != nil {
		return err
	}
	return m.drop(project, gone.Backend) // a file of its name may be another one next time
}

// Routes returns a project's routes, by model. The last is the default where the project sets none.
func (m *Models) Routes(ctx context.Context, project string) (out []Route, err error) {
	defer fault.Wrap(&err, "vertex.Routes(%s)", project)
	err = m.cfg.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := routes.List(tx, rowName(project, ""), "", 0)
		for _, r := range rows {
			out = append(out, r.Value)
		}
		return err
	})
	if !slices.ContainsFunc(out, func(r Route) bool { return r.Model == "*" }) {
		out = append(out, Route{Project: project, Model: "*", Backend: Embedded})
	}
	return out, err
}

// Resolve returns the backend of a model. It fails with NotFound for one that is no Gemini model and has no route.
func (m *Models) Resolve(ctx context.Context, project, model string) (_ Route, _ Backend, err error) {
	defer fault.Wrap(&err, "vertex.Resolve(%s)", model)
	route, err := m.route(ctx, project, model)
	if err != nil {
		return route, nil, err
	}
	if route.Backend == "" {
		if !Gemini(model) {
			return route, nil, fault.New(fault.NotFound,
				"Model %.100q was not found. `giggle models use %.100s BACKEND` says what answers for it.", model,
				model)
		}
		route.Backend = Embedded
	}
	b, err := m.backend(project, route.Backend)
	return route, b, err
}

// route returns a model's route as it is stored, without a backend where there is none. Each question asks: it is read
// once.
func (m *Models) route(ctx context.Context, project, model string) (Route, error) {
	key := project + " " + model
	m.mu.Lock()
	route, ok := m.known[key]
	changes := m.changes
	m.mu.Unlock()
	if ok {
		return route, nil
	}
	route = Route{Project: project, Model: model}
	err := m.cfg.Store.View(ctx, func(tx *store.Tx) error {
		for _, name := range []string{model, "*"} {
			if name == "*" && !Gemini(model) {
				break
			}
			row, err := routes.Get(tx, rowName(project, name))
			if err == nil {
				route = row.Value
				return nil
			}
			if !fault.Is(err, fault.NotFound) {
				return err
			}
		}
		return nil
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.changes == changes { // else it may be what was before
		if len(m.known) >= 10_000 { // ids that nobody has heard of must not fill memory
			clear(m.known)
		}
		m.known[key] = route
	}
	return route, err
}

// forgetKnown has routes read again.
func (m *Models) forgetKnown() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	clear(m.known)
}

func (m *Models) backend(project, address string) (Backend, error) {
	if u, err := url.Parse(address); err != nil || u.Scheme == "" {
		return nil, fault.Invalid("backend",
			"%.200q is not embedded:, ollama://HOST:PORT/MODEL, openai://HOST:PORT/MODEL or run://SERVICE/MODEL",
			address)
	}
	key := project + " " + address
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.backends[key]; b != nil {
		return b, nil
	}
	b, err := m.cfg.Open(project, address)
	if err == nil {
		m.backends[key] = b
		m.cfg.Log.Info("model opened", "project", project, "backend", address, "model", b.Name())
	}
	return b, err
}

// drop forgets an open backend, and ends what runs of it. One that is still needed is opened again.
func (m *Models) drop(project, address string) error {
	key := project + " " + address
	m.mu.Lock()
	b := m.backends[key]
	delete(m.backends, key)
	m.mu.Unlock()
	if c, ok := b.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Close ends what runs of the backends.
func (m *Models) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, b := range m.backends {
		if c, ok := b.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	clear(m.backends)
	return errors.Join(errs...)
}

// Admit counts a request. It fails with ResourceExhausted, and how long to wait, when the model's quota of this minute
// is used up.
func (m *Models) Admit(project, model string) error {
	if m.cfg.PerMinute <= 0 {
		return nil
	}
	now, key := m.cfg.Now(), project+" "+model
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.minutes[key]
	if !ok || now.Sub(c.start) >= time.Minute || now.Before(c.start) {
		if !ok && len(m.minutes) > 10_000 { // ids that nobody has heard of must not fill memory
			clear(m.minutes)
		}
		c = minute{start: now}
	}
	c.n++
	m.minutes[key] = c
	if c.n <= m.cfg.PerMinute {
		return nil
	}
	e := fault.New(fault.ResourceExhausted,
		"Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model with base model: %.100s "+
			"(%d per minute; `giggle up --model-requests-per-minute` sets it). Please try again later.", model,
		m.cfg.PerMinute)
	e.Reason, e.Domain = "RATE_LIMIT_EXCEEDED", "googleapis.com"
	e.RetryAfter = c.start.Add(time.Minute).Sub(now)
	return e
}
