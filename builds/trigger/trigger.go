// Package trigger keeps Cloud Build's triggers and starts builds by them: for pushes to the platform's repositories, by
// hand, and by webhooks.
//
// It serves api/cloudbuild and the loop that cloud runs. Repositories are package git's, build configurations are read
// by api/cloudbuild, builds are package build's: each is an interface or a function here. It decides nothing about who
// may make or run a trigger.
package trigger

import (
	"context"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// Trigger says when a build is to start, and what it is. It has at most one of Repo, GitHub and Webhook; with none it
// is run by hand only.
type Trigger struct {
	Name          resource.Child // "projects/P/locations/L/triggers/ID"
	Title         string         // what people call it, unique in its location
	Description   string
	Tags          []string
	Disabled      bool
	Substitutions map[string]string
	Included      []string // globs: only changes of these files start a build; none means all
	Ignored       []string // globs: changes of only these files start none
	Account       string   // as the user wrote it; "" for the project's default
	Approval      bool     // builds wait for one

	Repo    *RepoEvent
	GitHub  *GitHubEvent
	Webhook *Webhook

	// What to build: a file of the repository, a build as proto JSON, or what is found.
	File       string
	Inline     json.RawMessage `json:",omitempty"` // without it nothing would come back as "null"
	Autodetect bool
	GitFile    *GitFile
	Source     *GitSource // what triggers that no repository starts are of

	Created time.Time `json:"-"`
	Version int64     `json:"-"`
}

// Pattern says which branches or tags an event is of: one of the two is a regular expression (RE2).
type Pattern struct {
	Branch, Tag string
	Commit      string // for runs by hand
	Invert      bool   // those that do not match
}

// RepoEvent is a push to one of the project's repositories.
type RepoEvent struct {
	Name string
	Dir  string // where in the repository the build begins
	Pattern
}

// GitHubEvent is a push or a pull request on GitHub.
type GitHubEvent struct {
	Owner, Name string
	Push        *Pattern
	Pull        *Pattern // of the base branch
	Comments    string   // which pull requests wait for a writer's comment: CommentsEnabled, …; "" for none
}

// Webhook is a request that knows a secret.
type Webhook struct {
	Secret string // "projects/P/secrets/S/versions/V"
}

// GitFile is a build configuration in a repository.
type GitFile struct{ Path, URI, Type, Revision string }

// GitSource is what to build.
type GitSource struct{ URI, Type, Ref string }

var table = store.NewTable[Trigger]("build.trigger", "Trigger")

// titleForm is what a trigger may be called.
var titleForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,63}$`) })

// Limits of a trigger.
const (
	maxGlobs  = 100
	maxText   = 10_000
	maxInline = 1 << 20
)

// Check fails with InvalidArgument or Unimplemented on a trigger that can't be, with the path of the field.
func (t *Trigger) Check() error {
	if !titleForm().MatchString(t.Title) {
		return fault.Invalid("trigger.name", "%.100q is not 1 to 64 letters, digits and hyphens", t.Title)
	}
	if len(t.Description) > maxText || len(t.Inline) > maxInline || len(t.File) > 1024 {
		return fault.Invalid("trigger", "is too large")
	}
	events, contents := 0, 0
	for _, set := range []bool{t.Repo != nil, t.GitHub != nil, t.Webhook != nil} {
		if set {
			events++
		}
	}
	for _, set := range []bool{t.File != "", len(t.Inline) > 0, t.Autodetect, t.GitFile != nil} {
		if set {
			contents++
		}
	}
	if events > 1 {
		return fault.Invalid("trigger", "has more than one event")
	}
	if contents != 1 {
		return fault.Invalid("trigger", "needs exactly one of filename, build, autodetect and gitFileSource")
	}
	if r := t.Repo; r != nil {
		if r.Name == "" {
			return fault.Invalid("trigger.triggerTemplate.repoName", "is missing")
		}
		if r.Dir != "" && !filepath.IsLocal(r.Dir) || len(r.Dir) > 1000 {
			return fault.Invalid("trigger.triggerTemplate.dir", "must be a relative path in the repository")
		}
		if err := r.check("trigger.triggerTemplate"); err != nil {
			return err
		}
	}
	if g := t.GitHub; g != nil {
		if !gitHubName().MatchString(g.Owner) || !gitHubName().MatchString(g.Name) {
			return fault.Invalid("trigger.github", "owner and name of a repository are needed")
		}
		if (g.Push == nil) == (g.Pull == nil) {
			return fault.Invalid("trigger.github", "needs a push or a pull request")
		}
		if !slices.Contains([]string{"", CommentsDisabled, CommentsEnabled, CommentsExternal}, g.Comments) {
			return fault.Invalid("trigger.github.pullRequest.commentControl", "%.50q is not one of %s, %s and %s",
				g.Comments, CommentsDisabled, CommentsEnabled, CommentsExternal)
		}
		for field, p := range map[string]*Pattern{"trigger.github.push": g.Push, "trigger.github.pullRequest": g.Pull} {
			if p != nil {
				if err := p.check(field); err != nil {
					return err
				}
			}
		}
	}
	for field, globs := range map[string][]string{"trigger.includedFiles": t.Included,
		"trigger.ignoredFiles": t.Ignored} {
		if len(globs) > maxGlobs {
			return fault.Invalid(field, "%d are the most", maxGlobs)
		}
		for _, g := range globs {
			if err := CheckGlob(g); err != nil {
				return fault.Invalid(field, "%s", fault.From(err).Message)
			}
		}
	}
	return nil
}

// gitHubName is an owner or a repository of GitHub.
var gitHubName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,99}$`) })

