package storagejson

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	gcs "google.golang.org/api/storage/v1"

	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/storage"
	"giggle/store"
)

type host struct {
	*httptest.Server
	storage *storage.Storage
}

func serve(t *testing.T, change ...func(*Server, *store.Store)) *host {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), filepath.Join(dir, "state.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.New(t.Context(), storage.Options{
		Store: st,
		Blobs: blobs,
		Logs:  filepath.Join(dir, "logs"),
		Now:   time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := New(Config{
		Storage: s, Pages: resource.NewPages(make([]byte, 32), time.Now),
		Project: func(ref string) (resource.Project, error) {
			if ref != "proj-1" && ref != "123456789012" {
				return resource.Project{}, fault.New(fault.NotFound, "Project %q was not found.", ref)
			}
			return resource.Project{ID: "proj-1", Number: "123456789012"}, nil
		},
		Allow: func(_ context.Context, _, bucket, _ string) error {
			if bucket == "secret" {
				return fault.New(fault.PermissionDenied, "No.")
			}
			return nil
		},
	})
	for _, c := range change {
		c(server, st)
	}
	m := rest.NewMux("storage.googleapis.com", rest.Options{NewID: func() string { return "id" }, Errors: WriteError})
	server.Register(m)
	if err := m.Build(); err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Routes() {
		if _, ok := Rules[r.RPC]; !ok {
			t.Errorf("%s has no rule", r.RPC)
		}
	}
	h := &host{httptest.NewServer(m), s}
	t.Cleanup(h.Close)
	h.want(t, "POST", "/storage/v1/b?project=proj-1", `{"name":"bucket","location":"europe-north1"}`, 200)
	return h
}

// do sends one request; header is name, value, …
func (h *host) do(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = h.URL + path
	}
	req, err := http.NewRequest(method, path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// want sends a request and returns the fields of its JSON answer.
func (h *host) want(t *testing.T, method, path, body string, status int, header ...string) map[string]any {
	t.Helper()
	res, got := h.do(t, method, path, body, header...)
	if res.StatusCode != status {
		t.Fatalf("%s %s = %d, want %d: %s", method, path, res.StatusCode, status, got)
	}
	var out map[string]any
	if got != "" {
		if err := json.Unmarshal([]byte(got), &out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, got)
		}
	}
	return out
}

const o = "/storage/v1/b/bucket/o"

func (h *host) put(t *testing.T, name, content string) map[string]any {
	t.Helper()
	return h.want(t, "POST", "/upload"+o+"?uploadType=media&name="+name, content, 200, "Content-Type", "text/plain")
}

