package resource

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
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
