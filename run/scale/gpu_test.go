package scale_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"giggle/engine"
	"giggle/fault"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
)

// cards is a machine with so many L4, and one other card.
func cards(n int) run.GPUs {
	g := run.GPUs{Have: []run.GPU{{GPU: engine.GPU{UUID: "GPU-other", Model: "NVIDIA T4"}}}}
	for i := range n {
		g.Have = append(g.Have, run.GPU{
			GPU:   engine.GPU{UUID: fmt.Sprint("GPU-", i), Model: "NVIDIA L4"},
			Kinds: []string{"nvidia-l4"},
		})
	}
	return g
}

// onGPU is a revision, of a service of its own, whose instances have a GPU and take one request at a time.
func onGPU(id string, change func(*run.Template)) run.Revision {
	rev := revision(id, func(t *run.Template) {
		t.Concurrency, t.CPUAlways, t.NodeSelector, t.Containers[0].GPU = 1, true, map[string]string{run.Accelerator: "nvidia-l4"}, 1
		if change != nil {
			change(t)
		}
	})
	rev.Name.Service = resource.Service("p", "europe-west4", strings.SplitN(id, "-", 2)[0])
	return rev
}

// shared lists the GPUs that two instances had at once.
func (b *backend) shared() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.both
}

func gpuOf(s *scale.Scaler, rev run.Revision) (now int, seconds float64) {
	for _, st := range s.Stats() {
		if st.Revision == rev.Name {
			return st.GPUs, st.GPU.Seconds()
		}
	}
	return 0, 0
}

// A revision has as many instances as there are GPUs of its kind, each with one of its own; what comes beyond waits as
// at the maximum of instances, and then hears 429.
func TestGPUsAreTheMaximum(t *testing.T) {
	b := &backend{startup: 100 * time.Millisecond}
	scalerWith(t, b, func(c *scale.Config) { c.GPUs = cards(2) }, func(t *testing.T, s *scale.Scaler) {
		rev := onGPU("s-1", nil)
		publish(s, rev, run.Scaling{})
		time.Sleep(time.Second)
		if p, _, _ := b.counts(); p != 0 {
			t.Errorf("%d instances with a GPU are prepared, want none: they would keep it from others", p)
		}
		first, second := acquire(t, s, rev), acquire(t, s, rev)
		if a, b := b.instance(first.Instance).gpu, b.instance(second.Instance).gpu; a == b || a == "" || b == "" ||
			a == "GPU-other" || b == "GPU-other" {
			t.Errorf("the GPUs of two instances: %q, %q", a, b)
		}
		if st := s.Stats()[0]; st.Max != 2 || st.GPUs != 2 {
			t.Errorf("%+v", st)
		}
		begin := time.Now()
		if _, err := s.Acquire(t.Context(), rev); !fault.Is(err, fault.ResourceExhausted) ||
			time.Since(begin) < 10*time.Second {
			t.Errorf("a third request after %v: %v", time.Since(begin), err)
		}
		first.Release()
		acquire(t, s, rev).Release()
		second.Release()
	})
	if len(b.shared()) > 0 {
		t.Errorf("shared: %v", b.shared())
	}
}

// What waits for a GPU that another service has gets it when that one is idle, or gone; the time that each had it is
// counted.
func TestGPUGoesFromServiceToService(t *testing.T) {
	b := &backend{startup: time.Second}
	scalerWith(t, b, func(c *scale.Config) { c.GPUs = cards(1) }, func(t *testing.T, s *scale.Scaler) {
		one, two := onGPU("one-1", nil), onGPU("two-1", nil)
		publish(s, one, run.Scaling{})
		publish(s, two, run.Scaling{})
		l := acquire(t, s, one)
		if _, err := s.Acquire(t.Context(), two); !fault.Is(err, fault.ResourceExhausted) {
			t.Errorf("while the only GPU is in use: %v", err)
		}
		time.Sleep(10 * time.Second)
		got := make(chan string)
		go func() {
			l := acquire(t, s, two)
			got <- l.Instance
			l.Release()
		}()
		synctest.Wait()
		l.Release()
		if i := b.instance(<-got); i.gpu != "GPU-0" {
			t.Errorf("it has %q", i.gpu)
		}
		now, seconds := gpuOf(s, one)
		if now != 0 || seconds < 20 || seconds > 25 {
			t.Errorf("the first service has %d GPUs and had one for %v s, want 0 and some 21 s", now, seconds)
		}
		holder := func() string { return s.GPUs()[1].Holder.ID }
		if holder() != "two-1" {
			t.Errorf("held by %q", holder())
		}
		// An instance that dies gives its GPU back as well.
		b.instance(<-func() chan string {
			c := make(chan string, 1)
			l := acquire(t, s, two)
			c <- l.Instance
			l.Release()
			return c
		}()).end()
		synctest.Wait()
		if holder() != "" {
			t.Errorf("held by %q after its end", holder())
		}
		acquire(t, s, one).Release()
		if holder() != "one-1" {
			t.Errorf("held by %q", holder())
		}
	})
	if len(b.shared()) > 0 {
		t.Errorf("shared: %v", b.shared())
	}
}

