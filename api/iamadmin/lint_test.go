package iamadmin_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"giggle/api/guard/guardtest"
	"giggle/api/iamadmin"
	"giggle/iam"
	"giggle/rest"
)

func TestLintPolicy(t *testing.T) {
	w := newWorld(t)
	lint := func(expression string) map[string]any {
		t.Helper()
		b, err := json.Marshal(map[string]any{
			"fullResourceName": "//cloudresourcemanager.googleapis.com/projects/giggle",
			"condition":        map[string]string{"title": "t", "expression": expression},
		})
		if err != nil {
			t.Fatal(err)
		}
		return w.Call(t, "POST", "/v1/iamPolicies:lintPolicy", string(b), 200)
	}
	if got := lint(`resource.name.startsWith("projects/giggle/")`); got["lintResults"] != nil {
		t.Errorf("a good condition: %v", got)
	}
	for expression, at := range map[string]float64{"": 0, "1 +": 3, "resource.name ==\n  nothing": 19, `"text"`: 0,
		"request.time": 0} {
		got, _ := lint(expression)["lintResults"].([]any)
		if len(got) != 1 {
			t.Errorf("%q: %v", expression, got)
			continue
		}
		r := got[0].(map[string]any)
		where, _ := r["locationOffset"].(float64)
		if r["severity"] != "ERROR" || r["level"] != "CONDITION" || r["fieldName"] != "condition.expression" ||
			r["debugMessage"] == "" || where != at {
			t.Errorf("%q: %v, want it at %v", expression, r, at)
		}
	}
	w.Call(t, "POST", "/v1/iamPolicies:lintPolicy", "{}", 400)
	w.Call(t, "POST", "/v1/iamPolicies:lintPolicy",
		`{"fullResourceName":"projects/giggle","condition":{"expression":"true"}}`, 400)
	w.CallAs(t, "", "POST", "/v1/iamPolicies:lintPolicy", "{}", 401)
}

func TestAuditableServices(t *testing.T) {
	w := guardtest.New(t)
	w.Serve(t, "iam.googleapis.com", "", iamadmin.Rules, func(m *rest.Mux) {
		iamadmin.New(iamadmin.Config{
			Identity: w.IAM,
			Project:  w.Projects.Find,
			Pages:    w.Pages,
			Audited:  []string{"iam.googleapis.com", "run.googleapis.com"},
		}).Register(m)
	})
	got := w.Call(t, "POST", "/v1/iamPolicies:queryAuditableServices",
		`{"fullResourceName":"//cloudresourcemanager.googleapis.com/projects/giggle"}`, 200)
	if names := guardtest.Names(got, "services", "name"); len(names) != 2 || names[1] != "run.googleapis.com" {
		t.Errorf("services = %v", got)
	}
	w.Call(t, "POST", "/v1/iamPolicies:queryAuditableServices", `{"fullResourceName":"x"}`, 400)
	newWorld(t).Call(t, "POST", "/v1/iamPolicies:queryAuditableServices",
		`{"fullResourceName":"//cloudresourcemanager.googleapis.com/projects/giggle"}`, 405)
}

// The older signing methods are on iam.googleapis.com.
func TestOlderSigning(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", accounts, `{"accountId":"tortune"}`, 200)
	w.Call(t, "POST", account+":signBlob", `{"bytesToSign":"aGVsbG8="}`, 403) // the owner alone may not
	w.Call(t, "POST", account+":setIamPolicy", `{"policy":{"bindings":[{"role":"roles/iam.serviceAccountTokenCreator",`+
		`"members":["user:you@giggle.test"]}]}}`, 200)
	got := w.Call(t, "POST", account+":signBlob", `{"bytesToSign":"aGVsbG8="}`, 200)
	k, err := w.IAM.Key(t.Context(), "-", email, got["keyId"].(string))
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(got["signature"].(string))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("hello"))
	if err := rsa.VerifyPKCS1v15(c.PublicKey.(*rsa.PublicKey), crypto.SHA256, sum[:], signature); err != nil {
		t.Error(err)
	}

	now := time.Now().Unix()
	claims, err := json.Marshal(fmt.Sprintf(`{"iss":%[1]q,"sub":%[1]q,"aud":"https://run.googleapis.com/","iat":%[2]d,"exp":%[3]d}`, email, now, now+600))
	if err != nil {
		t.Fatal(err)
	}
	got = w.Call(t, "POST", account+":signJwt", `{"payload":`+string(claims)+`}`, 200)
	if c, err := w.IAM.Credential(t.Context(), "Bearer "+got["signedJwt"].(string), "run.googleapis.com"); err != nil ||
		c.Principal != iam.ServiceAccount(email) {
		t.Errorf("the JWT is of %s, %v", c.Principal, err)
	}
	w.Call(t, "POST", account+":signBlob", "{}", 400)
	w.CallAs(t, w.Stranger, "POST", account+":signBlob", `{"bytesToSign":"aGVsbG8="}`, 403)
	w.CallAs(t, w.Stranger, "POST", account+":signJwt", `{"payload":"{}"}`, 403)
}
