package rest

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
)

// Overlay copies the fields that an update mask names from one message to another of its kind, each alone: a field that
// is named and not set is cleared, and its neighbours are left alone. "*" means all
// (https://google.aip.dev/134, https://google.aip.dev/161).
func Overlay(to, from proto.Message, paths []string) error {
	for _, path := range paths {
		if path == "*" {
			proto.Reset(to)
			proto.Merge(to, from)
			continue
		}
		if !copyField(to.ProtoReflect(), from.ProtoReflect(), strings.Split(path, ".")) {
			return fault.Invalid("updateMask", "%s has no field %.100q", to.ProtoReflect().Descriptor().Name(), path)
		}
	}
	return nil
}

// copyField copies the field at a path of names, in either spelling, from one message to another of its kind. It
// returns false where there is none.
func copyField(to, from protoreflect.Message, path []string) bool {
	d := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	if d == nil {
		d = to.Descriptor().Fields().ByJSONName(path[0])
	}
	rest := path[1:]
	switch {
	case d == nil:
		return false
	case len(rest) == 0:
		if from.Has(d) {
			to.Set(d, from.Get(d))
		} else {
			to.Clear(d)
		}
		return true
	case d.IsMap() && d.MapKey().Kind() == protoreflect.StringKind && len(rest) == 1:
		key := protoreflect.ValueOfString(rest[0]).MapKey()
		if given := from.Get(d).Map(); given.Has(key) {
			to.Mutable(d).Map().Set(key, given.Get(key))
		} else if to.Has(d) {
			to.Mutable(d).Map().Clear(key)
		}
		return true
	case d.Message() == nil || d.IsList() || d.IsMap():
		return false
	case !to.Has(d) && !from.Has(d): // there is nothing to be cleared
		return copyField(to.NewField(d).Message(), from.Get(d).Message(), rest)
	}
	return copyField(to.Mutable(d).Message(), from.Get(d).Message(), rest)
}
