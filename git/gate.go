package git

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"giggle/fault"
)

// How many things may be done at once, each with a git process or two. Each process may take some hundred MiB, and a
// client may hold one for as long as it likes to read slowly: a project takes no more than its part.
const (
	defaultParallel = 24
	defaultShare    = 6
	defaultPatience = 10 * time.Second
)

// gate bounds what is done at once, of all projects and of each.
type gate struct {
	all      *semaphore.Weighted
	share    int64
	patience time.Duration

	mu       sync.Mutex
	projects map[string]*part
}

// part is a project's. It is there as long as it is used or waited for.
type part struct {
	*semaphore.Weighted
	users int
}

func newGate(parallel, share int64, patience time.Duration) *gate {
	return &gate{
		all:      semaphore.NewWeighted(parallel),
		share:    share,
		patience: patience,
		projects: make(map[string]*part),
	}
}

// enter waits until there is room for one more of a project; leave gives it back. It fails with ResourceExhausted when
// that takes too long.
func (g *gate) enter(ctx context.Context, project string) (leave func(), err error) {
	wait, stop := context.WithTimeout(ctx, g.patience)
	defer stop()
	p := g.use(project)
	if err := p.Acquire(wait, 1); err != nil {
		g.unuse(project)
		return nil, busy(ctx, "The project has as many calls of git as it may have at once.")
	}
	part := func() {
		p.Release(1)
		g.unuse(project)
	}
	if err := g.all.Acquire(wait, 1); err != nil {
		part()
		return nil, busy(ctx, "There are as many calls of git as there may be at once.")
	}
	return func() {
		g.all.Release(1)
		part()
	}, nil
}

func busy(ctx context.Context, why string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := fault.New(fault.ResourceExhausted, "%s Try again.", why)
	e.RetryAfter = defaultPatience
	return e
}

func (g *gate) use(project string) *part {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.projects[project]
	if p == nil {
		p = &part{Weighted: semaphore.NewWeighted(g.share)}
		g.projects[project] = p
	}
	p.users++
	return p
}

func (g *gate) unuse(project string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.projects[project]; p.users > 1 {
		p.users--
	} else {
		delete(g.projects, project)
	}
}
