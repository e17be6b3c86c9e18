package registry_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"giggle/artifacts"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit/audittest"
)

const img = "/v2/giggle/my-repo/jokes"

func sum256(s string) string {
	h := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(h[:])
}

func sum512(s string) string {
	h := sha512.Sum512([]byte(s))
	return "sha512:" + hex.EncodeToString(h[:])
}

// want fails unless an answer has the status and, for an error, the code.
func want(t *testing.T, resp *http.Response, body string, status int, code string) {
	t.Helper()
	if resp.StatusCode != status {
		t.Errorf("%s %s: status %d, want %d: %s", resp.Request.Method, resp.Request.URL.Path, resp.StatusCode, status,
			body)
	}
	if code == "" || resp.Request.Method == http.MethodHead {
		return
	}
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code != code ||
		e.Errors[0].Message == "" {
		t.Errorf("%s %s: body %s, want an error %s", resp.Request.Method, resp.Request.URL.Path, body, code)
	}
}

// blob puts a blob into an image's repository by one POST.
func (w *world) blob(t *testing.T, image, content, digest string) {
	t.Helper()
	resp, body := w.do(t, w.owner, "POST", image+"/blobs/uploads/?digest="+url.QueryEscape(digest),
		strings.NewReader(content), nil)
	want(t, resp, body, http.StatusCreated, "")
}

