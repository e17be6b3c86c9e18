package scale_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
)

// backend makes instances that are goroutines: a connection to one is a pipe.
type backend struct {
	mu                                  sync.Mutex
	prepared, started, stopped, highest int
	broken                              string
	preparation                         time.Duration // what Prepare takes
	startup                             time.Duration // from Start to the port being open
	made                                map[string]*instance
	app                                 func(i *instance, conn net.Conn) // behind the port; nil hangs up
	usage                               scale.Usage                      // of each instance
	both                                []string                         // GPUs that two instances had at once
}

type instance struct {
	b    *backend
	id   string
	done chan struct{}
	once sync.Once
	open atomic.Bool

	mu    sync.Mutex
	cpu   []int64 // limits that were set, in order
	said  []string
	usage scale.Usage
	oom   bool
	grace []time.Duration
	gpu   string
}

func (i *instance) OOM() bool { return i.oom }

func (i *instance) SetCPU(m int64) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cpu = append(i.cpu, m)
	return nil
}

// limit is the CPU limit now, 0 before one was set.
func (i *instance) limit() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.cpu) == 0 {
		return 0
	}
	return i.cpu[len(i.cpu)-1]
}

func (i *instance) Say(text string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.said = append(i.said, text)
}

func (i *instance) log() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return strings.Join(i.said, "\n")
}

func (i *instance) Usage() (scale.Usage, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.usage, nil
}

func (b *backend) Prepare(_ context.Context, _ run.Revision, gpu *run.GPU) (scale.Instance, error) {
	time.Sleep(b.preparation) // in made-up time
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prepared++
	for _, i := range b.made {
		select {
		case <-i.done:
		default:
			if gpu != nil && i.gpu == gpu.UUID {
				b.both = append(b.both, gpu.UUID)
			}
		}
	}
	i := &instance{b: b, id: fmt.Sprint("i", b.prepared), done: make(chan struct{}), usage: b.usage}
	if gpu != nil {
		i.gpu = gpu.UUID
	}
	if b.made == nil {
		b.made = make(map[string]*instance)
	}
	b.made[i.id] = i
	return i, nil
}

func (i *instance) ID() string { return i.id }

func (i *instance) Start(context.Context) error {
	i.b.mu.Lock()
	defer i.b.mu.Unlock()
	i.b.started++
	i.b.highest = max(i.b.highest, i.b.started-i.b.stopped)
	if i.b.broken == "" {
		time.AfterFunc(i.b.startup, func() { i.open.Store(true) })
	} else {
		i.once.Do(func() { close(i.done) })
	}
	return nil
}

func (i *instance) Dial(context.Context, int) (net.Conn, error) {
	if !i.open.Load() {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	client, server := net.Pipe()
	if i.b.app == nil {
		go func() { _ = server.Close() }()
		return client, nil
	}
	go i.b.app(i, server)
	return client, nil
}

func (i *instance) Done() <-chan struct{} { return i.done }
func (i *instance) Diagnosis(int) string  { return i.b.broken }
func (i *instance) end()                  { i.once.Do(func() { close(i.done) }) }
func (i *instance) Stop(_ context.Context, grace time.Duration) error {
	i.mu.Lock()
	i.grace = append(i.grace, grace)
	i.mu.Unlock()
	i.b.mu.Lock()
	defer i.b.mu.Unlock()
	i.b.stopped++
	i.end()
	return nil
}

func (b *backend) counts() (prepared, started, stopped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prepared, b.started, b.stopped
}

func revision(id string, change func(*run.Template)) run.Revision {
	t := run.Template{Concurrency: 2, Containers: []run.Container{{Image: "x"}}}
	if change != nil {
		change(&t)
	}
	scaling := t.Scaling
	t = t.WithDefaults("")
	t.Scaling = scaling // the scaler's own maximum holds for what says none
	return run.Revision{
		Name:     resource.Revision{Service: resource.Service("p", "europe-north1", "s"), ID: id},
		Template: t,
	}
}

// scaler runs a test with a scaler in a bubble of fake time.
func scaler(t *testing.T, b *backend, test func(t *testing.T, s *scale.Scaler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := scale.New(scale.Config{
			Backend:  b,
			Max:      3,
			Prepared: 2,
			Idle:     time.Minute,
			Starts:   8,
			Now:      time.Now,
			Log:      slog.New(slog.DiscardHandler),
		})
		test(t, s)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, started, stopped := b.counts(); stopped < started {
			t.Errorf("%d instances were started, %d stopped", started, stopped)
		}
	})
}

