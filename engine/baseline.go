package engine

import (
	"encoding/json"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Baseline returns an OCI configuration with the hardening of an instance, over the plain directory "root" beside it
// in place of an overlay: what a benchmark gives to the OCI runtime alone, to see what the engine adds or saves.
// Cgroup is absolute from the root of the tree, netns the path of a network namespace.
func Baseline(args, env []string, cgroup, netns string) ([]byte, error) {
	ids := []specs.LinuxIDMapping{{HostID: 1 << 28, Size: slotSize}} // below all engines' own
	memory, quota, period, pids := int64(512<<20), int64(100_000), uint64(100_000), int64(4096)
	s := &specs.Spec{
		Version:  "1.0.2",
		Hostname: "localhost",
		Root:     &specs.Root{Path: "root", Readonly: true},
		Process: &specs.Process{
			Args:            args,
			Env:             env,
			Cwd:             "/",
			NoNewPrivileges: true,
			User:            specs.User{UID: 65532, GID: 65532},
			Capabilities: &specs.LinuxCapabilities{
				Bounding:  capabilities,
				Effective: capabilities,
				Permitted: capabilities,
			},
		},
		Mounts: instanceMounts(),
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			UIDMappings: ids,
			GIDMappings: ids,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.UserNamespace},
				{Type: specs.CgroupNamespace}, {Type: specs.NetworkNamespace, Path: netns},
			},
			Resources: &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: &memory},
				CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period},
				Pids:   &specs.LinuxPids{Limit: &pids},
			},
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
		},
	}
	var err error
	if s.Linux.Seccomp, err = filter(s); err != nil {
		return nil, err
	}
	return json.Marshal(s)
}
