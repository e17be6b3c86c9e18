// Package engine runs containers on one machine through an OCI runtime binary (crun or runc).
//
// It serves the data plane (instances that answer requests) and builds (steps that run to completion). A container is
// prepared first, with its namespaces, limits, mounts and sockets made and its process not yet started; starting it is
// then a matter of milliseconds. Everything runs hardened, and there is no switch to turn that off: a user namespace
// of its own per instance, no network but the platform's sockets, a seccomp filter, few capabilities, limits.
//
// It is the only package that touches namespaces, cgroups and mounts. It knows no images (only unpacked layers), no
// services, no metadata: what the platform's sockets answer is the caller's function.
package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"giggle/engine/egress"
	"giggle/engine/netns"
	"giggle/fault"
)

// Config is what Open needs to know.
type Config struct {
	Dir     string           // where the engine keeps what must be on disk; two engines never share one
	Runtime string           // "crun", "runc" or a path; empty tries crun, then runc, by running a container
	UIDBase uint32           // first host uid for instances, 65536 for each; 0 derives one from Dir
	Log     *slog.Logger     // hears of what goes wrong in the background
	Now     func() time.Time // the time of log lines; nil means time.Now
	CDI     []string         // directories of CDI specs; nil means CDIDirs()
	Memory  int64            // bytes of all instances and daemons together; 0 sets no limit
	// processes and threads of them together; 0 means three quarters of what the kernel can have
	Pids int64
	// Egress says what instances with Sockets.Outside reach of the outside; nil means nothing. The engine sets its Key
	// and Log.
	Egress *egress.Config
}

// Engine runs containers. It is safe for concurrent use.
type Engine struct {
	dir     string
	run     string // /run/giggle-KEY: the runtime's state, and where the worker mounts
	key     string // derived from dir
	log     *slog.Logger
	now     func() time.Time
	lock    *os.File
	host    *os.File // the host's network namespace
	worker  *worker
	base    *os.Root // the worker's tmpfs, one directory per instance
	files   *shared
	slots   *slots
	nets    *netns.Pool
	egress  *egress.Router // nil for none
	cgroups *cgroups
	runtime ociRuntime
	limit   unix.Rlimit   // on open files, for instances
	conns   *connections  // of instances to the platform
	cdi     []string      // directories of CDI specs
	creates chan struct{} // bounds the containers that are being created at once

	// The filter depends on the capabilities only, which all instances share.
	seccompOnce sync.Once
	seccomp     *specs.LinuxSeccomp
	seccompErr  error

	mu        sync.Mutex
	instances map[string]*Instance // by Spec.ID
	layers    map[string][]string  // by the engine's own name for an instance, from Prepare until it is cleared away
	serial    int
	closed    bool
	cleanups  sync.WaitGroup
	closing   sync.Once
	ending    chan struct{} // closed when all instances have ended for good
}

// Open starts an engine on cfg.Dir. First it removes everything that an earlier one left behind when it was killed:
// processes, cgroups, runtime state, writable layers. It makes the calling process the reaper of its orphans (see
// PR_SET_CHILD_SUBREAPER in prctl(2)); it waits for no child but its own.
//
// Needs root, overlayfs on file systems that can be idmapped, Linux 5.19 or newer.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	defer fault.Wrap(&err, "engine.Open")
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	e := &Engine{
		dir:       dir,
		key:       hex.EncodeToString(sum[:6]),
		log:       cfg.Log,
		now:       cfg.Now,
		instances: map[string]*Instance{},
		layers:    map[string][]string{},
		creates:   make(chan struct{}, 4*runtime.NumCPU()),
		ending:    make(chan struct{}),
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.cdi = cfg.CDI; e.cdi == nil {
		e.cdi = CDIDirs()
	}
	e.run = "/run/giggle-" + e.key
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if e.lock, err = lock(dir); err != nil {
		return nil, err
	}
	if e.host, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	if e.cgroups, err = findCgroups("giggle-" + e.key); err != nil {
		return nil, err
	}
	if err := e.reap(ctx); err != nil {
		return nil, err
	}
	if err := e.cgroups.delegate(); err != nil {
		return nil, err
	}
	if cfg.Pids == 0 {
		cfg.Pids = kernelPids() / 4 * 3
	}
	if err := e.cgroups.limit("", cfg.Memory, cfg.Pids); err != nil {
		return nil, fmt.Errorf("limit all instances together: %w", err)
	}
	if err := e.furnish(); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &e.limit); err != nil {
		return nil, err
	}
	e.conns = newConnections(e.limit.Cur)
	base := cfg.UIDBase
	if base == 0 {
		// 2^29 and up: above the ranges that useradd gives out. 32 engines can stand side by side by luck alone.
		base = 1<<29 + uint32(sum[6]%32)*slotCount*slotSize
	}
	if e.slots, err = newSlots(base); err != nil {
		return nil, err
	}
	if err := e.tryIdmap(); err != nil {
		return nil, err
	}
	if cfg.Egress != nil {
		way := *cfg.Egress
		way.Key, way.Log = e.key, e.log
		way.Sockets = int(min(e.limit.Cur/4, 1<<20)) // conns.go has half of the files
		switch missing := egress.Available(); {
		case missing == nil:
			if e.egress, err = egress.New(way); err != nil {
				return nil, err
			}
		case way.Required:
			return nil, missing
		default:
			e.log.Warn("no egress", "err", missing)
		}
	}
	e.nets = netns.NewPool(4, func(err error) { e.log.Error("make a network namespace", "err", err) })
	if err := e.pickRuntime(ctx, cfg.Runtime); err != nil {
		return nil, err
	}
	return e, nil
}

