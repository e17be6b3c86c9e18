package storagejson

import (
	"fmt"
	"strings"
	"testing"
)

// https://cloud.google.com/storage/docs/request-preconditions: which request each condition lets through.
func TestPreconditions(t *testing.T) {
	h := serve(t)
	const bad, upload = "1", "/upload" + o + "?uploadType=media&name="
	type row struct {
		method, path, body string
		status             int
	}
	run := func(rows ...row) {
		t.Helper()
		x := h.put(t, "x", "x")
		h.put(t, "y", "y")
		for _, r := range rows {
			r.path = strings.ReplaceAll(r.path, "GEN", x["generation"].(string))
			if res, body := h.do(t, r.method, r.path, r.body); res.StatusCode != r.status {
				t.Errorf("%s %s = %d %s, want %d", r.method, r.path, res.StatusCode, body, r.status)
			}
		}
	}
	run(
		row{"GET", o + "/x?ifGenerationMatch=" + bad, "", 412},
		row{"GET", o + "/x?ifGenerationMatch=GEN", "", 200},
		row{"GET", o + "/x?ifGenerationNotMatch=GEN", "", 304},
		row{"GET", o + "/x?alt=media&ifMetagenerationMatch=2", "", 412},
		row{"GET", o + "/x?alt=media&ifMetagenerationNotMatch=1", "", 304},
		row{"GET", o + "/none?ifGenerationMatch=0", "", 404},
		row{"GET", "/download" + o + "/x?alt=media&ifGenerationMatch=" + bad, "", 412},
		row{"PATCH", o + "/x?ifMetagenerationMatch=7", "{}", 412},
		row{"PUT", o + "/x?ifGenerationMatch=" + bad, "{}", 412},
		row{"DELETE", o + "/x?ifMetagenerationMatch=7", "", 412},
		row{"DELETE", o + "/x?ifGenerationNotMatch=GEN", "", 412},
		row{"POST", upload + "x&ifGenerationMatch=0", "x", 412},
		row{"POST", upload + "x&ifGenerationNotMatch=GEN", "x", 412},
		row{"POST", upload + "x&ifMetagenerationMatch=7", "x", 412},
		row{"POST", upload + "new&ifGenerationMatch=0", "x", 200},
		row{"POST", o + "/x/rewriteTo/b/bucket/o/z?ifSourceGenerationMatch=" + bad, "", 412},
		row{"POST", o + "/x/rewriteTo/b/bucket/o/z?ifSourceGenerationNotMatch=GEN", "", 412},
		row{"POST", o + "/x/rewriteTo/b/bucket/o/y?ifGenerationMatch=0", "", 412},
		row{"POST", o + "/x/copyTo/b/bucket/o/z?ifSourceMetagenerationMatch=9", "", 412},
		row{"POST", o + "/x/copyTo/b/bucket/o/z?sourceGeneration=1", "", 404},
		row{"POST", o + "/z/compose", `{"sourceObjects":[{"name":"x","objectPreconditions":{"ifGenerationMatch":"1"}}]}`, 412},
		row{"POST", o + "/y/compose?ifGenerationMatch=0", `{"sourceObjects":[{"name":"x"}]}`, 412},
		row{"POST", o + "/x/moveTo/o/z?ifSourceGenerationMatch=1", "", 412},
		row{"POST", o + "/x/moveTo/o/y?ifGenerationMatch=0", "", 412},
		row{"POST", o + "/x/moveTo/o/z?ifSourceGenerationMatch=GEN&ifGenerationMatch=0", "", 200},
		row{"GET", o + "/x", "", 404},
		row{"GET", "/storage/v1/b/bucket?ifMetagenerationNotMatch=1", "", 304},
		row{"PATCH", "/storage/v1/b/bucket?ifMetagenerationMatch=9", "{}", 412},
	)
}

// https://cloud.google.com/storage/docs/data-validation: what doesn't match the client's sums isn't stored.
func TestChecksums(t *testing.T) {
	h := serve(t)
	const md5, crc = "XUFAKrxLKna5cZ2REBfFkg==", "mnG7TA==" // of "hello"
	const zero, none = "AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAA=="
	for _, row := range []struct {
		what, header, value string
		status              int
	}{
		{"md5", "X-Goog-Hash", "md5=" + md5, 200},
		{"crc32c", "X-Goog-Hash", "crc32c=" + crc, 200},
		{"both", "X-Goog-Hash", "crc32c=" + crc + ",md5=" + md5, 200},
		{"with spaces", "X-Goog-Hash", "crc32c=" + crc + ", md5=" + md5, 200},
		{"wrong md5", "X-Goog-Hash", "md5=" + zero, 400},
		{"wrong crc32c", "X-Goog-Hash", "crc32c=" + none, 400},
		{"the second wrong", "X-Goog-Hash", "crc32c=" + crc + ",md5=" + zero, 400},
		{"not base64", "X-Goog-Hash", "md5=!", 400},
		{"too short", "X-Goog-Hash", "crc32c=AA==", 400},
		{"content-md5", "Content-MD5", md5, 200},
		{"wrong content-md5", "Content-MD5", zero, 400},
	} {
		name := strings.ReplaceAll(row.what, " ", "-")
		res, body := h.do(t, "POST", "/upload"+o+"?uploadType=media&name="+name, "hello", row.header, row.value)
		if res.StatusCode != row.status {
			t.Errorf("%s: %d %s, want %d", row.what, res.StatusCode, body, row.status)
		}
		// At the end of a resumable upload, when all is known.
		res, _ = h.do(t, "POST", "/upload"+o+"?uploadType=resumable&name=r-"+name, "")
		res, body = h.do(t, "PUT", res.Header.Get("Location"), "hello", "Content-Range", "bytes 0-4/5", row.header,
			row.value)
		if res.StatusCode != row.status {
			t.Errorf("%s, resumable: %d %s, want %d", row.what, res.StatusCode, body, row.status)
		}
		for _, n := range []string{name, "r-" + name} {
			want := 404
			if row.status == 200 {
				want = 200
			}
			if res, _ := h.do(t, "GET", o+"/"+n, ""); res.StatusCode != want {
				t.Errorf("%s: GET %s = %d, want %d", row.what, n, res.StatusCode, want)
			}
		}
	}
}

