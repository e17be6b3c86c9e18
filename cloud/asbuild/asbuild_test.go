package asbuild_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/builds"
	"giggle/cloud/asbuild"
	"giggle/fault"
	"giggle/git"
	"giggle/iam"
	"giggle/logging"
	"giggle/oci"
	"giggle/resource"
	"giggle/storage"
)

// platform stands for all products: it says what was done to it, in order.
type platform struct {
	may  []string // "PERMISSION on RESOURCE"
	did  []string
	full bool

	entries []logging.Entry
}

func (p *platform) Append(e logging.Entry) { p.entries = append(p.entries, e) }

func (p *platform) do(format string, args ...any) {
	p.did = append(p.did, fmt.Sprintf(format, args...))
}

func (p *platform) Allowed(who iam.Principal, permission, on string) bool {
	return who == iam.ServiceAccount("builder@giggle.test") && slices.Contains(p.may, permission+" on "+on)
}

func (p *platform) Authorize(_ context.Context, who iam.Principal, permission, on string) error {
	if !p.Allowed(who, permission, on) {
		return fault.New(fault.PermissionDenied, "%s on %s", permission, on)
	}
	return nil
}

func (p *platform) BucketProject(_ context.Context, bucket string) (string, error) {
	if bucket == "gone" {
		return "", fault.New(fault.NotFound, "no bucket")
	}
	return "owner-1", nil
}

type nothing struct{ *strings.Reader }

func (nothing) Close() error { return nil }

func (p *platform) Open(
	_ context.Context, bucket, name string, _ int64, _ storage.Conditions,
) (storage.Object, io.ReadSeekCloser, error) {
	p.do("open %s/%s", bucket, name)
	return storage.Object{Size: 3}, nothing{strings.NewReader("abc")}, nil
}

func (p *platform) Put(_ context.Context, in storage.Insert, _ io.Reader) (storage.Object, error) {
	if p.full {
		if err := in.MayReplace(); err != nil {
			return storage.Object{}, err
		}
	}
	p.do("put %s/%s", in.Bucket, in.Name)
	return storage.Object{Generation: 7}, nil
}

func (p *platform) CreateLog(_ context.Context, in storage.Insert) (*storage.Log, error) {
	p.do("log %s/%s, replacing=%v", in.Bucket, in.Name, in.MayReplace != nil)
	return nil, nil
}

// images are the parts that have methods of the same names.
type images struct{ *platform }

func (i images) Manifest(_ context.Context, ref artifacts.Reference) (artifacts.Manifest, error) {
	i.do("manifest of %s", ref.Repository)
	return artifacts.Manifest{Digest: "sha256:own"}, nil
}

func (i images) CreateOnPush(_ context.Context, repository resource.Child) error {
	i.do("create %s", repository)
	return nil
}

func (i images) Push(_ context.Context, image, digest string) error {
	i.do("push %s %s", image, digest)
	return nil
}

func (i images) Unpack(_ context.Context, digest string) (oci.Image, error) {
	i.do("unpack %s", digest)
	return oci.Image{Digest: digest}, nil
}

type foreign struct{ *platform }

func (f foreign) Image(
	_ context.Context, name string, _ *blob.Dir, _ func(context.Context, string) (oci.Image, error), _ func(string),
) (oci.Image, error) {
	if name != "ubuntu:latest" {
		return oci.Image{}, fault.New(fault.NotFound, "not in the mirror")
	}
	return oci.Image{Digest: "sha256:foreign"}, nil
}

func (f foreign) Copy(ctx context.Context, name string, _ *blob.Dir, _ func(string)) (oci.Manifest, error) {
	img, err := f.Image(ctx, name, nil, nil, nil)
	if err == nil {
		f.do("copy %s", name)
	}
	return oci.Manifest{Digest: img.Digest}, err
}

type repos struct{ *platform }

func (r repos) Get(_ context.Context, project, name string) (git.Repo, error) {
	return git.Repo{Project: project, Name: name}, nil
}

func (r repos) Clone(_ context.Context, repo git.Repo, commit, _ string, w io.Writer) error {
	r.do("archive %s@%s", repo.Name, commit)
	_, err := io.WriteString(w, "tar")
	return err
}

