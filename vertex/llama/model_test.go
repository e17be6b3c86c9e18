package llama

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"giggle/fault"
	"giggle/vertex/llama/gguf"
)

// small is a file of random weights: two layers, four heads that share two keys. Its matrices have the given type.
func small(kind gguf.Type) *gguf.File {
	v := pieces("▁", "a", "b", "c", "▁a", "ab", "日")
	const width, hidden, heads, shared, head = 32, 64, 4, 2, 8
	types := make([]int32, len(v.Types))
	for i, t := range v.Types {
		types[i] = int32(t)
	}
	f := &gguf.File{Metadata: []gguf.KeyValue{
		{Key: "general.architecture", Value: "llama"}, {Key: "general.name", Value: "small"},
		{Key: "llama.context_length", Value: uint32(64)}, {Key: "llama.embedding_length", Value: uint32(width)},
		{Key: "llama.block_count", Value: uint32(2)}, {Key: "llama.feed_forward_length", Value: uint32(hidden)},
		{
			Key:   "llama.attention.head_count",
			Value: uint32(heads),
		}, {Key: "llama.attention.head_count_kv", Value: uint32(shared)},
		{Key: "tokenizer.ggml.model", Value: v.Model}, {Key: "tokenizer.ggml.tokens", Value: v.Tokens},
		{Key: "tokenizer.ggml.scores", Value: v.Scores}, {Key: "tokenizer.ggml.token_type", Value: types},
		{Key: "tokenizer.ggml.bos_token_id", Value: uint32(1)}, {Key: "tokenizer.ggml.eos_token_id", Value: uint32(2)},
	}}
	rng := rand.New(rand.NewPCG(1, 2))
	add := func(name string, rows, columns int) {
		numbers := make([]float32, max(rows, 1)*columns)
		for i := range numbers {
			numbers[i] = float32(rng.NormFloat64()) * 0.3
			if rows == 0 {
				numbers[i]++
			}
		}
		t, dims := kind, []int{columns, rows}
		if rows == 0 {
			t, dims = gguf.F32, dims[:1]
		}
		f.Tensors = append(f.Tensors, gguf.Tensor{Name: name, Dims: dims, Type: t, Data: gguf.Encode(t, numbers)})
	}
	add("token_embd.weight", len(v.Tokens), width)
	add("output_norm.weight", 0, width)
	add("output.weight", len(v.Tokens), width)
	for i := range 2 {
		p := "blk." + strconv.Itoa(i) + "."
		add(p+"attn_norm.weight", 0, width)
		add(p+"attn_q.weight", heads*head, width)
		add(p+"attn_k.weight", shared*head, width)
		add(p+"attn_v.weight", shared*head, width)
		add(p+"attn_output.weight", width, heads*head)
		add(p+"ffn_norm.weight", 0, width)
		add(p+"ffn_gate.weight", hidden, width)
		add(p+"ffn_up.weight", hidden, width)
		add(p+"ffn_down.weight", width, hidden)
	}
	return f
}

