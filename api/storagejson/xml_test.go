package storagejson

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
)

// https://cloud.google.com/storage/docs/xml-api/reference-methods
func TestXMLObjects(t *testing.T) {
	h := serve(t)
	h.put(t, "here", "hello")
	for _, row := range []struct {
		method, path, body string
		header             []string
		status             int
		want               string // in the body, or in a header as NAME: VALUE
	}{
		{"PUT", "/bucket/a/b%20c", "hello", []string{"Content-Type", "text/x", "X-Goog-Meta-Color", "red", "Cache-Control", "no-store"}, 200, `Etag: "5d41402abc4b2a76b9719d911017c592"`},
		{"GET", "/bucket/a/b%20c", "", nil, 200, "hello"},
		{"GET", "/bucket/a/b%20c", "", nil, 200, "X-Goog-Meta-Color: red"},
		{"GET", "/bucket/a/b%20c", "", nil, 200, "Cache-Control: no-store"},
		{"GET", "/bucket/a/b%20c", "", []string{"If-None-Match", `"5d41402abc4b2a76b9719d911017c592"`}, 304, ""},
		{"GET", "/bucket/a/b%20c", "", []string{"Range", "bytes=1-2"}, 206, "el"},
		{"GET", "/bucket/a/b%20c", "", []string{"Range", "bytes=9-"}, 416, ""},
		{"GET", "/bucket/a/b%20c?response-content-type=a/b", "", nil, 200, "Content-Type: a/b"},
		{"GET", "/bucket/a/b%20c?response-content-disposition=attachment", "", nil, 200, "Content-Disposition: attachment"},
		{"HEAD", "/bucket/a/b%20c", "", nil, 200, "Content-Length: 5"},
		{"HEAD", "/bucket/none", "", nil, 404, ""},
		{"GET", "/bucket/none", "", nil, 404, "<Code>NoSuchKey</Code>"},
		{"GET", "/nosuch/none", "", nil, 404, "<Code>NoSuchBucket</Code>"},
		{"GET", "/bucket/here", "", []string{"X-Goog-If-Generation-Match", "1"}, 412, "<Code>PreconditionFailed</Code>"},
		{"PUT", "/bucket/here", "x", []string{"X-Goog-If-Generation-Match", "0"}, 412, "<Code>PreconditionFailed</Code>"},
		{"PUT", "/bucket/here", "x", []string{"X-Goog-If-Generation-Match", "no"}, 400, "<Code>InvalidArgument</Code>"},
		{"PUT", "/bucket/x", "x", []string{"Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="}, 400, "MD5"},
		{"PUT", "/bucket/x", "x", []string{"X-Goog-Hash", "crc32c=AAAAAA=="}, 400, "CRC32C"},
		{"PUT", "/bucket/x", "x", []string{"X-Goog-Acl", "public-read"}, 400, "uniform"},
		{"PUT", "/bucket/x", "x", []string{"X-Goog-Storage-Class", "FAST"}, 400, "FAST"},
		{"PUT", "/bucket/x", "x", []string{"X-Goog-Custom-Time", "now"}, 400, "RFC 3339"},
		{"PUT", "/bucket/x?acl", "x", nil, 405, "<Code>NotImplemented</Code>"},
		{"GET", "/bucket?versioning", "", nil, 405, "<Code>NotImplemented</Code>"},
		{"PUT", "/bucket/", "", nil, 405, "JSON API"},
		{"PUT", "/secret/x", "x", nil, 403, "<Code>AccessDenied</Code>"},
		{"DELETE", "/secret/x", "", nil, 403, "<Code>AccessDenied</Code>"},
		{"PUT", "/bucket/copy", "", []string{"X-Goog-Copy-Source", "/bucket/a/b%20c"}, 200, "<ETag>&#34;5d41402abc4b2a76b9719d911017c592&#34;</ETag>"},
		{"GET", "/bucket/copy", "", nil, 200, "X-Goog-Meta-Color: red"},
		{"PUT", "/bucket/copy", "", []string{"X-Goog-Copy-Source", "bucket"}, 400, ""},
		{"PUT", "/bucket/copy", "", []string{"X-Goog-Copy-Source", "secret/x"}, 403, ""},
		{"DELETE", "/bucket/copy", "", []string{"X-Goog-If-Generation-Match", "1"}, 412, ""},
		{"DELETE", "/bucket/copy", "", nil, 204, ""},
		{"DELETE", "/bucket/copy", "", nil, 404, "<Code>NoSuchKey</Code>"},
		{"POST", "/bucket/x", "", nil, 400, "x-goog-resumable"},
		{"POST", "/bucket/", "", nil, 405, "signed URL"},
	} {
		res, body := h.do(t, row.method, row.path, row.body, row.header...)
		have := body
		if name, _, ok := strings.Cut(row.want, ": "); ok {
			have = name + ": " + res.Header.Get(name)
		}
		if res.StatusCode != row.status || !strings.Contains(have, row.want) {
			t.Errorf("%s %s %v = %d %v %s, want %d %s", row.method, row.path, row.header, res.StatusCode, res.Header, body,
				row.status, row.want)
		}
	}
}

