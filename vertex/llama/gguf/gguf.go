// Package gguf reads and writes GGUF files, version 3: the container of weights and vocabulary that llama.cpp and
// Ollama use.
//
// It serves package llama and the trainer of the built-in model. It knows the layout and the tensor types F32, F16 and
// Q8_0; what the keys mean is its callers' matter. Source of the rules: the description of the format, docs/gguf.md in
// ggml's repository.
package gguf

import "fmt"

// Type is how a tensor's numbers are written. The values are ggml's.
type Type uint32

// The types that are known.
const (
	F32  Type = 0
	F16  Type = 1
	Q8_0 Type = 8 // blocks of 32: a F16 scale and 32 signed bytes
)

// Q8_0 blocks.
const (
	BlockLength = 32              // numbers of a block
	BlockSize   = 2 + BlockLength // its bytes
)

// String returns the name that ggml has for the type.
func (t Type) String() string {
	switch t {
	case F32:
		return "F32"
	case F16:
		return "F16"
	case Q8_0:
		return "Q8_0"
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// RowSize is the number of bytes of a row of n numbers, or false if the type can't have such a row.
func (t Type) RowSize(n int) (int, bool) {
	switch {
	case t == F32:
		return n * 4, true
	case t == F16:
		return n * 2, true
	case t == Q8_0 && n%BlockLength == 0:
		return n / BlockLength * BlockSize, true
	}
	return 0, false
}

// Tensor is a named array. Dims has the length of a row first, as ggml has it. Data is little-endian, row after row.
type Tensor struct {
	Name string
	Dims []int
	Type Type
	Data []byte
}

// File is the content of a GGUF file.
type File struct {
	Metadata []KeyValue
	Tensors  []Tensor
}

// KeyValue is one entry of the metadata. Value is a uint8, int8, uint16, int16, uint32, int32, float32, bool, string,
// uint64, int64 or float64, or a slice of one of these.
type KeyValue struct {
	Key   string
	Value any
}

// Get returns the value of a key, or nil.
func (f *File) Get(key string) any {
	for _, kv := range f.Metadata {
		if kv.Key == key {
			return kv.Value
		}
	}
	return nil
}

const (
	magic     = "GGUF"
	version   = 3
	alignment = 32 // unless general.alignment says otherwise
)

// The types of metadata values.
const (
	kindUint8 = iota
	kindInt8
	kindUint16
	kindInt16
	kindUint32
	kindInt32
	kindFloat32
	kindBool
	kindString
	kindArray
	kindUint64
	kindInt64
	kindFloat64
)
