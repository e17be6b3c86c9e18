package storagejson

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"giggle/fault"
	"giggle/iam"
)

const (
	rsaAlgorithm = "GOOG4-RSA-SHA256"
	maxExpires   = 7 * 24 * time.Hour
	maxSkew      = 15 * time.Minute // how far ahead the clock of who signs may be
	maxSigned    = 16 << 10         // bytes of a signed query
)

// Codes of the XML API's errors about signatures, which are a fault's reason
// (https://cloud.google.com/storage/docs/xml-api/reference-status).
const (
	reasonExpired   = "ExpiredToken"
	reasonMalformed = "MalformedSecurityHeader"
	reasonMismatch  = "SignatureDoesNotMatch"
	reasonSkewed    = "RequestTimeTooSkewed"
)

// Credential is what a request without a token shows: a V4 signature in its URL, which opens what the account that
// signed may do, or the URL of a resumable upload, which opens to whoever has it what the one who began it may do
// (https://cloud.google.com/storage/docs/access-control/signed-urls, …/docs/resumable-uploads#session-uris).
func (s *Server) Credential(ctx context.Context, r *http.Request) (iam.Credential, bool, error) {
	none := iam.Credential{Principal: iam.Anonymous}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case strings.HasPrefix(scheme, "GOOG") || strings.HasPrefix(scheme, "AWS"):
		return none, true, fault.New(fault.Unimplemented,
			"The authorization %.20q is not implemented by Giggle: use a token, or a V4 signature of a service account's key in the URL.", scheme)
	case scheme != "":
		return none, false, nil
	}
	raw := r.URL.RawQuery
	if !strings.Contains(raw, "ignature=") && !strings.Contains(raw, "upload_id=") {
		return none, false, nil
	}
	if len(raw) > maxSigned {
		return none, true, malformedSignature("the query is longer than %d bytes", maxSigned)
	}
	q, err := parseQuery(raw)
	if err != nil {
		return none, true, err
	}
	if id := q.get("upload_id"); id != "" && (r.Method == http.MethodPut || r.Method == http.MethodPost ||
		r.Method == http.MethodDelete) {
		member, err := s.Storage.UploadBy(ctx, id)
		if err == nil && s.Signatures != nil {
			err = s.Signatures.CheckMember(ctx, member)
		}
		return iam.Credential{Principal: iam.Principal{Member: member}}, member != "", err
	}
	if isJSON(r.URL.Path) || s.Signatures == nil {
		return none, false, nil
	}
	switch {
	case q.get("x-goog-signature") != "":
		c, err := s.checkSigned(ctx, r, q)
		return c, true, err
	case q.get("signature") != "" && (q.get("googleaccessid") != "" || q.get("awsaccesskeyid") != ""),
		q.get("x-amz-signature") != "":
		return none, true, fault.New(fault.Unimplemented,
			"Only V4 signatures with a service account's RSA key (%s) are implemented by Giggle.", rsaAlgorithm)
	}
	return none, false, nil
}

// jsonPrefixes are the first segments of the JSON API's paths: no bucket has such a name there.
var jsonPrefixes = []string{"storage", "upload", "resumable", "download", "batch"}

func isJSON(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return slices.Contains(jsonPrefixes, first)
}

// pair is a parameter of a query as it is signed: escaped anew.
type pair struct{ name, value string }

// query is a query in the order in which it is signed, and by lower-case names: clients write X-Goog-… in both ways.
type query struct {
	pairs []pair
	by    map[string]string
}

func (q query) get(name string) string { return q.by[name] }

func parseQuery(raw string) (query, error) {
	q := query{by: map[string]string{}}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		if cmp.Or(err, err2) != nil {
			return q, malformedSignature("the query is malformed")
		}
		lower := strings.ToLower(name)
		if _, twice := q.by[lower]; twice && strings.HasPrefix(lower, "x-goog-") {
			return q, malformedSignature("%.60s is there twice", name)
		}
		q.by[lower] = value
		if lower != "x-goog-signature" {
			q.pairs = append(q.pairs, pair{escape(name, false), escape(value, false)})
		}
	}
	slices.SortStableFunc(q.pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.value, b.value))
	})
	return q, nil
}

func (q query) canonical() string {
	var parts []string
	for _, p := range q.pairs {
		parts = append(parts, p.name+"="+p.value)
	}
	return strings.Join(parts, "&")
}