func TestBuckets(t *testing.T) {
	h := serve(t)
	b := h.want(t, "GET", "/storage/v1/b/bucket?alt=json", "", 200)
	if b["id"] != "bucket" || b["projectNumber"] != "123456789012" || b["location"] != "EUROPE-NORTH1" ||
		b["locationType"] != "region" {
		t.Errorf("bucket: %v", b)
	}
	// gcloud's own bucket for source deploys: settings are kept, what is off may be sent.
	h.want(t, "POST", "/storage/v1/b?enableObjectRetention=False&project=123456789012",
		`{"name":"run-sources","iamConfiguration":{"uniformBucketLevelAccess":{"enabled":true}},"cors":[{"method":["GET"]}],"versioning":{"enabled":false},"labels":{"a":"b"}}`, 200)
	b = h.want(t, "PATCH", "/storage/v1/b/run-sources", `{"labels":{"a":null,"c":"d"},"cors":null}`, 200)
	if fmt.Sprint(b["labels"]) != "map[c:d]" || b["cors"] != nil || b["metageneration"] != "2" ||
		fmt.Sprint(b["iamConfiguration"]) != "map[uniformBucketLevelAccess:map[enabled:true]]" {
		t.Errorf("patched: %v", b)
	}
	list := h.want(t, "GET", "/storage/v1/b?maxResults=1&project=proj-1", "", 200)
	items := list["items"].([]any)
	if len(items) != 1 || items[0].(map[string]any)["id"] != "bucket" || list["nextPageToken"] == nil {
		t.Errorf("list: %v", list)
	}
	next := h.want(t, "GET", "/storage/v1/b?maxResults=1&project=proj-1&fields=items/id,nextPageToken&pageToken="+
		list["nextPageToken"].(string), "", 200)
	if fmt.Sprint(next) != "map[items:[map[id:run-sources]]]" {
		t.Errorf("next: %v", next)
	}
	h.want(t, "GET", "/storage/v1/b?project=proj-1&prefix=x&pageToken="+list["nextPageToken"].(string), "", 400)
	h.put(t, "x", "1")
	for _, row := range []struct {
		method, path, body string
		status             int
		reason             string
	}{
		{"GET", "/storage/v1/b/nosuch", "", 404, "notFound"},
		{"GET", "/storage/v1/b?project=other", "", 404, "notFound"},
		{"POST", "/storage/v1/b?project=proj-1", `{"name":"bucket"}`, 409, "conflict"},
		{"POST", "/storage/v1/b?project=proj-1", `{"name":"Bad_"}`, 400, "invalid"},
		{"POST", "/storage/v1/b?project=proj-1", `{"name":"with-lifecycle","lifecycle":{"rule":[{"action":{"type":"Delete"}}]}}`, 405, "notImplemented"},
		{"POST", "/storage/v1/b?project=proj-1", `{"name":1}`, 400, "invalid"},
		{"DELETE", "/storage/v1/b/bucket", "", 409, "conflict"},
		{"GET", "/storage/v1/b/bucket?ifMetagenerationMatch=9", "", 412, "conditionNotMet"},
		{"DELETE", "/storage/v1/b/bucket?ifMetagenerationMatch=9", "", 412, "conditionNotMet"},
		{"GET", "/storage/v1/b/bucket/iam", "", 405, "notImplemented"},
		{"POST", "/storage/v1/unknown", "", 404, "notFound"},
		{"GET", "/storage/v1/b/bucket/unknown", "", 404, "notFound"},
		{"GET", "/storage/v1/b/bucket/managedFolders", "", 200, ""},
		{"GET", "/storage/v1/b/nosuch/managedFolders", "", 404, "notFound"},
	} {
		res, body := h.do(t, row.method, row.path, row.body)
		var e errorBody
		if err := json.Unmarshal([]byte(body), &e); err != nil || res.StatusCode != row.status {
			t.Errorf("%s %s = %d %s, want %d", row.method, row.path, res.StatusCode, body, row.status)
		} else if row.reason != "" &&
			(len(e.Error.Errors) != 1 || e.Error.Errors[0].Reason != row.reason || e.Error.Code != row.status) {
			t.Errorf("%s %s: %s", row.method, row.path, body)
		}
	}
	h.want(t, "DELETE", o+"/x", "", 204)
	h.want(t, "DELETE", "/storage/v1/b/bucket", "", 204)
}

func TestMultipart(t *testing.T) {
	h := serve(t)
	const boundary = "===============7330845974216740156=="
	body := "--" + boundary + "\r\nContent-Type: application/json\r\nMIME-Version: 1.0\r\n\r\n{\"size\":\"5\",\"metadata\":{\"k\":\"v\"}}\r\n--" + boundary +
		"\r\nContent-Type: application/zip\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\n\r\nhello\r\n--" + boundary + "--"
	up := "/upload" + o + "?name=services%2Fjokes%2F1.zip&uploadType=multipart"
	for _, quoted := range []string{"'" + boundary + "'", `"` + boundary + `"`} {
		got := h.want(t, "POST", up, body, 200, "Content-Type", "multipart/related; boundary="+quoted)
		if got["name"] != "services/jokes/1.zip" || got["size"] != "5" ||
			got["md5Hash"] != "XUFAKrxLKna5cZ2REBfFkg==" || got["crc32c"] != "mnG7TA==" ||
			got["contentType"] != "application/zip" {
			t.Errorf("%s: %v", quoted, got)
		}
	}
	ct := "multipart/related; boundary='" + boundary + "'"
	for name, bad := range map[string][2]string{
		"cut off":        {ct, body[:len(body)-20]},
		"one part":       {ct, body[:strings.LastIndex(body, "--"+boundary+"\r\n")] + "--" + boundary + "--"},
		"three parts":    {ct, strings.TrimSuffix(body, "--") + "\r\n\r\nx\r\n--" + boundary + "--"},
		"no boundary":    {"multipart/related", body},
		"bad metadata":   {ct, strings.Replace(body, "{", "[", 1)},
		"wrong hash":     {ct, strings.Replace(body, `"size":"5"`, `"md5Hash":"AAAAAAAAAAAAAAAAAAAAAA=="`, 1)},
		"wrong crc":      {ct, strings.Replace(body, `"size":"5"`, `"crc32c":"AAAAAA=="`, 1)},
		"no hash at all": {ct, strings.Replace(body, `"size":"5"`, `"crc32c":"!"`, 1)},
	} {
		if res, got := h.do(t, "POST", strings.Replace(up, "jokes", "bad", 1), bad[1], "Content-Type",
			bad[0]); res.StatusCode != 400 {
			t.Errorf("%s: %d %s", name, res.StatusCode, got)
		}
	}
	h.want(t, "GET", o+"/services%2Fbad%2F1.zip", "", 404)
}

