package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"giggle/engine"
	"giggle/engine/lan"
	"giggle/fault"
)

// plenty is more than the tests copy.
var plenty = engine.CopyLimits{Bytes: 1 << 20, Entries: 1000}

// entry is one of an archive.
type entry struct {
	name, text, link string
	kind             byte // tar.TypeReg for 0
	uid              int
}

func tarOf(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: 0o755, Size: int64(len(e.text)), Uid: e.uid}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// copyOut lists an archive of what is at a path: "NAME=TEXT UID", "NAME->LINK".
func copyOut(t testing.TB, i *engine.Instance, at string, limits engine.CopyLimits) (string, error) {
	t.Helper()
	var b bytes.Buffer
	err := i.CopyOut(t.Context(), at, &b, limits)
	if err != nil {
		return "", err
	}
	var out []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(out, ", "), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			out = append(out, h.Name+"->"+h.Linkname)
		case tar.TypeDir:
			out = append(out, h.Name)
		default:
			out = append(out, fmt.Sprintf("%s=%s %d", h.Name, text, h.Uid))
		}
	}
}

// kept is an instance that has ended, with its files.
func kept(t *testing.T, e *engine.Engine, id string) *engine.Instance {
	t.Helper()
	i, err := e.Prepare(t.Context(), engine.Spec{ID: id, Layers: []string{layer}, Args: []string{"/app", "serve"}, Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Discard)
	return i
}

// What is copied into an instance stays in it, whatever the archive and the image say.
func TestCopyIn(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	e := open(t, runtimes(t)[0])
	n := 0
	for what, c := range map[string]struct {
		dir     string
		entries []entry
		at      string // what is looked at then
		want    string
		code    fault.Code // of CopyIn
	}{
		"a file":               {"/etc", []entry{{name: "f", text: "x"}}, "/etc/f", "f=x 0", 0},
		"over a file":          {"/etc", []entry{{name: "motd", text: "x"}}, "/etc/motd", "motd=x 0", 0},
		"over a link":          {"/etc", []entry{{name: "resolv.conf", text: "x"}}, "/etc/resolv.conf", "resolv.conf=x 0", 0},
		"an owner":             {"/", []entry{{name: "f", text: "x", uid: 1000}}, "/f", "f=x 1000", 0},
		"an owner that is odd": {"/", []entry{{name: "f", text: "x", uid: 1 << 20}}, "/f", "f=x 0", 0},
		"directories":          {"/", []entry{{name: "a/b/f", text: "x"}}, "/a", "a/, a/b/, a/b/f=x 0", 0},
		"a directory twice":    {"/", []entry{{name: "a/", kind: tar.TypeDir}, {name: "a/", kind: tar.TypeDir}}, "/a", "a/", 0},
		"a hard link": {"/", []entry{{name: "f", text: "x"}, {name: "g", link: "f", kind: tar.TypeLink}},
			"/g", "g=x 0", 0},
		"upwards":      {"/etc", []entry{{name: "../../../f", text: "x"}}, "/etc/f", "f=x 0", 0},
		"absolute":     {"/etc", []entry{{name: "/f", text: "x"}}, "/etc/f", "f=x 0", 0},
		"a dir upward": {"/../../etc", []entry{{name: "f", text: "x"}}, "/etc/f", "f=x 0", 0},
		"through a link outwards": {"/", []entry{{name: "l", link: outside, kind: tar.TypeSymlink}, {name: "l/f", text: "x"}},
			outside, "", fault.FailedPrecondition},
		"through a link upwards": {"/", []entry{{name: "l", link: "../../../../etc", kind: tar.TypeSymlink}, {name: "l/f", text: "x"}},
			"/etc/f", "f=x 0", 0},
		"a hard link outwards": {"/", []entry{{name: "g", link: outside, kind: tar.TypeLink}}, "", "", fault.NotFound},
		"a hard link to all":   {"/", []entry{{name: "g", link: "/", kind: tar.TypeLink}}, "", "", fault.InvalidArgument},
		"a device":             {"/", []entry{{name: "d", kind: tar.TypeBlock}, {name: "f", text: "x"}}, "/f", "f=x 0", 0},
		"a file over a directory": {"/", []entry{{name: "etc", text: "x"}}, "/etc/motd", "motd=knock knock\n 0",
			fault.InvalidArgument},
		"into what is not there": {"/none", []entry{{name: "f", text: "x"}}, "", "", fault.NotFound},
		"into a file":            {"/etc/motd", []entry{{name: "f", text: "x"}}, "", "", fault.InvalidArgument},
		"too much":               {"/", []entry{{name: "f", text: strings.Repeat("x", 1<<20+1)}}, "", "", fault.ResourceExhausted},
		"a name too long":        {"/", []entry{{name: strings.Repeat("x", 300), text: "x"}}, "", "", fault.InvalidArgument},
	} {
		n++
		i := kept(t, e, fmt.Sprint("in", n))
		err := i.CopyIn(t.Context(), c.dir, tarOf(t, c.entries...), true, plenty)
		if c.code == 0 && err != nil || c.code != 0 && !fault.Is(err, c.code) {
			t.Errorf("%s: %v, want %v", what, err, c.code)
		}
		if c.want != "" {
			if got, err := copyOut(t, i, c.at, plenty); err != nil || got != c.want {
				t.Errorf("%s: %q, %v, want %q", what, got, err, c.want)
			}
		}
		if err := i.Stop(t.Context(), 0); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside there is %v, %v", left, err)
	}
	many := make([]entry, 1001)
	for k := range many {
		many[k] = entry{name: fmt.Sprint("f", k)}
	}
	i := kept(t, e, "many")
	if err := i.CopyIn(t.Context(), "/", tarOf(t, many...), false, plenty); !fault.Is(err, fault.ResourceExhausted) {
		t.Errorf("too many files: %v", err)
	}
	if err := i.CopyIn(t.Context(), "/", strings.NewReader(strings.Repeat("no archive", 100)), false, plenty); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("no archive: %v", err)
	}
}

