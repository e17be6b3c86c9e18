package local_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"giggle/engine"
	"giggle/run"
	"giggle/run/scale"
	"giggle/run/scale/local"
)

// machine makes up a machine with GPUs: the driver's list, a CDI spec, and devices that do no harm.
func machine(t *testing.T, models ...string) (cdi string, gpus run.GPUs) {
	t.Helper()
	dir := t.TempDir()
	spec := "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n"
	for k, model := range models {
		bus, uuid := fmt.Sprintf("0000:0%d:00.0", k+1), fmt.Sprintf("GPU-%08x-1111-2222-3333-%012d", os.Getpid(), k)
		// the engine leaves it, for a machine's GPUs are few
		t.Cleanup(func() { _ = os.Remove("/run/giggle-gpus/" + uuid) })
		at := filepath.Join(dir, "proc/driver/nvidia/gpus", bus)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("Model: \t %s\nGPU UUID: \t %s\nBus Location: \t %s\nDevice Minor: \t %d\n", model, uuid,
			bus, k)
		if err := os.WriteFile(filepath.Join(at, "information"), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
		node := filepath.Join(dir, fmt.Sprint("nvidia", k))
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil { // /dev/zero's
			t.Fatal(err)
		}
		if err := os.Chmod(node, 0o666); err != nil {
			t.Fatal(err)
		}
		spec += fmt.Sprintf("- name: %q\n  containerEdits:\n    deviceNodes:\n    - {path: /dev/nvidia%d, hostPath: %s}\n", fmt.Sprint(k), k, node)
	}
	if err := os.WriteFile(filepath.Join(dir, "nvidia.yaml"), []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	cards, err := engine.GPUs(dir)
	if err != nil || len(cards) != len(models) {
		t.Fatal(cards, err)
	}
	for _, c := range cards {
		gpus.Have = append(gpus.Have, run.GPU{GPU: c, Kinds: run.GPUKinds(c.Model, nil)})
	}
	return dir, gpus
}

// Containers of two services have a GPU each, and see no other; one without sees none, though its image asks for all; a
// third gets the one that is given back.
func TestContainersWithGPUs(t *testing.T) {
	cdi, gpus := machine(t, "NVIDIA L4", "NVIDIA T4", "NVIDIA L4")
	w := newWorldWith(t, []string{cdi})
	s := w.scalerWith(t, gpus)
	service := func(name string, gpu int) run.Revision {
		rev := w.revision(t, v1.Config{
			Entrypoint: []string{"/app", "serve"},
			Env:        []string{"NVIDIA_VISIBLE_DEVICES=all"},
		}, func(c *run.Container) { c.GPU = gpu })
		rev.Name.Service.ID, rev.Name.ID, rev.Template.CPUAlways = name, name+"-00001-abc", true
		rev.Template = rev.Template.WithDefaults("")
		return rev
	}
	devices := func(l *scale.Lease) (found []string) {
		list, err := send(t.Context(), l, "/list?path=/dev")
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.SplitSeq(strings.Trim(list, "[]\n"), ",") {
			if name = strings.Trim(name, `"`); strings.HasPrefix(name, "nvidia") {
				found = append(found, name)
			}
		}
		return found
	}
	var leases []*scale.Lease
	var seen []string
	for _, name := range []string{"one", "two"} {
		l, err := s.Acquire(t.Context(), service(name, 1))
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, l)
		got := devices(l)
		if len(got) != 1 {
			t.Fatalf("%s has %v, want one GPU", name, got)
		}
		if bytes, err := send(t.Context(), l, "/head?path=/dev/"+got[0]); err != nil || bytes != "00000000" {
			t.Errorf("the device gives %q, %v", bytes, err)
		}
		seen = append(seen, got[0])
	}
	if slices.Sort(seen); !slices.Equal(seen, []string{"nvidia0", "nvidia2"}) {
		t.Errorf("the two have %v, want the two L4", seen)
	}
	without, err := s.Acquire(t.Context(), service("without", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer without.Release()
	if got := devices(without); len(got) != 0 {
		t.Errorf("a service without a GPU has %v", got)
	}
	var callers []local.Caller
	for range 3 {
		callers = append(callers, <-w.callers)
	}
	leases[0].Release()
	leases[1].Release()
	third, err := s.Acquire(t.Context(), service("three", 1)) // one of the idle ones makes room
	if err != nil {
		t.Fatal(err, callers)
	}
	defer third.Release()
	if got := devices(third); len(got) != 1 || !slices.Contains(seen, got[0]) {
		t.Errorf("the third has %v", got)
	}
	used := 0
	for _, st := range s.Stats() {
		used += st.GPUs
		if st.GPUs > 0 && st.GPU <= 0 {
			t.Errorf("%s: a GPU for no time: %+v", st.Revision.ID, st)
		}
	}
	if used != 2 {
		t.Errorf("%d GPUs are in use, want 2", used)
	}
}