// escape is percent-encoding of all but RFC 3986's unreserved characters, and of slashes where they are kept.
func escape(s string, slashes bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~',
			c == '/' && slashes:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func malformedSignature(format string, args ...any) error {
	e := fault.New(fault.InvalidArgument, "Your request has a malformed header.")
	e.Reason, e.Metadata = reasonMalformed, map[string]string{"Details": fmt.Sprintf(format, args...)}
	return e
}

// signature is what a signed query says.
type signature struct {
	email   string
	scope   string
	date    time.Time
	expires time.Duration
	headers []string // names, in lower case and in order
	bytes   []byte
}

const signedTime = "20060102T150405Z"

func parseSignature(q query) (sig signature, err error) {
	bad := malformedSignature
	if a := q.get("x-goog-algorithm"); a != rsaAlgorithm {
		if a == "" {
			return sig, bad("X-Goog-Algorithm is missing")
		}
		return sig, fault.New(fault.Unimplemented, "The algorithm %.40q is not implemented by Giggle: use %s.", a,
			rsaAlgorithm)
	}
	if sig.date, err = time.Parse(signedTime, q.get("x-goog-date")); err != nil {
		return sig, bad("X-Goog-Date is missing or not like %s", signedTime)
	}
	seconds, err := strconv.ParseInt(q.get("x-goog-expires"), 10, 32)
	if sig.expires = time.Duration(seconds) * time.Second; err != nil || seconds < 1 || sig.expires > maxExpires {
		return sig, bad("X-Goog-Expires must be 1 to %d seconds", int64(maxExpires/time.Second))
	}
	email, scope, _ := strings.Cut(q.get("x-goog-credential"), "/")
	part := strings.Split(scope, "/")
	if email == "" || len(part) != 4 || part[0] != sig.date.Format("20060102") || part[1] == "" ||
		part[2] != "storage" || part[3] != "goog4_request" {
		return sig, bad("X-Goog-Credential must be EMAIL/DATE/LOCATION/storage/goog4_request, of the date of X-Goog-Date")
	}
	sig.email, sig.scope = email, scope
	sig.headers = strings.Split(q.get("x-goog-signedheaders"), ";")
	if !slices.IsSorted(sig.headers) || !slices.Contains(sig.headers, "host") ||
		slices.ContainsFunc(sig.headers, func(h string) bool { return h == "" || h != strings.ToLower(h) }) {
		return sig, bad("X-Goog-SignedHeaders must be names in lower case, in order, with host among them")
	}
	if sig.bytes, err = hex.DecodeString(q.get("x-goog-signature")); err != nil {
		return sig, bad("X-Goog-Signature is not hexadecimal")
	}
	return sig, nil
}

// checkSigned verifies a V4 signature (https://cloud.google.com/storage/docs/access-control/signed-urls and
// https://cloud.google.com/storage/docs/authentication/canonical-requests).
func (s *Server) checkSigned(ctx context.Context, r *http.Request, q query) (iam.Credential, error) {
	none := iam.Credential{Principal: iam.Anonymous}
	sig, err := parseSignature(q)
	if err != nil {
		return none, err
	}
	headers, payload, err := signedHeaders(r, sig.headers)
	if err != nil {
		return none, err
	}
	now := s.Now()
	switch end := sig.date.Add(sig.expires); {
	case now.After(end):
		e := fault.New(fault.InvalidArgument, "The provided token has expired.")
		e.Reason = reasonExpired
		e.Metadata = map[string]string{"Details": "Request signature expired at: " + end.Format(time.RFC3339)}
		return none, e
	case sig.date.Sub(now) > maxSkew:
		e := fault.New(fault.PermissionDenied, "The request is signed for a time to come: %s.",
			sig.date.Format(time.RFC3339))
		e.Reason = reasonSkewed
		return none, e
	}
	host, path := r.Host, r.URL.EscapedPath()
	if s.Asked != nil {
		host, path = s.Asked(r)
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		return none, malformedSignature("the path is malformed")
	}
	var first, message string
	// Clients differ in what of a path they escape, and in whether they name the port that is the scheme's own.
	for _, at := range slices.Compact([]string{path, escape(plain, true)}) {
		for _, h := range slices.Compact([]string{host, withoutPort(host)}) {
			canonical := strings.Join([]string{r.Method, at, q.canonical(), strings.ReplaceAll(headers, "\x00", h),
				strings.Join(sig.headers, ";"), payload}, "\n")
			sum := sha256.Sum256([]byte(canonical))
			text := strings.Join([]string{rsaAlgorithm, sig.date.Format(signedTime), sig.scope,
				hex.EncodeToString(sum[:])}, "\n")
			if first == "" {
				first, message = canonical, text
			}
			c, err := s.Signatures.CheckSignature(ctx, sig.email, []byte(text), sig.bytes)
			if !fault.Is(err, fault.PermissionDenied) {
				return c, err
			}
		}
	}
	e := fault.New(fault.PermissionDenied, "The request signature we calculated does not match the signature you provided. Check your Google secret key and signing method.")
	e.Reason = reasonMismatch
	e.Metadata = map[string]string{"StringToSign": message, "CanonicalRequest": first}
	return none, e
}

func withoutPort(host string) string {
	for _, port := range []string{":443", ":80"} {
		if h, ok := strings.CutSuffix(host, port); ok {
			return h
		}
	}
	return host
}

// signedHeaders are the lines of the headers that are signed, with a zero byte for the host, and what is signed of the
// body. A header that speaks to Cloud Storage must be signed: who has the URL could add one else.
func signedHeaders(r *http.Request, names []string) (lines, payload string, err error) {
	for name := range r.Header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-goog-") && !slices.Contains(names, lower) {
			return "", "", malformedSignature("Header not included in signedheaders: %.60s", lower)
		}
	}
	payload = "UNSIGNED-PAYLOAD"
	var b strings.Builder
	for _, name := range names {
		var value string
		switch values := r.Header.Values(name); {
		case name == "host":
			value = "\x00"
		case name == "content-length" && r.ContentLength >= 0:
			value = strconv.FormatInt(r.ContentLength, 10)
		case len(values) == 0:
			return "", "", malformedSignature("Header was included in signedheaders, but not in the request: %.60s", name)
		default:
			value = strings.Join(strings.Fields(strings.ReplaceAll(strings.Join(values, ","), "\x00", "")), " ")
		}
		if name == "x-goog-content-sha256" && value != payload {
			return "", "", fault.NotImplemented(name, "Giggle verifies no signed bodies: sign %s.", payload)
		}
		b.WriteString(name + ":" + value + "\n")
	}
	return b.String(), payload, nil
}
