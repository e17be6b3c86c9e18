package run_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/run"
	"giggle/store"
)

const who = "you@giggle.test"

// world is a run.Services with its reconciler over a real store; images, containers and routes are fakes.
type world struct {
	*run.Services
	cfg   run.Config
	store *store.Store
	stop  func()

	mu      sync.Mutex
	routes  map[string]run.Route
	dropped map[string]bool
	broken  map[string]string // image → why it does not start
	hold    chan struct{}     // closed: EnsureInstance may go on
	changed chan struct{}     // closed and replaced when a route or a drop comes in
}

// until waits for a condition on what the fakes were told.
func (w *world) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		w.mu.Lock()
		good, changed := ok(), w.changed
		w.mu.Unlock()
		if good {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s did not happen", what)
		}
	}
}

// told runs a change of what the fakes were told.
func (w *world) told(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	id := func() string { n++; return fmt.Sprintf("id-%d", n) }
	w := &world{
		cfg: run.Config{
			Store:   st,
			NewID:   id,
			Letters: func(k int) string { n++; return strings.Repeat(string(rune('a'+n%26)), k) },

			DefaultAccount: computeAccount,
		},
		store:   st,
		routes:  map[string]run.Route{},
		dropped: map[string]bool{},
		broken:  map[string]string{},
		hold:    make(chan struct{}),
		changed: make(chan struct{}),
	}
	close(w.hold)
	w.Services = run.NewServices(w.cfg)
	w.start(t)
	t.Cleanup(func() { w.stop(); _ = st.Close() })
	return w
}

// computeAccount is the default service account of every project.
func computeAccount(string) (string, error) {
	return "123456789012-compute@developer.gserviceaccount.com", nil
}

// restart has the platform start again with another configuration.
func (w *world) restart(t *testing.T, change func(*run.Config)) {
	t.Helper()
	w.stop()
	change(&w.cfg)
	w.Services = run.NewServices(w.cfg)
	w.start(t)
}

func (w *world) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := run.NewReconciler(run.ReconcilerConfig{
		Services:  w.Services,
		Images:    w,
		Instances: w,
		Routes:    w,
		Log:       slog.New(slog.DiscardHandler),
		Project: func(id string) (resource.Project, error) {
			return resource.Project{ID: id, Number: "123456789012"}, nil
		},
	})
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.stop = func() {}
	}
}

func (w *world) Resolve(_ context.Context, _, ref string) (string, error) {
	if strings.Contains(ref, "missing") {
		e := fault.New(fault.NotFound, "Image '%s' not found.", ref)
		e.Reason = "ContainerMissing"
		return "", e
	}
	return ref + "@sha256:" + strings.Repeat("0", 64), nil
}

func (w *world) EnsureInstance(ctx context.Context, rev run.Revision) error {
	w.mu.Lock()
	hold, why := w.hold, w.broken[rev.Template.Containers[0].Image]
	w.mu.Unlock()
	select {
	case <-hold:
	case <-ctx.Done():
		return ctx.Err()
	}
	if why != "" {
		return fault.New(fault.FailedPrecondition, "%s", why)
	}
	return nil
}

func (w *world) Drop(n resource.Revision) { w.told(func() { w.dropped[n.ID] = true }) }
func (w *world) Publish(r run.Route)      { w.told(func() { w.routes[r.Service.ID] = r }) }
func (w *world) Remove(n resource.Child)  { w.told(func() { delete(w.routes, n.ID) }) }

// route, with w.mu held, prints a service's route as "revision:percent", tags as "tag=revision".
func (w *world) route(id string) string {
	r, ok := w.routes[id]
	if !ok {
		return "none"
	}
	var out []string
	for _, t := range r.Targets {
		out = append(out, fmt.Sprintf("%s:%d", short(t.Name.ID), t.Percent))
	}
	for tag, rev := range r.Tags {
		out = append(out, tag+"="+short(rev.Name.ID))
	}
	return strings.Join(out, " ")
}

