package git

import (
	"context"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/store"
)

// Service is what a client of the smart protocol asks for.
type Service string

// The services. The first reads, the second writes.
const (
	UploadPack  Service = "git-upload-pack"
	ReceivePack Service = "git-receive-pack"
)

// maxRefs is how many branches and tags events are made of.
const maxRefs = 50_000

// serveTime is the longest that one exchange may take.
const serveTime = 30 * time.Minute

// Advertise writes the refs of a repository, as the first step of the smart protocol. Version is 0, 1 or 2.
func (g *Repos) Advertise(ctx context.Context, r Repo, s Service, version int, w io.Writer) (err error) {
	defer fault.Wrap(&err, "git.Advertise(%s)", r.Resource())
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	leave, err := g.gate.enter(ctx, r.Project)
	if err != nil {
		return err
	}
	defer leave()
	return g.stream(ctx, "", protocol(version), nil, w, s.command(), "--stateless-rpc", "--advertise-refs", g.dir(r))
}

// Serve answers one request of the smart protocol. After a push it writes the events of what has changed before it
// returns, so before the client hears that the push is done.
func (g *Repos) Serve(ctx context.Context, r Repo, s Service, version int, in io.Reader, out io.Writer) (err error) {
	defer fault.Wrap(&err, "git.Serve(%s)", r.Resource())
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	leave, err := g.gate.enter(ctx, r.Project)
	if err != nil {
		return err
	}
	defer leave()
	err = g.stream(ctx, "", protocol(version), in, out, s.command(), "--stateless-rpc", g.dir(r))
	if s == ReceivePack {
		// Whatever became of the client: refs may have moved.
		if failed := g.Sync(context.WithoutCancel(ctx), r); failed != nil {
			g.cfg.Log.Error("events of a push wait for the next one or the next start", "repo", r.Resource(), "err",
				failed)
		}
	}
	if exitCode(err) > 0 { // git has told the client what is wrong, in the protocol's own way
		g.cfg.Log.Debug("git refused", "repo", r.Resource(), "service", s, "err", err)
		return nil
	}
	return err
}

func (s Service) command() string { return strings.TrimPrefix(string(s), "git-") }

func protocol(version int) []string {
	return []string{"GIT_PROTOCOL=version=" + string(rune('0'+version))}
}

// lock returns the mutex of a repository's events.
func (g *Repos) lock(r Repo) *sync.Mutex {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.locks[r.ID] == nil {
		g.locks[r.ID] = &sync.Mutex{}
	}
	return g.locks[r.ID]
}

// Sync compares a repository's branches and tags with those that events were made of, and writes the missing events and
// the new state in one transaction: a push is an event exactly once, wherever a crash comes.
func (g *Repos) Sync(ctx context.Context, r Repo) (err error) {
	defer fault.Wrap(&err, "git.Sync(%s)", r.Resource())
	l := g.lock(r)
	l.Lock()
	defer l.Unlock()
	refs, err := g.refs(ctx, r)
	if err != nil {
		return err
	}
	if len(refs) > maxRefs {
		return fault.New(fault.ResourceExhausted, "%s has %d branches and tags; nothing is triggered over %d.",
			r.Resource(), len(refs), maxRefs)
	}
	if err := g.pointHead(ctx, r, refs); err != nil {
		return err
	}
	return g.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := repos.Get(tx, r.Resource())
		if fault.Is(err, fault.NotFound) || err == nil && row.Value.ID != r.ID {
			return nil // deleted in the meantime
		}
		if err != nil || maps.Equal(row.Value.Refs, refs) {
			return err
		}
		names := slices.Collect(maps.Keys(refs))
		for name := range row.Value.Refs {
			if refs[name] == "" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			p := Push{
				ID:      g.cfg.NewID(),
				Project: r.Project,
				Repo:    r.Name,
				Ref:     name,
				Old:     row.Value.Refs[name],
				New:     refs[name],
			}
			if p.Old == p.New {
				continue
			}
			if _, err := pushes.Create(tx, p.ID, p); err != nil {
				return err
			}
		}
		row.Value.Refs = refs
		_, err = repos.SetStatus(tx, row)
		return err
	})
}

// refs are the branches and tags of a repository with their commits; an annotated tag with the one that it is of.
func (g *Repos) refs(ctx context.Context, r Repo) (map[string]string, error) {
	out, err := g.output(ctx, g.dir(r), largeOutput, "for-each-ref", "--format=%(objectname) %(*objectname) %(refname)",
		"refs/heads/", "refs/tags/")
	if err != nil {
		if _, gone := os.Stat(g.dir(r)); os.IsNotExist(gone) {
			return map[string]string{}, nil
		}
		return nil, err
	}
	refs := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 3 {
			continue
		}
		object := f[0]
		if f[1] != "" {
			object = f[1]
		}
		refs[f[2]] = object
	}
	return refs, nil
}

// pointHead makes HEAD name a branch that there is, so that a clone checks something out.
func (g *Repos) pointHead(ctx context.Context, r Repo, refs map[string]string) error {
	out, err := g.output(ctx, g.dir(r), smallOutput, "symbolic-ref", "HEAD")
	if err != nil {
		if _, gone := os.Stat(g.dir(r)); os.IsNotExist(gone) {
			return nil
		}
		return err
	}
	if refs[strings.TrimSpace(string(out))] != "" {
		return nil
	}
	branches := []string{"refs/heads/main", "refs/heads/master"}
	branches = append(branches, slices.Sorted(maps.Keys(refs))...)
	for _, b := range branches {
		if refs[b] != "" && strings.HasPrefix(b, "refs/heads/") {
			_, err := g.output(ctx, g.dir(r), smallOutput, "symbolic-ref", "HEAD", b)
			return err
		}
	}
	return nil
}

// Pushes returns the events that nobody has acted upon, oldest first.
func (g *Repos) Pushes(ctx context.Context) (out []Push, err error) {
	defer fault.Wrap(&err, "git.Pushes")
	err = g.cfg.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := pushes.List(tx, "", "", 0)
		slices.SortStableFunc(rows, func(a, b store.Row[Push]) int { return int(a.Cursor - b.Cursor) })
		for _, row := range rows {
			out = append(out, row.Value)
		}
		return err
	})
	return out, err
}

// Done removes an event that was acted upon.
func (g *Repos) Done(ctx context.Context, id string) (err error) {
	defer fault.Wrap(&err, "git.Done(%s)", id)
	err = g.cfg.Store.Update(ctx, func(tx *store.Tx) error { return pushes.Delete(tx, id) })
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
