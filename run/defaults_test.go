package run_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"giggle/resource"
	"giggle/run"
	"giggle/store"
)

// What a client leaves out is what Cloud Run's reference says it is
// (https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.services and the pages "Container port",
// "CPU limits", "Memory limits", "Concurrency", "Request timeout", "Health checks", "Maximum instances").
func TestDefaults(t *testing.T) {
	const account = "123456789012-compute@developer.gserviceaccount.com"
	full := func(change func(*run.Template, *run.Container)) run.Template {
		c := run.Container{
			Image:    "i",
			CPU:      "1000m",
			Memory:   "512Mi",
			Port:     8080,
			PortName: "http1",
			Startup:  &run.Probe{Timeout: 240, Period: 240, FailureThreshold: 1, TCPPort: 8080},
		}
		t := run.Template{
			ServiceAccount: account,
			Timeout:        300,
			Concurrency:    80,
			Scaling:        run.Scaling{Max: 100},
		}
		change(&t, &c)
		t.Containers = []run.Container{c}
		return t
	}
	for name, change := range map[string]struct {
		given, want func(*run.Template, *run.Container)
	}{
		"nothing": {},
		"an account": {
			given: func(t *run.Template, _ *run.Container) { t.ServiceAccount = "a@b" },
			want:  func(t *run.Template, _ *run.Container) { t.ServiceAccount = "a@b" },
		},
		"a timeout": {
			given: func(t *run.Template, _ *run.Container) { t.Timeout = 5 },
			want:  func(t *run.Template, _ *run.Container) { t.Timeout = 5 },
		},
		"one request at a time": {
			given: func(t *run.Template, _ *run.Container) { t.Concurrency = 1 },
			want:  func(t *run.Template, _ *run.Container) { t.Concurrency = 1 },
		},
		"part of a core has one request at a time": {
			given: func(_ *run.Template, c *run.Container) { c.CPU = "500m" },
			want:  func(t *run.Template, c *run.Container) { c.CPU, t.Concurrency = "500m", 1 },
		},
		"two cores": {
			given: func(_ *run.Template, c *run.Container) { c.CPU = "2" },
			want:  func(_ *run.Template, c *run.Container) { c.CPU = "2" },
		},
		"memory": {
			given: func(_ *run.Template, c *run.Container) { c.Memory = "1Gi" },
			want:  func(_ *run.Template, c *run.Container) { c.Memory = "1Gi" },
		},
		"a port, which the startup probe follows": {
			given: func(_ *run.Template, c *run.Container) { c.Port = 3000 },
			want:  func(_ *run.Template, c *run.Container) { c.Port, c.Startup.TCPPort = 3000, 3000 },
		},
		"HTTP/2": {
			given: func(_ *run.Template, c *run.Container) { c.PortName = "h2c" },
			want:  func(_ *run.Template, c *run.Container) { c.PortName = "h2c" },
		},
		"more instances at least than there are at most": {
			given: func(t *run.Template, _ *run.Container) { t.Scaling.Min = 120 },
			want:  func(t *run.Template, _ *run.Container) { t.Scaling = run.Scaling{Min: 120, Max: 120} },
		},
		"instances": {
			given: func(t *run.Template, _ *run.Container) { t.Scaling = run.Scaling{Min: 1, Max: 3} },
			want:  func(t *run.Template, _ *run.Container) { t.Scaling = run.Scaling{Min: 1, Max: 3} },
		},
		"GPUs are as many as there are": {
			given: func(t *run.Template, c *run.Container) {
				c.GPU, t.NodeSelector = 1, map[string]string{run.Accelerator: "nvidia-l4"}
			},
			want: func(t *run.Template, c *run.Container) {
				c.GPU, t.NodeSelector = 1, map[string]string{run.Accelerator: "nvidia-l4"}
				t.Scaling.Max = 0
			},
		},
		"a probe by HTTP whose port follows the container's": {
			given: func(_ *run.Template, c *run.Container) { c.Startup = &run.Probe{HTTPPath: "/up", Period: 5} },
			want: func(_ *run.Template, c *run.Container) {
				c.Startup = &run.Probe{HTTPPath: "/up", Period: 5, Timeout: 1, FailureThreshold: 3}
			},
		},
		"the other probes": {
			given: func(_ *run.Template, c *run.Container) {
				c.Liveness, c.Readiness = &run.Probe{GRPC: true}, &run.Probe{HTTPPath: "/", SuccessThreshold: 2}
			},
			want: func(_ *run.Template, c *run.Container) {
				c.Liveness = &run.Probe{GRPC: true, Timeout: 1, Period: 10, FailureThreshold: 3}
				c.Readiness = &run.Probe{
					HTTPPath:         "/",
					Timeout:          1,
					Period:           10,
					FailureThreshold: 3,
					SuccessThreshold: 2,
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			given, want := run.Template{}, func(*run.Template, *run.Container) {}
			c := run.Container{Image: "i"}
			if change.given != nil {
				change.given(&given, &c)
				want = change.want
			}
			given.Containers = []run.Container{c}
			got := given.WithDefaults(account)
			if diff := cmp.Diff(full(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(got, got.WithDefaults("another")); diff != "" {
				t.Errorf("a second time changes something (-once +twice):\n%s", diff)
			}
		})
	}
}

// A service that was stored when defaults were not written down yet reads as one that is stored now, and is not changed
// by a client that writes back what it has read.
func TestOlderServicesHaveDefaults(t *testing.T) {
	w := newWorld(t)
	w.stop() // nobody reconciles: what is read is what was written
	t.Cleanup(func() { w.start(t) })
	name := resource.Service("giggle", "europe-north1", "old")
	rows := store.NewTable[run.Service](run.ServiceKind, "Service")
	if err := w.store.Update(t.Context(), func(tx *store.Tx) error {
		_, err := rows.Create(tx, name.String(), run.Service{
			Name:       name,
			Generation: 3,
			Template:   run.Template{Containers: []run.Container{{Image: "i"}}},
			Traffic:    []run.Target{{Latest: true, Percent: 100}},
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	one, err := w.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	account, err := computeAccount("giggle")
	if err != nil {
		t.Fatal(err)
	}
	want := run.Template{Containers: []run.Container{{Image: "i"}}}.WithDefaults(account)
	if diff := cmp.Diff(want, one.Template); diff != "" {
		t.Errorf("Get (-want +got):\n%s", diff)
	}
	all, _, err := w.List(t.Context(), name.Location, "", 0)
	if err != nil || len(all) != 1 || !cmp.Equal(all[0].Template, want) {
		t.Errorf("List = %+v, %v", all, err)
	}
	again, err := w.Replace(t.Context(), one, "you@giggle.test")
	if err != nil || again.Generation != 3 {
		t.Errorf("written back: generation %d, %v, want 3", again.Generation, err)
	}
}
