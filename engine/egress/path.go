package egress

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
	"giggle/fault"
)

// Path is by which means namespaces reach the outside.
type Path string

// The paths. The kernel's is the faster one by far.
const (
	Auto      Path = "auto" // the kernel's where that can be made; so is ""
	Kernel    Path = "kernel"
	Userspace Path = "userspace"
)

// choose finds out which path to go, beside what else has to be done at start. Cleared is what became of the attempt to
// look at the machine's rules.
func (r *Router) choose(cleared error) error {
	switch {
	case r.cfg.Path == Userspace:
		r.impossible = fault.New(fault.Unavailable, "It was asked for.")
		close(r.decided)
		return nil
	case r.cfg.Path == Kernel:
		defer close(r.decided)
		if cleared != nil {
			return cleared
		}
		return Possible()
	case denied(cleared):
		r.impossible = cleared
		close(r.decided)
		return nil
	case cleared != nil:
		return cleared
	}
	go func() {
		defer close(r.decided)
		switch err := Possible(); {
		case denied(err):
			r.impossible = err
		case err != nil: // whatever it was, it need not be so when an instance dials
			r.cfg.Log.Warn("try the way of containers to the outside", "err", err)
		}
	}()
	return nil
}

// Path says by which means namespaces reach the outside, and for Userspace why not by the kernel's.
func (r *Router) Path() (Path, error) {
	if err := r.why(); err != nil {
		return Userspace, err
	}
	return Kernel, nil
}

func (r *Router) inUserspace() bool { return r.why() != nil }

// why is nil where the kernel's path is gone.
func (r *Router) why() error {
	<-r.decided
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.impossible
}

// denied reports whether the machine has refused something in a way that it will refuse again.
func denied(err error) bool {
	for _, e := range []unix.Errno{
		unix.EPERM, unix.EACCES, unix.EROFS, // by its rules
		unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOSYS, unix.ENOENT, unix.ENODEV, // for it lacks a module
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// fallBack leaves the kernel's path for good. It was possible at start, and isn't where it matters.
func (r *Router) fallBack(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.impossible == nil {
		r.impossible = err
		r.cfg.Log.Warn("containers reach the outside in userspace from now on, which is slower", "err", err)
	}
}

// Possible fails with Unavailable where the machine does not let this process make the kernel's path: it makes a
// router's namespace with all that belongs into it, and lets it go. Nothing of it is to be seen on the machine.
func Possible() error {
	err := rehearse()
	if err == nil {
		return nil
	}
	return &fault.Error{
		Code:    fault.Unavailable,
		Message: "This machine does not let the platform make veth devices and nftables rules (" + err.Error() + ").",
		Cause:   err,
	}
}

func rehearse() (err error) {
	defer fault.Wrap(&err, "egress.Possible")
	ns, err := netns.Bare()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	return ns.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: uplinkDevice, MTU: idleMTU}, PeerName: device}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("veth pair: %w", err)
		}
		up := &uplink{
			here:  gateway4,
			there: gateway4.Next(),
			mtu:   idleMTU,
		}
		up.here6, up.there6 = uniqueLocal("").Next(), uniqueLocal("").Next().Next()
		r := &Router{cfg: Config{Connections: 1}}
		if err := r.furnish(ns, up); err != nil {
			return fmt.Errorf("rules: %w", err)
		}
		return nil
	})
}
