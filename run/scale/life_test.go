package scale_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"giggle/fault"
	"giggle/gateway/upstream"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
)

// scalerWith is scaler with another configuration.
func scalerWith(t *testing.T, b *backend, change func(*scale.Config), test func(t *testing.T, s *scale.Scaler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := scale.Config{
			Backend:  b,
			Max:      10,
			Prepared: 2,
			Idle:     15 * time.Minute,
			Starts:   8,
			Probe:    upstream.Probe,
			Now:      time.Now,
			Log:      slog.New(slog.DiscardHandler),
		}
		change(&cfg)
		s := scale.New(cfg)
		test(t, s)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func publish(s *scale.Scaler, rev run.Revision, scaling run.Scaling) {
	s.Publish(run.Route{
		Service: rev.Name.Service,
		Scaling: scaling,
		Targets: []run.RouteTarget{{Revision: rev, Percent: 100}},
	})
}

func acquire(t *testing.T, s *scale.Scaler, rev run.Revision) *scale.Lease {
	t.Helper()
	l, err := s.Acquire(t.Context(), rev)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (b *backend) instance(id string) *instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.made[id]
}

// Between requests an instance has next to no CPU, and all of it again before the next request.
func TestThrottling(t *testing.T) {
	b := &backend{}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", nil)
		l := acquire(t, s, rev)
		i := b.instance(l.Instance)
		time.Sleep(time.Minute)
		if got := i.limit(); got != 0 {
			t.Errorf("%d m was set during a request, want nothing changed", got)
		}
		l.Release()
		time.Sleep(50 * time.Millisecond)
		again := acquire(t, s, rev)
		again.Release()
		if got := i.limit(); got != 0 {
			t.Errorf("throttled to %d m within throttleDelay", got)
		}
		time.Sleep(time.Second)
		if got := i.limit(); got != 10 {
			t.Errorf("idle, it has %d m, want 10", got)
		}
		l = acquire(t, s, rev)
		if got := i.limit(); got != 1000 {
			t.Errorf("with a request it has %d m, want 1000", got)
		}
		l.Release()
		time.Sleep(time.Second)
		s.Drop(rev.Name)
		synctest.Wait()
		if got := i.limit(); got != 1000 || len(i.grace) != 1 || i.grace[0] != 10*time.Second {
			t.Errorf("it shuts down with %d m in %v, want 1000 and 10 s", got, i.grace)
		}
	})
}

func TestNoThrottling(t *testing.T) {
	b := &backend{}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		l := acquire(t, s, revision("s-1", func(t *run.Template) { t.CPUAlways = true }))
		l.Release()
		time.Sleep(time.Minute)
		if got := b.instance(l.Instance).cpu; len(got) != 0 {
			t.Errorf("limits %v were set", got)
		}
	})
}

func TestStartupBoost(t *testing.T) {
	b := &backend{startup: 3 * time.Second}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		l := acquire(t, s, revision("s-1", func(t *run.Template) { t.StartupCPUBoost = true }))
		i := b.instance(l.Instance)
		l.Release()
		for _, step := range []struct {
			after time.Duration
			want  int64
		}{{0, 2000}, {9 * time.Second, 2000}, {1050 * time.Millisecond, 1000}, {time.Second, 10}} {
			time.Sleep(step.after)
			if got := i.limit(); got != step.want {
				t.Errorf("%v later it has %d m, want %d", step.after, got, step.want)
			}
		}
	})
}

// A start, the time with requests, however many at once, and the end are billed; or all the time.
func TestBilling(t *testing.T) {
	b := &backend{startup: 2 * time.Second}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		byRequest, always := revision("s-1", nil), revision("s-2", func(t *run.Template) { t.CPUAlways = true })
		for _, rev := range []run.Revision{byRequest, always} {
			one, two := acquire(t, s, rev), acquire(t, s, rev)
			time.Sleep(5 * time.Second)
			one.Release()
			time.Sleep(5 * time.Second)
			two.Release()
			time.Sleep(time.Minute)
		}
		st := s.Stats()
		if len(st) != 2 || st[0].Revision != byRequest.Name {
			t.Fatalf("%+v", st)
		}
		if got := st[0].Billable; got < 12*time.Second || got > 12*time.Second+300*time.Millisecond {
			t.Errorf("by request %v are billed, want 12 s", got)
		}
		if got := st[1].Billable; got < 71*time.Second || got > 73*time.Second {
			t.Errorf("always %v are billed, want 72 s", got)
		}
		if st[0].Ready != 1 || st[0].Idle != 1 || st[0].Starts != 1 || st[0].InFlight != 0 {
			t.Errorf("%+v", st[0])
		}
		s.Drop(byRequest.Name)
	})
}

