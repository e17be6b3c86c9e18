package dockerapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"giggle/blob"
	"giggle/builds"
	"giggle/builds/dockerapi"
)

// What docker build is asked for is done or refused by name, before the context is read
// (https://docs.docker.com/reference/api/engine/version/v1.44/#tag/Image/operation/ImageBuild).
func TestBuildOptions(t *testing.T) {
	for query, c := range map[string]struct {
		want   string // what the builder is told, or of the refusal
		status int
	}{
		"":                        {"[] [] 0", 200},
		"networkmode=default":     {"[] [] 0", 200},
		"networkmode=cloudbuild":  {"[] [] 0", 200},
		"networkmode=none":        {"none [] [] 0", 200},
		"networkmode=host":        {"--network=host", 501},
		"networkmode=container:x": {"--network=container:x", 501},
		"extrahosts=foo:192.0.2.4&extrahosts=bar:[2001:db8::1]": {"[foo=192.0.2.4 bar=2001:db8::1] [] 0", 200},
		"extrahosts=foo":                     {"bad format for add-host", 400},
		"extrahosts=foo:bar":                 {"bad format for add-host", 400},
		"extrahosts=a,b:192.0.2.4":           {"bad format for add-host", 400},
		"shmsize=134217728":                  {"[] [] 134217728", 200},
		"shmsize=-1":                         {"--shm-size", 400},
		"memory=100":                         {"--memory", 501},
		"memory=0&memswap=0&cpuquota=0":      {"[] [] 0", 200},
		"memswap=-1":                         {"--memory-swap", 501},
		"cpusetcpus=0-1":                     {"--cpuset-cpus", 501},
		"cgroupparent=x":                     {"--cgroup-parent", 501},
		"squash=1":                           {"--squash", 501},
		`securityopt=["seccomp=unconfined"]`: {"--security-opt", 501},
		"isolation=hyperv":                   {"--isolation", 501},
		`cachefrom=["gcr.io/p/x"]`:           {"[] [] 0", 200},
		`ulimits=[{"Name":"nofile","Soft":1,"Hard":2}]`:  {"[] [nofile=1:2] 0", 200},
		`ulimits=[{"Name":"no,file","Soft":1,"Hard":2}]`: {"invalid ulimit type", 400},
		`ulimits={`: {"ulimits can't be read", 400},
		"version=2": {"BuildKit's own protocol", 501},
	} {
		d := newDocker(t)
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		status, text := d.call(t, "POST", "/v1.44/build?"+values.Encode(), archive(t, file("Dockerfile", "FROM scratch")))
		got := text
		if status == http.StatusOK && len(d.builder.asked) == 1 {
			got = d.builder.asked[0]
		}
		if status != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%q: %d %s, want %d %q", query, status, got, c.status, c.want)
		}
	}
}

// Volumes of docker are those of the build's steps, and networks those that a build has.
func TestVolumesAndNetworks(t *testing.T) {
	d := newDocker(t)
	if err := os.MkdirAll(filepath.Join(d.shared, "volumes", "ofstep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/volumes", "", 200, `"Name":"ofstep"`},
		{"POST", "/volumes/create", `{"Name":"own"}`, 201, `"Name":"own"`},
		{"POST", "/volumes/create", `{"Name":"own"}`, 201, `"Name":"own"`},
		{"POST", "/volumes/create", `{}`, 201, `"Name":"id`},
		{"POST", "/volumes/create", `{"Name":"../x"}`, 400, "not the name of a volume"},
		{"POST", "/volumes/create", `{"Name":"x","Driver":"nfs"}`, 501, "no driver"},
		{"POST", "/volumes/create", `{"Name":"x","DriverOpts":{"device":"/"}}`, 501, "no driver"},
		{"GET", "/volumes/own", "", 200, `"Name":"own"`},
		{"GET", "/volumes/none", "", 404, "no such volume"},
		{"DELETE", "/volumes/own", "", 204, ""},
		{"DELETE", "/volumes/own", "", 404, "no such volume"},
		{"DELETE", "/volumes/..", "", 501, "not among them"},
		{"GET", "/networks", "", 200, `"Name":"cloudbuild"`},
		{"GET", "/networks/bridge", "", 200, `"Name":"bridge"`},
		{"GET", "/networks/none-such", "", 404, "network none-such not found"},
		{"POST", "/networks/create", `{"Name":"n","Labels":{"a":"b"}}`, 201, `"Id"`},
		{"POST", "/networks/create", `{"Name":"n"}`, 409, "network with name n already exists"},
		{"POST", "/networks/create", `{"Name":"cloudbuild"}`, 409, "already exists"},
		{"POST", "/networks/create", `{"Name":"../x"}`, 400, "not the name of a network"},
		{"POST", "/networks/create", `{}`, 400, "not the name of a network"},
		{"POST", "/networks/create", `{"Name":"x","Driver":"macvlan"}`, 501, "--driver=macvlan"},
		{"POST", "/networks/create", `{"Name":"x","Internal":true}`, 501, "--internal"},
		{"POST", "/networks/create", `{"Name":"x","EnableIPv6":true}`, 501, "--ipv6"},
		{"POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.0.0.0/8"}]}}`, 501, "--subnet"},
		{"POST", "/networks/create", `{"Name":"x","Options":{"parent":"eth0"}}`, 501, "--opt"},
		{"GET", "/networks/n", "", 200, `"Subnet":"172.18.0.0/16"`},
		{"GET", `/networks?filters={"name":{"n":true},"type":{"custom":true}}`, "", 200, `"Labels":{"a":"b"}`},
		{"GET", `/networks?filters={"label":["a=c"]}`, "", 200, `[]`},
		{"GET", `/networks?filters={"nonsense":["x"]}`, "", 400, `invalid filter`},
		{"GET", `/networks?filters={`, "", 400, `can't be read`},
		{"POST", "/networks/n/connect", `{"Container":"none"}`, 404, "No such container"},
		{"POST", "/networks/none-such/connect", `{"Container":"none"}`, 404, "not found"},
		{"POST", "/networks/n/disconnect", `{"Container":"none"}`, 404, "No such container"},
		{"DELETE", "/networks/cloudbuild", "", 403, "pre-defined network"},
		{"DELETE", "/networks/n", "", 204, ""},
		{"DELETE", "/networks/n", "", 404, "network n not found"},
		{"POST", "/networks/create", `{"Name":"m"}`, 201, `"Id"`},
		{"POST", "/networks/prune", "", 200, `{"NetworksDeleted":["m"]}`},
	} {
		status, text := d.call(t, c.method, "/v1.44"+c.path, strings.NewReader(c.body))
		if status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s %s: %d %s, want %d %q", c.method, c.path, c.body, status, text, c.status, c.want)
		}
	}
	for i := range 40 { // as many as there are, and no more
		status, text := d.call(t, "POST", "/networks/create", strings.NewReader(fmt.Sprintf(`{"Name":"n%d"}`, i)))
		if want := i < 28; (status == 201) != want {
			t.Fatalf("network %d: %d %s", i, status, text)
		}
	}
	if _, err := os.Stat(filepath.Join(d.shared, "volumes", "ofstep")); err != nil {
		t.Error(err)
	}
}

