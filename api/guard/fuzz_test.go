package guard

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
)

// someProjects are the projects of no store: "giggle", also by the number 123.
type someProjects struct{}

func (someProjects) Find(ref string) (resource.Project, error) {
	if ref == "giggle" || ref == "123" {
		return resource.Project{ID: "giggle", Number: "123"}, nil
	}
	return resource.Project{}, fault.New(fault.NotFound, "no project %q", ref)
}

func (someProjects) CheckEnabled(string, string) error { return nil }

// Whatever a call carries, the resource that its permission is asked for has no way up, no empty segment, and no
// project number that is an id.
func FuzzResource(f *testing.F) {
	for _, s := range []string{"projects/giggle/x", "projects/123/x", "projects/-/serviceAccounts/a@b.c",
		"projects/-/serviceAccounts/107/keys/k", "projects/123/serviceAccounts/107", "projects/_/buckets/b",
		"projects/giggle/../x", "a/%2e%2e", "projects", "{name}", ""} {
		f.Add("{name}|projects/{project}", s, s)
		f.Add("projects/{project}/locations/{region}", s, s)
		f.Add("{", s, s)
	}
	g := New(Config{
		Projects: someProjects{},
		Find: func(_ context.Context, collection, id string) (project, canonical string, err error) {
			if collection == "buckets" && id == "b" {
				return "giggle", id, nil
			}
			if collection == "serviceAccounts" && id == "107" {
				return "giggle", "a@b.c", nil
			}
			return "", "", fault.New(fault.NotFound, "no %s", collection)
		},
	})
	f.Fuzz(func(t *testing.T, template, name, project string) {
		r := httptest.NewRequest("GET", "https://europe-north1-run.googleapis.com/", nil)
		call := &rest.Call{
			HTTP:    r,
			Params:  map[string]string{"name": name},
			Message: &rest.Request{Request: r, Query: url.Values{"project": {project}}},
		}
		templates, err := parseTemplates(template)
		if err != nil {
			return // the API does not start
		}
		got, err := g.resource(t.Context(), templates, call)
		if err != nil {
			if !fault.Is(err, fault.InvalidArgument) && !fault.Is(err, fault.NotFound) {
				t.Errorf("%q: %v", template, err)
			}
			return
		}
		if !strings.HasPrefix(got, "projects/") {
			return
		}
		if len(got) > resource.MaxName+len("giggle") {
			t.Errorf("a name of %d bytes", len(got))
		}
		for _, s := range strings.Split(got, "/") {
			if s == "" || s == "." || s == ".." {
				t.Errorf("%q, %q, %q became %q", template, name, project, got)
			}
		}
		if strings.HasPrefix(got+"/", "projects/123/") {
			t.Errorf("%q keeps its number", got)
		}
		if strings.HasPrefix(got+"/", "projects/giggle/serviceAccounts/107/") {
			t.Errorf("%q keeps the account's number", got)
		}
	})
}