// At the maximum, requests wait for 10 s or 3.5 starts, first come first served, and are then refused.
func TestQueueAtTheMaximum(t *testing.T) {
	for _, tt := range []struct{ startup, want time.Duration }{{time.Second, 10 * time.Second},
		{4 * time.Second, 14 * time.Second}} {
		b := &backend{startup: tt.startup}
		scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
			rev := revision("s-1", func(t *run.Template) { t.Concurrency, t.Scaling.Max = 1, 1 })
			busy := acquire(t, s, rev)
			begin := time.Now()
			if _, err := s.Acquire(t.Context(), rev); !fault.Is(err, fault.ResourceExhausted) ||
				fault.From(err).Message != "Rate exceeded." {
				t.Errorf("after the wait: %v", err)
			}
			if got := time.Since(begin); got < tt.want || got > tt.want+time.Second {
				t.Errorf("it waited %v, want %v", got, tt.want)
			}
			var order []int
			done := make(chan int)
			for k := range 3 {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					l, err := s.Acquire(ctx, rev)
					if err == nil {
						defer l.Release()
						done <- k
					} else if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
				}()
				synctest.Wait()
				if k == 1 {
					cancel() // a client that leaves leaves the queue
					synctest.Wait()
				}
				defer cancel()
			}
			if st := s.Stats()[0]; st.Queued != 2 || st.InFlight != 1 {
				t.Errorf("%+v, want 2 waiting", st)
			}
			busy.Release()
			order = append(order, <-done, <-done)
			if fmt.Sprint(order) != "[0 2]" {
				t.Errorf("served in the order %v", order)
			}
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	b := &backend{startup: time.Hour}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) { t.Scaling.Max = 1 })
		ctx, cancel := context.WithCancel(t.Context())
		for range 1000 {
			go func() { _, _ = s.Acquire(ctx, rev) }()
		}
		synctest.Wait()
		if _, err := s.Acquire(ctx, rev); !fault.Is(err, fault.ResourceExhausted) {
			t.Errorf("one more than the queue takes = %v", err)
		}
		cancel()
		synctest.Wait()
		if st := s.Stats()[0]; st.Queued != 0 {
			t.Errorf("%d wait after all have left", st.Queued)
		}
	})
}

// A request waits for a slow first start, however slow it is.
func TestASlowStartIsWaitedFor(t *testing.T) {
	b := &backend{startup: 100 * time.Second}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		acquire(t, s, revision("s-1", nil)).Release()
	})
}

// Apps that take long to start don't hold each other up, however few may start at once.
func TestSlowStartsGoTogether(t *testing.T) {
	b := &backend{startup: 30 * time.Second}
	scalerWith(t, b, func(c *scale.Config) { c.Starts = 1 }, func(t *testing.T, s *scale.Scaler) {
		begin := time.Now()
		done := make(chan struct{})
		for k := range 20 {
			go func() {
				if l, err := s.Acquire(t.Context(), revision(fmt.Sprint("s-", k), nil)); err != nil {
					t.Error(err)
				} else {
					l.Release()
				}
				done <- struct{}{}
			}()
		}
		for range 20 {
			<-done
		}
		if took := time.Since(begin); took > 40*time.Second {
			t.Errorf("20 starts of 30 s took %v", took)
		}
	})
}