func TestOneMoreWhenAllAreBusyUpToTheMaximum(t *testing.T) {
	b := &backend{startup: 100 * time.Millisecond}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", nil)
		var leases []*scale.Lease
		for i := range 6 { // 2 at once in each of 3 instances
			l, err := s.Acquire(t.Context(), rev)
			if err != nil {
				t.Fatal(err)
			}
			if want := i%2 == 0; l.Cold != want {
				t.Errorf("request %d: cold = %v, want %v", i, l.Cold, want)
			}
			leases = append(leases, l)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Acquire(ctx, rev); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a seventh request at the maximum = %v, want to wait", err)
		}
		got := make(chan error, 1)
		go func() {
			l, err := s.Acquire(t.Context(), rev)
			if err == nil {
				l.Release()
			}
			got <- err
		}()
		synctest.Wait()
		leases[0].Release()
		if err := <-got; err != nil {
			t.Errorf("the waiting request = %v", err)
		}
		for _, l := range leases[1:] {
			l.Release()
		}
		if b.highest != 3 {
			t.Errorf("%d instances at once, want 3", b.highest)
		}
	})
}

func TestToZeroAfterIdleAndPreparedAgain(t *testing.T) {
	b := &backend{startup: time.Millisecond}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", nil)
		s.Publish(run.Route{Service: rev.Name.Service, Targets: []run.RouteTarget{{Revision: rev, Percent: 100}}})
		synctest.Wait()
		if p, started, _ := b.counts(); p != 1 || started != 0 {
			t.Fatalf("a route without requests: %d prepared, %d started, want 1 and 0", p, started)
		}
		l, err := s.Acquire(t.Context(), rev)
		if err != nil {
			t.Fatal(err)
		}
		l.Release()
		if p, started, _ := b.counts(); p != 1 || started != 1 {
			t.Errorf("the prepared instance was not used: %d prepared, %d started", p, started)
		}
		time.Sleep(30 * time.Second)
		if n := s.Instances(); n.Ready != 1 {
			t.Errorf("%+v after half the idle time, want 1 ready", n)
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if n := s.Instances(); n != (scale.Count{Prepared: 1}) {
			t.Errorf("after the idle time %+v, want one prepared", n)
		}
		s.Remove(rev.Name.Service)
		synctest.Wait()
		if n := s.Instances(); n != (scale.Count{}) {
			t.Errorf("a revision without a route still has %+v", n)
		}
	})
}

func TestMinimumIsKept(t *testing.T) {
	b := &backend{}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", func(tt *run.Template) { tt.Scaling.Min = 2 })
		s.Publish(run.Route{Service: rev.Name.Service, Targets: []run.RouteTarget{{Revision: rev, Percent: 100}}})
		time.Sleep(10 * time.Minute)
		if n := s.Instances(); n.Ready != 2 {
			t.Errorf("%+v, want the minimum of 2 ready", n)
		}
	})
}

// What is idle of a revision that has lost its route stays for a rollback, and then goes, long before others do.
func TestARevisionThatLosesItsRoute(t *testing.T) {
	b := &backend{}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		old, next := revision("s-1", func(tt *run.Template) { tt.Scaling.Min = 1 }), revision("s-2", nil)
		to := func(rev run.Revision) {
			s.Publish(run.Route{Service: rev.Name.Service, Targets: []run.RouteTarget{{Revision: rev, Percent: 100}}})
		}
		to(old)
		busy, err := s.Acquire(t.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.EnsureInstance(t.Context(), next); err != nil { // ready, and without a route yet: it must stay
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		to(next)
		time.Sleep(2 * time.Second)
		if n := s.Instances(); n.Ready != 2 {
			t.Errorf("%d ready while the old one has a request, want 2", n.Ready)
		}
		busy.Release()
		time.Sleep(5 * time.Second)
		to(old) // and back
		again, err := s.Acquire(t.Context(), old)
		if err != nil || again.Cold {
			t.Fatalf("after the rollback: %+v, %v; want what was there", again, err)
		}
		to(next)
		time.Sleep(8 * time.Second)
		again.Release()
		time.Sleep(time.Second)
		if n := s.Instances(); n.Ready != 2 {
			t.Errorf("%d ready while a rollback may come, want 2", n.Ready)
		}
		time.Sleep(3 * time.Second)
		if n := s.Instances(); n.Ready != 1 {
			t.Errorf("%d ready after that, want 1", n.Ready)
		}
	})
}

