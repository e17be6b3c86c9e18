package run

import (
	"slices"
	"time"
)

// Accelerator is the key of a node selector that names the kind of GPU.
const Accelerator = "run.googleapis.com/accelerator"

// DefaultAccelerator is the GPU of a service that names none.
const DefaultAccelerator = "nvidia-l4"

// accelerators are the GPUs that Cloud Run has, with what an instance needs beside one, and may have
// (https://cloud.google.com/run/docs/configuring/services/gpu).
var accelerators = map[string]struct {
	cpu, memory, mostCPU, mostMemory int64
	model                            string // of the card, as a pattern of path.Match
	quota                            string // the first part of the name of its quota
}{
	"nvidia-l4":           {4000, 16 << 30, mostCPU, mostMemory, "NVIDIA L4", "NvidiaL4"},
	"nvidia-rtx-pro-6000": {20_000, 80 << 30, 44_000, 176 << 30, "NVIDIA RTX PRO 6000*", "NvidiaRtxPro6000"},
}

// EmulatedGPU is the condition of a revision that asked for a GPU and runs on the CPU.
const EmulatedGPU = "GPUEmulation"

// wantsGPU reports whether the template asks for a GPU, and of which kind.
func (t *Template) wantsGPU() (accelerator string, wants bool) {
	if len(t.Containers) == 0 || t.Containers[0].GPU == 0 {
		return "", false
	}
	if a := t.NodeSelector[Accelerator]; a != "" {
		return a, true
	}
	return DefaultAccelerator, true
}

// validateGPU holds a template to Cloud Run's rules for GPUs.
func (t *Template) validateGPU() error {
	c := &t.Containers[0]
	for key := range t.NodeSelector {
		if key != Accelerator {
			return invalid(FieldNodeSelector, "%.60q is not a node selector of Cloud Run; %s is", key, Accelerator)
		}
	}
	if c.GPU < 0 || c.GPU > 1 {
		return invalid(FieldGPU.At(0), "must be 0 or 1")
	}
	kind, wants := t.wantsGPU()
	if !wants {
		if a := t.NodeSelector[Accelerator]; a != "" {
			return invalid(FieldNodeSelector, "the accelerator %.60q needs the limit nvidia.com/gpu: 1", a)
		}
		return nil
	}
	needs, known := accelerators[kind]
	if !known {
		return invalid(FieldNodeSelector, "%.60q is not a GPU of Cloud Run; nvidia-l4 and nvidia-rtx-pro-6000 are",
			kind)
	}
	if !t.CPUAlways {
		return invalid(FieldCPUAlways, "GPUs need the CPU to be always allocated: --no-cpu-throttling")
	}
	cpu, _ := MilliCPU(c.CPU) // validated
	memory, _ := Bytes(c.Memory)
	if cpu < needs.cpu {
		return invalid(FieldCPU.At(0), "%s needs at least %d CPU", kind, needs.cpu/1000)
	}
	if memory < needs.memory {
		return invalid(FieldMemory.At(0), "%s needs at least %dGi of memory", kind, needs.memory>>30)
	}
	return nil
}

// most is the most CPU and memory that a container of the template may have, in millicores and bytes.
func (t *Template) most() (cpu, memory int64) {
	if kind, wants := t.wantsGPU(); wants {
		if a, known := accelerators[kind]; known {
			return a.mostCPU, a.mostMemory
		}
	}
	return mostCPU, mostMemory
}

// admit fails, as a project without quota for GPUs does, where the machine can't give as many to a new revision of a
// service as it may have instances. What sets no maximum gets as many as there are.
func (g GPUs) admit(s *Service, t *Template) error {
	kind, wants := t.wantsGPU()
	if !wants || g.Emulated(kind) {
		return nil
	}
	redundancy, quota := "with", accelerators[kind].quota+"GpuAllocPerProjectRegion"
	if t.GPUZonalRedundancyDisabled {
		redundancy, quota = "without", accelerators[kind].quota+"GpuAllocNoZonalRedundancyPerProjectRegion"
	}
	have := g.Count(kind)
	if have == 0 {
		return invalid(FieldAccelerator,
			"You do not have quota for using GPUs %s zonal redundancy (%s is 0): %s. `giggle up --gpu-emulation=cpu` runs such services on the CPU.", redundancy, quota, g.lack(kind))
	}
	most := t.Scaling.Max
	if s.Scaling.Max > 0 && (most == 0 || s.Scaling.Max < most) {
		most = s.Scaling.Max
	}
	if most <= have {
		return nil
	}
	return invalid(FieldRevisionMaxScale,
		"Max instances must be set to %d or fewer to set the requested total GPUs: this machine has %d for %s, and each instance has one to itself.\nQuota violated:\n%s requested: %d allowed: %d",
		have, have, kind, quota, most, have)
}

// condition is what a revision that asked for a GPU says where it runs on the CPU, else nothing.
func (g GPUs) condition(t *Template, now time.Time) []Condition {
	kind, wants := t.wantsGPU()
	if !wants || !g.Emulated(kind) {
		return nil
	}
	return []Condition{{
		Type:    EmulatedGPU,
		State:   True,
		Reason:  "RunsOnCPU",
		Since:   now,
		Message: EmulationWarning(kind),
	}}
}

// correct has the status of a revision that was made when the machine had other GPUs say what holds now. It reports
// whether anything changed.
func (g GPUs) correct(t *Template, s *RevisionStatus, now time.Time) bool {
	holds := g.condition(t, now)
	is := func(c Condition) bool { return c.Type == EmulatedGPU }
	if slices.ContainsFunc(s.Conditions, is) == (len(holds) > 0) {
		return false
	}
	s.Conditions = append(slices.DeleteFunc(slices.Clone(s.Conditions), is), holds...)
	return true
}

// EmulationWarning says of a service that it runs on the CPU.
func EmulationWarning(kind string) string {
	return "A GPU (" + kind + ") was asked for. There is none: the container runs on the CPU (giggle up --gpu-emulation=cpu)."
}

// GPU is the kind of GPU that a template asks for, or "".
func (t *Template) GPU() string {
	kind, _ := t.wantsGPU()
	return kind
}
