package dockerapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"giggle/builds/volumes"
	"giggle/engine"
	"giggle/fault"
)

// container is one of docker run.
type container struct {
	id, name, image string
	created         time.Time
	spec            engine.Spec
	tty, auto       bool

	preparing sync.Once
	prepared  error
	started   chan struct{} // closed when a start was tried
	starting  sync.Once
	done      chan struct{}
	ended     sync.Once

	mu       sync.Mutex
	instance *engine.Instance // once it is prepared
	joins    []joining        // the networks that it is on
	mode     string           // what it was asked to be on
	output   bytes.Buffer
	lost     bool
	ears     []io.Writer
	exit     int
	failed   string
}

// maxContainers bounds the containers of one build, maxOutput the output that docker logs has of one, in bytes.
const (
	maxContainers = 100
	maxOutput     = 4 << 20
)

// createRequest is what docker run asks for, as far as it is known here.
type createRequest struct {
	Image                string
	Cmd, Entrypoint, Env []string
	WorkingDir, User     string
	Hostname             string
	Tty, OpenStdin       bool
	NetworkingConfig     struct{ EndpointsConfig map[string]*endpoint }
	HostConfig           struct {
		Binds  []string
		Mounts []struct {
			Type, Source, Target string
			ReadOnly             bool
		}
		AutoRemove, Privileged              bool
		Memory                              int64
		NanoCpus                            int64
		PidsLimit                           *int64
		PidMode, IpcMode                    string
		NetworkMode                         string
		UsernsMode, CgroupnsMode, UTSMode   string
		CapAdd, CapDrop, SecurityOpt        []string
		Devices, DeviceRequests             []json.RawMessage
		PortBindings                        map[string]json.RawMessage
		PublishAllPorts                     bool
		VolumesFrom, Links, ExtraHosts, DNS []string
		Tmpfs, Sysctls                      map[string]string
		ReadonlyRootfs                      bool
		Init                                *bool
		Runtime                             string
		RestartPolicy                       struct{ Name string }
	}
}

// private reports whether a namespace mode is the default.
func private(mode string) bool { return mode == "" || mode == "private" }

// refuse says what a container can't have.
func (c *createRequest) refuse() error {
	h := c.HostConfig
	var what string
	switch {
	case h.Privileged:
		what = "--privileged"
	case c.OpenStdin:
		what = "-i: a container has no standard input"
	case len(h.CapAdd) > 0:
		what = "--cap-add"
	case len(h.CapDrop) > 0:
		what = "--cap-drop"
	case len(h.SecurityOpt) > 0:
		what = "--security-opt"
	case len(h.Devices) > 0:
		what = "--device"
	case len(h.DeviceRequests) > 0:
		what = "--gpus"
	case h.NetworkMode == "host" || strings.HasPrefix(h.NetworkMode, "container:"):
		what = "--network=" + h.NetworkMode + ": it has a network of the build's, or none"
	case !private(h.PidMode) || !private(h.IpcMode) || !private(h.UsernsMode) || !private(h.CgroupnsMode) ||
		!private(h.UTSMode):
		what = "namespaces of others"
	case len(h.Links) > 0 || len(h.ExtraHosts) > 0 || len(h.DNS) > 0:
		what = "names of its own (--link, --add-host, --dns)"
	case len(h.Tmpfs) > 0:
		what = "--tmpfs"
	case len(h.Sysctls) > 0:
		what = "--sysctl"
	case h.ReadonlyRootfs:
		what = "--read-only"
	case h.Init != nil && *h.Init:
		what = "--init"
	case h.Runtime != "":
		what = "--runtime"
	case h.RestartPolicy.Name != "" && h.RestartPolicy.Name != "no":
		what = "--restart"
	case len(h.VolumesFrom) > 0:
		what = "--volumes-from"
	case len(h.PortBindings) > 0 || h.PublishAllPorts:
		what = "--publish: a container's ports can't be reached from outside"
	default:
		return nil
	}
	return fault.New(fault.Unimplemented, "docker run in a build step can't have %s.", what)
}

