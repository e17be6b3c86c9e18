package llama

import (
	"container/heap"
	"strings"
	"unicode/utf8"
)

// symbol is a piece of the text that is being merged, in a list: a merged one has no text any more.
type symbol struct {
	text       string
	prev, next int
}

// merge is a possible merge of the symbol left with the one behind it, whose text together is long.
type merge struct {
	left, right int
	score       float32
	length      int
}

// merges is a heap: the best score first, of equal ones the leftmost.
type merges []merge

func (m merges) Len() int { return len(m) }
func (m merges) Less(i, j int) bool {
	if m[i].score != m[j].score {
		return m[i].score > m[j].score
	}
	return m[i].left < m[j].left
}
func (m merges) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merges) Push(x any)   { *m = append(*m, x.(merge)) }
func (m *merges) Pop() any {
	old := *m
	last := old[len(old)-1]
	*m = old[:len(old)-1]
	return last
}

// join merges neighbors, the best score first, until score knows none any more, and returns the pieces that are left.
func join(pieces []string, score func(left, right string) (float32, bool)) []string {
	list := make([]symbol, len(pieces))
	for i, p := range pieces {
		list[i] = symbol{p, i - 1, i + 1}
	}
	var queue merges
	offer := func(left, right int) {
		if left < 0 || right >= len(list) {
			return
		}
		if s, ok := score(list[left].text, list[right].text); ok {
			heap.Push(&queue, merge{left, right, s, len(list[left].text) + len(list[right].text)})
		}
	}
	for i := 1; i < len(list); i++ {
		offer(i-1, i)
	}
	for queue.Len() > 0 {
		m := heap.Pop(&queue).(merge)
		l, r := &list[m.left], &list[m.right]
		if l.text == "" || r.text == "" || len(l.text)+len(r.text) != m.length {
			continue // one of the two was merged with another meanwhile
		}
		l.text += r.text
		r.text = ""
		l.next = r.next
		if r.next < len(list) {
			list[r.next].prev = m.left
		}
		offer(l.prev, m.left)
		offer(m.left, l.next)
	}
	out := pieces[:0:0]
	for _, s := range list {
		if s.text != "" {
			out = append(out, s.text)
		}
	}
	return out
}

// encodePieces is sentencepiece: characters are merged to the pieces with the best scores; what is no piece in the end
// becomes bytes.
func (t *Tokenizer) encodePieces(ids []int, text string) []int {
	if t.vocabulary.SpacePrefix {
		text = " " + text
	}
	text = strings.ReplaceAll(text, " ", "▁")
	pieces := make([]string, 0, len(text))
	for len(text) > 0 {
		_, n := utf8.DecodeRuneInString(text)
		pieces = append(pieces, text[:n])
		text = text[n:]
	}
	pieces = join(pieces, func(left, right string) (float32, bool) {
		id, ok := t.ids[left+right]
		if !ok {
			return 0, false
		}
		return t.vocabulary.Scores[id], true
	})
	for _, p := range pieces {
		if id, ok := t.ids[p]; ok {
			ids = append(ids, id)
			continue
		}
		for _, b := range []byte(p) {
			if id := t.bytes[b]; id != none {
				ids = append(ids, id)
			} else if t.unknown != none {
				ids = append(ids, t.unknown)
			}
		}
	}
	return ids
}
