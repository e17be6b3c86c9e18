package llama

import (
	"fmt"
	"io"
	"math"
	"os"

	"giggle/fault"
	"giggle/vertex/llama/gguf"
)

// Limits of the models that are run. What is larger belongs to Ollama or llama.cpp.
const (
	maxFile    = 1 << 30 // bytes
	maxNumbers = 1 << 28 // weights: in memory they are float32, whatever they are in the file
	maxContext = 1 << 15
	maxLayers  = 256
)

// Model is a language model in memory. It does not change: any number of goroutines may use it at once.
type Model struct {
	name     string
	template string
	shape    shape
	weights  weights
	angles   []float64 // angle of a pair of a head for one position
	tokens   *Tokenizer
}

// shape is the sizes of a model.
type shape struct {
	context, width, hidden, layers, vocabulary int
	heads, kvHeads, head                       int // head: numbers of one head
	rope                                       int // numbers of a head that are turned by its position
	ropeBase, epsilon                          float64
}

// Open reads a model from a GGUF file. A file that is broken is an InvalidArgument fault, one that asks for more than
// this package does (other architectures, number formats, vocabularies) Unimplemented. Memory is bounded by the file's
// size.
func Open(path string) (_ *Model, err error) {
	defer fault.Wrap(&err, "llama.Open(%s)", path)
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.NotFound, "the model can't be opened: %v", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.InvalidArgument, "the model is not a file")
	}
	if info.Size() > maxFile {
		return nil, fault.NotImplemented("model",
			"the file has %d bytes, and %d are the most here: serve it with Ollama or llama.cpp", info.Size(), maxFile)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fault.New(fault.Unavailable, "the model can't be read: %v", err)
	}
	return Load(b)
}

// Load reads a model from the bytes of a GGUF file. It keeps none of them.
func Load(b []byte) (_ *Model, err error) {
	defer fault.Wrap(&err, "llama.Load")
	f, err := gguf.Parse(b)
	if err != nil {
		return nil, err
	}
	k := &keys{file: f}
	if a := k.text("general.architecture"); a != "llama" {
		return nil, fault.NotImplemented("general.architecture", "models of architecture %q are not run: \"llama\" is",
			a)
	}
	m := &Model{name: k.text("general.name"), template: k.text("tokenizer.chat_template")}
	vocabulary := k.vocabulary()
	m.shape = k.shape(len(vocabulary.Tokens))
	if k.err != nil {
		return nil, k.err
	}
	if m.tokens, err = NewTokenizer(vocabulary); err != nil {
		return nil, err
	}
	factors, err := m.weights.read(f, m.shape)
	if err != nil {
		return nil, err
	}
	for i := range m.shape.rope / 2 {
		m.angles = append(m.angles, math.Pow(m.shape.ropeBase, -2*float64(i)/float64(m.shape.rope)))
		if factors != nil {
			m.angles[i] /= float64(factors[i])
		}
	}
	return m, nil
}

// Name is what the file calls the model.
func (m *Model) Name() string { return m.name }

// Context is the number of tokens that prompt and answer together may have.
func (m *Model) Context() int { return m.shape.context }

// Tokenizer returns the model's vocabulary.
func (m *Model) Tokenizer() *Tokenizer { return m.tokens }

// ChatTemplate is the form of a conversation as the file has it: a Jinja program, or "".
func (m *Model) ChatTemplate() string { return m.template }

// keys reads the metadata. The first thing that is wrong stays in err.
type keys struct {
	file *gguf.File
	err  error
}

func (k *keys) fail(key, format string, args ...any) {
	if k.err == nil {
		k.err = fault.Invalid(key, format, args...)
	}
}

func (k *keys) text(key string) string {
	s, _ := k.file.Get(key).(string)
	return s
}

