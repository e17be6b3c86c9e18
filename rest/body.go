package rest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
)

// readBody reads a request body of at most limit bytes, before and after decompression.
func readBody(r *http.Request, held *claim, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	body := io.Reader(http.MaxBytesReader(nil, r.Body, limit))
	if strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "The request body is not valid gzip.")
		}
		body = z
	}
	return held.readAll(body, limit)
}

// countJSON returns about how many values a JSON text has, valid or not: that is what its decoded form takes memory by.
func countJSON(text []byte) int {
	n, quoted := 1, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '{' || c == '['):
			n++
		}
	}
	return n
}

// decodeBody fills msg, or its field, from a JSON body, and returns the paths of the fields in it that there are none
// of. An unknown enum value is an error.
func decodeBody(body []byte, msg proto.Message, field string) (unknown []string, err error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	target := msg.ProtoReflect()
	path := ""
	if field != "" && field != "*" {
		fd := fieldByName(target.Descriptor(), field)
		path = fd.JSONName()
		if fd.Kind() == protoreflect.MessageKind && fd.Cardinality() != protoreflect.Repeated {
			target = target.Mutable(fd).Message()
		} else { // a scalar, list or map: read it as the only field of the request
			if !json.Valid(body) {
				return nil, badPayload(body, errors.New("syntax error"))
			}
			body = slices.Concat([]byte("{"+fmt.Sprintf("%q:", path)), body, []byte("}"))
			path = ""
		}
	}
	strict := protojson.Unmarshal(body, target.Interface())
	if strict == nil {
		return nil, nil
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if dec.Decode(&tree) != nil {
		return nil, badPayload(body, strict)
	}
	if _, ok := tree.(map[string]any); !ok && !wellKnown(target.Descriptor()) {
		return nil, badPayload(body, strict)
	}
	p := &pruner{}
	p.prune(target.Descriptor(), tree, path)
	if len(p.unknown) == 0 && !p.changed {
		return nil, badPayload(body, strict)
	}
	slices.Sort(p.unknown)
	pruned, err := json.Marshal(tree)
	if err != nil {
		return nil, badPayload(body, strict)
	}
	if err := protojson.Unmarshal(pruned, target.Interface()); err != nil {
		_, text, _ := strings.Cut(protoText(err), "): ") // its position is that of the pruned text
		return nil, badPayload(body, errors.New(text))
	}
	return p.unknown, nil
}

// refuse returns the paths of unknown fields for which a request is refused, or the fault of one of which there is more
// to say.
func (m *Mux) refuse(paths []string) (refused []string, err error) {
	for _, path := range paths {
		skip := false
		if m.unknown != nil {
			if skip, err = m.unknown(path); err != nil {
				return nil, err
			}
		}
		if !skip {
			refused = append(refused, path)
		}
	}
	return refused, nil
}

// unknownFields is the fault of a body with fields that a message doesn't have, in the words of Google's front end:
// what a client believes to have set must not be lost without a word.
func unknownFields(paths []string) error {
	const most = 10 // are named
	e := fault.New(fault.InvalidArgument, "")
	var lines []string
	for _, path := range paths[:min(len(paths), most)] {
		parent, name := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			parent, name = path[:i], path[i+1:]
		}
		at := ""
		if parent != "" {
			at = fmt.Sprintf(" at '%s'", clip(parent))
		}
		line := fmt.Sprintf("Invalid JSON payload received. Unknown name %q%s: Cannot find field.", clip(name), at)
		lines = append(lines, line)
		e.Fields = append(e.Fields, fault.Field{Path: clip(parent), Description: line})
	}
	e.Message = strings.Join(lines, "\n")
	return e
}

