// Package git keeps Git repositories: bare ones, each in a directory of its own under the data directory, with a row in
// the store that says whose it is.
//
// It serves the smart HTTP host (git/githttp), Cloud Source Repositories' API and build triggers. The work on objects
// and packs is git's own, run as a child with no configuration but the one here, no hooks, and bounded memory, time and
// input. Who may do what is decided by the caller of this package; what a push means to builds, builds/trigger decides.
package git

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/quota"
	"giggle/store"
)

// Repo is one repository.
type Repo struct {
	Project string // id
	Name    string
	ID      string            // of its directory: a name that is used again gets a new one
	Refs    map[string]string // the branches and tags that events were made of, by full name
	Mirror  string            // URL that it is a copy of, or ""

	Created time.Time `json:"-"`
}

// Resource is the name that policies are kept under, "projects/PROJECT/repos/NAME".
func (r Repo) Resource() string { return Resource(r.Project, r.Name) }

// Resource is a repository's full name.
func Resource(project, name string) string { return "projects/" + project + "/repos/" + name }

// Push is a change of one branch or tag that nobody has acted upon yet.
type Push struct {
	ID            string
	Project, Repo string
	Ref           string // "refs/heads/main", "refs/tags/v1"
	Old, New      string // objects; "" before the ref was there, and after it was deleted
}

var (
	repos  = store.NewTable[Repo](RepoKind, "Repository")
	pushes = store.NewTable[Push]("git.push", "Push")
)

// RepoKind is the kind of repositories' rows.
const RepoKind = "git.repo"

// PushKind is what Store.Watch takes to hear of pushes.
const PushKind = "git.push"

// Config is what Open needs.
type Config struct {
	Store    *store.Store
	Dir      string        // of the repositories, made where it is missing
	NewID    func() string // of directories and events
	MaxInput int64         // bytes of one push; 0 is DefaultMaxInput
	Protocol string        // that mirrors are fetched by; "" is "https"
	Quotas   *quota.Limits // nil is the usual ones
	Parallel int64         // most calls at once that git works for, 0 for a default; what is over waits a little
	Share    int64         // most of them of one project, 0 for a default
	Patience time.Duration // how long a call waits, 0 for a default
	Log      *slog.Logger
}

// DefaultMaxInput is the most bytes of one push.
const DefaultMaxInput = 2 << 30

// Repos is all repositories of a platform.
type Repos struct {
	cfg  Config
	gate *gate

	mu    sync.Mutex
	locks map[string]*sync.Mutex // of Sync, by directory
}

