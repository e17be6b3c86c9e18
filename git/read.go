package git

import (
	"bytes"
	"context"
	"path"
	"regexp"
	"strings"
	"sync"

	"giggle/fault"
)

var (
	hash      = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{40}$`) })
	shortHash = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{4,40}$`) })
)

// Revision names a commit: by a branch, a tag or a hash. One of them is set.
type Revision struct{ Branch, Tag, Commit string }

// Resolve returns the hash of the commit that a revision of a repository means. It fails with NotFound.
func (g *Repos) Resolve(ctx context.Context, r Repo, rev Revision) (commit string, err error) {
	defer fault.Wrap(&err, "git.Resolve(%s)", r.Resource())
	leave, err := g.gate.enter(ctx, r.Project)
	if err != nil {
		return "", err
	}
	defer leave()
	object, what := rev.Commit, "commit "+rev.Commit
	if rev.Commit == "" {
		ref := "refs/heads/" + rev.Branch
		if what = "branch " + rev.Branch; rev.Tag != "" {
			ref, what = "refs/tags/"+rev.Tag, "tag "+rev.Tag
		}
		// An exact name: revision syntax such as main@{1} means nothing here.
		out, err := g.output(ctx, g.dir(r), smallOutput, "show-ref", "--verify", "--hash", "--", ref)
		if err != nil && exitCode(err) < 0 {
			return "", err
		}
		object = strings.TrimSpace(string(out))
	}
	if shortHash().MatchString(object) {
		out, err := g.output(ctx, g.dir(r), smallOutput, "rev-parse", "--verify", "--quiet", "--end-of-options",
			object+"^{commit}")
		if err != nil && exitCode(err) < 0 {
			return "", err
		}
		if commit = strings.TrimSpace(string(out)); hash().MatchString(commit) {
			return commit, nil
		}
	}
	return "", fault.New(fault.NotFound, "The repository %s has no %.200s.", r.Name, what)
}

// File returns a file of a commit, at most limit bytes of it. It fails with NotFound.
func (g *Repos) File(ctx context.Context, r Repo, commit, name string, limit int) (data []byte, err error) {
	defer fault.Wrap(&err, "git.File(%s, %s)", r.Resource(), name)
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if !hash().MatchString(commit) || clean == "" || strings.ContainsRune(clean, 0) {
		return nil, fault.New(fault.InvalidArgument, "%.200q is not a path in a repository.", name)
	}
	leave, err := g.gate.enter(ctx, r.Project)
	if err != nil {
		return nil, err
	}
	defer leave()
	data, err = g.output(ctx, g.dir(r), limit, "cat-file", "blob", commit+":"+clean)
	if err != nil && len(data) == 0 && exitCode(err) >= 0 {
		return nil, fault.New(fault.NotFound, "The commit %.7s has no file %s.", commit, clean)
	}
	return data, err
}

// Changed returns the paths of the files that differ between two commits. Where there is no old one, or no longer, all
// files of the new one have changed.
func (g *Repos) Changed(ctx context.Context, r Repo, from, to string) (names []string, err error) {
	defer fault.Wrap(&err, "git.Changed(%s)", r.Resource())
	if !hash().MatchString(to) || from != "" && !hash().MatchString(from) {
		return nil, fault.New(fault.InvalidArgument, "A commit is 40 hexadecimal digits.")
	}
	leave, err := g.gate.enter(ctx, r.Project)
	if err != nil {
		return nil, err
	}
	defer leave()
	if from != "" {
		out, err := g.output(ctx, g.dir(r), largeOutput, "diff-tree", "-r", "-z", "--name-only", "--no-renames", from,
			to)
		if err == nil || exitCode(err) < 0 {
			return fields(out), err
		}
	}
	out, err := g.output(ctx, g.dir(r), largeOutput, "ls-tree", "-r", "-z", "--name-only", to)
	return fields(out), err
}

func fields(out []byte) (names []string) {
	for _, f := range bytes.Split(out, []byte{0}) {
		if len(f) > 0 {
			names = append(names, string(f))
		}
	}
	return names
}
