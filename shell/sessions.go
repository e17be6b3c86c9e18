package shell

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"giggle/iam"
)

// Sessions signs local users in.
type Sessions struct {
	// Dir is where each user has a directory, by uid.
	Dir      string
	Identity Identity
	// Template returns what is the same in all sessions.
	Template func() (Session, error)
}

// Identity makes refresh tokens: *iam.IAM.
type Identity interface {
	CheckRefreshToken(token string) (iam.Token, error)
	RefreshToken(p iam.Principal, scopes []string) (string, error)
}

// Open signs a local user in as a principal.
func (s Sessions) Open(_ context.Context, uid int, who iam.Principal) (Session, error) {
	dir := filepath.Join(s.Dir, strconv.Itoa(uid))
	if err := os.MkdirAll(s.Dir, 0o711); err != nil {
		return Session{}, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return Session{}, err
	}
	if err := os.Chown(dir, uid, -1); err != nil {
		return Session{}, err
	}
	// The same token as before, while it is good: gcloud keeps access tokens between shells, and to revoke the one must
	// revoke the others.
	token := SavedToken(dir)
	if t, err := s.Identity.CheckRefreshToken(token); err != nil || t.Principal() != who {
		if token, err = s.Identity.RefreshToken(who, Scopes()); err != nil {
			return Session{}, err
		}
	}
	out, err := s.Template()
	out.Owner, out.RefreshToken, out.Dir = who.Email(), token, dir
	return out, err
}
