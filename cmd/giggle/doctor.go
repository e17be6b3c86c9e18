package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"giggle/artifacts/mirror"
	"giggle/builds/buildpack"
	"giggle/engine"
	"giggle/fault"
	cloudrun "giggle/run"

	"log/slog"
)

// finding is one line of doctor.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // "ok", "warn" or "fail"
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

func (p *program) doctor() *cobra.Command {
	var data, address, mirrorDir string
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine has and lacks for the cloud; each failing line carries its fix",
		Long: "Doctor checks what this machine has and lacks for the cloud. On a machine with a default route it asks Google for\n" +
			"the time and Docker Hub for the limit that is left; GIGGLE_EGRESS=off has it ask nobody.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := p.examine(cmd.Context(), data, address, mirrorDir)
			bad := 0
			for _, f := range found {
				if f.State == "fail" {
					bad++
				}
			}
			if asJSON {
				if err := p.printJSON(found); err != nil {
					return err
				}
			} else {
				for _, f := range found {
					p.printf("%-5s %-20s %s\n", f.State, f.Check, f.Detail)
					if f.Fix != "" {
						p.printf("      %-20s → %s\n", "", f.Fix)
					}
				}
			}
			if bad > 0 {
				return exit(1)
			}
			return nil
		},
	}
	p.dataFlag(c, &data)
	c.Flags().StringVar(&address, "address", "127.71.71.1", "address that the platform will have")
	c.Flags().StringVar(&mirrorDir, "mirror", defaultMirror, "directory of foreign images")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) examine(ctx context.Context, data, address, mirrorDir string) []finding {
	var out []finding
	add := func(check string, ok bool, detail, fix string) {
		f := finding{Check: check, State: "ok", Detail: detail}
		if !ok {
			f.State, f.Fix = "fail", fix
		}
		out = append(out, f)
	}
	warn := func(check string, ok bool, detail, fix string) {
		add(check, ok, detail, fix)
		if !ok {
			out[len(out)-1].State = "warn"
		}
	}
	root := os.Geteuid() == 0
	add("root", root, fmt.Sprintf("uid %d", os.Geteuid()), "run `sudo giggle doctor`: containers need root")
	add("overlayfs", hasOverlay("/"), "layers of images are mounted with it",
		"use a kernel with CONFIG_OVERLAY_FS, or modprobe overlay")
	add("user namespaces", exists("/proc/self/ns/user"), "each container has one", "use a kernel with CONFIG_USER_NS")
	out = append(out, examineCgroups("/sys/fs/cgroup"))
	if root {
		runtime, err := tryRuntime(ctx, data)
		add("OCI runtime", err == nil, orErr(runtime, err), "apt-get install crun (or runc)")
	}
	for _, port := range []int{443, 80, 53} {
		err := tryPort(address, port)
		used := errors.Is(err, syscall.EADDRINUSE)
		if st, e := getStatus(ctx, data); used && e == nil && st.Address == address {
			add(fmt.Sprintf("port %d", port), true, "used by the platform that runs", "")
			continue
		}
		add(fmt.Sprintf("port %d", port), err == nil,
			orErr(net.JoinHostPort(address, strconv.Itoa(port))+" is free", err),
			"stop who listens there, or use --address 127.71.71.2")
	}
	free := freeBytes(data)
	warn("disk", free > 5<<30, fmt.Sprintf("%.1f GiB free for %s", float64(free)/(1<<30), data),
		"free some space, or use --data on a larger disk")
	now := time.Now().Year()
	add("clock", now >= 2024 && now < 2100, time.Now().UTC().Format(time.RFC3339),
		"set the clock: tokens and certificates depend on it")
	out = append(out, examineNetwork(ctx, p.getenv, realSurroundings)...)
	out = append(out, examineGPUs("/", engine.CDIDirs())...)
	version := firstLine(ctx, "gcloud", "--version")
	warn("gcloud", version != "", orNone(version),
		"install the Google Cloud SDK; Giggle was tested with 528.0.0. Other clients work without it")
	have := "no Go builder image"
	if m, err := mirror.Open(mirrorDir); err == nil {
		if img, err := m.Get(buildpack.GoImage); err == nil {
			have = "Go builder image with " + img.Config.Labels[buildpack.VersionLabel]
		}
	}
	warn("builder", !strings.HasPrefix(have, "no "), have,
		"`make setup` in Giggle's repository makes it; without it Go source can't be built")
	return out
}

