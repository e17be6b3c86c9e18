package run_test

import (
	"strings"
	"testing"

	"giggle/engine"
	"giggle/fault"
	"giggle/resource"
	"giggle/run"
)

// gpuTemplate asks for a GPU as `gcloud run deploy --gpu 1 --gpu-type nvidia-l4 --no-cpu-throttling --cpu 8 --memory
// 32Gi` does.
func gpuTemplate(change func(*run.Template)) run.Template {
	t := run.Template{
		CPUAlways:                  true,
		GPUZonalRedundancyDisabled: true,
		NodeSelector:               map[string]string{run.Accelerator: "nvidia-l4"},
		Containers:                 []run.Container{{Image: "x", CPU: "8", Memory: "32Gi", GPU: 1}},
	}
	if change != nil {
		change(&t)
	}
	return t
}

func TestRulesForGPUs(t *testing.T) {
	const container = "template.containers[0]"
	for name, tt := range map[string]struct {
		change func(*run.Template)
		field  string // of the refusal, "" for none
	}{
		"as the tutorial has it":  {nil, ""},
		"without a type":          {func(t *run.Template) { t.NodeSelector = nil }, ""},
		"the least":               {func(t *run.Template) { t.Containers[0].CPU, t.Containers[0].Memory = "4", "16Gi" }, ""},
		"two":                     {func(t *run.Template) { t.Containers[0].GPU = 2 }, container + ".gpu"},
		"a type and no GPU":       {func(t *run.Template) { t.Containers[0].GPU = 0 }, "template.nodeSelector"},
		"another type":            {func(t *run.Template) { t.NodeSelector[run.Accelerator] = "riva-128" }, "template.nodeSelector"},
		"another selector":        {func(t *run.Template) { t.NodeSelector["disk"] = "ssd" }, "template.nodeSelector"},
		"throttled":               {func(t *run.Template) { t.CPUAlways = false }, "template.cpuAlways"},
		"too little CPU":          {func(t *run.Template) { t.Containers[0].CPU, t.Containers[0].Memory = "2", "8Gi" }, container + ".cpu"},
		"too little memory":       {func(t *run.Template) { t.Containers[0].Memory = "8Gi" }, container + ".memory"},
		"a GPU with bigger needs": {func(t *run.Template) { t.NodeSelector[run.Accelerator] = "nvidia-rtx-pro-6000" }, container + ".cpu"},
		"bigger needs met": {func(t *run.Template) {
			t.NodeSelector[run.Accelerator], t.Containers[0].CPU, t.Containers[0].Memory = "nvidia-rtx-pro-6000", "20", "80Gi"
		}, ""},
		"bigger needs without a GPU": {func(t *run.Template) {
			t.NodeSelector, t.Containers[0].GPU, t.Containers[0].CPU, t.Containers[0].Memory = nil, 0, "20", "80Gi"
		}, container + ".cpu"},
		"more memory than an L4 goes with": {func(t *run.Template) { t.Containers[0].Memory = "80Gi" }, container +
			".memory"},
	} {
		t.Run(name, func(t *testing.T) {
			s := run.Service{Name: resource.Service("p", "europe-west4", "s"), Template: gpuTemplate(tt.change)}
			err := s.Validate()
			if tt.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if f := fault.From(err); f == nil || f.Code != fault.InvalidArgument || len(f.Fields) != 1 ||
				f.Fields[0].Path != tt.field {
				t.Errorf("%v, want a refusal of %s", err, tt.field)
			}
		})
	}
}

// Without a GPU a service that wants one is refused as without quota, and the refusal says the way out; with emulation
// it runs, and its revision says on what.
func TestNoGPU(t *testing.T) {
	w := newWorld(t)
	want := run.Service{Name: resource.Service("p", "europe-west4", "s"), Template: gpuTemplate(nil)}
	_, err := w.Create(t.Context(), want, "you")
	if !fault.Is(err, fault.InvalidArgument) ||
		!strings.Contains(err.Error(), "quota for using GPUs without zonal redundancy") ||
		!strings.Contains(err.Error(), "--gpu-emulation=cpu") {
		t.Errorf("%v", err)
	}
	w.restart(t, func(c *run.Config) {
		c.GPUs = run.GPUs{Have: []run.GPU{{GPU: engine.GPU{UUID: "GPU-1", Model: "NVIDIA H100 80GB HBM3"}}}}
	})
	_, err = w.Create(t.Context(), want, "you")
	if want := "has no nvidia-l4 but NVIDIA H100 80GB HBM3; `giggle up --gpu-type nvidia-l4=\"NVIDIA H100 80GB HBM3\"`"; !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	w.restart(t, func(c *run.Config) { c.GPUs = run.GPUs{Emulate: true} })
	if _, err := w.Create(t.Context(), want, "you"); err != nil {
		t.Fatal(err)
	}
	emulated := func() string {
		t.Helper()
		revs, _, err := w.ListRevisions(t.Context(), want.Name.Location)
		if err != nil || len(revs) != 1 {
			t.Fatal(revs, err)
		}
		for _, c := range revs[0].Status.Conditions {
			if c.Type == run.EmulatedGPU && c.State == run.True {
				return c.Message
			}
		}
		return ""
	}
	if got := emulated(); !strings.Contains(got, "runs on the CPU") {
		t.Errorf("no condition says that it runs on the CPU, but %q", got)
	}
	// The platform starts again with a GPU, and then without.
	w.settle(t, want, nil)
	for _, gpus := range []run.GPUs{{
		Emulate: true,
		Have:    []run.GPU{{GPU: engine.GPU{UUID: "GPU-1"}, Kinds: run.GPUKinds("NVIDIA L4", nil)}},
	}, {Emulate: true}} {
		next, stop := w.RevisionEvents(t.Context(), want.Name.Location, 0)
		w.restart(t, func(c *run.Config) { c.GPUs = gpus })
		for (emulated() == "") != (len(gpus.Have) > 0) {
			if _, err := next(); err != nil {
				t.Fatal(err)
			}
		}
		stop()
	}
}

