package sqladmin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"giggle/api/guard/guardtest"
	"giggle/api/sqladmin"
	"giggle/iam"
	"giggle/rest"
	"giggle/sql"
)

const host = "sqladmin.googleapis.com"

func newWorld(t *testing.T) *guardtest.World {
	t.Helper()
	w := guardtest.New(t)
	ca, err := sql.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	instances := sql.New(w.Store, w.Projects.Find)
	for n := range 3 {
		if _, err := instances.Map(t.Context(), sql.Instance{
			Name:    sql.Name{Project: "giggle", Region: "europe-north1", ID: fmt.Sprintf("jokes-%d", n)},
			Address: "127.0.0.1:5432",
		}); err != nil {
			t.Fatal(err)
		}
	}
	s := sqladmin.New(sqladmin.Config{
		Instances:    instances,
		Certificates: ca,
		Project:      w.Projects.Find,
		Pages:        w.Pages,
		Address:      func(sql.Name) (netip.Addr, error) { return netip.MustParseAddr("127.71.200.9"), nil },
	})
	w.Serve(t, host, host, sqladmin.Rules, func(m *rest.Mux) { s.Register(m) })
	return w
}

// versions are the paths of both versions of the API.
var versions = []string{"/sql/v1beta4/projects/giggle/instances", "/v1/projects/giggle/instances"}

// Both versions answer what connectors read; where an instance is depends on where the caller is.
func TestConnectSettings(t *testing.T) {
	w := newWorld(t)
	for _, path := range versions {
		got := w.Call(t, "GET", path+"/jokes-0/connectSettings", "", 200)
		cert, _ := got["serverCaCert"].(map[string]any)
		if got["region"] != "europe-north1" || got["backendType"] != "SECOND_GEN" || got["databaseVersion"] != "POSTGRES_15" ||
			!strings.Contains(fmt.Sprint(got["ipAddresses"]), "127.71.200.9") ||
			!strings.HasPrefix(fmt.Sprint(cert["cert"]), "-----BEGIN CERTIFICATE-----") || cert["expirationTime"] == nil {
			t.Errorf("%s: %v", path, got)
		}
		// A DNS name would have connectors check another name than the certificate's common name, and a protocol of
		// metadata exchange would have them send something in front of the database's own.
		for _, field := range []string{"dnsName", "dnsNames", "mdxProtocolSupport", "pscEnabled"} {
			if got[field] != nil {
				t.Errorf("%s: %s = %v", path, field, got[field])
			}
		}
	}
	r, err := http.NewRequestWithContext(sqladmin.Inside(t.Context()), "GET",
		"https://"+host+versions[0]+"/jokes-1/connectSettings", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.Owner)
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	if !strings.Contains(rec.Body.String(), "169.254.71.2") {
		t.Errorf("in a container: %s", rec.Body)
	}
}

func publicKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEphemeralCert(t *testing.T) {
	w := newWorld(t)
	key := publicKey(t)
	for _, path := range versions {
		got := w.Call(t, "POST", path+"/jokes-0:generateEphemeralCert", `{"public_key":`+key+`}`, 200)
		cert, _ := got["ephemeralCert"].(map[string]any)
		block, _ := pem.Decode([]byte(fmt.Sprint(cert["cert"])))
		if block == nil {
			t.Fatalf("%s: %v", path, got)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.EmailAddresses) != 1 || c.EmailAddresses[0] != "you@giggle.test" ||
			time.Until(c.NotAfter) > time.Hour || time.Until(c.NotAfter) < 50*time.Minute {
			t.Errorf("%s: a certificate of %v until %v", path, c.EmailAddresses, c.NotAfter)
		}
		got = w.Call(t, "POST", path+"/jokes-0:generateEphemeralCert", `{"public_key":`+key+`,"access_token":"x"}`, 405)
		if field := guardtest.Field(got); field != "access_token" {
			t.Errorf("%s: logging in with IAM: %v", path, got)
		}
		w.Call(t, "POST", path+"/jokes-0:generateEphemeralCert", `{"public_key":"x"}`, 400)
		w.Call(t, "POST", path+"/none:generateEphemeralCert", `{"public_key":`+key+`}`, 404)
	}
}

func TestInstances(t *testing.T) {
	w := newWorld(t)
	for _, path := range versions {
		got := w.Call(t, "GET", path+"/jokes-2", "", 200)
		if got["connectionName"] != "giggle:europe-north1:jokes-2" || got["state"] != "RUNNABLE" {
			t.Errorf("%v", got)
		}
		var names []any
		for token := ""; ; {
			page := w.Call(t, "GET", path+"?maxResults=2&pageToken="+token, "", 200)
			items, _ := page["items"].([]any)
			for _, i := range items {
				names = append(names, i.(map[string]any)["name"])
			}
			if token, _ = page["nextPageToken"].(string); token == "" {
				break
			}
		}
		if fmt.Sprint(names) != "[jokes-0 jokes-1 jokes-2]" {
			t.Errorf("%s: listed %v", path, names)
		}
		got = w.Call(t, "GET", path+"/none", "", 404)
		if !strings.Contains(fmt.Sprint(got), "giggle sql map giggle:REGION:none HOST:PORT") {
			t.Errorf("one that is not there: %v", got)
		}
		w.Call(t, "DELETE", path+"/jokes-2", "", 405)
	}
}

// A client may connect and no more; a viewer may look, and not connect.
func TestRoles(t *testing.T) {
	w := newWorld(t)
	policy := iam.Policy{Bindings: []iam.Binding{
		{Role: "roles/cloudsql.client", Members: []string{"user:client@giggle.test"}},
		{Role: "roles/cloudsql.viewer", Members: []string{"user:viewer@giggle.test"}},
	}}
	if _, err := w.IAM.SetPolicy(t.Context(), "projects/giggle", policy); err != nil {
		t.Fatal(err)
	}
	key := publicKey(t)
	for who, want := range map[string]struct{ settings, cert, list int }{
		"client@giggle.test":   {200, 200, 403},
		"viewer@giggle.test":   {200, 403, 200},
		"stranger@giggle.test": {403, 403, 403},
	} {
		token := w.Token(t, iam.User(who))
		for _, path := range versions {
			w.CallAs(t, token, "GET", path+"/jokes-0/connectSettings", "", want.settings)
			w.CallAs(t, token, "POST", path+"/jokes-0:generateEphemeralCert", `{"public_key":`+key+`}`, want.cert)
			w.CallAs(t, token, "GET", path, "", want.list)
		}
	}
}
