package cloud

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"giggle/api/discovery"
	"giggle/api/discoverytest"
)

// written is a resource whose fields are tried one by one: each is written with everything else as in base, and read.
type written struct {
	api, version, schema string
	host                 string
	// base is the smallest whole resource.
	base string
	// method and path write it, update its mask where the path ends with "updateMask="; read is where it is read, after
	// what has answered is not enough; remove undoes it.
	method, path string
	read, remove string
	// request is what the resource is inside of in the request, as $BODY, and answer where it is in the answer.
	request, answer string
	// skip are fields whose schema is tried by a case of its own.
	skip []string
	// values are those that fields have to have, by the end of their path.
	values map[string]string
	// beside is what has to be beside a field, in the object that it is in, by the end of its path; behind a "/" in the
	// resource.
	beside map[string]string
	// checked are fields, by the end of their path, whose value here is refused because of something else: with the
	// words that say so.
	checked map[string]string
	// forbidden are those that Google refuses too, with the words.
	forbidden map[string]string
	// ours are fields that only the server sets, where the document doesn't say so; a path that ends with a dot means
	// all below it.
	ours []string
	// ignored are those that Google ignores too, where the document doesn't say so.
	ignored []string
	// kept are fields that are kept and shown and on which nothing else depends.
	kept []string
}

// named is the case with a name for the resource in place of $NAME.
func (w written) named(name string) written {
	for _, text := range []*string{&w.base, &w.request, &w.path, &w.read, &w.remove} {
		*text = strings.ReplaceAll(*text, "$NAME", name)
	}
	for _, table := range []*map[string]string{&w.values, &w.beside} {
		*table = maps.Clone(*table)
		for path, v := range *table {
			(*table)[path] = strings.ReplaceAll(v, "$NAME", name)
		}
	}
	return w
}

// states of a field, as they are said in docs/fidelity.md.
const (
	honoured    = "honoured"
	kept        = "kept and shown, without effect"
	ours        = "set by the server alone"
	refused     = "refused as not implemented"
	dropped     = "dropped"
	ignored     = "ignored, as at Google"
	forbidden   = "refused, as at Google"
	unavailable = "unknown"
)

var fieldStates = []string{honoured, kept, ours, ignored, forbidden, refused, unavailable, dropped}

// leaf is a field that holds no fields, or the list or map of one.
type leaf struct {
	path   string // "spec.template.spec.containers[].image"
	schema *discovery.Schema
}

// leaves returns those below a schema. A schema inside itself is not gone into again.
func leaves(doc *discovery.Document, s *discovery.Schema, at string, above []string) []leaf {
	if s.Ref != "" {
		if slices.Contains(above, s.Ref) {
			return []leaf{{at, doc.Schemas[s.Ref]}}
		}
		above = append(slices.Clone(above), s.Ref)
		inner := *doc.Schemas[s.Ref]
		if inner.Description = s.Description; len(inner.Properties) == 0 {
			return []leaf{{at, &inner}}
		}
		s = &inner
	}
	if s.Type == "array" {
		return leaves(doc, s.Items, at+"[]", above)
	}
	if len(s.Properties) == 0 {
		return []leaf{{at, s}}
	}
	var out []leaf
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		if serverSets(p) {
			out = append(out, leaf{joinPath(at, name), p})
			continue
		}
		out = append(out, leaves(doc, p, joinPath(at, name), above)...)
	}
	return out
}

