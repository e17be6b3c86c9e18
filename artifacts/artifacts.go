// Package artifacts is Artifact Registry as a product: repositories, and in them images (packages), their manifests
// (versions), tags and blobs.
//
// It serves artifacts/registry (the OCI distribution protocol), api/artifactregistry, and what needs an image by its
// name: a deploy resolves references with it, a build pushes with it. Bytes lie in package blob under their digest;
// what of them belongs to which repository are rows in package store. It knows repositories of the format DOCKER only,
// holds no foreign images (package artifacts/mirror does), checks no permissions, and deletes no bytes: it forgets
// that a repository had a blob, and tells the collector of package blob what is needed.
package artifacts

import (
	"context"
	"io"
	"strings"

	"giggle/blob"
	"giggle/fault"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// Blobs is where content lies: *blob.Dir.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, want blob.Digest) (blob.Info, error)
	Open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, blob.Info, error)
	Hold(ctx context.Context, d blob.Digest) (release func(), err error)
	Reserve(d blob.Digest) (release func())
}

var _ Blobs = (*blob.Dir)(nil)

// Config is what New needs.
type Config struct {
	Store *store.Store
	Blobs Blobs
	NewID func() string // of operations
	// Released hears of blobs and manifests that something in a repository has just ceased to refer to, after it is on
	// disk: what collects garbage asks ForgetIn and Needed then. It may be nil and must not block.
	Released func(repository resource.Child, of []blob.Digest)
	Quotas   *quota.Limits // nil is the usual ones
}

// Artifacts is all repositories of a platform. It is safe for concurrent use.
type Artifacts struct {
	cfg   Config
	store *store.Store
	blobs Blobs
	asked recently // blobs of repositories that a push may count on
}

// New returns the repositories in the store.
func New(cfg Config) *Artifacts {
	return &Artifacts{cfg: cfg, store: cfg.Store, blobs: cfg.Blobs, asked: newRecently(cfg.Store.Now())}
}

// The reasons of faults that the registry's clients tell apart: the error codes of the OCI distribution specification.
const (
	ReasonName            = "NAME_UNKNOWN"          // NotFound: no such repository, or no such image in it
	ReasonManifest        = "MANIFEST_UNKNOWN"      // NotFound: no such tag or digest
	ReasonBlob            = "BLOB_UNKNOWN"          // NotFound: the repository does not have the blob
	ReasonManifestInvalid = "MANIFEST_INVALID"      // InvalidArgument
	ReasonManifestBlob    = "MANIFEST_BLOB_UNKNOWN" // InvalidArgument: a manifest refers to what is not there
	ReasonNameInvalid     = "NAME_INVALID"          // InvalidArgument
	// FailedPrecondition: what something else refers to can't go before it
	ReasonInUse     = "UNSUPPORTED"
	ReasonImmutable = "DENIED" // FailedPrecondition: the repository's tags stay what they are
	// FailedPrecondition, in the distribution protocol: Artifact Registry's own codes for a manifest that a tag, or an
	// index, refers to
	ReasonTagged  = "GOOGLE_MANIFEST_DANGLING_TAG"
	ReasonInIndex = "GOOGLE_MANIFEST_DANGLING_PARENT_IMAGE"
)

func withReason(reason string, code fault.Code, format string, args ...any) *fault.Error {
	e := fault.New(code, format, args...)
	e.Reason = reason
	return e
}

// Blob is a blob that a repository has.
type Blob struct{ Size int64 }

var blobs = store.NewTable[Blob]("artifacts.blob", "Blob").
	By(func(name string, _ Blob) string { return string(digestIn(name)) }).
	Sum(func(_ *store.Tx, name string, b Blob) (string, int64, error) { return storedIn(name), b.Size, nil })

// storedIn is the sum of the bytes of the project that a row is in.
func storedIn(name string) string {
	project, _, _ := strings.Cut(strings.TrimPrefix(name, "projects/"), "/")
	return quota.Stored(project)
}

// digestIn is the digest that the name of a blob's row ends with.
func digestIn(name string) blob.Digest { return blob.Digest(name[strings.LastIndexByte(name, '/')+1:]) }

func blobName(repository resource.Child, d blob.Digest) string {
	return repository.String() + "/blobs/" + string(d)
}

