package trigger

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"giggle/builds"
	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// Delivery is what GitHub tells of a push or of a pull request, waiting until the builds that it means are there.
type Delivery struct {
	ID            string // GitHub's, a UUID
	Project       string
	Owner, Name   string
	Branch, Tag   string // of a push; of a pull request the base branch
	Commit        string
	Files         []string // that changed, as far as GitHub says
	Substitutions map[string]string
	Handled       bool

	// Of pull requests only.
	Pull    bool
	Number  int
	Writer  bool // who made it may write to the repository
	Asked   bool // a writer has asked for its builds: in a comment, or in the description of his own
	Comment bool // it tells of that comment, and not what the pull request is
	Closed  bool
}

var eventTable = store.NewTable[Delivery]("build.delivery", "Delivery")

// deliveryAge is how long a delivery is known, so that it can't be sent again.
const deliveryAge = 7 * 24 * time.Hour

// CheckSignature fails with Unauthenticated unless header, X-Hub-Signature-256, is that of body under the secret.
func CheckSignature(secret, body []byte, header string) error {
	refused := fault.New(fault.Unauthenticated, "The signature is not that of this body.")
	if len(secret) == 0 {
		return refused
	}
	text, ok := strings.CutPrefix(header, "sha256=")
	got, err := hex.DecodeString(text)
	if !ok || err != nil {
		return refused
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write(body) // never fails
	if !hmac.Equal(got, mac.Sum(nil)) {
		return refused
	}
	return nil
}

var deliveryID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-zA-Z-]{8,64}$`) })

// payload is what is read of GitHub's bodies
// (https://docs.github.com/en/webhooks/webhook-events-and-payloads).
type payload struct {
	Ref        string `json:"ref"`
	After      string `json:"after"`
	Deleted    bool   `json:"deleted"`
	Action     string `json:"action"`
	Number     int    `json:"number"`
	Repository struct {
		Name  string `json:"name"`
		Owner struct {
			Login string `json:"login"`
			Name  string `json:"name"`
		} `json:"owner"`
	} `json:"repository"`
	Commits []struct {
		Added    []string `json:"added"`
		Removed  []string `json:"removed"`
		Modified []string `json:"modified"`
	} `json:"commits"`
	Pull struct {
		Body        string `json:"body"`
		Association string `json:"author_association"`
		Head        struct {
			Ref  string `json:"ref"`
			SHA  string `json:"sha"`
			Repo struct {
				URL string `json:"html_url"`
			} `json:"repo"`
		} `json:"head"`
		Base struct {
			Ref string `json:"ref"`
		} `json:"base"`
	} `json:"pull_request"`
	Issue struct {
		Number int       `json:"number"`
		Pull   *struct{} `json:"pull_request"` // what tells a pull request from an issue
	} `json:"issue"`
	Comment struct {
		Body        string `json:"body"`
		Association string `json:"author_association"`
	} `json:"comment"`
}

// ParseDelivery reads the body of a webhook of GitHub. It returns false for what means nothing to builds: another
// event, a branch that was deleted, a comment that asks for none or is of a user who may not.
func ParseDelivery(project, event, id string, body []byte) (d Delivery, ok bool, err error) {
	if !deliveryID().MatchString(id) {
		return d, false, fault.Invalid("X-GitHub-Delivery", "is not an id")
	}
	var p payload
	if !slices.Contains([]string{"push", "pull_request", "issue_comment"}, event) {
		return d, false, nil
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return d, false, fault.New(fault.InvalidArgument, "The body is not the JSON of a %s.", event)
	}
	d = Delivery{ID: id, Project: project, Owner: p.Repository.Owner.Login, Name: p.Repository.Name}
	if d.Owner == "" {
		d.Owner = p.Repository.Owner.Name
	}
	if !gitHubName().MatchString(d.Owner) || !gitHubName().MatchString(d.Name) {
		return d, false, fault.Invalid("repository", "owner and name are missing")
	}
	switch event {
	case "issue_comment":
		c := p.Comment
		d.Pull, d.Comment, d.Asked, d.Number = true, true, true, p.Issue.Number
		if p.Action != "created" || p.Issue.Pull == nil || d.Number <= 0 || !writes(c.Association) || !asks(c.Body) {
			return d, false, nil
		}
		return d, true, nil // of which commit it is, GitHub doesn't say: Deliver knows
	case "pull_request":
		h := p.Pull.Head
		if !slices.Contains([]string{"opened", "synchronize", "reopened", "closed"}, p.Action) {
			return d, false, nil
		}
		if p.Number <= 0 {
			return d, false, fault.Invalid("number", "is missing")
		}
		if len(h.Ref)+len(h.Repo.URL)+len(p.Pull.Base.Ref) > maxText {
			return d, false, fault.Invalid("pull_request", "its names are too long")
		}
		d.Pull, d.Branch, d.Commit, d.Number, d.Closed = true, p.Pull.Base.Ref, h.SHA, p.Number, p.Action == "closed"
		d.Writer = writes(p.Pull.Association)
		d.Asked = d.Writer && asks(p.Pull.Body)
		d.Substitutions = map[string]string{
			"_HEAD_BRANCH": h.Ref, "_BASE_BRANCH": d.Branch, "_HEAD_REPO_URL": h.Repo.URL,
			"_PR_NUMBER": strconv.Itoa(p.Number),
		}
	default:
		if p.Deleted {
			return d, false, nil
		}
		var isBranch, isTag bool
		d.Branch, isBranch = strings.CutPrefix(p.Ref, "refs/heads/")
		d.Tag, isTag = strings.CutPrefix(p.Ref, "refs/tags/")
		if !isBranch {
			d.Branch = ""
		}
		if !isTag {
			d.Tag = ""
		}
		d.Commit = p.After
		for _, c := range p.Commits {
			d.Files = append(append(append(d.Files, c.Added...), c.Removed...), c.Modified...)
		}
	}
	if len(d.Commit) != 40 || strings.Trim(d.Commit, "0123456789abcdef") != "" || d.Branch == "" && d.Tag == "" {
		return d, false, fault.New(fault.InvalidArgument, "The %s has no commit or no branch.", event)
	}
	return d, true, nil
}

// Deliver takes a delivery in, once: the same id again counts for nothing. What it means is done afterwards, but which
// commit a comment asks for is settled here: a later push must not slip in below it.
func (s *Triggers) Deliver(ctx context.Context, d Delivery) (err error) {
	defer fault.Wrap(&err, "trigger.Deliver(%s)", d.ID)
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if d.Pull {
			if err := s.pull(tx, &d); err != nil {
				return err
			}
		}
		_, err := eventTable.Create(tx, d.Project+"/"+d.ID, d)
		return err
	})
	if fault.Is(err, fault.AlreadyExists) {
		return nil
	}
	return err
}

// deliveries acts upon what GitHub has told.
func (s *Triggers) deliveries(ctx context.Context) error {
	var rows []store.Row[Delivery]
	err := s.Store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = eventTable.List(tx, "", "", 0)
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, row := range rows {
		old := s.Store.Now().Sub(row.Created) > deliveryAge
		if row.Value.Handled && !old {
			continue
		}
		if !row.Value.Handled {
			if err := s.delivered(ctx, &row.Value); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, s.Store.Update(ctx, func(tx *store.Tx) error {
			if old {
				return eventTable.Delete(tx, row.Name)
			}
			now, err := eventTable.Get(tx, row.Name)
			if err != nil {
				return err
			}
			now.Value.Handled = true
			_, err = eventTable.SetStatus(tx, now)
			return err
		}))
	}
	return errors.Join(errs...)
}

func (s *Triggers) delivered(ctx context.Context, d *Delivery) error {
	if d.Closed || d.Commit == "" {
		return nil
	}
	all, err := s.List(ctx, resource.Location{Project: d.Project, Location: "-"})
	if err != nil {
		return err
	}
	var errs []error
	for i := range all {
		t := &all[i]
		if !t.means(d) || d.Pull && !t.GitHub.lets(d) || d.Branch != "" && !d.Pull && !t.Touches(d.Files) {
			continue
		}
		values := make(map[string]string)
		for k, v := range d.Substitutions { // a branch may have any name
			values[k] = builds.Literal(v)
		}
		f := Firing{ID: d.ID, Branch: d.Branch, Tag: d.Tag, Commit: d.Commit, Substitutions: values}
		if d.Pull {
			f.Branch = d.Substitutions["_HEAD_BRANCH"]
		}
		_, err := s.Fire(ctx, t, f)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// means reports whether a delivery is of the trigger's repository and of a branch or tag that it is for.
func (t *Trigger) means(d *Delivery) bool {
	g := t.GitHub
	if t.Disabled || g == nil || !strings.EqualFold(g.Owner, d.Owner) || !strings.EqualFold(g.Name, d.Name) {
		return false
	}
	p := g.Push
	if d.Pull {
		p = g.Pull
	}
	return p != nil && p.Matches(d.Branch, d.Tag)
}