// Open opens the repositories: it removes what deleted ones and interrupted pushes left, and finds the pushes whose
// events a crash kept from being written.
func Open(ctx context.Context, cfg Config) (_ *Repos, err error) {
	defer fault.Wrap(&err, "git.Open")
	if cfg.MaxInput == 0 {
		cfg.MaxInput = DefaultMaxInput
	}
	if cfg.Protocol == "" {
		cfg.Protocol = "https"
	}
	g := &Repos{
		cfg: cfg,
		gate: newGate(cmp.Or(cfg.Parallel, defaultParallel), cmp.Or(cfg.Share, defaultShare),
			cmp.Or(cfg.Patience, defaultPatience)),
		locks: make(map[string]*sync.Mutex),
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	all, err := g.list(ctx, "projects/")
	if err != nil {
		return nil, err
	}
	known := make(map[string]Repo)
	for _, r := range all {
		known[r.ID+".git"] = r
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		r, ok := known[e.Name()]
		if !ok {
			if err := os.RemoveAll(filepath.Join(cfg.Dir, e.Name())); err != nil {
				return nil, err
			}
			continue
		}
		left, err := filepath.Glob(filepath.Join(g.dir(r), "objects", "tmp_objdir-incoming-*"))
		if err != nil {
			return nil, err
		}
		locks, err := g.staleLocks(r)
		if err != nil {
			return nil, err
		}
		for _, p := range append(left, locks...) {
			if err := os.RemoveAll(p); err != nil {
				return nil, err
			}
		}
		if err := g.Sync(ctx, r); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// staleLocks are the lock files of refs that a killed push left: nobody else pushes while the host opens.
func (g *Repos) staleLocks(r Repo) (out []string, err error) {
	for _, name := range []string{"HEAD.lock", "packed-refs.lock", "config.lock"} {
		out = append(out, filepath.Join(g.dir(r), name))
	}
	err = filepath.WalkDir(filepath.Join(g.dir(r), "refs"), func(p string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(p, ".lock") {
			out = append(out, p)
		}
		return err
	})
	return out, err
}

func (g *Repos) dir(r Repo) string { return filepath.Join(g.cfg.Dir, r.ID+".git") }

// validName is what Cloud Source Repositories takes, and the names that it gives to mirrors ("github_owner_name").
var validName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{1,126}[a-zA-Z0-9]$`) })

// CheckName fails with InvalidArgument on what is no name of a repository.
func CheckName(name string) error {
	if !validName().MatchString(name) || strings.Contains(name, "..") || strings.HasSuffix(name, ".git") {
		return fault.Invalid("repo.name",
			"%.200q is not a name of a repository: 3 to 128 letters, digits and hyphens, the first a letter", name)
	}
	return nil
}

// Create makes an empty repository. Its first branch is main until the first push names another.
func (g *Repos) Create(ctx context.Context, project, name string) (Repo, error) {
	return g.create(ctx, Repo{Project: project, Name: name})
}

func (g *Repos) create(ctx context.Context, r Repo) (_ Repo, err error) {
	defer fault.Wrap(&err, "git.Create(%s)", r.Resource())
	if err := CheckName(r.Name); err != nil {
		return Repo{}, err
	}
	leave, err := g.gate.enter(ctx, r.Project)
	if err != nil {
		return Repo{}, err
	}
	defer leave()
	r.ID = g.cfg.NewID()
	// The directory comes first: a row without one would answer errors, one without a row is removed at the next start.
	if _, err := g.output(ctx, "", smallOutput, "init", "--quiet", "--bare", "--template=", "--initial-branch=main",
		g.dir(r)); err != nil {
		return Repo{}, err
	}
	err = g.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		have, err := repos.Count(tx, Resource(r.Project, ""))
		if err != nil {
			return err
		}
		if err := g.cfg.Quotas.Admit(quota.GitRepositories, "project "+r.Project, have); err != nil {
			return err
		}
		row, err := repos.Create(tx, r.Resource(), r)
		r.Created = row.Created
		return err
	})
	if err != nil {
		return Repo{}, errors.Join(err, os.RemoveAll(g.dir(r)))
	}
	return r, nil
}

// Get returns a repository.
func (g *Repos) Get(ctx context.Context, project, name string) (r Repo, err error) {
	defer fault.Wrap(&err, "git.Get(%s, %s)", project, name)
	err = g.cfg.Store.View(ctx, func(tx *store.Tx) error {
		row, err := repos.Get(tx, Resource(project, name))
		r = row.Value
		r.Created = row.Created
		return err
	})
	return r, err
}

// List returns the repositories of a project by name.
func (g *Repos) List(ctx context.Context, project string) (out []Repo, err error) {
	defer fault.Wrap(&err, "git.List(%s)", project)
	return g.list(ctx, "projects/"+project+"/repos/")
}

func (g *Repos) list(ctx context.Context, prefix string) (out []Repo, err error) {
	err = g.cfg.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := repos.List(tx, prefix, "", 0)
		for _, row := range rows {
			r := row.Value
			r.Created = row.Created
			out = append(out, r)
		}
		return err
	})
	return out, err
}

// Delete removes a repository and all that is in it.
func (g *Repos) Delete(ctx context.Context, project, name string) (err error) {
	defer fault.Wrap(&err, "git.Delete(%s, %s)", project, name)
	r, err := g.Get(ctx, project, name)
	if err != nil {
		return err
	}
	if err := g.cfg.Store.Update(ctx, func(tx *store.Tx) error { return repos.Delete(tx, r.Resource()) }); err != nil {
		return err
	}
	return os.RemoveAll(g.dir(r))
}

// Size is how many bytes a repository takes on disk.
func (g *Repos) Size(r Repo) (n int64, err error) {
	err = filepath.WalkDir(g.dir(r), func(_ string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // git has just removed it
		}
		if err != nil || e.IsDir() {
			return err
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n, err
}