// https://cloud.google.com/storage/docs/xml-api/get-bucket-list
func TestXMLListings(t *testing.T) {
	h := serve(t)
	for _, name := range []string{"a", "b%2F1", "b%2F2", "c%20d", "e"} {
		h.put(t, name, "x")
	}
	token := regexp.MustCompile(`<NextContinuationToken>(.*?)</NextContinuationToken>`)
	keys := regexp.MustCompile(`<(Key|CommonPrefixes><Prefix|NextMarker|KeyCount|IsTruncated|MaxKeys)>(.*?)<`)
	for _, row := range []struct{ query, want string }{
		{"", "1000 false a b/1 b/2 c d e"},
		{"?prefix=b/", "1000 false b/1 b/2"},
		{"?delimiter=/", "1000 false a c d e b/"},
		{"?max-keys=2", "b/1 2 true a b/1"},
		{"?max-keys=2&marker=b/1", "c d 2 true b/2 c d"},
		{"?max-keys=2&delimiter=/", "b/ 2 true a b/"},
		{"?max-keys=2&delimiter=/&marker=b/", "2 false c d e"},
		{"?max-keys=0", "0 false"},
		{"?list-type=2", "5 1000 false a b/1 b/2 c d e"},
		{"?list-type=2&start-after=b/2", "2 1000 false c d e"},
		{"?list-type=2&max-keys=3&delimiter=/", "3 3 true a c d b/"},
		{"?list-type=2&max-keys=3&delimiter=/&continuation-token=TOKEN", "1 3 false e"},
		{"?encoding-type=url&prefix=c", "1000 false c+d"},
	} {
		path := "/bucket" + row.query
		if strings.Contains(path, "TOKEN") {
			_, body := h.do(t, "GET", "/bucket?list-type=2&max-keys=3&delimiter=/", "")
			path = strings.Replace(path, "TOKEN", url.QueryEscape(token.FindStringSubmatch(body)[1]), 1)
		}
		for _, path := range []string{path, strings.Replace(path, "/bucket", "/bucket/", 1)} {
			res, body := h.do(t, "GET", path, "")
			var got []string
			for _, m := range keys.FindAllStringSubmatch(body, -1) {
				got = append(got, m[2])
			}
			if res.StatusCode != 200 || strings.Join(got, " ") != row.want {
				t.Errorf("%s: %d %q, want %q\n%s", path, res.StatusCode, strings.Join(got, " "), row.want, body)
			}
		}
	}
	for _, bad := range []string{"?max-keys=x", "?list-type=3", "?encoding-type=x", "?list-type=2&continuation-token=x"} {
		if res, body := h.do(t, "GET", "/bucket"+bad, ""); res.StatusCode != 400 {
			t.Errorf("%s: %d %s", bad, res.StatusCode, body)
		}
	}
}