// manifest is a small OCI manifest of one configuration, with more fields if any.
func manifest(config, more string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]%s}`,
		sum256(config), len(config), more)
}

var ociType = map[string]string{"Content-Type": "application/vnd.oci.image.manifest.v1+json"}

func TestAuthentication(t *testing.T) {
	w := newWorld(t)
	const challenge = `Bearer realm="https://` + host + `/v2/token",service="` + host + `"`
	resp, body := w.do(t, "", "GET", "/v2/", nil, nil)
	want(t, resp, body, http.StatusUnauthorized, "UNAUTHORIZED")
	if got := resp.Header.Get("WWW-Authenticate"); got != challenge {
		t.Errorf("challenge = %s, want %s", got, challenge)
	}
	resp, body = w.do(t, "", "GET", img+"/manifests/v1", nil, nil)
	want(t, resp, body, http.StatusUnauthorized, "UNAUTHORIZED")
	if got, want := resp.Header.Get("WWW-Authenticate"), challenge+
		`,scope="repository:giggle/my-repo/jokes:pull"`; got != want {
		t.Errorf("challenge = %s, want %s", got, want)
	}

	basic := func(user, password string) map[string]string {
		return map[string]string{"Authorization": "Basic " +
			base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
	}
	form := func(v url.Values) (io.Reader, map[string]string) {
		return strings.NewReader(v.Encode()), map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	}
	token := func(resp *http.Response, body string) string {
		t.Helper()
		want(t, resp, body, http.StatusOK, "")
		var out struct{ Token string }
		if err := json.Unmarshal([]byte(body), &out); err != nil || out.Token == "" {
			t.Fatalf("token answer %s", body)
		}
		return out.Token
	}
	resp, body = w.do(t, "", "GET", "/v2/token?service="+host+"&scope=repository:giggle/my-repo/jokes:pull", nil,
		basic("_dcgcloud_token", w.owner))
	got := token(resp, body)
	resp, body = w.do(t, got, "GET", "/v2/", nil, nil)
	want(t, resp, body, http.StatusOK, "")
	b, h := form(url.Values{"grant_type": {"password"}, "username": {"oauth2accesstoken"}, "password": {w.owner}, "service": {host}})
	resp, body = w.do(t, "", "POST", "/v2/token", b, h)
	token(resp, body)
	b, h = form(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}})
	resp, body = w.do(t, "", "POST", "/v2/token", b, h)
	want(t, resp, body, http.StatusMethodNotAllowed, "UNSUPPORTED")

	// Nobody gets a token that is good for what nobody may do, and for nothing else.
	resp, body = w.do(t, "", "GET", "/v2/token?service="+host, nil, nil)
	nobody := token(resp, body)
	resp, body = w.do(t, nobody, "GET", "/v2/", nil, nil)
	want(t, resp, body, http.StatusOK, "")
	resp, body = w.do(t, nobody, "GET", img+"/manifests/v1", nil, nil)
	want(t, resp, body, http.StatusUnauthorized, "UNAUTHORIZED")

	account, err := w.identity.CreateAccount(t.Context(), "pusher", iam.Account{Project: "giggle"})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := w.identity.CreateKey(t.Context(), "giggle", account.Email)
	if err != nil {
		t.Fatal(err)
	}
	dead, gone, err := w.identity.CreateKey(t.Context(), "giggle", account.Email)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.identity.DeleteKey(t.Context(), "giggle", account.Email, dead.ID); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user, password string
		status         int
		code           string
	}{
		{"_dcgcloud_token", "wrong", 401, "UNAUTHORIZED"},
		{"oauth2accesstoken", "", 401, "UNAUTHORIZED"},
		{"oauth2accesstoken", "anonymous", 401, "UNAUTHORIZED"},
		{"someone", w.owner, 401, "UNAUTHORIZED"},
		{"_json_key", "{}", 401, "UNAUTHORIZED"},
		{"_json_key", string(key), 200, ""},
		{"_json_key_base64", base64.StdEncoding.EncodeToString(key), 200, ""},
		{"_json_key_base64", string(key), 401, "UNAUTHORIZED"},
		// not the key's account
		{"_json_key", strings.Replace(string(key), "pusher@", "another@", 1), 401, "UNAUTHORIZED"},
		{"_json_key", string(gone), 401, "UNAUTHORIZED"},
		{"oauth2accesstoken", w.owner, 200, ""},
	} {
		for _, path := range []string{"/v2/", "/v2/token"} {
			if tt.password == "anonymous" && path == "/v2/token" {
				continue // it is a token that says nothing, and so it may be had
			}
			resp, body := w.do(t, "", "GET", path, nil, basic(tt.user, tt.password))
			want(t, resp, body, tt.status, tt.code)
		}
	}
}

func TestAuthorization(t *testing.T) {
	w := newWorld(t)
	w.blob(t, img, "config", sum256("config"))
	resp, body := w.do(t, w.owner, "PUT", img+"/manifests/v1", strings.NewReader(manifest("config", "")), ociType)
	want(t, resp, body, http.StatusCreated, "")

	for _, tt := range []struct {
		token, method, path string
		status              int
		code                string
	}{
		{w.reader, "GET", img + "/manifests/v1", 200, ""},
		{w.reader, "HEAD", img + "/blobs/" + sum256("config"), 200, ""},
		{w.reader, "GET", img + "/tags/list", 200, ""},
		{w.reader, "PUT", img + "/manifests/v2", 403, "DENIED"},
		{w.reader, "POST", img + "/blobs/uploads/", 403, "DENIED"},
		{w.reader, "DELETE", img + "/manifests/v1", 403, "DENIED"},
		{w.reader, "GET", "/v2/giggle/second/jokes/tags/list", 403, "DENIED"},
		{w.stranger, "GET", img + "/manifests/v1", 403, "DENIED"},
		// whether it exists is nobody's business
		{w.stranger, "GET", "/v2/giggle/no-such/jokes/manifests/v1", 403, "DENIED"},
		{w.stranger, "GET", "/v2/no-project/no-such/jokes/manifests/v1", 403, "DENIED"},
		{w.owner, "GET", "/v2/no-project/no-such/jokes/manifests/v1", 403, "DENIED"},
		{w.owner, "GET", "/v2/giggle/no-such/jokes/manifests/v1", 404, "NAME_UNKNOWN"},
		{w.owner, "POST", "/v2/giggle/no-such/jokes/blobs/uploads/", 404, "NAME_UNKNOWN"},
		{w.owner, "GET", "/v2/other-project/my-repo/jokes/manifests/v1", 404, "NAME_UNKNOWN"},
		{w.owner, "GET", "/v2/giggle/my-repo/other/tags/list", 404, "NAME_UNKNOWN"},
		{w.owner, "GET", img + "/manifests/v2", 404, "MANIFEST_UNKNOWN"},
		{w.owner, "GET", img + "/manifests/" + sum256("x"), 404, "MANIFEST_UNKNOWN"},
		{w.owner, "GET", img + "/manifests/-bad", 400, "MANIFEST_INVALID"},
		{w.owner, "GET", img + "/blobs/" + sum256("x"), 404, "BLOB_UNKNOWN"},
		{w.owner, "GET", img + "/blobs/md5:00", 400, "DIGEST_INVALID"},
		{w.owner, "GET", "/v2/giggle/My-Repo/jokes/tags/list", 400, "NAME_INVALID"},
		{w.owner, "GET", "/v2/giggle/tags/list", 400, "NAME_INVALID"},
		{w.owner, "GET", "/v2/what", 400, "NAME_INVALID"},
		{w.owner, "PATCH", img + "/manifests/v1", 405, "UNSUPPORTED"},
		{"garbage", "GET", img + "/manifests/v1", 401, "UNAUTHORIZED"},
	} {
		resp, body := w.do(t, tt.token, tt.method, tt.path, nil, nil)
		want(t, resp, body, tt.status, tt.code)
	}
	_, body = w.do(t, w.owner, "GET", "/v2/giggle/no-such/jokes/manifests/v1", nil, nil)
	if !strings.Contains(body, `Repository \"no-such\" not found`) {
		t.Errorf("unknown repository: %s", body)
	}

	// Who changed an image, and who was refused what, is in the audit log; who looked at it is not.
	log := audittest.Calls(t, w.audit)
	got := make(map[string]int)
	for _, e := range log {
		got[fmt.Sprint(e.MethodName, " ", e.Authentication.PrincipalEmail, " ", e.Status.Code)]++
	}
	wanted := map[string]int{
		"Docker-PutManifest you@giggle.test 0":    1,
		"Docker-PutManifest reader@giggle.test 7": 1, "Docker-Upload reader@giggle.test 7": 1,
		"Docker-DeleteManifest reader@giggle.test 7": 1,
		"Docker-Download reader@giggle.test 7":       1, "Docker-Download stranger@giggle.test 7": 3,
		"Docker-Download you@giggle.test 7": 1,
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("the audit log (-want +got):\n%s", diff)
	}
	if first := log[0].ResourceName; first != "projects/giggle/locations/europe-north1/repositories/my-repo/dockerImages/jokes@v1" {
		t.Errorf("the push is logged as one to %s", first)
	}
}

