// Package discovery reads Google's discovery documents (https://developers.google.com/discovery/v1/reference/apis), as
// Google's Go module google.golang.org/api carries them, and holds answers against them: whether every member of one is
// a member that the document has, of the type that it says.
//
// Nothing of it runs unless a directory with documents is named: it is for tests, which have the real gcloud and
// Google's client libraries make the requests.
package discovery

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Document is the discovery document of an API.
type Document struct {
	Name, Version, ServicePath string
	Schemas                    map[string]*Schema
	Resources                  map[string]*Resource
}

// Resource is a collection of methods.
type Resource struct {
	Methods   map[string]*Method
	Resources map[string]*Resource
}

// Method is one method of an API.
type Method struct {
	ID             string
	HTTPMethod     string
	Path, FlatPath string
	Parameters     map[string]*Schema
	Request        *Schema
	Response       *Schema
}

// Schema is the form of a value.
type Schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Format               string
	Description          string
	ReadOnly             bool
	Enum                 []string
	Properties           map[string]*Schema
	AdditionalProperties *Schema
	Items                *Schema
}

// Read returns the document of an API, "run" and "v1", in the directory of google.golang.org/api.
func Read(dir, api, version string) (*Document, error) {
	b, err := os.ReadFile(filepath.Join(dir, api, version, api+"-api.json"))
	if err != nil {
		return nil, err
	}
	var d Document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("document of %s %s: %w", api, version, err)
	}
	return &d, nil
}

// Methods returns every method of the document.
func (d *Document) Methods() []*Method {
	var out []*Method
	var add func(map[string]*Resource)
	add = func(all map[string]*Resource) {
		for _, r := range all {
			for _, m := range r.Methods {
				out = append(out, m)
			}
			add(r.Resources)
		}
	}
	add(d.Resources)
	return out
}

// Checker holds answers against the documents in a directory. It is safe for concurrent use.
type Checker struct {
	dir string

	mu   sync.Mutex
	apis map[string][]*call // by host
}

// call is how a method is called.
type call struct {
	doc    *Document
	method *Method
	path   *regexp.Regexp
	weight int // characters of the path that are no variable's
}

// NewChecker returns a checker with the documents of google.golang.org/api in dir.
func NewChecker(dir string) *Checker { return &Checker{dir: dir, apis: make(map[string][]*call)} }

// Check returns what is wrong with the answer of a host, "run.googleapis.com", to a request: "Service.spec.foo: …". An
// answer of a method that no document has is not judged.
func (c *Checker) Check(host, method, path string, body []byte) []string {
	found := c.find(host, method, path)
	if found == nil || found.method.Response == nil {
		return nil
	}
	var v any
	if json.Unmarshal(body, &v) != nil {
		return nil // bytes of an object
	}
	w := &walker{doc: found.doc}
	w.value(found.method.Response, v, found.method.Response.Ref)
	for i := range w.wrong {
		w.wrong[i] = found.method.ID + ": " + w.wrong[i]
	}
	return w.wrong
}

func (c *Checker) find(host, method, path string) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls, ok := c.apis[host]
	if !ok {
		calls = load(c.dir, strings.TrimSuffix(host, ".googleapis.com"))
		c.apis[host] = calls
	}
	var best *call
	for _, x := range calls {
		if x.method.HTTPMethod == method && x.path.MatchString(path) && (best == nil || x.weight > best.weight) {
			best = x
		}
	}
	return best
}

// load reads all versions of an API.
func load(dir, api string) []*call {
	api = strings.ReplaceAll(api, "-", "")
	versions, err := os.ReadDir(filepath.Join(dir, api))
	if err != nil {
		return nil
	}
	variable := regexp.MustCompile(`\{[^}]*\}`)
	var out []*call
	for _, v := range versions {
		doc, err := Read(dir, api, v.Name())
		if err != nil {
			continue
		}
		for _, m := range doc.Methods() {
			path := m.FlatPath
			if path == "" {
				path = m.Path
			}
			path = "/" + doc.ServicePath + path
			parts := variable.Split(path, -1)
			weight := 0
			for i, part := range parts {
				weight += len(part)
				parts[i] = regexp.QuoteMeta(part)
			}
			re := regexp.MustCompile("^" + strings.Join(parts, "[^/]+") + "$")
			out = append(out, &call{doc: doc, method: m, path: re, weight: weight})
		}
	}
	return out
}

// walker looks for what is wrong with a value.
type walker struct {
	doc   *Document
	wrong []string
}

func (w *walker) value(s *Schema, v any, at string) {
	if s == nil || v == nil || len(w.wrong) > 20 {
		return
	}
	if s.Ref != "" {
		s = w.doc.Schemas[s.Ref]
		if s == nil {
			return
		}
	}
	switch x := v.(type) {
	case map[string]any:
		w.object(s, x, at)
	case []any:
		if s.Type != "array" && s.Type != "any" && s.Type != "" {
			w.say(at, "is a list, not a %s", s.Type)
			return
		}
		for _, e := range x {
			w.value(s.Items, e, at+"[]")
		}
	case string:
		if s.Type == "integer" || s.Type == "boolean" || s.Type == "object" || s.Type == "array" {
			w.say(at, "is a text, not a %s", s.Type)
		} else if len(s.Enum) > 0 && !slices.Contains(s.Enum, x) {
			w.say(at, "has the value %q, which is not one of its own", x)
		}
	case bool:
		if s.Type != "boolean" && s.Type != "any" {
			w.say(at, "is a boolean, not a %s", s.Type)
		}
	case float64:
		if s.Type != "integer" && s.Type != "number" && s.Type != "any" && len(s.Enum) == 0 {
			w.say(at, "is a number, not a %s", s.Type)
		}
	}
}

func (w *walker) object(s *Schema, x map[string]any, at string) {
	if kind, ok := x["@type"].(string); ok && s.AdditionalProperties != nil { // google.protobuf.Any
		name := kind[strings.LastIndexByte(kind, '/')+1:]
		if known := w.typeOf(name); known != nil {
			rest := make(map[string]any)
			for k, v := range x {
				if k != "@type" {
					rest[k] = v
				}
			}
			w.object(known, rest, name)
		}
		return
	}
	if s.Type != "object" && s.Type != "any" && s.Type != "" {
		w.say(at, "is an object, not a %s", s.Type)
		return
	}
	for k, v := range x {
		switch p := s.Properties[k]; {
		case p != nil:
			w.value(p, v, at+"."+k)
		case s.AdditionalProperties != nil:
			w.value(s.AdditionalProperties, v, at+"."+k)
		case s.Type != "any" && len(s.Properties) > 0:
			w.say(at+"."+k, "is not a member in the document")
		}
	}
}

// typeOf is the schema of a message by its full name, "google.cloud.run.v2.Service" is GoogleCloudRunV2Service or
// Service.
func (w *walker) typeOf(name string) *Schema {
	var b strings.Builder
	for part := range strings.SplitSeq(name, ".") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	if s := w.doc.Schemas[b.String()]; s != nil {
		return s
	}
	return w.doc.Schemas[name[strings.LastIndexByte(name, '.')+1:]]
}

func (w *walker) say(at, format string, args ...any) {
	w.wrong = append(w.wrong, at+" "+fmt.Sprintf(format, args...))
}
