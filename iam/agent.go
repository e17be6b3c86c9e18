package iam

import (
	"strings"

	"giggle/catalog"
	"giggle/fault"
	"giggle/store"
)

// agentDomains are what follows a project's number in the addresses of its service agents. They are principals that
// policies name; they have no keys, nobody acts as them, and a project's list of service accounts leaves them out.
var agentDomains = catalog.AgentDomains()

// apisAgent is the domain of the agent that works for all APIs: NUMBER@cloudservices.gserviceaccount.com.
const apisAgent = "@cloudservices.gserviceaccount.com"

// ModelAgent is the address of Vertex AI's service agent of a project, as which models on services are called.
func ModelAgent(number string) string {
	return "service-" + number + "@gcp-sa-aiplatform.iam.gserviceaccount.com"
}

// agentNumber is the project number in the address of a service agent.
func agentNumber(email string) (number string, ok bool) {
	number, ok = strings.CutSuffix(email, apisAgent)
	for i := 0; i < len(agentDomains) && !ok; i++ {
		number, ok = strings.CutSuffix(email, agentDomains[i])
		if ok {
			number, ok = strings.CutPrefix(number, "service-")
		}
	}
	if ok && number != "" && strings.Trim(number, "0123456789") == "" {
		return number, true
	}
	return "", false
}

// knownAccount reports whether a service account of that address is there: one of a project's own, or a service agent
// of a project. A project is known by the accounts that it was made with, even if they were deleted since.
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
