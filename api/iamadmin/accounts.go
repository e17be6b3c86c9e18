package iamadmin

//lint:file-ignore SA1019 the etag is deprecated in the proto, but clients still send it back: it guards their writes

import (
	"context"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
)

func accountToProto(a iam.Account) *adminpb.ServiceAccount {
	return &adminpb.ServiceAccount{
		Name:           a.Name(),
		ProjectId:      a.Project,
		UniqueId:       a.UniqueID,
		Email:          a.Email,
		DisplayName:    a.DisplayName,
		Description:    a.Description,
		Disabled:       a.Disabled,
		Oauth2ClientId: a.UniqueID,
		Etag:           etag(a.Etag),
	}
}

// CreateServiceAccount makes a service account.
func (s *Server) CreateServiceAccount(
	ctx context.Context, r *adminpb.CreateServiceAccountRequest,
) (*adminpb.ServiceAccount, error) {
	project, err := s.project(r.GetName())
	if err != nil {
		return nil, err
	}
	in := r.GetServiceAccount()
	a, err := s.Identity.CreateAccount(ctx, r.GetAccountId(), iam.Account{
		Project:     project,
		DisplayName: in.GetDisplayName(),
		Description: in.GetDescription(),
	})
	if err != nil {
		return nil, err
	}
	return accountToProto(a), nil
}

// ListServiceAccounts lists a project's service accounts by address.
func (s *Server) ListServiceAccounts(
	ctx context.Context, r *adminpb.ListServiceAccountsRequest,
) (*adminpb.ListServiceAccountsResponse, error) {
	project, err := s.project(r.GetName())
	if err != nil {
		return nil, err
	}
	all, err := s.Identity.Accounts(ctx, project)
	if err != nil {
		return nil, err
	}
	all, next, err := page(s, resource.List{
		Query: "accounts of " + project,
		Size:  int(r.GetPageSize()),
		Most:  maxAccountPage,
		Token: r.GetPageToken(),
	}, all, func(a iam.Account) string { return a.Email })
	if err != nil {
		return nil, err
	}
	out := &adminpb.ListServiceAccountsResponse{NextPageToken: next}
	for _, a := range all {
		out.Accounts = append(out.Accounts, accountToProto(a))
	}
	return out, nil
}

// GetServiceAccount returns a service account by e-mail address or unique id.
func (s *Server) GetServiceAccount(
	ctx context.Context, r *adminpb.GetServiceAccountRequest,
) (*adminpb.ServiceAccount, error) {
	a, err := s.get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return accountToProto(a), nil
}

func (s *Server) get(ctx context.Context, name string) (iam.Account, error) {
	project, id, tail, err := s.account(name)
	if err != nil {
		return iam.Account{}, err
	}
	if tail != "" {
		return iam.Account{}, fault.Invalid("name", "%.100q is not the name of a service account", name)
	}
	return s.Identity.Account(ctx, project, id)
}

// UpdateServiceAccount replaces what can be changed of a service account. It is the older form of PatchServiceAccount.
func (s *Server) UpdateServiceAccount(ctx context.Context, r *adminpb.ServiceAccount) (*adminpb.ServiceAccount, error) {
	return s.update(ctx, r.GetName(), func(a *iam.Account) error {
		if len(r.GetEtag()) > 0 && string(r.GetEtag()) != string(etag(a.Etag)) {
			return fault.New(fault.Aborted,
				"The service account has changed since it was read. Read it again and repeat the change.")
		}
		a.DisplayName, a.Description = r.GetDisplayName(), r.GetDescription()
		return nil
	})
}

// PatchServiceAccount changes the fields of a service account that the mask names.
func (s *Server) PatchServiceAccount(
	ctx context.Context, r *adminpb.PatchServiceAccountRequest,
) (*adminpb.ServiceAccount, error) {
	in := r.GetServiceAccount()
	if len(r.GetUpdateMask().GetPaths()) == 0 {
		return nil, fault.Invalid("update_mask", "is missing")
	}
	return s.update(ctx, in.GetName(), func(a *iam.Account) error {
		if len(in.GetEtag()) > 0 && string(in.GetEtag()) != string(etag(a.Etag)) {
			return fault.New(fault.Aborted,
				"The service account has changed since it was read. Read it again and repeat the change.")
		}
		for _, path := range r.GetUpdateMask().GetPaths() {
			switch path {
			case "display_name":
				a.DisplayName = in.GetDisplayName()
			case "description":
				a.Description = in.GetDescription()
			default:
				return fault.Invalid("update_mask", "%.60q can't be changed; display_name and description can", path)
			}
		}
		return nil
	})
}

func (s *Server) update(
	ctx context.Context, name string, change func(*iam.Account) error,
) (*adminpb.ServiceAccount, error) {
	a, err := s.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if a, err = s.Identity.UpdateAccount(ctx, a.Project, a.Email, change); err != nil {
		return nil, err
	}
	return accountToProto(a), nil
}

// DeleteServiceAccount deletes a service account; UndeleteServiceAccount takes it back for 30 days.
func (s *Server) DeleteServiceAccount(
	ctx context.Context, r *adminpb.DeleteServiceAccountRequest,
) (*emptypb.Empty, error) {
	a, err := s.get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.Identity.DeleteAccount(ctx, a.Project, a.Email)
}

// UndeleteServiceAccount brings a deleted service account back, by its unique id.
func (s *Server) UndeleteServiceAccount(
	ctx context.Context, r *adminpb.UndeleteServiceAccountRequest,
) (*adminpb.UndeleteServiceAccountResponse, error) {
	project, id, _, err := s.account(r.GetName())
	if err != nil {
		return nil, err
	}
	a, err := s.Identity.UndeleteAccount(ctx, project, id)
	if err != nil {
		return nil, err
	}
	return &adminpb.UndeleteServiceAccountResponse{RestoredAccount: accountToProto(a)}, nil
}

// EnableServiceAccount lets a disabled service account work again.
func (s *Server) EnableServiceAccount(
	ctx context.Context, r *adminpb.EnableServiceAccountRequest,
) (*emptypb.Empty, error) {
	return s.disable(ctx, r.GetName(), false)
}

// DisableServiceAccount stops a service account: its tokens, its keys, and acting as it.
func (s *Server) DisableServiceAccount(
	ctx context.Context, r *adminpb.DisableServiceAccountRequest,
) (*emptypb.Empty, error) {
	return s.disable(ctx, r.GetName(), true)
}

func (s *Server) disable(ctx context.Context, name string, disabled bool) (*emptypb.Empty, error) {
	_, err := s.update(ctx, name, func(a *iam.Account) error { a.Disabled = disabled; return nil })
	return &emptypb.Empty{}, err
}