// TestResumableByHand follows gcloud: begin below /resumable/upload, then PUT pieces.
func TestResumableByHand(t *testing.T) {
	h := serve(t)
	content := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB
	total := len(content)
	res, body := h.do(t, "POST", "/resumable/upload"+o+"?name=source%2Fa.tgz&uploadType=resumable&alt=json",
		`{"metadata":{"k":"v"}}`,
		"X-Upload-Content-Type", "application/x-tar", "X-Upload-Content-Length", fmt.Sprint(total))
	at := res.Header.Get("Location")
	if res.StatusCode != 200 || !strings.HasPrefix(at, h.URL+"/resumable/upload/storage/v1/b/bucket/o?") {
		t.Fatal(res.StatusCode, at, body)
	}
	put := func(first, last int, status int, wantRange string) string {
		t.Helper()
		res, body := h.do(t, "PUT", at, content[first:last+1], "Content-Range",
			fmt.Sprintf("bytes %d-%d/%d", first, last, total))
		if res.StatusCode != status || res.Header.Get("Range") != wantRange {
			t.Errorf("piece %d-%d: %d %q %s", first, last, res.StatusCode, res.Header.Get("Range"), body)
		}
		return body
	}
	ask := func(header string, status int, wantRange string) {
		t.Helper()
		res, body := h.do(t, "PUT", at, "", "Content-Range", header)
		if res.StatusCode != status || res.Header.Get("Range") != wantRange {
			t.Errorf("%s: %d %q %s", header, res.StatusCode, res.Header.Get("Range"), body)
		}
	}
	ask("bytes */*", 308, "")
	put(0, 262143, 308, "bytes=0-262143")
	put(524288, 786431, 308, "bytes=0-262143") // a gap
	put(131072, 524287, 308, "bytes=0-524287") // half of it again
	ask(fmt.Sprintf("bytes */%d", total), 308, "bytes=0-524287")
	if res, _ := h.do(t, "PUT", at, content[:10], "Content-Range",
		fmt.Sprintf("bytes 524288-524290/%d", total)); res.StatusCode != 400 {
		t.Errorf("a body longer than its range: %d", res.StatusCode)
	}
	ask("bytes */*", 308, "bytes=0-524290")
	if res, _ := h.do(t, "PUT", at, "", "Content-Range", "bytes 5-4/9"); res.StatusCode != 400 {
		t.Errorf("a nonsense range: %d", res.StatusCode)
	}
	last := put(524291, total-1, 200, "")
	if again := put(524291, total-1, 200, ""); again != last {
		t.Errorf("the last piece again:\n%s\n%s", again, last)
	}
	if _, got := h.do(t, "GET", "/download"+o+"/source%2Fa.tgz?alt=media", ""); got != content {
		t.Errorf("got %d bytes back", len(got))
	}
	if got := h.want(t, "GET", o+"/source%2Fa.tgz", "", 200); got["contentType"] != "application/x-tar" ||
		fmt.Sprint(got["metadata"]) != "map[k:v]" {
		t.Errorf("object: %v", got)
	}

	res, _ = h.do(t, "POST", "/upload"+o+"?name=unknown&uploadType=resumable", "")
	at, total = res.Header.Get("Location"), 20
	for _, p := range []string{"bytes 0-9/*", "bytes 10-19/*"} {
		if res, _ := h.do(t, "PUT", at, content[:10], "Content-Range", p); res.StatusCode != 308 {
			t.Errorf("%s: %d", p, res.StatusCode)
		}
	}
	ask("bytes */20", 200, "")

	res, _ = h.do(t, "POST", "/upload"+o+"?name=whole&uploadType=resumable", "")
	if res, body := h.do(t, "PUT", res.Header.Get("Location"), "at once"); res.StatusCode != 200 {
		t.Errorf("without Content-Range: %d %s", res.StatusCode, body)
	}
	res, _ = h.do(t, "POST", "/upload"+o+"?name=empty&uploadType=resumable", "", "X-Upload-Content-Length", "0")
	if res, body := h.do(t, "PUT", res.Header.Get("Location"), "", "Content-Range",
		"bytes */0"); res.StatusCode != 200 {
		t.Errorf("empty: %d %s", res.StatusCode, body)
	}
	res, _ = h.do(t, "POST", "/upload"+o+"?name=dropped&uploadType=resumable", "")
	at = res.Header.Get("Location")
	if res, _ := h.do(t, "DELETE", at, ""); res.StatusCode != 499 {
		t.Errorf("cancel: %d", res.StatusCode)
	}
	if res, _ := h.do(t, "PUT", at, "x"); res.StatusCode != 410 {
		t.Errorf("after the cancel: %d", res.StatusCode)
	}
	if res, _ := h.do(t, "PUT", "/upload"+o+"?uploadType=resumable&upload_id=../../x", "x"); res.StatusCode != 410 {
		t.Errorf("a hostile id: %d", res.StatusCode)
	}
}