// Windows decide beside the queue: a load that stays makes more instances than it fills, and one that goes gives them
// back after the idle time.
func TestWindows(t *testing.T) {
	b := &backend{}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) { t.Concurrency = 10 })
		publish(s, rev, run.Scaling{})
		var leases []*scale.Lease
		for range 38 {
			leases = append(leases, acquire(t, s, rev))
		}
		time.Sleep(2 * time.Minute)
		if n := s.Instances(); n.Ready != 6 { // 6.3 in each, where 66 percent of 10 are aimed at
			t.Errorf("%d instances for 38 requests, want 6", n.Ready)
		}
		for _, l := range leases[5:] {
			l.Release()
		}
		time.Sleep(14 * time.Minute)
		if n := s.Instances(); n.Ready != 4 { // two never had a request
			t.Errorf("%d instances within the idle time, want 4", n.Ready)
		}
		time.Sleep(2 * time.Minute)
		if n := s.Instances(); n.Ready != 1 {
			t.Errorf("%d instances after it, want 1", n.Ready)
		}
		for _, l := range leases[:5] {
			l.Release()
		}
		time.Sleep(16 * time.Minute)
		if n := s.Instances(); n.Ready != 0 || n.Prepared != 1 {
			t.Errorf("%d instances and %d prepared without requests, want 0 and 1", n.Ready, n.Prepared)
		}
	})
}

// CPU above 60 % over a minute makes another instance.
func TestCPUScales(t *testing.T) {
	b := &backend{}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", nil)
		publish(s, rev, run.Scaling{})
		l := acquire(t, s, rev)
		defer l.Release()
		i := b.instance(l.Instance)
		for range 180 {
			time.Sleep(time.Second)
			i.mu.Lock()
			i.usage.CPU += 900 * time.Millisecond
			i.mu.Unlock()
		}
		if n := s.Instances(); n.Ready != 2 {
			t.Errorf("%d instances with one at 90 %%, want 2", n.Ready)
		}
	})
}

// The bounds of a service hold over its revisions, by their percents.
func TestServiceScaling(t *testing.T) {
	b := &backend{}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		one, two, tagged := revision("s-1", nil), revision("s-2",
			func(t *run.Template) { t.Concurrency = 1 }), revision("s-3", func(t *run.Template) { t.Scaling.Min = 1 })
		s.Publish(run.Route{
			Service: one.Name.Service,
			Scaling: run.Scaling{Min: 4, Max: 6},
			Tags:    map[string]run.Revision{"next": tagged},
			Targets: []run.RouteTarget{{Revision: one, Percent: 70}, {Revision: two, Percent: 30}},
		})
		time.Sleep(time.Minute)
		got := map[string][3]int{}
		for _, st := range s.Stats() {
			got[st.Revision.ID] = [3]int{st.Ready, st.Min, st.Max}
		}
		want := map[string][3]int{"s-1": {3, 3, 4}, "s-2": {1, 1, 2}, "s-3": {1, 1, 6}}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("ready, least and most are %v, want %v", got, want)
		}
		for range 2 {
			defer acquire(t, s, two).Release()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Acquire(ctx, two); err == nil {
			t.Error("a third instance at a share of 2")
		}
		s.Remove(one.Name.Service)
		time.Sleep(5 * time.Second)
		if n := s.Instances(); n.Ready != 2 { // those with requests
			t.Errorf("%d instances without a route, want 2", n.Ready)
		}
	})
}

// Those that had a request last stay prepared.
func TestPreparedByLastRequest(t *testing.T) {
	b := &backend{}
	scalerWith(t, b, func(c *scale.Config) { c.Idle = time.Second }, func(t *testing.T, s *scale.Scaler) {
		var revs []run.Revision
		for k := range 5 {
			rev := revision(fmt.Sprint("s-", k), nil)
			rev.Name.Service = resource.Service("p", "europe-north1", fmt.Sprint("s", k))
			revs = append(revs, rev)
			publish(s, rev, run.Scaling{})
			time.Sleep(time.Second)
		}
		prepared := func() (out string) {
			for _, st := range s.Stats() {
				if st.Prepared > 0 {
					out += st.Revision.ID + " "
				}
			}
			return out
		}
		if got := prepared(); got != "s-3 s-4 " {
			t.Errorf("prepared at first: %s", got)
		}
		for _, k := range []int{3, 1, 0} {
			acquire(t, s, revs[k]).Release()
			time.Sleep(5 * time.Second)
		}
		if got := prepared(); got != "s-0 s-1 " {
			t.Errorf("prepared after requests to 3, 1 and 0: %s", got)
		}
		s.Drop(revs[0].Name)
		time.Sleep(5 * time.Second)
		if got := prepared(); got != "s-1 s-3 " {
			t.Errorf("prepared after the last one went: %s", got)
		}
	})
}