// short is "jokes-00002" for "jokes-00002-abc".
func short(revision string) string {
	if i := strings.LastIndex(revision, "-0"); i > 0 {
		return revision[i+1 : i+6]
	}
	return revision
}

func jokes(image string, traffic ...run.Target) run.Service {
	return run.Service{
		Name:     resource.Service("giggle", "europe-north1", "jokes"),
		Template: run.Template{Containers: []run.Container{{Image: image}}}, Traffic: traffic,
	}
}

// settled returns the service once its last change has ended, or as it is after a minute.
func settled(t *testing.T, s *run.Services, name resource.Child) run.Service {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, cursor, err := s.List(ctx, name.Location, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	next, stop := s.Events(ctx, name.Location, cursor)
	defer stop()
	for {
		svc, err := s.Get(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if svc.Settled() {
			return svc
		}
		if _, err := next(); err != nil {
			return svc
		}
	}
}

func (w *world) settle(t *testing.T, svc run.Service, err error) run.Service {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if svc = settled(t, w.Services, svc.Name); !svc.Settled() {
		t.Fatalf("did not settle: %+v", svc.Status)
	}
	op, err := operation.New(w.store).Get(t.Context(), run.OperationKind, svc.Status.Operation)
	if err != nil || !op.Done {
		t.Errorf("the operation of a settled service: %+v, %v", op, err)
	}
	return svc
}

// wantRoute holds that a settled service has the route: requests go where its status says from the moment that it says
// so.
func (w *world) wantRoute(t *testing.T, want string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.route("jokes"); got != want {
		t.Errorf("the route is %s, want %s", got, want)
	}
}

func TestDeployAndBadImageKeepsOldRevision(t *testing.T) {
	w := newWorld(t)
	w.broken["img:crash"] = "it crashed"
	svc, err := w.Create(t.Context(), jokes("img:1"), who)
	if svc = w.settle(t, svc, err); svc.Ready().State != run.True || svc.Status.LatestReady == "" ||
		svc.Creator != who {
		t.Fatalf("first deploy: %+v", svc)
	}
	w.wantRoute(t, "00001:100")
	for image, reason := range map[string]string{"img:missing": "ContainerMissing",
		"img:crash": "HealthCheckContainerError"} {
		svc, err = w.Replace(t.Context(), jokes(image), who)
		if err == nil && svc.Ready().State == run.True && svc.Settled() {
			t.Error("a new generation is Ready before anything was done")
		}
		svc = w.settle(t, svc, err)
		if r := svc.Ready(); r.State != run.False || r.Reason != reason ||
			!strings.Contains(r.Message, svc.Status.LatestCreated) {
			t.Errorf("%s: Ready = %+v, want False for %s", image, r, reason)
		}
		w.wantRoute(t, "00001:100")
	}
	svc, err = w.Replace(t.Context(), jokes("img:2"), who)
	w.settle(t, svc, err)
	w.wantRoute(t, "00004:100")
	images, err := w.Images(t.Context())
	slices.Sort(images)
	at := "@sha256:" + strings.Repeat("0", 64)
	if err != nil || !slices.Equal(images, []string{"img:1" + at, "img:2" + at, "img:crash" + at}) {
		t.Errorf("images of revisions: %v, %v; want those that were resolved", images, err)
	}
}

func TestTrafficOnlyChangeMakesNoRevision(t *testing.T) {
	w := newWorld(t)
	svc, err := w.Create(t.Context(), jokes("img:1"), who)
	first := w.settle(t, svc, err).Status.LatestReady
	svc, err = w.Replace(t.Context(),
		jokes("img:2", run.Target{Revision: first, Percent: 100}, run.Target{Latest: true, Tag: "next"}), who)
	svc = w.settle(t, svc, err)
	second := svc.Status.LatestReady
	w.wantRoute(t, "00001:100 next=00002")
	if tr := svc.Status.Traffic; tr[0].Tag != "next" || !strings.HasPrefix(tr[0].URL, "https://next---jokes-") {
		t.Errorf("traffic = %+v, want the tagged entry first, with its URL", tr)
	}
	svc, err = w.Replace(t.Context(),
		jokes("img:2", run.Target{Revision: first, Percent: 90}, run.Target{Revision: second, Percent: 10}), who)
	if svc = w.settle(t, svc, err); svc.Status.LatestCreated != second {
		t.Errorf("a change of traffic made revision %s", svc.Status.LatestCreated)
	}
	w.wantRoute(t, "00001:90 00002:10")
	svc, err = w.Replace(t.Context(), jokes("img:2", run.Target{Revision: "jokes-09999-xyz", Percent: 100}), who)
	if svc = w.settle(t, svc, err); svc.Ready().Reason != "RevisionMissing" {
		t.Errorf("traffic to nowhere: %+v", svc.Ready())
	}
	w.wantRoute(t, "00001:90 00002:10")
	if _, err := w.DeleteRevision(t.Context(), resource.Revision{Service: svc.Name, ID: first}); !fault.Is(err,
		fault.FailedPrecondition) {
		t.Errorf("deleting a revision with traffic = %v", err)
	}
}

func TestLocksAndNames(t *testing.T) {
	w := newWorld(t)
	svc, err := w.Create(t.Context(), jokes("img:1"), who)
	svc = w.settle(t, svc, err) // status writes must not move Version
	if svc.Version != 1 {
		t.Errorf("version = %d after the deploy, want 1", svc.Version)
	}
	tagged := jokes("img:1")
	tagged.Name = resource.Service("giggle", "europe-north1", "next---jokes") // the host of a tag
	if _, err := w.Create(t.Context(), tagged, who); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("a name with the mark of tags: %v", err)
	}
	if _, err := w.Create(t.Context(), jokes("img:1"), who); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("second create = %v", err)
	}
	named := jokes("img:2")
	named.Template.Revision, named.Version = "jokes-green", svc.Version
	svc, err = w.Replace(t.Context(), named, who)
	if svc = w.settle(t, svc, err); svc.Status.LatestReady != "jokes-green" {
		t.Errorf("latest = %s, want the name that the client chose", svc.Status.LatestReady)
	}
	if _, err := w.Replace(t.Context(), named, who); !fault.Is(err, fault.Aborted) {
		t.Errorf("replace with an old version = %v, want ABORTED", err)
	}
	// gcloud's own once more is a retry of what was answered to nobody; another change and another caller are not.
	named.Version, named.Template.Revision = svc.Version, ""
	named.Template.Labels = map[string]string{"client.knative.dev/nonce": "abcdefghij"}
	svc, err = w.Replace(t.Context(), named, who)
	svc = w.settle(t, svc, err)
	if again, err := w.Replace(t.Context(), named, who); err != nil || again.Version != svc.Version ||
		again.Generation != svc.Generation {
		t.Errorf("the same replace once more = version %d, %v, want %d", again.Version, err, svc.Version)
	}
	if _, err := w.Replace(t.Context(), named, "another@giggle.test"); !fault.Is(err, fault.Aborted) {
		t.Errorf("another's replace with an old version = %v, want ABORTED", err)
	}
	other := named
	other.Template.Concurrency = 7
	if _, err := w.Replace(t.Context(), other, who); !fault.Is(err, fault.Aborted) {
		t.Errorf("replace with an old version = %v, want ABORTED", err)
	}
	named.Version, named.Template.Revision, named.Template.Containers[0].Image = 0, "jokes-green", "img:3"
	if _, err := w.Replace(t.Context(), named, who); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("another template under a taken revision name = %v", err)
	}
}

