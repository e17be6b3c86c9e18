package cloudbuild

import (
	"context"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/api/guard"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
)

// triggerName reads which trigger a request means: its name, or a project and an id, which mean the location global. A
// trigger may be named by what people call it. gcloud 528 names the trigger in the path and in the body.
func (s *Server) triggerName(name, project, id string) (resource.Child, error) {
	if name == "" {
		name = resource.Child{
			Location:   resource.Location{Project: project, Location: "global"},
			Collection: "triggers",
			ID:         id,
		}.String()
	}
	n, _, err := s.Project.Child("triggers", name)
	return n, err
}

func (s *Server) triggerLocation(parent, project string) (resource.Location, error) {
	in := resource.Location{Project: project, Location: "global"}
	if parent != "" {
		var err error
		if in, err = resource.ParseLocation(parent); err != nil {
			return in, err
		}
	}
	p, err := s.Project(in.Project)
	in.Project = p.ID
	return in, err
}

// mayUse fails when the caller may not act as the accounts that a trigger's builds run as, or when the trigger's secret
// is another project's.
func (s *Server) mayUse(ctx context.Context, project string, t *trigger.Trigger) error {
	accounts := []string{t.Account}
	if len(t.Inline) > 0 {
		r, err := s.Read(t.Inline)
		if err != nil {
			return err
		}
		accounts = append(accounts, r.Spec.Account)
	}
	p, err := s.Project(project)
	if err != nil {
		return err
	}
	if t.Webhook != nil {
		if _, err := ownSecret(p, t.Webhook.Secret); err != nil {
			return err
		}
	}
	for _, a := range accounts {
		if a == "" {
			continue
		}
		account, err := resource.ParseAccountOrEmail(a)
		if err != nil || !account.In(p) {
			return fault.Invalid("trigger.serviceAccount",
				"%.200q is not projects/PROJECT/serviceAccounts/EMAIL of this project", a)
		}
		if err := s.ActAs(ctx, guard.Caller(ctx), p, account.ID); err != nil {
			return err
		}
	}
	return nil
}

// CreateBuildTrigger makes a trigger.
func (s *Server) CreateBuildTrigger(
	ctx context.Context, r *cloudbuildpb.CreateBuildTriggerRequest,
) (*cloudbuildpb.BuildTrigger, error) {
	in, err := s.triggerLocation(r.GetParent(), r.GetProjectId())
	if err != nil {
		return nil, err
	}
	if in.Location != "global" && !resource.IsRegion(in.Location) {
		return nil, fault.New(fault.NotFound, "Location %.50q is not one of Cloud Build's.", in.Location)
	}
	t, err := toTrigger(r.GetTrigger())
	if err != nil {
		return nil, err
	}
	if err := s.mayUse(ctx, in.Project, &t); err != nil {
		return nil, err
	}
	if t, err = s.Triggers.Create(ctx, in, t); err != nil {
		return nil, err
	}
	return fromTrigger(&t)
}

// GetBuildTrigger returns a trigger.
func (s *Server) GetBuildTrigger(
	ctx context.Context, r *cloudbuildpb.GetBuildTriggerRequest,
) (*cloudbuildpb.BuildTrigger, error) {
	n, err := s.triggerName(r.GetName(), r.GetProjectId(), r.GetTriggerId())
	if err != nil {
		return nil, err
	}
	t, err := s.Triggers.Get(ctx, n)
	if err != nil {
		return nil, err
	}
	return fromTrigger(&t)
}

// ListBuildTriggers lists the triggers of a location.
func (s *Server) ListBuildTriggers(
	ctx context.Context, r *cloudbuildpb.ListBuildTriggersRequest,
) (*cloudbuildpb.ListBuildTriggersResponse, error) {
	in, err := s.triggerLocation(r.GetParent(), r.GetProjectId())
	if err != nil {
		return nil, err
	}
	query := in.String() + "/triggers"
	all, err := s.Triggers.List(ctx, in)
	if err != nil {
		return nil, err
	}
	key := func(t trigger.Trigger) string { return t.Name.String() }
	list := resource.List{Query: query, Size: int(r.GetPageSize()), Most: maxPage, Token: r.GetPageToken()}
	page, next, err := resource.Page(s.Pages, list, resource.Rows(all, key), key)
	if err != nil {
		return nil, err
	}
	out := &cloudbuildpb.ListBuildTriggersResponse{NextPageToken: next}
	for i := range page {
		w, err := fromTrigger(&page[i])
		if err != nil {
			return nil, err
		}
		out.Triggers = append(out.Triggers, w)
	}
	return out, nil
}

// UpdateBuildTrigger replaces a trigger, or the fields of its mask.
func (s *Server) UpdateBuildTrigger(
	ctx context.Context, r *cloudbuildpb.UpdateBuildTriggerRequest,
) (*cloudbuildpb.BuildTrigger, error) {
	n, err := s.triggerName(r.GetTrigger().GetResourceName(), r.GetProjectId(), r.GetTriggerId())
	if err != nil {
		return nil, err
	}
	t, err := s.Triggers.Update(ctx, n, func(t *trigger.Trigger) error {
		want, err := toTrigger(r.GetTrigger())
		if err != nil {
			return err
		}
		if paths := r.GetUpdateMask().GetPaths(); len(paths) > 0 {
			have, err := fromTrigger(t)
			if err != nil {
				return err
			}
			if err := rest.Overlay(have, r.GetTrigger(), paths); err != nil {
				return err
			}
			if want, err = toTrigger(have); err != nil {
				return err
			}
		}
		if err := s.mayUse(ctx, n.Project, &want); err != nil {
			return err
		}
		want.Created, want.Version = t.Created, t.Version
		want.Name = t.Name
		if want.Title == "" {
			want.Title = t.Title
		}
		*t = want
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fromTrigger(&t)
}

// DeleteBuildTrigger removes a trigger.
func (s *Server) DeleteBuildTrigger(
	ctx context.Context, r *cloudbuildpb.DeleteBuildTriggerRequest,
) (*emptypb.Empty, error) {
	n, err := s.triggerName(r.GetName(), r.GetProjectId(), r.GetTriggerId())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.Triggers.Delete(ctx, n)
}

// RunBuildTrigger starts a build by a trigger, of the revision that is asked for.
func (s *Server) RunBuildTrigger(
	ctx context.Context, r *cloudbuildpb.RunBuildTriggerRequest,
) (*longrunningpb.Operation, error) {
	n, err := s.triggerName(r.GetName(), r.GetProjectId(), r.GetTriggerId())
	if err != nil {
		return nil, err
	}
	t, err := s.Triggers.Get(ctx, n)
	if err != nil {
		return nil, err
	}
	// By hand as when it was made: no caller runs as an account through a trigger that they could not act as.
	if err := s.mayUse(ctx, n.Project, &t); err != nil {
		return nil, err
	}
	src := r.GetSource()
	if err := firingFields.check("source", src.ProtoReflect()); err != nil {
		return nil, err
	}
	b, err := s.Triggers.Fire(ctx, &t, trigger.Firing{
		Branch:        src.GetBranchName(),
		Tag:           src.GetTagName(),
		Commit:        src.GetCommitSha(),
		Substitutions: src.GetSubstitutions(),
		Creator:       guard.Caller(ctx).Email(),
	})
	if err != nil {
		return nil, err
	}
	p, err := s.Project(n.Project)
	if err != nil {
		return nil, err
	}
	return s.operation(ctx, b.Name, p)
}