// Where there are GPUs, they are the quota: a service that may have more instances is refused, one that sets no maximum
// is not.
func TestQuotaOfGPUs(t *testing.T) {
	for name, tt := range map[string]struct {
		service, revision int // maximum of instances
		refused           bool
	}{
		"no maximum": {0, 0, false}, "as many as there are": {0, 2, false}, "more": {0, 3, true},
		"more for the service": {3, 0, true}, "the lesser of both holds": {100, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			l4 := run.GPUKinds("NVIDIA L4", nil)
			pro := run.GPUKinds("NVIDIA RTX PRO 6000 Blackwell Server Edition", nil)
			w.restart(t, func(c *run.Config) {
				c.GPUs = run.GPUs{Emulate: true, Have: []run.GPU{{Kinds: l4}, {Kinds: l4}, {Kinds: pro}}}
			})
			want := run.Service{
				Name: resource.Service("p", "europe-west4", "s"), Scaling: run.Scaling{Max: tt.service},
				Template: gpuTemplate(func(t *run.Template) { t.Scaling.Max = tt.revision }),
			}
			_, err := w.Create(t.Context(), want, "you")
			if !tt.refused {
				if err != nil {
					t.Fatal(err)
				}
				revs, _, err := w.ListRevisions(t.Context(), want.Name.Location)
				if err != nil || len(revs) != 1 {
					t.Fatal(revs, err)
				}
				for _, c := range revs[0].Status.Conditions {
					if c.Type == run.EmulatedGPU {
						t.Errorf("emulated in spite of a GPU: %+v", c)
					}
				}
				return
			}
			if f := fault.From(err); f == nil || f.Code != fault.InvalidArgument ||
				f.Fields[0].Path != "template.scaling.max" ||
				!strings.Contains(f.Message, "Max instances must be set to 2 or fewer") ||
				!strings.Contains(f.Message,
					"NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion requested: 3 allowed: 2") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestKindsOfGPUs(t *testing.T) {
	for _, tt := range []struct {
		model   string
		aliases []string
		want    string
	}{
		{"NVIDIA L4", nil, "nvidia-l4"},
		{"NVIDIA L40S", nil, ""},
		{"NVIDIA RTX PRO 6000 Blackwell Server Edition", nil, "nvidia-rtx-pro-6000"},
		{"NVIDIA H100 80GB HBM3", []string{"nvidia-l4=nvidia h100*"}, "nvidia-l4"},
		{"NVIDIA H100 80GB HBM3", []string{"nvidia-l4=any",
			"nvidia-rtx-pro-6000=NVIDIA H*"}, "nvidia-l4 nvidia-rtx-pro-6000"},
		{"NVIDIA A100-SXM4-80GB", []string{"nvidia-l4=NVIDIA H100*"}, ""},
		{"NVIDIA L4", []string{"nvidia-rtx-pro-6000=any"}, "nvidia-l4 nvidia-rtx-pro-6000"},
	} {
		var aliases []run.GPUAlias
		for _, text := range tt.aliases {
			a, err := run.ParseGPUAlias(text)
			if err != nil {
				t.Fatal(err)
			}
			aliases = append(aliases, a)
		}
		if got := strings.Join(run.GPUKinds(tt.model, aliases), " "); got != tt.want {
			t.Errorf("%s with %q is %q, want %q", tt.model, tt.aliases, got, tt.want)
		}
	}
	for _, bad := range []string{"", "nvidia-l4", "nvidia-l4=", "riva-128=any", "nvidia-l4=[", "=any"} {
		if a, err := run.ParseGPUAlias(bad); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%q: %+v, %v", bad, a, err)
		}
	}
}

func FuzzGPUAlias(f *testing.F) {
	f.Add("nvidia-l4=NVIDIA H100*", "NVIDIA H100 80GB HBM3")
	f.Add("nvidia-l4=[a-", "x")
	f.Fuzz(func(t *testing.T, text, model string) {
		a, err := run.ParseGPUAlias(text)
		if err != nil {
			return
		}
		for _, k := range run.GPUKinds(model, []run.GPUAlias{a}) {
			if k != a.Kind && k != "nvidia-l4" && k != "nvidia-rtx-pro-6000" {
				t.Errorf("%q makes %q a %q", text, model, k)
			}
		}
	})
}
