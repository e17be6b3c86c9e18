package gguf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Write writes the file. The tensors' data must have the size that type and dims ask for.
func (f *File) Write(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(magic)
	put(&b, uint32(version))
	put(&b, uint64(len(f.Tensors)))
	put(&b, uint64(len(f.Metadata)))
	for _, kv := range f.Metadata {
		putString(&b, kv.Key)
		if err := putValue(&b, kv.Value); err != nil {
			return fmt.Errorf("gguf: key %s: %w", kv.Key, err)
		}
	}
	offset := 0
	for _, t := range f.Tensors {
		putString(&b, t.Name)
		put(&b, uint32(len(t.Dims)))
		for _, d := range t.Dims {
			put(&b, uint64(d))
		}
		put(&b, uint32(t.Type))
		put(&b, uint64(offset))
		offset += aligned(len(t.Data), alignment)
	}
	b.Write(make([]byte, aligned(b.Len(), alignment)-b.Len()))
	for _, t := range f.Tensors {
		b.Write(t.Data)
		b.Write(make([]byte, aligned(len(t.Data), alignment)-len(t.Data)))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func aligned(n, to int) int { return (n + to - 1) / to * to }

// put writes a number; a buffer takes everything.
func put(b *bytes.Buffer, v any) { _ = binary.Write(b, binary.LittleEndian, v) }

func putString(b *bytes.Buffer, s string) {
	put(b, uint64(len(s)))
	b.WriteString(s)
}

func putValue(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case string:
		put(b, uint32(kindString))
		putString(b, v)
	case []string:
		put(b, uint32(kindArray))
		put(b, uint32(kindString))
		put(b, uint64(len(v)))
		for _, s := range v {
			putString(b, s)
		}
	case uint32:
		put(b, uint32(kindUint32))
		put(b, v)
	case int32:
		put(b, uint32(kindInt32))
		put(b, v)
	case float32:
		put(b, uint32(kindFloat32))
		put(b, v)
	case bool:
		put(b, uint32(kindBool))
		put(b, v)
	case []int32:
		put(b, uint32(kindArray))
		put(b, uint32(kindInt32))
		put(b, uint64(len(v)))
		put(b, v)
	case []float32:
		put(b, uint32(kindArray))
		put(b, uint32(kindFloat32))
		put(b, uint64(len(v)))
		put(b, v)
	default:
		return fmt.Errorf("values of type %T are not written", v)
	}
	return nil
}
