package iam

import (
	"context"
	"strings"

	"giggle/fault"
	"giggle/store"
)

// agents are the service agents that Google has in a project, by what stands around the project's number
// (https://cloud.google.com/iam/docs/service-agents). They are principals that policies name; they have no keys, nobody
// acts as them, and a project's list of service accounts leaves them out.
var agents = [...]struct{ prefix, suffix string }{
	{"service-", "@serverless-robot-prod.iam.gserviceaccount.com"},
	{"service-", "@gcp-sa-cloudbuild.iam.gserviceaccount.com"},
	{"service-", "@gcp-sa-artifactregistry.iam.gserviceaccount.com"},
	{"service-", "@gcp-sa-aiplatform.iam.gserviceaccount.com"},
	{"", "@cloudservices.gserviceaccount.com"},
}

// ModelAgent is the address of Vertex AI's service agent of a project, as which models on services are called.
func ModelAgent(number string) string {
	return "service-" + number + "@gcp-sa-aiplatform.iam.gserviceaccount.com"
}

// agentNumber is the project number in the address of a service agent.
func agentNumber(email string) (number string, ok bool) {
	for _, a := range agents {
		rest, ok := strings.CutPrefix(email, a.prefix)
		number, ok2 := strings.CutSuffix(rest, a.suffix)
		if ok && ok2 && number != "" && strings.Trim(number, "0123456789") == "" {
			return number, true
		}
	}
	return "", false
}

// KnownAccount reports whether a service account of that address is there: one of a project's own, or a service agent
// of a project.
func (m *IAM) KnownAccount(ctx context.Context, email string) (known bool, err error) {
	defer fault.Wrap(&err, "iam.KnownAccount")
	err = m.store.View(ctx, func(tx *store.Tx) (err error) {
		known, err = knownAccount(tx, email)
		return err
	})
	return known, err
}

// knownAccount is KnownAccount in a transaction. A project is known by the accounts that it was made with, even if they
// were deleted since.
func knownAccount(tx *store.Tx, email string) (bool, error) {
	if there, err := hasAccount(tx, email); there || err != nil {
		return there, err
	}
	number, ok := agentNumber(email)
	if !ok {
		return false, nil
	}
	for _, made := range []string{ComputeAccount(number), BuildAccount(number)} {
		if there, err := hasAccount(tx, made); there || err != nil {
			return there, err
		}
		_, err := deletedAccounts.Get(tx, ServiceAccount(made).Subject())
		if !fault.Is(err, fault.NotFound) {
			return err == nil, err
		}
	}
	return false, nil
}

func hasAccount(tx *store.Tx, email string) (bool, error) {
	_, err := accounts.Get(tx, email)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}
