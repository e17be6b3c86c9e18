package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDoctorOnGPUs(t *testing.T) {
	const uuid = "GPU-00000000-1111-2222-3333-000000000000"
	for name, tt := range map[string]struct {
		model, uuid, cdi, want string
	}{
		"none": {"", "", "", "[]"},
		"an L4": {"NVIDIA L4", uuid, uuid, "[{GPU ok NVIDIA L4, " + uuid +
			", for services with --gpu-type nvidia-l4 }]"},
		"an H100": {"NVIDIA H100", uuid, uuid, "[{GPU warn NVIDIA H100, " + uuid +
			`, which is none of Cloud Run's giggle up --gpu-type nvidia-l4="NVIDIA H100" has it stand for one}]`},
		"no spec": {"NVIDIA L4", uuid, "other", "[{GPU warn NVIDIA L4, " + uuid +
			" No CDI spec in DIR describes the GPU " + uuid +
			" (NVIDIA L4). NVIDIA's container toolkit makes one: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml}]"},
		"not usable": {"NVIDIA L4", "GPU-????????-????-????-????-????????????", "", "[{GPU warn The NVIDIA driver's list can't be read: DIR/proc/driver/nvidia/gpus/0000:01:00.0/information: the driver doesn't know the GPU's UUID yet: run nvidia-smi once, or nvidia-persistenced. load NVIDIA's driver and run nvidia-smi once}]"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := filepath.Join(dir, "proc/driver/nvidia/gpus/0000:01:00.0")
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			if tt.model != "" {
				text := fmt.Sprintf("Model: %s\nGPU UUID: %s\nBus Location: 0000:01:00.0\nDevice Minor: 0\n", tt.model,
					tt.uuid)
				if err := os.WriteFile(filepath.Join(at, "information"), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			spec := fmt.Sprintf(`{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": %q, "containerEdits": {"env": ["A=b"]}}]}`, tt.cdi)
			if err := os.WriteFile(filepath.Join(dir, "nvidia.json"), []byte(spec), 0o644); err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(fmt.Sprint(examineGPUs(dir, []string{dir})), dir, "DIR")
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestDoctorOnCgroups(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"none": {nil, "{cgroups fail not found mount cgroups: mount -t cgroup2 none /sys/fs/cgroup}"},
		"v1":   {map[string]string{"memory/cgroup.procs": ""}, "{cgroups ok v1 }"},
		"hybrid": {map[string]string{"memory/cgroup.procs": "",
			"unified/cgroup.controllers": ""}, "{cgroups ok v1 (hybrid) }"},
		"v2":           {map[string]string{"cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n"}, "{cgroups ok v2 }"},
		"a Pi's":       {map[string]string{"cgroup.controllers": "cpuset cpu io pids\n"}, "{cgroups fail v2, without a controller for memory Start the kernel with cgroup_enable=memory and without cgroup_disable; in a container, have the groups above it hand them down.}"},
		"v2 of a kind": {map[string]string{"cgroup.controllers": ""}, "{cgroups fail v2, without a controller for cpu and memory and pids Start the kernel with cgroup_enable=memory and without cgroup_disable; in a container, have the groups above it hand them down.}"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fmt.Sprint(examineCgroups(tree(t, tt.files))); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestDoctorOnOverlay(t *testing.T) {
	const release = "proc/sys/kernel/osrelease"
	for name, tt := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"no files": {nil, false},
		"loaded":   {map[string]string{"proc/filesystems": "nodev\tsysfs\nnodev\toverlay\n"}, true},
		"a module": {map[string]string{"proc/filesystems": "nodev\tsysfs\n", release: "6.1.0\n",
			"lib/modules/6.1.0/modules.dep": "kernel/fs/overlayfs/overlay.ko.xz:\n"}, true},
		"another kernel's module": {map[string]string{"proc/filesystems": "nodev\tsysfs\n", release: "6.2.0\n",
			"lib/modules/6.1.0/modules.dep": "kernel/fs/overlayfs/overlay.ko:\n"}, false},
		"no module": {map[string]string{"proc/filesystems": "nodev\tsysfs\n", release: "6.1.0\n",
			"lib/modules/6.1.0/modules.dep": "kernel/fs/fuse/fuse.ko:\n"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := hasOverlay(tree(t, tt.files)); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// tree makes a directory with files, text by path.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