// While there are requests, what is prepared for later comes slowly: it takes CPU that they would wait for.
func TestPreparingYieldsToRequests(t *testing.T) {
	for _, loaded := range []bool{false, true} {
		b := &backend{preparation: 10 * time.Millisecond}
		scalerWith(t, b, func(c *scale.Config) { c.Prepared = 50 }, func(t *testing.T, s *scale.Scaler) {
			busy := revision("busy-1", nil)
			publish(s, busy, run.Scaling{})
			lease := acquire(t, s, busy)
			if !loaded {
				lease.Release()
			}
			time.Sleep(time.Second)
			for k := range 40 {
				rev := revision(fmt.Sprint("s-", k), nil)
				rev.Name.Service = resource.Service("p", "europe-north1", fmt.Sprint("s", k))
				publish(s, rev, run.Scaling{})
			}
			time.Sleep(300 * time.Millisecond)
			n := 0
			for _, st := range s.Stats() {
				n += st.Prepared
			}
			if loaded {
				lease.Release()
			}
			if want := map[bool]int{false: 40, true: 4}[loaded]; n != want {
				t.Errorf("loaded %t: %d are prepared after 0.3 s, want %d", loaded, n, want)
			}
		})
	}
}

func TestMemoryBudget(t *testing.T) {
	b := &backend{usage: scale.Usage{Memory: 100 << 20}}
	scalerWith(t, b, func(c *scale.Config) { c.Memory = 250 << 20 }, func(t *testing.T, s *scale.Scaler) {
		one, two, three := revision("s-1", nil), revision("s-2", nil), revision("s-3", nil)
		acquire(t, s, one).Release()
		time.Sleep(5 * time.Second)
		busy := acquire(t, s, two)
		time.Sleep(5 * time.Second)
		other := acquire(t, s, one) // idle until now
		time.Sleep(5 * time.Second)
		// 200 of 250 are in use and nothing is idle; a new revision is taken to need 16.
		third := acquire(t, s, three)
		time.Sleep(5 * time.Second)
		_, err := s.Acquire(t.Context(), revision("s-4", nil))
		if !fault.Is(err, fault.ResourceExhausted) || !strings.Contains(fault.From(err).Message, "--memory-budget") {
			t.Errorf("beyond the budget: %v", err)
		}
		third.Release()
		time.Sleep(time.Second)
		acquire(t, s, revision("s-4", nil)).Release() // the idle one made room
		if st := s.Stats(); len(st) < 3 || st[2].Ready != 0 {
			t.Errorf("%+v: the idle instance of s-3 is still there", st)
		}
		busy.Release()
		other.Release()
		time.Sleep(time.Minute) // memory is short: what is idle goes early
		if n := s.Instances(); n.Ready > 2 || n.Prepared != 0 {
			t.Errorf("%d ready and %d prepared while memory is short", n.Ready, n.Prepared)
		}
	})
}

// A revision that keeps crashing is started more and more rarely, for its minimum as for requests.
func TestCrashLoop(t *testing.T) {
	b := &backend{broken: "exit code 1"}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) { t.Scaling.Min = 1 })
		publish(s, rev, run.Scaling{})
		time.Sleep(10 * time.Minute)
		st := s.Stats()[0]
		if st.Starts < 8 || st.Starts > 12 || st.Failures != st.Starts {
			t.Errorf("%d starts in 10 minutes, %d failed", st.Starts, st.Failures)
		}
		before := st.Starts
		for range 1000 {
			if _, err := s.Acquire(t.Context(), rev); err == nil {
				t.Fatal("a crashing revision serves")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if st = s.Stats()[0]; st.Starts-before > 3 {
			t.Errorf("1000 requests in 10 s made %d starts", st.Starts-before)
		}
		said := false
		for _, i := range b.made {
			said = said || strings.Contains(i.log(), "instances in a row failed")
		}
		if !said {
			t.Error("nothing in the log says so")
		}
	})
}

