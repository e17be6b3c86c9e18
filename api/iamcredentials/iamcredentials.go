// Package iamcredentials is the wire form of the IAM Service Account Credentials API v1: short-lived tokens and
// signatures of a service account, for who may act as one. gcloud's --impersonate-service-account lives on it.
//
// It translates for package iam and decides who may: the caller on the account, or each delegate on the next one. It
// keeps nothing.
package iamcredentials

import (
	"context"
	"strings"
	"time"

	"cloud.google.com/go/iam/credentials/apiv1/credentialspb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
)

// Identity is the identity side: *iam.IAM.
type Identity interface {
	Account(ctx context.Context, project, id string) (iam.Account, error)
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
	AccessTokenFor(p iam.Principal, scopes []string, life time.Duration) (token string, expires time.Time, err error)
	IDTokenFor(p iam.Principal, audience string, email bool) (string, error)
	SignBlob(ctx context.Context, a iam.Account, payload []byte) (keyID string, signature []byte, err error)
	SignJWT(ctx context.Context, a iam.Account, claims string) (keyID, token string, err error)
}

// Config is what a Server needs.
type Config struct {
	Identity Identity
}

// Server serves the API.
type Server struct {
	Config
	absent
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	credentialspb.UnimplementedIAMCredentialsServer
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

const rpc = "/google.iam.credentials.v1.IAMCredentials/"

// Rules says what each RPC needs. With delegates it is not the caller who needs the permission on the account, so the
// handlers ask: see account.
var Rules = guard.Rules{
	rpc + "GenerateAccessToken": {Authenticated: true, On: "{name}", Data: true},
	rpc + "GenerateIdToken":     {Authenticated: true, On: "{name}", Data: true},
	rpc + "SignBlob":            {Authenticated: true, On: "{name}", Data: true},
	rpc + "SignJwt":             {Authenticated: true, On: "{name}", Data: true},
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) { credentialspb.RegisterIAMCredentialsServer(m, s) }

// limits of the API, from its reference.
const (
	maxDelegates = 8
	maxScopes    = 100
	maxLifetime  = iam.AccessTokenAge
)

// account returns the service account that a call names, when the caller has the permission on it. With delegates, the
// caller must be allowed to delegate to the first, each to the next, and the last has the permission on the account.
func (s *Server) account(ctx context.Context, name string, delegates []string, permission string) (iam.Account, error) {
	if len(delegates) > maxDelegates {
		return iam.Account{}, fault.Invalid("delegates", "more than %d", maxDelegates)
	}
	who := guard.Caller(ctx)
	for _, d := range delegates {
		a, err := s.allowed(ctx, "delegates", d, who, "iam.serviceAccounts.implicitDelegation")
		if err != nil {
			return iam.Account{}, err
		}
		if a.Disabled {
			return iam.Account{}, fault.New(fault.FailedPrecondition, "The delegate %s is disabled.", a.Email)
		}
		who = iam.ServiceAccount(a.Email)
	}
	return s.allowed(ctx, "name", name, who, permission)
}

// allowed returns an account when a principal has a permission on it. Whether there is one is not told to a principal
// who has not.
func (s *Server) allowed(
	ctx context.Context, field, name string, who iam.Principal, permission string,
) (iam.Account, error) {
	tail, ok := strings.CutPrefix(name, "projects/")
	project, id, found := strings.Cut(tail, "/serviceAccounts/")
	if !ok || !found || project == "" || id == "" || strings.Contains(project+id, "/") || len(name) > 512 {
		return iam.Account{}, fault.Invalid(field, "%.100q is not of the form projects/-/serviceAccounts/EMAIL", name)
	}
	a, err := s.Identity.Account(ctx, "-", id)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return iam.Account{}, err
	}
	on := a.Name()
	if err != nil {
		on = name
	}
	if denied := s.Identity.Authorize(ctx, who, permission, on); denied != nil {
		return iam.Account{}, denied
	}
	return a, err
}

// GenerateAccessToken makes an access token of a service account, for an hour at most.
func (s *Server) GenerateAccessToken(
	ctx context.Context, r *credentialspb.GenerateAccessTokenRequest,
) (*credentialspb.GenerateAccessTokenResponse, error) {
	a, err := s.account(ctx, r.GetName(), r.GetDelegates(), "iam.serviceAccounts.getAccessToken")
	if err != nil {
		return nil, err
	}
	if len(r.GetScope()) == 0 || len(r.GetScope()) > maxScopes {
		return nil, fault.Invalid("scope", "must have 1 to %d scopes", maxScopes)
	}
	life := maxLifetime
	if r.GetLifetime() != nil {
		life = r.GetLifetime().AsDuration()
	}
	if life <= 0 || life > maxLifetime {
		return nil, fault.Invalid("lifetime", "must be more than nothing and an hour (3600s) at most")
	}
	token, expires, err := s.Identity.AccessTokenFor(iam.ServiceAccount(a.Email), r.GetScope(), life)
	if err != nil {
		return nil, err
	}
	return &credentialspb.GenerateAccessTokenResponse{AccessToken: token, ExpireTime: timestamppb.New(expires)}, nil
}

// GenerateIdToken makes an ID token of a service account for an audience.
func (s *Server) GenerateIdToken(
	ctx context.Context, r *credentialspb.GenerateIdTokenRequest,
) (*credentialspb.GenerateIdTokenResponse, error) {
	a, err := s.account(ctx, r.GetName(), r.GetDelegates(), "iam.serviceAccounts.getOpenIdToken")
	if err != nil {
		return nil, err
	}
	if r.GetAudience() == "" || len(r.GetAudience()) > 2048 {
		return nil, fault.Invalid("audience", "must be of 1 to 2048 bytes")
	}
	token, err := s.Identity.IDTokenFor(iam.ServiceAccount(a.Email), r.GetAudience(), r.GetIncludeEmail())
	if err != nil {
		return nil, err
	}
	return &credentialspb.GenerateIdTokenResponse{Token: token}, nil
}

// SignBlob signs bytes with the account's key that the platform manages.
func (s *Server) SignBlob(
	ctx context.Context, r *credentialspb.SignBlobRequest,
) (*credentialspb.SignBlobResponse, error) {
	a, err := s.account(ctx, r.GetName(), r.GetDelegates(), "iam.serviceAccounts.signBlob")
	if err != nil {
		return nil, err
	}
	id, signature, err := s.Identity.SignBlob(ctx, a, r.GetPayload())
	if err != nil {
		return nil, err
	}
	return &credentialspb.SignBlobResponse{KeyId: id, SignedBlob: signature}, nil
}

// SignJwt signs claims with the account's key that the platform manages.
func (s *Server) SignJwt(ctx context.Context, r *credentialspb.SignJwtRequest) (*credentialspb.SignJwtResponse, error) {
	a, err := s.account(ctx, r.GetName(), r.GetDelegates(), "iam.serviceAccounts.signJwt")
	if err != nil {
		return nil, err
	}
	id, token, err := s.Identity.SignJWT(ctx, a, r.GetPayload())
	if err != nil {
		return nil, err
	}
	return &credentialspb.SignJwtResponse{KeyId: id, SignedJwt: token}, nil
}