func joinPath(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func serverSets(s *discovery.Schema) bool {
	return s.ReadOnly || strings.Contains(s.Description, "Output only") || strings.Contains(s.Description, "Read-only")
}

// sample is a value of a schema.
func sample(doc *discovery.Document, s *discovery.Schema) any {
	if s.Ref != "" {
		s = doc.Schemas[s.Ref]
	}
	switch {
	case len(s.Enum) > 0:
		return s.Enum[min(1, len(s.Enum)-1)]
	case s.Type == "boolean":
		return true
	case s.Type == "integer", s.Type == "number":
		return float64(1)
	case s.Type == "array":
		return []any{sample(doc, s.Items)}
	case s.Format == "int64", s.Format == "uint64":
		return "1"
	case strings.HasSuffix(s.Format, "duration"):
		return "60s"
	case strings.HasSuffix(s.Format, "datetime"), s.Format == "date-time":
		return "2026-01-02T03:04:05Z"
	case s.Format == "byte":
		return "YQ=="
	case s.Type == "string":
		return "a"
	case s.AdditionalProperties != nil:
		return map[string]any{"a": sample(doc, s.AdditionalProperties)}
	}
	return map[string]any{}
}

// put sets the value at a path, beside what the case has there, and leaves the rest.
func put(into map[string]any, path string, value any, beside map[string]any) {
	names := strings.Split(path, ".")
	for ; len(names) > 1; names = names[1:] {
		name, list := strings.CutSuffix(names[0], "[]")
		next := map[string]any{}
		if list {
			if have, ok := into[name].([]any); ok {
				next = have[0].(map[string]any)
			}
			into[name] = []any{next}
		} else {
			if have, ok := into[name].(map[string]any); ok {
				next = have
			}
			into[name] = next
		}
		into = next
	}
	maps.Copy(into, beside)
	if name, list := strings.CutSuffix(names[0], "[]"); list {
		into[name] = []any{value}
	} else {
		into[name] = value
	}
}

// of returns what a table has for a path: the entry whose key is the longest end of it.
func of(table map[string]string, path string) string {
	best, found := -1, ""
	for end, v := range table {
		if strings.HasSuffix(path, end) && len(end) > best {
			best, found = len(end), v
		}
	}
	return found
}

// under reports whether a path is one of a list, or below one that ends with a dot.
func under(list []string, path string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		return p == path || strings.HasSuffix(p, ".") && strings.HasPrefix(path, p)
	})
}

func says(text, words string) bool { return words != "" && strings.Contains(text, words) }

// shows reports whether an answer has a value: in a map, beside others.
func shows(have, value any) bool {
	if want, ok := value.(map[string]any); ok {
		x, _ := have.(map[string]any)
		for k, v := range want {
			if !shows(x[k], v) {
				return false
			}
		}
		return x != nil
	}
	return reflect.DeepEqual(have, value)
}

// take returns the value at a path, nil where there is none.
func take(v any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		name, list := strings.CutSuffix(name, "[]")
		x, _ := v.(map[string]any)
		v = x[name]
		if list {
			all, _ := v.([]any)
			if len(all) == 0 {
				return nil
			}
			v = all[0]
		}
	}
	return v
}

