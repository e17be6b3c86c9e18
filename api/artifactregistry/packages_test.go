package artifactregistry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"giggle/artifacts"
	"giggle/resource"
)

// push puts an image with one layer under a tag and returns its digest.
func (w *world) push(t *testing.T, path, tag, layer string) string {
	t.Helper()
	image := artifacts.Image{Repository: resource.Repository("giggle", "europe-north1", "my-repo"), Path: path}
	put := func(s string) string {
		info, err := w.blobs.Put(t.Context(), strings.NewReader(s), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.artifacts.AddBlob(t.Context(), image.Repository, info); err != nil {
			t.Fatal(err)
		}
		return string(info.Digest)
	}
	const config = `{"created":"2024-05-06T07:08:09Z","os":"linux","architecture":"amd64"}`
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		put(config), len(config), put(layer), len(layer))
	m, err := w.artifacts.PutManifest(t.Context(), image, []string{tag}, "", "", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Digest)
}

// names returns one field of every entry of a list, over all its pages.
func (w *world) names(t *testing.T, path, list, field string) string {
	t.Helper()
	var out []string
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	for token, pages := "", 0; ; pages++ {
		page := w.call(t, w.owner, "GET", path+sep+"pageSize=1&pageToken="+token, "", http.StatusOK)
		entries, _ := page[list].([]any)
		if len(entries) > 1 {
			t.Errorf("%s: a page of %d", path, len(entries))
		}
		for _, e := range entries {
			s := e.(map[string]any)[field].(string)
			out = append(out, s[strings.LastIndex(s, "/")+1:])
		}
		if token, _ = page["nextPageToken"].(string); token == "" || pages > 20 {
			return strings.Join(out, " ")
		}
	}
}