// Blob returns what the repository knows of a blob, or NotFound. A blob that only other repositories have is not found.
func (a *Artifacts) Blob(ctx context.Context, repository resource.Child, d blob.Digest) (b Blob, err error) {
	defer fault.Wrap(&err, "artifacts.Blob(%s, %s)", repository, d)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, repository); err != nil {
			return err
		}
		b, err = getBlob(tx, repository, d)
		return err
	})
	if err == nil {
		a.asked.add(blobName(repository, d), a.store.Now())
	}
	return b, err
}

func getBlob(tx *store.Tx, repository resource.Child, d blob.Digest) (Blob, error) {
	row, err := blobs.Get(tx, blobName(repository, d))
	if fault.Is(err, fault.NotFound) {
		err = withReason(ReasonBlob, fault.NotFound, "Repository %q has no blob %s.", repository.ID, d)
	}
	return row.Value, err
}

// AddBlob makes a blob that the store of bytes holds a blob of the repository.
func (a *Artifacts) AddBlob(ctx context.Context, repository resource.Child, info blob.Info) (err error) {
	defer fault.Wrap(&err, "artifacts.AddBlob(%s, %s)", repository, info.Digest)
	release, err := a.hold(ctx, info.Digest)
	if err != nil {
		return err
	}
	defer release()
	a.asked.add(blobName(repository, info.Digest), a.store.Now())
	return a.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, repository); err != nil {
			return err
		}
		return addBlob(tx, repository, info.Digest, info.Size)
	})
}

func addBlob(tx *store.Tx, repository resource.Child, d blob.Digest, size int64) error {
	if _, err := blobs.Create(tx, blobName(repository, d), Blob{size}); !fault.Is(err, fault.AlreadyExists) {
		return err
	}
	return nil
}

// MountBlob makes a blob of one repository a blob of another, too. It fails with NotFound when the first has it not.
func (a *Artifacts) MountBlob(ctx context.Context, to, from resource.Child, d blob.Digest) (err error) {
	defer fault.Wrap(&err, "artifacts.MountBlob(%s, %s, %s)", to, from, d)
	release, err := a.hold(ctx, d)
	if err != nil {
		return err
	}
	defer release()
	a.asked.add(blobName(to, d), a.store.Now())
	return a.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, to); err != nil {
			return err
		}
		b, err := getBlob(tx, from, d)
		if err != nil {
			return err
		}
		return addBlob(tx, to, d, b.Size)
	})
}

// DeleteBlob takes a blob out of the repository. One that a manifest there refers to stays, with FailedPrecondition.
func (a *Artifacts) DeleteBlob(ctx context.Context, repository resource.Child, d blob.Digest) (err error) {
	defer fault.Wrap(&err, "artifacts.DeleteBlob(%s, %s)", repository, d)
	return a.releasing(ctx, repository, func(tx *store.Tx, released func(...blob.Digest)) error {
		released(d)
		return a.deleteBlob(tx, repository, d)
	})
}

// releasing is Update for what takes something out of a repository: it tells Released of it once it is on disk.
func (a *Artifacts) releasing(
	ctx context.Context, repository resource.Child, fn func(tx *store.Tx, released func(...blob.Digest)) error,
) error {
	var gone []blob.Digest
	err := a.store.Update(ctx, func(tx *store.Tx) error {
		gone = nil
		return fn(tx, func(of ...blob.Digest) { gone = append(gone, of...) })
	})
	if err == nil && a.cfg.Released != nil && len(gone) > 0 {
		a.cfg.Released(repository, gone)
	}
	return err
}

func (a *Artifacts) deleteBlob(tx *store.Tx, repository resource.Child, d blob.Digest) error {
	if _, err := getRepository(tx, repository); err != nil {
		return err
	}
	if _, err := getBlob(tx, repository, d); err != nil {
		return err
	}
	rows, err := manifests.List(tx, repository.String()+"/packages/", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		for _, ref := range r.Value.Blobs {
			if ref == d {
				return withReason(ReasonInUse, fault.FailedPrecondition,
					"Blob %s is part of manifest %s: delete that first.", d, r.Value.Digest)
			}
		}
	}
	return blobs.Delete(tx, blobName(repository, d))
}
