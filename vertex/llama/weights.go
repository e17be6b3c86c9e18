package llama

import (
	"strconv"

	"giggle/fault"
	"giggle/vertex/llama/gguf"
)

// matrix has rows of the length of its input: it makes one output of each row.
type matrix struct {
	data          []float32
	rows, columns int
}

// layer is the weights of one layer.
type layer struct {
	attnNorm       []float32
	q, k, v, o     matrix
	ffnNorm        []float32
	gate, up, down matrix
}

// weights are all numbers of a model, as float32.
type weights struct {
	embed  matrix
	layers []layer
	norm   []float32
	output matrix // embed, if the file has none
}

// tensors takes tensors out of a file. The first thing that is wrong stays in err.
type tensors struct {
	left    map[string]gguf.Tensor
	numbers int
	err     error
}

// take returns the numbers of a tensor, which must have exactly these dimensions: rows 0 for a vector.
func (t *tensors) take(name string, rows, columns int) []float32 {
	tensor, ok := t.left[name]
	if t.err != nil {
		return nil
	}
	if !ok {
		t.err = fault.Invalid(name, "the file has no such tensor")
		return nil
	}
	delete(t.left, name)
	want := []int{columns, rows}
	if rows == 0 {
		want = want[:1]
	}
	n := 1
	for i, d := range tensor.Dims {
		if i >= len(want) || d != want[i] {
			t.err = fault.Invalid(name, "the tensor has dimensions %v, and the metadata ask for %v", tensor.Dims, want)
			return nil
		}
		n *= d
	}
	if len(tensor.Dims) != len(want) {
		t.err = fault.Invalid(name, "the tensor has dimensions %v, and the metadata ask for %v", tensor.Dims, want)
		return nil
	}
	if t.numbers += n; t.numbers > maxNumbers {
		t.err = fault.NotImplemented("model", "the model has more than %d weights: serve it with Ollama or llama.cpp",
			maxNumbers)
		return nil
	}
	out := make([]float32, n)
	gguf.Decode(out, tensor.Type, tensor.Data)
	return out
}

func (t *tensors) matrix(name string, rows, columns int) matrix {
	return matrix{t.take(name, rows, columns), rows, columns}
}

// read takes all weights, and the factors of the rope, which most files don't have. A tensor that is left over belongs
// to something that this package does not do: the file is refused.
func (w *weights) read(f *gguf.File, s shape) (factors []float32, err error) {
	t := &tensors{left: make(map[string]gguf.Tensor)}
	for _, x := range f.Tensors {
		t.left[x.Name] = x
	}
	w.embed = t.matrix("token_embd.weight", s.vocabulary, s.width)
	for i := range s.layers {
		p := "blk." + strconv.Itoa(i) + "."
		w.layers = append(w.layers, layer{
			attnNorm: t.take(p+"attn_norm.weight", 0, s.width),
			q:        t.matrix(p+"attn_q.weight", s.heads*s.head, s.width),
			k:        t.matrix(p+"attn_k.weight", s.kvHeads*s.head, s.width),
			v:        t.matrix(p+"attn_v.weight", s.kvHeads*s.head, s.width),
			o:        t.matrix(p+"attn_output.weight", s.width, s.heads*s.head),
			ffnNorm:  t.take(p+"ffn_norm.weight", 0, s.width),
			gate:     t.matrix(p+"ffn_gate.weight", s.hidden, s.width),
			up:       t.matrix(p+"ffn_up.weight", s.hidden, s.width),
			down:     t.matrix(p+"ffn_down.weight", s.width, s.hidden),
		})
	}
	w.norm = t.take("output_norm.weight", 0, s.width)
	w.output = w.embed
	if _, own := t.left["output.weight"]; own {
		w.output = t.matrix("output.weight", s.vocabulary, s.width)
	}
	if _, has := t.left["rope_freqs.weight"]; has {
		factors = t.take("rope_freqs.weight", 0, s.rope/2)
	}
	if t.err != nil {
		return nil, t.err
	}
	for name := range t.left {
		return nil, fault.NotImplemented(name, "the model has a tensor that is not known here")
	}
	return factors, nil
}
