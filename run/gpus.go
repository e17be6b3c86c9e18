package run

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"giggle/engine"
	"giggle/fault"
)

// GPUs is what a machine does with services that want a GPU. The zero value has none.
type GPUs struct {
	Emulate bool  // run those on the CPU that want a kind of which there is none, with a condition that says so
	Have    []GPU // the machine's
}

// GPU is one of the machine's GPUs, and what services may have it for. One instance has it at a time, and all of it.
type GPU struct {
	engine.GPU
	Kinds []string // the kinds of Cloud Run that it stands for, none for a GPU that services can't have
}

// Is reports whether the GPU stands for a kind.
func (g GPU) Is(kind string) bool { return slices.Contains(g.Kinds, kind) }

// Count returns how many GPUs stand for a kind.
func (g GPUs) Count(kind string) (n int) {
	for _, x := range g.Have {
		if x.Is(kind) {
			n++
		}
	}
	return n
}

// Emulated reports whether services that want a kind run on the CPU.
func (g GPUs) Emulated(kind string) bool { return g.Emulate && g.Count(kind) == 0 }

// Missing returns a fault for a kind of which there is no GPU and that is not emulated, else nil.
func (g GPUs) Missing(kind string) error {
	if g.Count(kind) > 0 || g.Emulate {
		return nil
	}
	e := fault.New(fault.FailedPrecondition,
		"The revision needs a GPU (%s): %s. `giggle up --gpu-emulation=cpu` runs such services on the CPU.", kind,
		g.lack(kind))
	e.Reason = "ResourcesUnavailable"
	return e
}

// lack says what the machine has in place of a kind, and how that is made to do.
func (g GPUs) lack(kind string) string {
	if len(g.Have) == 0 {
		return "this machine has no NVIDIA GPU"
	}
	models := make(map[string]bool)
	for _, x := range g.Have {
		models[x.Model] = true
	}
	names := slices.Sorted(maps.Keys(models))
	return fmt.Sprintf("this machine has no %s but %s; `giggle up --gpu-type %s=%q` uses that in its place", kind,
		strings.Join(names, ", "), kind, names[0])
}

// GPUAlias has GPUs of other models stand for a kind of Cloud Run.
type GPUAlias struct {
	Kind string // "nvidia-l4"
	// a pattern of path.Match, in which any letter may be a capital: "NVIDIA H100*"; "any" for every NVIDIA GPU
	Model string
}

// ParseGPUAlias reads KIND=MODEL.
func ParseGPUAlias(text string) (GPUAlias, error) {
	kind, model, ok := strings.Cut(text, "=")
	a := GPUAlias{Kind: kind, Model: strings.TrimSpace(model)}
	if _, known := accelerators[kind]; !ok || !known {
		return a, fault.New(fault.InvalidArgument,
			"%.80q is not KIND=MODEL with %s for KIND, such as nvidia-l4=\"NVIDIA H100*\" or nvidia-l4=any.",
			text, strings.Join(slices.Sorted(maps.Keys(accelerators)), " or "))
	}
	if _, err := path.Match(a.Model, ""); err != nil || a.Model == "" {
		return a, fault.New(fault.InvalidArgument, "%.80q is not a pattern of a GPU's model such as \"NVIDIA H100*\".",
			a.Model)
	}
	return a, nil
}

// GPUKinds returns the kinds that a model stands for: its own, and those of aliases.
func GPUKinds(model string, aliases []GPUAlias) []string {
	kinds := make(map[string]bool)
	for kind, a := range accelerators {
		if like(a.model, model) {
			kinds[kind] = true
		}
	}
	for _, a := range aliases {
		if a.Model == "any" || like(a.Model, model) {
			kinds[a.Kind] = true
		}
	}
	return slices.Sorted(maps.Keys(kinds))
}

func like(pattern, model string) bool {
	ok, _ := path.Match(strings.ToLower(pattern), strings.ToLower(model)) // patterns were checked
	return ok
}
