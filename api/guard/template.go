package guard

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
	"giggle/rest"
)

// template is a resource's name with fields of the call in it.
type template []piece

// piece is text, or a field of the call by its path.
type piece struct {
	text  string
	field string // "" for text
	path  []protoreflect.Name
}

// parseTemplates reads what Rule.On describes.
func parseTemplates(s string) ([]template, error) {
	if s == "" {
		return nil, nil
	}
	var out []template
	for _, one := range strings.Split(s, "|") {
		t, err := parseTemplate(one)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func parseTemplate(s string) (t template, err error) {
	for rest := s; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		if text != "" {
			t = append(t, piece{text: text})
		}
		if !found {
			break
		}
		field, tail, closed := strings.Cut(after, "}")
		if !closed || field == "" || strings.ContainsAny(text+field, "{}") {
			return nil, errors.New("the template " + s + " has a brace without its other one, or no field between")
		}
		p := piece{field: field}
		for _, name := range strings.Split(field, ".") {
			p.path = append(p.path, protoreflect.Name(name))
		}
		t, rest = append(t, p), tail
	}
	if len(t) == 0 {
		return nil, errors.New("an empty template")
	}
	return t, nil
}

// missing is the error of a call that doesn't say what it is about.
type missing struct{ error }

func (m *missing) Unwrap() error { return m.error }

// resource fills the first of a rule's templates whose fields are all there from the call, and names the project by its
// id.
func (g *Guard) resource(ctx context.Context, templates []template, call *rest.Call) (string, error) {
	var first error
	for _, t := range templates {
		name, err := t.fill(call)
		if err == nil {
			return g.Canonical(ctx, name)
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// fill puts the fields of a call into the template. It fails with InvalidArgument when one is missing.
func (t template) fill(call *rest.Call) (string, error) {
	if len(t) == 1 && t[0].field == "" {
		return t[0].text, nil
	}
	var out strings.Builder
	for _, p := range t {
		value := p.text
		if p.field != "" {
			if value = p.valueIn(call); value == "" {
				return "", &missing{fault.Invalid(p.field, "is missing")}
			}
		}
		out.WriteString(value)
	}
	return out.String(), nil
}

// valueIn returns the field of the request: from the REST path's variables, or from the message.
func (p piece) valueIn(call *rest.Call) string {
	if p.field == "region" {
		return Region(call.HTTP.Host)
	}
	if v := call.Params[p.field]; v != "" {
		return v
	}
	if _, ok := call.Message.(*rest.Request); ok {
		return call.Query.Get(p.field)
	}
	m, ok := call.Message.(proto.Message)
	if !ok {
		return ""
	}
	msg := m.ProtoReflect()
	for i, name := range p.path {
		fd := msg.Descriptor().Fields().ByName(name)
		if fd == nil || fd.IsList() || fd.IsMap() {
			return ""
		}
		if i == len(p.path)-1 {
			if fd.Kind() == protoreflect.StringKind {
				return msg.Get(fd).String()
			}
			return ""
		}
		if fd.Kind() != protoreflect.MessageKind {
			return ""
		}
		msg = msg.Get(fd).Message()
	}
	return ""
}
