package trigger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"giggle/fault"
	"giggle/store"
)

// Which pull requests a trigger builds (Cloud Build's reference, PullRequestFilter.CommentControl). A writer's comment
// /gcbrun starts a build whatever it is.
const (
	CommentsDisabled = "COMMENTS_DISABLED"                               // all, at once
	CommentsEnabled  = "COMMENTS_ENABLED"                                // when a writer asks for it
	CommentsExternal = "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY" // those of writers at once
)

// lets reports whether a trigger builds a pull request now, and does not wait for a comment that asks for it.
func (g *GitHubEvent) lets(d *Delivery) bool {
	switch g.Comments {
	case "", CommentsDisabled:
		return true
	case CommentsExternal:
		return d.Writer || d.Asked
	}
	return d.Asked
}

// writes reports whether whom GitHub calls this is a user who may write to a repository.
func writes(association string) bool {
	return slices.Contains([]string{"OWNER", "MEMBER", "COLLABORATOR"}, association)
}

// asks reports whether a text has a line that asks for a build: "/gcbrun", and perhaps words after it. A line that
// quotes one is none.
func asks(text string) bool {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "/gcbrun" {
			return true
		}
	}
	return false
}

// pullTable has the newest state of each open pull request that a trigger is for: what a comment asks to be built.
var pullTable = store.NewTable[Delivery]("build.pull", "Pull request")

// Limits of the pull requests that are kept. Everybody who has an account at GitHub can open one.
const (
	maxPulls = 200 // of a project; the one that was longest without a push gives way
	maxPull  = 30 * 24 * time.Hour
)

func pullName(d *Delivery) string {
	return fmt.Sprintf("%s/%s/%s/%d", d.Project, strings.ToLower(d.Owner), strings.ToLower(d.Name), d.Number)
}

// pull keeps what a delivery says that a pull request is, and completes one that tells of a comment by what was kept. A
// comment on a pull request that isn't known asks for nothing.
func (s *Triggers) pull(tx *store.Tx, d *Delivery) error {
	name := pullName(d)
	kept, err := pullTable.Get(tx, name)
	none := fault.Is(err, fault.NotFound)
	if err != nil && !none {
		return err
	}
	if d.Comment {
		if none || s.Store.Now().Sub(kept.Updated) > maxPull {
			return nil
		}
		d.Branch, d.Commit, d.Substitutions = kept.Value.Branch, kept.Value.Commit, kept.Value.Substitutions
		return nil
	}
	wanted, err := s.wanted(tx, d)
	switch {
	case err != nil:
		return err
	case wanted && !d.Closed:
		if none {
			if err := makeRoom(tx, d.Project); err != nil {
				return err
			}
		}
		_, err := pullTable.Put(tx, name, *d)
		return err
	case none:
		return nil
	}
	return pullTable.Delete(tx, name)
}

// wanted reports whether a trigger is for a pull request.
func (s *Triggers) wanted(tx *store.Tx, d *Delivery) (bool, error) {
	rows, err := table.List(tx, "projects/"+d.Project+"/locations/", "", 0)
	return slices.ContainsFunc(rows, func(r store.Row[Trigger]) bool { return r.Value.means(d) }), err
}

// makeRoom removes what a project has had longest without a change, until there is room for one more.
func makeRoom(tx *store.Tx, project string) error {
	rows, err := pullTable.List(tx, project+"/", "", 0)
	if err != nil || len(rows) < maxPulls {
		return err
	}
	slices.SortFunc(rows, func(a, b store.Row[Delivery]) int { return a.Updated.Compare(b.Updated) })
	for _, r := range rows[:len(rows)-maxPulls+1] {
		if err := pullTable.Delete(tx, r.Name); err != nil {
			return err
		}
	}
	return nil
}

// forgetPulls removes the pull requests that nobody has asked to be built for a month.
func (s *Triggers) forgetPulls(ctx context.Context) error {
	old := func(r store.Row[Delivery]) bool { return s.Store.Now().Sub(r.Updated) > maxPull }
	var rows []store.Row[Delivery]
	err := s.Store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = pullTable.List(tx, "", "", 0)
		return err
	})
	if err != nil || !slices.ContainsFunc(rows, old) {
		return err
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		rows, err := pullTable.List(tx, "", "", 0)
		for _, r := range rows {
			if err == nil && old(r) {
				err = pullTable.Delete(tx, r.Name)
			}
		}
		return err
	})
}