// A revision that was deployed without traffic keeps nothing, whatever its minimum.
func TestNoMinimumWithoutARoute(t *testing.T) {
	b := &backend{}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		if err := s.EnsureInstance(t.Context(),
			revision("s-1", func(tt *run.Template) { tt.Scaling.Min = 1 })); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if n := s.Instances(); n.Ready != 1 {
			t.Errorf("%d ready within the idle time, want 1", n.Ready)
		}
		time.Sleep(20 * time.Second)
		if n := s.Instances(); n.Ready != 0 {
			t.Errorf("%d ready after it, want none", n.Ready)
		}
	})
}

func TestPreparedIsBounded(t *testing.T) {
	b := &backend{}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		for i := range 5 {
			rev := revision(fmt.Sprint("s-", i), nil)
			svc := resource.Service("p", "europe-north1", fmt.Sprint("s", i))
			s.Publish(run.Route{Service: svc, Targets: []run.RouteTarget{{Revision: rev, Percent: 100}}})
		}
		time.Sleep(time.Minute)
		if n := s.Instances(); n.Prepared != 2 {
			t.Errorf("%d prepared, want the bound of 2", n.Prepared)
		}
	})
}

func TestCheckReportsWhyAContainerDoesNotStart(t *testing.T) {
	for name, tt := range map[string]struct {
		b    *backend
		want string
	}{
		"it exits":          {&backend{broken: "It exited with code 3."}, "It exited with code 3."},
		"it never listens":  {&backend{startup: time.Hour}, "within the allocated timeout (4m0s)"},
		"the port is named": {&backend{broken: "x"}, "PORT=8080"},
		"it is said that it ended, not that time was short": {&backend{broken: "x"}, "environment variable: it ended after 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			scaler(t, tt.b, func(t *testing.T, s *scale.Scaler) {
				err := s.EnsureInstance(t.Context(), revision("s-1", nil))
				if !fault.Is(err, fault.FailedPrecondition) || !strings.Contains(fault.From(err).Message, tt.want) ||
					fault.From(err).Reason != "HealthCheckContainerError" {
					t.Errorf("EnsureInstance = %v, want %q", err, tt.want)
				}
			})
		})
	}
}

func TestAnInstanceThatDiesIsReplaced(t *testing.T) {
	b := &backend{}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", nil)
		if err := s.EnsureInstance(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		first, err := s.Acquire(t.Context(), rev)
		if err != nil {
			t.Fatal(err)
		}
		first.Release()
		b.made[first.Instance].end()
		synctest.Wait()
		l, err := s.Acquire(t.Context(), rev)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release()
		if l.Instance == first.Instance {
			t.Error("the request went to the instance that died")
		}
	})
}

func TestDropLetsRequestsEnd(t *testing.T) {
	b := &backend{}
	scaler(t, b, func(t *testing.T, s *scale.Scaler) {
		rev := revision("s-1", nil)
		l, err := s.Acquire(t.Context(), rev)
		if err != nil {
			t.Fatal(err)
		}
		s.Drop(rev.Name)
		synctest.Wait()
		if _, _, stopped := b.counts(); stopped != 0 {
			t.Error("the instance was stopped under a request")
		}
		l.Release()
		synctest.Wait()
		if _, _, stopped := b.counts(); stopped != 1 {
			t.Error("the instance was not stopped after its last request")
		}
	})
}
