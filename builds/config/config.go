// Package config reads cloudbuild.yaml and cloudbuild.json into Cloud Build's message as Cloud Build does: YAML into
// JSON, and JSON by the message's own description. A field that there is not, a number where text belongs, one text
// where a list belongs are errors with their path; of a field that is there twice the last one counts.
//
// Rules: package config of https://github.com/GoogleCloudPlatform/cloud-build-local, and of the libraries that it calls
// https://pkg.go.dev/gopkg.in/yaml.v2 and https://pkg.go.dev/github.com/golang/protobuf/jsonpb.
//
// It serves triggers, whose configuration comes out of a repository; gcloud reads the files of its user itself. What
// a build means, and whether it can run, is package build's business.
package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
)

// Limits of a file.
const (
	maxSize  = 1 << 20 // bytes
	maxNodes = 100_000 // aliases counted as often as they are used
	maxDepth = 50
)

// Parse reads a YAML or JSON file into an empty message: google.devtools.cloudbuild.v1.Build, or a trigger. It fails
// with InvalidArgument and the path of the field.
func Parse(data []byte, into proto.Message) error {
	if len(data) > maxSize {
		return fault.New(fault.InvalidArgument, "The build configuration is larger than %d bytes.", maxSize)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fault.New(fault.InvalidArgument, "The build configuration is not valid YAML: %s.",
			strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return fault.New(fault.InvalidArgument, "The build configuration is empty.")
	}
	r := &reader{left: maxNodes}
	tree, err := r.message(doc.Content[0], into.ProtoReflect().Descriptor(), "", 0)
	if err != nil {
		return err
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(text, into); err != nil {
		_, why, _ := strings.Cut(err.Error(), "): ")
		return fault.New(fault.InvalidArgument, "The build configuration is not valid: %s.", why)
	}
	return nil
}

// reader turns YAML into what protojson reads, by the message's own description.
type reader struct{ left int }

// enter counts a node and follows an alias.
func (r *reader) enter(n *yaml.Node, depth int) (*yaml.Node, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if r.left--; r.left < 0 || depth > maxDepth {
		return nil, tooLarge()
	}
	return n, nil
}

func tooLarge() error {
	return fault.New(fault.InvalidArgument, "The build configuration is too large or nested too deep.")
}

func wrong(n *yaml.Node, path, want string) error {
	if path == "" {
		path = "build"
	}
	return fault.Invalid(path, "line %d: %s is expected", n.Line, want)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (r *reader) message(n *yaml.Node, d protoreflect.MessageDescriptor, path string, depth int) (any, error) {
	n, err := r.enter(n, depth)
	if err != nil {
		return nil, err
	}
	switch d.FullName() {
	case "google.protobuf.Duration":
		return duration(n, path)
	case "google.protobuf.Timestamp":
		return text(n, path)
	}
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, path, "a map of fields")
	}
	pairs, err := r.pairs(n, path, depth)
	if err != nil {
		return nil, err
	}
	out := make(map[string]any)
	spelt := make(map[string]string)
	for _, p := range pairs {
		field := d.Fields().ByJSONName(p.key)
		if field == nil {
			field = d.Fields().ByTextName(p.key)
		}
		at := join(path, clip(p.key))
		switch {
		case field == nil && Newer(at):
			return nil, NotServed(at)
		case field == nil:
			return nil, fault.Invalid(at, "line %d: unknown field %.100q: there is no such field", p.line, p.key)
		}
		name := field.JSONName()
		if other := spelt[name]; other != "" && other != p.key {
			return nil, fault.Invalid(at, "line %d: the field is there twice, as %q, too", p.line, other)
		}
		spelt[name] = p.key
		v, err := r.field(p.value, field, at, depth+1)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[name] = v
		}
	}
	return out, nil
}

// pair is one entry of a map.
type pair struct {
	key   string
	line  int
	value *yaml.Node
}