func newAccess(t *testing.T, may ...string) (*asbuild.Access, *platform) {
	p := &platform{may: may}
	return asbuild.New(asbuild.Config{
		Project: func(ref string) (resource.Project, error) {
			if ref == "no-project" {
				return resource.Project{}, fault.New(fault.NotFound, "no project")
			}
			return resource.Project{ID: "proj-1", Number: "123"}, nil
		},
		Identity:   p,
		Storage:    p,
		Artifacts:  images{p},
		Foreign:    foreign{p},
		Images:     images{p},
		Repos:      repos{p},
		Dir:        t.TempDir(),
		Writer:     func(w io.Writer) io.Writer { return w },
		Background: func(do func()) { do() },
		Entries:    p,
		Now:        func() time.Time { return time.Unix(1_800_000_000, 0) },
		Log:        slog.New(slog.DiscardHandler),
	}), p
}

func build() builds.Build {
	return builds.Build{
		Name:    resource.Build("proj-1", "global", "b-1"),
		Project: "proj-1",
		Account: "builder@giggle.test",
		Source:  builds.Source{Bucket: "uploads", Object: "src.tgz"},
	}
}

const (
	image  = "europe-north1-docker.pkg.dev/123/apps/jokes:v1"
	apps   = "projects/proj-1/locations/europe-north1/repositories/apps"
	object = "projects/owner-1/buckets/out/objects/file"
)

// Nothing is done that the build's account may not do, and all that it may.
func TestAsTheBuildsAccount(t *testing.T) {
	const legacy = "projects/proj-1/locations/us/repositories/gcr.io"
	for _, tt := range []struct {
		name string
		do   func(ctx context.Context, a *asbuild.Access) error
		may  []string
		did  string
	}{
		{
			"read an uploaded source",
			func(ctx context.Context, a *asbuild.Access) error { _, _, err := a.Open(ctx, build()); return err },
			[]string{"storage.objects.get on projects/owner-1/buckets/uploads/objects/src.tgz"},
			"open uploads/src.tgz",
		},
		{
			"read a commit",
			func(ctx context.Context, a *asbuild.Access) error {
				b := build()
				b.Source = builds.Source{Repo: &builds.Repo{Name: "app", Commit: "c0"}}
				r, size, err := a.Open(ctx, b)
				if err == nil && size != 3 {
					err = fmt.Errorf("%d bytes", size)
				}
				if err == nil {
					err = r.Close()
				}
				return err
			},
			[]string{"source.repos.get on projects/proj-1/repos/app"},
			"archive app@c0",
		},
		{
			"write an object",
			func(ctx context.Context, a *asbuild.Access) error {
				_, err := a.Put(ctx, build(), "out", "file", strings.NewReader("x"))
				return err
			},
			[]string{"storage.objects.create on " + object},
			"put out/file",
		},
		{
			"push",
			func(ctx context.Context, a *asbuild.Access) error { return a.Push(ctx, build(), image, "sha256:new") },
			[]string{"artifactregistry.repositories.uploadArtifacts on " + apps},
			"push europe-north1-docker.pkg.dev/123/apps/jokes:v1 sha256:new, unpack sha256:new",
		},
		{
			"push from a docker step to gcr.io",
			func(ctx context.Context, a *asbuild.Access) error {
				return a.Push(ctx, build(), "gcr.io/proj-1/jokes", "sha256:new")
			},
			[]string{
				"artifactregistry.repositories.uploadArtifacts on " + legacy,
				"artifactregistry.repositories.createOnPush on projects/proj-1",
			},
			"create " + legacy + ", push gcr.io/proj-1/jokes sha256:new, unpack sha256:new",
		},
		{
			"find a step's image",
			func(ctx context.Context, a *asbuild.Access) error {
				_, err := a.Image(ctx, build(), image, nil)
				return err
			},
			[]string{"artifactregistry.repositories.downloadArtifacts on " + apps},
			"manifest of " + apps + ", unpack sha256:own",
		},
		{
			"pull in a docker step",
			func(ctx context.Context, a *asbuild.Access) error {
				_, err := a.Pull(ctx, build(), image, nil)
				return err
			},
			[]string{"artifactregistry.repositories.downloadArtifacts on " + apps},
			"manifest of " + apps,
		},
		{
			"log to a bucket that the user named",
			func(ctx context.Context, a *asbuild.Access) error {
				b := build()
				b.LogsIn = "logs"
				_, err := a.Create(ctx, b)
				return err
			},
			[]string{"storage.objects.create on projects/owner-1/buckets/logs/objects/log-b-1.txt"},
			"log logs/log-b-1.txt, replacing=true",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, p := newAccess(t, tt.may...)
			if err := tt.do(t.Context(), a); err != nil || strings.Join(p.did, ", ") != tt.did {
				t.Errorf("%v: did %q, want %q", err, p.did, tt.did)
			}
			a, p = newAccess(t)
			if err := tt.do(t.Context(), a); !fault.Is(err, fault.PermissionDenied) || len(p.did) > 0 {
				t.Errorf("without permission: %v, did %q", err, p.did)
			}
		})
	}
}

