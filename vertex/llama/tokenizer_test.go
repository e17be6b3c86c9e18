package llama

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"giggle/fault"
)

// pieces is a small sentencepiece vocabulary: 0 unknown, 1 begin, 2 end, 3…258 bytes, then a control token and pieces.
func pieces(texts ...string) Vocabulary {
	v := Vocabulary{
		Model:       "llama",
		BOS:         1,
		EOS:         2,
		EOT:         -1,
		SpacePrefix: true,
	}
	add := func(text string, kind TokenType, score float32) {
		v.Tokens, v.Types, v.Scores = append(v.Tokens, text), append(v.Types, kind), append(v.Scores, score)
	}
	add("<unk>", Unknown, 0)
	add("<s>", Control, 0)
	add("</s>", Control, 0)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), Byte, 0)
	}
	add("<|user|>", Control, 0)
	for i, t := range texts {
		add(t, Normal, -float32(i))
	}
	return v
}

func newTokenizer(t testing.TB, v Vocabulary) *Tokenizer {
	t.Helper()
	tok, err := NewTokenizer(v)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func words(t *Tokenizer, ids []int) (out []string) {
	for _, id := range ids {
		out = append(out, t.vocabulary.Tokens[id])
	}
	return out
}

func TestPiecesAreMergedByScore(t *testing.T) {
	tok := newTokenizer(t, pieces("he", "ll", "▁he", "llo", "o▁", "▁", "h", "e", "l", "o", "ello"))
	for _, test := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"hello", []string{"▁he", "llo"}},
		{"hello hello", []string{"▁he", "llo", "▁he", "llo"}},
		{"é", []string{"▁", "<0xC3>", "<0xA9>"}},
		{"h<s>", []string{"▁", "h", "<0x3C>", "<0x73>", "<0x3E>"}},
		{"\xff", []string{"▁", "<0xFF>"}},
	} {
		if diff := cmp.Diff(test.want, words(tok, tok.Encode(test.text, false))); diff != "" {
			t.Errorf("%q: %s", test.text, diff)
		}
	}
	if ids := tok.Encode("hello", true); ids[0] != 1 {
		t.Errorf("the text begins with token %d", ids[0])
	}
	if tok.Control("<|user|>") != 259 || tok.Control("hello") != -1 {
		t.Error("control tokens are not known by their text, or others are")
	}
}

// pairs is a vocabulary of bytes and the given merges.
func pairs(pre string, merges ...string) Vocabulary {
	v := Vocabulary{
		Model:  "gpt2",
		Pre:    pre,
		BOS:    -1,
		EOS:    -1,
		EOT:    -1,
		Merges: merges,
	}
	for _, r := range printable {
		v.Tokens = append(v.Tokens, string(r))
	}
	for _, m := range merges {
		v.Tokens = append(v.Tokens, strings.ReplaceAll(m, " ", ""))
	}
	return v
}

func TestPairsAreMergedByRank(t *testing.T) {
	tok := newTokenizer(t, pairs("gpt-2", "l l", "h e", "he ll", "hell o", "Ġ hello", "Ã ©"))
	for _, test := range []struct {
		text string
		want []string
	}{
		{"hello hello", []string{"hello", "Ġhello"}},
		{"hell\n", []string{"hell", "Ċ"}},
		{"é", []string{"Ã©"}},
		{"ho", []string{"h", "o"}},
	} {
		ids := tok.Encode(test.text, true)
		if diff := cmp.Diff(test.want, words(tok, ids)); diff != "" {
			t.Errorf("%q: %s", test.text, diff)
		}
		if got := tok.Text(ids); got != test.text {
			t.Errorf("%q came back as %q", test.text, got)
		}
	}
}

