package llama

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"giggle/fault"
)

// TokenType says what a token of the vocabulary is. The values are those of `tokenizer.ggml.token_type`.
type TokenType int32

// The token types of a GGUF file.
const (
	Normal      TokenType = 1
	Unknown     TokenType = 2
	Control     TokenType = 3 // no text: a mark such as the begin of the text or of a turn
	UserDefined TokenType = 4
	Unused      TokenType = 5
	Byte        TokenType = 6 // one byte, written <0xNN>
)

// The two kinds of vocabulary, as `tokenizer.ggml.model` names them.
const (
	sentencePiece = "llama"
	bytePair      = "gpt2"
)

// turnEnds are control tokens that end a turn, whether the file says so or not: many do not.
var turnEnds = []string{"<|eot_id|>", "<|im_end|>", "<|end|>"}

// none is the id of a token that the vocabulary has not.
const none = -1

// Vocabulary is what a GGUF file says of its tokens. Ids that it has not are -1.
type Vocabulary struct {
	Model       string      // "llama" (sentencepiece) or "gpt2" (byte pairs)
	Pre         string      // how "gpt2" cuts text into words
	Tokens      []string    // the pieces, by id
	Scores      []float32   // "llama": the higher, the earlier two pieces become this one
	Types       []TokenType // empty: all Normal
	Merges      []string    // "gpt2": pairs "left right", the first are merged first
	BOS, EOS    int         // begin of the text; end of the answer
	EOT         int         // end of a turn
	SpacePrefix bool        // "llama": a space goes before the text
}

// Tokenizer turns text into token ids and back. It is safe for concurrent use.
type Tokenizer struct {
	vocabulary Vocabulary
	ids        map[string]int // text tokens only: plain text never becomes a control token
	controls   map[string]int
	bytes      [256]int // ids of the byte tokens of "llama"
	unknown    int
	ranks      map[pair]int // "gpt2"
	split      splitter     // "gpt2"
	ends       []int
}

type pair struct{ left, right string }

// NewTokenizer checks the vocabulary and indexes it.
func NewTokenizer(v Vocabulary) (*Tokenizer, error) {
	t := &Tokenizer{
		vocabulary: v,
		ids:        make(map[string]int, len(v.Tokens)),
		controls:   make(map[string]int),
		unknown:    none,
	}
	if len(v.Types) != 0 && len(v.Types) != len(v.Tokens) {
		return nil, fault.Invalid("tokenizer.ggml.token_type", "%d types for %d tokens", len(v.Types), len(v.Tokens))
	}
	for i := range t.bytes {
		t.bytes[i] = none
	}
	for id, text := range v.Tokens {
		switch t.kind(id) {
		case Normal, UserDefined:
			if _, twice := t.ids[text]; !twice {
				t.ids[text] = id
			}
		case Control:
			t.controls[text] = id
		case Byte:
			var b byte
			if _, err := fmt.Sscanf(text, "<0x%02X>", &b); err != nil {
				return nil, fault.Invalid("tokenizer.ggml.tokens", "token %d is a byte, and %q names none", id, text)
			}
			t.bytes[b] = id
		case Unknown:
			t.unknown = id
		}
	}
	for _, id := range []int{v.BOS, v.EOS, v.EOT} {
		if id < none || id >= len(v.Tokens) {
			return nil, fault.Invalid("tokenizer.ggml", "token %d is named, and there are %d", id, len(v.Tokens))
		}
	}
	ends := []int{v.EOS, v.EOT}
	for _, text := range turnEnds {
		ends = append(ends, t.Control(text))
	}
	for _, id := range ends {
		if id != none && !slices.Contains(t.ends, id) {
			t.ends = append(t.ends, id)
		}
	}
	switch v.Model {
	case sentencePiece:
		if len(v.Scores) != len(v.Tokens) {
			return nil, fault.Invalid("tokenizer.ggml.scores", "%d scores for %d tokens", len(v.Scores), len(v.Tokens))
		}
	case bytePair:
		if err := t.indexMerges(); err != nil {
			return nil, err
		}
	default:
		return nil, fault.NotImplemented("tokenizer.ggml.model",
			"vocabularies of kind %q are not read: \"llama\" and \"gpt2\" are", v.Model)
	}
	return t, nil
}

func (t *Tokenizer) kind(id int) TokenType {
	if len(t.vocabulary.Types) == 0 {
		return Normal
	}
	return t.vocabulary.Types[id]
}

// Size is the number of tokens.
func (t *Tokenizer) Size() int { return len(t.vocabulary.Tokens) }

// Ends reports whether the model ends its answer with this token.
func (t *Tokenizer) Ends(id int) bool { return slices.Contains(t.ends, id) }

// EOS is the token that ends an answer, or -1.
func (t *Tokenizer) EOS() int { return t.vocabulary.EOS }

// Control returns the id of a control token by its text, such as "<|user|>", or -1.
func (t *Tokenizer) Control(text string) int {
	if id, ok := t.controls[text]; ok {
		return id
	}
	return none
}

// Encode returns the ids of a text, with the token for its begin before it if bos is true and the vocabulary has one.
// The text is plain: what looks like a control token in it does not become one.
func (t *Tokenizer) Encode(text string, bos bool) []int {
	var ids []int
	if bos && t.vocabulary.BOS != none {
		ids = append(ids, t.vocabulary.BOS)
	}
	if text == "" {
		return ids
	}
	if t.vocabulary.Model == bytePair {
		return t.encodePairs(ids, text)
	}
	return t.encodePieces(ids, text)
}

// Decode returns the bytes that a token stands for: "" for a control token, and perhaps a part of a character only.
func (t *Tokenizer) Decode(id int) string {
	if id < 0 || id >= t.Size() {
		return ""
	}
	text := t.vocabulary.Tokens[id]
	switch kind := t.kind(id); {
	case kind == Control || kind == Unknown || kind == Unused:
		return ""
	case kind == Byte:
		var b byte
		_, _ = fmt.Sscanf(text, "<0x%02X>", &b) // NewTokenizer has read it
		return string([]byte{b})
	case t.vocabulary.Model == bytePair && kind == Normal:
		return fromPrintable(text)
	}
	return strings.ReplaceAll(text, "▁", " ")
}

// Text joins what the tokens stand for. The space that Encode puts before a text is taken off again.
func (t *Tokenizer) Text(ids []int) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(t.Decode(id))
	}
	if t.vocabulary.Model == sentencePiece && t.vocabulary.SpacePrefix {
		return strings.TrimPrefix(b.String(), " ")
	}
	return b.String()
}

// whole returns how many of the bytes are whole characters: what is behind them may become one with what comes next.
// Bytes that can't become a character count as whole.
func whole(b []byte) int {
	for back := 1; back < utf8.UTFMax && back <= len(b); back++ {
		if i := len(b) - back; utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}