// check refuses what is not one regular expression.
func (p *Pattern) check(field string) error {
	n := 0
	for _, s := range []string{p.Branch, p.Tag, p.Commit} {
		if s != "" {
			n++
		}
	}
	if n != 1 {
		return fault.Invalid(field, "needs one of a branch and a tag")
	}
	if len(p.Branch)+len(p.Tag) > 1000 {
		return fault.Invalid(field, "the expression is too long")
	}
	if _, err := regexp.Compile(p.Branch + p.Tag); err != nil {
		return fault.Invalid(field, "%.200q is not a regular expression: %v", p.Branch+p.Tag, err)
	}
	return nil
}

// Create adds a trigger.
func (s *Triggers) Create(ctx context.Context, in resource.Location, t Trigger) (_ Trigger, err error) {
	defer fault.Wrap(&err, "trigger.Create(%s)", in)
	if t.Title == "" {
		t.Title = "trigger-" + s.NewID()[:8]
	}
	if err := t.Check(); err != nil {
		return Trigger{}, err
	}
	t.Name = resource.Child{Location: in, Collection: "triggers", ID: s.NewID()}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := s.unique(tx, t); err != nil {
			return err
		}
		have, err := table.Count(tx, "projects/"+in.Project+"/")
		if err != nil {
			return err
		}
		if err := s.Quotas.Admit(quota.Triggers, "project "+in.Project, have); err != nil {
			return err
		}
		row, err := table.Create(tx, t.Name.String(), t)
		t = fromRow(row)
		return err
	})
	return t, err
}

// unique fails when another trigger of the location has the name.
func (s *Triggers) unique(tx *store.Tx, t Trigger) error {
	rows, err := table.List(tx, t.Name.Location.String()+"/triggers/", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Value.Title == t.Title && r.Value.Name != t.Name {
			return fault.New(fault.AlreadyExists, "A trigger named %s exists in %s.", t.Title, t.Name.Location)
		}
	}
	return nil
}

func fromRow(r store.Row[Trigger]) Trigger {
	t := r.Value
	t.Created, t.Version = r.Created, r.Version
	return t
}