func TestPackagesVersionsTagsFiles(t *testing.T) {
	w := newWorld(t)
	w.call(t, w.owner, "POST", parent+"/repositories?repositoryId=my-repo", `{"format":"DOCKER"}`, http.StatusOK)
	one := w.push(t, "team/jokes", "v1", "layer one")
	two := w.push(t, "team/jokes", "v2", "layer two")
	w.push(t, "another", "v1", "layer one")
	repo, pkg := "/v1/"+mine, "/v1/"+mine+"/packages/team%2Fjokes"
	name := mine + "/packages/team%2Fjokes"

	for _, tt := range []struct{ path, list, field, want string }{
		{repo + "/packages", "packages", "name", "another team%2Fjokes"},
		{repo + "/packages?orderBy=name%20desc", "packages", "name", "team%2Fjokes another"},
		{repo + "/packages?orderBy=create_time", "packages", "name", "team%2Fjokes another"},
		{repo + `/packages?filter=name%3D"` + mine + `/packages/*JOKES"`, "packages", "name", "team%2Fjokes"},
		{pkg + "/versions?orderBy=createTime", "versions", "name", one + " " + two},
		{pkg + "/versions?orderBy=createTime%20desc", "versions", "name", two + " " + one},
		{pkg + "/tags", "tags", "name", "v1 v2"},
		{pkg + "/tags?filter=" + url.QueryEscape(`version="`+name+`/versions/`+two+`"`), "tags", "name", "v2"},
	} {
		if got := w.names(t, tt.path, tt.list, tt.field); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.path, got, tt.want)
		}
	}
	if n := len(strings.Fields(w.names(t, repo+"/dockerImages?orderBy=uploadTime", "dockerImages", "uri"))); n != 3 {
		t.Errorf("%d docker images, want 3", n)
	}
	// 2 manifests (two images share one), a config, 2 layers
	if n := len(strings.Fields(w.names(t, repo+"/files", "files", "name"))); n != 5 {
		t.Errorf("%d files, want 5", n)
	}

	v := w.call(t, w.owner, "GET", pkg+"/versions/"+one+"?view=FULL", "", http.StatusOK)
	meta := v["metadata"].(map[string]any)
	if len(v["relatedTags"].([]any)) != 1 || meta["imageSizeBytes"] != "79" ||
		meta["buildTime"] != "2024-05-06T07:08:09Z" {
		t.Errorf("version: %v", v)
	}
	if v := w.call(t, w.owner, "GET", pkg+"/versions/v1", "", http.StatusOK); v["relatedTags"] != nil ||
		v["name"] != name+"/versions/"+one {
		t.Errorf("version by tag, basic view: %v", v)
	}
	d := w.call(t, w.owner, "GET", repo+"/dockerImages/team%2Fjokes@"+two, "", http.StatusOK)
	if d["uri"] != "europe-north1-docker.pkg.dev/giggle/my-repo/team/jokes@"+two || d["imageSizeBytes"] != "79" {
		t.Errorf("docker image: %v", d)
	}
	f := w.call(t, w.owner, "GET", repo+"/files/"+two, "", http.StatusOK)
	if f["owner"] != name+"/versions/"+two || len(f["hashes"].([]any)) != 1 {
		t.Errorf("file: %v", f)
	}

	// Tags come, move and go.
	tag := func(id, version string) string {
		return fmt.Sprintf(`{"name":%q,"version":%q}`, name+"/tags/"+id, name+"/versions/"+version)
	}
	w.call(t, w.owner, "POST", pkg+"/tags?tagId=good", tag("good", one), http.StatusOK)
	w.call(t, w.owner, "POST", pkg+"/tags?tagId=good", tag("good", one), http.StatusConflict)
	w.call(t, w.owner, "POST", pkg+"/tags?tagId=.bad", tag("bad", one), http.StatusBadRequest)
	w.call(t, w.owner, "POST", pkg+"/tags?tagId=none", tag("none", "sha256:"+strings.Repeat("0", 64)),
		http.StatusNotFound)
	w.call(t, w.owner, "PATCH", pkg+"/tags/good?updateMask=version", tag("good", two), http.StatusOK)
	w.call(t, w.owner, "PATCH", pkg+"/tags/gone?updateMask=version", tag("gone", two), http.StatusNotFound)
	if got := w.call(t, w.owner, "GET", pkg+"/tags/good", "", http.StatusOK); got["version"] != name+"/versions/"+two {
		t.Errorf("moved tag: %v", got)
	}
	w.call(t, w.owner, "DELETE", pkg+"/tags/good", "", http.StatusOK)
	w.call(t, w.owner, "DELETE", pkg+"/tags/good", "", http.StatusNotFound)

	// Tags that stay what they are.
	got := w.call(t, w.owner, "PATCH", repo+"?updateMask=dockerConfig.immutableTags,description",
		`{"name":"`+mine+`","description":"New","dockerConfig":{"immutableTags":true}}`, http.StatusOK)
	if got["description"] != "New" || got["dockerConfig"] == nil {
		t.Errorf("updated: %v", got)
	}
	w.call(t, w.owner, "PATCH", pkg+"/tags/v1", tag("v1", two), http.StatusBadRequest)
	w.call(t, w.owner, "DELETE", pkg+"/versions/"+one+"?force=true", "", http.StatusBadRequest)
	w.call(t, w.owner, "DELETE", pkg, "", http.StatusBadRequest)
	w.call(t, w.owner, "PATCH", repo+"?updateMask=dockerConfig,cleanupPolicies",
		`{"cleanupPolicies":{"old":{"id":"old","action":"DELETE"}}}`, http.StatusOK)
	if got := w.call(t, w.owner, "GET", repo, "", http.StatusOK); got["cleanupPolicies"] == nil ||
		got["description"] != "New" {
		t.Errorf("cleanup policies: %v", got)
	}
	w.call(t, w.owner, "PATCH", repo+"?updateMask=format", `{"format":"DOCKER"}`, http.StatusBadRequest)

	// Versions and packages go.
	w.call(t, w.owner, "DELETE", pkg+"/versions/"+one, "", http.StatusBadRequest) // it is tagged
	if op := w.call(t, w.owner, "DELETE", pkg+"/versions/"+one+"?force=true", "", http.StatusOK); op["done"] != true {
		t.Errorf("delete: %v", op)
	}
	w.call(t, w.owner, "GET", pkg+"/versions/"+one, "", http.StatusNotFound)
	names, err := json.Marshal(map[string]any{"names": []string{name + "/versions/" + two}})
	if err != nil {
		t.Fatal(err)
	}
	w.call(t, w.owner, "POST", pkg+"/versions:batchDelete", string(bytes.TrimSpace(names)), http.StatusOK)
	if got := w.names(t, pkg+"/versions", "versions", "name"); got != "" {
		t.Errorf("left: %s", got)
	}
	w.call(t, w.owner, "DELETE", pkg, "", http.StatusOK)
	w.call(t, w.owner, "GET", pkg, "", http.StatusNotFound)
	w.call(t, w.owner, "GET", repo+"/packages/another", "", http.StatusOK)

	for _, bad := range []string{
		repo + "/packages?orderBy=size", repo + "/packages?orderBy=name%20up", repo + "/packages?filter=size>3",
		repo + `/packages?filter=name%3D"a"%20OR%20name%3D"b"`,
		repo + "/packages/UPPER", repo + "/packages/another/versions/sha256:1%2F", repo + "/files/x",
	} {
		w.call(t, w.owner, "GET", bad, "", http.StatusBadRequest)
	}
	w.call(t, w.stranger, "GET", repo+"/packages", "", http.StatusForbidden)
	w.call(t, w.stranger, "DELETE", repo+"/packages/another", "", http.StatusForbidden)
	s := w.call(t, w.owner, "GET", "/v1/projects/giggle/projectSettings", "", http.StatusOK)
	if s["legacyRedirectionState"] != "REDIRECTION_FROM_GCR_IO_ENABLED" {
		t.Errorf("settings: %v", s)
	}
}
