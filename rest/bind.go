package rest

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"giggle/fault"
)

// bindQuery sets the fields that the query names, by JSON or proto name, nested by dots.
func bindQuery(msg protoreflect.Message, q url.Values) error {
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names) // the first error must not depend on map order
	for _, name := range names {
		if !hasPath(msg.Descriptor(), name) {
			return unknownParameter(name)
		}
		if err := setPath(msg, name, q[name]); err != nil {
			return fault.Invalid(name, "%s", err)
		}
	}
	return nil
}

// unknownParameter is the fault of a query parameter that a request doesn't have.
func unknownParameter(name string) error {
	e := fault.New(fault.InvalidArgument,
		"Invalid JSON payload received. Unknown name %q: Cannot bind query parameter. Field '%s' could not be found in request message.", name, name)
	e.Fields = []fault.Field{{Path: name, Description: e.Message}}
	return e
}

func fieldByName(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := d.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return d.Fields().ByName(protoreflect.Name(name))
}

// hasPath reports whether a dotted path leads to a field through single messages.
func hasPath(d protoreflect.MessageDescriptor, path string) bool {
	for {
		name, rest, more := strings.Cut(path, ".")
		fd := fieldByName(d, name)
		if fd == nil {
			return false
		}
		if !more {
			return true
		}
		if fd.Kind() != protoreflect.MessageKind || fd.Cardinality() == protoreflect.Repeated {
			return false
		}
		d, path = fd.Message(), rest
	}
}

// setPath sets the field at a path that hasPath.
func setPath(msg protoreflect.Message, path string, values []string) error {
	name, rest, more := strings.Cut(path, ".")
	fd := fieldByName(msg.Descriptor(), name)
	if more {
		return setPath(msg.Mutable(fd).Message(), rest, values)
	}
	switch {
	case fd.IsMap():
		return fmt.Errorf("a map cannot be given as a parameter")
	case fd.IsList():
		list := msg.Mutable(fd).List()
		for _, s := range values {
			v, err := parseValue(fd, s, list.NewElement)
			if err != nil {
				return err
			}
			list.Append(v)
		}
		return nil
	case len(values) != 1:
		return fmt.Errorf("given %d times, but it is not a list", len(values))
	}
	v, err := parseValue(fd, values[0], func() protoreflect.Value { return msg.NewField(fd) })
	if err != nil {
		return err
	}
	msg.Set(fd, v)
	return nil
}

// parseValue reads one parameter as a value of fd. A message has to be one of the well-known types that JSON writes as
// a string or a scalar.
func parseValue(
	fd protoreflect.FieldDescriptor, s string, fresh func() protoreflect.Value,
) (v protoreflect.Value, err error) {
	bad := func(want string) (protoreflect.Value, error) {
		return v, fmt.Errorf("invalid value %q (want %s)", clip(s), want)
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.ToValidUTF8(s, "\uFFFD")), nil
	case protoreflect.BoolKind:
		switch strings.ToLower(s) { // gcloud's Python sends True
		case "true", "1":
			return protoreflect.ValueOfBool(true), nil
		case "false", "0":
			return protoreflect.ValueOfBool(false), nil
		}
		return bad("true or false")
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return bad("int32")
		}
		return protoreflect.ValueOfInt32(int32(n)), nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return bad("int64")
		}
		return protoreflect.ValueOfInt64(n), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return bad("uint32")
		}
		return protoreflect.ValueOfUint32(uint32(n)), nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return bad("uint64")
		}
		return protoreflect.ValueOfUint64(n), nil
	case protoreflect.FloatKind:
		n, err := strconv.ParseFloat(s, 32)
		if err != nil {
			return bad("number")
		}
		return protoreflect.ValueOfFloat32(float32(n)), nil
	case protoreflect.DoubleKind:
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return bad("number")
		}
		return protoreflect.ValueOfFloat64(n), nil
	case protoreflect.BytesKind:
		// Both alphabets, padded or not, as protojson reads them.
		clean := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(s), "=")
		b, err := base64.RawStdEncoding.DecodeString(clean)
		if err != nil {
			return bad("base64")
		}
		return protoreflect.ValueOfBytes(b), nil
	case protoreflect.EnumKind:
		if ev := fd.Enum().Values().ByName(protoreflect.Name(s)); ev != nil {
			return protoreflect.ValueOfEnum(ev.Number()), nil
		}
		if n, err := strconv.ParseInt(s, 10, 32); err == nil {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)), nil
		}
		return bad(string(fd.Enum().FullName()))
	case protoreflect.MessageKind:
		v = fresh()
		if err := parseWellKnown(v.Message(), s); err != nil {
			return bad(string(fd.Message().FullName()))
		}
		return v, nil
	}
	return v, fmt.Errorf("a %s cannot be given as a parameter", fd.Kind())
}

func parseWellKnown(msg protoreflect.Message, s string) error {
	switch name := msg.Descriptor().FullName(); name {
	case "google.protobuf.Timestamp", "google.protobuf.Duration":
		return protojson.Unmarshal([]byte(strconv.Quote(s)), msg.Interface())
	case "google.protobuf.FieldMask":
		var m fieldmaskpb.FieldMask
		for _, p := range strings.Split(s, ",") {
			if p = strings.TrimSpace(p); p != "" {
				m.Paths = append(m.Paths, snake(strings.ToValidUTF8(p, "\uFFFD")))
			}
		}
		fd := msg.Descriptor().Fields().ByName("paths")
		list := msg.Mutable(fd).List()
		for _, p := range m.Paths {
			list.Append(protoreflect.ValueOfString(p))
		}
		return nil
	case "google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int64Value",
		"google.protobuf.UInt64Value",
		"google.protobuf.Int32Value", "google.protobuf.UInt32Value", "google.protobuf.BoolValue",
		"google.protobuf.StringValue",
		"google.protobuf.BytesValue":
		return setPath(msg, "value", []string{s})
	}
	return fmt.Errorf("not a scalar")
}

// snake turns a mask path into proto names: the JSON form is camelCase, and clients send both.
func snake(path string) string {
	var b strings.Builder
	for _, c := range path {
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}

// clip bounds what an error repeats of a hostile input.
func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}