func TestRestartInTheMiddleOfADeploy(t *testing.T) {
	w := newWorld(t)
	w.mu.Lock()
	w.hold = make(chan struct{})
	w.mu.Unlock()
	svc, err := w.Create(t.Context(), jokes("img:1"), who)
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	close(w.hold)
	w.start(t)
	w.settle(t, svc, nil)
	w.wantRoute(t, "00001:100")
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	svc, err := w.Create(t.Context(), jokes("img:1"), who)
	rev := w.settle(t, svc, err).Status.LatestReady
	w.wantRoute(t, "00001:100")
	if _, err := w.Delete(t.Context(), svc.Name, 0); err != nil {
		t.Fatal(err)
	}
	w.until(t, "the end of the route", func() bool { return w.route("jokes") == "none" })
	next, stop := w.RevisionEvents(t.Context(), svc.Name.Location, 0)
	defer stop()
	for {
		revs, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if len(revs) == 1 && revs[0].Deleted {
			break
		}
	}
	w.until(t, "dropping the revision's instances", func() bool { return w.dropped[rev] })
}

func TestValidate(t *testing.T) {
	with := func(change func(*run.Service)) run.Service {
		s := jokes("img:1")
		change(&s)
		return s
	}
	c := func(change func(*run.Container)) run.Service {
		return with(func(s *run.Service) { change(&s.Template.Containers[0]) })
	}
	for name, tt := range map[string]struct {
		svc  run.Service
		path string // "" means valid
	}{
		"fine":     {jokes("img:1"), ""},
		"name":     {with(func(s *run.Service) { s.Name.ID = "Jokes" }), "name"},
		"no image": {jokes(""), "template.containers[0].image"},
		"reserved": {c(func(c *run.Container) {
			c.Env = []run.EnvVar{{
				Name:  "PORT",
				Value: "1",
			}}
		}), "template.containers[0].env[0].name"},
		"little memory":    {c(func(c *run.Container) { c.Memory = "1Mi" }), "template.containers[0].memory"},
		"memory nonsense":  {c(func(c *run.Container) { c.Memory = "lots" }), "template.containers[0].memory"},
		"memory needs cpu": {c(func(c *run.Container) { c.Memory = "8Gi" }), "template.containers[0].memory"},
		"odd cpu":          {c(func(c *run.Container) { c.CPU = "3" }), "template.containers[0].cpu"},
		"big":              {c(func(c *run.Container) { c.CPU, c.Memory = "8", "32Gi" }), ""},
		"concurrency":      {with(func(s *run.Service) { s.Template.Concurrency = 1001 }), "template.concurrency"},
		"timeout":          {with(func(s *run.Service) { s.Template.Timeout = 3601 }), "template.timeout"},
		"sum": {with(func(s *run.Service) {
			s.Traffic = []run.Target{{
				Latest:  true,
				Percent: 90,
			}}
		}), "traffic"},
		"tag twice": {with(func(s *run.Service) {
			s.Traffic = []run.Target{{Latest: true, Percent: 100, Tag: "a"}, {Revision: "jokes-1", Tag: "a"}}
		}), "traffic[1].tag"},
		"probes": {c(func(c *run.Container) {
			c.Startup = &run.Probe{
				HTTPPath:         "/up",
				HTTPHeaders:      []run.Header{{Name: "X-Probe", Value: "yes"}},
				Period:           5,
				Timeout:          5,
				FailureThreshold: 48,
			}
			c.Liveness = &run.Probe{HTTPPath: "/alive", InitialDelay: 3600, Period: 3600, Timeout: 60}
			c.Readiness = &run.Probe{GRPC: true, GRPCService: "jokes", SuccessThreshold: 2}
		}), ""},
		"startup for too long": {c(func(c *run.Container) { c.Startup = &run.Probe{Period: 120} }), "template.containers[0].startup.failureThreshold"},
		"startup delay":        {c(func(c *run.Container) { c.Startup = &run.Probe{InitialDelay: 241} }), "template.containers[0].startup.initialDelay"},
		"timeout above period": {c(func(c *run.Container) { c.Liveness = &run.Probe{HTTPPath: "/", Timeout: 11} }), "template.containers[0].liveness.timeout"},
		"liveness by TCP":      {c(func(c *run.Container) { c.Liveness = &run.Probe{} }), "template.containers[0].liveness.tcp"},
		"liveness twice":       {c(func(c *run.Container) { c.Liveness = &run.Probe{GRPC: true, SuccessThreshold: 2} }), "template.containers[0].liveness.successThreshold"},
		"readiness delay":      {c(func(c *run.Container) { c.Readiness = &run.Probe{GRPC: true, InitialDelay: 1} }), "template.containers[0].readiness.initialDelay"},
		"readiness period":     {c(func(c *run.Container) { c.Readiness = &run.Probe{GRPC: true, Period: 301} }), "template.containers[0].readiness.period"},
		"probe port":           {c(func(c *run.Container) { c.Startup = &run.Probe{TCPPort: 70000} }), "template.containers[0].startup.tcp.port"},
		"probe path":           {c(func(c *run.Container) { c.Liveness = &run.Probe{HTTPPath: "up"} }), "template.containers[0].liveness.http.path"},
		"probe header": {c(func(c *run.Container) {
			c.Liveness = &run.Probe{HTTPPath: "/", HTTPHeaders: []run.Header{{Name: "A", Value: "b\r\nC: d"}}}
		}), "template.containers[0].liveness.http.headers"},
		"half a core":              {c(func(c *run.Container) { c.CPU = "500m" }), ""},
		"half a core, always":      {with(func(s *run.Service) { s.Template.CPUAlways, s.Template.Containers[0].CPU = true, "0.5" }), "template.containers[0].cpu"},
		"half a core, two at once": {with(func(s *run.Service) { s.Template.Concurrency, s.Template.Containers[0].CPU = 2, "0.5" }), "template.containers[0].cpu"},
		"little memory, always":    {with(func(s *run.Service) { s.Template.CPUAlways, s.Template.Containers[0].Memory = true, "256Mi" }), "template.containers[0].memory"},
		"service scaling":          {with(func(s *run.Service) { s.Scaling = run.Scaling{Min: 2, Max: 5} }), ""},
		"service minimum":          {with(func(s *run.Service) { s.Scaling = run.Scaling{Min: 6, Max: 5} }), "scaling.min"},
		"service maximum":          {with(func(s *run.Service) { s.Scaling = run.Scaling{Max: 1001} }), "scaling.max"},
		"foreign revision name":    {with(func(s *run.Service) { s.Template.Revision = "other-1" }), "template.revision"},
		"labels": {with(func(s *run.Service) {
			s.Labels = map[string]string{"a": strings.Repeat("b",
				64)}
		}), "labels"},
		"a revision's labels": {with(func(s *run.Service) { s.Template.Labels = map[string]string{"a": strings.Repeat("b", 64)} }), "template.labels"},
	} {
		err := tt.svc.Validate()
		var path string
		if err != nil {
			if f := fault.From(err).Fields; len(f) == 1 {
				path = f[0].Path
			}
		}
		if path != tt.path || (err != nil) != (tt.path != "") {
			t.Errorf("%s: %v at %q, want %q", name, err, path, tt.path)
		}
		if path != "" && !slices.Contains(run.Fields(),
			fault.Path(regexp.MustCompile(`\[\d+\]`).ReplaceAllString(path, "[]"))) {
			t.Errorf("%s: %q is not among Fields", name, path)
		}
	}
}

func TestQuantities(t *testing.T) {
	for s, want := range map[string]int64{"512Mi": 512 << 20, "1Gi": 1 << 30, "0.5Gi": 512 << 20, "1000000": 1_000_000,
		"1M": 1_000_000, "": 0} {
		if got, err := run.Bytes(s); err != nil || got != want {
			t.Errorf("Bytes(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for s, want := range map[string]int64{"1": 1000, "500m": 500, "0.08": 80, "2": 2000} {
		if got, err := run.MilliCPU(s); err != nil || got != want {
			t.Errorf("MilliCPU(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"-1", "1e3", "Mi", "1..2", "99999999999999999999Ti", "1 Gi"} {
		if n, err := run.Bytes(s); err == nil {
			t.Errorf("Bytes(%q) = %d", s, n)
		}
	}
}

func FuzzQuantity(f *testing.F) {
	f.Add("512Mi")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := run.Bytes(s); err == nil && n < 0 {
			t.Errorf("Bytes(%q) = %d", s, n)
		}
	})
}
