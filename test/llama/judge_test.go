//go:build models

package llama

import (
	"bufio"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"giggle/vertex/llama"
	"giggle/vertex/llama/gguf"
)

var judgeDir = flag.String("judge", "", "directory in which node-llama-cpp is installed")

// judge is llama.cpp.
type judge struct {
	in  io.Writer
	out *bufio.Scanner
}

func newJudge(t *testing.T) *judge {
	t.Helper()
	script, err := os.ReadFile("judge.mjs")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(*judgeDir, "judge.mjs") // Node looks for packages beside the script
	if err := os.WriteFile(path, script, 0o600); err != nil {
		t.Fatalf("-judge: %v", err)
	}
	cmd := exec.Command("node", path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<28)
	return &judge{in, s}
}

type greedily struct {
	Requests [][]int `json:"requests"`
	End      int     `json:"end"`
	Length   int     `json:"length"`
}

type question struct {
	Model  string    `json:"model"`
	Greedy *greedily `json:"greedy,omitempty"`
	Force  [][]int   `json:"force,omitempty"`
	Encode []string  `json:"encode,omitempty"`
}

type verdict struct {
	Texts  [][]int       `json:"texts"`
	Chosen []int         `json:"chosen"`
	Logits [][][]float32 `json:"logits"`
	IDs    [][]int       `json:"ids"`
}