// An image has a manifest of Docker's own kind, with the same configuration and layers.
func TestManifestsAreDockers(t *testing.T) {
	d := newDocker(t)
	status, text := d.call(t, "POST", "/v1.44/build?t=x&q=1", archive(t, file("Dockerfile", "FROM scratch")))
	if want := `{"stream":"sha256:0123456789abcdef\n"}`; status != http.StatusOK || strings.TrimSpace(text) != want {
		t.Errorf("a quiet build says %s, want %s", text, want)
	}
	digest, err := d.server.Find(t.Context(), builds.Build{}, "x")
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := d.builder.blobs.Open(t.Context(), blob.Digest(digest))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got struct {
		MediaType string
		Config    struct{ MediaType, Digest string }
		Layers    []struct {
			MediaType, Digest string
			Annotations       map[string]string
		}
	}
	if err := json.NewDecoder(f).Decode(&got); err != nil {
		t.Fatal(err)
	}
	const same = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	if got.MediaType != "application/vnd.docker.distribution.manifest.v2+json" ||
		got.Config.MediaType != "application/vnd.docker.container.image.v1+json" || got.Config.Digest != same ||
		len(got.Layers) != 1 || got.Layers[0].MediaType != "application/vnd.docker.image.rootfs.diff.tar.gzip" ||
		got.Layers[0].Digest != same || got.Layers[0].Annotations != nil {
		t.Errorf("the manifest is %+v", got)
	}
}

// Secrets come in headers, and none is in what a refusal says.
func TestSecrets(t *testing.T) {
	big := strings.Repeat("AAAA", (500<<10)/3+2)
	for header, c := range map[string]struct {
		want   string // what the builder is told, or of the refusal
		status int
	}{
		"":                       {"map[]", 200},
		"a=aHVzaAo=":             {"map[a:hush\n]", 200},
		"a=aHVzaAo=,b.c-d_e=":    {"map[a:hush\n b.c-d_e:]", 200},
		"a=no base64, hush":      {"can't be read", 400},
		"=aHVzaAo=":              {"The id of a secret", 400},
		"a b=aHVzaAo=":           {"The id of a secret", 400},
		"a=aHVzaAo=,":            {"The id of a secret", 400},
		"a=" + big:               {"bigger than 500 KiB", 400},
		strings.Repeat("a", 200): {"The id of a secret", 400},
	} {
		for _, name := range []string{dockerapi.SecretsHeader, dockerapi.KeysHeader} {
			d := newDocker(t)
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://docker/v1.44/build",
				archive(t, file("Dockerfile", "FROM scratch")))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set(name, header)
			res, err := d.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if err := errors.Join(err, res.Body.Close()); err != nil {
				t.Fatal(err)
			}
			got := string(b)
			if res.StatusCode == http.StatusOK {
				r := d.builder.last
				of := map[string]map[string][]byte{dockerapi.SecretsHeader: r.Secrets, dockerapi.KeysHeader: r.Keys}[name]
				text := make(map[string]string)
				for id, v := range of {
					text[id] = string(v)
				}
				got = fmt.Sprint(text)
			}
			if res.StatusCode != c.status || !strings.Contains(got, c.want) || c.status != 200 && strings.Contains(got, "hush") {
				t.Errorf("%s %.40q: %d %.200s, want %d %q", name, header, res.StatusCode, got, c.status, c.want)
			}
		}
	}
}
