package iamadmin

//lint:file-ignore SA1019 iamcredentials.googleapis.com took these over, but older clients still call them here

import (
	"context"

	"cloud.google.com/go/iam/admin/apiv1/adminpb"
)

// SignBlob signs bytes as a service account: the older form of iamcredentials' method.
func (s *Server) SignBlob(ctx context.Context, r *adminpb.SignBlobRequest) (*adminpb.SignBlobResponse, error) {
	a, err := s.get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	id, signature, err := s.Identity.SignBlob(ctx, a, r.GetBytesToSign())
	if err != nil {
		return nil, err
	}
	return &adminpb.SignBlobResponse{KeyId: id, Signature: signature}, nil
}

// SignJwt signs claims as a service account: the older form of iamcredentials' method.
func (s *Server) SignJwt(ctx context.Context, r *adminpb.SignJwtRequest) (*adminpb.SignJwtResponse, error) {
	a, err := s.get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	id, token, err := s.Identity.SignJWT(ctx, a, r.GetPayload())
	if err != nil {
		return nil, err
	}
	return &adminpb.SignJwtResponse{KeyId: id, SignedJwt: token}, nil
}
