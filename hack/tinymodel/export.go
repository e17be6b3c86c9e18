package main

import (
	"giggle/vertex/llama"
	"giggle/vertex/llama/gguf"
)

// name is how the model calls itself.
const name = "giggle-tiny-1"

// template is the form of a conversation in the notation that GGUF files have for it (Jinja).
const template = "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + (m['content'].split() | join(' ')) + eos_token }}{% endfor %}" +
	"{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

// export makes a GGUF file of the weights. Vectors stay F32, as llama.cpp wants it.
func export(n *net, v llama.Vocabulary, matrices gguf.Type) *gguf.File {
	types := make([]int32, len(v.Types))
	for i, t := range v.Types {
		types[i] = int32(t)
	}
	f := &gguf.File{Metadata: []gguf.KeyValue{
		{Key: "general.architecture", Value: "llama"},
		{Key: "general.name", Value: name},
		{
			Key:   "general.description",
			Value: "A tiny model that tells jokes, trained by the Giggle project on its own text (hack/tinymodel)",
		},
		{Key: "llama.context_length", Value: uint32(length)},
		{Key: "llama.embedding_length", Value: uint32(width)},
		{Key: "llama.block_count", Value: uint32(layers)},
		{Key: "llama.feed_forward_length", Value: uint32(hidden)},
		{Key: "llama.attention.head_count", Value: uint32(heads)},
		{Key: "llama.attention.head_count_kv", Value: uint32(kvHeads)},
		{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(epsilon)},
		{Key: "llama.rope.dimension_count", Value: uint32(headWidth)},
		{Key: "llama.rope.freq_base", Value: float32(ropeBase)},
		{Key: "llama.vocab_size", Value: uint32(vocabularySize)},
		{Key: "tokenizer.ggml.model", Value: v.Model},
		{Key: "tokenizer.ggml.tokens", Value: v.Tokens},
		{Key: "tokenizer.ggml.scores", Value: v.Scores},
		{Key: "tokenizer.ggml.token_type", Value: types},
		{Key: "tokenizer.ggml.bos_token_id", Value: uint32(v.BOS)},
		{Key: "tokenizer.ggml.eos_token_id", Value: uint32(v.EOS)},
		{Key: "tokenizer.ggml.unknown_token_id", Value: uint32(unknown)},
		{Key: "tokenizer.ggml.add_bos_token", Value: true},
		{Key: "tokenizer.ggml.add_space_prefix", Value: v.SpacePrefix},
		{Key: "tokenizer.chat_template", Value: template},
	}}
	n.names(func(name string, t *[]float32, rows, columns int) {
		kind, dims := matrices, []int{columns, rows}
		if rows == 0 {
			kind, dims = gguf.F32, []int{columns}
		}
		f.Tensors = append(f.Tensors, gguf.Tensor{Name: name, Dims: dims, Type: kind, Data: gguf.Encode(kind, *t)})
	})
	return f
}
