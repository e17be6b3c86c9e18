package gguf

import (
	"encoding/binary"
	"math"
	"slices"

	"giggle/fault"
)

// Limits of what is accepted, far above what real files have.
const (
	maxName = 1 << 10 // bytes of a key's or a tensor's name
	maxDims = 4
	maxDim  = 1 << 31
)

// cursor reads the bytes of a file from the front. The first thing that is wrong stays in err; after that everything is
// zero.
type cursor struct {
	data []byte
	at   int
	err  error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fault.New(fault.InvalidArgument, "the GGUF file is broken: "+format, args...)
	}
}

// take returns the next n bytes, or nil if there are fewer.
func (c *cursor) take(n uint64) []byte {
	if c.err != nil {
		return nil
	}
	if left := uint64(len(c.data) - c.at); n > left {
		c.fail("%d bytes are wanted at offset %d, and %d are left", n, c.at, left)
		return nil
	}
	b := c.data[c.at : c.at+int(n)]
	c.at += int(n)
	return b
}

func (c *cursor) uint(bytes uint64) uint64 {
	b := c.take(bytes)
	if b == nil {
		return 0
	}
	var whole [8]byte
	copy(whole[:], b)
	return binary.LittleEndian.Uint64(whole[:])
}

func (c *cursor) text(limit uint64) string {
	n := c.uint(8)
	if n > limit {
		c.fail("a name of %d bytes at offset %d", n, c.at)
		return ""
	}
	return string(c.take(n))
}

// count reads how many things follow, each of them at least size bytes long: so no number in a file makes more memory
// be taken than the file itself is long, times a small factor.
func (c *cursor) count(what string, size int) int {
	n := c.uint(8)
	if left := uint64(len(c.data)-c.at) / uint64(size); n > left {
		c.fail("%d %s, and there is room for %d", n, what, left)
		return 0
	}
	return int(n)
}

// Parse reads a file. The tensors' data are parts of b, do not overlap and have the size that their type and dims ask
// for. Errors are InvalidArgument for a broken file, Unimplemented for one that is of another version or has other
// tensor types.
func Parse(b []byte) (*File, error) {
	c := &cursor{data: b}
	if string(c.take(4)) != magic {
		return nil, fault.New(fault.InvalidArgument, "this is no GGUF file: it does not begin with %q", magic)
	}
	if v := c.uint(4); c.err == nil && v != version {
		return nil, fault.NotImplemented("version", "GGUF files of version %d are not read: 3 is", v)
	}
	tensors, pairs := c.count("tensors", 24), c.count("metadata entries", 13)
	if c.err != nil {
		return nil, c.err
	}
	f := &File{}
	keys := make(map[string]bool)
	for range pairs {
		key := c.text(maxName)
		value := c.value(uint32(c.uint(4)), key)
		if c.err != nil {
			return nil, c.err
		}
		if keys[key] {
			return nil, fault.Invalid(key, "the key stands in the file twice")
		}
		keys[key] = true
		f.Metadata = append(f.Metadata, KeyValue{key, value})
	}
	align := uint64(alignment)
	if v, ok := f.Get("general.alignment").(uint32); ok {
		if align = uint64(v); align == 0 || align%8 != 0 || align > 1<<16 {
			return nil, fault.Invalid("general.alignment", "%d is no alignment", v)
		}
	}
	if err := c.tensors(f, tensors, align); err != nil {
		return nil, err
	}
	return f, nil
}

// span is where a tensor's data lie.
type span struct {
	from, to uint64
	name     string
}

