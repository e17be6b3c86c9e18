package iam

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// Account is a service account.
type Account struct {
	Project     string // project id
	Email       string
	UniqueID    string // numeric; never given again
	DisplayName string
	Description string
	Disabled    bool
	Etag        string `json:"-"` // base64; changes with every write
}

// Name is the account's full resource name.
func (a Account) Name() string { return accountName(a.Project, a.Email) }

func accountName(project, email string) string {
	return "projects/" + project + "/serviceAccounts/" + email
}

// deletedAccount is a service account that can be undeleted for undeleteAge.
type deletedAccount struct {
	Account Account
	Policy  *Policy // the one on it
	Deleted time.Time
}

// undeleteAge is how long a deleted service account or custom role can be brought back, from IAM's reference.
const undeleteAge = 30 * 24 * time.Hour

var (
	accounts = store.NewTable[Account]("iam.serviceAccount",
		"Service account").By(func(_ string, a Account) string { return a.Project })
	// by unique id
	deletedAccounts = store.NewTable[deletedAccount]("iam.deletedServiceAccount", "Deleted service account")
)

// ComputeAccount is the e-mail address of a project's default runtime account.
func ComputeAccount(number string) string { return number + "-compute@developer.gserviceaccount.com" }

// BuildAccount is the e-mail address of the account that a project's builds run as.
func BuildAccount(number string) string { return number + "@cloudbuild.gserviceaccount.com" }

// CreateDefaults makes the accounts that Google manages in a project, in the transaction that makes the project.
func (m *IAM) CreateDefaults(tx *store.Tx, project, number, owner string) error {
	for _, a := range []Account{
		{Project: project, Email: ComputeAccount(number), DisplayName: "Compute Engine default service account"},
		{Project: project, Email: BuildAccount(number), DisplayName: "Legacy Cloud Build service account"},
	} {
		a.UniqueID = ServiceAccount(a.Email).Subject()
		if _, err := accounts.Create(tx, a.Email, a); err != nil {
			return err
		}
	}
	name := "projects/" + project
	first := Policy{Version: 1, Bindings: []Binding{
		{Role: "roles/cloudbuild.builds.builder", Members: []string{ServiceAccount(BuildAccount(number)).Member}},
		{Role: ownerRole, Members: []string{owner}},
	}}
	first.Etag = resource.Etag(1) // of a new row
	if _, err := policies.Create(tx, name, first); err != nil {
		return err
	}
	m.remembered(tx, map[string]*compiled{name: compile(first)})
	return nil
}

// accountState is what a token's check asks about the account that it was given to.
type accountState struct {
	UniqueID string
	Usable   bool // neither disabled nor deleted
}

// loadAccounts reads the state of every service account into memory.
func (m *IAM) loadAccounts(ctx context.Context) error {
	states := make(map[string]accountState)
	err := m.store.View(ctx, func(tx *store.Tx) error {
		gone, err := deletedAccounts.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range gone {
			states[r.Value.Account.Email] = accountState{r.Value.Account.UniqueID, false}
		}
		rows, err := accounts.List(tx, "", "", 0)
		for _, r := range rows {
			states[r.Value.Email] = accountState{r.Value.UniqueID, !r.Value.Disabled}
		}
		return err
	})
	m.accounts.Store(&states)
	return err
}

// rememberLocked puts the state of an account into memory, under m.write.
func (m *IAM) rememberLocked(email string, s accountState) {
	next := maps.Clone(*m.accounts.Load())
	next[email] = s
	m.accounts.Store(&next)
}

// usable reports whether a token that was given to a principal still counts: not when its service account is disabled
// or deleted, nor when another one took over the address. A default account that was made after the
// start and never changed since is not in memory, and usable.
func (m *IAM) usable(p Principal, uniqueID string) bool {
	if p.IsUser() {
		return true
	}
	s, ok := (*m.accounts.Load())[p.Email()]
	return !ok || s.Usable && (uniqueID == "" || uniqueID == s.UniqueID)
}

// accountID is the unique id of a service account as far as it is in memory, "" else.
func (m *IAM) accountID(p Principal) string {
	if p.IsUser() {
		return ""
	}
	return (*m.accounts.Load())[p.Email()].UniqueID
}

// emailOf is the address of the service account with a unique id as far as it is in memory, "" else.
func (m *IAM) emailOf(uniqueID string) string {
	for email, s := range *m.accounts.Load() {
		if s.UniqueID == uniqueID && s.Usable {
			return email
		}
	}
	return ""
}

// accountGone is the answer to who wants a token of an account that is disabled or deleted.
func accountGone(p Principal) error {
	return fault.New(fault.FailedPrecondition, "The service account %s is disabled or deleted; it gets no tokens.",
		p.Email())
}

// SubjectOf is the sub claim of a principal's ID tokens: the unique id of a service account.
func (m *IAM) SubjectOf(p Principal) string {
	return cmp.Or(m.accountID(p), p.Subject())
}

