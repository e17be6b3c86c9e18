package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"giggle/fault"
)

// Limits of a header, far above what real files have.
const (
	maxPairs   = 1 << 16
	maxTensors = 1 << 16
	maxText    = 1 << 20 // bytes of a value that is kept
	maxHeader  = 1 << 28 // bytes before the tensors' data
)

// Header is what stands before the tensors' data in a file of any kind, lists left out.
type Header struct {
	Metadata   []KeyValue // without lists
	Tensors    int
	Parameters uint64 // numbers of all tensors
}

// Get returns the value of a key, or nil; lists are not kept.
func (h *Header) Get(key string) any {
	f := File{Metadata: h.Metadata}
	return f.Get(key)
}

// Text returns the value of a key that is a string, or "".
func (h *Header) Text(key string) string {
	s, _ := h.Get(key).(string)
	return s
}

// Uint returns the value of a key that is a number without a sign, or 0.
func (h *Header) Uint(key string) uint64 {
	switch v := h.Get(key).(type) {
	case uint8:
		return uint64(v)
	case uint16:
		return uint64(v)
	case uint32:
		return uint64(v)
	case uint64:
		return v
	}
	return 0
}

// ReadHeader reads the header of a file of size bytes, whatever architecture and tensor types it has, and as little as
// that takes. Errors are InvalidArgument for a broken or cut off file, Unimplemented for another version.
func ReadHeader(r io.Reader, size int64) (*Header, error) {
	s := &stream{in: bufio.NewReaderSize(io.LimitReader(r, min(size, maxHeader)), 64<<10)}
	if got := s.take(4); string(got) != magic {
		return nil, fault.New(fault.InvalidArgument, "this is no GGUF file: it does not begin with %q", magic)
	}
	if v := s.uint(4); s.err == nil && v != version {
		return nil, fault.NotImplemented("version", "GGUF files of version %d are not read: 3 is", v)
	}
	tensors, pairs := s.uint(8), s.uint(8)
	if tensors > maxTensors || pairs > maxPairs {
		s.fail("%d tensors and %d metadata entries", tensors, pairs)
	}
	h := &Header{Tensors: int(tensors)}
	seen := make(map[string]bool)
	for range pairs {
		if s.err != nil {
			break
		}
		key := s.text(maxName)
		if seen[key] {
			s.fail("the key %q stands in it twice", key)
		}
		seen[key] = true
		if v := s.value(uint32(s.uint(4)), key); v != nil {
			h.Metadata = append(h.Metadata, KeyValue{key, v})
		}
	}
	for range tensors {
		if s.err != nil {
			break
		}
		h.Parameters += s.tensor(size)
	}
	if s.err != nil {
		return nil, s.err
	}
	return h, nil
}

// stream reads a file from the front. The first thing that is wrong stays in err; after that everything is zero.
type stream struct {
	in  *bufio.Reader
	buf [8]byte
	err error
}

func (s *stream) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fault.New(fault.InvalidArgument, "the GGUF file is broken: %s", fmt.Sprintf(format, args...))
	}
}

// read fills b, or fails.
func (s *stream) read(b []byte) bool {
	if s.err != nil {
		return false
	}
	_, err := io.ReadFull(s.in, b)
	switch {
	case err == nil:
		return true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.fail("it ends within its header")
	default:
		s.err = err
	}
	return false
}

// take returns the next few bytes; they are good until the next call.
func (s *stream) take(n int) []byte {
	clear(s.buf[:])
	if !s.read(s.buf[:n]) {
		return nil
	}
	return s.buf[:n]
}

func (s *stream) uint(bytes int) uint64 {
	if s.take(bytes) == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(s.buf[:])
}

func (s *stream) text(limit uint64) string {
	n := s.uint(8)
	if n > limit {
		s.fail("a text of %d bytes", n)
		return ""
	}
	b := make([]byte, n)
	if !s.read(b) {
		return ""
	}
	return string(b)
}

// skip passes over n values of size bytes.
func (s *stream) skip(n, size uint64) {
	if n > maxHeader/size {
		s.fail("a list of %d values", n)
	}
	if s.err != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, s.in, int64(n*size)); errors.Is(err, io.EOF) {
		s.fail("it ends within its header")
	} else if err != nil {
		s.err = err
	}
}

// sizes are the bytes of the values of each kind but strings and lists.
var sizes = map[uint32]uint64{
	kindUint8: 1, kindInt8: 1, kindUint16: 2, kindInt16: 2, kindUint32: 4, kindInt32: 4, kindFloat32: 4, kindBool: 1,
	kindUint64: 8, kindInt64: 8, kindFloat64: 8,
}

// value reads one value of the metadata; nil for a list, which is passed over.
func (s *stream) value(kind uint32, key string) any {
	switch kind {
	case kindString:
		return s.text(maxText)
	case kindArray:
		s.list(uint32(s.uint(4)), key)
		return nil
	}
	size, ok := sizes[kind]
	if !ok {
		s.fail("key %q has a value of kind %d", key, kind)
		return nil
	}
	v := s.uint(int(size))
	switch kind {
	case kindUint8:
		return uint8(v)
	case kindInt8:
		return int8(v)
	case kindUint16:
		return uint16(v)
	case kindInt16:
		return int16(v)
	case kindUint32:
		return uint32(v)
	case kindInt32:
		return int32(v)
	case kindFloat32:
		return math.Float32frombits(uint32(v))
	case kindBool:
		return v != 0
	case kindInt64:
		return int64(v)
	case kindFloat64:
		return math.Float64frombits(v)
	}
	return v
}

// list passes over a list.
func (s *stream) list(kind uint32, key string) {
	n := s.uint(8)
	if size, ok := sizes[kind]; ok {
		s.skip(n, size)
		return
	}
	if kind != kindString { // lists of lists too: no model has any
		s.fail("key %q is a list of values of kind %d", key, kind)
	}
	for ; n > 0 && s.err == nil; n-- {
		s.skip(s.uint(8), 1)
	}
}

// tensor reads the description of a tensor and returns how many numbers it has.
func (s *stream) tensor(size int64) uint64 {
	name := s.text(maxName)
	dims := s.uint(4)
	if dims == 0 || dims > maxDims {
		s.fail("tensor %q has %d dimensions", name, dims)
		return 0
	}
	numbers := uint64(1)
	for range dims {
		d := s.uint(8)
		if s.err == nil && (d == 0 || d > maxDim || numbers > 1<<48/d) {
			s.fail("tensor %q is too large or empty", name)
		}
		numbers *= d
	}
	_, offset := s.uint(4), s.uint(8) // types are many, and each has its own size
	if s.err == nil && offset >= uint64(size) {
		s.err = fault.New(fault.InvalidArgument,
			"the GGUF file is cut off: tensor %q begins at %d, the file ends at %d", name, offset, size)
	}
	return numbers
}