// https://cloud.google.com/storage/docs/multipart-uploads
func TestXMLUploadsOfParts(t *testing.T) {
	h := serve(t)
	begin := func(name string) string {
		t.Helper()
		res, body := h.do(t, "POST", "/bucket/"+name+"?uploads", "", "Content-Type", "text/x", "X-Goog-Meta-K", "v")
		var out struct{ UploadId string }
		if err := xml.Unmarshal([]byte(body), &out); err != nil || res.StatusCode != 200 || out.UploadId == "" {
			t.Fatalf("%d %s %v", res.StatusCode, body, err)
		}
		return "/bucket/" + name + "?uploadId=" + out.UploadId
	}
	at := begin("big/one")
	part := func(n int, content string) string {
		t.Helper()
		res, body := h.do(t, "PUT", fmt.Sprintf("%s&partNumber=%d", at, n), content)
		if res.StatusCode != 200 {
			t.Fatalf("part %d: %d %s", n, res.StatusCode, body)
		}
		return fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, res.Header.Get("Etag"))
	}
	large := strings.Repeat("0123456789abcdef", 5<<16) // 5 MiB
	third, first := part(3, "end"), part(1, large)
	small := part(2, "small")
	part(2, "small again") // in place of the one before
	complete := func(parts ...string) (int, string) {
		res, body := h.do(t, "POST", at,
			"<CompleteMultipartUpload>"+strings.Join(parts, "")+"</CompleteMultipartUpload>")
		return res.StatusCode, body
	}
	for _, row := range []struct {
		what  string
		parts []string
		code  string
	}{
		{"no parts", nil, "MalformedCompleteMultipartUploadRequest"},
		{"no number", []string{"<Part><ETag>00</ETag></Part>"}, "MalformedCompleteMultipartUploadRequest"},
		{"no XML", []string{"<"}, "MalformedCompleteMultipartUploadRequest"},
		{"an ETag of before", []string{first, small}, "InvalidPart"},
		{"a part that is not there", []string{first, strings.Replace(third, ">3<", ">4<", 1)}, "InvalidPart"},
		{"the wrong order", []string{third, first}, "InvalidPartOrder"},
		{"one twice", []string{first, first}, "InvalidPartOrder"},
	} {
		if status, body := complete(row.parts...); status != 400 ||
			!strings.Contains(body, "<Code>"+row.code+"</Code>") {
			t.Errorf("%s: %d %s", row.what, status, body)
		}
	}
	ninth := part(9, "end")
	if status, body := complete(third, ninth); status != 400 || !strings.Contains(body, "EntityTooSmall") {
		t.Errorf("a small part: %d %s", status, body)
	}
	for _, row := range []struct{ query, want string }{
		{"", "<PartNumber>1</PartNumber>"}, {"&max-parts=1", "<IsTruncated>true</IsTruncated>"},
		{"&max-parts=1&part-number-marker=1", "<NextPartNumberMarker>2</NextPartNumberMarker>"},
		{"&part-number-marker=3", "<Size>3</Size>"},
	} {
		if res, body := h.do(t, "GET", at+row.query, ""); res.StatusCode != 200 || !strings.Contains(body, row.want) {
			t.Errorf("parts%s: %d %s", row.query, res.StatusCode, body)
		}
	}
	if _, body := h.do(t, "GET", "/bucket?uploads", ""); !strings.Contains(body, "<Key>big/one</Key>") {
		t.Errorf("uploads: %s", body)
	}
	for _, bad := range []string{"&partNumber=0", "&partNumber=10001", "&partNumber=x", ""} {
		if res, body := h.do(t, "PUT", at+bad, "x"); res.StatusCode != 400 {
			t.Errorf("part %q: %d %s", bad, res.StatusCode, body)
		}
	}
	if res, _ := h.do(t, "PUT", at+"&partNumber=4", "x", "Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA=="); res.StatusCode != 400 {
		t.Errorf("a part with a wrong sum: %d", res.StatusCode)
	}
	if status, body := complete(first, third); status != 200 || !strings.Contains(body, "<Key>big/one</Key>") {
		t.Errorf("complete: %d %s", status, body)
	}
	res, body := h.do(t, "GET", "/bucket/big/one", "")
	if body != large+"end" || res.Header.Get("Content-Type") != "text/x" || res.Header.Get("X-Goog-Meta-K") != "v" {
		t.Errorf("the object: %d bytes, %v", len(body), res.Header)
	}
	if status, body := complete(first, third); status != 404 || !strings.Contains(body, "NoSuchUpload") {
		t.Errorf("complete again: %d %s", status, body)
	}
	at = begin("other")
	part(1, "x")
	if res, _ := h.do(t, "GET", strings.Replace(at, "other", "another", 1), ""); res.StatusCode != 404 {
		t.Errorf("another object's upload: %d", res.StatusCode)
	}
	if res, _ := h.do(t, "DELETE", at, ""); res.StatusCode != 204 {
		t.Errorf("abort: %d", res.StatusCode)
	}
	if res, _ := h.do(t, "PUT", at+"&partNumber=2", "x"); res.StatusCode != 404 {
		t.Errorf("after the abort: %d", res.StatusCode)
	}
}