// Account returns the service account with that e-mail address or unique id in the project ("-" for any), or
// NotFound.
func (m *IAM) Account(ctx context.Context, project, id string) (a Account, err error) {
	defer fault.Wrap(&err, "iam.Account(%s)", id)
	err = m.store.View(ctx, func(tx *store.Tx) error {
		row, err := findAccount(tx, project, id)
		a = row.Value
		return err
	})
	return a, err
}

func findAccount(tx *store.Tx, project, id string) (store.Row[Account], error) {
	var found store.Row[Account]
	if strings.Contains(id, "@") {
		row, err := accounts.Get(tx, id)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return row, err
		}
		found = row
	} else {
		rows, err := accounts.List(tx, "", "", 0)
		if err != nil {
			return found, err
		}
		for _, r := range rows {
			if r.Value.UniqueID == id {
				found = r
			}
		}
	}
	if found.Value.Email == "" || project != "-" && found.Value.Project != project {
		return store.Row[Account]{}, fault.New(fault.NotFound, "Unknown service account")
	}
	found.Value.Etag = resource.Etag(found.Version)
	return found, nil
}

// AccountNames returns the project and the e-mail address of a service account by e-mail address or unique id, of a
// deleted one by its unique id; or NotFound.
func (m *IAM) AccountNames(ctx context.Context, id string) (project, email string, err error) {
	a, err := m.Account(ctx, "-", id)
	if !fault.Is(err, fault.NotFound) {
		return a.Project, a.Email, err
	}
	err = m.store.View(ctx, func(tx *store.Tx) error {
		row, err := deletedAccounts.Get(tx, id)
		project, email = row.Value.Account.Project, row.Value.Account.Email
		return err
	})
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "Unknown service account")
	}
	return project, email, err
}

// Accounts returns the service accounts of a project by e-mail address.
func (m *IAM) Accounts(ctx context.Context, project string) (all []Account, err error) {
	defer fault.Wrap(&err, "iam.Accounts(%s)", project)
	err = m.store.View(ctx, func(tx *store.Tx) error {
		rows, err := accounts.List(tx, "", "", 0)
		for _, r := range rows {
			if r.Value.Project == project {
				r.Value.Etag = resource.Etag(r.Version)
				all = append(all, r.Value)
			}
		}
		return err
	})
	slices.SortFunc(all, func(a, b Account) int { return cmp.Compare(a.Email, b.Email) })
	return all, err
}

// Limits of service accounts, from IAM's quotas page and reference.
const (
	maxDisplayName = 100 // bytes
	maxDescription = 256 // bytes
)

