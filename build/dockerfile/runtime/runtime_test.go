package runtime

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
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
	p := Plan{Trust: "/t.pem", Env: []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"}}
	in := `{"ociVersion":"1.2.0","process":{"args":["\"env\":["],"env":["PATH=/bin","NODE_EXTRA_CA_CERTS=/mine"],"rlimits":[{"soft":18446744073709551615}]},"mounts":[{"destination":"/dev","type":"tmpfs"}],"x":{"a":1}}`
	want := `{"ociVersion":"1.2.0","process":{"args":["\"env\":["],"env":["PATH=/bin","NODE_EXTRA_CA_CERTS=/mine","SSL_CERT_FILE=/dev/giggle-trust.pem"],"rlimits":[{"soft":18446744073709551615}]},
		"mounts":[{"destination":"/dev","type":"tmpfs"},{"destination":"/dev/giggle-trust.pem","type":"bind","source":"/t.pem","options":["bind","ro","nosuid","nodev","noexec"]}],"x":{"a":1}}`
	out, err := p.edit([]byte(in))
	if err != nil {
		t.Fatal(err)
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
	if len(out) != len(in)+len(`,"SSL_CERT_FILE=/dev/giggle-trust.pem",{"destination":"/dev/giggle-trust.pem","type":"bind","source":"/t.pem","options":["bind","ro","nosuid","nodev","noexec"]}`) {
		t.Errorf("something else was changed: %s", out)
	}
	for _, broken := range []string{"", "{}", `{"process":7}`, `{"process":{"env":7}}`, `{"process":{},"mounts":7}`, "null"} {
		if out, err := p.edit([]byte(broken)); err == nil {
			t.Errorf("%s became %s", broken, out)
		}
	}
}

func FuzzEdit(f *testing.F) {
	f.Add([]byte(`{"process":{"env":["A=b"]},"mounts":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := Plan{Trust: "/t", Env: []string{"A"}}.edit(b)
		if err == nil && !json.Valid(out) {
			t.Errorf("%q became %q", b, out)
		}
	})
}

func TestInstall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runtime")
	for range 2 { // again after a restart
		program, err := Install(dir, "/bin/true", Plan{Runtime: "/usr/sbin/runc", Trust: "/t.pem"})
		if err != nil {
			t.Fatal(err)
		}
		if to, err := os.Readlink(program); err != nil || to != "/bin/true" || filepath.Base(program) != Name {
			t.Errorf("%s leads to %s, %v", program, to, err)
		}
	}
	if err := Run([]string{filepath.Join(dir, "other"), "run"}, nil); err == nil {
		t.Error("a runtime without a plan ran")
	}
}