func (x *session) createContainer(w http.ResponseWriter, r *http.Request) error {
	var req createRequest
	if err := body(w, r, &req); err != nil {
		return err
	}
	if err := req.refuse(); err != nil {
		return err
	}
	img, err := x.find(req.Image)
	if err != nil {
		return err
	}
	unpacked, err := x.cfg.Images.Unpack(r.Context(), img.digest)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(x.cfg.NewID())) // ids look like Docker's
	c := &container{
		id:      hex.EncodeToString(sum[:]),
		name:    strings.TrimPrefix(r.URL.Query().Get("name"), "/"),
		image:   req.Image,
		created: x.cfg.Now(),
		tty:     req.Tty,
		auto:    req.HostConfig.AutoRemove,
		started: make(chan struct{}),
		done:    make(chan struct{}),
	}
	if c.name != "" && !containerName.MatchString(c.name) {
		return fault.New(fault.InvalidArgument,
			"Invalid container name (%.200s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", c.name)
	}
	if err := c.asked(&req); err != nil {
		return err
	}
	cfg := unpacked.Config
	entrypoint, cmd := cfg.Entrypoint, cfg.Cmd
	if req.Entrypoint != nil {
		entrypoint, cmd = slices.DeleteFunc(req.Entrypoint, func(s string) bool { return s == "" }), nil
	}
	if len(req.Cmd) > 0 {
		cmd = req.Cmd
	}
	c.spec = engine.Spec{
		ID:       x.cfg.NewID(),
		Layers:   unpacked.Layers,
		Args:     slices.Concat(entrypoint, cmd),
		Env:      slices.Concat(cfg.Env, x.cfg.Env, assigned(req.Env)),
		Dir:      first(req.WorkingDir, cfg.WorkingDir),
		User:     first(req.User, cfg.User),
		Hostname: req.Hostname,
		Disk:     true,
		Keep:     !req.HostConfig.AutoRemove,
		Memory:   x.cfg.Memory,
		Pids:     x.cfg.Pids,
		CPU:      req.HostConfig.NanoCpus / 1e6,
		Files:    x.cfg.Files,
		Sockets: x.cfg.Sockets(x.build).Saying(func(text string) {
			c.line(engine.Line{Stream: engine.Stderr, Text: text})
		}, x.cfg.Now),
		Output: c.line,
	}
	if x.cfg.Groups != nil {
		c.spec.Groups = x.cfg.Groups(x.build)
	}
	if c.mode == noNetwork {
		c.spec.Sockets = engine.Sockets{}
	}
	if m := req.HostConfig.Memory; m > 0 {
		c.spec.Memory = min(m, x.cfg.Memory)
	}
	if p := req.HostConfig.PidsLimit; p != nil && *p > 0 {
		c.spec.Pids = min(*p, x.cfg.Pids)
	}
	for _, b := range req.HostConfig.Binds {
		f := strings.Split(b, ":")
		if len(f) < 2 {
			return fault.New(fault.InvalidArgument, "invalid volume specification: %.200q", b)
		}
		if err := x.bind(r.Context(), c, f[0], f[1], len(f) > 2 && slices.Contains(strings.Split(f[2], ","), "ro")); err != nil {
			return err
		}
	}
	for _, m := range req.HostConfig.Mounts {
		if m.Type != "bind" && m.Type != "volume" {
			return fault.New(fault.Unimplemented, "docker run in a build step can't have mounts of type %.40q.", m.Type)
		}
		if err := x.bind(r.Context(), c, m.Source, m.Target, m.ReadOnly); err != nil {
			return err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.containers) >= maxContainers {
		return fault.New(fault.ResourceExhausted, "This build has %d containers; remove some.", maxContainers)
	}
	for _, other := range x.containers {
		if c.name != "" && other.name == c.name {
			return fault.New(fault.AlreadyExists, "Conflict. The container name %q is already in use.", c.name)
		}
	}
	x.containers[c.id] = c
	reply(w, http.StatusCreated, map[string]any{"Id": c.id, "Warnings": []string{}})
	return nil
}

