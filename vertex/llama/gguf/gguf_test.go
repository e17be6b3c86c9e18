package gguf

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"giggle/fault"
)

func sample() *File {
	return &File{
		Metadata: []KeyValue{
			{"general.architecture", "llama"}, {"a.number", uint32(7)}, {"a.sign", int32(-7)},
			{"a.float", float32(0.5)}, {"a.bool", true},
			{"strings", []string{"one", "", "three"}}, {"floats", []float32{1, 2}}, {"ints", []int32{-1, 2}},
		},
		Tensors: []Tensor{
			{"a", []int{3, 2}, F32, Encode(F32, []float32{1, 2, 3, 4, 5, 6})},
			{"b", []int{5}, F16, Encode(F16, []float32{1, 2, 3, 4, 0.5})},
			{"c", []int{32, 2}, Q8_0, Encode(Q8_0, make([]float32, 64))},
		},
	}
}

func bytesOf(t testing.TB, f *File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	want := sample()
	got, err := Parse(bytesOf(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHostileFilesAreRefused(t *testing.T) {
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
		{"more tensors than bytes", change(func(b []byte) { b[8], b[9] = 0xff, 0xff }), fault.InvalidArgument},
		{"more keys than bytes", change(func(b []byte) { b[23] = 0xff }), fault.InvalidArgument},
		{"a name as long as memory", change(func(b []byte) { b[30] = 0xff }), fault.InvalidArgument},
		{"a large dimension", change(func(b []byte) { b[dims+5] = 1 }), fault.InvalidArgument},
		{"an empty dimension", change(func(b []byte) { b[dims] = 0 }), fault.InvalidArgument},
		{"an unknown type", change(func(b []byte) { b[dims+16] = 2 }), fault.Unimplemented},
		{"an offset that is not aligned", change(func(b []byte) { b[dims+20] = 1 }), fault.InvalidArgument},
		{"two tensors in one place", change(func(b []byte) { b[dims+20] = 32 }), fault.InvalidArgument},
		{"cut off", good[:len(good)-33], fault.InvalidArgument},
		{"a key twice", bytesOf(t, &File{Metadata: []KeyValue{{"k", true}, {"k", false}}}), fault.InvalidArgument},
		{"a tensor twice", bytesOf(t,
			&File{Tensors: []Tensor{sample().Tensors[0], sample().Tensors[0]}}), fault.InvalidArgument},
		{"alignment 0", bytesOf(t,
			&File{Metadata: []KeyValue{{"general.alignment", uint32(0)}}}), fault.InvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(test.data)
			if err == nil {
				t.Fatal("accepted")
			}
			if f := fault.From(err); f.Code != test.code {
				t.Errorf("%v: %v, not %v", err, f.Code, test.code)
			}
		})
	}
}

func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		f := Half(uint16(h))
		if f != f {
			continue
		}
		if back := ToHalf(f); back != uint16(h) {
			t.Fatalf("%#x is %v, and that is %#x", h, f, back)
		}
	}
	for _, test := range []struct {
		in   float32
		want float32
	}{{1 + 1.0/2048, 1}, {1 + 3.0/2048, 1 + 2.0/1024}, {65504, 65504}, {1e-8, 0},
		{float32(math.Inf(1)), float32(math.Inf(1))}, {1e9, float32(math.Inf(1))}, {-2.5, -2.5}} {
		if got := Half(ToHalf(test.in)); got != test.want {
			t.Errorf("%v became %v, not %v", test.in, got, test.want)
		}
	}
}

func TestBlocksKeepNumbersToHalfAStep(t *testing.T) {
	in := make([]float32, 64)
	for i := range in {
		in[i] = float32(math.Sin(float64(i))) * float32(i)
	}
	out := make([]float32, len(in))
	Decode(out, Q8_0, Encode(Q8_0, in))
	for i := range in {
		if d := math.Abs(float64(in[i] - out[i])); d > 64.0/127 {
			t.Errorf("%v became %v", in[i], out[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(bytesOf(f, sample()))
	f.Add([]byte(magic))
	f.Add(binary.LittleEndian.AppendUint64([]byte("GGUF\x03\x00\x00\x00"), 1<<60))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b)
		if err != nil {
			if c := fault.From(err).Code; c != fault.InvalidArgument && c != fault.Unimplemented {
				t.Fatalf("%v: %v", c, err)
			}
			return
		}
		total := 0
		for _, x := range file.Tensors {
			total += len(x.Data)
			n := 1
			for _, d := range x.Dims {
				n *= d
			}
			Decode(make([]float32, n), x.Type, x.Data)
		}
		if total > len(b) {
			t.Fatalf("%d bytes of tensors in a file of %d", total, len(b))
		}
	})
}
