package iamadmin

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/fault"
	"giggle/iam"
)

func keyToProto(k iam.Key) *adminpb.ServiceAccountKey {
	out := &adminpb.ServiceAccountKey{
		Name:            k.Name(),
		KeyAlgorithm:    adminpb.ServiceAccountKeyAlgorithm_KEY_ALG_RSA_2048,
		Disabled:        k.Disabled,
		KeyOrigin:       adminpb.ServiceAccountKeyOrigin_GOOGLE_PROVIDED,
		KeyType:         adminpb.ListServiceAccountKeysRequest_USER_MANAGED,
		ValidAfterTime:  timestamppb.New(k.From),
		ValidBeforeTime: timestamppb.New(k.Until),
	}
	if k.Uploaded {
		out.KeyOrigin = adminpb.ServiceAccountKeyOrigin_USER_PROVIDED
	}
	if k.Managed {
		out.KeyType = adminpb.ListServiceAccountKeysRequest_SYSTEM_MANAGED
	}
	return out
}

// key reads the name of a key.
func (s *Server) key(name string) (project, account, id string, err error) {
	project, account, tail, err := s.account(name)
	if err != nil {
		return "", "", "", err
	}
	id, ok := strings.CutPrefix(tail, "keys/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", "", "", fault.Invalid("name",
			"%.100q is not of the form projects/PROJECT/serviceAccounts/EMAIL/keys/KEY", name)
	}
	return project, account, id, nil
}

// CreateServiceAccountKey makes a key and answers with its JSON key file, which is not kept.
func (s *Server) CreateServiceAccountKey(
	ctx context.Context, r *adminpb.CreateServiceAccountKeyRequest,
) (*adminpb.ServiceAccountKey, error) {
	switch r.GetPrivateKeyType() {
	case adminpb.ServiceAccountPrivateKeyType_TYPE_UNSPECIFIED,
		adminpb.ServiceAccountPrivateKeyType_TYPE_GOOGLE_CREDENTIALS_FILE:
	default:
		return nil, fault.NotImplemented("private_key_type", "only TYPE_GOOGLE_CREDENTIALS_FILE is implemented")
	}
	switch r.GetKeyAlgorithm() {
	case adminpb.ServiceAccountKeyAlgorithm_KEY_ALG_UNSPECIFIED, adminpb.ServiceAccountKeyAlgorithm_KEY_ALG_RSA_2048:
	default:
		return nil, fault.NotImplemented("key_algorithm", "only KEY_ALG_RSA_2048 is implemented")
	}
	a, err := s.get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	k, file, err := s.Identity.CreateKey(ctx, a.Project, a.Email)
	if err != nil {
		return nil, err
	}
	out := keyToProto(k)
	out.PrivateKeyType, out.PrivateKeyData = adminpb.ServiceAccountPrivateKeyType_TYPE_GOOGLE_CREDENTIALS_FILE, file
	return out, nil
}

// UploadServiceAccountKey adds the public half of a key that the caller made.
func (s *Server) UploadServiceAccountKey(
	ctx context.Context, r *adminpb.UploadServiceAccountKeyRequest,
) (*adminpb.ServiceAccountKey, error) {
	a, err := s.get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	k, err := s.Identity.UploadKey(ctx, a.Project, a.Email, r.GetPublicKeyData())
	if err != nil {
		return nil, err
	}
	return keyToProto(k), nil
}

// ListServiceAccountKeys lists the keys of a service account, of the types that are asked for.
func (s *Server) ListServiceAccountKeys(
	ctx context.Context, r *adminpb.ListServiceAccountKeysRequest,
) (*adminpb.ListServiceAccountKeysResponse, error) {
	a, err := s.get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	keys, err := s.Identity.Keys(ctx, a.Project, a.Email)
	if err != nil {
		return nil, err
	}
	out := &adminpb.ListServiceAccountKeysResponse{}
	for _, k := range keys {
		w := keyToProto(k)
		wanted := len(r.GetKeyTypes()) == 0
		for _, t := range r.GetKeyTypes() {
			wanted = wanted || t == w.GetKeyType() || t == adminpb.ListServiceAccountKeysRequest_KEY_TYPE_UNSPECIFIED
		}
		if wanted {
			out.Keys = append(out.Keys, w)
		}
	}
	return out, nil
}

// GetServiceAccountKey returns a key, with its public half in the form that is asked for.
func (s *Server) GetServiceAccountKey(
	ctx context.Context, r *adminpb.GetServiceAccountKeyRequest,
) (*adminpb.ServiceAccountKey, error) {
	project, account, id, err := s.key(r.GetName())
	if err != nil {
		return nil, err
	}
	k, err := s.Identity.Key(ctx, project, account, id)
	if err != nil {
		return nil, err
	}
	out := keyToProto(k)
	switch r.GetPublicKeyType() {
	case adminpb.ServiceAccountPublicKeyType_TYPE_NONE:
	case adminpb.ServiceAccountPublicKeyType_TYPE_X509_PEM_FILE:
		out.PublicKeyData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate})
	case adminpb.ServiceAccountPublicKeyType_TYPE_RAW_PUBLIC_KEY:
		c, err := x509.ParseCertificate(k.Certificate)
		if err != nil {
			return nil, err
		}
		out.PublicKeyData = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: c.RawSubjectPublicKeyInfo})
	default:
		return nil, fault.Invalid("public_key_type", "is unknown")
	}
	return out, nil
}

// DeleteServiceAccountKey deletes a key: what it signs is refused from now on.
func (s *Server) DeleteServiceAccountKey(
	ctx context.Context, r *adminpb.DeleteServiceAccountKeyRequest,
) (*emptypb.Empty, error) {
	project, account, id, err := s.key(r.GetName())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.Identity.DeleteKey(ctx, project, account, id)
}

// EnableServiceAccountKey enables a disabled key.
func (s *Server) EnableServiceAccountKey(
	ctx context.Context, r *adminpb.EnableServiceAccountKeyRequest,
) (*emptypb.Empty, error) {
	return s.disableKey(ctx, r.GetName(), false)
}

// DisableServiceAccountKey disables a key.
func (s *Server) DisableServiceAccountKey(
	ctx context.Context, r *adminpb.DisableServiceAccountKeyRequest,
) (*emptypb.Empty, error) {
	return s.disableKey(ctx, r.GetName(), true)
}

func (s *Server) disableKey(ctx context.Context, name string, disabled bool) (*emptypb.Empty, error) {
	project, account, id, err := s.key(name)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.Identity.DisableKey(ctx, project, account, id, disabled)
}
