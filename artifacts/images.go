package artifacts

import (
	"context"

	"giggle/blob"
	"giggle/fault"
	"giggle/store"
)

// Reasons of Resolve's faults: those of Cloud Run's condition ContainerReady.
const (
	ReasonContainerMissing = "ContainerMissing"
	ReasonContainerDenied  = "ContainerPermissionDenied"
)

// Resolve returns an image reference with its tag replaced by the digest of what the tag is on now: an image's, or an
// index's. It reads references as Cloud Run does: no tag means latest, and of tag and digest the digest counts. Faults
// have Cloud Run's reasons and words.
func (a *Artifacts) Resolve(ctx context.Context, project, ref string) (_ string, err error) {
	defer fault.Wrap(&err, "artifacts.Resolve(%.200s)", ref)
	r, err := ParseReference(ref)
	if err != nil {
		e := *fault.From(err)
		e.Reason = ReasonContainerMissing
		return "", &e
	}
	if r.Repository.Project != project && IsLegacy(r.Repository) {
		return "", withReason(ReasonContainerMissing, fault.NotFound,
			"Image '%s' not found in project %s. %s", ref, project, HowToBring(ref))
	}
	if r.Repository.Project != project {
		return "", withReason(ReasonContainerDenied, fault.PermissionDenied,
			"Cloud Run in project %s may not read the image, %s. Ensure that the provided container image URL is correct; images of other projects can't be deployed.", project, ref)
	}
	m, err := a.Manifest(ctx, r)
	if fault.Is(err, fault.NotFound) {
		return "", &fault.Error{
			Code:    fault.NotFound,
			Message: "Image '" + ref + "' not found.",
			Reason:  ReasonContainerMissing,
			Cause:   err,
		}
	}
	if err != nil {
		return "", err
	}
	return r.Name() + "@" + string(m.Digest), nil
}

// Push puts a manifest whose bytes and blobs are in the platform's store under a name,
// "HOST/PROJECT/REPOSITORY/IMAGE:TAG": it is how a build delivers its image. The manifests of an index come with it. It
// fails with NotFound when there is no such repository.
func (a *Artifacts) Push(ctx context.Context, name, digest string) (err error) {
	defer fault.Wrap(&err, "artifacts.Push(%.200s, %.80s)", name, digest)
	ref, err := ParseReference(name)
	if err != nil {
		return err
	}
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	if ref.Digest != "" && ref.Digest != d {
		return fault.New(fault.InvalidArgument, "%s can't be pushed as %s.", d, name)
	}
	all, err := a.tree(ctx, d, 2)
	if err != nil {
		return err
	}
	sizes := make(map[blob.Digest]int64)
	var needed []blob.Digest
	for _, m := range all {
		needed = append(append(needed, m.Digest), m.Blobs...)
	}
	release, err := a.hold(ctx, needed...)
	if err != nil {
		return err
	}
	defer release()
	for _, m := range all {
		for _, d := range m.Blobs {
			r, info, err := a.blobs.Open(ctx, d)
			if err != nil {
				return err
			}
			if err := r.Close(); err != nil {
				return err
			}
			sizes[d] = info.Size
		}
	}
	return a.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, ref.Repository); err != nil {
			return err
		}
		for d, n := range sizes {
			if err := addBlob(tx, ref.Repository, d, n); err != nil {
				return err
			}
		}
		for i, m := range all {
			var names []string
			if i == len(all)-1 && ref.Tag != "" {
				names = []string{ref.Tag}
			}
			if err := addManifest(tx, ref.Image, names, m); err != nil {
				return err
			}
		}
		return nil
	})
}

// tree reads a manifest and those below it, the lowest first: indexes nest at most depth times.
func (a *Artifacts) tree(ctx context.Context, d blob.Digest, depth int) ([]Manifest, error) {
	body, err := a.read(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(body, "")
	if err != nil {
		return nil, err
	}
	m.Digest = d
	a.describe(ctx, &m)
	if len(m.Manifests) > 0 && depth == 0 {
		return nil, withReason(ReasonManifestInvalid, fault.InvalidArgument, "Index %s nests too deep.", d)
	}
	var all []Manifest
	for _, child := range m.Manifests {
		below, err := a.tree(ctx, child, depth-1)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return append(all, m), nil
}
