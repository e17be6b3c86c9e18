package rest

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"giggle/fault"
)

// Only fails with Unimplemented on a field of a message that is set and is not among those that are implemented, with
// its path. A nil message has no fields.
func Only(m proto.Message, path string, implemented ...string) error {
	r := m.ProtoReflect()
	if !r.IsValid() {
		return nil
	}
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if r.Has(f) && !slices.Contains(implemented, f.JSONName()) {
			return fault.NotImplemented(strings.TrimPrefix(path+"."+f.JSONName(), "."), "this field is not implemented")
		}
	}
	return nil
}