// assigned drops variables without a value: the CLI sends them for what its own environment lacks.
func assigned(env []string) []string {
	return slices.DeleteFunc(env, func(kv string) bool { return !strings.Contains(kv, "=") })
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// bind shows a directory of the step in a container: what the steps share, or a volume of the build. Only whole ones: a
// step could put a link to the host in place of a directory below while it is being mounted.
func (x *session) bind(ctx context.Context, c *container, from, to string, readOnly bool) error {
	m := engine.Mount{Target: path.Clean(to), ReadOnly: readOnly}
	switch clean := path.Clean(from); {
	case volumes.Valid(from):
		var err error
		if m.Source, err = volumes.Open(ctx, x.volumes(), from, c.spec.Layers, m.Target); err != nil {
			return err
		}
	case clean == "/workspace":
		m.Source = filepath.Join(x.cfg.Shared(x.build), "workspace")
	case clean == "/builder/home":
		m.Source = filepath.Join(x.cfg.Shared(x.build), "home")
	case clean == "/var/run/docker.sock":
		m.Source = x.socket()
	default:
		return fault.New(fault.Unimplemented,
			"docker run in a build step can show /workspace and /builder/home as a whole, and named volumes; %.200q is none of them.", from)
	}
	c.spec.Mounts = append(c.spec.Mounts, m)
	return nil
}

// line takes a line of the container's output.
func (c *container) line(l engine.Line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := byte(1)
	if l.Stream == "stderr" {
		n = 2
	}
	frame := []byte(l.Text + "\n")
	if !c.tty { // "Stream format" of ContainerAttach
		frame = append(binary.BigEndian.AppendUint32([]byte{n, 0, 0, 0}, uint32(len(frame))), frame...)
	}
	if c.output.Len()+len(frame) <= maxOutput {
		c.output.Write(frame)
	} else {
		c.lost = true
	}
	for _, e := range c.ears {
		_, _ = e.Write(frame) // who went away hears nothing
	}
}

func (x *session) withContainer(
	fn func(http.ResponseWriter, *http.Request, *container) error,
) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		found, err := x.findContainer(r.PathValue("id"))
		if err != nil {
			return err
		}
		return fn(w, r, found)
	}
}

// findContainer finds a container by its name, or what its id begins with.
func (x *session) findContainer(ref string) (*container, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found *container
	for _, c := range x.containers {
		if c.name == strings.TrimPrefix(ref, "/") && c.name != "" {
			return c, nil
		}
		if ref != "" && strings.HasPrefix(c.id, ref) {
			found = c
		}
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "No such container: %.100s", ref)
	}
	return found, nil
}

// prepare makes a container ready to start, once. It is seen to its end.
func (x *session) prepare(c *container) error {
	c.preparing.Do(func() {
		spec := c.spec
		if spec.Networks, c.prepared = x.members(c); c.prepared != nil {
			return
		}
		var i *engine.Instance
		if i, c.prepared = x.cfg.Engine.Prepare(x.ctx, spec); c.prepared != nil {
			return
		}
		c.mu.Lock()
		c.instance = i
		c.mu.Unlock()
		x.running.Add(1)
		go func() {
			defer x.running.Done()
			select {
			case <-i.Done():
			case <-x.ctx.Done():
			}
			if err := i.Stop(context.WithoutCancel(x.ctx), 0); err != nil {
				x.cfg.Log.Error("stop a container of docker run", "build", x.build.Name, "err", err)
			}
			c.end(i.Exit().Code, "")
		}()
	})
	return c.prepared
}

// made is the instance of a container that was prepared, or nil.
func (c *container) made() *engine.Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.instance
}