// pathOf is the path of the first field of that name in a JSON tree, "" for none.
func pathOf(tree any, name string) string {
	switch t := tree.(type) {
	case map[string]any:
		if _, ok := t[name]; ok {
			return name
		}
		for _, key := range slices.Sorted(maps.Keys(t)) {
			if p := pathOf(t[key], name); p != "" {
				return key + "." + p
			}
		}
	case []any:
		for i, v := range t {
			if p := pathOf(v, name); p != "" {
				return fmt.Sprintf("[%d].%s", i, p)
			}
		}
	}
	return ""
}

func badPayload(body []byte, err error) error {
	var syntax *json.SyntaxError
	if e := json.Unmarshal(body, new(any)); errors.As(e, &syntax) {
		return fault.New(fault.InvalidArgument, "Invalid JSON payload received. %s at offset %d.", syntax,
			syntax.Offset)
	}
	return fault.New(fault.InvalidArgument, "Invalid JSON payload received. %s", protoText(err))
}

// protoText is protojson's text without its prefix, whose space is random so that nobody relies on it.
func protoText(err error) string {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(s, "proto: ")
}

// wellKnown reports whether JSON has its own form for the message.
func wellKnown(d protoreflect.MessageDescriptor) bool {
	return d.FullName().Parent() == "google.protobuf" && d.FullName() != "google.protobuf.Empty"
}

// pruner makes a JSON tree one that protojson reads.
type pruner struct {
	unknown []string // paths of the fields that were taken out
	changed bool     // a value was spelled as protojson wants it
}

// prune takes the fields that d does not know out of a JSON tree and notes their paths, and spells enum values as d
// does: gcloud 528 sends "Delete" for DELETE.
func (p *pruner) prune(d protoreflect.MessageDescriptor, tree any, path string) {
	obj, ok := tree.(map[string]any)
	if !ok || wellKnown(d) {
		return
	}
	for name, value := range obj {
		at := strings.TrimPrefix(path+"."+name, ".")
		fd := fieldByName(d, name)
		switch {
		case fd == nil:
			p.unknown = append(p.unknown, at)
			delete(obj, name)
		case fd.IsMap():
			if vd := fd.MapValue().Message(); vd != nil {
				if entries, ok := value.(map[string]any); ok {
					for k, v := range entries {
						p.prune(vd, v, at+"."+k)
					}
				}
			}
		case fd.Enum() != nil:
			obj[name] = p.spell(fd.Enum(), value)
		case fd.Message() == nil:
		case fd.IsList():
			if list, ok := value.([]any); ok {
				for i, v := range list {
					p.prune(fd.Message(), v, fmt.Sprintf("%s[%d]", at, i))
				}
			}
		default:
			p.prune(fd.Message(), value, at)
		}
	}
}

// spell is a value of an enum, or a list of them, in the letters of the enum. What is none stays as it is.
func (p *pruner) spell(d protoreflect.EnumDescriptor, value any) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = p.spell(d, v[i])
		}
	case string:
		if upper := strings.ToUpper(v); upper != v && d.Values().ByName(protoreflect.Name(upper)) != nil {
			p.changed = true
			return upper
		}
	}
	return value
}

// encodeProto is the JSON of a message: compact or indented, without protojson's random spaces.
func encodeProto(msg proto.Message, f format) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseEnumNumbers: f.intEnum}.Marshal(msg)
	if err != nil {
		return nil, err
	}
	return f.shape(raw)
}

// shape applies the field mask and the spacing to a JSON text.
func (f format) shape(raw []byte) ([]byte, error) {
	if f.fields != nil {
		var tree any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&tree); err != nil {
			return nil, err
		}
		return encode(f.fields.apply(tree), f.pretty)
	}
	var buf bytes.Buffer
	var err error
	if f.pretty {
		err = json.Indent(&buf, raw, "", "  ")
	} else {
		err = json.Compact(&buf, raw)
	}
	if err == nil && (buf.Len() == 0 || buf.Bytes()[buf.Len()-1] != '\n') {
		buf.WriteByte('\n')
	}
	return buf.Bytes(), err
}
