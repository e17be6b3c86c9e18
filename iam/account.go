package iam

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/fault"
	"giggle/store"
)

// Account is a service account.
type Account struct {
	Project     string // project id
	Email       string
	UniqueID    string // numeric
	DisplayName string
	Description string
	Disabled    bool
}

// Name is the account's full resource name.
func (a Account) Name() string { return "projects/" + a.Project + "/serviceAccounts/" + a.Email }

// accountKey is the public half of a service account's key.
type accountKey struct {
	Email string
	DER   []byte // PKCS #1 public key
}

var (
	accounts    = store.NewTable[Account]("iam.serviceAccount", "Service account")
	accountKeys = store.NewTable[accountKey]("iam.serviceAccountKey", "Service account key")
)

// ComputeAccount is the e-mail address of a project's default runtime account.
func ComputeAccount(number string) string { return number + "-compute@developer.gserviceaccount.com" }

// BuildAccount is the e-mail address of the account that a project's builds run as.
func BuildAccount(number string) string { return number + "@cloudbuild.gserviceaccount.com" }

// CreateDefaults makes the accounts that Google manages in a project, in the transaction that makes the project.
func (m *IAM) CreateDefaults(tx *store.Tx, project, number string) error {
	for _, a := range []Account{
		{Project: project, Email: ComputeAccount(number), DisplayName: "Compute Engine default service account"},
		{Project: project, Email: BuildAccount(number), DisplayName: "Legacy Cloud Build service account"},
	} {
		a.UniqueID = ServiceAccount(a.Email).Subject()
		if _, err := accounts.Create(tx, a.Email, a); err != nil {
			return err
		}
	}
	return nil
}

// Account returns the service account with that e-mail address or unique id in the project ("-" for any), or
// NotFound.
func (m *IAM) Account(ctx context.Context, project, id string) (a Account, err error) {
	defer fault.Wrap(&err, "iam.Account(%s)", id)
	err = m.store.View(ctx, func(tx *store.Tx) error {
		if strings.Contains(id, "@") {
			row, err := accounts.Get(tx, id)
			a = row.Value
			return err
		}
		rows, err := accounts.List(tx, "", "", 0)
		for _, r := range rows {
			if r.Value.UniqueID == id {
				a = r.Value
			}
		}
		return err
	})
	if fault.Is(err, fault.NotFound) || err == nil && (a.Email == "" || project != "-" && a.Project != project) {
		return Account{}, fault.New(fault.NotFound, "Unknown service account")
	}
	return a, err
}

// CreateKey makes a key for a service account and returns the JSON key file that Google's tools read. The private
// half is not kept.
func (m *IAM) CreateKey(ctx context.Context, email string) (_ []byte, err error) {
	defer fault.Wrap(&err, "iam.CreateKey(%s)", email)
	a, err := m.Account(ctx, "-", email)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(m.random, rsaBits)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 20)
	if _, err := io.ReadFull(m.random, id); err != nil {
		return nil, err
	}
	kid := hex.EncodeToString(id)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		_, err := accountKeys.Create(tx, kid, accountKey{Email: a.Email, DER: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": a.Project, "private_key_id": kid,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": a.Email, "client_id": a.UniqueID,
		"auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token",
		"universe_domain": "googleapis.com",
	}, "", "  ")
}

// Assertion is a verified JWT of a service account (RFC 7523).
type Assertion struct {
	Principal      Principal
	Scopes         []string
	TargetAudience string // set: an ID token is wanted, not an access token
}

// CheckAssertion verifies a JWT that a service account's key signed for the token endpoint. It fails with
// InvalidArgument.
func (m *IAM) CheckAssertion(ctx context.Context, raw string, audiences ...string) (_ Assertion, err error) {
	defer fault.Wrap(&err, "iam.CheckAssertion")
	bad := func(why string) (Assertion, error) {
		return Assertion{}, fault.New(fault.InvalidArgument, "Invalid JWT: %s", why)
	}
	if len(raw) > maxToken {
		return bad("it is too long.")
	}
	tok, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return bad("it is not a JWT signed with RS256.")
	}
	var k accountKey
	err = m.store.View(ctx, func(tx *store.Tx) error {
		row, err := accountKeys.Get(tx, tok.Headers[0].KeyID)
		k = row.Value
		return err
	})
	if fault.Is(err, fault.NotFound) {
		return bad("its key id is not that of a key of a service account here.")
	}
	if err != nil {
		return Assertion{}, err
	}
	public, err := x509.ParsePKCS1PublicKey(k.DER)
	if err != nil {
		return Assertion{}, err
	}
	var c struct {
		jwt.Claims
		Scope          string `json:"scope"`
		TargetAudience string `json:"target_audience"`
	}
	if err := tok.Claims(public, &c); err != nil {
		return bad("its signature does not verify.")
	}
	if c.Issuer != k.Email {
		return bad("its issuer is not the account that the key belongs to.")
	}
	if err := c.Claims.ValidateWithLeeway(jwt.Expected{AnyAudience: audiences, Time: m.now()}, time.Minute); err != nil {
		return bad("its audience or its time is wrong; is the clock right?")
	}
	if c.Expiry == nil || c.Expiry.Time().Sub(m.now()) > AccessTokenAge+time.Minute {
		return bad("it must expire within an hour.")
	}
	a, err := m.Account(ctx, "-", k.Email)
	if err != nil {
		return bad("the account is gone.")
	}
	if a.Disabled {
		return bad("the account is disabled.")
	}
	return Assertion{ServiceAccount(a.Email), strings.Fields(c.Scope), c.TargetAudience}, nil
}
