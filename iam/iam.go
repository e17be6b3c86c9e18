// Package iam knows who a caller is and what they may do: principals, service accounts and their keys, policies,
// access, refresh and ID tokens, and the one evaluator behind enforcement and testIamPermissions.
//
// Every API and the gateway ask it through interfaces of their own. It knows no wire format: OAuth's and IAM's dialects
// are in api/oauth and api/iam. A binding to a predefined role of an API that is not here is kept and grants nothing.
// Conditions are IAM's dialect of CEL with the attributes resource.name, resource.type, resource.service and
// request.time; those on tags, access levels and API attributes (modifiedGrantsByRole) are refused. There are no
// groups: a binding to one grants nothing. Deny policies and principal access boundaries do not exist.
package iam

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"giggle/fault"
	"giggle/quota"
	"giggle/store"
)

// Issuer is the iss claim of every ID token, as Google's are.
const Issuer = "https://accounts.google.com"

// GcloudClientID is the audience of ID tokens that gcloud 528 asks for when it is given none.
const GcloudClientID = "32555940559.apps.googleusercontent.com"

// Config is what New needs.
type Config struct {
	Store  *store.Store
	Owner  string           // e-mail address of the platform's owner
	Now    func() time.Time // the clock
	Random io.Reader        // source of keys and ids; crypto/rand.Reader outside tests
	// ProjectCreators are the members who may make projects, besides the owner.
	ProjectCreators []string
	// Governed are the kinds of resources of other products that policies are set on.
	Governed []Governed
	Quotas   *quota.Limits // nil is the usual ones
}

// Platform is the resource that making a project is a permission on: what no project holds.
const Platform = "platform"

// IAM is the identity side of one platform.
type IAM struct {
	store  *store.Store
	quotas *quota.Limits
	owner  string
	now    func() time.Time
	random io.Reader

	mac      []byte // key of access and refresh tokens
	policies atomic.Pointer[map[string]*compiled]
	roles    atomic.Pointer[roleSet]
	accounts atomic.Pointer[map[string]accountState]
	signing  atomic.Pointer[keyring]
	verified tokenCache[Claims]     // ID tokens
	bearers  tokenCache[credential] // access tokens and service accounts' own JWTs
	revoked  atomic.Pointer[map[string]int64]
	keyed    atomic.Uint64 // counts the changes of service accounts' keys
	write    sync.Mutex    // policies and accounts in memory follow the store in order
	governed map[string]Governed

	permissions []string // that predefined roles have, sorted
}

// secret is the platform's own secrets, one row.
type secret struct {
	MAC []byte
}

var secrets = store.NewTable[secret]("iam.secret", "Secret")

// New opens the identities in the store and makes what is missing: the token secret and the first signing key.
func New(ctx context.Context, cfg Config) (_ *IAM, err error) {
	defer fault.Wrap(&err, "iam.New")
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	m := &IAM{
		store:    cfg.Store,
		quotas:   cfg.Quotas,
		owner:    cfg.Owner,
		now:      cfg.Now,
		random:   cfg.Random,
		governed: make(map[string]Governed),
	}
	for _, g := range cfg.Governed {
		m.govern(g)
	}
	m.verified.init()
	m.bearers.init()
	if err := m.loadRoles(ctx); err != nil {
		return nil, err
	}
	if err := m.loadSecret(ctx); err != nil {
		return nil, err
	}
	if err := m.RotateKeys(ctx); err != nil {
		return nil, err
	}
	if err := m.loadAccounts(ctx); err != nil {
		return nil, err
	}
	if err := m.loadRevoked(ctx); err != nil {
		return nil, err
	}
	if err := m.loadPolicies(ctx); err != nil {
		return nil, err
	}
	return m, m.openPlatform(ctx, cfg.ProjectCreators)
}

// openPlatform says who may make projects: the owner, and who else is named at this start.
func (m *IAM) openPlatform(ctx context.Context, creators []string) error {
	want := Policy{
		Bindings: []Binding{{Role: projectCreator, Members: append([]string{m.Owner().Member}, creators...)}},
	}
	have := m.Policy(Platform)
	if n := want.normal(); len(have.Bindings) == 1 && slices.Equal(have.Bindings[0].Members, n.Bindings[0].Members) {
		return nil
	}
	_, err := m.SetPolicy(ctx, Platform, want)
	return err
}

// projectCreator is the role that lets its holders make projects.
const projectCreator = "roles/resourcemanager.projectCreator"

func (m *IAM) loadSecret(ctx context.Context) error {
	var s secret
	err := m.store.View(ctx, func(tx *store.Tx) error {
		row, err := secrets.Get(tx, "platform")
		s = row.Value
		return err
	})
	if fault.Is(err, fault.NotFound) {
		s.MAC = make([]byte, 32)
		if _, err := io.ReadFull(m.random, s.MAC); err != nil {
			return err
		}
		err = m.store.Update(ctx, func(tx *store.Tx) error {
			_, err := secrets.Create(tx, "platform", s)
			return err
		})
	}
	m.mac = s.MAC
	return err
}

// Owner is the platform's owner.
func (m *IAM) Owner() Principal { return User(m.owner) }

// PageKey returns the key of the platform's page tokens, derived from its secret.
func (m *IAM) PageKey() []byte {
	k := sha256.Sum256(append([]byte("page tokens\x00"), m.mac...))
	return k[:]
}

// Principal is a caller whose identity was verified, or an unauthenticated one.
type Principal struct {
	// Member is the identity as policies write it: "user:EMAIL", "serviceAccount:EMAIL", or "" for an unauthenticated
	// caller.
	Member string
}

// Anonymous is a caller without credentials.
var Anonymous = Principal{}

// User returns the principal of a person.
func User(email string) Principal { return Principal{"user:" + email} }

// ServiceAccount returns the principal of a service account.
func ServiceAccount(email string) Principal { return Principal{"serviceAccount:" + email} }

// Email returns the e-mail address, or "" for an unauthenticated caller.
func (p Principal) Email() string {
	_, email, _ := strings.Cut(p.Member, ":")
	return email
}

// IsUser reports whether the principal is a person.
func (p Principal) IsUser() bool { return strings.HasPrefix(p.Member, "user:") }

// Subject is the principal's stable numeric id, as Google's sub claims are.
func (p Principal) Subject() string {
	h := sha256.Sum256([]byte(p.Member))
	return fmt.Sprintf("1%020d", binary.BigEndian.Uint64(h[:8]))
}

// String returns the member, "anonymous" for an unauthenticated caller.
func (p Principal) String() string {
	if p.Member == "" {
		return "anonymous"
	}
	return p.Member
}