// What belongs to nobody takes no permission: foreign images, and the project's own logs.
func TestWithoutPermission(t *testing.T) {
	a, p := newAccess(t)
	ctx := t.Context()
	if img, err := a.Image(ctx, build(), "ubuntu", nil); err != nil || img.Digest != "sha256:foreign" {
		t.Errorf("a foreign image: %v, %v", img, err)
	}
	if digest, err := a.Pull(ctx, build(), "docker.io/library/ubuntu", nil); err != nil || digest != "sha256:foreign" {
		t.Errorf("pulled %s, %v", digest, err)
	}
	b := build()
	b.LogsIn = storage.LogsBucketName(resource.Project{ID: "proj-1", Number: "123"})
	if _, err := a.Create(ctx, b); err != nil {
		t.Error(err)
	}
	b.LogsIn = ""
	w, err := a.Create(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "x"); err != nil || w.Close() != nil {
		t.Error(err)
	}
	want := "copy ubuntu:latest, log 123.cloudbuild-logs.googleusercontent.com/log-b-1.txt, replacing=false"
	if got := strings.Join(p.did, ", "); got != want {
		t.Errorf("did %q, want %q", got, want)
	}
	for _, name := range []string{"alpine", "gcr.io/other-project/app"} {
		if _, err := a.Image(ctx, build(), name, nil); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A new object takes one permission, and one that is there another.
func TestReplacing(t *testing.T) {
	for may, code := range map[string]fault.Code{"": fault.PermissionDenied, "storage.objects.delete on " + object: 0} {
		a, p := newAccess(t, "storage.objects.create on "+object, may)
		p.full = true
		if _, err := a.Put(t.Context(), build(), "out", "file", strings.NewReader("x")); err != nil &&
			fault.CodeOf(err) != code || err == nil && code != 0 {
			t.Errorf("may %q: %v", may, err)
		}
	}
}

// Each line of a build's log is an entry, unless the build's options say otherwise.
func TestLinesBecomeEntries(t *testing.T) {
	spec := func(mode string) builds.Spec { return builds.Spec{Options: builds.Options{Logging: mode}} }
	for name, tt := range map[string]struct {
		spec    builds.Spec
		entries bool
	}{
		"unsaid": {spec(""), true}, "legacy": {spec("LEGACY"), true}, "only entries": {spec(builds.LoggingCloud), true},
		"only entries, by the old name": {spec("STACKDRIVER_ONLY"), true}, "only the object": {spec("GCS_ONLY"), false},
		"none": {spec(builds.LoggingNone), false},
	} {
		a, p := newAccess(t)
		b := build()
		b.Spec, b.Trigger = tt.spec, "t-1"
		log, err := a.Create(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"starting\nStep", " #0: hello\r\n", "end"} {
			if n, err := io.WriteString(log, text); n != len(text) || err != nil {
				t.Errorf("%s: wrote %d, %v", name, n, err)
			}
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		var want []logging.Entry
		for _, text := range []string{"starting", "Step #0: hello", "end"} {
			want = append(want, logging.Entry{
				Project:  "proj-1",
				Log:      "cloudbuild",
				Time:     time.Unix(1_800_000_000, 0),
				Severity: logging.Info,
				Text:     text,
				Resource: &logging.Resource{Type: "build", Labels: map[string]string{"project_id": "proj-1",
					"build_id": "b-1", "build_trigger_id": "t-1"}},
			})
		}
		if !tt.entries {
			want = nil
		}
		if d := cmp.Diff(want, p.entries); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
