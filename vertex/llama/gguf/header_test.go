package gguf

import (
	"bytes"
	"encoding/binary"
	"testing"

	"giggle/fault"
)

func TestReadHeader(t *testing.T) {
	f := sample()
	f.Metadata = append(f.Metadata, KeyValue{"after.lists", "kept"})
	b := bytesOf(t, f)
	h, err := ReadHeader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if h.Text("general.architecture") != "llama" || h.Uint("a.number") != 7 || h.Text("after.lists") != "kept" ||
		h.Get("a.sign") != int32(-7) || h.Get("a.float") != float32(0.5) || h.Get("a.bool") != true {
		t.Errorf("metadata %v", h.Metadata)
	}
	if h.Get("strings") != nil || h.Tensors != 3 || h.Parameters != 6+5+64 {
		t.Errorf("%d tensors of %d numbers, lists %v", h.Tensors, h.Parameters, h.Get("strings"))
	}
	// A type that Parse does not know is no reason to refuse: Ollama knows more.
	foreign := bytes.Clone(b)
	dims := bytes.Index(foreign, []byte("\x01\x00\x00\x00\x00\x00\x00\x00a\x02\x00\x00\x00")) + 13
	foreign[dims+16] = 12
	if _, err := ReadHeader(bytes.NewReader(foreign), int64(len(foreign))); err != nil {
		t.Errorf("another type of tensor: %v", err)
	}
}

func TestHostileHeadersAreRefused(t *testing.T) {
	good := bytesOf(t, sample())
	change := func(do func(b []byte)) []byte {
		b := bytes.Clone(good)
		do(b)
		return b
	}
	dims := bytes.Index(good, []byte("\x01\x00\x00\x00\x00\x00\x00\x00a\x02\x00\x00\x00")) + 13
	for _, test := range []struct {
		name string
		data []byte
		code fault.Code
	}{
		{"empty", nil, fault.InvalidArgument},
		{"another file", []byte("PK\x03\x04 and more of it"), fault.InvalidArgument},
		{"another version", change(func(b []byte) { b[4] = 2 }), fault.Unimplemented},
		{"more tensors than any file has", change(func(b []byte) { b[10] = 0xff }), fault.InvalidArgument},
		{"more keys than any file has", change(func(b []byte) { b[18] = 0xff }), fault.InvalidArgument},
		{"a name as long as memory", change(func(b []byte) { b[30] = 0xff }), fault.InvalidArgument},
		{"a large dimension", change(func(b []byte) { b[dims+5] = 1 }), fault.InvalidArgument},
		{"an empty dimension", change(func(b []byte) { b[dims] = 0 }), fault.InvalidArgument},
		{"a tensor after the end", change(func(b []byte) { b[dims+20+4] = 1 }), fault.InvalidArgument},
		{"cut off in the header", good[:60], fault.InvalidArgument},
		{"a key twice", bytesOf(t, &File{Metadata: []KeyValue{{"k", true}, {"k", false}}}), fault.InvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ReadHeader(bytes.NewReader(test.data), int64(len(test.data)))
			if err == nil {
				t.Fatal("accepted")
			}
			if f := fault.From(err); f.Code != test.code {
				t.Errorf("%v: %v, not %v", err, f.Code, test.code)
			}
		})
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add(bytesOf(f, sample()))
	f.Add([]byte(magic))
	f.Add(binary.LittleEndian.AppendUint64([]byte("GGUF\x03\x00\x00\x00"), 1<<60))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadHeader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if c := fault.From(err).Code; c != fault.InvalidArgument && c != fault.Unimplemented {
				t.Fatalf("%v: %v", c, err)
			}
			return
		}
		// What Parse reads, this reads too, and the same.
		file, err := Parse(b)
		if err != nil {
			return
		}
		for _, kv := range h.Metadata {
			if _, list := file.Get(kv.Key).([]string); list || file.Get(kv.Key) == nil {
				t.Fatalf("%q is %v here", kv.Key, kv.Value)
			}
		}
		if h.Tensors != len(file.Tensors) {
			t.Fatalf("%d tensors, %d", h.Tensors, len(file.Tensors))
		}
	})
}
