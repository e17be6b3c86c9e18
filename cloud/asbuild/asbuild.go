// Package asbuild is what builds do on the platform, as the service account that each runs as: they read sources, pull
// and push images, write objects and logs.
//
// It stands between package builds, which knows no other product, and the products: it names what a build means, asks
// whether the build's account may, and does it. It runs nothing and keeps nothing.
package asbuild

import (
	"context"
	"io"
	"log/slog"
	"time"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/git"
	"giggle/iam"
	"giggle/logging"
	"giggle/oci"
	"giggle/resource"
	"giggle/storage"
)

// Identity says who may do what: *iam.IAM.
type Identity interface {
	Allowed(p iam.Principal, permission, resource string) bool
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
}

// Storage keeps sources, logs and what builds make: *storage.Storage.
type Storage interface {
	BucketProject(ctx context.Context, bucket string) (string, error)
	Open(
		ctx context.Context, bucket, name string, generation int64, cond storage.Conditions,
	) (storage.Object, io.ReadSeekCloser, error)
	Put(ctx context.Context, in storage.Insert, r io.Reader) (storage.Object, error)
	CreateLog(ctx context.Context, in storage.Insert) (*storage.Log, error)
}

// Artifacts keeps the platform's images: *artifacts.Artifacts.
type Artifacts interface {
	Manifest(ctx context.Context, ref artifacts.Reference) (artifacts.Manifest, error)
	CreateOnPush(ctx context.Context, repository resource.Child) error
	Push(ctx context.Context, image, digest string) error
}

// Foreign finds foreign images: *mirror.Puller.
type Foreign interface {
	Image(
		ctx context.Context, name string, into *blob.Dir,
		unpack func(ctx context.Context, digest string) (oci.Image, error), say func(line string),
	) (oci.Image, error)
	Copy(ctx context.Context, name string, into *blob.Dir, say func(line string)) (oci.Manifest, error)
}

// Images unpacks images: *oci.Images.
type Images interface {
	Unpack(ctx context.Context, digest string) (oci.Image, error)
}

// Repos has the repositories of sources: *git.Repos.
type Repos interface {
	Get(ctx context.Context, project, name string) (git.Repo, error)
	Clone(ctx context.Context, r git.Repo, commit, url string, w io.Writer) error
}

// Entries keeps the lines of builds' logs as log entries: a logging.Log.
type Entries interface {
	Append(e logging.Entry)
}

// Config is what builds act on.
type Config struct {
	Project   resource.FindProject
	Identity  Identity
	Storage   Storage
	Artifacts Artifacts
	Foreign   Foreign
	Images    Images
	Repos     Repos
	Blobs     *blob.Dir // the platform's own
	// Dir is where the archive of a commit is made, on the file system that the disk's reserve is kept of.
	Dir string
	// Writer returns a writer that fails when the disk is full.
	Writer func(w io.Writer) io.Writer
	// Background runs what nobody waits for.
	Background func(func())
	Entries    Entries
	Now        func() time.Time
	Log        *slog.Logger
}

// Access acts as the accounts of builds. It is the scheduler's Sources, Logs, Images and Objects, the Images of steps,
// and the Registry of docker steps.
type Access struct{ cfg Config }

// New returns what acts as the accounts of builds.
func New(cfg Config) *Access { return &Access{cfg} }

// account is whom a build acts as.
func account(email string) iam.Principal { return iam.ServiceAccount(email) }

// object is an object's name in policies.
func object(project, bucket, name string) string {
	return "projects/" + project + "/buckets/" + bucket + "/objects/" + name
}