// app serves HTTP on each connection to an instance.
func app(h func(i *instance, w http.ResponseWriter, r *http.Request)) func(*instance, net.Conn) {
	return func(i *instance, c net.Conn) {
		s := http.Server{
			Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(i, w, r) }),
			Protocols: new(http.Protocols),
		}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		_ = s.Serve(&once{conn: c})
	}
}

// once is a listener with one connection.
type once struct{ conn net.Conn }

func (o *once) Accept() (net.Conn, error) {
	if o.conn == nil {
		return nil, io.EOF
	}
	c := o.conn
	o.conn = nil
	return c, nil
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

func TestStartupProbeByHTTP(t *testing.T) {
	var asked atomic.Int32
	b := &backend{startup: 3 * time.Second, app: app(func(i *instance, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/up" || r.Header.Get("X-Probe") != "yes" || r.Host != "probe.example" {
			t.Errorf("asked %s %s %v", r.Host, r.URL, r.Header)
		}
		if asked.Add(1) < 3 {
			w.WriteHeader(503)
		}
	})}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) {
			t.Containers[0].Startup = &run.Probe{
				HTTPPath:    "/up",
				HTTPHeaders: []run.Header{{Name: "X-Probe", Value: "yes"}, {Name: "host", Value: "probe.example"}},
				Period:      5,
			}
		})
		begin := time.Now()
		l := acquire(t, s, rev)
		defer l.Release()
		if got := time.Since(begin); got < 13*time.Second || got > 14*time.Second || asked.Load() != 3 {
			t.Errorf("ready after %v and %d requests, want 13 s and 3", got, asked.Load())
		}
		synctest.Wait()
		if got := b.instance(l.Instance).log(); got != `STARTUP HTTP probe succeeded after 3 attempts for container "s-1" on port 8080 path "/up".` {
			t.Errorf("log: %s", got)
		}
	})
}

func TestStartupProbeFails(t *testing.T) {
	b := &backend{app: app(func(_ *instance, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) {
			t.Containers[0].Startup = &run.Probe{HTTPPath: "/up", Period: 5, FailureThreshold: 2, InitialDelay: 7}
		})
		begin := time.Now()
		if _, err := s.Acquire(t.Context(), rev); !fault.Is(err, fault.FailedPrecondition) {
			t.Errorf("Acquire = %v", err)
		}
		if got := time.Since(begin); got != 17*time.Second {
			t.Errorf("it failed after %v, want 17 s", got)
		}
		if got := b.instance("i1").log(); !strings.Contains(got,
			`STARTUP HTTP probe failed 2 times consecutively for container "s-1" on port 8080 path "/up". The instance was not started.`) {
			t.Errorf("log: %s", got)
		}
	})
}