func FuzzCompletion(f *testing.F) {
	f.Add([]byte("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"00\"</ETag></Part></CompleteMultipartUpload>"))
	f.Add([]byte("<!DOCTYPE x [<!ENTITY a \"b\">]><CompleteMultipartUpload/>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		parts, err := parseCompletion(bytes.NewReader(body))
		if err == nil && (len(parts) == 0 || parts[0].Number < 1) {
			t.Errorf("%q: %v", body, parts)
		}
	})
}

// signer has the key of one service account, as package iam would.
type signer struct{ key *rsa.PrivateKey }

const signerEmail = "signer@proj-1.iam.gserviceaccount.com"

func (s signer) CheckSignature(_ context.Context, email string, message, sig []byte) (iam.Credential, error) {
	sum := sha256.Sum256(message)
	if email != signerEmail || rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, sum[:], sig) != nil {
		return iam.Credential{}, fault.New(fault.PermissionDenied, "no")
	}
	return iam.Credential{Principal: iam.ServiceAccount(email)}, nil
}

func (s signer) CheckMember(context.Context, string) error { return nil }

// sign makes a signed URL as https://cloud.google.com/storage/docs/access-control/signing-urls-manually says, with
// the code of nobody else.
func (s signer) sign(t *testing.T, method, host, path, query string, at time.Time, headers ...string) string {
	t.Helper()
	date := at.UTC().Format("20060102T150405Z")
	scope := date[:8] + "/auto/storage/goog4_request"
	names := []string{"host"}
	lines := map[string]string{"host": host}
	for i := 0; i < len(headers); i += 2 {
		names = append(names, headers[i])
		lines[headers[i]] = headers[i+1]
	}
	slices.Sort(names)
	q := []string{"X-Goog-Algorithm=GOOG4-RSA-SHA256",
		"X-Goog-Credential=" + url.QueryEscape(signerEmail+"/"+scope), "X-Goog-Date=" + date, "X-Goog-Expires=600",
		"X-Goog-SignedHeaders=" + url.QueryEscape(strings.Join(names, ";"))}
	if query != "" {
		q = append(q, strings.Split(query, "&")...)
	}
	slices.Sort(q)
	canonical := method + "\n" + path + "\n" + strings.Join(q, "&") + "\n"
	for _, n := range names {
		canonical += n + ":" + lines[n] + "\n"
	}
	canonical += "\n" + strings.Join(names, ";") + "\nUNSIGNED-PAYLOAD"
	sum := sha256.Sum256([]byte(canonical))
	text := "GOOG4-RSA-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	digest := sha256.Sum256([]byte(text))
	b, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return "https://" + host + path + "?" + strings.Join(q, "&") + "&X-Goog-Signature=" + hex.EncodeToString(b)
}

