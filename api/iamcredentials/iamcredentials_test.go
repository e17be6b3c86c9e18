package iamcredentials_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"giggle/api/guard/guardtest"
	"giggle/api/iamcredentials"
	"giggle/iam"
	"giggle/rest"
)

type world struct{ *guardtest.World }

func newWorld(t *testing.T) world {
	w := world{guardtest.New(t)}
	w.Serve(t, "iamcredentials.googleapis.com", "", iamcredentials.Rules, func(m *rest.Mux) {
		iamcredentials.New(iamcredentials.Config{Identity: w.IAM}).Register(m)
	})
	// The owner of a project has no tokens of its accounts, unless he gives himself the role.
	p := w.IAM.Policy("projects/giggle")
	p.Bindings = append(p.Bindings, iam.Binding{
		Role:    "roles/iam.serviceAccountTokenCreator",
		Members: []string{w.IAM.Owner().Member},
	})
	if _, err := w.IAM.SetPolicy(t.Context(), "projects/giggle", p); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"target", "middle"} {
		if _, err := w.IAM.CreateAccount(t.Context(), id, iam.Account{Project: "giggle"}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func email(id string) string { return id + "@giggle.iam.gserviceaccount.com" }
func path(id, verb string) string {
	return "/v1/projects/-/serviceAccounts/" + email(id) + ":" + verb
}

func (w world) creator(t *testing.T, on, member string) {
	t.Helper()
	_, err := w.IAM.SetPolicy(t.Context(), "projects/giggle/serviceAccounts/"+email(on), iam.Policy{
		Bindings: []iam.Binding{{Role: "roles/iam.serviceAccountTokenCreator", Members: []string{member}}}})
	if err != nil {
		t.Fatal(err)
	}
}

const scope = `"scope":["https://www.googleapis.com/auth/cloud-platform"]`

func TestAccessToken(t *testing.T) {
	w := newWorld(t)
	// The refusal is in IAM's words, and the same whether the account exists or not.
	for _, id := range []string{"target", "nobody"} {
		denied := w.CallAs(t, w.Stranger, "POST", path(id, "generateAccessToken"), "{"+scope+"}", 403)
		e := denied["error"].(map[string]any)
		if e["status"] != "PERMISSION_DENIED" || guardtest.Reason(denied) != "IAM_PERMISSION_DENIED" ||
			!strings.Contains(e["message"].(string),
				"Permission 'iam.serviceAccounts.getAccessToken' denied on resource") {
			t.Errorf("%s: %v", id, denied)
		}
	}
	w.CallAs(t, w.Stranger, "POST", path("nobody", "generateAccessToken"), "{"+scope+"}", 403)
	w.CallAs(t, "", "POST", path("target", "generateAccessToken"), "{"+scope+"}", 401)
	w.creator(t, "target", "user:stranger@giggle.test")
	a := w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), "{"+scope+`,"lifetime":"300s"}`, 200)
	who, err := w.IAM.Credential(t.Context(), "Bearer "+a["accessToken"].(string), "")
	if err != nil || who.Principal != iam.ServiceAccount(email("target")) {
		t.Errorf("the token is %v's, %v", who.Principal, err)
	}
	// An hour is the most, and is what there is without a word.
	for _, body := range []string{"{" + scope + `,"lifetime":"3600s"}`, "{" + scope + "}"} {
		a := w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body, 200)
		expires, err := time.Parse(time.RFC3339, a["expireTime"].(string))
		if left := time.Until(expires); err != nil || left > time.Hour || left < 59*time.Minute {
			t.Errorf("%s: it expires in %v, %v", body, left, err)
		}
	}
	for body, field := range map[string]string{
		"{" + scope + `,"lifetime":"3600.000000001s"}`: "lifetime", "{" + scope + `,"lifetime":"43200s"}`: "lifetime",
		"{" + scope + `,"lifetime":"0s"}`: "lifetime",
		`{"lifetime":"60s"}`:              "scope", `{"scope":[]}`: "scope",
	} {
		if got := guardtest.Field(w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body,
			400)); got != field {
			t.Errorf("%s: %q is named, want %q", body, got, field)
		}
	}
	expires, err := time.Parse(time.RFC3339, a["expireTime"].(string))
	if left := time.Until(expires); err != nil || left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("it expires in %v, %v", left, err)
	}
	for _, body := range []string{"{}", "{" + scope + `,"lifetime":"3601s"}`, "{" + scope + `,"lifetime":"-1s"}`,
		"{" + scope + `,"delegates":["x"]}`} {
		w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body, 400)
	}
	// One who may act as one account may not act as another.
	w.CallAs(t, w.Stranger, "POST", path("middle", "generateAccessToken"), "{"+scope+"}", 403)
	w.Call(t, "POST", path("nobody", "generateAccessToken"), "{"+scope+"}", 403)
}

func TestDelegates(t *testing.T) {
	w := newWorld(t)
	body := fmt.Sprintf(`{%s,"delegates":["projects/-/serviceAccounts/%s"]}`, scope, email("middle"))
	w.creator(t, "middle", "user:stranger@giggle.test")
	w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body, 403)
	w.creator(t, "target", "serviceAccount:"+email("middle"))
	w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body, 200)
	w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), "{"+scope+"}", 403)
	if _, err := w.IAM.UpdateAccount(t.Context(), "giggle", email("middle"),
		func(a *iam.Account) error { a.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body, 400)
	w.creator(t, "middle", "user:else@giggle.test")
	w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body, 403)
}

