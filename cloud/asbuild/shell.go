package asbuild

import (
	"context"

	"giggle/api/giggle"
	"giggle/builds"
	"giggle/builds/steps"
	"giggle/iam"
)

// Shells opens shells in steps of builds that failed, for those who may run builds as those accounts.
type Shells struct {
	Steps interface {
		OpenShell(build, step string) (*steps.Shell, error)
	}
	Identity interface {
		Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
		Account(ctx context.Context, project, id string) (iam.Account, error)
	}
}

// Open opens a shell in a step of a build that failed. Its user has the build's identity in it, so it takes what it
// takes to run a build as that account. It fails with NotFound and PermissionDenied.
func (s Shells) Open(ctx context.Context, who iam.Principal, id, step string) (giggle.Shell, error) {
	sh, err := s.Steps.OpenShell(id, step)
	if err != nil {
		return nil, err
	}
	if err := s.mayEnter(ctx, who, sh.Build); err != nil {
		sh.Close()
		return nil, err
	}
	return sh, nil
}

func (s Shells) mayEnter(ctx context.Context, who iam.Principal, b builds.Build) error {
	if err := s.Identity.Authorize(ctx, who, "cloudbuild.builds.create", "projects/"+b.Project); err != nil {
		return err
	}
	account, err := s.Identity.Account(ctx, "-", b.Account)
	if err != nil {
		return err
	}
	return s.Identity.Authorize(ctx, who, "iam.serviceAccounts.actAs", account.Name())
}