func TestSignedURLs(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s, now := signer{key}, time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	server := New(Config{Signatures: s, Now: func() time.Time { return now }})
	const host = "storage.googleapis.com"
	good := func(method, path, query string, headers ...string) string {
		return s.sign(t, method, host, path, query, now, headers...)
	}
	replace := func(u, from, to string) string {
		if !strings.Contains(u, from) {
			t.Fatalf("%s has no %s", u, from)
		}
		return strings.Replace(u, from, to, 1)
	}
	get := good("GET", "/bucket/x", "")
	for _, row := range []struct {
		what, method, url string
		header            []string
		want              string // "" for the account, else the reason, or "none" where no signature is found
	}{
		{"a GET", "GET", get, nil, ""},
		{"with headers that nobody signed", "GET", get, []string{"Accept", "x", "Range", "bytes=0-1"}, ""},
		{"parameters in lower case", "GET", s.lower(t, now), nil, ""},
		{"a HEAD", "HEAD", good("HEAD", "/bucket/x", ""), nil, ""},
		{"a PUT", "PUT", good("PUT", "/bucket/x", "", "content-type", "a/b"), []string{"Content-Type", "a/b"}, ""},
		{"a DELETE", "DELETE", good("DELETE", "/bucket/x", ""), nil, ""},
		{"a resumable POST", "POST", good("POST", "/bucket/x", "", "x-goog-resumable", "start"), []string{"X-Goog-Resumable", "start"}, ""},
		{"a name with slashes and spaces", "GET", good("GET", "/bucket/a/b%20c%2Bd", ""), nil, ""},
		{"a query of its own", "GET", good("GET", "/bucket/x", "response-content-disposition=attachment%3B%20filename%3D%22a%20b%22"), nil, ""},
		{"a virtual host", "GET", s.sign(t, "GET", "bucket.storage.googleapis.com", "/x", "", now), nil, ""},
		{"a port", "GET", s.sign(t, "GET", "storage.googleapis.com:8443", "/bucket/x", "", now), nil, ""},
		{"the scheme's own port", "GET", replace(get, host, host+":443"), nil, ""},
		{"spaces in a header", "PUT", good("PUT", "/bucket/x", "", "x-goog-meta-a", "b c"), []string{"X-Goog-Meta-A", "  b   c "}, ""},
		{"another method", "PUT", get, nil, reasonMismatch},
		{"another object", "GET", replace(get, "/bucket/x", "/bucket/y"), nil, reasonMismatch},
		{"another bucket's host", "GET", replace(s.sign(t, "GET", "bucket.storage.googleapis.com", "/x", "", now), "bucket.", "other."), nil, reasonMismatch},
		{"a parameter more", "GET", get + "&generation=1", nil, reasonMismatch},
		{"a longer life", "GET", replace(get, "Expires=600", "Expires=6000"), nil, reasonMismatch},
		{"another account", "GET", replace(get, "signer", "other"), nil, reasonMismatch},
		{"another content type", "PUT", good("PUT", "/bucket/x", "", "content-type", "a/b"), []string{"Content-Type", "c/d"}, reasonMismatch},
		{"a signed header that is not there", "PUT", good("PUT", "/bucket/x", "", "content-type", "a/b"), nil, reasonMalformed},
		{"an x-goog header that nobody signed", "PUT", good("PUT", "/bucket/x", ""), []string{"X-Goog-Meta-A", "b"}, reasonMalformed},
		{"expired", "GET", s.sign(t, "GET", host, "/bucket/x", "", now.Add(-601*time.Second)), nil, reasonExpired},
		{"almost expired", "GET", s.sign(t, "GET", host, "/bucket/x", "", now.Add(-600*time.Second)), nil, ""},
		{"of the future", "GET", s.sign(t, "GET", host, "/bucket/x", "", now.Add(time.Hour)), nil, reasonSkewed},
		{"a clock that is a little ahead", "GET", s.sign(t, "GET", host, "/bucket/x", "", now.Add(time.Minute)), nil, ""},
		{"eight days", "GET", replace(get, "Expires=600", "Expires=691200"), nil, reasonMalformed},
		{"no time at all", "GET", replace(get, "Expires=600", "Expires=0"), nil, reasonMalformed},
		{"no date", "GET", replace(get, "X-Goog-Date=2", "X-Goog-Date="), nil, reasonMalformed},
		{"a scope of another day", "GET", replace(get, "%2F2026", "%2F2025"), nil, reasonMalformed},
		{"a scope of another service", "GET", replace(get, "storage%2Fgoog4", "run%2Fgoog4"), nil, reasonMalformed},
		{"host not signed", "GET", replace(get, "SignedHeaders=host", "SignedHeaders=accept"), nil, reasonMalformed},
		{"not hexadecimal", "GET", get[:len(get)-1] + "g", nil, reasonMalformed},
		{"twice", "GET", get + "&X-Goog-Date=20260304T050607Z", nil, reasonMalformed},
		{"too long", "GET", get + "&a=" + strings.Repeat("a", maxSigned), nil, reasonMalformed},
		{"HMAC", "GET", replace(get, "GOOG4-RSA", "GOOG4-HMAC"), nil, "UNIMPLEMENTED"},
		{"V2", "GET", "https://" + host + "/bucket/x?GoogleAccessId=a&Expires=1&Signature=b", nil, "UNIMPLEMENTED"},
		{"in a header", "GET", "https://" + host + "/bucket/x", []string{"Authorization", "GOOG4-HMAC-SHA256 Credential=a"}, "UNIMPLEMENTED"},
		{"a token beside it", "GET", get, []string{"Authorization", "Bearer x"}, "none"},
		{"the JSON API", "GET", replace(get, "/bucket/x", "/storage/v1/b/bucket/o/x"), nil, "none"},
		{"nothing", "GET", "https://" + host + "/bucket/x", nil, "none"},
	} {
		r := httptest.NewRequest(row.method, row.url, nil)
		for i := 0; i < len(row.header); i += 2 {
			r.Header.Set(row.header[i], row.header[i+1])
		}
		c, found, err := server.Credential(t.Context(), r)
		got := ""
		var f *fault.Error
		switch {
		case errors.As(err, &f) && f.Reason != "":
			got = f.Reason
		case err != nil:
			got = fault.From(err).Code.String()
		case !found:
			got = "none"
		case c.Member != "serviceAccount:"+signerEmail:
			got = "as " + c.Member
		}
		if got != row.want {
			t.Errorf("%s: %q (%v), want %q", row.what, got, err, row.want)
		}
	}
}