func TestIDToken(t *testing.T) {
	w := newWorld(t)
	const audience = "https://jokes.test"
	for _, withEmail := range []bool{true, false} {
		a := w.Call(t, "POST", path("target", "generateIdToken"),
			fmt.Sprintf(`{"audience":%q,"includeEmail":%v}`, audience, withEmail), 200)
		token := a["token"].(string)
		claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		if err != nil || strings.Contains(string(claims), email("target")) != withEmail {
			t.Errorf("claims %s, %v, want the address: %v", claims, err, withEmail)
		}
		if c, err := w.IAM.CheckIDToken(token, audience); err != nil ||
			c.Principal() != iam.ServiceAccount(email("target")) {
			t.Errorf("checked: %v, %v", c.Principal(), err)
		}
		if _, err := w.IAM.CheckIDToken(token, "https://other.test"); err == nil {
			t.Error("good for another audience")
		}
	}
	w.Call(t, "POST", path("target", "generateIdToken"), "{}", 400)
	w.CallAs(t, w.Stranger, "POST", path("target", "generateIdToken"), `{"audience":"a"}`, 403)
}

func TestSign(t *testing.T) {
	w := newWorld(t)
	a := w.Call(t, "POST", path("target", "signBlob"), `{"payload":"aGVsbG8="}`, 200)
	k, err := w.IAM.Key(t.Context(), "-", email("target"), a["keyId"].(string))
	if err != nil || !k.Managed {
		t.Fatalf("its key: %+v, %v", k, err)
	}
	cert, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(a["signedBlob"].(string))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("hello"))
	if err := rsa.VerifyPKCS1v15(cert.PublicKey.(*rsa.PublicKey), crypto.SHA256, sum[:], signature); err != nil {
		t.Error(err)
	}
	if err := w.IAM.DeleteKey(t.Context(), "-", email("target"), k.ID); err == nil {
		t.Error("the platform's key was deleted")
	}

	// A JWT that it signed is an assertion of the account.
	now := time.Now().Unix()
	claims := fmt.Sprintf(`{\"iss\":%[1]q,\"aud\":\"https://token.test\",\"iat\":%[2]d,\"exp\":%[3]d,\"scope\":\"s\"}`,
		email("target"), now, now+600)
	claims = strings.ReplaceAll(claims, `"`+email("target")+`"`, `\"`+email("target")+`\"`)
	j := w.Call(t, "POST", path("target", "signJwt"), `{"payload":"`+claims+`"}`, 200)
	if j["keyId"] != a["keyId"] {
		t.Error("a key for each signature")
	}
	as, err := w.IAM.CheckAssertion(t.Context(), j["signedJwt"].(string), "https://token.test")
	if err != nil || as.Principal != iam.ServiceAccount(email("target")) {
		t.Errorf("assertion %+v, %v", as, err)
	}
	for _, payload := range []string{``, `[]`, `null`, `{\"exp\":1}`, fmt.Sprintf(`{\"exp\":%d}`, now+13*3600),
		`{\"exp\":\"x\"}`} {
		w.Call(t, "POST", path("target", "signJwt"), `{"payload":"`+payload+`"}`, 400)
	}
	w.Call(t, "POST", path("target", "signBlob"), "{}", 400)
	w.CallAs(t, w.Stranger, "POST", path("target", "signBlob"), `{"payload":"aGVsbG8="}`, 403)
	w.CallAs(t, w.Stranger, "POST", path("target", "signJwt"), `{"payload":"{}"}`, 403)
}

// Each in a chain may delegate to the next only: none can be left out, and the order counts.
func TestDelegationChain(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"second", "third"} {
		if _, err := w.IAM.CreateAccount(t.Context(), id+"-one", iam.Account{Project: "another-project"}); err != nil {
			t.Fatal(err)
		}
	}
	other := func(id string) string { return id + "-one@another-project.iam.gserviceaccount.com" }
	bind := func(account, member, role string) {
		t.Helper()
		a, err := w.IAM.Account(t.Context(), "-", account)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.IAM.SetPolicy(t.Context(), a.Name(), iam.Policy{Bindings: []iam.Binding{{
			Role:    role,
			Members: []string{member},
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(status int, chain ...string) {
		t.Helper()
		for i := range chain {
			chain[i] = `"projects/-/serviceAccounts/` + chain[i] + `"`
		}
		body := "{" + scope + `,"delegates":[` + strings.Join(chain, ",") + "]}"
		w.CallAs(t, w.Stranger, "POST", path("target", "generateAccessToken"), body, status)
	}
	const creator = "roles/iam.serviceAccountTokenCreator"
	bind(email("middle"), "user:stranger@giggle.test", creator)
	bind(other("second"), "serviceAccount:"+email("middle"), creator)
	bind(other("third"), "serviceAccount:"+other("second"), creator)
	bind(email("target"), "serviceAccount:"+other("third"), creator)
	ask(200, email("middle"), other("second"), other("third"))
	ask(403, email("middle"), other("third"))
	ask(403, other("second"), other("third"))
	ask(403, other("third"), other("second"), email("middle"))
	ask(403, email("middle"), other("second"))
	ask(403)
	ask(403, email("middle"), "nobody@giggle.iam.gserviceaccount.com", other("third"))
	long := make([]string, 9)
	for i := range long {
		long[i] = email("middle")
	}
	ask(400, long...)
	// The role that lets one act as an account lets nobody make its tokens.
	bind(email("target"), "serviceAccount:"+other("third"), "roles/iam.serviceAccountUser")
	ask(403, email("middle"), other("second"), other("third"))
}