// With one GPU a service can still be deployed anew: the revision before gives it up, also where it has a minimum.
func TestDeployWithTheOnlyGPU(t *testing.T) {
	b := &backend{startup: time.Second}
	scalerWith(t, b, func(c *scale.Config) { c.GPUs = cards(1) }, func(t *testing.T, s *scale.Scaler) {
		old, next := onGPU("s-1", func(t *run.Template) { t.Scaling.Min = 1 }), onGPU("s-2",
			func(t *run.Template) { t.Scaling.Min = 1 })
		publish(s, old, run.Scaling{})
		l := acquire(t, s, old)
		time.AfterFunc(30*time.Second, l.Release)
		if err := s.EnsureInstance(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		publish(s, next, run.Scaling{})
		time.Sleep(2 * time.Minute)
		if now, _ := gpuOf(s, next); now != 1 {
			t.Errorf("the new revision has %d GPUs", now)
		}
		// A stranger's minimum stands.
		if err := s.EnsureInstance(t.Context(), onGPU("other-1", nil)); !fault.Is(err, fault.ResourceExhausted) ||
			!strings.Contains(err.Error(), "has 1 for nvidia-l4") {
			t.Errorf("%v", err)
		}
	})
	if len(b.shared()) > 0 {
		t.Errorf("shared: %v", b.shared())
	}
}

func TestGPUOfAFailedStartComesBack(t *testing.T) {
	b := &backend{broken: "It exited with code 3."}
	scalerWith(t, b, func(c *scale.Config) { c.GPUs = cards(1) }, func(t *testing.T, s *scale.Scaler) {
		rev := onGPU("s-1", nil)
		publish(s, rev, run.Scaling{})
		for range 3 {
			if _, err := s.Acquire(t.Context(), rev); !fault.Is(err, fault.FailedPrecondition) {
				t.Errorf("%v", err)
			}
			synctest.Wait()
			if now, _ := gpuOf(s, rev); now != 0 {
				t.Errorf("it keeps %d GPUs", now)
			}
		}
	})
}

// Without a GPU of the kind there is no instance, and the refusal says why; with emulation there is, and it may be
// prepared.
func TestNoGPUOfTheKind(t *testing.T) {
	for name, tt := range map[string]struct {
		have run.GPUs
		want string
	}{
		"none": {run.GPUs{}, "has no NVIDIA GPU"}, "another": {cards(0), "no nvidia-l4 but NVIDIA T4"},
		"emulated": {run.GPUs{Emulate: true, Have: cards(0).Have}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := &backend{}
			scalerWith(t, b, func(c *scale.Config) { c.GPUs = tt.have }, func(t *testing.T, s *scale.Scaler) {
				rev := onGPU("s-1", func(t *run.Template) { t.Scaling.Min = 1 })
				publish(s, rev, run.Scaling{})
				time.Sleep(5 * time.Second)
				l, err := s.Acquire(t.Context(), rev)
				if tt.want == "" {
					if err != nil || b.instance(l.Instance).gpu != "" {
						t.Errorf("emulated: %v", err)
					} else {
						l.Release()
					}
				} else if !fault.Is(err, fault.FailedPrecondition) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
			})
		})
	}
}

// Whatever comes and goes, no GPU is ever with two instances, and none is lost.
func TestGPUsUnderChurn(t *testing.T) {
	for seed := range uint64(20) {
		b := &backend{startup: 300 * time.Millisecond}
		scalerWith(t, b, func(c *scale.Config) { c.GPUs, c.Idle = cards(3), 20*time.Second },
			func(t *testing.T, s *scale.Scaler) {
				random := rand.New(rand.NewPCG(seed, 1))
				var revs []run.Revision
				for k := range 5 {
					rev := onGPU(fmt.Sprintf("s%d-1", k), func(t *run.Template) { t.Scaling.Min = k % 2 })
					publish(s, rev, run.Scaling{})
					revs = append(revs, rev)
				}
				var wg sync.WaitGroup
				for range 200 {
					rev, hold := revs[random.IntN(len(revs))], time.Duration(random.IntN(4000))*time.Millisecond
					dies := random.IntN(10) == 0
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
						defer cancel()
						l, err := s.Acquire(ctx, rev)
						if err != nil {
							return
						}
						time.Sleep(hold)
						if dies {
							b.instance(l.Instance).end()
						}
						l.Release()
					})
					time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
				}
				wg.Wait()
				for _, rev := range revs {
					s.Drop(rev.Name)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				for _, g := range s.GPUs() {
					if g.Holder.ID != "" {
						t.Errorf("seed %d: %s is still held by %s", seed, g.UUID, g.Holder.ID)
					}
				}
				fresh := onGPU("fresh-1", nil)
				publish(s, fresh, run.Scaling{})
				var leases []*scale.Lease
				for range 3 {
					leases = append(leases, acquire(t, s, fresh))
				}
				for _, l := range leases {
					l.Release()
				}
			})
		if len(b.shared()) > 0 {
			t.Errorf("seed %d: shared: %v", seed, b.shared())
		}
	}
}
