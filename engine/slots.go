package engine

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"giggle/fault"
)

// An instance has slotSize uids and gids of its own on the host; slotCount instances may live at once.
const (
	slotSize  = 65536
	slotCount = 1024
)

// slots gives out ranges of host uids.
type slots struct {
	base uint32

	mu   sync.Mutex
	free []*slot // last in, first out: the user namespace of a used one is there already
	made uint32
}

// slot is one range: base and the next slotSize-1 are 0 and so on in the container.
type slot struct {
	base uint32

	once sync.Once
	ns   *os.File // a user namespace with this mapping, for idmapped mounts
	err  error
}

func newSlots(base uint32) *slots { return &slots{base: base} }

func (s *slots) take() (*slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		got := s.free[n-1]
		s.free = s.free[:n-1]
		return got, nil
	}
	if s.made == slotCount {
		return nil, fault.New(fault.ResourceExhausted, "%d instances run on this machine, which is the most.", slotCount)
	}
	s.made++
	return &slot{base: s.base + (s.made-1)*slotSize}, nil
}

func (s *slots) give(back *slot) {
	s.mu.Lock()
	s.free = append(s.free, back)
	s.mu.Unlock()
}

func (s *slots) close() {
	for _, sl := range s.free {
		if sl.ns != nil {
			sl.ns.Close()
		}
	}
}

// userns returns the descriptor of a user namespace with the slot's mapping. The kernel makes one only together with a process:
// a child that is stopped before its first instruction, and killed once the namespace is open.
func (s *slot) userns() (int, error) {
	s.once.Do(func() {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(s.base), Size: slotSize}}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true}
		if s.err = cmd.Start(); s.err != nil {
			s.err = fmt.Errorf("make a user namespace: %w", s.err)
			return
		}
		s.ns, s.err = os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
		cmd.Process.Kill()
		cmd.Wait()
	})
	if s.err != nil {
		return 0, s.err
	}
	return int(s.ns.Fd()), nil
}