// mergeTag is the tag of the key "<<", which takes in what another map has (https://yaml.org/type/merge.html).
const mergeTag = "!!merge"

// pairs are the entries of a map: of a key that is there twice the last, and what it merges where it has no such key
// itself.
func (r *reader) pairs(n *yaml.Node, path string, depth int) ([]pair, error) {
	var own, merged []pair
	if r.left -= len(n.Content) / 2; r.left < 0 { // merges multiply as aliases do
		return nil, tooLarge()
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return nil, wrong(key, path, "a name as the key")
		}
		if key.Tag != mergeTag {
			own = append(own, pair{key.Value, key.Line, value})
			continue
		}
		from, err := r.enter(value, depth)
		if err != nil {
			return nil, err
		}
		maps := []*yaml.Node{from}
		if from.Kind == yaml.SequenceNode {
			maps = slices.Clone(from.Content)
			slices.Reverse(maps) // the first of them wins
		}
		for _, m := range maps {
			m, err := r.enter(m, depth+1)
			if err != nil {
				return nil, err
			}
			if m.Kind != yaml.MappingNode {
				return nil, wrong(value, path, "a map, or a list of maps, to merge")
			}
			more, err := r.pairs(m, path, depth+1)
			if err != nil {
				return nil, err
			}
			merged = append(merged, more...)
		}
	}
	var out []pair
	at := make(map[string]int)
	for _, p := range append(merged, own...) {
		if i, ok := at[p.key]; ok {
			out[i] = p
			continue
		}
		at[p.key] = len(out)
		out = append(out, p)
	}
	return out, nil
}

// newer are the fields that Cloud Build has and the message has not yet: those of its discovery document alone.
var newer = []string{
	"artifacts.oci", "artifacts.genericArtifacts", "mavenArtifacts.deployFolder", "options.pubsubTopic",
	"options.rankedMachineSeries", "steps.results", "source.developerConnectConfig", "dependencies.genericArtifact",
	"developerConnectEventConfig", "eventType", "includeBuildLogs", "bitbucketServerTriggerConfig",
	"github.enterpriseConfigResourceName", "gitFileSource.bitbucketServerConfig", "sourceToBuild.bitbucketServerConfig",
}

var index = regexp.MustCompile(`\[[0-9]+\]`)

// Newer reports whether the path of a field that the message has not is one of a field of Cloud Build's.
func Newer(path string) bool {
	parts := strings.Split(index.ReplaceAllString(path, ""), ".")
	for i, p := range parts { // either spelling
		words := strings.Split(p, "_")
		for j := 1; j < len(words); j++ {
			if words[j] != "" {
				words[j] = strings.ToUpper(words[j][:1]) + words[j][1:]
			}
		}
		parts[i] = strings.Join(words, "")
	}
	path = "." + strings.Join(parts, ".")
	return slices.ContainsFunc(newer, func(n string) bool { return strings.HasSuffix(path, "."+n) })
}

