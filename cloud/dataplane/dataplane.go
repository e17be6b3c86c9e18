// Package dataplane is the data plane as services see it: their images, the instances that run them, the routes to
// them.
//
// It fits package run's small interfaces over the rooms that do the work, and keeps nothing.
package dataplane

import (
	"context"

	"giggle/artifacts"
	"giggle/artifacts/mirror"
	"giggle/blob"
	"giggle/fault"
	"giggle/gateway"
	"giggle/operation"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
)

// Images resolves the images of services: those of the registry, then foreign ones.
type Images struct {
	Artifacts *artifacts.Artifacts
	Foreign   *mirror.Puller
	Blobs     *blob.Dir // that foreign images are copied to
	Project   resource.FindProject
}

// Resolve returns the reference of an image with its digest. It fails with NotFound.
func (r Images) Resolve(ctx context.Context, project, ref string) (string, error) {
	resolved, missing := r.Artifacts.Resolve(ctx, project, ref)
	if missing == nil {
		return resolved, nil
	}
	name, err := mirror.Familiar(ref)
	if err != nil {
		return "", missing
	}
	m, err := r.Foreign.Copy(ctx, name, r.Blobs, nil)
	if fault.Is(err, fault.NotFound) {
		return "", r.elsewhere(ref, missing)
	}
	if err != nil && ctx.Err() == nil && fault.From(err).Code != fault.Internal {
		f := fault.From(err)
		return "", &fault.Error{
			Code:    f.Code,
			Message: "Image '" + ref + "' not found in this platform's repositories. " + f.Message,
			Reason:  artifacts.ReasonContainerMissing,
			Cause:   err,
		}
	}
	if err != nil {
		return "", err
	}
	return mirror.Repository(name) + "@" + m.Digest, nil
}

// elsewhere is the fault of an image that nobody has: where it would be in a project that isn't on this platform,
// Google's own for one, it says how it comes here.
func (r Images) elsewhere(ref string, missing error) error {
	image, err := artifacts.ParseReference(ref)
	if err != nil {
		return missing
	}
	if _, err := r.Project(image.Repository.Project); err == nil {
		return missing
	}
	return &fault.Error{
		Code:    fault.NotFound,
		Message: "Image '" + ref + "' not found: this platform has no project " + image.Repository.Project + ". " + artifacts.HowToBring(ref),
		Reason:  artifacts.ReasonContainerMissing,
		Cause:   missing,
	}
}

// Instances is the scaler as the reconciler sees it.
type Instances struct {
	*scale.Scaler
	Attempts *operation.Attempts
}

// EnsureInstance starts the first instance of a revision, which unpacks an image that nobody has seen: what the
// platform was killed at twice fails the revision.
func (i Instances) EnsureInstance(ctx context.Context, rev run.Revision) error {
	end, err := i.Attempts.Begin(ctx, rev.Name.String())
	if err != nil {
		return err
	}
	defer end()
	return i.Scaler.EnsureInstance(ctx, rev)
}

// Routes tells both sides of the data plane.
type Routes struct {
	Gateway *gateway.Gateway
	Scaler  *scale.Scaler
}

// Publish makes a route effective: instances first, so that there is something to send requests to.
func (r Routes) Publish(x run.Route) { r.Scaler.Publish(x); r.Gateway.Publish(x) }

// Remove takes a service's route away.
func (r Routes) Remove(n resource.Child) { r.Gateway.Remove(n); r.Scaler.Remove(n) }
