package engine

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"giggle/fault"
)

// CDIDirs are where a machine keeps its CDI specs, files that say what a container needs to use a device: nodes, driver
// libraries, variables, hooks (https://github.com/cncf-tags/container-device-interface, SPEC.md). NVIDIA's toolkit
// writes them.
func CDIDirs() []string { return slices.Clone(cdi.DefaultSpecDirs) }

// visible is the variable by which images ask the older of NVIDIA's two ways, a hook in the runtime, for GPUs.
const visible = "NVIDIA_VISIBLE_DEVICES"

// CheckGPU returns nil if a CDI spec in dirs describes the GPU, and else a fault that says how one is made.
func CheckGPU(dirs []string, g GPU) (err error) {
	defer fault.Wrap(&err, "engine.CheckGPU")
	cache, err := readCDI(dirs)
	if err != nil {
		return err
	}
	_, err = findCDI(cache, dirs, g)
	return err
}

// readCDI reads the specs of now: a driver's upgrade writes new ones.
func readCDI(dirs []string) (*cdi.Cache, error) {
	return cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
}

// findCDI returns the CDI device that is the GPU and nothing else: the one with its UUID for a name, else the one with
// its device node alone among the nodes of GPUs.
func findCDI(cache *cdi.Cache, dirs []string, g GPU) (*cdi.Device, error) {
	const kind = "nvidia.com/gpu="
	if d := cache.GetDevice(kind + g.UUID); d != nil {
		return d, nil
	}
	want := fmt.Sprintf("/dev/nvidia%d", g.Minor)
	for _, name := range cache.ListDevices() { // sorted
		if !strings.HasPrefix(name, kind) {
			continue
		}
		d := cache.GetDevice(name)
		if d == nil {
			continue
		}
		if nodes := gpuNodes(d); len(nodes) == 1 && nodes[0] == want {
			return d, nil
		}
	}
	text := fmt.Sprintf("No CDI spec in %s describes the GPU %s (%s). NVIDIA's container toolkit makes one: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
		strings.Join(dirs, " or "), g.UUID, g.Model)
	for path, errs := range cache.GetErrors() {
		text += fmt.Sprintf(" (%s: %v)", path, errs[0])
		break
	}
	e := fault.New(fault.FailedPrecondition, "%s", text)
	e.Reason = "ResourcesUnavailable"
	return nil, e
}

var gpuNode = regexp.MustCompile(`^/dev/(nvidia[0-9]+|nvidia-caps/nvidia-cap[0-9]+)$`)

// gpuNodes are the nodes that a device brings which stand for a GPU or, below nvidia-caps, for a slice of one. Others,
// such as /dev/nvidiactl, come with every GPU.
func gpuNodes(d *cdi.Device) (nodes []string) {
	for _, n := range d.ContainerEdits.DeviceNodes {
		if gpuNode.MatchString(n.Path) {
			nodes = append(nodes, n.Path)
		}
	}
	return nodes
}

// giveGPUs puts into a container's configuration what its GPUs need, and sees to it that one without any gets none.
func (e *Engine) giveGPUs(i *Instance, spec *specs.Spec, gpus []GPU) error {
	if len(gpus) == 0 {
		// which cards there are is none of its business
		spec.Linux.MaskedPaths = append(slices.Clone(maskedPaths), "/proc/driver/nvidia")
		// Images for GPUs have all of them here, for a runtime with NVIDIA's hook (--runtime may name one).
		if _, ok := getenv(spec.Process.Env, visible); ok {
			spec.Process.Env = append(spec.Process.Env, visible+"=void")
		}
		return nil
	}
	if err := i.lockGPUs(gpus); err != nil {
		return err
	}
	cache, err := readCDI(e.cdi)
	if err != nil {
		return err
	}
	var names []string
	hosts := make(map[string]string) // by path in the container
	for _, g := range gpus {
		d, err := findCDI(cache, e.cdi, g)
		if err != nil {
			return err
		}
		names = append(names, d.GetQualifiedName())
		for _, n := range slices.Concat(d.GetSpec().ContainerEdits.DeviceNodes, d.ContainerEdits.DeviceNodes) {
			hosts[n.Path] = n.HostPath
		}
	}
	if _, err := cache.InjectDevices(spec, names...); err != nil {
		return &fault.Error{
			Code:    fault.FailedPrecondition,
			Reason:  "ResourcesUnavailable",
			Message: "The GPU can't be given to the container: " + err.Error() + ".",
			Cause:   err,
		}
	}
	if err := refuseCDI(spec); err != nil {
		return err
	}
	plainMounts(spec, hosts)
	return nil
}

// refuseCDI refuses what would not happen here: the engine starts and clears away containers without the runtime's
// help.
func refuseCDI(spec *specs.Spec) error {
	h := spec.Hooks
	switch {
	case h != nil && len(h.Poststart) > 0:
		return fault.NotImplemented("containerEdits.hooks[poststart]",
			"the CDI spec of the GPU has a hook that Giggle doesn't run")
	case h != nil && len(h.Poststop) > 0:
		return fault.NotImplemented("containerEdits.hooks[poststop]",
			"the CDI spec of the GPU has a hook that Giggle doesn't run")
	case len(spec.Linux.NetDevices) > 0:
		return fault.NotImplemented("containerEdits.netDevices",
			"the CDI spec of the GPU has network devices, which Giggle doesn't move")
	case spec.Linux.IntelRdt != nil:
		return fault.NotImplemented("containerEdits.intelRdt", "the CDI spec of the GPU has it")
	}
	return nil
}

// plainMounts makes device nodes and mounts what every runtime can do in a user namespace. A node can't be made there,
// so it is the host's, shown at its place; the runtimes would look for it on the host at the container's path. Driver
// files need no owners of their own, which not every runtime and file system could map: all may read them.
func plainMounts(spec *specs.Spec, hosts map[string]string) {
	for i := range spec.Mounts {
		spec.Mounts[i].Options = slices.DeleteFunc(spec.Mounts[i].Options,
			func(o string) bool { return o == "idmap" || o == "ridmap" })
		spec.Mounts[i].UIDMappings, spec.Mounts[i].GIDMappings = nil, nil
	}
	for _, d := range spec.Linux.Devices {
		host := hosts[d.Path]
		if host == "" {
			host = d.Path
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: d.Path,
			Type:        "bind",
			Source:      host,
			Options:     []string{"bind", "rw", "nosuid", "noexec", "rprivate"},
		})
	}
	spec.Linux.Devices = nil
}