func TestUploads(t *testing.T) {
	w := newWorld(t)
	begin := func() string {
		t.Helper()
		resp, body := w.do(t, w.owner, "POST", img+"/blobs/uploads/", nil, nil)
		want(t, resp, body, http.StatusAccepted, "")
		if resp.Header.Get("Docker-Upload-UUID") == "" || resp.Header.Get("Range") != "0-0" {
			t.Errorf("begin: headers %v", resp.Header)
		}
		return resp.Header.Get("Location")
	}
	patch := func(at, content, contentRange string, status int, code, rng string) {
		t.Helper()
		h := map[string]string{"Content-Type": "application/octet-stream"}
		if contentRange != "" {
			h["Content-Range"] = contentRange
		}
		resp, body := w.do(t, w.owner, "PATCH", at, strings.NewReader(content), h)
		want(t, resp, body, status, code)
		if got := resp.Header.Get("Range"); got != rng {
			t.Errorf("PATCH %s: Range %q, want %q", contentRange, got, rng)
		}
	}

	// Chunks in order, and what is out of order.
	at := begin()
	patch(at, "hello", "0-4", 202, "", "0-4")
	patch(at, "world", "6-10", 416, "RANGE_INVALID", "0-4")
	patch(at, "world", "0-4", 416, "RANGE_INVALID", "0-4")
	patch(at, "world", "5-8", 400, "SIZE_INVALID", "")
	patch(at, "world", "9-5", 416, "RANGE_INVALID", "")
	patch(at, "world", "bytes 5-9/10", 416, "RANGE_INVALID", "")
	resp, body := w.do(t, w.owner, "GET", at, nil, nil)
	want(t, resp, body, http.StatusNoContent, "")
	if got := resp.Header.Get("Range"); got != "0-4" {
		t.Errorf("status: Range %q, want 0-4", got)
	}
	patch(at, "world", "", 202, "", "0-9") // as docker streams

	// A wrong digest makes no blob, and the upload can still be finished.
	finish := func(at, digest, content string, status int, code string) {
		t.Helper()
		resp, body := w.do(t, w.owner, "PUT", at+"?digest="+url.QueryEscape(digest), strings.NewReader(content), nil)
		want(t, resp, body, status, code)
	}
	finish(at, sum256("something else"), "", 400, "DIGEST_INVALID")
	finish(at, "", "", 400, "DIGEST_INVALID")
	finish(at, "sha256:short", "", 400, "DIGEST_INVALID")
	resp, body = w.do(t, w.owner, "HEAD", img+"/blobs/"+sum256("helloworld"), nil, nil)
	want(t, resp, body, http.StatusNotFound, "")
	finish(at, sum256("helloworld!"), "!", 201, "")
	finish(at, sum256("helloworld!"), "", 404, "BLOB_UPLOAD_UNKNOWN")
	resp, body = w.do(t, w.owner, "GET", img+"/blobs/"+sum256("helloworld!"), nil, nil)
	want(t, resp, body, http.StatusOK, "")
	if body != "helloworld!" || resp.Header.Get("Docker-Content-Digest") != sum256("helloworld!") {
		t.Errorf("blob %q, headers %v", body, resp.Header)
	}
	resp, body = w.do(t, w.owner, "GET", img+"/blobs/"+sum256("helloworld!"), nil,
		map[string]string{"Range": "bytes=5-9"})
	want(t, resp, body, http.StatusPartialContent, "")
	if body != "world" {
		t.Errorf("range: %q", body)
	}

	// sha512, in one go and in chunks.
	w.blob(t, img, "in one", sum512("in one"))
	at = begin()
	patch(at, "in chunks", "", 202, "", "0-8")
	finish(at, sum512("in chunks"), "", 201, "")
	resp, body = w.do(t, w.owner, "GET", img+"/blobs/"+sum512("in chunks"), nil, nil)
	want(t, resp, body, http.StatusOK, "")

	// Cancelled, and never begun.
	at = begin()
	resp, body = w.do(t, w.owner, "DELETE", at, nil, nil)
	want(t, resp, body, http.StatusNoContent, "")
	patch(at, "x", "", 404, "BLOB_UPLOAD_UNKNOWN", "")
	patch(img+"/blobs/uploads/..", "x", "", 404, "BLOB_UPLOAD_UNKNOWN", "")

	resp, body = w.do(t, w.owner, "POST", img+"/blobs/uploads/?digest="+sum256("a"), strings.NewReader("b"), nil)
	want(t, resp, body, http.StatusBadRequest, "DIGEST_INVALID")

	w.full = fault.New(fault.ResourceExhausted, "The disk is full.")
	at = begin()
	patch(at, "x", "", 429, "TOOMANYREQUESTS", "")
}