// TestLogTail is what gcloud does once a second while a build runs.
func TestLogTail(t *testing.T) {
	h := serve(t)
	const path = "/bucket/logs/log-1.txt"
	tail := func(from, status int, want string) {
		t.Helper()
		res, body := h.do(t, "GET", path, "", "Range", fmt.Sprintf("bytes=%d-", from))
		if res.StatusCode != status || status == 206 && body != want {
			t.Errorf("from %d: %d %q, want %d %q", from, res.StatusCode, body, status, want)
		}
	}
	tail(0, 404, "")
	l, err := h.storage.CreateLog(t.Context(), storage.Insert{
		Bucket: "bucket",
		Name:   "logs/log-1.txt",
		Attrs:  storage.Attrs{ContentType: "text/plain"},
	})
	if err != nil {
		t.Fatal(err)
	}
	tail(0, 416, "")
	if _, err := io.WriteString(l, "one\n"); err != nil {
		t.Fatal(err)
	}
	tail(0, 206, "one\n")
	tail(4, 416, "")
	if _, err := io.WriteString(l, "two\n"); err != nil {
		t.Fatal(err)
	}
	tail(4, 206, "two\n")
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	tail(6, 206, "o\n")
	tail(8, 416, "")
	if res, body := h.do(t, "GET", path, ""); res.StatusCode != 200 || body != "one\ntwo\n" {
		t.Errorf("whole: %d %q", res.StatusCode, body)
	}
	res, body := h.do(t, "GET", "/nosuch/x", "")
	if res.StatusCode != 404 || !strings.Contains(body, "<Error><Code>NoSuchBucket</Code>") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestObjects(t *testing.T) {
	h := serve(t)
	first := h.put(t, "dir%2Fa%20b", "hello world")
	obj := o + "/dir%2Fa%20b"
	for _, row := range []struct {
		method, path, body string
		status             int
		want               string
		header             []string
	}{
		{"GET", obj + "?alt=media", "", 200, "hello world", nil},
		{"GET", obj + "?alt=media", "", 206, "world", []string{"Range", "bytes=6-"}},
		{"GET", obj + "?alt=media", "", 206, "ld", []string{"Range", "bytes=-2"}},
		{"GET", obj + "?alt=media", "", 416, "", []string{"Range", "bytes=11-"}},
		{"GET", "/bucket/dir/a%20b", "", 200, "hello world", nil},
		{"HEAD", "/bucket/dir/a%20b", "", 200, "", nil},
		{"GET", obj + "?generation=1", "", 404, "", nil},
		{"GET", obj + "?generation=x", "", 400, "", nil},
		{"GET", obj + "?ifGenerationMatch=1", "", 412, "", nil},
		{"GET", obj + "?ifGenerationNotMatch=" + first["generation"].(string), "", 304, "", nil},
		{"DELETE", obj + "?ifGenerationMatch=1", "", 412, "", nil},
		{"GET", o + "/none", "", 404, "", nil},
		{"POST", "/upload" + o + "?uploadType=media&name=dir%2Fa%20b&ifGenerationMatch=0", "x", 412, "", nil},
		{"POST", "/upload" + o + "?uploadType=other&name=x", "x", 400, "", nil},
		{"POST", "/upload" + o + "?uploadType=media", "x", 400, "", nil},
		{"POST", "/upload/storage/v1/b/nosuch/o?uploadType=media&name=x", "x", 404, "", nil},
		{"PATCH", obj, `{"acl":[{"entity":"allUsers"}]}`, 405, "", nil},
		{"POST", o + "/none/rewriteTo/b/bucket/o/x", "", 404, "", nil},
		{"POST", "/storage/v1/b/secret/o/s/rewriteTo/b/bucket/o/x", "", 403, "", nil},
		{"GET", o + "?matchGlob=[", "", 400, "", nil},
	} {
		res, body := h.do(t, row.method, row.path, row.body, row.header...)
		if res.StatusCode != row.status || row.want != "" && body != row.want {
			t.Errorf("%s %s %v = %d %q, want %d %q", row.method, row.path, row.header, res.StatusCode, body, row.status,
				row.want)
		}
	}
	res, _ := h.do(t, "GET", obj+"?alt=media", "")
	if got := res.Header.Values("X-Goog-Hash"); len(got) != 2 || got[0] != "crc32c="+first["crc32c"].(string) ||
		res.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("headers: %v", res.Header)
	}
	h.want(t, "PATCH", obj, `{"contentType":"text/html","metadata":{"a":"1","b":"2"}}`, 200)
	p := h.want(t, "PATCH", obj, `{"metadata":{"a":null}}`, 200)
	if fmt.Sprint(p["metadata"]) != "map[b:2]" || p["contentType"] != "text/html" || p["metageneration"] != "3" {
		t.Errorf("patched: %v", p)
	}
	rw := h.want(t, "POST", obj+"/rewriteTo/b/bucket/o/copy%2F1", "", 200)
	if r := rw["resource"].(map[string]any); rw["done"] != true || r["name"] != "copy/1" ||
		r["contentType"] != "text/html" {
		t.Errorf("rewrite: %v", rw)
	}
	h.put(t, "p1", "one ")
	c := h.want(t, "POST", o+"/sum/compose",
		`{"kind":"storage#composeRequest","destination":{"contentType":"text/plain","crc32c":"AAAAAA=="},"sourceObjects":[{"name":"p1"},{"name":"p1"}]}`, 200)
	if c["size"] != "8" || c["componentCount"] != float64(2) || c["md5Hash"] != nil {
		t.Errorf("compose: %v", c)
	}
	list := h.want(t, "GET", o+"?delimiter=/&maxResults=2&fields=prefixes,items(name),nextPageToken", "", 200)
	if fmt.Sprint(list["prefixes"]) != "[copy/ dir/]" || list["items"] != nil {
		t.Errorf("list: %v", list)
	}
	list = h.want(t, "GET", o+"?delimiter=/&maxResults=2&fields=prefixes,items(name),nextPageToken&pageToken="+
		list["nextPageToken"].(string), "", 200)
	if fmt.Sprint(list) != "map[items:[map[name:p1] map[name:sum]]]" {
		t.Errorf("list: %v", list)
	}
}