// examineGPUs says of each GPU whether services can have it. A machine without one lacks nothing.
func examineGPUs(root string, cdi []string) (out []finding) {
	cards, err := engine.GPUs(root)
	if err != nil {
		out = append(out, finding{
			Check:  "GPU",
			State:  "warn",
			Detail: fault.From(err).Message,
			Fix:    "load NVIDIA's driver and run nvidia-smi once",
		})
	}
	for _, g := range cards {
		f := finding{Check: "GPU", State: "ok", Detail: g.Model + ", " + g.UUID}
		switch kinds := cloudrun.GPUKinds(g.Model, nil); {
		case engine.CheckGPU(cdi, g) != nil:
			f.State, f.Fix = "warn", fault.From(engine.CheckGPU(cdi, g)).Message
		case len(kinds) == 0:
			f.State, f.Detail = "warn", f.Detail+", which is none of Cloud Run's"
			f.Fix = fmt.Sprintf("giggle up --gpu-type nvidia-l4=%q has it stand for one", g.Model)
		default:
			f.Detail += ", for services with --gpu-type " + kinds[0]
		}
		out = append(out, f)
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func orNone(s string) string {
	if s == "" {
		return "not found"
	}
	return s
}

func orErr(s string, err error) string {
	if err != nil {
		return err.Error()
	}
	return s
}

// hasOverlay reports whether the kernel has overlayfs: loaded, or as a module that the first mount loads.
func hasOverlay(root string) bool {
	if b, err := os.ReadFile(filepath.Join(root, "proc/filesystems")); err == nil &&
		strings.Contains(string(b), "\toverlay\n") {
		return true
	}
	release, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/osrelease"))
	if err != nil {
		return false
	}
	modules, err := os.ReadFile(filepath.Join(root, "lib/modules", strings.TrimSpace(string(release)), "modules.dep"))
	return err == nil && strings.Contains(string(modules), "/overlay.ko")
}

// examineCgroups says which cgroup hierarchy is mounted at a directory, and whether it can limit what Giggle limits.
func examineCgroups(at string) finding {
	f := finding{Check: "cgroups", State: "ok"}
	b, err := os.ReadFile(filepath.Join(at, "cgroup.controllers"))
	missing := engine.MissingControllers(string(b))
	switch {
	case err == nil && len(missing) == 0:
		f.Detail = "v2"
	case err == nil:
		f.State, f.Detail, f.Fix = "fail", "v2, without a controller for "+
			strings.Join(missing, " and "), engine.EnableControllers
	case exists(filepath.Join(at, "memory")) && exists(filepath.Join(at, "unified")):
		f.Detail = "v1 (hybrid)"
	case exists(filepath.Join(at, "memory")):
		f.Detail = "v1"
	default:
		f.State, f.Detail, f.Fix = "fail", "not found", "mount cgroups: mount -t cgroup2 none /sys/fs/cgroup"
	}
	return f
}

// tryRuntime opens an engine in a temporary directory on the file system that a data directory is on, or will be. It
// runs a container.
func tryRuntime(ctx context.Context, data string) (name string, err error) {
	dir, err := os.MkdirTemp(existing(data), "giggle-doctor-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e, err := engine.Open(ctx, engine.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", errors.New(fault.From(err).Error())
	}
	return e.Runtime() + " ran a container", e.Close()
}

func tryPort(address string, port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

// existing is a directory, or what there is of it: the nearest one above.
func existing(dir string) string {
	for !exists(dir) && dir != "/" && dir != "." {
		dir = filepath.Dir(dir)
	}
	return dir
}

// freeBytes is the free space of the file system that a directory is on, or will be.
func freeBytes(dir string) uint64 {
	var st syscall.Statfs_t
	if syscall.Statfs(existing(dir), &st) != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}

// firstLine runs a program and returns the first line that it prints, or "".
func firstLine(ctx context.Context, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
