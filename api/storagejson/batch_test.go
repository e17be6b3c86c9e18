package storagejson

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"giggle/rest"
)

// https://cloud.google.com/storage/docs/batch#example
func TestBatch(t *testing.T) {
	h := serve(t)
	for i := range 3 {
		h.put(t, fmt.Sprint("x", i), "1")
	}
	const kind = "multipart/mixed; boundary=\"===b==\""
	part := func(id int, call string) string {
		return fmt.Sprintf("--===b==\r\nContent-Type: application/http\r\nContent-ID: <a+%d>\r\n\r\n%s\r\n", id, call)
	}
	status := regexp.MustCompile(`HTTP/1\.1 (\d+)`)
	for _, row := range []struct {
		what  string
		calls []string
		want  string // the status of each
	}{
		{"reads", []string{"GET " + o + "/x0 HTTP/1.1\r\n\r\n", "GET " + o + "/none\r\n\r\n"}, "200 404"},
		{"an absolute URL", []string{"GET https://storage.googleapis.com" + o + "/x0 HTTP/1.1\r\n\r\n"}, "200"},
		{"a patch", []string{"PATCH " + o + "/x0\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{\"metadata\":{\"k\":\"v\"}}\r\n"}, "200"},
		{"a bad patch", []string{"PATCH " + o + "/x0\r\nContent-Type: application/json\r\n\r\n{\"metadat\":{}}\r\n"}, "400"},
		{"deletes", []string{"DELETE " + o + "/x1 HTTP/1.1\r\n\r\n", "DELETE " + o + "/x1 HTTP/1.1\r\n\r\n",
			"DELETE " + o + "/x2?ifGenerationMatch=1\r\n\r\n"}, "204 404 412"},
		{"a rewrite", []string{"POST " + o + "/x0/rewriteTo/b/bucket/o/y HTTP/1.1\r\n\r\n"}, "200"},
		{"a bucket", []string{"GET /storage/v1/b/bucket\r\n\r\n"}, "200"},
		{"an upload", []string{"POST /upload" + o + "?uploadType=media&name=z\r\n\r\nx", "GET " + o + "/x0\r\n\r\n"}, "400 200"},
		{"a download", []string{"GET " + o + "/x0?alt=media\r\n\r\n"}, "400"},
		{"another path", []string{"GET /bucket/x0\r\n\r\n"}, "400"},
		{"a batch", []string{"POST /batch/storage/v1\r\n\r\n"}, "400"},
		{"no request", []string{"hello\r\n\r\n"}, "400"},
		{"nothing", []string{""}, "400"},
	} {
		var body strings.Builder
		for i, c := range row.calls {
			body.WriteString(part(i, c))
		}
		res, got := h.do(t, "POST", "/batch/storage/v1", body.String()+"--===b==--\r\n", "Content-Type", kind)
		var have []string
		for _, m := range status.FindAllStringSubmatch(got, -1) {
			have = append(have, m[1])
		}
		if res.StatusCode != 200 || strings.Join(have, " ") != row.want {
			t.Errorf("%s: %d %v, want %s\n%s", row.what, res.StatusCode, have, row.want, got)
		}
		for i := range row.calls {
			if !strings.Contains(got, fmt.Sprintf("Content-Id: <response-a+%d>", i)) {
				t.Errorf("%s: the answer to %d has no id: %s", row.what, i, got)
			}
		}
	}
	many := strings.Repeat(part(1, "GET "+o+"/x0\r\n\r\n"), maxBatch+1)
	for what, bad := range map[string][2]string{
		"too many":     {kind, many + "--===b==--\r\n"},
		"too large":    {kind, part(1, "GET "+o+"/x0\r\n\r\n"+strings.Repeat("x", maxBatchBytes)) + "--===b==--\r\n"},
		"cut off":      {kind, part(1, "GET "+o+"/x0\r\n\r\n")},
		"no parts":     {kind, "--===b==--\r\n"},
		"no boundary":  {"multipart/mixed", part(1, "GET "+o+"/x0\r\n\r\n") + "--===b==--\r\n"},
		"another kind": {"application/json", "{}"},
	} {
		if res, body := h.do(t, "POST", "/batch/storage/v1", bad[1], "Content-Type", bad[0]); res.StatusCode != 400 {
			t.Errorf("%s: %d %.300s", what, res.StatusCode, body)
		}
	}
}

func FuzzBatch(f *testing.F) {
	f.Add("multipart/mixed; boundary=b", []byte("--b\r\nContent-Type: application/http\r\n\r\nGET /storage/v1/b HTTP/1.1\r\nA: b\r\n\r\n\r\n--b--"))
	f.Add("multipart/mixed; boundary=b", []byte("--b\r\nContent-Type: application/http\r\n\r\nGET https://x/storage/v1/../../x\r\n--b--"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r := httptest.NewRequest("POST", "https://storage.googleapis.com/batch/storage/v1", bytes.NewReader(body))
		r.Header.Set("Content-Type", kind)
		calls, err := readBatch(&rest.Request{Request: r})
		if err == nil && (len(calls) == 0 || len(calls) > maxBatch) {
			t.Errorf("%d calls", len(calls))
		}
		for _, c := range calls {
			if c.err == nil && (c.request.Host != r.Host || !strings.HasPrefix(c.request.URL.Path, "/storage/v1/")) {
				t.Errorf("a call of %s%s", c.request.Host, c.request.URL.Path)
			}
		}
	})
}
