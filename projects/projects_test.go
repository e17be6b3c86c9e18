package projects_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/projects"
	"giggle/store"
)

func TestProjectsAndServices(t *testing.T) {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	var made []string
	created := func(_ *store.Tx, id, number, owner string) error {
		made = append(made, id+" "+number+" "+owner)
		return nil
	}
	p, err := projects.New(t.Context(), projects.Config{Store: st, Now: time.Now, Created: created})
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.Create(t.Context(), projects.Project{ID: "giggle"}, "user:you@giggle.test")
	if err != nil || len(x.Number) != 12 || len(made) != 1 {
		t.Fatalf("Create = %+v, %v, hook %v", x, err, made)
	}
	if _, err := p.Create(t.Context(), projects.Project{ID: "giggle"}, "user:you@giggle.test"); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("second Create = %v, want ALREADY_EXISTS", err)
	}
	if _, err := p.Create(t.Context(), projects.Project{ID: "X"}, "user:you@giggle.test"); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("Create(X) = %v, want INVALID_ARGUMENT", err)
	}
	if y, err := p.Get(x.Number); err != nil || y.ID != "giggle" {
		t.Errorf("Get by number = %v, %v", y, err)
	}
	if err := p.CheckEnabled("giggle", "run.googleapis.com"); err != nil {
		t.Errorf("run is not enabled in a new project: %v", err)
	}
	if _, err := p.SetEnabled(t.Context(), "giggle", false, "run.googleapis.com"); err != nil {
		t.Fatal(err)
	}
	again, err := projects.New(t.Context(), projects.Config{Store: st, Now: time.Now, Created: created})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []*projects.Projects{p, again} {
		if err := q.CheckEnabled(x.Number, "run.googleapis.com"); !fault.Is(err, fault.PermissionDenied) ||
			fault.From(err).Reason != "SERVICE_DISABLED" {
			t.Errorf("a disabled service = %v, want SERVICE_DISABLED", err)
		}
	}
	if _, err := p.SetEnabled(t.Context(), "giggle", false, "iam.googleapis.com"); !fault.Is(err,
		fault.FailedPrecondition) {
		t.Errorf("disabling iam = %v, want FAILED_PRECONDITION", err)
	}
	if _, err := p.SetEnabled(t.Context(), "giggle", true, "run.googleapis.com",
		"teapot.example.com"); !fault.Is(err, fault.NotFound) {
		t.Errorf("enabling what is not there = %v, want NOT_FOUND", err)
	}
	all, err := p.Services("giggle")
	if err != nil || !slices.ContainsFunc(all,
		func(s projects.Service) bool { return s.Name == "run.googleapis.com" && !s.Enabled }) {
		t.Errorf("Services = %v, %v; run must be there and still disabled", all, err)
	}
}

// Names of Google's APIs are taken, served here or not; what can't be one isn't, nor what is likely a mistake.
func TestServiceNames(t *testing.T) {
	p := newProjects(t)
	for name, want := range map[string]string{
		"run.googleapis.com":               "",
		"compute.googleapis.com":           "",
		"cloudapis.googleapis.com":         "",
		"containerregistry.googleapis.com": "",
		"sql-component.googleapis.com":     "",
		"pubsub.googleapis.com":            "",
		"rum.googleapis.com":               "Did you mean run.googleapis.com?",
		"runn.googleapis.com":              "Did you mean run.googleapis.com?",
		"cloudbuid.googleapis.com":         "Did you mean cloudbuild.googleapis.com?",
		"teapot.example.com":               "not one of Google Cloud",
		"compute":                          "not one of Google Cloud",
		"":                                 "not one of Google Cloud",
		"a.b.googleapis.com":               "not one of Google Cloud",
		"Compute.googleapis.com":           "not one of Google Cloud",
		"compute.googleapis.com/x":         "not one of Google Cloud",
		"compute.googleapis.com.":          "not one of Google Cloud",
	} {
		_, err := p.SetEnabled(t.Context(), "giggle", true, name)
		if want == "" && err != nil || want != "" && (!fault.Is(err, fault.NotFound) ||
			!strings.Contains(fault.From(err).Message, want)) {
			t.Errorf("enabling %q = %v, want %q", name, err, want)
		}
	}
	s, err := p.Service("giggle", "compute.googleapis.com")
	if err != nil || !s.Enabled || s.Served || !strings.Contains(s.Title, "not served") {
		t.Errorf("what is not served = %+v, %v", s, err)
	}
	if _, err := p.SetEnabled(t.Context(), "giggle", false, "compute.googleapis.com"); err != nil {
		t.Error(err)
	}
	if s, err := p.Service("giggle", "compute.googleapis.com"); err != nil || s.Enabled {
		t.Errorf("after it was disabled = %+v, %v", s, err)
	}
	for _, on := range []bool{true, false, true} { // a part is on and off with its API
		if _, err := p.SetEnabled(t.Context(), "giggle", on, "sqladmin.googleapis.com"); err != nil {
			t.Error(err)
		}
		if s, err := p.Service("giggle", "sql-component.googleapis.com"); err != nil || s.Enabled != on || !s.Served {
			t.Errorf("a part, its API enabled %v = %+v, %v", on, s, err)
		}
	}
	if _, err := p.SetEnabled(t.Context(), "giggle", false, "sql-component.googleapis.com"); err != nil {
		t.Error(err)
	}
	if s, err := p.Service("giggle", "sqladmin.googleapis.com"); err != nil || s.Enabled {
		t.Errorf("an API whose part is disabled = %+v, %v", s, err)
	}
}

// A project that is marked for deletion can't be used, and nothing of it is lost.
func TestDeleteAndUndelete(t *testing.T) {
	p := newProjects(t)
	x, err := p.Delete(t.Context(), "giggle")
	if err != nil || x.Active() || p.Active("giggle") || p.Active(x.Number) {
		t.Fatalf("Delete = %+v, %v", x, err)
	}
	err = p.CheckEnabled("giggle", "run.googleapis.com")
	if !fault.Is(err, fault.PermissionDenied) || fault.From(err).Reason != "CONSUMER_INVALID" {
		t.Errorf("a deleted project's API = %v", err)
	}
	if _, err := p.Delete(t.Context(), "giggle"); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("Delete once more = %v", err)
	}
	if y, err := p.Get("giggle"); err != nil || y.Deleted.IsZero() {
		t.Errorf("Get = %+v, %v", y, err)
	}
	if _, err := p.Undelete(t.Context(), x.Number); err != nil || !p.Active("giggle") {
		t.Errorf("Undelete = %v", err)
	}
	if err := p.CheckEnabled("giggle", "run.googleapis.com"); err != nil {
		t.Error(err)
	}
	if _, err := p.Undelete(t.Context(), "giggle"); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("Undelete of an active one = %v", err)
	}
	if _, err := p.Delete(t.Context(), "nowhere"); !fault.Is(err, fault.NotFound) {
		t.Errorf("Delete of none = %v", err)
	}
}

func newProjects(t *testing.T) *projects.Projects {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	p, err := projects.New(t.Context(), projects.Config{
		Store:   st,
		Now:     time.Now,
		Created: func(*store.Tx, string, string, string) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Create(t.Context(), projects.Project{ID: "giggle"}, "user:you@giggle.test"); err != nil {
		t.Fatal(err)
	}
	return p
}