// start starts a container once.
func (x *session) start(w http.ResponseWriter, r *http.Request, c *container) error {
	err := error(nil)
	c.starting.Do(func() {
		defer close(c.started)
		if err = x.prepare(c); err == nil {
			if err = c.made().Start(x.ctx); err != nil {
				c.end(127, fault.From(err).Message)
				err = errors.Join(err, c.made().Stop(context.WithoutCancel(x.ctx), 0))
			}
		}
		if err != nil {
			c.end(127, fault.From(err).Message)
		}
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// end notes how a container ended, the first time.
func (c *container) end(code int, why string) {
	c.ended.Do(func() {
		c.mu.Lock()
		c.exit, c.failed = code, why
		c.mu.Unlock()
		close(c.done)
	})
}

// attach hands the output over on the connection itself, from the start.
func (x *session) attach(w http.ResponseWriter, r *http.Request, c *container) error {
	if r.URL.Query().Get("stdin") == "1" {
		return fault.New(fault.Unimplemented, "A container of docker run has no standard input.")
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the other side may be gone
	media := "application/vnd.docker.multiplexed-stream"
	if c.tty {
		media = "application/vnd.docker.raw-stream"
	}
	if _, err := fmt.Fprintf(conn,
		"HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", media); err != nil {
		return nil
	}
	c.mu.Lock()
	_, _ = conn.Write(c.output.Bytes())
	c.ears = append(c.ears, conn)
	c.mu.Unlock()
	select {
	case <-c.done:
	case <-x.ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ears = slices.DeleteFunc(c.ears, func(e io.Writer) bool { return e == conn })
	return nil
}

// wait answers when a container has ended. The head is sent at once: the CLI starts the container after it.
func (x *session) wait(w http.ResponseWriter, r *http.Request, c *container) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return nil
	}
	select {
	case <-c.done:
	case <-r.Context().Done():
		return nil
	}
	c.mu.Lock()
	code, why := c.exit, c.failed
	c.mu.Unlock()
	out := map[string]any{"StatusCode": code}
	if why != "" {
		out["Error"] = map[string]string{"Message": why}
	}
	_ = json.NewEncoder(w).Encode(out)
	if c.auto {
		x.forget(c)
	}
	return nil
}

func (x *session) forget(c *container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.containers, c.id)
	if i := c.made(); i != nil {
		i.Discard()
	}
}

func (x *session) logs(w http.ResponseWriter, r *http.Request, c *container) error {
	if r.URL.Query().Get("follow") == "1" || r.URL.Query().Get("follow") == "true" {
		select {
		case <-c.done:
		case <-r.Context().Done():
			return nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
	_, _ = w.Write(c.output.Bytes())
	return nil
}

func (c *container) state() string {
	select {
	case <-c.done:
		return "exited"
	default:
	}
	select {
	case <-c.started:
		return "running"
	default:
		return "created"
	}
}

func (x *session) inspectContainer(w http.ResponseWriter, _ *http.Request, c *container) error {
	state, settings := c.state(), x.networkSettings(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{
		"Id": c.id, "Name": "/" + c.name, "Created": c.created.UTC().Format(time.RFC3339Nano), "Image": c.image,
		"State": map[string]any{"Status": state, "Running": state == "running", "ExitCode": c.exit,
			"Error": c.failed},
		"Config": map[string]any{"Tty": c.tty, "Image": c.image, "Cmd": c.spec.Args},
		"HostConfig": map[string]any{"LogConfig": map[string]string{"Type": "json-file"}, "AutoRemove": c.auto,
			"NetworkMode": c.mode},
		"NetworkSettings": settings,
	})
	return nil
}

func (x *session) listContainers(w http.ResponseWriter, r *http.Request) error {
	all := r.URL.Query().Get("all") == "1" || r.URL.Query().Get("all") == "true"
	x.mu.Lock()
	defer x.mu.Unlock()
	out := []map[string]any{}
	for _, c := range x.containers {
		state := c.state()
		if state != "running" && !all {
			continue
		}
		out = append(out, map[string]any{
			"Id": c.id, "Names": []string{"/" + first(c.name, c.id[:12])}, "Image": c.image,
			"Command": strings.Join(c.spec.Args, " "),
			"Created": c.created.Unix(), "State": state, "Status": state, "Ports": []any{},
		})
	}
	reply(w, http.StatusOK, out)
	return nil
}

// stop is docker stop and docker kill.
func (x *session) stop(w http.ResponseWriter, r *http.Request, c *container) error {
	grace := time.Duration(0)
	if strings.HasSuffix(r.URL.Path, "/stop") {
		grace = 10 * time.Second
		if t, err := strconv.Atoi(r.URL.Query().Get("t")); err == nil && t >= 0 && t < 600 {
			grace = time.Duration(t) * time.Second
		}
	}
	if c.state() == "running" {
		if err := c.made().Stop(r.Context(), grace); err != nil {
			return err
		}
		<-c.done
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (x *session) remove(w http.ResponseWriter, r *http.Request, c *container) (err error) {
	switch c.state() {
	case "running":
		if f := r.URL.Query().Get("force"); f != "1" && f != "true" {
			return fault.New(fault.AlreadyExists,
				"cannot remove container %q: container is running: stop the container before removing or force remove",
				c.id[:12])
		}
		if err := c.made().Stop(r.Context(), 0); err != nil {
			return err
		}
		<-c.done
	case "created":
		c.starting.Do(func() {
			close(c.started)
			c.preparing.Do(func() { c.prepared = fault.New(fault.NotFound, "No such container: %s", c.id[:12]) })
			if i := c.made(); i != nil {
				err = i.Stop(r.Context(), 0)
			}
			c.end(0, "")
		})
	}
	if err != nil {
		return err
	}
	x.forget(c)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