func (j *judge) ask(t *testing.T, q question) (v verdict) {
	t.Helper()
	if err := json.NewEncoder(j.in).Encode(q); err != nil {
		t.Fatal(err)
	}
	if !j.out.Scan() {
		t.Fatalf("llama.cpp does not answer: %v", j.out.Err())
	}
	if err := json.Unmarshal(j.out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// builtIn is the model in the binary, parsed.
func builtIn(t *testing.T) *gguf.File {
	t.Helper()
	b, err := os.ReadFile("../../vertex/embedded/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// in returns the file with its matrices in another type.
func in(f *gguf.File, kind gguf.Type) *gguf.File {
	out := &gguf.File{Metadata: f.Metadata}
	for _, t := range f.Tensors {
		if len(t.Dims) == 2 {
			numbers := make([]float32, t.Dims[0]*t.Dims[1])
			gguf.Decode(numbers, t.Type, t.Data)
			t.Type, t.Data = kind, gguf.Encode(kind, numbers)
		}
		out.Tensors = append(out.Tensors, t)
	}
	return out
}

func write(t *testing.T, f *gguf.File) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Write(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string) *llama.Model {
	t.Helper()
	m, err := llama.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// requests of three conversations.
var requests = [][]string{
	{"tell me a terrible dad joke about tech", "Tell me a joke about cats.", "another one", "Write a joke about a baker.", "Give me your best food joke.", "tell me a joke about the alps and the tyrolien"},
	{"Who are you?", "What is 2 + 2 — in 日本語?", "Make me laugh.", "a joke on pirates", "Do you know a joke about the moon?", "tell me a joke about phones"},
	{"Hello!", "I need a really bad pun about trees.", "joke about music please", "Tell me a joke about vampires.", "one more", "What is your worst joke about school?"},
}

func TestTheSameTokensAsLlamaCpp(t *testing.T) {
	j, f := newJudge(t), builtIn(t)
	path := write(t, in(f, gguf.F32))
	m := open(t, path)
	tok := m.Tokenizer()
	var texts [][]int
	for i, asked := range requests {
		g := greedily{End: tok.EOS(), Length: 220}
		for k, text := range asked {
			ids := append([]int{tok.Control("<|user|>")}, tok.Encode(text, false)...)
			if k == 0 {
				ids = append([]int{1}, ids...)
			}
			g.Requests = append(g.Requests, append(ids, tok.EOS(), tok.Control("<|assistant|>")))
		}
		v := j.ask(t, question{Model: path, Greedy: &g})
		if len(v.Texts) != 1 || len(v.Chosen) != g.Length {
			t.Fatalf("llama.cpp chose %d tokens", len(v.Chosen))
		}
		text := v.Texts[0]
		// A text whose every token is our first choice after those before it is what we would have written.
		err := m.Teacher(text, func(at int, logits []float32) {
			if slices.Contains(v.Chosen, at+1) && best(logits) != text[at+1] {
				t.Errorf("conversation %d: token %d is %d, llama.cpp's is %d", i, at+1, best(logits), text[at+1])
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("F32: %d tokens chosen: %s", len(v.Chosen), tok.Text(text))
		texts = append(texts, text)
	}
	for _, kind := range []gguf.Type{gguf.F32, gguf.F16, gguf.Q8_0} {
		path := write(t, in(f, kind))
		m := open(t, path)
		same, all, largest := 0, 0, float32(0)
		for i, theirs := range j.ask(t, question{Model: path, Force: texts}).Logits {
			err := m.Teacher(texts[i], func(at int, logits []float32) {
				all++
				if best(logits) == best(theirs[at]) {
					same++
				}
				for id, v := range logits {
					largest = max(largest, v-theirs[at][id], theirs[at][id]-v)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: the first choice is the same for %d of %d tokens; the largest difference of a logit is %.4f", kind,
			same, all, largest)
		if same*100 < all*99 {
			t.Errorf("%s: the first choice is the same for %d of %d tokens only", kind, same, all)
		}
	}
}

func best(logits []float32) int {
	top := 0
	for id, v := range logits {
		if v > logits[top] {
			top = id
		}
	}
	return top
}

// texts that are hard to cut.
var hard = []string{
	"tell me a terrible dad joke about tech", "Why did the computer go to the doctor?", "  two  spaces   three ",
	"tabs\tand\nlines\n\n  \r\n end",
	"I'll say it's 12345 times, they've SHE'LL", "x=1+2;//(ok) $9.99 50%!!", "naïve Straße ÄÖÜ çàé", "日本語のテキスト 漢字",
	"😀 emoji 👍🏽 end", "½ ² ٣ Ⅷ numbers 1 22 333 4444",
	" ", "a", "<s></s><|user|> marks", "<0x41> ▁under", "ünïcödé'S don't", "don’t “quote” — dash…", "trailing   ", "\n",
	"a\u00a0b\u3000c", "e\u0301 combining",
}

func TestTheSameIDsAsLlamaCpp(t *testing.T) {
	j, f := newJudge(t), builtIn(t)
	files := map[string]*gguf.File{"sentencepiece": f}
	for _, pre := range []string{"gpt-2", "smollm", "llama-bpe", "qwen2"} {
		files[pre] = bytePairs(t, f, pre)
	}
	for name, f := range files {
		path := write(t, f)
		tok := open(t, path).Tokenizer()
		ids := j.ask(t, question{Model: path, Encode: hard}).IDs
		if len(ids) != len(hard) {
			t.Fatalf("%s: %d answers for %d texts", name, len(ids), len(hard))
		}
		for i, ids := range ids {
			if got := tok.Encode(hard[i], false); !slices.Equal(got, ids) {
				t.Errorf("%s: %q is %v, for llama.cpp %v (%q)", name, hard[i], got, ids, tok.Text(ids))
			}
		}
	}
}

// bytePairs is the file with a vocabulary of byte pairs that has the same pieces.
func bytePairs(t *testing.T, f *gguf.File, pre string) *gguf.File {
	t.Helper()
	tokens, types := f.Get("tokenizer.ggml.tokens").([]string), f.Get("tokenizer.ggml.token_type").([]int32)
	var vocabulary, merges []string
	known := make(map[string]bool)
	add := func(s string) { vocabulary, known[s] = append(vocabulary, s), true }
	for b, next := 0, rune(256); b < 256; b++ { // GPT-2's characters for bytes
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae && b <= 0xff) {
			r, next = next, next+1
		}
		add(string(r))
	}
	for id, piece := range tokens {
		piece = strings.ReplaceAll(piece, "▁", "Ġ")
		if types[id] != int32(llama.Normal) || known[piece] {
			continue
		}
		for i := range piece {
			if known[piece[:i]] && known[piece[i:]] {
				merges = append(merges, piece[:i]+" "+piece[i:])
				add(piece)
				break
			}
		}
	}
	out := &gguf.File{}
	for _, kv := range f.Metadata {
		if !strings.HasPrefix(kv.Key, "tokenizer.") && kv.Key != "llama.vocab_size" {
			out.Metadata = append(out.Metadata, kv)
		}
	}
	add("<|endoftext|>")
	kinds := make([]int32, len(vocabulary))
	for i := range kinds {
		kinds[i] = int32(llama.Normal)
	}
	kinds[len(kinds)-1] = int32(llama.Control)
	out.Metadata = append(out.Metadata,
		gguf.KeyValue{Key: "llama.vocab_size", Value: uint32(len(vocabulary))},
		gguf.KeyValue{Key: "tokenizer.ggml.model", Value: "gpt2"}, gguf.KeyValue{Key: "tokenizer.ggml.pre", Value: pre},
		gguf.KeyValue{Key: "tokenizer.ggml.tokens", Value: vocabulary},
		gguf.KeyValue{Key: "tokenizer.ggml.token_type", Value: kinds},
		gguf.KeyValue{Key: "tokenizer.ggml.merges", Value: merges},
		gguf.KeyValue{
			Key:   "tokenizer.ggml.bos_token_id",
			Value: uint32(len(vocabulary) - 1),
		}, gguf.KeyValue{Key: "tokenizer.ggml.eos_token_id", Value: uint32(len(vocabulary) - 1)})
	for _, x := range f.Tensors {
		if x.Name == "token_embd.weight" { // as many rows as there are tokens now
			row, _ := x.Type.RowSize(x.Dims[0])
			x.Dims, x.Data = []int{x.Dims[0], len(vocabulary)}, x.Data[:row*len(vocabulary)]
		}
		out.Tensors = append(out.Tensors, x)
	}
	if len(merges) < 500 {
		t.Fatalf("only %d merges", len(merges))
	}
	return out
}