// A body that breaks off in the middle leaves nothing behind.
func TestBrokenOff(t *testing.T) {
	w := newWorld(t)
	r, err := http.NewRequestWithContext(t.Context(), "POST",
		"https://"+host+img+"/blobs/uploads/?digest="+sum256("whole"),
		io.MultiReader(strings.NewReader("who"), failing{}))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = 5
	r.Header.Set("Authorization", "Bearer "+w.owner)
	tr := w.transport()
	if resp, err := tr.RoundTrip(r); err == nil {
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("a broken upload: status %d", resp.StatusCode)
		}
	}
	tr.CloseIdleConnections()
	resp, body := w.do(t, w.owner, "HEAD", img+"/blobs/"+sum256("whole"), nil, nil)
	want(t, resp, body, http.StatusNotFound, "")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the client went away") }

func TestMount(t *testing.T) {
	w := newWorld(t)
	const other = "/v2/giggle/second/jokes"
	d := sum256("shared")
	w.blob(t, img, "shared", d)

	// Another repository does not have it until it is mounted there.
	resp, body := w.do(t, w.owner, "HEAD", other+"/blobs/"+d, nil, nil)
	want(t, resp, body, http.StatusNotFound, "")
	mount := func(token, to, query string, status int) {
		t.Helper()
		resp, body := w.do(t, token, "POST", to+"/blobs/uploads/?mount="+d+query, nil, nil)
		want(t, resp, body, status, "")
		if loc := resp.Header.Get("Location"); loc == "" {
			t.Errorf("mount: no Location")
		}
	}
	mount(w.owner, other, "", 202)
	mount(w.owner, other, "&from=giggle/second/none", 202)
	mount(w.owner, other, "&from=..%2Fetc", 202)
	mount(w.owner, img, "&from=giggle/second/none", 201) // it is there already

	// Who may write to one repository but not read the other can't fetch a blob by its digest alone.
	w.grant(t, "projects/giggle/locations/europe-north1/repositories/second", "roles/owner",
		"user:stranger@giggle.test")
	mount(w.stranger, other, "&from=giggle/my-repo/jokes", 202)
	resp, body = w.do(t, w.owner, "HEAD", other+"/blobs/"+d, nil, nil)
	want(t, resp, body, http.StatusNotFound, "")

	mount(w.owner, other, "&from=giggle/my-repo/jokes", 201)
	resp, body = w.do(t, w.stranger, "GET", other+"/blobs/"+d, nil, nil)
	want(t, resp, body, http.StatusOK, "")
}

