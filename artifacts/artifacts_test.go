package artifacts_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/uuid"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
	"giggle/operation"
	"giggle/resource"
	"giggle/store"
)

const host = "europe-north1-docker.pkg.dev/giggle/my-repo/"

// world is the repositories of a platform that can be opened again, as after a crash.
type world struct {
	*artifacts.Artifacts
	store *store.Store
	blobs *blob.Dir
	dir   string
}

func (w *world) open(t *testing.T) {
	t.Helper()
	var err error
	if w.store != nil {
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if w.store, err = store.Open(t.Context(), filepath.Join(w.dir, "state.db"), time.Now); err != nil {
		t.Fatal(err)
	}
	if w.blobs, err = blob.Open(filepath.Join(w.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	w.Artifacts = artifacts.New(artifacts.Config{Store: w.store, Blobs: w.blobs, NewID: uuid.NewString})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	w.open(t)
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) repository(t *testing.T, id string) {
	t.Helper()
	if _, err := w.CreateRepository(t.Context(), repository(id)); err != nil {
		t.Fatal(err)
	}
}

func repository(id string) artifacts.Repository {
	return artifacts.Repository{Name: resource.Repository("giggle", "europe-north1", id), Format: artifacts.Docker}
}

// assemble makes an image as a build does: its blobs are in the store, and no repository knows it.
func (w *world) assemble(t *testing.T, content string) string {
	t.Helper()
	images, err := oci.New(filepath.Join(w.dir, "layers"), w.blobs, oci.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	layer, err := images.AddLayer(t.Context(), []oci.File{{Path: "/app", Mode: 0o755, Data: []byte(content)}})
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := images.Assemble(t.Context(), []oci.Layer{layer},
		v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestPushAndResolve(t *testing.T) {
	w := newWorld(t)
	one, two := w.assemble(t, "one"), w.assemble(t, "two")

	err := w.Push(t.Context(), host+"jokes", one)
	if !fault.Is(err, fault.NotFound) || !strings.HasPrefix(fault.From(err).Message, `Repository "my-repo" not found`) {
		t.Errorf("push without a repository: %v", err)
	}
	w.repository(t, "my-repo")
	for name, digest := range map[string]string{"jokes": one, "jokes:good": one, "team/jokes:v2": two} {
		if err := w.Push(t.Context(), host+name, digest); err != nil {
			t.Fatalf("push %s: %v", name, err)
		}
	}
	w.open(t) // what was acknowledged is there after a crash

	for ref, digest := range map[string]string{
		"jokes": one, "jokes:latest": one, "jokes:good": one, "jokes@" + one: one, "jokes:gone@" + one: one,
		"team/jokes:v2": two,
	} {
		name, _, _ := strings.Cut(ref, "@")
		name, _, _ = strings.Cut(name, ":")
		got, err := w.Resolve(t.Context(), "giggle", host+ref)
		if want := host + name + "@" + digest; err != nil || got != want {
			t.Errorf("Resolve(%s) = %s, %v; want %s", ref, got, err, want)
		}
	}

	// A tag moves; what was resolved before stays.
	if err := w.Push(t.Context(), host+"jokes:good", two); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Resolve(t.Context(), "giggle", host+"jokes:good"); err != nil || !strings.HasSuffix(got, two) {
		t.Errorf("after the tag moved: %s, %v", got, err)
	}
	if _, err := w.Resolve(t.Context(), "giggle", host+"jokes@"+one); err != nil {
		t.Error(err)
	}

	for _, tt := range []struct{ project, ref, reason, message string }{
		{"giggle", host + "other", artifacts.ReasonContainerMissing, "Image '" + host + "other' not found."},
		{"giggle", host + "jokes:v9", artifacts.ReasonContainerMissing, "not found."},
		{"giggle", host + "team/jokes@" + one, artifacts.ReasonContainerMissing, "not found."}, // another image's
		{"giggle", strings.Replace(host, "my-repo", "gone", 1) + "jokes", artifacts.ReasonContainerMissing, "not found."},
		{"giggle", "nginx", artifacts.ReasonContainerMissing, "giggle images add"},
		{"giggle", "gcr.io/cloudrun/hello", artifacts.ReasonContainerMissing, "giggle images add"},
		{"giggle", host + "UPPER", artifacts.ReasonContainerMissing, "not the name of an image"},
		{"giggle", host + "jokes@sha256:1", artifacts.ReasonContainerMissing, "not a digest"},
		{"giggle", "", artifacts.ReasonContainerMissing, "Artifact Registry"},
		{"another-one", host + "jokes", artifacts.ReasonContainerDenied, "other projects"},
	} {
		got, err := w.Resolve(t.Context(), tt.project, tt.ref)
		if f := fault.From(err); err == nil || f.Reason != tt.reason || !strings.Contains(f.Message, tt.message) {
			t.Errorf("Resolve(%s, %s) = %q, %v; want %s: …%s…", tt.project, tt.ref, got, err, tt.reason, tt.message)
		}
	}
}

func TestPushRefuses(t *testing.T) {
	w := newWorld(t)
	w.repository(t, "my-repo")
	put := func(s string) string {
		t.Helper()
		info, err := w.blobs.Put(t.Context(), strings.NewReader(s), "")
		if err != nil {
			t.Fatal(err)
		}
		return string(info.Digest)
	}
	none := "sha256:" + strings.Repeat("0", 64)
	for name, digest := range map[string]string{
		"not there":         none,
		"not a manifest":    put("hello"),
		"its config absent": put(`{"schemaVersion":2,"config":{"digest":"` + none + `","size":1}}`),
		"not a digest":      "latest",
	} {
		if err := w.Push(t.Context(), host+"jokes", digest); err == nil {
			t.Errorf("%s: pushed", name)
		}
	}
	if err := w.Push(t.Context(), "nginx:latest", put("hello")); err == nil {
		t.Error("pushed to a foreign registry")
	}
	images, err := w.Packages(t.Context(), repository("my-repo").Name)
	if err != nil || len(images) != 0 {
		t.Errorf("what was refused left %v, %v", images, err)
	}

	// An index that nests without end: each level names the one below.
	d, size := put(`{"schemaVersion":2,"manifests":[]}`), len(`{"schemaVersion":2,"manifests":[]}`)
	for range 5 {
		s := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":%q,"size":%d}]}`, d, size)
		d, size = put(s), len(s)
	}
	if err := w.Push(t.Context(), host+"deep", d); fault.From(err).Reason != artifacts.ReasonManifestInvalid {
		t.Errorf("a deep index: %v", err)
	}
}

func TestRepositories(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	op, err := w.CreateRepository(ctx, repository("my-repo"))
	if err != nil {
		t.Fatal(err)
	}
	var made artifacts.Repository
	if err := json.Unmarshal(op.Response, &made); err != nil || !op.Done || op.Verb != "create" ||
		made.Name != repository("my-repo").Name || made.Created.IsZero() {
		t.Errorf("operation %+v, response %+v, %v", op, made, err)
	}
	w.open(t)
	if got, err := operation.New(w.store).Get(ctx, artifacts.OperationKind, op.Name); err != nil || !got.Done {
		t.Errorf("the operation after a restart: %+v, %v", got, err)
	}
	if _, err := w.CreateRepository(ctx, repository("my-repo")); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("made twice: %v", err)
	}

	for _, tt := range []struct {
		change func(*artifacts.Repository)
		code   fault.Code
		field  string
	}{
		{func(r *artifacts.Repository) { r.Format = "MAVEN" }, fault.Unimplemented, "repository.format"},
		{func(r *artifacts.Repository) { r.Format = "" }, fault.InvalidArgument, "repository.format"},
		{func(r *artifacts.Repository) { r.Name.ID = "My" }, fault.InvalidArgument, "repositoryId"},
		{func(r *artifacts.Repository) { r.Name.ID = strings.Repeat("a", 64) }, fault.InvalidArgument, "repositoryId"},
		{func(r *artifacts.Repository) { r.Name.Location.Location = "moon" }, fault.InvalidArgument, "parent"},
		{func(r *artifacts.Repository) { r.Name.Location.Location = "EU" }, fault.InvalidArgument, "parent"},
		{func(r *artifacts.Repository) { r.Labels = map[string]string{"A": "b"} }, fault.InvalidArgument, "repository.labels"},
		{func(r *artifacts.Repository) {
			r.Description = strings.Repeat("x",
				1025)
		}, fault.InvalidArgument, "repository.description"},
	} {
		r := repository("another")
		tt.change(&r)
		_, err := w.CreateRepository(ctx, r)
		if f := fault.From(err); f == nil || f.Code != tt.code || len(f.Fields) != 1 || f.Fields[0].Path != tt.field {
			t.Errorf("create %+v: %v, want %s at %s", r, err, tt.code, tt.field)
		}
	}

	us := repository("in-us")
	us.Name.Location.Location = "us"
	if _, err := w.CreateRepository(ctx, us); err != nil {
		t.Fatal(err)
	}
	w.repository(t, "a-repo")
	for in, want := range map[resource.Location]string{
		{Project: "giggle", Location: "europe-north1"}: "a-repo my-repo",
		{Project: "giggle", Location: "-"}:             "a-repo my-repo in-us",
		{Project: "giggle", Location: "asia"}:          "",
		{Project: "other", Location: "-"}:              "",
		{Project: "-", Location: "us"}:                 "in-us",
	} {
		all, err := w.Repositories(ctx, in, "", 0)
		var ids []string
		for _, r := range all {
			ids = append(ids, r.Name.ID)
		}
		if got := strings.Join(ids, " "); err != nil || got != want {
			t.Errorf("in %s: %s, %v; want %s", in, got, err, want)
		}
	}
	first, err := w.Repositories(ctx, repository("").Name.Location, "", 1)
	if err != nil || len(first) != 1 {
		t.Fatalf("the first: %v, %v", first, err)
	}
	second, err := w.Repositories(ctx, repository("").Name.Location, first[0].Name.String(), 5)
	if err != nil || len(second) != 1 || second[0].Name.ID != "my-repo" {
		t.Errorf("the next: %v, %v", second, err)
	}
}

// A repository that is deleted leaves nothing that one of the same name would have.
func TestDeleteRepository(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.repository(t, "my-repo")
	w.repository(t, "my-repo-2")
	digest := w.assemble(t, "one")
	for _, name := range []string{host + "jokes", strings.Replace(host, "my-repo", "my-repo-2", 1) + "jokes"} {
		if err := w.Push(ctx, name, digest); err != nil {
			t.Fatal(err)
		}
	}
	name := repository("my-repo").Name
	if n, err := w.Size(ctx, name); err != nil || n == 0 {
		t.Errorf("size %d, %v", n, err)
	}
	op, err := w.DeleteRepository(ctx, name)
	if err != nil || !op.Done || op.Verb != "delete" {
		t.Fatalf("%+v, %v", op, err)
	}
	if _, err := w.DeleteRepository(ctx, name); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	if _, err := w.Resolve(ctx, "giggle", host+"jokes"); !fault.Is(err, fault.NotFound) {
		t.Errorf("its image: %v", err)
	}
	w.repository(t, "my-repo")
	if _, err := w.Resolve(ctx, "giggle", host+"jokes@"+digest); !fault.Is(err, fault.NotFound) {
		t.Errorf("the new one has the old one's image: %v", err)
	}
	if n, err := w.Size(ctx, name); err != nil || n != 0 {
		t.Errorf("size of the new one: %d, %v", n, err)
	}
	if _, err := w.Blob(ctx, name, blob.Digest(digest)); !fault.Is(err, fault.NotFound) {
		t.Errorf("a blob of the old one: %v", err)
	}
	if _, err := w.Resolve(ctx, "giggle", strings.Replace(host, "my-repo", "my-repo-2", 1)+"jokes"); err != nil {
		t.Errorf("its neighbour's image: %v", err)
	}
}

func TestParseReference(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		host + "jokes":                       host + "jokes:latest",
		host + "a/b-c/d_e.f:V1.0":            host + "a/b-c/d_e.f:V1.0",
		host + "jokes@" + d:                  host + "jokes@" + d,
		host + "jokes:v1@" + d:               host + "jokes:v1@" + d,
		"us-docker.pkg.dev/p-1234/r/i":       "us-docker.pkg.dev/p-1234/r/i:latest",
		"us-docker.pkg.dev/123456789012/r/i": "us-docker.pkg.dev/123456789012/r/i:latest",
	} {
		if got, err := artifacts.ParseReference(in); err != nil || got.String() != want {
			t.Errorf("ParseReference(%s) = %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "jokes", "docker.pkg.dev/p-1234/r/i", "moon-docker.pkg.dev/p-1234/r/i", "us-docker.pkg.dev/p-1234/r", host,
		host + "a//b", host + "a/", host + "..",
		host + "jokes:", host + "jokes:-x", host + "jokes@", host + "jokes@sha256:x", host + strings.Repeat("a", 300),
		strings.Repeat("a", 1000),
		"https://" + host + "jokes", "EUROPE-NORTH1-docker.pkg.dev/giggle/my-repo/jokes", host + "jokes:v1:v2",
	} {
		if got, err := artifacts.ParseReference(in); err == nil {
			t.Errorf("ParseReference(%.50s) = %s", in, got)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{host + "jokes", host + "a/b:v1", host + "i@sha256:" + strings.Repeat("0", 64),
		"us-docker.pkg.dev/a/b/c", "nginx:1", "@:@/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := artifacts.ParseReference(s)
		if err != nil {
			if fault.CodeOf(err) == fault.Internal {
				t.Fatalf("ParseReference(%q): %v", s, err)
			}
			return
		}
		again, err := artifacts.ParseReference(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %+v, and again %+v, %v", s, r, again, err)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	for _, s := range []string{
		`{"schemaVersion":2,"manifests":[]}`,
		`{"schemaVersion":2,"config":{"digest":"sha256:` + strings.Repeat("0", 64) +
			`","size":2},"layers":[{"size":-1}]}`,
		`{"schemaVersion":1}`, `null`, `[]`, `{"schemaVersion":2,"subject":{"digest":"x"},"manifests":null}`,
	} {
		f.Add([]byte(s), "application/vnd.oci.image.manifest.v1+json")
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, body []byte, mediaType string) {
		m, err := artifacts.ParseManifest(body, mediaType)
		if err != nil {
			if fault.From(err).Reason != artifacts.ReasonManifestInvalid {
				t.Fatalf("ParseManifest(%q): %v", body, err)
			}
			return
		}
		for _, d := range append(m.Blobs, m.Manifests...) {
			if _, err := blob.ParseDigest(string(d)); err != nil {
				t.Fatalf("ParseManifest(%q): %v", body, err)
			}
		}
		if len(m.Blobs) > 0 && len(m.Manifests) > 0 {
			t.Fatalf("ParseManifest(%q) is an image and an index", body)
		}
	})
}

var _ interface {
	Resolve(ctx context.Context, project, ref string) (string, error)
	Push(ctx context.Context, name, digest string) error
} = (*artifacts.Artifacts)(nil)