func TestVersionsAndSoftDelete(t *testing.T) {
	h := serve(t)
	names := func(query string) string {
		t.Helper()
		list := h.want(t, "GET", o+"?"+query, "", 200)
		var out []string
		items, _ := list["items"].([]any)
		for _, i := range items {
			item := i.(map[string]any)
			state := fmt.Sprint(item["name"])
			for name, mark := range map[string]string{"timeDeleted": "-", "softDeleteTime": "~"} {
				if item[name] != nil {
					state += mark
				}
			}
			out = append(out, state)
		}
		return strings.Join(out, " ")
	}
	b := h.want(t, "GET", "/storage/v1/b/bucket", "", 200)
	if p := b["softDeletePolicy"].(map[string]any); p["retentionDurationSeconds"] != "604800" ||
		p["effectiveTime"] == nil || b["versioning"] != nil {
		t.Errorf("a new bucket: %v", b)
	}
	old := h.put(t, "x", "old")["generation"].(string)
	h.want(t, "DELETE", o+"/x", "", 204)
	if got := names("softDeleted=true"); !strings.HasPrefix(got, "x") || !strings.Contains(got, "~") {
		t.Errorf("soft-deleted: %q", got)
	}
	h.want(t, "GET", o+"/x?generation="+old, "", 404)
	h.want(t, "GET", o+"/x?softDeleted=true", "", 400)
	soft := h.want(t, "GET", o+"/x?softDeleted=true&generation="+old, "", 200)
	if soft["softDeleteTime"] == nil || soft["hardDeleteTime"] == nil {
		t.Errorf("soft-deleted: %v", soft)
	}
	h.want(t, "POST", o+"/x/restore", "", 400)
	h.want(t, "POST", o+"/x/restore?generation=1", "", 404)
	h.want(t, "POST", o+"/x/restore?ifGenerationMatch=5&generation="+old, "", 412)
	back := h.want(t, "POST", o+"/x/restore?ifGenerationMatch=0&generation="+old, "", 200)
	if back["generation"] == old || back["size"] != "3" || back["softDeleteTime"] != nil {
		t.Errorf("restored: %v", back)
	}
	b = h.want(t, "PATCH", "/storage/v1/b/bucket",
		`{"versioning":{"enabled":true},"softDeletePolicy":{"retentionDurationSeconds":0}}`, 200)
	if fmt.Sprint(b["versioning"], b["softDeletePolicy"]) != "map[enabled:true] map[retentionDurationSeconds:0]" {
		t.Errorf("patched: %v", b)
	}
	h.put(t, "x", "newer")
	h.put(t, "y", "1")
	if got := names("versions=true"); got != "x- x y" {
		t.Errorf("versions: %q", got)
	}
	if got := names(""); got != "x y" {
		t.Errorf("live: %q", got)
	}
	gen := back["generation"].(string)
	if _, body := h.do(t, "GET", o+"/x?alt=media&generation="+gen, ""); body != "old" {
		t.Errorf("a noncurrent object: %q", body)
	}
	if p := h.want(t, "PATCH", o+"/x?generation="+gen, `{"metadata":{"k":"v"}}`, 200); p["metageneration"] != "2" ||
		p["timeDeleted"] == nil {
		t.Errorf("a noncurrent object patched: %v", p)
	}
	h.want(t, "POST", o+"/x/rewriteTo/b/bucket/o/x?sourceGeneration="+gen, "", 200)
	if got := names("versions=true&matchGlob=x"); got != "x- x- x" {
		t.Errorf("versions: %q", got)
	}
	h.want(t, "DELETE", o+"/x?generation="+gen, "", 204)
	h.want(t, "GET", o+"/x?generation="+gen, "", 404)
	h.want(t, "GET", o+"?versions=true&softDeleted=true", "", 400)
}

func TestWhatAPatchTakesAway(t *testing.T) {
	h := serve(t)
	h.want(t, "PATCH", "/storage/v1/b/bucket", `{"storageClass":"NEARLINE"}`, 200)
	if x := h.put(t, "x", "1"); x["storageClass"] != "NEARLINE" {
		t.Errorf("an object in a bucket of NEARLINE: %v", x)
	}
	h.want(t, "PATCH", o+"/x", `{"cacheControl":"no-store","metadata":{"a":"b"},"customTime":"2026-01-02T00:00:00Z"}`, 200)
	h.want(t, "PATCH", o+"/x", `{"customTime":"2026-01-01T00:00:00Z"}`, 400)
	h.want(t, "PATCH", o+"/x", `{"customTime":null}`, 400)
	x := h.want(t, "PATCH", o+"/x", `{"cacheControl":null,"metadata":null,"customTime":"2026-01-03T00:00:00Z"}`, 200)
	if x["cacheControl"] != nil || x["metadata"] != nil || x["customTime"] != "2026-01-03T00:00:00.000Z" ||
		x["contentType"] != "text/plain" {
		t.Errorf("patched: %v", x)
	}
}
