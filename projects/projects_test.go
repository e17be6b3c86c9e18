package projects_test

import (
	"path/filepath"
	"slices"
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
	x, err := p.Create(t.Context(), "giggle", "", nil, "user:you@giggle.test")
	if err != nil || len(x.Number) != 12 || len(made) != 1 {
		t.Fatalf("Create = %+v, %v, hook %v", x, err, made)
	}
	if _, err := p.Create(t.Context(), "giggle", "", nil, "user:you@giggle.test"); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("second Create = %v, want ALREADY_EXISTS", err)
	}
	if _, err := p.Create(t.Context(), "X", "", nil, "user:you@giggle.test"); !fault.Is(err, fault.InvalidArgument) {
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
		"teapot.googleapis.com"); !fault.Is(err, fault.NotFound) {
		t.Errorf("enabling what is not there = %v, want NOT_FOUND", err)
	}
	all, err := p.Services("giggle")
	if err != nil || !slices.ContainsFunc(all,
		func(s projects.Service) bool { return s.Name == "run.googleapis.com" && !s.Enabled }) {
		t.Errorf("Services = %v, %v; run must be there and still disabled", all, err)
	}
}
