package llama

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"giggle/fault"
)

// splitter cuts a text into words: merges never cross their borders.
type splitter func(text string) []string

// splitters are the ways that are known, by `tokenizer.ggml.pre`. Each does what a regular expression with a look ahead
// does, which Go's don't have; the expressions are those that the models were trained with.
var splitters = map[string]splitter{
	"gpt-2":     splitGPT2,
	"smollm":    splitSmolLM,
	"llama-bpe": func(text string) []string { return splitLlama3(text, 3) },
	"qwen2":     func(text string) []string { return splitLlama3(text, 1) },
}

// indexMerges prepares a vocabulary of byte pairs.
func (t *Tokenizer) indexMerges() error {
	v := t.vocabulary
	var known bool
	if t.split, known = splitters[v.Pre]; !known {
		return fault.NotImplemented("tokenizer.ggml.pre",
			"words are not cut in the way of %q: \"gpt-2\", \"smollm\", \"llama-bpe\" and \"qwen2\" are", v.Pre)
	}
	t.ranks = make(map[pair]int, len(v.Merges))
	for i, m := range v.Merges {
		left, right, ok := strings.Cut(m, " ")
		if !ok {
			return fault.Invalid("tokenizer.ggml.merges", "merge %d has no two parts", i)
		}
		if _, twice := t.ranks[pair{left, right}]; !twice {
			t.ranks[pair{left, right}] = i
		}
	}
	return nil
}

// encodePairs merges the bytes of each word, the pair that was learned first before the others.
func (t *Tokenizer) encodePairs(ids []int, text string) []int {
	for _, word := range t.split(text) {
		printable := toPrintable(word)
		if id, ok := t.ids[printable]; ok && t.vocabulary.Pre == "llama-bpe" {
			ids = append(ids, id) // Llama 3 takes a word that it has as it is
			continue
		}
		for _, p := range join(strings.Split(printable, ""), func(left, right string) (float32, bool) {
			rank, ok := t.ranks[pair{left, right}]
			return -float32(rank), ok
		}) {
			if id, ok := t.ids[p]; ok {
				ids = append(ids, id)
				continue
			}
			for _, r := range p { // a merge that the vocabulary does not have
				if id, ok := t.ids[string(r)]; ok {
					ids = append(ids, id)
				} else if t.unknown != none {
					ids = append(ids, t.unknown)
				}
			}
		}
	}
	return ids
}

// printable has a visible character for every byte, as GPT-2's vocabulary: those of Latin-1 stand for themselves, the
// others for the characters from U+0100 on, in their order.
var printable, fromRune = func() (to [256]rune, from map[rune]byte) {
	from = make(map[rune]byte, 256)
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae && b <= 0xff) {
			r, next = next, next+1
		}
		to[b], from[r] = r, byte(b)
	}
	return to, from
}()

func toPrintable(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteRune(printable[c])
	}
	return b.String()
}

func fromPrintable(s string) string {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		if b, ok := fromRune[r]; ok {
			out = append(out, b)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return string(out)
}

func isLetter(r rune) bool { return unicode.IsLetter(r) }
func isNumber(r rune) bool { return unicode.IsNumber(r) }
func isOther(r rune) bool  { return !unicode.IsSpace(r) && !isLetter(r) && !isNumber(r) }
func isBreak(r rune) bool  { return r == '\r' || r == '\n' }

// span returns the length in bytes of the characters at the front of s that are all is, at most limit of them (0: no
// limit).
func span(s string, is func(rune) bool, limit int) int {
	count := 0
	for i, r := range s {
		if !is(r) || limit > 0 && count == limit {
			return i
		}
		count++
	}
	return len(s)
}

// contraction returns the length of 's, 't, 're, … at the front of s.
func contraction(s string, anyCase bool) int {
	for _, c := range []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"} {
		if len(s) >= len(c) && (s[:len(c)] == c || anyCase && strings.EqualFold(s[:len(c)], c)) {
			return len(c)
		}
	}
	return 0
}

// blank returns the length of the white space at the front of s as `\s+(?!\S)|\s+` takes it: the last one before a word
// is left to the word.
func blank(s string) int {
	n := span(s, unicode.IsSpace, 0)
	if n == len(s) || n == 0 {
		return n
	}
	_, last := utf8.DecodeLastRuneInString(s[:n])
	if n > last {
		return n - last
	}
	return n
}

// cut takes words off the front until nothing is left.
func cut(text string, word func(s string) int) []string {
	var words []string
	for text != "" {
		n := word(text)
		if n == 0 { // no rule: can't be, but must not hang
			_, n = utf8.DecodeRuneInString(text)
		}
		words = append(words, text[:n])
		text = text[n:]
	}
	return words
}

// splitGPT2 is 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func splitGPT2(text string) []string {
	return cut(text, func(s string) int {
		if n := contraction(s, false); n > 0 {
			return n
		}
		rest := strings.TrimPrefix(s, " ")
		for _, is := range []func(rune) bool{isLetter, isNumber, isOther} {
			if n := span(rest, is, 0); n > 0 {
				return n + len(s) - len(rest)
			}
		}
		return blank(s)
	})
}

// splitSmolLM has every digit alone, and is GPT-2 between them.
func splitSmolLM(text string) []string {
	var words []string
	for text != "" {
		n := span(text, func(r rune) bool { return !isNumber(r) }, 0)
		words = append(words, splitGPT2(text[:n])...)
		text = text[n:]
		if text != "" {
			_, n := utf8.DecodeRuneInString(text)
			words = append(words, text[:n])
			text = text[n:]
		}
	}
	return words
}

// splitLlama3 is (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func splitLlama3(text string, digits int) []string {
	return cut(text, func(s string) int {
		if n := contraction(s, true); n > 0 {
			return n
		}
		first, size := utf8.DecodeRuneInString(s)
		if isLetter(first) {
			return span(s, isLetter, 0)
		}
		if !isBreak(first) && !isNumber(first) {
			if n := span(s[size:], isLetter, 0); n > 0 {
				return size + n
			}
		}
		if n := span(s, isNumber, digits); n > 0 {
			return n
		}
		rest := strings.TrimPrefix(s, " ")
		if n := span(rest, isOther, 0); n > 0 {
			n += len(s) - len(rest)
			return n + span(s[n:], isBreak, 0)
		}
		if space := span(s, unicode.IsSpace, 0); space > 0 {
			if i := strings.LastIndexAny(s[:space], "\r\n"); i >= 0 {
				return i + 1
			}
		}
		return blank(s)
	})
}