// TestCompression: in flight it is no property of the object, at rest it is undone for who does not know it.
func TestCompression(t *testing.T) {
	h := serve(t)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "hello")
	_ = z.Close()
	got := h.want(t, "POST", "/upload"+o+"?uploadType=media&name=flight", zipped.String(), 200, "Content-Encoding",
		"gzip")
	if got["size"] != "5" || got["contentEncoding"] != nil {
		t.Errorf("in flight: %v", got)
	}
	res, _ := h.do(t, "POST", "/upload"+o+"?name=pieces&uploadType=resumable", "", "X-Upload-Content-Length", "5")
	got = h.want(t, "PUT", res.Header.Get("Location"), zipped.String(), 200, "Content-Encoding", "gzip",
		"Content-Range", "bytes 0-4/5")
	if got["size"] != "5" {
		t.Errorf("a piece: %v", got)
	}
	h.want(t, "POST", "/upload"+o+"?uploadType=media&name=bad", "no gzip", 400, "Content-Encoding", "gzip")
	h.want(t, "POST", "/upload"+o+"?uploadType=media&name=rest&contentEncoding=gzip", zipped.String(), 200)
	if res, body := h.do(t, "GET", "/bucket/rest", "", "Accept-Encoding", "identity"); body != "hello" ||
		res.Header.Get("Content-Encoding") != "" {
		t.Errorf("undone: %q %v", body, res.Header)
	}
	if res, body := h.do(t, "GET", "/bucket/rest", "", "Accept-Encoding", "gzip"); body != zipped.String() ||
		res.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("as stored: %q %v", body, res.Header)
	}
}

