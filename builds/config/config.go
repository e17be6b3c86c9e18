// Package config reads cloudbuild.yaml and cloudbuild.json into Cloud Build's message, as strictly as gcloud does: a
// field that there is not, or one that is there twice, is an error with its path.
//
// It serves triggers, whose configuration comes out of a repository; gcloud reads the files of its user itself. What
// a build means, and whether it can run, is package build's business.
package config

import (
	"encoding/json"
	"fmt"
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
		return nil, fault.New(fault.InvalidArgument, "The build configuration is too large or nested too deep.")
	}
	return n, nil
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
		if n.Kind != yaml.ScalarNode {
			return nil, wrong(n, path, "a time")
		}
		return n.Value, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, path, "a map of fields")
	}
	out := make(map[string]any)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		field := d.Fields().ByJSONName(key.Value)
		if field == nil {
			field = d.Fields().ByTextName(key.Value)
		}
		at := join(path, key.Value)
		if field == nil || key.Kind != yaml.ScalarNode {
			return nil, fault.Invalid(clip(at), "line %d: there is no such field", key.Line)
		}
		if _, twice := out[field.JSONName()]; twice {
			return nil, fault.Invalid(at, "line %d: the field is there twice", key.Line)
		}
		v, err := r.field(n.Content[i+1], field, at, depth+1)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[field.JSONName()] = v
		}
	}
	return out, nil
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
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil, nil // as if it were not there
	}
	switch {
	case d.IsMap():
		if n.Kind != yaml.MappingNode {
			return nil, wrong(n, path, "a map")
		}
		out := make(map[string]any)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			at := join(path, clip(key))
			if _, twice := out[key]; twice || n.Content[i].Kind != yaml.ScalarNode {
				return nil, fault.Invalid(at, "line %d: the key is there twice, or is none", n.Content[i].Line)
			}
			if out[key], err = r.one(n.Content[i+1], d.MapValue(), at, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	case d.IsList():
		if n.Kind != yaml.SequenceNode {
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

// one reads one value. A number or a boolean where text belongs is taken as it is written.
func (r *reader) one(n *yaml.Node, d protoreflect.FieldDescriptor, path string, depth int) (any, error) {
	if d.Message() != nil {
		return r.message(n, d.Message(), path, depth+1)
	}
	n, err := r.enter(n, depth)
	if err != nil {
		return nil, err
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" && n.Value != "" && d.Kind() != protoreflect.StringKind {
		return nil, wrong(n, path, "a single value")
	}
	switch d.Kind() {
	case protoreflect.StringKind:
		if n.Tag == "!!binary" {
			return nil, wrong(n, path, "text")
		}
		return n.Value, nil
	case protoreflect.BytesKind:
		return n.Value, nil
	case protoreflect.BoolKind:
		var v bool
		if err := n.Decode(&v); err != nil {
			return nil, wrong(n, path, "true or false")
		}
		return v, nil
	case protoreflect.EnumKind:
		if v := d.Enum().Values().ByName(protoreflect.Name(n.Value)); v == nil {
			return nil, fault.Invalid(path, "line %d: %.50q is not a value of this field", n.Line, n.Value)
		}
		return n.Value, nil
	}
	if _, err := strconv.ParseInt(n.Value, 10, 64); err != nil {
		return nil, wrong(n, path, "a whole number")
	}
	return json.Number(n.Value), nil
}

// duration reads "600s", "10m" or "1h30m".
func duration(n *yaml.Node, path string) (any, error) {
	if n.Kind == yaml.ScalarNode {
		text := n.Value
		if _, err := strconv.ParseUint(text, 10, 32); err == nil {
			text += "s" // as gcloud reads a bare number
		}
		if d, err := time.ParseDuration(text); err == nil && d >= 0 {
			return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s", nil
		}
	}
	return nil, wrong(n, path, "a duration such as 600s")
}
