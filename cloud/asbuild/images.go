package asbuild

import (
	"context"

	"giggle/artifacts"
	"giggle/artifacts/mirror"
	"giggle/builds"
	"giggle/fault"
	"giggle/oci"
)

// What it takes to read from a repository, to write to one, and to make one of gcr.io by a push.
const (
	download     = "artifactregistry.repositories.downloadArtifacts"
	upload       = "artifactregistry.repositories.uploadArtifacts"
	createOnPush = "artifactregistry.repositories.createOnPush"
)

// own reads the name of an image of the platform's own repositories, with its project by id.
func (a *Access) own(ref artifacts.Reference) (artifacts.Reference, error) {
	p, err := a.cfg.Project(ref.Repository.Project)
	ref.Repository.Project = p.ID
	return ref, err
}

// manifest returns the manifest of an image of the platform's own repositories.
func (a *Access) manifest(ctx context.Context, b builds.Build, ref artifacts.Reference) (artifacts.Manifest, error) {
	ref, err := a.own(ref)
	if err != nil {
		return artifacts.Manifest{}, err
	}
	if err := a.cfg.Identity.Authorize(ctx, account(b.Account), download, ref.Repository.String()); err != nil {
		return artifacts.Manifest{}, err
	}
	return a.cfg.Artifacts.Manifest(ctx, ref)
}

// Push gives an image that a build has made a name. It fails with PermissionDenied where the build's account may not
// write to the repository.
func (a *Access) Push(ctx context.Context, b builds.Build, image, digest string) error {
	ref, err := artifacts.ParseReference(image)
	if err != nil {
		return err
	}
	if ref, err = a.own(ref); err != nil {
		return err
	}
	who := account(b.Account)
	if err := a.cfg.Identity.Authorize(ctx, who, upload, ref.Repository.String()); err != nil {
		return err
	}
	// gcr.io has no repositories to be made beforehand: the first push makes it.
	inProject := "projects/" + ref.Repository.Project
	if artifacts.IsLegacy(ref.Repository) && a.cfg.Identity.Allowed(who, createOnPush, inProject) {
		if err := a.cfg.Artifacts.CreateOnPush(ctx, ref.Repository); err != nil {
			return err
		}
	}
	if err := a.cfg.Artifacts.Push(ctx, image, digest); err != nil {
		return err
	}
	// What was built is about to be deployed: its layers are unpacked by the time that the client asks for it.
	a.cfg.Background(func() {
		if _, err := a.cfg.Images.Unpack(context.WithoutCancel(ctx), digest); err != nil {
			a.cfg.Log.Warn("unpack a new image", "image", image, "err", err)
		}
	})
	return nil
}

// Image finds the image of a step: one of the platform's repositories, or a foreign one. It fails with NotFound, and
// with PermissionDenied where the build's account may not read from the repository.
func (a *Access) Image(ctx context.Context, b builds.Build, name string, say func(line string)) (oci.Image, error) {
	ref, err := artifacts.ParseReference(name)
	// another project's gcr.io is foreign
	if err != nil || artifacts.IsLegacy(ref.Repository) && ref.Repository.Project != b.Project || a.elsewhere(ref) {
		return a.foreign(ctx, name, say)
	}
	m, err := a.manifest(ctx, b, ref)
	if err != nil {
		return oci.Image{}, err
	}
	return a.cfg.Images.Unpack(ctx, string(m.Digest))
}

// elsewhere reports whether a name of Artifact Registry's form is of a project that this platform does not have.
func (a *Access) elsewhere(ref artifacts.Reference) bool {
	_, err := a.cfg.Project(ref.Repository.Project)
	return fault.Is(err, fault.NotFound)
}

// foreign finds a foreign image by any of the names that Docker has for it.
func (a *Access) foreign(ctx context.Context, name string, say func(line string)) (oci.Image, error) {
	familiar, err := mirror.Familiar(name)
	if err != nil {
		return oci.Image{}, err
	}
	img, err := a.cfg.Foreign.Image(ctx, familiar, a.cfg.Blobs, a.cfg.Images.Unpack, say)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound,
			"the image %s is not on this machine: the mirror of foreign images has none of that name (`giggle images add`)", familiar)
	}
	return img, err
}

// Pull returns the digest of an image for a docker step, all of which is in the platform's blobs then. It fails with
// NotFound, and with PermissionDenied where the build's account may not read from the repository.
func (a *Access) Pull(
	ctx context.Context, b builds.Build, name string, say func(line string),
) (string, error) {
	familiar, err := mirror.Familiar(name)
	if err != nil {
		return "", err
	}
	foreign, err := a.cfg.Foreign.Copy(ctx, familiar, a.cfg.Blobs, say)
	if !fault.Is(err, fault.NotFound) {
		return foreign.Digest, err
	}
	ref, err := artifacts.ParseReference(name)
	if err != nil {
		return "", fault.New(fault.NotFound,
			"%s is not on this machine: put it into the mirror of foreign images with `giggle images add %s`.",
			familiar, familiar)
	}
	m, err := a.manifest(ctx, b, ref)
	return string(m.Digest), err
}
