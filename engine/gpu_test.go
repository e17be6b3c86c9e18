package engine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"giggle/engine"
	"giggle/fault"
)

// information is what the driver says of a GPU, as NVIDIA's Linux driver README shows it.
func information(model, uuid, bus string, minor int) string {
	return fmt.Sprintf("Model: \t\t %s\nIRQ:   \t\t 67\nGPU UUID: \t %s\nVideo BIOS: \t 95.04.29.00.06\nBus Type: \t PCIe\nDMA Size: \t 47 bits\n"+
		"DMA Mask: \t 0x7fffffffffff\nBus Location: \t %s\nDevice Minor: \t %d\nGPU Firmware: \t 535.216.03\nGPU Excluded:\t No\n", model, uuid, bus, minor)
}

// uuid is the UUID of a made-up GPU, which no other test process has: GPUs are locked for the whole machine.
func uuid(n int) string { return fmt.Sprintf("GPU-%08x-1111-2222-3333-%012d", os.Getpid(), n) }

func TestFindGPUs(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string // by PCI address
		want  []engine.GPU
		fails string // part of the error
	}{
		"none": {nil, nil, ""},
		"two, in the bus's order": {map[string]string{
			"0000:81:00.0": information("NVIDIA L4", uuid(2), "0000:81:00.0", 0),
			"0000:01:00.0": information("NVIDIA L40S", uuid(1), "0000:01:00.0", 1),
		}, []engine.GPU{{uuid(1), "NVIDIA L40S", "0000:01:00.0", 1}, {uuid(2), "NVIDIA L4", "0000:81:00.0", 0}}, ""},
		"excluded": {map[string]string{"a": strings.Replace(information("NVIDIA L4", uuid(1), "0000:01:00.0", 0),
			"Excluded:\t No", "Excluded:\t Yes", 1)}, nil, ""},
		"not initialised beside another": {map[string]string{
			"0000:01:00.0": information("NVIDIA L4", "GPU-????????-????-????-????-????????????", "0000:01:00.0", 0),
			"0000:02:00.0": information("NVIDIA L4", uuid(2), "0000:02:00.0", 1),
		}, []engine.GPU{{uuid(2), "NVIDIA L4", "0000:02:00.0", 1}}, "run nvidia-smi once"},
		"no minor": {map[string]string{"a": "Model: NVIDIA L4\nGPU UUID: " + uuid(1) +
			"\nBus Location: 0000:01:00.0\n"}, nil, "no device minor"},
		"a minor of text": {map[string]string{"a": information("x", uuid(1), "0000:01:00.0", 0) +
			"Device Minor: ../../sda\n"}, nil, "is no number"},
		"no UUID": {map[string]string{"a": information("NVIDIA L4", "GPU-1/../2", "0000:01:00.0",
			0)}, nil, "is not a GPU's UUID"},
		"no text": {map[string]string{"a": ""}, nil, "is not a GPU's UUID"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for bus, text := range tt.files {
				write(t, filepath.Join(root, "proc/driver/nvidia/gpus", bus, "information"), text)
			}
			got, err := engine.GPUs(root)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			if tt.fails == "" && err != nil ||
				tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)) {
				t.Errorf("%v, want %q", err, tt.fails)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// rig is a machine's GPUs, made up: harmless character devices, and a CDI spec as nvidia-ctk writes it.
type rig struct {
	cdi  []string
	gpus []engine.GPU
	seen string // where the hook writes what it was told
}

type object = map[string]any

// newRig makes one whose GPUs have the devices of /dev/null, /dev/zero and /dev/full. Uuids: whether the spec names the
// GPUs by UUID.
func newRig(t *testing.T, uuids bool, change func(spec object)) rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpus-") // not t.TempDir, in which the container's root, a stranger, can't walk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		// which stay on a machine, whose GPUs are few
		locks, _ := filepath.Glob(fmt.Sprintf("/run/giggle-gpus/GPU-%08x-*", os.Getpid()))
		for _, l := range locks {
			os.Remove(l)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := rig{cdi: []string{filepath.Join(dir, "cdi"), filepath.Join(dir, "none")}, seen: filepath.Join(dir, "seen")}
	var devices []object
	for k, minor := range []uint32{3, 5, 7} {
		g := engine.GPU{UUID: uuid(k), Model: "NVIDIA L4", Bus: fmt.Sprintf("0000:0%d:00.0", k), Minor: 40 + k}
		r.gpus = append(r.gpus, g)
		node := filepath.Join(dir, fmt.Sprintf("nvidia%d", g.Minor))
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(node, 0o666); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint(k)
		if uuids {
			name = g.UUID
		}
		devices = append(devices,
			object{"name": name, "containerEdits": object{"deviceNodes": []object{{"path": fmt.Sprintf("/dev/nvidia%d",
				g.Minor), "hostPath": node}}}})
	}
	all := object{"deviceNodes": []object{}}
	for _, d := range devices {
		all["deviceNodes"] = append(all["deviceNodes"].([]object),
			d["containerEdits"].(object)["deviceNodes"].([]object)...)
	}
	write(t, filepath.Join(dir, "libcuda.so.1"), "the driver's library")
	hook := filepath.Join(dir, "hook")
	write(t, hook, "#!/bin/sh\nset -e\ncat >"+r.seen+"\necho \"$@\" >>"+r.seen+"\n")
	write(t, r.seen, "")
	if err := os.Chmod(r.seen, 0o666); err != nil { // the hook runs as the container's root
		t.Fatal(err)
	}
	spec := object{
		"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": append(devices,
			object{"name": "all", "containerEdits": all}),
		"containerEdits": object{
			"env":         []string{"NVIDIA_VISIBLE_DEVICES=void"},
			"deviceNodes": []object{{"path": "/dev/nvidiactl", "hostPath": "/dev/urandom"}},
			"mounts": []object{{"hostPath": filepath.Join(dir,
				"libcuda.so.1"), "containerPath": "/usr/lib/libcuda.so.1",
				"options": []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}}},
			"hooks": []object{{"hookName": "createContainer", "path": hook, "args": []string{"nvidia-cdi-hook",
				"update-ldcache", "--folder", "/usr/lib"}}},
		},
	}
	if change != nil {
		change(spec)
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.cdi[0], "nvidia.json"), string(b))
	return r
}