// number returns a whole number between low and high; def stands for a key that is not there, and must be given if that
// is not allowed: -1.
func (k *keys) number(key string, low, high, def int) int {
	var n int64
	switch v := k.file.Get(key).(type) {
	case nil:
		if def < 0 {
			k.fail(key, "the file does not say it")
		}
		return def
	case uint32:
		n = int64(v)
	case int32:
		n = int64(v)
	case uint64:
		n = int64(min(v, math.MaxInt64))
	case int64:
		n = v
	default:
		k.fail(key, "not a whole number")
		return def
	}
	if n < int64(low) || n > int64(high) {
		k.fail(key, "%d is not between %d and %d", n, low, high)
		return low
	}
	return int(n)
}

func (k *keys) float(key string, def float64) float64 {
	switch v := k.file.Get(key).(type) {
	case nil:
		return def
	case float32:
		if v > 0 && v < 1e12 {
			return float64(v)
		}
	}
	k.fail(key, "not a positive number")
	return def
}

func (k *keys) shape(tokens int) shape {
	const most = 1 << 20
	s := shape{
		context:    min(k.number("llama.context_length", 1, math.MaxInt32, -1), maxContext),
		width:      k.number("llama.embedding_length", 1, most, -1),
		hidden:     k.number("llama.feed_forward_length", 1, most, -1),
		layers:     k.number("llama.block_count", 1, maxLayers, -1),
		heads:      k.number("llama.attention.head_count", 1, 1<<10, -1),
		vocabulary: tokens,
		ropeBase:   k.float("llama.rope.freq_base", 10000),
		epsilon:    k.float("llama.attention.layer_norm_rms_epsilon", 1e-5),
	}
	if k.err != nil {
		return s
	}
	s.kvHeads = k.number("llama.attention.head_count_kv", 1, s.heads, s.heads)
	s.head = k.number("llama.attention.key_length", 1, most, max(s.width/s.heads, 1))
	s.rope = k.number("llama.rope.dimension_count", 2, s.head, s.head)
	switch {
	case s.heads%s.kvHeads != 0:
		k.fail("llama.attention.head_count_kv", "%d heads can't share %d", s.heads, s.kvHeads)
	case s.rope%2 != 0:
		k.fail("llama.rope.dimension_count", "%d is odd", s.rope)
	case k.number("llama.attention.value_length", 1, most, s.head) != s.head:
		k.fail("llama.attention.value_length", "keys and values of different length are not run")
	case k.number("llama.expert_count", 0, most, 0) != 0:
		k.err = fault.NotImplemented("llama.expert_count", "models with experts are not run")
	}
	if t := k.text("llama.rope.scaling.type"); t != "" && t != "none" && k.err == nil {
		k.err = fault.NotImplemented("llama.rope.scaling.type", "scaling of kind %q is not done", t)
	}
	return s
}

func (k *keys) vocabulary() Vocabulary {
	v := Vocabulary{Model: k.text("tokenizer.ggml.model"), Pre: k.text("tokenizer.ggml.pre")}
	v.Tokens, _ = k.file.Get("tokenizer.ggml.tokens").([]string)
	v.Scores, _ = k.file.Get("tokenizer.ggml.scores").([]float32)
	v.Merges, _ = k.file.Get("tokenizer.ggml.merges").([]string)
	types, _ := k.file.Get("tokenizer.ggml.token_type").([]int32)
	for _, t := range types {
		v.Types = append(v.Types, TokenType(t))
	}
	if len(v.Tokens) == 0 {
		k.fail("tokenizer.ggml.tokens", "the file has no vocabulary")
		return v
	}
	id := func(name string) int {
		key := fmt.Sprintf("tokenizer.ggml.%s_token_id", name)
		if k.file.Get(key) == nil {
			return none
		}
		return k.number(key, 0, len(v.Tokens)-1, none)
	}
	v.BOS, v.EOS, v.EOT = id("bos"), id("eos"), id("eot")
	v.SpacePrefix = v.Model == sentencePiece
	if b, ok := k.file.Get("tokenizer.ggml.add_space_prefix").(bool); ok {
		v.SpacePrefix = b
	}
	return v
}

// TextSize is the memory in bytes that keys and values of a text of full length take.
func (m *Model) TextSize() int {
	return m.shape.context * m.shape.layers * m.shape.kvHeads * m.shape.head * 2 * 4
}