// What is copied out of an instance is its own, also after its end, until it is discarded.
func TestCopyOut(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := open(t, runtimes(t)[0])
	i := kept(t, e, "out")
	deep := strings.Repeat("d/", 300)
	if err := i.CopyIn(t.Context(), "/", tarOf(t,
		entry{name: "opt/f", text: "x", uid: 1000},
		entry{name: "opt/l", link: secret, kind: tar.TypeSymlink},
		entry{name: "opt/d", link: "../etc", kind: tar.TypeSymlink},
		entry{name: "big", text: strings.Repeat("x", 1000)},
		entry{name: "deep/" + deep + "f"},
	), true, engine.CopyLimits{Bytes: 1 << 20, Entries: 1000}); err != nil {
		t.Fatal(err)
	}
	look := func(when string) {
		t.Helper()
		for _, c := range []struct {
			at, want string
			limits   engine.CopyLimits
			code     fault.Code
		}{
			{"/opt", "opt/, opt/d->../etc, opt/f=x 1000, opt/l->" + secret, plenty, 0},
			{"opt/", "opt/, opt/d->../etc, opt/f=x 1000, opt/l->" + secret, plenty, 0},
			{"/opt/.", "d->../etc, f=x 1000, l->" + secret, plenty, 0},
			{"/opt/f", "f=x 1000", plenty, 0},
			{"/../../opt/f", "f=x 1000", plenty, 0},
			{"/opt/l", "l->" + secret, plenty, 0},
			{"/opt/d/motd", "motd=knock knock\n 0", plenty, 0},
			{"/opt/l/", "", plenty, fault.NotFound},
			{secret, "", plenty, fault.NotFound},
			{"/none", "", plenty, fault.NotFound},
			{"/opt/f/x", "", plenty, fault.InvalidArgument},
			{"a\x00b", "", plenty, fault.InvalidArgument},
			{"/big", "", engine.CopyLimits{Bytes: 999, Entries: 9}, fault.ResourceExhausted},
			{"/opt", "", engine.CopyLimits{Bytes: 999, Entries: 3}, fault.ResourceExhausted},
			{"/deep", "", plenty, fault.ResourceExhausted},
		} {
			got, err := copyOut(t, i, c.at, c.limits)
			if got != c.want || c.code == 0 && err != nil || c.code != 0 && !fault.Is(err, c.code) {
				t.Errorf("%s, %q: %q, %v; want %q, %v", when, c.at, got, err, c.want, c.code)
			}
		}
		if info, err := i.Stat("/opt/l"); err != nil || info.Link != secret || info.Mode&os.ModeSymlink == 0 {
			t.Errorf("%s: %+v, %v", when, info, err)
		}
		if info, err := i.Stat("/opt/d/"); err != nil || !info.Mode.IsDir() {
			t.Errorf("%s: %+v, %v", when, info, err)
		}
	}
	look("prepared")
	if err := i.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("running")
	if err := i.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	look("after its end")
	i.Discard()
	i.Discard()
	for {
		_, err := i.Stat("/opt")
		if fault.Is(err, fault.FailedPrecondition) {
			return // gone
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Instances on a network reach each other by their names; others don't.
func TestNetworks(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		var l lan.LAN
		defer func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}()
		n := l.Network(netip.MustParsePrefix("192.168.10.0/24"))
		server := serving("server")
		server.Networks = []lan.Member{{Network: n, Names: []string{"srv"}}}
		s := start(t, e, server)
		if got := mustGet(t, s, "/"); got != "server" && got == "" {
			t.Errorf("it answers %q", got)
		}
		if at := s.LAN().Address(n); at.String() != "192.168.10.2" {
			t.Errorf("it is at %s", at)
		}
		if err := s.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		for n.Members() > 0 { // until it is cleared away
			if t.Context().Err() != nil {
				t.Fatal("it does not leave the network")
			}
		}
	})
}
