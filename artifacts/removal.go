package artifacts

import (
	"context"
	"slices"

	"giggle/blob"
	"giggle/fault"
	"giggle/operation"
	"giggle/store"
)

// DeleteManifest removes a manifest, as Artifact Registry does in the distribution protocol: one that a tag or an index
// refers to stays. Its blobs stay in the repository. It fails with NotFound and FailedPrecondition.
func (a *Artifacts) DeleteManifest(ctx context.Context, image Image, d blob.Digest) (err error) {
	defer fault.Wrap(&err, "artifacts.DeleteManifest(%s@%s)", image, d)
	return a.releasing(ctx, image.Repository, func(tx *store.Tx, released func(...blob.Digest)) error {
		if err := unreferenced(tx, image, d); err != nil {
			return err
		}
		m, err := deleteManifest(tx, image, d, false)
		released(m.refers()...)
		return err
	})
}

// unreferenced fails where a tag or an index refers to a manifest.
func unreferenced(tx *store.Tx, image Image, d blob.Digest) error {
	if _, err := getManifest(tx, Reference{Image: image, Digest: d}); err != nil {
		return err
	}
	named, err := tags.List(tx, image.tag(""), "", 0)
	if err != nil {
		return err
	}
	for _, t := range named {
		if t.Value.Digest == d {
			return withReason(ReasonTagged, fault.FailedPrecondition, "Manifest is still referenced by tag: %s",
				t.Value.Name)
		}
	}
	versions, err := manifests.List(tx, image.version(""), "", 0)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if slices.Contains(v.Value.Manifests, d) {
			return withReason(ReasonInIndex, fault.FailedPrecondition,
				"Manifest is still referenced by one or more parent images: %s", v.Value.Digest)
		}
	}
	return nil
}

// refers is the blobs that a manifest keeps: itself and those that it is made of.
func (m Manifest) refers() []blob.Digest { return append(slices.Clone(m.Blobs), m.Digest) }

// deleteManifest removes a manifest, which it returns; the tags on it go with it when force is true, and forbid it
// otherwise.
func deleteManifest(tx *store.Tx, image Image, d blob.Digest, force bool) (m Manifest, err error) {
	repository, err := getRepository(tx, image.Repository)
	if err != nil {
		return m, err
	}
	if m, err = getManifest(tx, Reference{Image: image, Digest: d}); err != nil {
		return m, err
	}
	rows, err := tags.List(tx, image.tag(""), "", 0)
	if err != nil {
		return m, err
	}
	for _, r := range rows {
		if r.Value.Digest != d {
			continue
		}
		if !force {
			return m, withReason(ReasonInUse, fault.FailedPrecondition,
				"%s@%s has the tag %q; delete the tag first, or delete both by force (gcloud: --delete-tags).", image,
				d, r.Value.Name)
		}
		if err := deleteTag(tx, repository, image, r.Value.Name); err != nil {
			return m, err
		}
	}
	return m, manifests.Delete(tx, image.version(d))
}

// DeleteVersions removes versions of an image, all or none of them, and returns the operation of it, which is done. A
// version that is tagged goes with its tags, if force is true; one that an index refers to goes with that index only.
// It fails with NotFound and FailedPrecondition.
func (a *Artifacts) DeleteVersions(
	ctx context.Context, image Image, digests []blob.Digest, force bool,
) (op operation.Operation, err error) {
	defer fault.Wrap(&err, "artifacts.DeleteVersions(%s)", image)
	err = a.releasing(ctx, image.Repository, func(tx *store.Tx, released func(...blob.Digest)) error {
		rows, err := manifests.List(tx, image.version(""), "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if slices.Contains(digests, r.Value.Digest) {
				continue
			}
			for _, d := range r.Value.Manifests {
				if slices.Contains(digests, d) {
					return withReason(ReasonInUse, fault.FailedPrecondition,
						"%s@%s is part of index %s: delete that first.", image, d, r.Value.Digest)
				}
			}
		}
		for _, d := range digests {
			m, err := deleteManifest(tx, image, d, force)
			if err != nil {
				return err
			}
			released(m.refers()...)
		}
		op, err = a.done(tx, image.Repository, "delete", struct{}{})
		return err
	})
	return op, err
}

// DeletePackage removes an image with all its versions and tags, and returns the operation of it, which is done. It
// fails with NotFound and FailedPrecondition (immutable tags).
func (a *Artifacts) DeletePackage(ctx context.Context, image Image) (op operation.Operation, err error) {
	defer fault.Wrap(&err, "artifacts.DeletePackage(%s)", image)
	err = a.releasing(ctx, image.Repository, func(tx *store.Tx, released func(...blob.Digest)) error {
		if err := checkPackage(tx, image); err != nil {
			return err
		}
		repository, err := getRepository(tx, image.Repository)
		if err != nil {
			return err
		}
		named, err := tags.List(tx, image.tag(""), "", 0)
		if err != nil {
			return err
		}
		for _, r := range named {
			if err := deleteTag(tx, repository, image, r.Value.Name); err != nil {
				return err
			}
		}
		versions, err := manifests.List(tx, image.version(""), "", 0)
		if err != nil {
			return err
		}
		for _, r := range versions {
			if err := manifests.Delete(tx, r.Name); err != nil {
				return err
			}
			released(r.Value.refers()...)
		}
		if err := packages.Delete(tx, image.name()); err != nil {
			return err
		}
		op, err = a.done(tx, image.Repository, "delete", struct{}{})
		return err
	})
	return op, err
}
