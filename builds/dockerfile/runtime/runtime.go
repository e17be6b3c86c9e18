// Package runtime is the OCI runtime that BuildKit is told to start for RUN steps. It makes the step's container a
// stranger to BuildKit, has its programs trust the platform's certificates, and then becomes the real runtime, under
// the same process id.
//
// A step gets a user namespace inside BuildKit's, in which users have the same numbers: so files have the right owners,
// in layers and in cache mounts, and yet its root has no power over BuildKit's namespaces, nor over the network
// namespace that it is given here, which belongs to BuildKit's users. The platform furnishes that one, and puts the
// container into a group with limits (engine.Gate).
//
// RUN steps see the platform under Google's names, and others such as registry.ollama.ai, with certificates of its own
// CA. What makes programs trust them must not be left in an image, and must not change what BuildKit takes a step for
// in its cache: so it is added here, where the step's container is already described. The bundle is mounted into the
// container's /dev, which is never a part of a layer. So are the project's caches (cache.go).
package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"giggle/engine"
)

// Name is the file name by which a program is started as the runtime.
const Name = "giggle-build-runtime"

// Bundle is where a step finds the certificates.
const Bundle = "/dev/giggle-trust.pem"

// Plan is what the runtime does, in a file beside it: PlanFile.
type Plan struct {
	Runtime string   // the real one, an absolute path
	Trust   string   // PEM file of the certificates, an absolute path
	Env     []string // names of the variables that are set to Bundle where a step has not set them
	IDs     uint32   // how many users and groups there are
	Caches  string   // directory of the project's caches, an absolute path; "" for none
}

// PlanFile is where the runtime at a path reads its plan.
func PlanFile(program string) string { return program + ".json" }

// denied are the capabilities that steps don't get of those that Docker gives: raw sockets and devices.
var denied = []string{"CAP_NET_RAW", "CAP_MKNOD"}

// Run becomes the real runtime. It returns only when that fails.
func Run(args, environ []string) error {
	b, err := os.ReadFile(PlanFile(args[0]))
	if err != nil {
		return err
	}
	var p Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if bundle := bundleOf(args[1:]); bundle != "" {
		runtime.LockOSThread() // the one that executes the runtime
		connection, err := p.contain(bundle)
		if err != nil {
			return fmt.Errorf("%s: %w", bundle, err)
		}
		defer connection.Close() // where there is no real runtime to keep it
	}
	return unix.Exec(p.Runtime, append([]string{p.Runtime}, args[1:]...), environ)
}

// contain makes what the container of a bundle gets from outside, and describes it there.
func (p Plan) contain(bundle string) (connection *os.File, err error) {
	config := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	sysfs := filepath.Join(bundle, "sys")
	b, c, err := p.edit(b, sysfs)
	if err != nil {
		return nil, err
	}
	for _, dir := range c.compilers {
		seed(c.root, dir)
	}
	if c.apt != nil {
		if err := keep(c.apt); err != nil { // its end is the container's
			return nil, err
		}
	}
	if err := os.WriteFile(config, b, 0o600); err != nil { // BuildKit has made it for this one start
		return nil, err
	}
	gate, err := engine.OpenGate()
	if err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := os.Mkdir(sysfs, 0o755); err != nil {
		return nil, err
	}
	// The container's root may not mount one that shows a network of BuildKit's users.
	if err := unix.Mount("sysfs", sysfs, "sysfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		""); err != nil {
		return nil, &os.PathError{Op: "mount sysfs", Path: sysfs, Err: err}
	}
	// When memory gets scarce, a step ends before BuildKit does.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0); err != nil {
		return nil, err
	}
	ns := -1
	if c.network {
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		ns = int(f.Fd())
	}
	if connection, err = gate.Announce(ns); err != nil {
		return nil, err
	}
	return connection, keep(connection)
}

// kept are files that stay open in the real runtime, which closes them for the container.
var kept []*os.File

func keep(f *os.File) error {
	kept = append(kept, f) // or the collector would close it
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0)
	return err
}

// bundleOf is the directory of the container that the arguments create, or "" where they create none (runc's command
// line).
func bundleOf(args []string) string {
	if !slices.Contains(args, "run") && !slices.Contains(args, "create") {
		return ""
	}
	for i, a := range args {
		switch {
		case (a == "--bundle" || a == "-b") && i+1 < len(args):
			return args[i+1]
		case strings.HasPrefix(a, "--bundle="):
			return strings.TrimPrefix(a, "--bundle=")
		}
	}
	return "."
}

type mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

type namespace struct {
	Type string `json:"type"`
	Path string `json:"path,omitempty"`
}

type mapping struct {
	ContainerID uint32 `json:"containerID"`
	HostID      uint32 `json:"hostID"`
	Size        uint32 `json:"size"`
}

// object is a JSON object of which only some fields are looked at; the others stay as they are.
type object map[string]json.RawMessage

// get reads a field, if it is there.
func (o object) get(name string, into any) error {
	if raw := o[name]; raw != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (o object) set(name string, value any) error {
	raw, err := json.Marshal(value)
	o[name] = raw
	return err
}

// container is what a description says.
type container struct {
	root      string   // its file system
	network   bool     // it is to have the platform's network: it asks for none of its own
	compilers []string // directories of caches of the Go compiler that it sees
	apt       *os.File // what holds the cache of Debian's packages, nil where it has none
}

// edit changes a description in the form of the OCI runtime specification.
func (p Plan) edit(config []byte, sysfs string) (edited []byte, c container, err error) {
	var whole, process, linux object
	if err := json.Unmarshal(config, &whole); err != nil {
		return nil, c, err
	}
	if err := errors.Join(whole.get("process", &process), whole.get("linux", &linux)); err != nil {
		return nil, c, err
	}
	if process == nil || linux == nil {
		return nil, c, errors.New("no process or no linux is described")
	}
	var env []string
	var capabilities map[string][]string
	var mounts []json.RawMessage
	var mounted []mount // the same
	var root struct {
		Path string `json:"path"`
	}
	var namespaces []namespace
	err = errors.Join(
		process.get("env", &env), process.get("capabilities", &capabilities), linux.get("namespaces", &namespaces),
		whole.get("mounts", &mounts), whole.get("mounts", &mounted), whole.get("root", &root),
	)
	if err != nil {
		return nil, c, err
	}
	isSet := func(name string) bool {
		return slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	}
	for _, name := range p.Env {
		if !isSet(name) {
			env = append(env, name+"="+Bundle)
		}
	}
	added := []mount{
		{"/sys", "bind", sysfs, []string{"rbind", "ro", "nosuid", "nodev", "noexec"}},
		{Bundle, "bind", p.Trust, []string{"bind", "ro", "nosuid", "nodev", "noexec"}},
	}
	c.root = root.Path
	for _, m := range mounted {
		if m.Type == "bind" && strings.HasSuffix(m.Destination, "/"+goBuild.place) {
			c.compilers = append(c.compilers, m.Source)
		}
	}
	if p.Caches != "" {
		added = append(added, mount{CacheDir, "bind", p.Caches, []string{"rbind", "rw", "nosuid", "nodev"}})
		for _, k := range caches {
			if isSet(k.env) || slices.ContainsFunc(mounted, k.isAt) {
				continue
			}
			env = append(env, k.env+"="+path.Join(CacheDir, k.name))
			if k == goBuild {
				c.compilers = append(c.compilers, filepath.Join(p.Caches, k.name))
			}
		}
		if !isSet(aptVariable) && !slices.ContainsFunc(mounted, hasAPTMount) {
			if c.apt = takeAPT(p.Caches); c.apt != nil {
				env = append(env, aptVariable+"="+path.Join(CacheDir, aptConfig))
			}
		}
	}
	for set, names := range capabilities {
		capabilities[set] = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(denied, name) })
	}
	has := func(kind string) bool {
		return slices.ContainsFunc(namespaces, func(n namespace) bool { return n.Type == kind })
	}
	c.network = !has("network")
	if !has("user") {
		namespaces = append(namespaces, namespace{Type: "user"})
	}
	for _, m := range added {
		raw, err := json.Marshal(m)
		if err != nil {
			return nil, c, err
		}
		mounts = append(mounts, raw)
	}
	ids := []mapping{{0, 0, p.IDs}}
	err = errors.Join(
		process.set("env", env), process.set("capabilities", capabilities), process.set("noNewPrivileges", true),
		linux.set("namespaces", namespaces), linux.set("uidMappings", ids), linux.set("gidMappings", ids),
		whole.set("process", process), whole.set("linux", linux), whole.set("mounts", mounts),
	)
	if err != nil {
		return nil, c, err
	}
	edited, err = json.Marshal(whole)
	return edited, c, err
}