// Of three GPUs an instance has the node, the library and the variables of its own; its neighbour without one has
// nothing, whatever its image asks for.
func TestGPUOfAnInstance(t *testing.T) {
	for _, runtime := range runtimes(t) {
		for name, uuids := range map[string]bool{"named by UUID": true, "named by number": false} {
			t.Run(runtime+" "+name, func(t *testing.T) {
				r := newRig(t, uuids, nil)
				e := openWith(t, engine.Config{Dir: t.TempDir(), Runtime: runtime, CDI: r.cdi})
				s := serving("with")
				s.Env = append(s.Env, "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility")
				s.GPUs = r.gpus[1:2] // zero's device
				s.User = "joker"
				with := start(t, e, s)
				s.ID, s.GPUs, s.User = "without", nil, ""
				without := start(t, e, s)

				if got := mustGet(t, with, "/head", "path", "/dev/nvidia41"); got != "00000000" {
					t.Errorf("/dev/nvidia41 gives %s", got)
				}
				if got := mustGet(t, with, "/head", "path", "/dev/nvidiactl"); len(got) != 8 {
					t.Errorf("/dev/nvidiactl gives %s", got)
				}
				if got := mustGet(t, with, "/read", "path", "/usr/lib/libcuda.so.1"); got != "the driver's library" {
					t.Errorf("the library: %q", got)
				}
				nodes := func(i *engine.Instance) (out []string) {
					for _, n := range unmarshal[[]string](t, mustGet(t, i, "/list", "path", "/dev")) {
						if strings.HasPrefix(n, "nvidia") {
							out = append(out, n)
						}
					}
					return out
				}
				if got := nodes(with); !slices.Equal(got, []string{"nvidia41", "nvidiactl"}) {
					t.Errorf("nodes of the instance with a GPU: %v", got)
				}
				if got := nodes(without); len(got) != 0 {
					t.Errorf("nodes of the instance without one: %v", got)
				}
				for _, i := range []*engine.Instance{with, without} {
					env := readProc(t, i.PID(), "environ")
					if !strings.Contains(env, "NVIDIA_VISIBLE_DEVICES=void") {
						t.Errorf("environment: %q", env)
					}
				}
				told, err := os.ReadFile(r.seen)
				if err != nil || !strings.Contains(string(told), "update-ldcache --folder /usr/lib") ||
					!strings.Contains(string(told), `"bundle"`) {
					t.Errorf("the hook was told %q, %v", told, err)
				}
			})
		}
	}
}