func (c *cursor) tensors(f *File, n int, align uint64) error {
	names := make(map[string]bool)
	var spans []span
	for range n {
		t := Tensor{Name: c.text(maxName)}
		dims := c.uint(4)
		if dims == 0 || dims > maxDims {
			c.fail("tensor %q has %d dimensions", t.Name, dims)
			return c.err
		}
		rows := uint64(1)
		for i := range dims {
			d := c.uint(8)
			if d == 0 || d > maxDim || i > 0 && rows > maxDim/d {
				c.fail("tensor %q is too large or empty", t.Name)
				return c.err
			}
			if i > 0 {
				rows *= d
			}
			t.Dims = append(t.Dims, int(d))
		}
		t.Type = Type(c.uint(4))
		offset := c.uint(8)
		if c.err != nil {
			return c.err
		}
		row, ok := t.Type.RowSize(t.Dims[0])
		if !ok {
			return fault.NotImplemented(t.Name,
				"a tensor of %s with rows of %d is not read: F32, F16 and Q8_0 are; larger kinds of models belong to Ollama", t.Type, t.Dims[0])
		}
		if names[t.Name] {
			return fault.Invalid(t.Name, "the tensor stands in the file twice")
		}
		names[t.Name] = true
		if offset%align != 0 || offset > uint64(len(c.data)) {
			c.fail("tensor %q begins at %d", t.Name, offset)
			return c.err
		}
		// Both factors are at most 2^33 and 2^31: the product stays below 2^64.
		spans = append(spans, span{offset, offset + uint64(row)*rows, t.Name})
		f.Tensors = append(f.Tensors, t)
	}
	start := (uint64(c.at) + align - 1) / align * align
	for i, s := range spans {
		if start+s.to > uint64(len(c.data)) || start+s.to < s.to {
			return fault.New(fault.InvalidArgument, "the GGUF file is cut off: tensor %q ends at %d, the file at %d",
				s.name, start+s.to, len(c.data))
		}
		f.Tensors[i].Data = c.data[start+s.from : start+s.to : start+s.to]
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.from) - int(b.from) })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			return fault.Invalid(spans[i].name, "the tensor overlaps %s", spans[i-1].name)
		}
	}
	return nil
}

// value reads one value of the metadata.
func (c *cursor) value(kind uint32, key string) any {
	switch kind {
	case kindUint8:
		return uint8(c.uint(1))
	case kindInt8:
		return int8(c.uint(1))
	case kindUint16:
		return uint16(c.uint(2))
	case kindInt16:
		return int16(c.uint(2))
	case kindUint32:
		return uint32(c.uint(4))
	case kindInt32:
		return int32(c.uint(4))
	case kindFloat32:
		return math.Float32frombits(uint32(c.uint(4)))
	case kindBool:
		return c.uint(1) != 0
	case kindString:
		return c.text(uint64(len(c.data)))
	case kindUint64:
		return c.uint(8)
	case kindInt64:
		return int64(c.uint(8))
	case kindFloat64:
		return math.Float64frombits(c.uint(8))
	case kindArray:
		return c.array(uint32(c.uint(4)), key)
	}
	c.fail("key %q has a value of kind %d", key, kind)
	return nil
}

func (c *cursor) array(kind uint32, key string) any {
	switch kind {
	case kindString:
		return list(c, key, 8, func() string { return c.text(uint64(len(c.data))) })
	case kindUint8:
		return list(c, key, 1, func() uint8 { return uint8(c.uint(1)) })
	case kindInt8:
		return list(c, key, 1, func() int8 { return int8(c.uint(1)) })
	case kindBool:
		return list(c, key, 1, func() bool { return c.uint(1) != 0 })
	case kindUint16:
		return list(c, key, 2, func() uint16 { return uint16(c.uint(2)) })
	case kindInt16:
		return list(c, key, 2, func() int16 { return int16(c.uint(2)) })
	case kindUint32:
		return list(c, key, 4, func() uint32 { return uint32(c.uint(4)) })
	case kindInt32:
		return list(c, key, 4, func() int32 { return int32(c.uint(4)) })
	case kindFloat32:
		return list(c, key, 4, func() float32 { return math.Float32frombits(uint32(c.uint(4))) })
	case kindUint64:
		return list(c, key, 8, func() uint64 { return c.uint(8) })
	case kindInt64:
		return list(c, key, 8, func() int64 { return int64(c.uint(8)) })
	case kindFloat64:
		return list(c, key, 8, func() float64 { return math.Float64frombits(c.uint(8)) })
	}
	c.fail("key %q is a list of values of kind %d", key, kind) // lists of lists too: no model has any
	return nil
}

func list[T any](c *cursor, key string, size int, next func() T) []T {
	n := c.count("values of "+key, size)
	out := make([]T, 0, n)
	for range n {
		if c.err != nil {
			return nil
		}
		out = append(out, next())
	}
	return out
}
