package cloud

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"giggle/api/discovery"
	"giggle/api/discoverytest"
	"giggle/catalog"
)

// TestFidelity holds docs/fidelity.md to what the live routes serve of the methods in Google's discovery documents, of
// each version of an API that has any. Its numbers may only improve.
func TestFidelity(t *testing.T) {
	dir, err := discoverytest.Dir()
	if err != nil {
		t.Fatal(err)
	}
	c := newCloud(t)
	token, _, err := c.identity.AccessToken(c.identity.Owner(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var head, body strings.Builder
	head.WriteString("# Fidelity\n\nWhat is served of the methods in Google's discovery documents (`google.golang.org/api`), of each version of an API\nthat has any; `go test ./cloud -run Fidelity -update` writes this file from the live routes. While the tests' scripts run\nwith the real gcloud and Google's libraries, every answer is held against the same documents, member by member.\n\n| API | methods | served | said to be not implemented | absent |\n|---|---|---|---|---|\n")
	all, served := muxes(t, c), 0
	for _, a := range c.apis() {
		versions, err := os.ReadDir(filepath.Join(dir, strings.TrimSuffix(a.host, ".googleapis.com")))
		if err != nil {
			continue // Google's module has no document of it
		}
		for _, v := range versions {
			doc, err := discovery.Read(dir, strings.TrimSuffix(a.host, ".googleapis.com"), v.Name())
			if errors.Is(err, os.ErrNotExist) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			states := map[string][]*discovery.Method{}
			for _, m := range doc.Methods() {
				state := stateOf(all[a.host], a.host, token, doc, m)
				states[state] = append(states[state], m)
			}
			if len(states["served"]) == 0 {
				continue
			}
			served += len(states["served"])
			row, _ := catalog.Find(a.host)
			fmt.Fprintf(&head, "| %s %s | %d | %d | %d | %d |\n", row.Title, doc.Version, len(doc.Methods()),
				len(states["served"]), len(states["not implemented"]), len(states["absent"]))
			fmt.Fprintf(&body, "\n## %s %s\n", row.Title, doc.Version)
			for _, state := range []string{"served", "not implemented", "absent"} {
				if len(states[state]) > 0 {
					fmt.Fprintf(&body, "\n%s:\n\n%s", strings.ToUpper(state[:1])+state[1:], byResource(states[state]))
				}
			}
		}
	}
	if served < 150 {
		t.Errorf("only %d methods are served", served)
	}
	const file = "../docs/fidelity.md"
	text := head.String() + body.String()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != text {
		t.Errorf("docs/fidelity.md is not what the routes are (%v); run go test ./cloud -run Fidelity -update", err)
	}
}

var pathVariable = regexp.MustCompile(`\{[^}]*\}`)

// stateOf is whether a method is served: the owner asks for what isn't there.
func stateOf(h http.Handler, host, token string, doc *discovery.Document, m *discovery.Method) string {
	path := m.FlatPath
	if path == "" {
		path = m.Path
	}
	path = "/" + doc.ServicePath + pathVariable.ReplaceAllStringFunc(path, func(v string) string {
		if strings.HasPrefix(strings.Trim(v, "{+}"), "location") {
			return "europe-north1"
		}
		return "none-such"
	})
	r := httptest.NewRequest(m.HTTPMethod, "https://"+host+path, strings.NewReader("{}"))
	r.Host = host
	if strings.HasPrefix(path, "/apis/") {
		r.Host = "europe-north1-" + host
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	text, _ := io.ReadAll(w.Body)
	switch {
	case strings.HasPrefix(string(text), "<?xml"), // an object by its path
		w.Code == http.StatusNotFound && (strings.Contains(string(text), "The requested URL") ||
			strings.Contains(string(text), "Method not found")),
		w.Code == http.StatusMethodNotAllowed && !strings.Contains(string(text), "UNIMPLEMENTED"):
		return "absent"
	case w.Code == http.StatusMethodNotAllowed:
		return "not implemented"
	}
	return "served"
}

// byResource lists methods, those of a resource on one line.
func byResource(methods []*discovery.Method) string {
	of := map[string][]string{}
	for _, m := range methods {
		i := strings.LastIndexByte(m.ID, '.')
		of[m.ID[:i]] = append(of[m.ID[:i]], m.ID[i+1:])
	}
	var b strings.Builder
	for _, resource := range slices.Sorted(maps.Keys(of)) {
		slices.Sort(of[resource])
		line := "- `" + resource + "`:"
		for i, name := range of[resource] {
			if i < len(of[resource])-1 {
				name += ","
			}
			if len(line)+1+len(name) > 120 {
				b.WriteString(line + "\n")
				line = " "
			}
			line += " " + name
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