// TestGoogleClient drives Google's own Go client, whose uploads are multipart and resumable in pieces.
func TestGoogleClient(t *testing.T) {
	h := serve(t)
	c, err := gcs.NewService(t.Context(), option.WithEndpoint(h.URL+"/storage/v1/"), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 3<<20)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(big)
	for name, content := range map[string][]byte{"small": []byte("small"), "big": big, "empty": {}} {
		o, err := c.Objects.Insert("bucket", &gcs.Object{Name: "go/" + name}).Media(bytes.NewReader(content),
			googleapi.ChunkSize(256<<10)).Do()
		if err != nil || o.Size != uint64(len(content)) {
			t.Fatalf("%s: %+v %v", name, o, err)
		}
		res, err := c.Objects.Get("bucket", "go/"+name).Download()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	_, err = c.Objects.Get("bucket", "nosuch").Do()
	if ge, ok := err.(*googleapi.Error); !ok || ge.Code != 404 || len(ge.Errors) != 1 ||
		ge.Errors[0].Reason != "notFound" {
		t.Errorf("error: %#v", err)
	}
}

func FuzzRelated(f *testing.F) {
	f.Add("multipart/related; boundary='b'", "--b\r\n\r\n{}\r\n--b\r\nContent-Type: x\r\n\r\ndata\r\n--b--")
	f.Add(`multipart/related; boundary="=="`, "--==\r\n\r\n{}")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		r, err := readRelated(contentType, strings.NewReader(body))
		if err == nil {
			_, err = io.ReadAll(r.data)
			if len(r.metadata) > maxMetadata {
				t.Errorf("metadata of %d bytes", len(r.metadata))
			}
			if _, e := parseObjectBody(r.metadata); e != nil && !fault.Is(e, fault.InvalidArgument) &&
				!fault.Is(e, fault.Unimplemented) {
				t.Errorf("metadata: %v", e)
			}
		}
		if err != nil && !fault.Is(err, fault.InvalidArgument) && !fault.Is(err, fault.Unimplemented) {
			t.Errorf("%q %q: %v", contentType, body, err)
		}
	})
}

// The forms of Content-Range that Google's libraries send
// (https://cloud.google.com/storage/docs/performing-resumable-uploads; for * in the place of the last byte its libraries
// for Node.js and Java).
func TestPieces(t *testing.T) {
	for v, want := range map[string]*piece{
		"":                                 {size: -1, total: 7},
		"bytes 0-9/10":                     {first: 0, size: 10, total: 10},
		"bytes 0-9/*":                      {first: 0, size: 10, total: -1},
		"bytes 10-19/20":                   {first: 10, size: 10, total: 20},
		"bytes 0-*/*":                      {first: 0, size: -1, total: -1},
		"bytes 262144-*/*":                 {first: 262144, size: -1, total: -1},
		"bytes 0-*/10":                     {first: 0, size: -1, total: 10},
		"bytes 10-*/10":                    {first: 10, size: -1, total: 10},
		"bytes */*":                        {query: true, total: -1},
		"bytes */10":                       {query: true, total: 10},
		"bytes */0":                        {query: true, total: 0},
		" bytes 0-0/1 ":                    {first: 0, size: 1, total: 1},
		"bytes 5-4/9":                      nil,
		"bytes 0-9/9":                      nil,
		"bytes 11-*/10":                    nil,
		"bytes *-9/10":                     nil,
		"bytes 0-9":                        nil,
		"0-9/10":                           nil,
		"bytes -1-9/10":                    nil,
		"bytes 0-9/9999999999999999999999": nil,
	} {
		p, err := parsePiece(http.Header{"Content-Range": {v}}, 7)
		if want == nil && err == nil || want != nil && (err != nil || p != *want) {
			t.Errorf("%q = %+v, %v, want %+v", v, p, err, want)
		}
	}
}

func FuzzPiece(f *testing.F) {
	f.Add("bytes 0-9/10", int64(10))
	f.Add("bytes */*", int64(0))
	f.Fuzz(func(t *testing.T, v string, length int64) {
		p, err := parsePiece(http.Header{"Content-Range": {v}}, length)
		if err == nil && !p.query && p.size >= 0 &&
			(p.size == 0 || p.first < 0 || p.total >= 0 && p.first+p.size > p.total) {
			t.Errorf("%q = %+v", v, p)
		}
	})
}
