package trigger

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"giggle/builds"
	"giggle/fault"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// Repositories are the platform's own: package git.
type Repositories interface {
	// Commit returns the hash of a commit that is named by a branch, a tag or a hash, one of them. It fails with
	// NotFound.
	Commit(ctx context.Context, project, repo, branch, tag, commit string) (string, error)
	// File returns a file of a commit. It fails with NotFound.
	File(ctx context.Context, project, repo, commit, path string) ([]byte, error)
	// Changed returns the files that differ between two commits; all of the new one's where there is no old one.
	Changed(ctx context.Context, project, repo, from, to string) ([]string, error)
	// Mirror makes or renews the copy of a repository of GitHub under a name.
	Mirror(ctx context.Context, project, repo, owner, name string) error
}

// Event is a change of a branch or tag.
type Event struct {
	ID            string // a UUID
	Project, Repo string
	Ref           string // full name
	Old, New      string // commits; "" for none
}

// Events are the pushes that nobody has acted upon, oldest first.
type Events interface {
	Pending(ctx context.Context) ([]Event, error)
	Done(ctx context.Context, id string) error
}

// Triggers is all triggers of a platform.
type Triggers struct {
	Quotas *quota.Limits // nil is the usual ones
	Store  *store.Store
	Builds *builds.Builds
	Repos  Repositories
	Events Events
	Kind   string // of the rows whose change means that there are new events
	NewID  func() string
	// Read reads a build configuration. It fails with InvalidArgument or Unimplemented and the path of the field.
	Read func(data []byte) (builds.Request, error)
	// Complete adds what a request for a build has from its project: number, bucket of logs, and the account that
	// builds without one run as.
	Complete func(ctx context.Context, project string, r *builds.Request) (account string, err error)
	Log      *slog.Logger
}

// Firing is one start of a trigger.
type Firing struct {
	ID            string // "" for a new one; the same firing twice is one build
	Branch, Tag   string
	Commit        string // "" for the newest of the branch or tag, or of what the trigger says
	Substitutions map[string]string
	Creator       string // e-mail address of who asks, or ""
}

// Run acts upon events until ctx ends. Each event starts a build of each trigger that means it exactly once: the
// build's id is made of both, and the event is removed when all are there.
func (s *Triggers) Run(ctx context.Context) error {
	w := s.Store.Watch(s.Kind, eventTable.Kind())
	defer w.Close()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.C:
		case <-again.C:
		}
		again.Reset(time.Hour)
		if err := s.act(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("an event waits", "err", err)
			again.Reset(eventRetryDelay)
		}
	}
}

// act acts once upon everything that is there.
func (s *Triggers) act(ctx context.Context) error {
	return errors.Join(s.pushes(ctx), s.deliveries(ctx), s.forgetPulls(ctx))
}

// eventRetryDelay is how long an event waits that could not be acted upon.
const eventRetryDelay = 5 * time.Second

func (s *Triggers) pushes(ctx context.Context) error {
	events, err := s.Events.Pending(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range events {
		if err := s.push(ctx, e); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, s.Events.Done(ctx, e.ID))
	}
	return errors.Join(errs...)
}

