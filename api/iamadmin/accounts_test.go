package iamadmin_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"giggle/iam"
)

const (
	accounts = "/v1/projects/giggle/serviceAccounts"
	email    = "tortune@giggle.iam.gserviceaccount.com"
	account  = accounts + "/" + email
)

func TestServiceAccountLife(t *testing.T) {
	w := newWorld(t)
	a := w.Call(t, "POST", accounts, `{"accountId":"tortune","serviceAccount":{"displayName":"Fortune"}}`, 200)
	if a["email"] != email || a["displayName"] != "Fortune" || a["projectId"] != "giggle" || a["etag"] == "" {
		t.Fatalf("created %v", a)
	}
	unique := a["uniqueId"].(string)
	w.Call(t, "POST", accounts, `{"accountId":"tortune"}`, 409)
	for _, id := range []string{"", "short", "UPPER-CASE", "ends-with-", "1digit", strings.Repeat("a", 31)} {
		w.Call(t, "POST", accounts, `{"accountId":"`+id+`"}`, 400)
	}

	// Three, two to a page.
	first := w.Call(t, "GET", accounts+"?pageSize=2", "", 200)
	rest := w.Call(t, "GET", accounts+"?pageSize=2&pageToken="+first["nextPageToken"].(string), "", 200)
	if n := len(first["accounts"].([]any)) + len(rest["accounts"].([]any)); n != 3 || rest["nextPageToken"] != nil {
		t.Errorf("%d accounts in two pages, then %v", n, rest["nextPageToken"])
	}

	a = w.Call(t, "PATCH", account,
		`{"serviceAccount":{"displayName":"No","description":"Tells it"},"updateMask":"description"}`, 200)
	if a["displayName"] != "Fortune" || a["description"] != "Tells it" {
		t.Errorf("patched to %v", a)
	}
	w.Call(t, "PATCH", account, `{"serviceAccount":{"email":"x@giggle.test"},"updateMask":"email"}`, 400)
	w.Call(t, "PATCH", account, `{"serviceAccount":{"description":"x"}}`, 400)
	stale := a["etag"].(string)
	a = w.Call(t, "PUT", account, `{"displayName":"Both","etag":"`+stale+`"}`, 200)
	if a["displayName"] != "Both" || a["description"] != nil {
		t.Errorf("updated to %v", a)
	}
	w.Call(t, "PUT", account, `{"displayName":"Late","etag":"`+stale+`"}`, 409)

	// Disabled, its token stops at once; enabled, the same token works again.
	w.Call(t, "POST", "/v1/projects/giggle/serviceAccounts/"+email+":setIamPolicy",
		`{"policy":{"bindings":[{"role":"roles/iam.serviceAccountViewer","members":["serviceAccount:`+email+`"]}]}}`,
		200)
	token := w.Token(t, iam.ServiceAccount(email))
	w.CallAs(t, token, "GET", account, "", 200)
	w.Call(t, "POST", account+":disable", "", 200)
	w.CallAs(t, token, "GET", account, "", 401)
	if a := w.Call(t, "GET", account, "", 200); a["disabled"] != true {
		t.Errorf("disabled: %v", a)
	}
	w.Call(t, "POST", account+":enable", "", 200)
	w.CallAs(t, token, "GET", account, "", 200)

	// Deleted, and another of its address inherits neither token nor policy.
	w.Call(t, "DELETE", account, "", 200)
	w.CallAs(t, token, "GET", account, "", 401)
	w.Call(t, "GET", account, "", 404)
	other := w.Call(t, "POST", accounts, `{"accountId":"tortune"}`, 200)
	if other["uniqueId"] == unique {
		t.Error("a unique id was given twice")
	}
	w.CallAs(t, token, "GET", account, "", 401)
	w.CallAs(t, w.Token(t, iam.ServiceAccount(email)), "GET", account, "", 403)
	w.Call(t, "POST", "/v1/projects/-/serviceAccounts/"+unique+":undelete", "", 400)
	w.Call(t, "DELETE", account, "", 200)

	// Undeleted, all is as it was.
	back := w.Call(t, "POST", "/v1/projects/-/serviceAccounts/"+unique+":undelete", "", 200)
	if r, _ := back["restoredAccount"].(map[string]any); r["uniqueId"] != unique || r["displayName"] != "Both" {
		t.Errorf("restored %v", back)
	}
	w.CallAs(t, token, "GET", account, "", 200)
}