// The device that is given may be used as the CDI spec says, though every container is refused it otherwise: the
// devices of the other tests are those that all have.
func TestGPUDeviceIsAllowed(t *testing.T) {
	var st unix.Stat_t
	var found string
	// opening them does nothing
	for _, path := range []string{"/dev/cpu_dma_latency", "/dev/fuse", "/dev/loop-control", "/dev/hpet"} {
		if f, err := os.Open(path); err == nil {
			f.Close()
			if err := unix.Stat(path, &st); err != nil {
				t.Fatal(err)
			}
			found = path
			break
		}
	}
	if found == "" {
		t.Fatal("the machine has none of the devices that this test could lend")
	}
	for _, runtime := range runtimes(t) {
		for permissions, want := range map[string]string{"rw": "", "w": "open /dev/nvidia41: operation not permitted"} {
			t.Run(runtime+" "+permissions, func(t *testing.T) {
				r := newRig(t, true, func(spec object) {
					node := spec["devices"].([]object)[1]["containerEdits"].(object)["deviceNodes"].([]object)[0]
					node["permissions"] = permissions
					host := node["hostPath"].(string)
					if err := os.Remove(host); err != nil {
						t.Fatal(err)
					}
					if err := unix.Mknod(host, unix.S_IFCHR|0o666, int(st.Rdev)); err != nil {
						t.Fatal(err)
					}
					if err := os.Chmod(host, 0o666); err != nil {
						t.Fatal(err)
					}
				})
				e := openWith(t, engine.Config{Dir: t.TempDir(), Runtime: runtime, CDI: r.cdi})
				s := serving("x")
				s.GPUs = r.gpus[1:2]
				if got := mustGet(t, start(t, e, s), "/open", "path", "/dev/nvidia41"); got != want {
					t.Errorf("%s opens with %q, want %q", found, got, want)
				}
			})
		}
	}
}

func TestGPUThatCannotBeGiven(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(spec object)
		gpu    engine.GPU
		want   string
	}{
		"no spec for it": {nil, engine.GPU{UUID: uuid(9), Model: "NVIDIA L4", Minor: 9}, "nvidia-ctk cdi generate"},
		"only as a part": {nil, engine.GPU{UUID: uuid(9), Model: "NVIDIA L4", Minor: 4}, "No CDI spec"},
		"a broken spec":  {func(s object) { s["cdiVersion"] = "99" }, engine.GPU{UUID: uuid(0), Minor: 40}, "nvidia.json"},
		"its node is gone": {func(s object) {
			s["devices"].([]object)[0]["containerEdits"] = object{"deviceNodes": []object{{"path": "/dev/nvidia40", "hostPath": "/nowhere/nvidia40"}}}
		}, engine.GPU{UUID: uuid(0), Minor: 40}, "/nowhere/nvidia40"},
		"a hook after the end": {func(s object) {
			s["containerEdits"].(object)["hooks"] = []object{{"hookName": "poststop", "path": "/bin/true"}}
		}, engine.GPU{UUID: uuid(0), Minor: 40}, "poststop"},
		"a hook after the start": {func(s object) {
			s["containerEdits"].(object)["hooks"] = []object{{"hookName": "poststart", "path": "/bin/true"}}
		}, engine.GPU{UUID: uuid(0), Minor: 40}, "poststart"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, true, tt.change)
			e := openWith(t, engine.Config{Dir: t.TempDir(), CDI: r.cdi})
			s := serving("x")
			s.Layers, s.GPUs = []string{layer}, []engine.GPU{tt.gpu}
			_, err := e.Prepare(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if f := fault.From(err); f.Code == fault.Internal {
				t.Errorf("%v is no answer for a user", err)
			}
		})
	}
}

// Two instances never have the same GPU, not even of two platforms; the second gets it when the first is gone.
func TestGPUOfTwoPlatforms(t *testing.T) {
	r := newRig(t, true, nil)
	s := serving("first")
	s.Layers, s.GPUs = []string{layer}, r.gpus[1:2]
	one, two := openWith(t, engine.Config{Dir: t.TempDir(), CDI: r.cdi}), openWith(t,
		engine.Config{Dir: t.TempDir(), CDI: r.cdi})
	first := start(t, one, s)
	s.ID = "second"
	for name, e := range map[string]*engine.Engine{"the same": one, "the other": two} {
		if _, err := e.Prepare(t.Context(), s); !fault.Is(err, fault.ResourceExhausted) ||
			!strings.Contains(err.Error(), r.gpus[1].UUID) {
			t.Errorf("%s platform: %v", name, err)
		}
	}
	if err := first.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	second := start(t, two, s)
	if got := mustGet(t, second, "/head", "path", fmt.Sprintf("/dev/nvidia%d", r.gpus[1].Minor)); got != "00000000" {
		t.Errorf("the device gives %q", got)
	}
}