func TestManifests(t *testing.T) {
	w := newWorld(t)
	w.blob(t, img, "config", sum256("config"))
	put := func(ref, body string, header map[string]string, status int, code string) {
		t.Helper()
		resp, got := w.do(t, w.owner, "PUT", img+"/manifests/"+ref, strings.NewReader(body), header)
		want(t, resp, got, status, code)
	}
	good := manifest("config", "")
	put("v1", good, ociType, 201, "")
	put(sum256(good), good, ociType, 201, "")
	put("by512?digest="+sum512(good), good, ociType, 201, "")
	put(sum256(good)+"?tag=x1&tag=x2", good, ociType, 201, "")
	put(sum256(good)+"?tag=-x", good, ociType, 400, "MANIFEST_INVALID")
	put(sum256("other"), good, ociType, 400, "DIGEST_INVALID")
	put("v2", "{", ociType, 400, "MANIFEST_INVALID")
	put("v2", good, map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"}, 400,
		"MANIFEST_INVALID")
	put("v2", good, map[string]string{"Content-Type": "text/plain"}, 400, "MANIFEST_INVALID")
	put("v2", manifest("nowhere", ""), ociType, 404, "MANIFEST_BLOB_UNKNOWN")
	put("v2", strings.Replace(good, `"size":6`, `"size":7`, 1), ociType, 400, "MANIFEST_INVALID")
	put("v2", manifest("config", `,"manifests":[]`), ociType, 400, "MANIFEST_INVALID")
	put("v2", manifest("config", `,"annotations":{"a":"`+strings.Repeat("x", artifacts.MaxManifest)+`"}`), ociType, 413,
		"MANIFEST_TOO_LARGE")
	put("bad..%2f", good, ociType, 400, "NAME_INVALID")
	resp, body := w.do(t, w.owner, "GET", img+"/manifests/v2", nil, nil)
	want(t, resp, body, http.StatusNotFound, "MANIFEST_UNKNOWN")

	for _, ref := range []string{"v1", "x1", "x2", sum256(good), sum512(good), "by512"} {
		resp, body := w.do(t, w.owner, "GET", img+"/manifests/"+ref, nil, nil)
		want(t, resp, body, http.StatusOK, "")
		if body != good || resp.Header.Get("Content-Type") != ociType["Content-Type"] {
			t.Errorf("GET %s: %q, headers %v", ref, body, resp.Header)
		}
	}

	// Deleting a tag keeps the manifest; the manifest stays as long as it has tags, as Artifact Registry says.
	put("v3", good, ociType, 201, "")
	del := func(path string, status int, code string) {
		t.Helper()
		resp, body := w.do(t, w.owner, "DELETE", img+path, nil, nil)
		want(t, resp, body, status, code)
	}
	del("/manifests/v1", 202, "")
	del("/manifests/v1", 404, "MANIFEST_UNKNOWN")
	resp, body = w.do(t, w.owner, "HEAD", img+"/manifests/"+sum256(good), nil, nil)
	want(t, resp, body, http.StatusOK, "")
	del("/blobs/"+sum256("config"), 405, "UNSUPPORTED") // a manifest needs it
	for _, tag := range []string{"v3", "x1", "x2"} {
		del("/manifests/"+sum256(good), 400, "GOOGLE_MANIFEST_DANGLING_TAG")
		del("/manifests/"+tag, 202, "")
	}
	del("/manifests/"+sum256(good), 202, "")
	resp, body = w.do(t, w.owner, "GET", img+"/manifests/v3", nil, nil)
	want(t, resp, body, http.StatusNotFound, "MANIFEST_UNKNOWN")
	del("/manifests/"+sum256(good), 404, "MANIFEST_UNKNOWN")
	del("/manifests/by512", 202, "")
	del("/manifests/"+sum512(good), 202, "")
	del("/blobs/"+sum256("config"), 202, "")
	del("/blobs/"+sum256("config"), 404, "BLOB_UNKNOWN")
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	w.blob(t, img, "config", sum256("config"))
	subject := manifest("config", "")
	for _, tag := range []string{"c", "a", "b"} {
		resp, body := w.do(t, w.owner, "PUT", img+"/manifests/"+tag, strings.NewReader(subject), ociType)
		want(t, resp, body, http.StatusCreated, "")
	}
	for _, tt := range []struct{ query, tags, link string }{
		{"", `["a","b","c"]`, ""},
		{"?n=2", `["a","b"]`, `<` + img + `/tags/list?last=b&n=2>; rel="next"`},
		{"?n=2&last=b", `["c"]`, ""},
		{"?n=0", `[]`, ""},
		{"?last=zzz", `[]`, ""},
	} {
		resp, body := w.do(t, w.reader, "GET", img+"/tags/list"+tt.query, nil, nil)
		want(t, resp, body, http.StatusOK, "")
		if wantBody := `"name":"giggle/my-repo/jokes","tags":` + tt.tags + `}`; !strings.HasSuffix(body, wantBody) ||
			resp.Header.Get("Link") != tt.link {
			t.Errorf("tags%s: %s, Link %q; want %s, %q", tt.query, body, resp.Header.Get("Link"), wantBody, tt.link)
		}
	}
	resp, body := w.do(t, w.reader, "GET", img+"/tags/list?n=-1", nil, nil)
	want(t, resp, body, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID")

	// What is attached to a digest.
	attached := manifest("config",
		`,"artifactType":"application/x.sbom","annotations":{"k":"v"},"subject":{"mediaType":"m","digest":"`+
			sum256(subject)+`","size":1}`)
	resp, body = w.do(t, w.owner, "PUT", img+"/manifests/"+sum256(attached), strings.NewReader(attached), ociType)
	want(t, resp, body, http.StatusCreated, "")
	if got := resp.Header.Get("OCI-Subject"); got != sum256(subject) {
		t.Errorf("OCI-Subject = %q", got)
	}
	for _, tt := range []struct {
		digest, query string
		n             int
	}{{sum256(subject), "", 1}, {sum256(subject), "?artifactType=application/x.sbom", 1},
		{sum256(subject), "?artifactType=other", 0}, {sum256("none"), "", 0}} {
		resp, body := w.do(t, w.reader, "GET", img+"/referrers/"+tt.digest+tt.query, nil, nil)
		want(t, resp, body, http.StatusOK, "")
		var out struct {
			Manifests []struct{ Digest, ArtifactType string }
		}
		if err := json.Unmarshal([]byte(body), &out); err != nil || len(out.Manifests) != tt.n {
			t.Errorf("referrers of %s%s: %s, want %d", tt.digest, tt.query, body, tt.n)
		}
		if tt.n > 0 && (out.Manifests[0].Digest != sum256(attached) ||
			out.Manifests[0].ArtifactType != "application/x.sbom") {
			t.Errorf("referrers: %s", body)
		}
	}

	for token, wantBody := range map[string]string{
		w.owner:    `{"repositories":["giggle/my-repo/jokes"]}`,
		w.reader:   `{"repositories":["giggle/my-repo/jokes"]}`,
		w.stranger: `{"repositories":[]}`,
	} {
		resp, body := w.do(t, token, "GET", "/v2/_catalog", nil, nil)
		want(t, resp, body, http.StatusOK, "")
		if body != wantBody {
			t.Errorf("catalog: %s, want %s", body, wantBody)
		}
	}
	resp, body = w.do(t, "", "GET", "/v2/_catalog", nil, nil)
	want(t, resp, body, http.StatusUnauthorized, "UNAUTHORIZED")
}

// The hosts of Container Registry are refused in words.
func TestOtherHost(t *testing.T) {
	w := newWorld(t)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://registry.example.com/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := w.transport()
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	want(t, resp, b.String(), http.StatusMethodNotAllowed, "UNSUPPORTED")
}

// A manifest of an index stays as long as the index, as Artifact Registry says
// (https://github.com/GoogleCloudPlatform/gcr-cleaner/issues/118).
func TestDeleteChild(t *testing.T) {
	w := newWorld(t)
	w.blob(t, img, "config", sum256("config"))
	child, other := manifest("config", ""), manifest("config", `,"annotations":{"a":"b"}`)
	index := func(of ...string) string {
		var list []string
		for _, m := range of {
			list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ociType["Content-Type"], sum256(m), len(m)))
		}
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
			strings.Join(list, ",") + `]}`
	}
	both, one := index(child, other), index(child)
	indexType := map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"}
	for _, put := range []struct {
		ref, body string
		header    map[string]string
	}{{sum256(child), child, ociType}, {sum256(other), other, ociType}, {"v1", both, indexType}, {sum256(one), one, indexType}} {
		resp, body := w.do(t, w.owner, "PUT", img+"/manifests/"+put.ref, strings.NewReader(put.body), put.header)
		want(t, resp, body, http.StatusCreated, "")
	}
	for _, step := range []struct {
		ref    string
		status int
		code   string
	}{
		{sum256(child), 400, "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE"},
		{sum256(other), 400, "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE"},
		{sum256(both), 400, "GOOGLE_MANIFEST_DANGLING_TAG"},
		{"v1", 202, ""},
		{sum256(child), 400, "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE"},
		{sum256(both), 202, ""},
		{sum256(other), 202, ""},
		{sum256(child), 400, "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE"}, // of the other index
		{sum256(one), 202, ""},
		{sum256(child), 202, ""},
		{sum256(child), 404, "MANIFEST_UNKNOWN"},
	} {
		resp, body := w.do(t, w.owner, "DELETE", img+"/manifests/"+step.ref, nil, nil)
		want(t, resp, body, step.status, step.code)
	}
}