func TestWords(t *testing.T) {
	for _, test := range []struct {
		pre, text string
		want      []string
	}{
		{"gpt-2", "I'll  say 'no' 1234 times!!\n\n x", []string{"I", "'ll", " ", " say", " '", "no", "'", " 1234",
			" times", "!!", "\n\n", " x"}},
		{"gpt-2", "end  ", []string{"end", "  "}},
		{"smollm", "in 1984 I", []string{"in", " ", "1", "9", "8", "4", " I"}},
		{"llama-bpe", "I'LL pay 12345, (now)\n\nthen", []string{"I", "'LL", " pay", " ", "123", "45", ",", " (", "now",
			")\n\n", "then"}},
		{"llama-bpe", "a \n b\t\tc  d", []string{"a", " \n", " b", "\t", "\tc", " ", " d"}},
		{"qwen2", "x 12", []string{"x", " ", "1", "2"}},
		{"qwen2", "naïve Straße", []string{"naïve", " Straße"}},
	} {
		if diff := cmp.Diff(test.want, splitters[test.pre](test.text)); diff != "" {
			t.Errorf("%s %q: %s", test.pre, test.text, diff)
		}
	}
}

func TestVocabulariesThatAreRefused(t *testing.T) {
	change := func(do func(v *Vocabulary)) Vocabulary {
		v := pieces("a")
		do(&v)
		return v
	}
	for _, test := range []struct {
		name string
		v    Vocabulary
		code fault.Code
	}{
		{"another kind", change(func(v *Vocabulary) { v.Model = "bert" }), fault.Unimplemented},
		{"too few scores", change(func(v *Vocabulary) { v.Scores = v.Scores[1:] }), fault.InvalidArgument},
		{"too many types", change(func(v *Vocabulary) { v.Types = append(v.Types, Normal) }), fault.InvalidArgument},
		{"an end outside", change(func(v *Vocabulary) { v.EOS = 1 << 20 }), fault.InvalidArgument},
		{"a byte without a number", change(func(v *Vocabulary) { v.Tokens[7] = "seven" }), fault.InvalidArgument},
		{"unknown words", pairs("of-tomorrow"), fault.Unimplemented},
		{"a merge of one", pairs("gpt-2", "ab"), fault.InvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := NewTokenizer(test.v)
			if err == nil {
				t.Fatal("accepted")
			}
			if f := fault.From(err); f.Code != test.code {
				t.Errorf("%v: %v, not %v", err, f.Code, test.code)
			}
		})
	}
}

// Whatever the text is, its tokens stand for the same bytes.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{"hello", " two  spaces ", "I'll\r\n\tbe 1234 ½ years", "日本語 \xff\xfe", "▁",
		"<0x41></s>"} {
		f.Add(s)
	}
	sp := newTokenizer(f, pieces("he", "ll", "▁he", "llo", "▁", "h", "e", "l", "o", "日"))
	var bp []*Tokenizer
	for _, pre := range []string{"gpt-2", "smollm", "llama-bpe", "qwen2"} {
		bp = append(bp, newTokenizer(f, pairs(pre, "l l", "h e", "he ll", "Ġ Ġ", "Ã ©")))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, tok := range bp {
			if got := tok.Text(tok.Encode(s, true)); got != s {
				t.Errorf("%q came back as %q", s, got)
			}
		}
		want := strings.ReplaceAll(s, "▁", " ") // sentencepiece knows no difference
		if got := sp.Text(sp.Encode(s, true)); got != want {
			t.Errorf("%q came back as %q", s, got)
		}
	})
}

func TestWholeCharacters(t *testing.T) {
	text := []byte("aé日😀")
	for n := range len(text) + 1 {
		w := whole(text[:n])
		if !utf8.Valid(text[:w]) || n-w > 3 {
			t.Errorf("of %q, %d bytes are whole", text[:n], w)
		}
	}
	if got := whole([]byte("a\xff")); got != 2 {
		t.Errorf("a byte that can't become a character is held back: %d", got)
	}
	if got := slices.Max([]int{whole(nil), 0}); got != 0 {
		t.Errorf("of nothing, %d bytes are whole", got)
	}
}