// A probe that its owner configured is named where it fails, with what it got: whoever reads that did set the port.
func TestConfiguredStartupProbeSaysWhatItGot(t *testing.T) {
	status := func(code int) func(*instance, net.Conn) {
		return app(func(_ *instance, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	silent := func(_ *instance, c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for name, tt := range map[string]struct {
		b     *backend
		probe run.Probe
		want  []string
	}{
		"HTTP 503": {&backend{app: status(503)}, run.Probe{HTTPPath: "/up", FailureThreshold: 2}, []string{
			`HTTP on port 8080 path "/up", 2 times, every 10 s`, "Got: HTTP status 503."}},
		"HTTP 404": {&backend{app: status(404)}, run.Probe{HTTPPath: "/x", Period: 1, FailureThreshold: 1}, []string{
			`path "/x", 1 time, every 1 s`, "Got: HTTP status 404."}},
		"HTTP on another port": {&backend{app: status(500)}, run.Probe{HTTPPath: "/", HTTPPort: 9000}, []string{
			"HTTP on port 9000", "Got: HTTP status 500."}},
		"HTTP that doesn't answer": {&backend{app: silent}, run.Probe{HTTPPath: "/", Timeout: 3}, []string{
			"Got: no answer within 3 s."}},
		"TCP": {&backend{startup: time.Hour}, run.Probe{TCPPort: 9999, Period: 2, FailureThreshold: 3}, []string{
			"TCP on port 9999, 3 times, every 2 s", "refused, as nothing listens there"}},
		"HTTP where nothing listens": {&backend{startup: time.Hour}, run.Probe{HTTPPath: "/", HTTPPort: 9999}, []string{
			"HTTP on port 9999", "nothing listens there"}},
		"gRPC where HTTP is": {&backend{app: status(404)}, run.Probe{GRPC: true}, []string{"GRPC on port 8080", "Got: "}},
		"gRPC of a service": {&backend{startup: time.Hour}, run.Probe{GRPC: true, GRPCService: "a.B"}, []string{
			`GRPC on port 8080 service "a.B"`, "nothing listens there"}},
	} {
		t.Run(name, func(t *testing.T) {
			scalerWith(t, tt.b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
				err := s.EnsureInstance(t.Context(), revision("s-1", func(t *run.Template) {
					t.Containers[0].Startup = &tt.probe
				}))
				got := fault.From(err).Message
				for _, want := range append(tt.want, "failed the configured startup probe checks") {
					if !strings.Contains(got, want) {
						t.Errorf("%q\nhas no %q", got, want)
					}
				}
				if strings.Contains(got, "PORT") || !fault.Is(err, fault.FailedPrecondition) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// An instance that fails its liveness probe is shut down at once and replaced.
func TestLiveness(t *testing.T) {
	var sick atomic.Value
	sick.Store("")
	b := &backend{app: app(func(i *instance, w http.ResponseWriter, r *http.Request) {
		if i.limit() == 10 {
			t.Error("a probe found the instance throttled")
		}
		if sick.Load() == i.id {
			w.WriteHeader(500)
		}
	})}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) {
			t.Scaling.Min = 1
			t.Containers[0].Liveness = &run.Probe{HTTPPath: "/alive", InitialDelay: 5, Period: 2, FailureThreshold: 3}
		})
		publish(s, rev, run.Scaling{})
		time.Sleep(time.Minute)
		l := acquire(t, s, rev)
		l.Release()
		first := b.instance(l.Instance)
		sick.Store(first.id)
		time.Sleep(20 * time.Second)
		if got := first.log(); !strings.Contains(got,
			`LIVENESS HTTP probe failed 3 times consecutively for container "s-1" on port 8080 path "/alive". The instance has been shut down.`) {
			t.Errorf("log: %s", got)
		}
		if len(first.grace) != 1 || first.grace[0] != 0 {
			t.Errorf("it was stopped with %v, want once and at once", first.grace)
		}
		if l = acquire(t, s, rev); l.Instance == first.id || l.Cold {
			t.Errorf("the next request goes to %s, cold = %v", l.Instance, l.Cold)
		}
		l.Release()
	})
}

// An instance that fails its readiness probe gets no new requests until it succeeds again.
func TestReadiness(t *testing.T) {
	var status atomic.Int32 // of HealthCheckResponse
	status.Store(1)
	b := &backend{app: app(func(_ *instance, w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.ProtoMajor != 2 || r.URL.Path != "/grpc.health.v1.Health/Check" ||
			string(body) != "\x00\x00\x00\x00\x07\x0a\x05jokes" {
			t.Errorf("asked %s %s with %q", r.Proto, r.URL, body)
		}
		w.Header().Set("Content-Type", "application/grpc")
		_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, byte(status.Load())})
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})}
	scalerWith(t, b, func(*scale.Config) {}, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(t *run.Template) {
			t.Scaling.Max = 1
			t.Containers[0].Readiness = &run.Probe{GRPC: true, GRPCService: "jokes", Period: 1}
		})
		busy := acquire(t, s, rev)
		defer busy.Release()
		status.Store(2) // NOT_SERVING
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := s.Acquire(ctx, rev); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an instance that is not ready: %v", err)
		}
		status.Store(1)
		l := acquire(t, s, rev)
		l.Release()
		if l.Instance != busy.Instance {
			t.Error("another instance took the request at a maximum of 1")
		}
		synctest.Wait()
		if got := b.instance(l.Instance).log(); !strings.Contains(got, "READINESS GRPC probe failed 3 times") ||
			!strings.Contains(got, "READINESS GRPC probe succeeded after 2 attempts") {
			t.Errorf("log: %s", got)
		}
	})
}
