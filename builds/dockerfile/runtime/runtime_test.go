package runtime

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestBundleOf(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--log", "x", "--log-format", "json", "run", "--bundle", "/b", "--keep", "id"}, "/b"},
		{[]string{"create", "--bundle=/b", "id"}, "/b"},
		{[]string{"run", "-b", "/b", "id"}, "/b"},
		{[]string{"run", "id"}, "."},
		{[]string{"delete", "id"}, ""},
		{[]string{"--version"}, ""},
		{nil, ""},
	} {
		if got := bundleOf(tt.args); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.args, got, tt.want)
		}
	}
}

func TestEdit(t *testing.T) {
	p := Plan{Trust: "/t.pem", Env: []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"}, IDs: 10}
	in := `{"ociVersion":"1.2.0","process":{"args":["\"env\":["],"env":["PATH=/bin","NODE_EXTRA_CA_CERTS=/mine"],"noNewPrivileges":false,
		"capabilities":{"bounding":["CAP_CHOWN","CAP_NET_RAW"],"permitted":["CAP_MKNOD","CAP_KILL","CAP_NET_RAW"]},"rlimits":[{"soft":18446744073709551615}]},
		"linux":{"namespaces":[{"type":"pid"},{"type":"mount"}],"seccomp":{"a":1}},"mounts":[{"destination":"/dev","type":"tmpfs"}],"x":{"a":1}}`
	want := `{"ociVersion":"1.2.0","process":{"args":["\"env\":["],"env":["PATH=/bin","NODE_EXTRA_CA_CERTS=/mine","SSL_CERT_FILE=/dev/giggle-trust.pem"],"noNewPrivileges":true,
		"capabilities":{"bounding":["CAP_CHOWN"],"permitted":["CAP_KILL"]},"rlimits":[{"soft":18446744073709551615}]},
		"linux":{"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"user"}],"seccomp":{"a":1},
			"uidMappings":[{"containerID":0,"hostID":0,"size":10}],"gidMappings":[{"containerID":0,"hostID":0,"size":10}]},
		"mounts":[{"destination":"/dev","type":"tmpfs"},{"destination":"/sys","type":"bind","source":"/b/sys","options":["rbind","ro","nosuid","nodev","noexec"]},
			{"destination":"/dev/giggle-trust.pem","type":"bind","source":"/t.pem","options":["bind","ro","nosuid","nodev","noexec"]}],"x":{"a":1}}`
	out, c, err := p.edit([]byte(in), "/b/sys")
	if err != nil {
		t.Fatal(err)
	}
	if !c.network {
		t.Error("a container without a network namespace of its own gets none")
	}
	var got, wanted map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, wanted) {
		t.Errorf("got  %s\nwant %s", out, want)
	}
	if !strings.Contains(string(out), "18446744073709551615") {
		t.Errorf("a number was changed: %s", out)
	}
	if _, c, err := p.edit([]byte(`{"process":{},"linux":{"namespaces":[{"type":"network"}]}}`), "/b/sys"); c.network ||
		err != nil {
		t.Errorf("a container that is to have no network gets one: %v", err)
	}
	for _, broken := range []string{
		"", "{}", `{"process":7}`, `{"process":{}}`, `{"process":{"env":7},"linux":{}}`,
		`{"process":{},"linux":{},"mounts":7}`,
		`{"process":{"capabilities":[]},"linux":{}}`, `{"process":{},"linux":{"namespaces":7}}`, "null",
	} {
		if out, _, err := p.edit([]byte(broken), "/b/sys"); err == nil {
			t.Errorf("%s became %s", broken, out)
		}
	}
}

func FuzzEdit(f *testing.F) {
	f.Add([]byte(`{"process":{"env":["A=b"]},"linux":{},"mounts":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _, err := Plan{Trust: "/t", Env: []string{"A"}}.edit(b, "/b/sys")
		if err == nil && !json.Valid(out) {
			t.Errorf("%q became %q", b, out)
		}
	})
}

// Without its plan it does not become the real runtime.
func TestNoPlan(t *testing.T) {
	if err := Run([]string{filepath.Join(t.TempDir(), Name), "run"}, nil); err == nil {
		t.Error("a runtime without a plan ran")
	}
}