func TestKeys(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", accounts, `{"accountId":"tortune"}`, 200)
	k := w.Call(t, "POST", account+"/keys", "{}", 200)
	file, err := base64.StdEncoding.DecodeString(k["privateKeyData"].(string))
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]string
	if err := json.Unmarshal(file, &f); err != nil || f["client_email"] != email || f["type"] != "service_account" {
		t.Fatalf("key file %v, %v", f, err)
	}
	name := k["name"].(string)
	if name != "projects/giggle/serviceAccounts/"+email+"/keys/"+f["private_key_id"] {
		t.Errorf("name %s, file of %s", name, f["private_key_id"])
	}
	w.Call(t, "POST", account+"/keys", `{"privateKeyType":"TYPE_PKCS12_FILE"}`, 405)
	got := w.Call(t, "GET", "/v1/"+name+"?publicKeyType=TYPE_X509_PEM_FILE", "", 200)
	cert, err := base64.StdEncoding.DecodeString(got["publicKeyData"].(string))
	if err != nil || !strings.HasPrefix(string(cert), "-----BEGIN CERTIFICATE") || got["privateKeyData"] != nil {
		t.Errorf("get = %v, %v", got, err)
	}
	w.Call(t, "POST", "/v1/"+name+":disable", "", 200)
	if got := w.Call(t, "GET", "/v1/"+name, "", 200); got["disabled"] != true {
		t.Errorf("disabled: %v", got)
	}
	w.Call(t, "POST", "/v1/"+name+":enable", "", 200)

	// The public half of a key may be brought along, but of a key once only, and no rubbish.
	w.Call(t, "DELETE", "/v1/"+name, "", 200)
	body := `{"publicKeyData":"` + got["publicKeyData"].(string) + `"}`
	if up := w.Call(t, "POST", account+"/keys:upload", body, 200); up["keyOrigin"] != "USER_PROVIDED" {
		t.Errorf("uploaded %v", up)
	}
	w.Call(t, "POST", account+"/keys:upload", body, 409)
	w.Call(t, "POST", account+"/keys:upload", `{"publicKeyData":"aGVsbG8="}`, 400)
	if l := w.Call(t, "GET", account+"/keys?keyTypes=USER_MANAGED", "", 200); len(l["keys"].([]any)) != 1 {
		t.Errorf("list = %v", l)
	}
	if l := w.Call(t, "GET", account+"/keys?keyTypes=SYSTEM_MANAGED", "", 200); l["keys"] != nil {
		t.Errorf("system-managed = %v", l)
	}
	for range 9 {
		w.Call(t, "POST", account+"/keys", "", 200)
	}
	w.Call(t, "POST", account+"/keys", "", 400)
}

// A client that asks for a version without conditions is given none, as everywhere.
func TestPolicyVersionOnAccount(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", accounts, `{"accountId":"tortune"}`, 200)
	w.Call(t, "POST", account+":setIamPolicy",
		`{"policy":{"version":3,"bindings":[{"role":"roles/iam.serviceAccountUser",
		"members":["user:a@b.test"],"condition":{"title":"t","expression":"true"}}]}}`, 200)
	whole := w.Call(t, "POST", account+":getIamPolicy?options.requestedPolicyVersion=3", "", 200)
	if b := whole["bindings"].([]any)[0].(map[string]any); b["condition"] == nil || whole["version"] != 3.0 {
		t.Errorf("version 3: %v", whole)
	}
	old := w.Call(t, "POST", account+":getIamPolicy", "", 200)
	if b := old["bindings"].([]any)[0].(map[string]any); b["condition"] != nil || old["version"] != 1.0 {
		t.Errorf("no version: %v", old)
	}
}

// A binding on an account reaches its keys; a binding on another does not.
func TestPolicyOnAccount(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", accounts, `{"accountId":"tortune"}`, 200)
	key := "/v1/" + w.Call(t, "POST", account+"/keys", "", 200)["name"].(string)
	w.CallAs(t, w.Stranger, "GET", key, "", 403)
	other := accounts + "/" + iam.ComputeAccount(w.Project.Number)
	p := w.Call(t, "POST", account+":getIamPolicy", "", 200)
	w.Call(t, "POST", account+":setIamPolicy",
		`{"policy":{"etag":"`+p["etag"].(string)+
			`","bindings":[{"role":"roles/iam.serviceAccountKeyAdmin","members":["user:stranger@giggle.test"]}]}}`, 200)
	w.Call(t, "POST", account+":setIamPolicy", `{"policy":{"etag":"`+p["etag"].(string)+`"}}`, 409)
	w.CallAs(t, w.Stranger, "GET", key, "", 200)
	w.CallAs(t, w.Stranger, "GET", other+"/keys", "", 403)
	held := w.CallAs(t, w.Stranger, "POST", account+":testIamPermissions",
		`{"permissions":["iam.serviceAccountKeys.create","iam.serviceAccounts.actAs"]}`, 200)
	if got := held["permissions"].([]any); len(got) != 1 || got[0] != "iam.serviceAccountKeys.create" {
		t.Errorf("held %v", got)
	}
	w.CallAs(t, w.Stranger, "POST", account+":setIamPolicy", `{"policy":{}}`, 403)
}
