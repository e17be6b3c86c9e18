package resource

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"giggle/fault"
)

// pageTokenAge is how long a page token is good for. Google's expire too; clients list again.
const pageTokenAge = 24 * time.Hour

// Pages makes and reads page tokens: opaque, signed, and valid for a day for the same query only.
type Pages struct {
	key []byte
	now func() time.Time
}

// NewPages returns the page tokens of one platform. The key is secret and at least 32 bytes.
func NewPages(key []byte, now func() time.Time) *Pages { return &Pages{key, now} }

// Token returns the token of the page that starts after the row called last. The query is whatever else must be the
// same on the next call: parent, filter, order.
func (p *Pages) Token(query, last string) string {
	if last == "" {
		return ""
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(p.now().Unix()))
	b = append(b, last...)
	return base64.RawURLEncoding.EncodeToString(append(b, p.sum(query, b)...))
}

// Last returns what Token was given as last; "" for the empty token. It fails with InvalidArgument on a token that is
// foreign, old, or of another query.
func (p *Pages) Last(query, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	bad := fault.Invalid("pageToken", "the page token is not valid for this request; start again without one")
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 8+16 {
		return "", bad
	}
	b, mac := b[:len(b)-16], b[len(b)-16:]
	if !hmac.Equal(mac, p.sum(query, b)) {
		return "", bad
	}
	made := time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
	if p.now().Sub(made) > pageTokenAge {
		return "", bad
	}
	return string(b[8:]), nil
}

func (p *Pages) sum(query string, b []byte) []byte {
	h := hmac.New(sha256.New, p.key)
	h.Write(b)
	h.Write([]byte{0})
	h.Write([]byte(query))
	return h.Sum(nil)[:16]
}

// List is what a list request asks for.
type List struct {
	Query string // whatever else must be the same on the next call: parent, filter, order
	Size  int    // entries of a page; 0 for Most
	Most  int    // the most of one page
	Token string // "" for the first page
}

// Fetch returns the entries behind the one with the key after, at most limit of them, or all where that is 0, in the
// order of their keys.
type Fetch[T any] func(after string, limit int) ([]T, error)

// Rows is a Fetch from entries that are all here, in whatever order.
func Rows[T any](all []T, key func(T) string) Fetch[T] {
	return func(after string, limit int) ([]T, error) {
		type row struct {
			key   string
			entry T
		}
		var rows []row
		for _, entry := range all {
			if k := key(entry); after == "" || k > after {
				rows = append(rows, row{k, entry})
			}
		}
		slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.key, b.key) })
		if limit > 0 && len(rows) > limit {
			rows = rows[:limit]
		}
		out := make([]T, len(rows))
		for i, r := range rows {
			out[i] = r.entry
		}
		return out, nil
	}
}

// Page returns one page of a list and the token of the next, "" where there is none. A page begins behind the last
// entry of the one before, be that still there or not. It fails with InvalidArgument on a negative size and on a token
// that is not one of this list.
func Page[T any](p *Pages, l List, fetch Fetch[T], key func(T) string) (page []T, next string, err error) {
	if l.Size < 0 {
		return nil, "", fault.Invalid("pageSize", "must not be negative")
	}
	after, err := p.Last(l.Query, l.Token)
	if err != nil {
		return nil, "", err
	}
	size := l.Size
	if size == 0 || size > l.Most {
		size = l.Most
	}
	if page, err = fetch(after, size+1); err != nil {
		return nil, "", err
	}
	if len(page) > size {
		page = page[:size]
		next = p.Token(l.Query, key(page[size-1]))
	}
	return page, next, nil
}

// Descending is a key by which the newest come first, and of those of one time the lowest name.
func Descending(t time.Time, name string) string {
	return fmt.Sprintf("%019d %s", math.MaxInt64-t.UnixNano(), name)
}

// Etag returns the etag of a row's version: base64, because gcloud 528 decodes policy etags as proto bytes and
// crashes on anything else.
func Etag(version int64) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64([]byte{'v'}, uint64(version)))
}

// EtagVersion returns the version that an etag stands for, and whether it is one of ours.
func EtagVersion(etag string) (int64, bool) {
	b, err := base64.StdEncoding.DecodeString(etag)
	if err != nil || len(b) != 9 || b[0] != 'v' {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b[1:])), true
}