// furnish makes the directories and starts the worker.
func (e *Engine) furnish() error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{e.run, 0o711}, {e.state(), 0o700}, {e.tmpfs(), 0o711}, {e.disk(), 0o700}} {
		// Container root, a stranger to the host, must be able to walk through e.run and e.tmpfs.
		if err := errors.Join(os.MkdirAll(d.path, d.mode), os.Chmod(d.path, d.mode)); err != nil {
			return err
		}
	}
	var err error
	if e.worker, err = startWorker(); err != nil {
		return err
	}
	err = e.worker.do(func() error {
		if err := e.cgroups.hideUnified(); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", e.tmpfs(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV,
			"mode=0711,size=256m"); err != nil {
			return &os.PathError{Op: "mount tmpfs", Path: e.tmpfs(), Err: err}
		}
		e.base, err = os.OpenRoot(e.tmpfs())
		return err
	})
	if err != nil {
		return err
	}
	e.files = newShared(e.disk())
	return nil
}

func (e *Engine) state() string { return filepath.Join(e.run, "state") }
func (e *Engine) tmpfs() string { return filepath.Join(e.run, "i") }
func (e *Engine) disk() string  { return filepath.Join(e.dir, "disk") }

// lock makes sure that no other process has an engine on dir.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &fault.Error{
			Code:    fault.FailedPrecondition,
			Message: "Another Giggle runs on " + dir + ".",
			Cause:   err,
		}
	}
	return f, nil
}

// Sent returns how many bytes all instances and daemons' containers have sent to the outside.
func (e *Engine) Sent() uint64 { return e.egress.Sent() }

// Online reports whether instances reach the outside now: there is egress, and the machine has a default route.
func (e *Engine) Online() bool { return e.egress != nil && e.egress.Online() }

// EgressPath is by which means instances reach the outside, "" where they don't.
func (e *Engine) EgressPath() egress.Path {
	if e.egress == nil {
		return ""
	}
	path, _ := e.egress.Path()
	return path
}

// Runtime names the OCI runtime and its version, such as "crun 1.8.1".
func (e *Engine) Runtime() string { return e.runtime.version }

// Close kills every instance that is left and undoes all that Open did. A second call does nothing.
func (e *Engine) Close() (err error) {
	e.closing.Do(func() { err = e.close() })
	return err
}

func (e *Engine) close() error {
	e.mu.Lock()
	e.closed = true
	var left []*Instance
	for _, i := range e.instances {
		if i != nil {
			left = append(left, i)
		}
	}
	e.mu.Unlock()
	var wg sync.WaitGroup
	for _, i := range left {
		wg.Go(func() { i.Stop(context.Background(), 0) })
	}
	wg.Wait()
	close(e.ending)
	e.cleanups.Wait()

	var errs []error
	if e.nets != nil {
		e.nets.Close()
	}
	errs = append(errs, e.egress.Close())
	if e.slots != nil {
		e.slots.close()
	}
	if e.base != nil {
		e.base.Close()
	}
	if e.worker != nil {
		e.worker.stop() // takes its mounts along
	}
	if e.host != nil {
		e.host.Close()
	}
	e.runtime.close()
	if e.lock != nil { // only then was anything ours
		if e.cgroups != nil {
			errs = append(errs, e.cgroups.remove(""), e.cgroups.close())
		}
		errs = append(errs, os.RemoveAll(e.run), e.lock.Close())
	}
	return errors.Join(errs...)
}

// register gives a new instance its internal name, which no instance had before: leftovers of one with the same ID,
// still being cleared away, are not in its way.
func (e *Engine) register(id string, layers []string) (name string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return "", fault.New(fault.Unavailable, "The engine is stopping.")
	}
	if _, ok := e.instances[id]; ok {
		return "", fault.New(fault.AlreadyExists, "Instance %q exists already.", id)
	}
	e.instances[id] = nil // taken
	e.serial++
	e.cleanups.Add(1)
	name = "i" + strconv.Itoa(e.serial)
	e.layers[name] = layers
	return name, nil
}

// Layers returns the directories that instances are made of now, in no order, some of them more than once: what must
// not be removed.
func (e *Engine) Layers() (dirs []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.layers {
		dirs = append(dirs, l...)
	}
	return dirs
}