// A manifest is there for those who take its media type, as in Google's registries
// (https://github.com/appc/docker2aci/issues/254 has their words).
func TestAccept(t *testing.T) {
	w := newWorld(t)
	w.blob(t, img, "config", sum256("config"))
	m := manifest("config", "")
	resp, body := w.do(t, w.owner, "PUT", img+"/manifests/v1", strings.NewReader(m), ociType)
	want(t, resp, body, http.StatusCreated, "")
	oci := ociType["Content-Type"]
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	for accept, ok := range map[string]bool{
		"": true, "*/*": true, "application/*": true, oci: true, docker + ", " + oci: true, oci + ";q=0.5," + docker: true,
		docker + ",*/*;q=0.1": true, strings.ToUpper(oci): true, " , " + oci: true, " ": true,
		docker: false, "application/json": false, "text/*": false, oci + ";q=0": false, oci + "x": false,
		"application/vnd.oci.image.index.v1+json": false,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			for _, ref := range []string{"v1", sum256(m)} {
				header := map[string]string{}
				if accept != "" {
					header["Accept"] = accept
				}
				resp, body := w.do(t, w.owner, method, img+"/manifests/"+ref, nil, header)
				switch {
				case ok && resp.StatusCode != http.StatusOK, !ok && resp.StatusCode != http.StatusNotFound:
					t.Errorf("%s %s, Accept: %s: %d", method, ref, accept, resp.StatusCode)
				case !ok && method == "GET" && !strings.Contains(body, "' has media type '"+oci+"', but client accepts '"+strings.TrimSpace(accept)+"'."):
					t.Errorf("%s %s, Accept: %s: %s", method, ref, accept, body)
				}
			}
		}
	}
}
