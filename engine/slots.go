package engine

import (
	"fmt"
	"os"
	"sync"

	"giggle/fault"
)

// An instance has slotSize uids and gids of its own on the host; slotCount instances may live at once.
const (
	slotSize  = IDs
	slotCount = 1024
)

// IDs is how many users, and how many groups, there are in an instance and in a daemon.
const IDs = 65536

// slots gives out ranges of host uids.
type slots struct {
	base  uint32
	maker *os.File // of user namespaces

	mu   sync.Mutex
	free []*slot // last in, first out: the user namespace of a used one is there already
	made uint32
}

// slot is one range: base and the next slotSize-1 are 0 and so on in the container.
type slot struct {
	base  uint32
	maker *os.File

	once sync.Once
	ns   *os.File // a user namespace with this mapping, for idmapped mounts
	err  error
}

func newSlots(base uint32) (*slots, error) {
	maker, err := newMaker()
	return &slots{base: base, maker: maker}, err
}

func (s *slots) take() (*slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		got := s.free[n-1]
		s.free = s.free[:n-1]
		return got, nil
	}
	if s.made == slotCount {
		return nil, fault.New(fault.ResourceExhausted, "%d instances run on this machine, which is the most.",
			slotCount)
	}
	s.made++
	return &slot{base: s.base + (s.made-1)*slotSize, maker: s.maker}, nil
}

func (s *slots) give(back *slot) {
	s.mu.Lock()
	s.free = append(s.free, back)
	s.mu.Unlock()
}

func (s *slots) close() {
	s.maker.Close()
	for _, sl := range s.free {
		if sl.ns != nil {
			sl.ns.Close()
		}
	}
}

// userns returns the descriptor of a user namespace with the slot's mapping.
func (s *slot) userns() (int, error) {
	s.once.Do(func() {
		if s.ns, s.err = newUserns(s.maker, s.base); s.err != nil {
			s.err = fmt.Errorf("make a user namespace: %w", s.err)
		}
	})
	if s.err != nil {
		return 0, s.err
	}
	return int(s.ns.Fd()), nil
}