// Get returns a trigger; name ends in its id or in what people call it.
func (s *Triggers) Get(ctx context.Context, name resource.Child) (t Trigger, err error) {
	defer fault.Wrap(&err, "trigger.Get(%s)", name)
	err = s.Store.View(ctx, func(tx *store.Tx) error {
		t, err = s.find(tx, name)
		return err
	})
	return t, err
}

func (s *Triggers) find(tx *store.Tx, name resource.Child) (Trigger, error) {
	rows, err := table.List(tx, name.Location.String()+"/triggers/", "", 0)
	if err != nil {
		return Trigger{}, err
	}
	for _, r := range rows {
		if r.Value.Name.ID == name.ID || r.Value.Title == name.ID {
			return fromRow(r), nil
		}
	}
	return Trigger{}, fault.New(fault.NotFound, "Trigger %q was not found in %s.", name.ID, name.Location)
}

// List returns the triggers of a location, of all of them where it is "-", oldest first.
func (s *Triggers) List(ctx context.Context, in resource.Location) (out []Trigger, err error) {
	defer fault.Wrap(&err, "trigger.List(%s)", in)
	prefix := in.String() + "/triggers/"
	if in.Location == "-" {
		prefix = "projects/" + in.Project + "/locations/"
	}
	err = s.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := table.List(tx, prefix, "", 0)
		for _, r := range rows {
			out = append(out, fromRow(r))
		}
		return err
	})
	return out, err
}

// Update changes a trigger. Change sees it as it is.
func (s *Triggers) Update(
	ctx context.Context, name resource.Child, change func(*Trigger) error,
) (t Trigger, err error) {
	defer fault.Wrap(&err, "trigger.Update(%s)", name)
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		have, err := s.find(tx, name)
		if err != nil {
			return err
		}
		row, err := table.Get(tx, have.Name.String())
		if err != nil {
			return err
		}
		if err := change(&row.Value); err != nil {
			return err
		}
		row.Value.Name = have.Name
		if row.Value.Title == "" {
			row.Value.Title = have.Title
		}
		if err := row.Value.Check(); err != nil {
			return err
		}
		if err := s.unique(tx, row.Value); err != nil {
			return err
		}
		row, err = table.Update(tx, row)
		t = fromRow(row)
		return err
	})
	return t, err
}

// Delete removes a trigger.
func (s *Triggers) Delete(ctx context.Context, name resource.Child) (err error) {
	defer fault.Wrap(&err, "trigger.Delete(%s)", name)
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		t, err := s.find(tx, name)
		if err != nil {
			return err
		}
		return table.Delete(tx, t.Name.String())
	})
}

// repoIn is the repository of the platform that a URL means: one of its own, or the mirror of one of GitHub's.
func repoIn(uri string) (name string, gitHub *GitHubEvent, err error) {
	path, ok := strings.CutPrefix(strings.TrimSuffix(uri, "/"), "https://")
	if !ok {
		path = uri
	}
	f := strings.Split(strings.TrimSuffix(path, ".git"), "/")
	switch {
	case len(f) == 5 && f[0] == "source.developers.google.com" && f[1] == "p" && f[3] == "r":
		return f[4], nil, nil
	case len(f) == 3 && (f[0] == "github.com" || f[0] == "www.github.com") && gitHubName().MatchString(f[1]) &&
		gitHubName().MatchString(f[2]):
		return mirrorName(f[1], f[2]), &GitHubEvent{Owner: f[1], Name: f[2]}, nil
	}
	return "", nil, fault.Invalid("trigger.sourceToBuild.uri",
		"%.200q is neither https://source.developers.google.com/p/PROJECT/r/REPO nor https://github.com/OWNER/NAME",
		uri)
}

// mirrorName is what Cloud Source Repositories calls its mirror of a repository of GitHub.
func mirrorName(owner, name string) string { return "github_" + owner + "_" + name }
