package builds

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"

	"giggle/fault"
	"giggle/filter"
)

// Filter chooses builds: what "View build results" of the documentation has, and what gcloud sends for --ongoing.
type Filter func(b *Build) bool

// ParseFilter reads a filter; an empty one chooses all. It fails with InvalidArgument.
func ParseFilter(s string) (Filter, error) { return filter.Parse(s, compare) }

// compare is one comparison. A field with several values compares well if one of them does. Names are in either
// spelling.
func compare(c filter.Comparison) (func(*Build) bool, error) {
	if c.Field == "" {
		return nil, fault.Invalid("filter", "FIELD=VALUE is expected; several are joined by AND or OR")
	}
	name := snake(c.Field)
	if at, ok := times[name]; ok {
		want, err := parseTime(c.Value)
		if err != nil {
			return nil, fault.Invalid("filter", "%.50q is not a time such as 2026-01-31T12:00:00Z", c.Value)
		}
		return func(b *Build) bool {
			t := at(b)
			return !t.IsZero() && filter.Holds(t.Compare(want), c.Op)
		}, nil
	}
	get, ok := texts[name]
	if key, is := strings.CutPrefix(c.Field, "substitutions."); is {
		get, ok = func(b *Build) []string { return []string{b.Spec.Substitutions[key]} }, true
	}
	if !ok {
		return nil, fault.Invalid("filter", "%.50q is not a field that builds are chosen by", c.Field)
	}
	if c.Op == "!=" {
		return func(b *Build) bool { return !slices.Contains(get(b), c.Value) }, nil
	}
	return func(b *Build) bool {
		return slices.ContainsFunc(get(b), func(v string) bool { return filter.Holds(strings.Compare(v, c.Value), c.Op) })
	}, nil
}

// snake is a name in the spelling of the protos: "source.repo_source" of "source.repoSource".
func snake(name string) string {
	var out strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			out.WriteByte('_')
			r = unicode.ToLower(r)
		}
		out.WriteRune(r)
	}
	return out.String()
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	for _, form := range []string{"2006-01-02T15:04:05", "2006-01-02"} {
		if err != nil {
			t, err = time.Parse(form, s)
		}
	}
	return t, err
}

var times = map[string]func(*Build) time.Time{
	"create_time": func(b *Build) time.Time { return b.Created },
	"start_time":  func(b *Build) time.Time { return b.Started },
	"finish_time": func(b *Build) time.Time { return b.Finished },
}

// texts are the fields that gcloud 528 sends (filter_rewrite.py), and those of "View build results" in the
// documentation.
var texts = func() map[string]func(*Build) []string {
	one := func(get func(*Build) string) func(*Build) []string {
		return func(b *Build) []string { return []string{get(b)} }
	}
	repo := func(get func(*Repo) string) func(*Build) []string {
		return func(b *Build) []string {
			if b.Source.Repo == nil {
				return nil
			}
			return []string{get(b.Source.Repo)}
		}
	}
	pushed := func(get func(*Pushed) string) func(*Build) []string {
		return func(b *Build) (out []string) {
			for i := range b.Images {
				out = append(out, get(&b.Images[i]))
			}
			return out
		}
	}
	id := one(func(b *Build) string { return b.Name.ID })
	images := func(b *Build) []string { return b.Spec.Images }
	trigger := one(func(b *Build) string { return b.Trigger })
	commit := repo(func(r *Repo) string { return r.Commit })
	return map[string]func(*Build) []string{
		"status": one(func(b *Build) string { return string(b.Status) }),
		"tags":   func(b *Build) []string { return b.Tags },
		"id":     id, "build_id": id,
		"images": images, "image": images,
		"service_account": func(b *Build) []string {
			return []string{b.Account, "projects/" + b.Project + "/serviceAccounts/" + b.Account}
		},
		"project_id": one(func(b *Build) string { return b.Project }),
		"trigger_id": trigger, "build_trigger_id": trigger,
		"results.images.name":   pushed(func(p *Pushed) string { return p.Name }),
		"results.images.digest": pushed(func(p *Pushed) string { return p.Digest }),
		"options.requested_verify_option": func(b *Build) []string {
			return []string{cmp.Or(b.Spec.Options.Verify, "NOT_VERIFIED")}
		},
		"source.storage_source.bucket":                      one(func(b *Build) string { return b.Source.Bucket }),
		"source.storage_source.object":                      one(func(b *Build) string { return b.Source.Object }),
		"source.repo_source.repo_name":                      repo(func(r *Repo) string { return r.Name }),
		"source.repo_source.branch_name":                    repo(func(r *Repo) string { return r.Branch }),
		"source.repo_source.tag_name":                       repo(func(r *Repo) string { return r.Tag }),
		"source.repo_source.commit_sha":                     commit,
		"source_provenance.resolved_repo_source.commit_sha": commit,
	}
}()