// push starts the builds that a push means.
func (s *Triggers) push(ctx context.Context, e Event) (err error) {
	defer fault.Wrap(&err, "trigger.push(%s, %s)", e.Repo, e.Ref)
	if e.New == "" {
		return nil // deleted
	}
	branch, isBranch := strings.CutPrefix(e.Ref, "refs/heads/")
	tag, isTag := strings.CutPrefix(e.Ref, "refs/tags/")
	if !isBranch {
		branch = ""
	}
	if !isTag {
		tag = ""
	}
	all, err := s.List(ctx, resource.Location{Project: e.Project, Location: "-"})
	if err != nil {
		return err
	}
	var files []string
	var errs []error
	for i := range all {
		t := &all[i]
		if t.Disabled || t.Repo == nil || t.Repo.Name != e.Repo || !t.Repo.Matches(branch, tag) {
			continue
		}
		if isBranch && len(t.Included)+len(t.Ignored) > 0 {
			if files == nil {
				files, err = s.Repos.Changed(ctx, e.Project, e.Repo, e.Old, e.New)
				if fault.Is(err, fault.NotFound) {
					return nil // deleted in the meantime
				}
				if err != nil {
					return err
				}
			}
			if !t.Touches(files) {
				continue
			}
		}
		_, err := s.Fire(ctx, t, Firing{ID: e.ID, Branch: branch, Tag: tag, Commit: e.New})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Fire starts a build by a trigger. A build that can't begin, because of what the repository has, is recorded as one
// that failed where nobody asks for it who could be told.
func (s *Triggers) Fire(ctx context.Context, t *Trigger, f Firing) (b builds.Build, err error) {
	defer fault.Wrap(&err, "trigger.Fire(%s)", t.Name)
	r, err := s.request(ctx, t, f)
	if err == nil {
		b, err = s.Builds.Submit(ctx, t.Name.Location, r)
	}
	if fault.Is(err, fault.AlreadyExists) && r.ID != "" {
		return s.Builds.Get(ctx, resource.Build(t.Name.Project, t.Name.Location.Location, r.ID))
	}
	if err == nil || f.ID == "" {
		return b, err
	}
	switch why := fault.From(err); why.Code {
	case fault.InvalidArgument, fault.NotFound, fault.FailedPrecondition, fault.PermissionDenied, fault.Unimplemented:
		b, err = s.Builds.Refuse(ctx, t.Name.Location, r, why.Message)
		if fault.Is(err, fault.AlreadyExists) {
			err = nil
		}
	}
	return b, err
}

// request is the build that a firing asks for. What it is so far is returned with an error too.
func (s *Triggers) request(ctx context.Context, t *Trigger, f Firing) (r builds.Request, err error) {
	head := builds.Request{Trigger: t.Name.ID, Creator: f.Creator, Tags: []string{"trigger-" + t.Name.ID}}
	if f.ID != "" {
		head.ID = uuid.NewSHA1(uuid.NameSpaceOID, []byte(f.ID+" "+t.Name.String())).String()
	}
	repo, err := s.source(ctx, t, f)
	if err != nil {
		return head, err
	}
	var path string
	var data []byte
	if repo.Name != "" {
		head.Source.Repo = &repo
	}
	head.Spec.Substitutions = builtIn(t, repo, "")
	switch {
	case len(t.Inline) > 0:
		data = t.Inline
	case t.GitFile != nil && t.GitFile.URI != "":
		path = t.GitFile.Path
		data, err = s.gitFile(ctx, t)
	case t.GitFile != nil:
		path = t.GitFile.Path
		data, err = s.Repos.File(ctx, t.Name.Project, repo.Name, repo.Commit, path)
	case t.File != "":
		path = t.File
		data, err = s.Repos.File(ctx, t.Name.Project, repo.Name, repo.Commit, path)
	default:
		path, data, err = s.detect(ctx, t.Name.Project, repo)
	}
	if err != nil {
		return head, err
	}
	if r, err = s.Read(data); err != nil {
		return head, err
	}
	if len(t.Inline) > 0 && repo.Name != "" {
		rootDockerfile(r.Spec.Steps)
	}
	r.ID, r.Trigger, r.Creator, r.Source.Repo = head.ID, head.Trigger, head.Creator, head.Source.Repo
	r.Source.Bucket, r.Source.Object = "", "" // a source is what the trigger is of
	r.Tags = append(append(slices.Clone(r.Tags), t.Tags...), head.Tags...)
	r.NeedsApproval = t.Approval
	if r.Spec.Account, err = t.account(r.Spec.Account); err != nil {
		return head, err
	}
	values := make(map[string]string)
	maps.Copy(values, r.Spec.Substitutions)
	maps.Copy(values, t.Substitutions)
	maps.Copy(values, f.Substitutions)
	maps.Copy(values, builtIn(t, repo, path))
	r.Spec.Substitutions = values
	// As for all triggered builds ("Substituting variable values" in the documentation).
	r.Spec.Options.Substitution, r.Spec.Options.Dynamic = builds.AllowLoose, true
	account, err := s.Complete(ctx, t.Name.Project, &r)
	r.Account = func(_ context.Context, given string) (string, error) {
		if given == "" {
			return account, nil
		}
		a, err := resource.ParseAccountOrEmail(given)
		return a.ID, err // who set the trigger up was asked whether they may act as it
	}
	return r, err
}

// rootDockerfile takes the directory of the one step that `gcloud builds triggers create … --dockerfile` writes as one
// of the repository: --dockerfile-dir is "/" if left out, "the directory containing the Dockerfile in the repository".
func rootDockerfile(steps []builds.Step) {
	if len(steps) != 1 || steps[0].Name != "gcr.io/cloud-builders/docker" || len(steps[0].Args) == 0 ||
		steps[0].Args[0] != "build" {
		return
	}
	if dir := steps[0].Dir; strings.HasPrefix(dir, "/") && !strings.HasPrefix(dir, "/workspace") {
		steps[0].Dir = strings.TrimLeft(dir, "/")
	}
}

// account is the account that a build of the trigger runs as. A file of a repository can't choose one: whoever may push
// would then be whoever he likes.
func (t *Trigger) account(given string) (string, error) {
	if t.Account != "" {
		return t.Account, nil
	}
	if len(t.Inline) == 0 && given != "" {
		return "", fault.Invalid("serviceAccount",
			"the configuration in the repository names %.200q; the trigger decides as whom it runs", given)
	}
	return given, nil
}

// source is the commit that a firing is of; none for triggers without a repository.
func (s *Triggers) source(ctx context.Context, t *Trigger, f Firing) (builds.Repo, error) {
	r := builds.Repo{Branch: f.Branch, Tag: f.Tag, Commit: f.Commit}
	switch {
	case t.Repo != nil:
		r.Name, r.Dir = t.Repo.Name, t.Repo.Dir
		if r.Branch == "" && r.Tag == "" && r.Commit == "" {
			// By hand: the branch is the pattern where that is a plain name.
			r.Branch, r.Tag, r.Commit = plain(t.Repo.Branch), plain(t.Repo.Tag), t.Repo.Commit
		}
	case t.GitHub != nil:
		r.Name = mirrorName(t.GitHub.Owner, t.GitHub.Name)
		if err := s.Repos.Mirror(ctx, t.Name.Project, r.Name, t.GitHub.Owner, t.GitHub.Name); err != nil {
			return r, err
		}
	case t.Source != nil:
		name, gitHub, err := repoIn(t.Source.URI)
		if err != nil {
			return r, err
		}
		r.Name = name
		if gitHub != nil {
			if err := s.Repos.Mirror(ctx, t.Name.Project, name, gitHub.Owner, gitHub.Name); err != nil {
				return r, err
			}
		}
		if r.Branch == "" && r.Tag == "" && r.Commit == "" {
			r.Branch, r.Tag, r.Commit = ref(t.Source.Ref)
		}
	default:
		return builds.Repo{}, nil
	}
	if r.Branch == "" && r.Tag == "" && r.Commit == "" {
		return r, fault.Invalid("source", "say which branch, tag or commit is to be built")
	}
	commit, err := s.Repos.Commit(ctx, t.Name.Project, r.Name, r.Branch, r.Tag, r.Commit)
	if err == nil {
		r.Commit = commit
	}
	return r, err
}

// plain is a regular expression that means just one name, as that name; else "".
func plain(expression string) string {
	s := strings.TrimSuffix(strings.TrimPrefix(expression, "^"), "$")
	if strings.ContainsAny(s, `\.+*?()|[]{}^$`) {
		return ""
	}
	return s
}

// ref takes apart "refs/heads/main", "refs/tags/v1", a hash or a branch.
func ref(s string) (branch, tag, commit string) {
	if b, ok := strings.CutPrefix(s, "refs/heads/"); ok {
		return b, "", ""
	}
	if t, ok := strings.CutPrefix(s, "refs/tags/"); ok {
		return "", t, ""
	}
	if len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" {
		return "", "", s
	}
	return s, "", ""
}

// gitFile reads a configuration that is in a repository of its own.
func (s *Triggers) gitFile(ctx context.Context, t *Trigger) ([]byte, error) {
	name, gitHub, err := repoIn(t.GitFile.URI)
	if err != nil {
		return nil, err
	}
	if gitHub != nil {
		if err := s.Repos.Mirror(ctx, t.Name.Project, name, gitHub.Owner, gitHub.Name); err != nil {
			return nil, err
		}
	}
	branch, tag, commit := ref(t.GitFile.Revision)
	if commit, err = s.Repos.Commit(ctx, t.Name.Project, name, branch, tag, commit); err != nil {
		return nil, err
	}
	return s.Repos.File(ctx, t.Name.Project, name, commit, t.GitFile.Path)
}

// detect finds the configuration of a repository.
func (s *Triggers) detect(ctx context.Context, project string, repo builds.Repo) (string, []byte, error) {
	for _, name := range []string{"cloudbuild.yaml", "cloudbuild.yml", "cloudbuild.json"} {
		data, err := s.Repos.File(ctx, project, repo.Name, repo.Commit, name)
		if !fault.Is(err, fault.NotFound) {
			return name, data, err
		}
	}
	return "", nil, fault.New(fault.NotFound, "The commit %.7s has neither cloudbuild.yaml nor cloudbuild.json.",
		repo.Commit)
}

// builtIn are the substitutions that a trigger sets.
func builtIn(t *Trigger, r builds.Repo, path string) map[string]string {
	v := map[string]string{"TRIGGER_NAME": t.Title}
	if path != "" {
		v["TRIGGER_BUILD_CONFIG_PATH"] = path
	}
	if r.Name == "" {
		return v
	}
	v["COMMIT_SHA"], v["REVISION_ID"], v["SHORT_SHA"] = r.Commit, r.Commit, r.Commit[:min(7, len(r.Commit))]
	v["REPO_NAME"], v["REPO_FULL_NAME"] = r.Name, r.Name
	if g := t.GitHub; g != nil {
		v["REPO_NAME"], v["REPO_FULL_NAME"] = g.Name, g.Owner+"/"+g.Name
	}
	if r.Branch != "" {
		v["BRANCH_NAME"], v["REF_NAME"] = r.Branch, r.Branch
	}
	if r.Tag != "" {
		v["TAG_NAME"], v["REF_NAME"] = r.Tag, r.Tag
	}
	return v
}

// Bind replaces "$(body.FIELD.FIELD)" in the values of substitutions by what a webhook's body has there, "" where it
// has nothing. What the body says is no template. ("Webhook triggers" in the documentation.)
func Bind(values map[string]string, body []byte) (map[string]string, error) {
	var doc any
	if len(strings.TrimSpace(string(body))) > 0 {
		if err := json.Unmarshal(body, &doc); err != nil {
			return nil, fault.New(fault.InvalidArgument, "The body is not JSON.")
		}
	}
	out := make(map[string]string)
	for k, v := range values {
		for from := 0; ; {
			i := strings.Index(v[from:], "$(body.")
			if i < 0 {
				break
			}
			i += from
			end := strings.IndexByte(v[i:], ')')
			if end < 0 {
				break
			}
			found := builds.Literal(lookUp(doc, strings.Split(v[i+len("$(body."):i+end], ".")))
			v = v[:i] + found + v[i+end+1:]
			from = i + len(found) // what came from outside is not looked at again
		}
		out[k] = v
	}
	return out, nil
}

func lookUp(doc any, path []string) string {
	for _, p := range path {
		m, ok := doc.(map[string]any)
		if !ok {
			return ""
		}
		doc = m[p]
	}
	switch v := doc.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return ""
	}
	return string(b)
}
