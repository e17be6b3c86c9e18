package metadata

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answer is what a query is answered with.
type answer struct {
	kind string // content type
	body []byte
}

// etag changes with the content, as Google's: 16 hexadecimal digits.
func (a answer) etag() string {
	sum := sha256.Sum256(a.body)
	return hex.EncodeToString(sum[:8])
}

// How long a query waits for a change at most, and how many of one caller's do at once. Google's libraries wait in one,
// and ask again when it ends.
const (
	maxWait  = 5 * time.Minute
	maxWaits = 32
)

var errWaits = errors.New("too many queries wait for a change already")

// wait returns when what the query waits for is there: at once when the caller has seen another state than the present
// one, else after timeout_sec, and after a while without one.
func (s *server) wait(r *http.Request, etag string) error {
	q := r.URL.Query()
	if last := q.Get("last_etag"); last != "" && last != etag {
		return nil
	}
	most := maxWait
	if text := q.Get("timeout_sec"); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return badRequest("timeout_sec must be a number of seconds")
		}
		most = min(most, time.Duration(seconds)*time.Second)
	}
	select {
	case s.waits <- struct{}{}:
		defer func() { <-s.waits }()
	default:
		return errWaits
	}
	end := time.NewTimer(most)
	defer end.Stop()
	select {
	case <-end.C:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// isTrue reads a parameter as clients spell it: TRUE in Go's library, True in Python's, 1 by hand.
func isTrue(s string) bool { return strings.EqualFold(s, "true") || s == "1" }

// render makes the answer about a node: a directory's listing, a value as text, or JSON. recursive answers in JSON and
// the others in text, unless alt says otherwise.
func (s *server) render(r *http.Request, node any) (answer, error) {
	q := r.URL.Query()
	recursive, alt := isTrue(q.Get("recursive")), strings.ToLower(q.Get("alt"))
	if alt != "" && alt != "text" && alt != "json" {
		return answer{}, badRequest("alt must be text or json")
	}
	asJSON := alt == "json" || recursive && alt != "text"
	if make, ok := node.(leaf); ok {
		v, err := make(r)
		if err != nil {
			return answer{}, err
		}
		if _, isText := v.(string); !isText {
			asJSON = true // a token is always JSON
		}
		node = v
	}
	if asJSON {
		var b bytes.Buffer
		if err := json.NewEncoder(&b).Encode(plain(node)); err != nil {
			return answer{}, err
		}
		return answer{"application/json", b.Bytes()}, nil
	}
	var b bytes.Buffer
	dir, isDir := node.(map[string]any)
	switch {
	case isDir && recursive:
		lines(&b, "", dir)
	case isDir:
		for _, k := range slices.Sorted(maps.Keys(dir)) {
			b.WriteString(k)
			if _, sub := dir[k].(map[string]any); sub {
				b.WriteByte('/')
			}
			b.WriteByte('\n')
		}
	default:
		if list, ok := node.([]string); ok {
			node = strings.Join(list, "\n") + "\n"
		}
		fmt.Fprint(&b, node)
	}
	return answer{"application/text", b.Bytes()}, nil
}

// lines writes a directory as "path value" lines, without what is made on demand.
func lines(b *bytes.Buffer, prefix string, dir map[string]any) {
	for _, k := range slices.Sorted(maps.Keys(dir)) {
		switch v := dir[k].(type) {
		case map[string]any:
			lines(b, prefix+k+"/", v)
		case leaf:
		case []string:
			for _, x := range v {
				fmt.Fprintf(b, "%s%s %s\n", prefix, k, x)
			}
		default:
			fmt.Fprintf(b, "%s%s %v\n", prefix, k, v)
		}
	}
}

// plain is a node as JSON shows it: keys in camel case, without what is made on demand.
func plain(node any) any {
	dir, ok := node.(map[string]any)
	if !ok {
		return node
	}
	out := make(map[string]any, len(dir))
	for k, v := range dir {
		if _, made := v.(leaf); made {
			continue
		}
		out[camel(k)] = plain(v)
	}
	return out
}

// camel is "serviceAccounts" for "service-accounts"; an e-mail address stays.
func camel(s string) string {
	if strings.Contains(s, "@") {
		return s
	}
	parts := strings.Split(s, "-")
	for i := 1; i < len(parts); i++ {
		if parts[i] != "" {
			parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
		}
	}
	return strings.Join(parts, "")
}