func parse(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// TestFields finds out what comes of each field of the resources that Google's clients write.
func TestFields(t *testing.T) {
	c := newCloud(t)
	all := muxes(t, c)
	token, _, err := c.identity.AccessToken(c.identity.Owner(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var rows, body strings.Builder
	for _, w := range writtenResources {
		t.Run(w.api+" "+w.version+" "+w.schema, func(t *testing.T) {
			doc, err := discoverytest.Read(w.api, w.version)
			if err != nil {
				t.Fatal(err)
			}
			call := func(method, path, body string) (int, string, map[string]any) {
				r := httptest.NewRequest(method, "https://"+w.host+path, strings.NewReader(body))
				if r.Host = w.host; strings.HasPrefix(path, "/apis/") {
					r.Host = "europe-north1-" + w.host
				}
				r.Header.Set("Authorization", "Bearer "+token)
				r.Header.Set("Content-Type", "application/json")
				res := httptest.NewRecorder()
				all[strings.TrimPrefix(w.host, "europe-north1-")].ServeHTTP(res, r)
				var got map[string]any
				_ = json.Unmarshal(res.Body.Bytes(), &got)
				return res.Code, res.Body.String(), got
			}
			states := map[string][]string{}
			for i, f := range leaves(doc, doc.Schemas[w.schema], "", []string{w.schema}) {
				if slices.ContainsFunc(w.skip, func(p string) bool { return strings.HasPrefix(f.path, p) }) {
					continue
				}
				w := w.named(fmt.Sprintf("field%03d", i)) // what is being deleted may be there for a while
				body := parse(t, w.base).(map[string]any)
				value := sample(doc, f.schema)
				if given := of(w.values, f.path); given != "" {
					value = parse(t, given)
				}
				beside := map[string]any{}
				if text, root := strings.CutPrefix(of(w.beside, f.path), "/"); root {
					maps.Copy(body, parse(t, text).(map[string]any))
					maps.DeleteFunc(body, func(_ string, v any) bool { return v == nil })
				} else if text != "" {
					beside = parse(t, text).(map[string]any)
				}
				put(body, f.path, value, beside)
				b, err := json.Marshal(body)
				if err != nil {
					t.Fatal(err)
				}
				request := strings.ReplaceAll(cmp.Or(w.request, "$BODY"), "$BODY", string(b))
				path := w.path
				if strings.HasSuffix(path, "updateMask=") {
					path += strings.Split(f.path, ".")[0]
				}
				code, text, got := call(w.method, path, request)
				state := ""
				switch {
				case code == 501 || code == 405 || strings.Contains(text, "ot implemented") ||
					strings.Contains(text, "UNIMPLEMENTED"):
					state = refused
				case strings.Contains(text, "Unknown name") || strings.Contains(text, "Cannot find field") ||
					strings.Contains(text, "unknown field"):
					state = unavailable
				case code != 200 && says(text, of(w.checked, f.path)):
					state = honoured
				case code != 200 && says(text, of(w.forbidden, f.path)):
					state = forbidden
				case code != 200:
					t.Errorf("%s = %v: %d %v %v", f.path, value, code, take(got, "message"), take(got, "error.message"))
					continue
				default:
					if w.read != "" {
						_, _, got = call("GET", w.read, "")
					}
					var shown any = got
					if w.answer != "" {
						shown = take(got, w.answer)
					}
					have := take(shown, f.path)
					switch {
					case serverSets(f.schema), under(w.ours, f.path):
						state = ours
					case shows(have, value) && under(w.kept, f.path):
						state = kept
					case shows(have, value):
						state = honoured
					case strings.Contains(strings.ToLower(f.schema.Description), "not supported"), under(w.ignored, f.path):
						state = ignored
					default:
						state = dropped
						t.Logf("%s: %v -> %v", f.path, value, have)
					}
					if w.remove != "" {
						if code, text, _ := call("DELETE", w.remove, ""); code != 200 && code != 204 {
							t.Fatalf("remove: %d %s", code, text)
						}
					}
				}
				states[state] = append(states[state], f.path)
			}
			if len(states[dropped]) > 0 {
				t.Errorf("dropped without a word: %v", states[dropped])
			}
			if got := len(states[kept]); w.kept != nil && got == 0 {
				t.Errorf("none of %v is kept", w.kept)
			}
			fmt.Fprintf(&rows, "| %s | %s %s |", strings.TrimPrefix(w.schema, "GoogleCloudRunV2"), w.api, w.version)
			fmt.Fprintf(&body, "\n## %s of %s %s\n", strings.TrimPrefix(w.schema, "GoogleCloudRunV2"), w.api, w.version)
			for _, s := range fieldStates {
				fmt.Fprintf(&rows, " %d |", len(states[s]))
				if s != honoured && len(states[s]) > 0 {
					fmt.Fprintf(&body, "\n%s:\n\n%s", strings.ToUpper(s[:1])+s[1:], wrapped(together(states, s)))
				}
			}
			rows.WriteString("\n")

		})
	}
	const file = "../docs/fields.md"
	text := "# Fields\n\nWhat comes of each field of the resources that Google's clients write. Each is written to the live routes with a value\nof the type that Google's discovery document says, and read back: a field that is taken and dropped fails the test.\n`go test ./cloud -run TestFields -update` writes this file. A path stands for all below it; fields that are honoured are\nnot listed.\n\n| resource | API |"
	for _, s := range fieldStates {
		text += " " + s + " |"
	}
	text += "\n|---|---|" + strings.Repeat("---|", len(fieldStates)) + "\n" + rows.String() + body.String()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != text {
		t.Errorf("docs/fields.md is not what comes of the fields (%v); run go test ./cloud -run TestFields -update", err)
	}
}

// together returns the paths of a state, those below which all have it as one.
func together(states map[string][]string, state string) []string {
	others := map[string]bool{} // what is above a field of another state
	for s, paths := range states {
		if s == state {
			continue
		}
		for _, p := range paths {
			for i, c := range p {
				if c == '.' {
					others[p[:i]] = true
				}
			}
			others[p] = true
		}
	}
	var out []string
	for _, p := range states[state] {
		for i, c := range p {
			if c == '.' && !others[p[:i]] {
				p = p[:i]
				break
			}
		}
		out = append(out, p)
	}
	return slices.Compact(out)
}

// wrapped is a list of paths in lines.
func wrapped(paths []string) string {
	var b strings.Builder
	line := "-"
	for i, p := range paths {
		p = "`" + p + "`"
		if i < len(paths)-1 {
			p += ","
		}
		if len(line)+1+len(p) > 120 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + p
	}
	return b.String() + line + "\n"
}
