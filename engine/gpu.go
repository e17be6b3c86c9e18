package engine

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"giggle/fault"
)

// GPU is one NVIDIA GPU of the machine.
type GPU struct {
	UUID  string // "GPU-…", which no other has
	Model string // as the driver names it, "NVIDIA L4"
	Bus   string // PCI address, "0000:00:03.0"
	Minor int    // its device node is /dev/nvidiaMinor
}

// gpuInformation is what the kernel driver tells of each GPU, one directory for each by PCI address.
const gpuInformation = "proc/driver/nvidia/gpus/*/information"

// GPUs lists the NVIDIA GPUs of the machine that the kernel driver may use, in the order of their PCI addresses, which
// is also nvidia-smi's. Root is where /proc lies: "/", or another directory in tests. It runs no program and loads no
// library. One that can't be read is left out, and the error says so beside those that can.
func GPUs(root string) (found []GPU, err error) {
	defer fault.Wrap(&err, "engine.GPUs")
	files, err := filepath.Glob(filepath.Join(root, gpuInformation))
	if err != nil {
		return nil, err
	}
	var bad []string
	for _, path := range files {
		g, use, err := readGPU(path)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", path, err))
		} else if use {
			found = append(found, g)
		}
	}
	slices.SortFunc(found, func(a, b GPU) int { return cmp.Compare(a.Bus, b.Bus) })
	if len(bad) > 0 {
		return found, fault.New(fault.FailedPrecondition, "The NVIDIA driver's list can't be read: %s.",
			strings.Join(bad, "; "))
	}
	return found, nil
}

func readGPU(path string) (g GPU, use bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return g, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return g, false, err
	}
	return parseGPU(string(b))
}

var (
	gpuUUID = regexp.MustCompile(`^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	gpuBus  = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
)

// parseGPU reads lines of "Key: value". A GPU that the driver was told to leave alone is not to be used.
func parseGPU(text string) (g GPU, use bool, err error) {
	g.Minor = -1
	excluded := false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Model":
			g.Model = value
		case "GPU UUID":
			g.UUID = strings.ToLower(value)
			if rest, ok := strings.CutPrefix(g.UUID, "gpu-"); ok {
				g.UUID = "GPU-" + rest
			}
		case "Bus Location":
			g.Bus = strings.ToLower(value)
		case "Device Minor":
			if g.Minor, err = strconv.Atoi(value); err != nil || g.Minor < 0 || g.Minor > 1<<20 {
				return GPU{}, false, fmt.Errorf("device minor %.20q is no number", value)
			}
		case "GPU Excluded":
			excluded = strings.EqualFold(value, "yes")
		}
	}
	switch {
	case excluded:
		return GPU{}, false, nil
	case strings.Contains(g.UUID, "?"): // the driver reads it from the card when the first program uses that
		return GPU{}, false, fmt.Errorf("the driver doesn't know the GPU's UUID yet: run nvidia-smi once, or nvidia-persistenced")
	case !gpuUUID.MatchString(g.UUID):
		return GPU{}, false, fmt.Errorf("%.60q is not a GPU's UUID", g.UUID)
	case !gpuBus.MatchString(g.Bus):
		return GPU{}, false, fmt.Errorf("%.40q is not a PCI address", g.Bus)
	case g.Model == "" || len(g.Model) > 200 || g.Minor < 0:
		return GPU{}, false, fmt.Errorf("no model, or no device minor")
	}
	return g, true, nil
}