var accountID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][-a-z0-9]{4,28}[a-z0-9]$`) })

func (a Account) check() error {
	if len(a.DisplayName) > maxDisplayName {
		return fault.Invalid("service_account.display_name", "longer than %d bytes", maxDisplayName)
	}
	if len(a.Description) > maxDescription {
		return fault.Invalid("service_account.description", "longer than %d bytes", maxDescription)
	}
	return nil
}

// CreateAccount makes the service account ID@PROJECT.iam.gserviceaccount.com; of a, project, display name and
// description count.
func (m *IAM) CreateAccount(ctx context.Context, id string, a Account) (_ Account, err error) {
	defer fault.Wrap(&err, "iam.CreateAccount(%s)", id)
	if !accountID().MatchString(id) {
		return Account{}, fault.Invalid("account_id",
			"%.60q is not 6 to 30 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen", id)
	}
	if err := a.check(); err != nil {
		return Account{}, err
	}
	b := make([]byte, 8)
	if _, err := io.ReadFull(m.random, b); err != nil {
		return Account{}, err
	}
	a = Account{
		Project:     a.Project,
		Email:       id + "@" + a.Project + ".iam.gserviceaccount.com",
		DisplayName: a.DisplayName,
		Description: a.Description,
		UniqueID:    fmt.Sprintf("1%020d", binary.BigEndian.Uint64(b)),
	}
	m.write.Lock()
	defer m.write.Unlock()
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		have, err := accounts.CountBy(tx, a.Project, m.quotas.Of(quota.Accounts))
		if err != nil {
			return err
		}
		if err := m.quotas.Admit(quota.Accounts, "project "+a.Project, have); err != nil {
			return err
		}
		row, err := accounts.Create(tx, a.Email, a)
		if fault.Is(err, fault.AlreadyExists) {
			return fault.New(fault.AlreadyExists, "Service account %s already exists within project projects/%s.", id,
				a.Project)
		}
		a.Etag = resource.Etag(row.Version)
		return err
	})
	if err != nil {
		return Account{}, err
	}
	m.rememberLocked(a.Email, accountState{a.UniqueID, true})
	return a, nil
}

// UpdateAccount changes a service account as change says; change must leave its identity alone. A change takes effect
// for the next call of the account.
func (m *IAM) UpdateAccount(
	ctx context.Context, project, id string, change func(*Account) error,
) (a Account, err error) {
	defer fault.Wrap(&err, "iam.UpdateAccount(%s)", id)
	m.write.Lock()
	defer m.write.Unlock()
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		row, err := findAccount(tx, project, id)
		if err != nil {
			return err
		}
		if err := change(&row.Value); err != nil {
			return err
		}
		if err := row.Value.check(); err != nil {
			return err
		}
		row, err = accounts.Update(tx, row)
		a = row.Value
		a.Etag = resource.Etag(row.Version)
		return err
	})
	if err != nil {
		return Account{}, err
	}
	m.rememberLocked(a.Email, accountState{a.UniqueID, !a.Disabled})
	return a, nil
}

// DeleteAccount deletes a service account. Its tokens and keys stop at once, and bindings name it as deleted, so that a
// new account of the same address inherits nothing.
func (m *IAM) DeleteAccount(ctx context.Context, project, id string) (err error) {
	defer fault.Wrap(&err, "iam.DeleteAccount(%s)", id)
	m.write.Lock()
	defer m.write.Unlock()
	var a Account
	var next map[string]*compiled
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		row, err := findAccount(tx, project, id)
		if err != nil {
			return err
		}
		a = row.Value
		gone := deletedAccount{Account: a, Deleted: m.now()}
		if next, err = m.renameMemberLocked(tx, ServiceAccount(a.Email).Member, a.deletedMember()); err != nil {
			return err
		}
		if c := (*m.policies.Load())[a.Name()]; c != nil { // as it is before the renaming
			gone.Policy = &c.Policy
			next[a.Name()] = nil
			if err := policies.Delete(tx, a.Name()); err != nil {
				return err
			}
		}
		if _, err := deletedAccounts.Put(tx, a.UniqueID, gone); err != nil {
			return err
		}
		m.remembered(tx, next)
		return accounts.Delete(tx, a.Email)
	})
	if err != nil {
		return err
	}
	m.rememberLocked(a.Email, accountState{a.UniqueID, false})
	return nil
}

// UndeleteAccount brings back a service account that was deleted in the last 30 days, by its unique id, with its keys
// and its place in bindings.
func (m *IAM) UndeleteAccount(ctx context.Context, project, uniqueID string) (a Account, err error) {
	defer fault.Wrap(&err, "iam.UndeleteAccount(%s)", uniqueID)
	m.write.Lock()
	defer m.write.Unlock()
	var next map[string]*compiled
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		row, err := deletedAccounts.Get(tx, uniqueID)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		a = row.Value.Account
		if err != nil || project != "-" && a.Project != project || m.now().Sub(row.Value.Deleted) >= undeleteAge {
			return fault.New(fault.NotFound,
				"Unknown service account: no service account with the unique id %.60s was deleted in the last 30 days.",
				uniqueID)
		}
		back, err := accounts.Create(tx, a.Email, a)
		if fault.Is(err, fault.AlreadyExists) {
			return fault.New(fault.FailedPrecondition,
				"Another service account has the address %s now; delete it first.", a.Email)
		}
		if err != nil {
			return err
		}
		a.Etag = resource.Etag(back.Version)
		if err := deletedAccounts.Delete(tx, uniqueID); err != nil {
			return err
		}
		if next, err = m.renameMemberLocked(tx, a.deletedMember(), ServiceAccount(a.Email).Member); err != nil {
			return err
		}
		if p := row.Value.Policy; p != nil {
			p.Etag = resource.Etag(1) // of a new row
			if _, err := policies.Put(tx, a.Name(), *p); err != nil {
				return err
			}
			next[a.Name()] = compile(*p)
		}
		m.remembered(tx, next)
		return nil
	})
	if err != nil {
		return Account{}, err
	}
	m.rememberLocked(a.Email, accountState{a.UniqueID, !a.Disabled})
	return a, nil
}

// deletedMember is how bindings name the account once it is deleted.
func (a Account) deletedMember() string {
	return "deleted:serviceAccount:" + a.Email + "?uid=" + a.UniqueID
}

// Expire forgets what was deleted more than 30 days ago. It is called once a day.
func (m *IAM) Expire(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "iam.Expire")
	if err := m.expireRoles(ctx); err != nil {
		return err
	}
	if err := m.expireRevoked(ctx); err != nil {
		return err
	}
	return m.store.Update(ctx, func(tx *store.Tx) error {
		rows, err := deletedAccounts.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if m.now().Sub(r.Value.Deleted) < undeleteAge {
				continue
			}
			if err := deletedAccounts.Delete(tx, r.Name); err != nil {
				return err
			}
			if err := deleteKeys(tx, r.Name); err != nil {
				return err
			}
		}
		return nil
	})
}
