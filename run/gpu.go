package run

import (
	"fmt"

	"giggle/fault"
	"giggle/store"
)

// Accelerator is the key of a node selector that names the kind of GPU.
const Accelerator = "run.googleapis.com/accelerator"

// DefaultAccelerator is the GPU of a service that names none.
const DefaultAccelerator = "nvidia-l4"

// accelerators are the GPUs that Cloud Run has, with what an instance needs beside one
// (https://cloud.google.com/run/docs/configuring/services/gpu).
var accelerators = map[string]struct{ cpu, memory int64 }{
	"nvidia-l4":           {4000, 16 << 30},
	"nvidia-rtx-pro-6000": {20_000, 80 << 30},
}

// GPUs is what a machine does with services that want a GPU. The zero value has none.
type GPUs struct {
	Emulate bool // run them on the CPU, with a condition that says so
	Found   int  // GPUs that the machine has; none can be given to an instance yet
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
func (t *Template) validateGPU(spec string) error {
	c := &t.Containers[0]
	for key := range t.NodeSelector {
		if key != Accelerator {
			return fault.Invalid(spec+".nodeSelector", "%.60q is not a node selector of Cloud Run; %s is", key, Accelerator)
		}
	}
	limits := spec + ".containers[0].resources.limits"
	if c.GPU < 0 || c.GPU > 1 {
		return fault.Invalid(limits+"[nvidia.com/gpu]", "must be 0 or 1")
	}
	kind, wants := t.wantsGPU()
	if !wants {
		if a := t.NodeSelector[Accelerator]; a != "" {
			return fault.Invalid(spec+".nodeSelector", "the accelerator %.60q needs the limit nvidia.com/gpu: 1", a)
		}
		return nil
	}
	needs, known := accelerators[kind]
	if !known {
		return fault.Invalid(spec+".nodeSelector", "%.60q is not a GPU of Cloud Run; nvidia-l4 and nvidia-rtx-pro-6000 are", kind)
	}
	if !t.CPUAlways {
		return fault.Invalid("spec.template.metadata.annotations[run.googleapis.com/cpu-throttling]", "GPUs need the CPU to be always allocated: --no-cpu-throttling")
	}
	cpu, _ := MilliCPU(c.CPU) // validated
	memory, _ := Bytes(c.Memory)
	if cpu < needs.cpu {
		return fault.Invalid(limits+".cpu", "%s needs at least %d CPU", kind, needs.cpu/1000)
	}
	if memory < needs.memory {
		return fault.Invalid(limits+".memory", "%s needs at least %dGi of memory", kind, needs.memory>>30)
	}
	return nil
}

// admit fails, as a project without quota for GPUs does, where the machine can give no GPU to a new revision.
func (g GPUs) admit(t *Template) error {
	kind, wants := t.wantsGPU()
	if !wants || g.Emulate {
		return nil
	}
	redundancy, quota := "with", "GpuAllocPerProjectRegion"
	if t.GPUZonalRedundancyDisabled {
		redundancy, quota = "without", "GpuAllocNoZonalRedundancyPerProjectRegion"
	}
	machine := "this machine has no NVIDIA GPU"
	if g.Found > 0 {
		machine = fmt.Sprintf("this machine has %d NVIDIA GPUs, but Giggle can't give one to an instance yet", g.Found)
	}
	return fault.Invalid("spec.template.spec.node_selector",
		"You do not have quota for using GPUs %s zonal redundancy (%s of %s is 0): %s. `giggle up --gpu-emulation=cpu` runs such services on the CPU.", redundancy, quota, kind, machine)
}

// condition is what a revision that asked for a GPU says for ever, where it runs on the CPU.
func (g GPUs) condition(t *Template, tx *store.Tx) []Condition {
	kind, wants := t.wantsGPU()
	if !wants {
		return nil
	}
	return []Condition{{Type: EmulatedGPU, State: True, Reason: "RunsOnCPU", Since: tx.Now(), Message: EmulationWarning(kind)}}
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