// NotServed is the refusal of a field that Cloud Build has and this platform does not.
func NotServed(path string) error {
	return fault.NotImplemented(clip(path), "Cloud Build has this field; it is not implemented here")
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

func (r *reader) field(n *yaml.Node, d protoreflect.FieldDescriptor, path string, depth int) (any, error) {
	n, err := r.enter(n, depth)
	if err != nil {
		return nil, err
	}
	if n.Kind == yaml.ScalarNode && kind(n) == "!!null" {
		return nil, nil // as if it were not there
	}
	switch {
	case d.IsMap():
		if n.Kind != yaml.MappingNode {
			return nil, wrong(n, path, "a map")
		}
		pairs, err := r.pairs(n, path, depth)
		if err != nil {
			return nil, err
		}
		out := make(map[string]any)
		for _, p := range pairs {
			if p.value.Kind == yaml.ScalarNode && kind(p.value) == "!!null" && d.MapValue().Kind() == protoreflect.StringKind {
				out[p.key] = "" // a substitution that whoever starts the build gives
				continue
			}
			if out[p.key], err = r.one(p.value, d.MapValue(), join(path, clip(p.key)), depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case d.IsList():
		if n.Kind != yaml.SequenceNode {
			if n.Kind == yaml.ScalarNode && d.Kind() == protoreflect.StringKind {
				return nil, wrong(n, path, "a list (one with one element is written ['foo'], not 'foo')")
			}
			return nil, wrong(n, path, "a list")
		}
		out := make([]any, len(n.Content))
		for i, c := range n.Content {
			if out[i], err = r.one(c, d, fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return r.one(n, d, path, depth)
}

// kind is what YAML 1.1, which Cloud Build and gcloud read, takes a scalar for: "!!str", "!!bool", "!!int", ….
func kind(n *yaml.Node) string {
	tag := n.ShortTag()
	if tag == "!!timestamp" { // one that is not quoted is still text
		return "!!str"
	}
	if tag == "!!str" && n.Style == 0 {
		if _, ok := oldBooleans[strings.ToLower(n.Value)]; ok {
			return "!!bool"
		}
	}
	return tag
}

// oldBooleans are the words that mean true and false in YAML 1.1 and nothing in 1.2.
var oldBooleans = map[string]bool{"yes": true, "on": true, "no": false, "off": false}

// kinds are what scalars that are no text are called in a refusal, as by the library that Cloud Build reads them with.
var kinds = map[string]string{"!!int": "number", "!!float": "number", "!!bool": "bool"}

// text is the value of a scalar that must be text.
func text(n *yaml.Node, path string) (string, error) {
	if n.Kind != yaml.ScalarNode || kind(n) == "!!null" || kind(n) == "!!binary" {
		return "", wrong(n, path, "text")
	}
	if k := kinds[kind(n)]; k != "" {
		return "", fault.Invalid(path, "line %d: json: cannot unmarshal %s into Go value of type string: write '%.50s'",
			n.Line, k, n.Value)
	}
	return n.Value, nil
}

// one reads one value.
func (r *reader) one(n *yaml.Node, d protoreflect.FieldDescriptor, path string, depth int) (any, error) {
	if d.Message() != nil {
		return r.message(n, d.Message(), path, depth+1)
	}
	n, err := r.enter(n, depth)
	if err != nil {
		return nil, err
	}
	if n.Kind != yaml.ScalarNode || kind(n) == "!!null" {
		return nil, wrong(n, path, "a single value")
	}
	switch d.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return text(n, path)
	case protoreflect.BoolKind:
		if kind(n) != "!!bool" {
			return nil, wrong(n, path, "true or false")
		}
		if v, ok := oldBooleans[strings.ToLower(n.Value)]; ok {
			return v, nil
		}
		return strings.EqualFold(n.Value, "true"), nil
	case protoreflect.EnumKind:
		if number, err := strconv.ParseInt(n.Value, 10, 32); err == nil && kind(n) == "!!int" {
			if v := d.Enum().Values().ByNumber(protoreflect.EnumNumber(number)); v != nil {
				return string(v.Name()), nil
			}
		}
		if v := d.Enum().Values().ByName(protoreflect.Name(n.Value)); v == nil {
			return nil, fault.Invalid(path, "line %d: %.50q is not a value of this field", n.Line, n.Value)
		}
		return n.Value, nil
	}
	var v int64
	if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
		return json.Number(n.Value), nil
	}
	if kind(n) != "!!int" || n.Decode(&v) != nil { // 0x10, 1_000
		return nil, wrong(n, path, "a whole number")
	}
	return json.Number(strconv.FormatInt(v, 10)), nil
}

// duration reads "600s", "10m" or "1h30m".
func duration(n *yaml.Node, path string) (any, error) {
	value, err := text(n, path)
	if err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return nil, wrong(n, path, "a duration such as 600s")
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s", nil
}