// lower signs as gcloud does, with parameters in lower case.
func (s signer) lower(t *testing.T, at time.Time) string {
	t.Helper()
	date := at.UTC().Format("20060102T150405Z")
	scope := date[:8] + "/europe-north1/storage/goog4_request"
	q := "x-goog-algorithm=GOOG4-RSA-SHA256&x-goog-credential=" + url.QueryEscape(signerEmail+"/"+scope) +
		"&x-goog-date=" + date + "&x-goog-expires=60&x-goog-signedheaders=host"
	sum := sha256.Sum256([]byte("GET\n/bucket/x\n" + q + "\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD"))
	digest := sha256.Sum256([]byte("GOOG4-RSA-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])))
	b, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return "https://storage.googleapis.com/bucket/x?x-goog-signature=" + hex.EncodeToString(b) + "&" + q
}

// An error about a signature is in the XML API's words, with what was signed.
func TestSignatureErrors(t *testing.T) {
	w := httptest.NewRecorder()
	e := fault.New(fault.PermissionDenied, "No match.")
	e.Reason, e.Metadata = reasonMismatch, map[string]string{"StringToSign": "a", "CanonicalRequest": "b"}
	writeXMLError(w, httptest.NewRequest("GET", "/bucket/x", nil), rest.NewFailure("", e))
	if want := "<Error><Code>SignatureDoesNotMatch</Code><Message>No match.</Message><StringToSign>a</StringToSign><CanonicalRequest>b</CanonicalRequest></Error>"; w.Code != http.StatusForbidden || !strings.HasSuffix(w.Body.String(), want) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func FuzzSignature(f *testing.F) {
	f.Add("X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=a%2F20260304%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20260304T050607Z&X-Goog-Expires=1&X-Goog-SignedHeaders=host&X-Goog-Signature=00")
	f.Add("x-goog-signature=%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err != nil {
			return
		}
		if again, err := parseQuery(q.canonical()); err != nil || again.canonical() != q.canonical() {
			t.Errorf("%q is %q, and that %q", raw, q.canonical(), again.canonical())
		}
		if sig, err := parseSignature(q); err == nil && (sig.expires < time.Second || sig.expires > maxExpires) {
			t.Errorf("%q lasts %s", raw, sig.expires)
		}
	})
}
