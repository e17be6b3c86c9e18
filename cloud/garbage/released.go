package garbage

import (
	"maps"
	"slices"
	"sync"

	"giggle/blob"
	"giggle/resource"
)

// Released is what something has ceased to refer to, and nothing may refer to any more.
type Released struct {
	wake chan struct{} // a token: there is something new

	mu      sync.Mutex
	fresh   candidates
	waiting candidates // too young when they were looked at
}

// candidates are what may go.
type candidates struct {
	blobs  map[blob.Digest]bool
	in     map[resource.Child]map[blob.Digest]bool // blobs that a repository may still have
	layers bool                                    // what is unpacked of images that are gone, perhaps
}

func newCandidates() candidates {
	return candidates{blobs: map[blob.Digest]bool{}, in: map[resource.Child]map[blob.Digest]bool{}}
}

func (c *candidates) add(of ...blob.Digest) {
	for _, d := range of {
		c.blobs[d] = true
	}
}

func (c *candidates) addIn(in resource.Child, of ...blob.Digest) {
	if c.in[in] == nil {
		c.in[in] = make(map[blob.Digest]bool)
	}
	for _, d := range of {
		c.in[in][d] = true
	}
}

func (c *candidates) merge(o candidates) {
	maps.Copy(c.blobs, o.blobs)
	for in, of := range o.in {
		c.addIn(in, slices.Collect(maps.Keys(of))...)
	}
	c.layers = c.layers || o.layers
}

// NewReleased returns an empty one.
func NewReleased() *Released {
	return &Released{wake: make(chan struct{}, 1), fresh: newCandidates(), waiting: newCandidates()}
}

// change changes what was released, and wakes who collects it.
func (r *Released) change(fn func(c *candidates)) {
	r.mu.Lock()
	fn(&r.fresh)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Object is a storage.Options.Released.
func (r *Released) Object(d blob.Digest) { r.change(func(c *candidates) { c.add(d) }) }

// Repository is an artifacts.Artifacts.Released.
func (r *Released) Repository(in resource.Child, of []blob.Digest) {
	r.change(func(c *candidates) { c.addIn(in, of...) })
}

// Image is for what an image is made of that a revision has ceased to run.
func (r *Released) Image(of []blob.Digest) {
	r.change(func(c *candidates) {
		c.add(of...)
		c.layers = true
	})
}

// Full is a disk.Config.Full: the collector looks at the disk when it is woken.
func (r *Released) Full() { r.change(func(*candidates) {}) }

// take returns what was released and forgets it; what waits only if it is asked for.
func (r *Released) take(waiting bool) candidates {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.fresh
	r.fresh = newCandidates()
	if waiting {
		out.merge(r.waiting)
		r.waiting = newCandidates()
	}
	return out
}

// wait puts back what was too young.
func (r *Released) wait(c candidates) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting.merge(c)
}
