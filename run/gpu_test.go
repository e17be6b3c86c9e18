package run_test

import (
	"strings"
	"testing"

	"giggle/fault"
	"giggle/resource"
	"giggle/run"
)

// gpuTemplate asks for a GPU as `gcloud run deploy --gpu 1 --gpu-type nvidia-l4 --no-cpu-throttling --cpu 8 --memory 32Gi` does.
func gpuTemplate(change func(*run.Template)) run.Template {
	t := run.Template{
		CPUAlways: true, GPUZonalRedundancyDisabled: true, NodeSelector: map[string]string{run.Accelerator: "nvidia-l4"},
		Containers: []run.Container{{Image: "x", CPU: "8", Memory: "32Gi", GPU: 1}},
	}
	if change != nil {
		change(&t)
	}
	return t
}

func TestRulesForGPUs(t *testing.T) {
	const limits = "spec.template.spec.containers[0].resources.limits"
	for name, tt := range map[string]struct {
		change func(*run.Template)
		field  string // of the refusal, "" for none
	}{
		"as the tutorial has it":  {nil, ""},
		"without a type":          {func(t *run.Template) { t.NodeSelector = nil }, ""},
		"the least":               {func(t *run.Template) { t.Containers[0].CPU, t.Containers[0].Memory = "4", "16Gi" }, ""},
		"two":                     {func(t *run.Template) { t.Containers[0].GPU = 2 }, limits + "[nvidia.com/gpu]"},
		"a type and no GPU":       {func(t *run.Template) { t.Containers[0].GPU = 0 }, "spec.template.spec.nodeSelector"},
		"another type":            {func(t *run.Template) { t.NodeSelector[run.Accelerator] = "riva-128" }, "spec.template.spec.nodeSelector"},
		"another selector":        {func(t *run.Template) { t.NodeSelector["disk"] = "ssd" }, "spec.template.spec.nodeSelector"},
		"throttled":               {func(t *run.Template) { t.CPUAlways = false }, "spec.template.metadata.annotations[run.googleapis.com/cpu-throttling]"},
		"too little CPU":          {func(t *run.Template) { t.Containers[0].CPU, t.Containers[0].Memory = "2", "8Gi" }, limits + ".cpu"},
		"too little memory":       {func(t *run.Template) { t.Containers[0].Memory = "8Gi" }, limits + ".memory"},
		"a GPU with bigger needs": {func(t *run.Template) { t.NodeSelector[run.Accelerator] = "nvidia-rtx-pro-6000" }, limits + ".cpu"},
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
			if f := fault.From(err); f == nil || f.Code != fault.InvalidArgument || len(f.Fields) != 1 || f.Fields[0].Path != tt.field {
				t.Errorf("%v, want a refusal of %s", err, tt.field)
			}
		})
	}
}

// Without a GPU a service that wants one is refused as without quota, and the refusal says the way out; with emulation it
// runs, and its revision says on what.
func TestNoGPU(t *testing.T) {
	w := newWorld(t)
	want := run.Service{Name: resource.Service("p", "europe-west4", "s"), Template: gpuTemplate(nil)}
	_, err := w.Create(t.Context(), want, "you")
	if !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), "quota for using GPUs without zonal redundancy") || !strings.Contains(err.Error(), "--gpu-emulation=cpu") {
		t.Errorf("%v", err)
	}
	w.GPUs = run.GPUs{Found: 1}
	if _, err := w.Create(t.Context(), want, "you"); !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), "has 1 NVIDIA GPUs") {
		t.Errorf("%v", err)
	}
	w.GPUs = run.GPUs{Emulate: true}
	if _, err := w.Create(t.Context(), want, "you"); err != nil {
		t.Fatal(err)
	}
	revs, _, err := w.ListRevisions(t.Context(), want.Name.Location)
	if err != nil || len(revs) != 1 {
		t.Fatal(revs, err)
	}
	for _, c := range revs[0].Status.Conditions {
		if c.Type == run.EmulatedGPU && c.State == run.True && strings.Contains(c.Message, "runs on the CPU") {
			return
		}
	}
	t.Errorf("no condition says so: %+v", revs[0].Status.Conditions)
}