func bytesOf(t testing.TB, f *gguf.File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func loadSmall(t testing.TB) *Model {
	t.Helper()
	m, err := Load(bytesOf(t, small(gguf.F32)))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func answer(t *testing.T, m *Model, s Sampling) (string, Result) {
	t.Helper()
	var text strings.Builder
	res, err := m.Generate(t.Context(), m.Tokenizer().Encode("a b c", true), s, func(piece string) error {
		if !utf8.ValidString(piece) {
			t.Errorf("%q is not whole characters", piece)
		}
		text.WriteString(piece)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String(), res
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, bytesOf(t, small(gguf.Q8_0)), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name() != "small" || m.Context() != 64 {
		t.Errorf("%q with a context of %d", m.Name(), m.Context())
	}
	for path, code := range map[string]fault.Code{path + ".not": fault.NotFound, t.TempDir(): fault.InvalidArgument} {
		if _, err := Open(path); fault.From(err).Code != code {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTheSameSeedGivesTheSameAnswer(t *testing.T) {
	m := loadSmall(t)
	one, _ := answer(t, m, Sampling{Temperature: 1, Seed: 5, MaxTokens: 30})
	two, _ := answer(t, m, Sampling{Temperature: 1, Seed: 5, MaxTokens: 30})
	other, _ := answer(t, m, Sampling{Temperature: 1, Seed: 6, MaxTokens: 30})
	if one != two {
		t.Errorf("%q, then %q", one, two)
	}
	if one == other {
		t.Errorf("another seed gives the same: %q", one)
	}
	greedy, _ := answer(t, m, Sampling{MaxTokens: 30})
	for _, s := range []Sampling{{
		Temperature: 2,
		TopK:        1,
		MaxTokens:   30,
	}, {Temperature: 1, TopP: 1e-9, MaxTokens: 30}} {
		if got, _ := answer(t, m, s); got != greedy {
			t.Errorf("%+v gives %q, the likeliest is %q", s, got, greedy)
		}
	}
}

func TestHowAnAnswerEnds(t *testing.T) {
	m := loadSmall(t)
	text, res := answer(t, m, Sampling{MaxTokens: 12})
	if res.Finish != FinishLength || res.OutputTokens != 12 || res.PromptTokens != 6 {
		t.Fatalf("%+v", res)
	}
	all, res := answer(t, m, Sampling{})
	if res.Finish == FinishLength && res.OutputTokens != 64-6 {
		t.Errorf("with no limit: %+v", res)
	}
	if !strings.HasPrefix(all, strings.TrimRight(text, "�")) {
		t.Errorf("%q does not begin with %q", all, text)
	}
	runes := []rune(text)
	stop := string(runes[len(runes)/2])
	cutOff, res := answer(t, m, Sampling{MaxTokens: 12, Stop: []string{stop}})
	if before, _, _ := strings.Cut(text, stop); res.Finish != FinishStop || cutOff != before {
		t.Errorf("stopped at %q: %q, %+v", stop, cutOff, res)
	}
}

func TestWhatGenerateRefuses(t *testing.T) {
	m := loadSmall(t)
	emit := func(string) error { return nil }
	_, err := m.Generate(t.Context(), make([]int, 64), Sampling{}, emit)
	if f := fault.From(err); f == nil || f.Code != fault.InvalidArgument || strings.Count(f.Message, "64") != 2 {
		t.Errorf("a prompt without room: %v", err)
	}
	for _, prompt := range [][]int{nil, {-1}, {1 << 20}} {
		if _, err := m.Generate(t.Context(), prompt, Sampling{}, emit); fault.From(err).Code != fault.InvalidArgument {
			t.Errorf("%v: %v", prompt, err)
		}
	}
	full := errors.New("full")
	if _, err := m.Generate(t.Context(), []int{1}, Sampling{MaxTokens: 60, Temperature: 1},
		func(string) error { return full }); !errors.Is(err, full) {
		t.Errorf("what emit returns is lost: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Generate(ctx, []int{1}, Sampling{}, emit); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
}

func TestPenaltiesLowerWhatWasSaid(t *testing.T) {
	s := newSampler(Sampling{PresencePenalty: 1, FrequencyPenalty: 0.5})
	logits := func() []float32 { return []float32{3, 2.5, 0} }
	var got []int
	for range 4 {
		got = append(got, s.next(logits()))
	}
	// 3; then 1.5 against 2.5; then 1.5 against 1; then 1 against 1.
	if want := []int{0, 1, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}

func TestStopTextsAreFoundAcrossPieces(t *testing.T) {
	for _, test := range []struct {
		stop   []string
		pieces []string
		want   []string
		end    bool
	}{
		{[]string{"END"}, []string{"a E", "N", "D b"}, []string{"a "}, true},
		{[]string{"END"}, []string{"a E", "NE", "x"}, []string{"a ", "EN", "Ex"}, false},
		{nil, []string{"\xe6", "\x97", "\xa5", "x"}, []string{"日", "x"}, false},
		{nil, []string{"\xe6", "x"}, []string{"�x"}, false},
		{[]string{""}, []string{"x"}, []string{"x"}, false},
		{[]string{"b", "a"}, []string{"cab"}, []string{"c"}, true},
	} {
		var got []string
		s := &stream{stop: test.stop, emit: func(p string) error { got = append(got, p); return nil }}
		end := false
		for _, p := range test.pieces {
			var err error
			if end, err = s.write(p); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, test.want) || end != test.end {
			t.Errorf("%q with stop %q: %q %v, not %q %v", test.pieces, test.stop, got, end, test.want, test.end)
		}
	}
}

func TestModelsThatAreRefused(t *testing.T) {
	set := func(key string, value any) func(f *gguf.File) {
		return func(f *gguf.File) {
			for i := range f.Metadata {
				if f.Metadata[i].Key == key {
					f.Metadata[i].Value = value
					return
				}
			}
			f.Metadata = append(f.Metadata, gguf.KeyValue{Key: key, Value: value})
		}
	}
	for _, test := range []struct {
		name string
		do   func(f *gguf.File)
		code fault.Code
	}{
		{"another architecture", set("general.architecture", "gpt2"), fault.Unimplemented},
		{"no context", set("llama.context_length", uint32(0)), fault.InvalidArgument},
		{"a size that is a text", set("llama.embedding_length", "large"), fault.InvalidArgument},
		{"another width", set("llama.embedding_length", uint32(64)), fault.InvalidArgument},
		{"a thousand million layers", set("llama.block_count", uint32(1<<30)), fault.InvalidArgument},
		{"more layers than there are", set("llama.block_count", uint32(3)), fault.InvalidArgument},
		{"fewer layers than there are", set("llama.block_count", uint32(1)), fault.Unimplemented},
		{"heads that can't share", set("llama.attention.head_count_kv", uint32(3)), fault.InvalidArgument},
		{"a turn of an odd part", set("llama.rope.dimension_count", uint32(3)), fault.InvalidArgument},
		{"values of another length", set("llama.attention.value_length", uint32(4)), fault.InvalidArgument},
		{"experts", set("llama.expert_count", uint32(8)), fault.Unimplemented},
		{"scaled positions", set("llama.rope.scaling.type", "yarn"), fault.Unimplemented},
		{"a negative epsilon", set("llama.attention.layer_norm_rms_epsilon", float32(-1)), fault.InvalidArgument},
		{"no vocabulary", set("tokenizer.ggml.tokens", []string{}), fault.InvalidArgument},
		{"an end outside", set("tokenizer.ggml.eos_token_id", uint32(1<<30)), fault.InvalidArgument},
		{"a tensor too many", func(f *gguf.File) {
			f.Tensors = append(f.Tensors,
				gguf.Tensor{Name: "blk.0.attn_q.bias", Dims: []int{8}, Data: make([]byte, 32)})
		}, fault.Unimplemented},
		{"a tensor too few", func(f *gguf.File) { f.Tensors = f.Tensors[1:] }, fault.InvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := small(gguf.F32)
			test.do(f)
			_, err := Load(bytesOf(t, f))
			if err == nil {
				t.Fatal("accepted")
			}
			if f := fault.From(err); f.Code != test.code {
				t.Errorf("%v: %v, not %v", err, f.Code, test.code)
			}
		})
	}
}

// A file that loads can be run. The files are good ones with some bytes of their first part changed: whole files would
// be too large to be varied.
func FuzzLoad(f *testing.F) {
	good := [][]byte{bytesOf(f, small(gguf.F32)), bytesOf(f, small(gguf.Q8_0))}
	head := bytes.Index(good[0], []byte("tokenizer.ggml.tokens"))
	f.Add(0, 0, []byte(nil))
	f.Add(1, bytes.Index(good[0], []byte("head_count"))+14, []byte{3})
	f.Add(0, 8, []byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, which, at int, with []byte) {
		b := bytes.Clone(good[which&1])
		copy(b[max(at, -at-1)%head:], with)
		m, err := Load(b)
		if err != nil {
			if c := fault.From(err).Code; c != fault.InvalidArgument && c != fault.Unimplemented {
				t.Fatalf("%v: %v", c, err)
			}
			return
		}
		ids := m.Tokenizer().Encode("a b", true)
		if len(ids) == 0 || len(ids) >= m.Context() {
			return
		}
		if _, err := m.Generate(t.Context(), ids, Sampling{MaxTokens: 2},
			func(string) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
}

// With keys and values kept, a text costs what its tokens cost: the logits at each place are those of the text up to
// there.
func TestTheCacheChangesNothing(t *testing.T) {
	m := loadSmall(t)
	ids := m.Tokenizer().Encode("abcabc", true)
	var seen [][]float32
	if err := m.Teacher(ids, func(_ int, logits []float32) { seen = append(seen, slices.Clone(logits)) }); err != nil {
		t.Fatal(err)
	}
	for i := range ids {
		var last []float32
		if err := m.Teacher(ids[:i+1], func(_ int, logits []float32) { last = slices.Clone(logits) }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(last, seen[i]) {
			t.Errorf("the logits after token %d depend on what comes later", i)
		}
	}
}
