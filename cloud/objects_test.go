package cloud

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/iam"
	"giggle/resource"
	"giggle/storage"
)

// What a binding lets somebody do with objects holds for the object that a request is about, wherever its name stands
// and however it is spelled; and who may only create objects replaces none.
func TestObjectsAreGuardedByTheirNames(t *testing.T) {
	c := newCloud(t)
	m := muxes(t, c)["storage.googleapis.com"]
	ctx := t.Context()
	const bucket = "a-bucket-of-names"
	if _, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: bucket, Project: "giggle"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pub/x", "pub/y", "secret/x"} {
		if _, err := c.storage.Put(ctx, storage.Insert{Bucket: bucket, Name: name},
			strings.NewReader("first")); err != nil {
			t.Fatal(err)
		}
	}
	public := iam.Condition{
		Title:      "public",
		Expression: `resource.name.startsWith("projects/_/buckets/` + bucket + `/objects/pub/")`,
	}
	bind := func(who iam.Principal, role string) iam.ConditionalBinding {
		return iam.ConditionalBinding{
			Binding:   iam.Binding{Role: role, Members: []string{who.Member}},
			Condition: public,
		}
	}
	admin, creator := iam.User("admin@giggle.test"), iam.User("creator@giggle.test")
	_, err := c.identity.SetPolicy(ctx, "projects/giggle/buckets/"+bucket, iam.Policy{
		Version: 3,
		Conditional: []iam.ConditionalBinding{
			bind(admin, "roles/storage.objectAdmin"), bind(creator, "roles/storage.objectCreator"),
			bind(creator, "roles/storage.objectViewer"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	multipart := func(name string) string {
		return "--b\r\nContent-Type: application/json\r\n\r\n{\"name\":\"" + name +
			"\"}\r\n--b\r\n\r\nsecond\r\n--b--\r\n"
	}
	const upload = "/upload/storage/v1/b/" + bucket + "/o?uploadType="
	const o = "/storage/v1/b/" + bucket + "/o/"
	for _, tt := range []struct {
		what            string
		who             iam.Principal
		method, path    string
		body            string
		status          int
		untouched, made string // an object that is as it was, one that is there
	}{
		{"a name in the query", admin, "POST", upload + "media&name=pub/new1", "second", 200, "", "pub/new1"},
		{"a name in the metadata", admin, "POST", upload + "multipart", multipart("pub/new2"), 200, "", "pub/new2"},
		{"a read by path", admin, "GET", "/" + bucket + "/pub/x", "", 200, "", ""},
		{"a read by path, escaped", admin, "GET", "/" + bucket + "/pub%2Fx", "", 200, "", ""},
		{"replace", admin, "POST", upload + "media&name=pub/y", "second", 200, "", "pub/y"},

		{"another name in the query", admin, "POST", upload + "media&name=secret/x", "second", 403, "secret/x", ""},
		{"two names in the query", admin, "POST", upload + "media&name=pub/x&name=secret/x", "second", 200, "secret/x", ""},
		{"two names, one hidden by a semicolon", admin, "POST", upload + "media&name=pub/x;y&name=secret/x", "second", 200, "secret/x", "pub/x;y"},
		{"another name in the metadata", admin, "POST", upload + "multipart", multipart("secret/x"), 403, "secret/x", ""},
		{"another name in a resumable upload", admin, "POST", upload + "resumable", `{"name":"secret/x"}`, 403, "secret/x", ""},
		{"another by path", admin, "GET", "/" + bucket + "/secret/x", "", 403, "", ""},
		{"another by path, escaped", admin, "GET", "/" + bucket + "/secret%2Fx", "", 403, "", ""},
		{"another by path, escaped twice", admin, "GET", "/" + bucket + "/secret%252Fx", "", 403, "", ""},
		{"another by a copy", admin, "POST", o + "secret%2Fx/copyTo/b/" + bucket + "/o/pub%2Fz", "", 403, "", ""},
		{"to another by a copy", admin, "POST", o + "pub%2Fx/copyTo/b/" + bucket + "/o/secret%2Fx", "", 403, "secret/x", ""},
		{"another composed", admin, "POST", o + "pub%2Fz/compose", `{"sourceObjects":[{"name":"secret/x"}]}`, 403, "", ""},

		{"create as a creator", creator, "POST", upload + "media&name=pub/new3", "second", 200, "", "pub/new3"},
		{"replace as a creator", creator, "POST", upload + "media&name=pub/x", "third", 403, "", ""},
		{"replace by metadata as a creator", creator, "POST", upload + "multipart", multipart("pub/x"), 403, "", ""},
		{"replace by a resumable upload as a creator", creator, "POST", upload + "resumable", `{"name":"pub/x"}`, 403, "", ""},
		{"replace by a copy as a creator", creator, "POST", o + "pub%2Fnew1/copyTo/b/" + bucket + "/o/pub%2Fx", "", 403, "", ""},
		{"replace by a rewrite as a creator", creator, "POST", o + "pub%2Fnew1/rewriteTo/b/" + bucket + "/o/pub%2Fx", "", 403, "", ""},
		{"replace by composing as a creator", creator, "POST", o + "pub%2Fx/compose", `{"sourceObjects":[{"name":"pub/new1"}]}`, 403, "", ""},
		{"a copy to a new name as a creator", creator, "POST", o + "pub%2Fnew1/copyTo/b/" + bucket + "/o/pub%2Fnew4", "", 200, "", "pub/new4"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			token, _, err := c.identity.AccessTokenFor(tt.who, nil, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			generation := func(name string) int64 {
				o, _ := c.storage.Object(ctx, bucket, name, 0, storage.Conditions{})
				return o.Generation
			}
			was := generation(tt.untouched)
			r := httptest.NewRequest(tt.method, "https://storage.googleapis.com"+tt.path, strings.NewReader(tt.body))
			r.Header.Set("Authorization", "Bearer "+token)
			if strings.Contains(tt.path, "multipart") {
				r.Header.Set("Content-Type", "multipart/related; boundary=b")
			}
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("%d, want %d: %.300s", w.Code, tt.status, w.Body)
			}
			if now := generation(tt.untouched); now != was {
				t.Errorf("%s was replaced", tt.untouched)
			}
			if tt.made != "" && generation(tt.made) == 0 {
				t.Errorf("%s was not made", tt.made)
			}
		})
	}
}

// A bucket of the platform's own is nobody's to make.
func TestReservedBuckets(t *testing.T) {
	c := newCloud(t)
	p, err := c.projects.Find("giggle")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{storage.LogsBucketName(p),
		storage.LogsBucketName(resource.Project{Number: "123456789012"}), "x.googleusercontent.com"} {
		if _, err := c.storage.CreateBucket(t.Context(), storage.Bucket{Name: name, Project: "giggle"}); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	// And a project's logs go to no bucket of another project, which may be there since before that was so.
	if _, err := c.storage.CreateBucket(t.Context(), storage.Bucket{
		Name:     storage.LogsBucketName(p),
		Project:  "another-project",
		Reserved: true,
	}); err != nil {
		t.Fatal(err)
	}
	if name, err := c.storage.LogsBucket(t.Context(), p); err == nil ||
		!strings.Contains(err.Error(), "another project's") {
		t.Errorf("the logs go to %s (%v)", name, err)
	}
}
