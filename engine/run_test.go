package engine_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"giggle/engine"
	"giggle/fault"
)

func TestHello(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		i := start(t, e, serving("hello"))
		if got := mustGet(t, i, "/"); got != "hello" {
			t.Errorf("got %q", got)
		}
		u, err := i.Usage()
		if err != nil || u.MemoryBytes <= 0 || u.MemoryBytes > 64<<20 || u.CPUTime <= 0 {
			t.Errorf("usage = %+v, %v", u, err)
		}
		if got, err := i.Listening(); err != nil ||
			!slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("[::]:8080")}) {
			t.Errorf("listening = %v, %v", got, err)
		}
		if err := i.Stop(t.Context(), patience); err != nil {
			t.Error(err)
		}
		if got := i.Exit(); got != (engine.Exit{Code: 2}) { // how the Go runtime ends on an unhandled SIGTERM as PID 1
			t.Errorf("exit = %+v", got)
		}
		if _, err := i.Dial(t.Context(), 8080); !fault.Is(err, fault.Unavailable) {
			t.Errorf("dial after the end: %v", err)
		}
	})
}

func TestProcess(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		for name, tc := range map[string]struct {
			spec                engine.Spec
			uid, gid            int
			groups              []int
			home, dir, hostname string
		}{
			"root":         {engine.Spec{}, 0, 0, []int{50}, "/root", "/", "localhost"},
			"name":         {engine.Spec{User: "joker", Dir: "/made/on/demand", Hostname: "stage"}, 1000, 1000, []int{50}, "/home/joker", "/made/on/demand", "stage"},
			"name, group":  {engine.Spec{User: "joker:staff"}, 1000, 50, nil, "/home/joker", "/", "localhost"},
			"known number": {engine.Spec{User: "1000"}, 1000, 1000, []int{50}, "/home/joker", "/", "localhost"},
			"unknown":      {engine.Spec{User: "65532:65532"}, 65532, 65532, nil, "/", "/", "localhost"},
			"own home":     {engine.Spec{User: "joker", Env: []string{"HOME=/mine"}}, 1000, 1000, []int{50}, "/mine", "/", "localhost"},
		} {
			t.Run(name, func(t *testing.T) {
				s := tc.spec
				s.ID, s.Args, s.Env = name, []string{"app", "serve", ":8080", "a b", "$x"}, append(s.Env,
					"JOKE=why did\nthe", "PATH=/nope:/")
				i := start(t, e, s)
				info := unmarshal[struct {
					Args, Env []string
					Dir, Host string
					UID, GID  int
					Groups    []int
				}](t, mustGet(t, i, "/info"))
				if !slices.Equal(info.Args, s.Args) || info.Dir != tc.dir || info.Host != tc.hostname {
					t.Errorf("info = %+v", info)
				}
				groups := slices.DeleteFunc(info.Groups, func(g int) bool { return g == info.GID })
				if info.UID != tc.uid || info.GID != tc.gid || !slices.Equal(groups, tc.groups) {
					t.Errorf("ran as %d:%d %v, want %d:%d %v", info.UID, info.GID, groups, tc.uid, tc.gid, tc.groups)
				}
				slices.Sort(info.Env)
				if want := []string{"HOME=" + tc.home, "JOKE=why did\nthe", "PATH=/nope:/"}; !slices.Equal(info.Env,
					want) {
					t.Errorf("env = %q, want %q", info.Env, want)
				}
			})
		}
	})
}

func TestExit(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		for _, code := range []int{0, 1, 42, 255} {
			if got, _ := run(t, e,
				engine.Spec{Args: []string{"/app", "exit", fmt.Sprint(code)}}); got != (engine.Exit{Code: code}) {
				t.Errorf("exit %d = %+v", code, got)
			}
		}
		got, text := run(t, e, engine.Spec{Args: []string{"/app", "eat", fmt.Sprint(512 << 20)}, Memory: 64 << 20})
		if got != (engine.Exit{Code: 137, Signal: 9, OOM: true}) {
			t.Errorf("eating too much = %+v %s", got, text)
		}
		if got, text := run(t, e, engine.Spec{
			Args:   []string{"/app", "exit", "0"},
			Memory: 16 << 20,
			CPU:    10,
			Pids:   20,
		}); got != (engine.Exit{}) {
			t.Errorf("under the least limits: %+v %s", got, text)
		}
		got, text = run(t, e, engine.Spec{Args: []string{"/app", "eat", fmt.Sprint(32 << 20)}, Memory: 64 << 20})
		if got != (engine.Exit{}) || text != "stdout: ate it\n" {
			t.Errorf("eating little = %+v %s", got, text)
		}
	})
}

func TestStop(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		for name, tc := range map[string]struct {
			grace    time.Duration
			min, max time.Duration
			want     engine.Exit
		}{
			"wait":     {2 * patience, 0, patience, engine.Exit{Code: 3}},
			"deaf":     {2 * patience, 0, patience, engine.Exit{Code: 137, Signal: 9}},
			"stubborn": {200 * time.Millisecond, 200 * time.Millisecond, patience, engine.Exit{Code: 137, Signal: 9}},
		} {
			t.Run(name, func(t *testing.T) {
				l := newLog()
				i := start(t, e, engine.Spec{ID: name, Args: []string{"/app", name}, Output: l.add})
				l.waitFor(t, "waiting")
				begin := time.Now()
				if err := i.Stop(t.Context(), tc.grace); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took < tc.min || took > tc.max {
					t.Errorf("stopping took %v", took)
				}
				if got := i.Exit(); got != tc.want {
					t.Errorf("exit = %+v, want %+v", got, tc.want)
				}
				if err := i.Stop(t.Context(), tc.grace); err != nil {
					t.Errorf("second stop: %v", err)
				}
				if name == "wait" && !strings.Contains(l.text(), "got terminated") {
					t.Errorf("log:\n%s", l.text())
				}
			})
		}
		t.Run("never started", func(t *testing.T) {
			i, err := e.Prepare(t.Context(),
				engine.Spec{ID: "idle", Layers: []string{layer}, Args: []string{"/app", "wait"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := i.Stop(t.Context(), time.Hour); err != nil {
				t.Error(err)
			}
			if got := i.Exit(); got != (engine.Exit{Code: 137, Signal: 9}) {
				t.Errorf("exit = %+v", got)
			}
			if err := i.Start(t.Context()); !fault.Is(err, fault.Unavailable) {
				t.Errorf("start after the end: %v", err)
			}
		})
	})
}

func TestOutput(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		_, text := run(t, e, engine.Spec{
			Args: []string{"/app", "say", "stdout", "one\ntwo\r\n\nno", "stdout", " end", "stderr", "oops\n"},
		})
		for _, want := range []string{"stdout: one\nstdout: two\nstdout: \nstdout: no end\n", "stderr: oops\n"} {
			if !strings.Contains(strings.ReplaceAll(text, "stderr: oops\n", ""), want) &&
				!strings.Contains(text, want) {
				t.Errorf("log is\n%s\nwithout\n%s", text, want)
			}
		}
		if _, text := run(t, e,
			engine.Spec{User: "joker", Args: []string{"/app", "reopen"}}); text != "stdout: reopened\n" {
			t.Errorf("writing through /dev/stdout: %s", text)
		}
	})
}

// A receiver that does not receive must not stop the process.
func TestOutputNeverBlocks(t *testing.T) {
	e := open(t, "")
	const lines = 20_000
	hold := make(chan struct{})
	got, dropped := 0, 0
	l := newLog()
	i := start(t, e, engine.Spec{Args: []string{"/app", "flood", fmt.Sprint(lines)}, Output: func(line engine.Line) {
		<-hold
		switch line.Stream {
		case "stdout":
			got++
		case "giggle":
			var n int
			if _, err := fmt.Sscanf(line.Text, "%d lines were dropped", &n); err != nil {
				t.Error(err)
			}
			dropped += n
		}
		l.add(line)
	}})
	// The process ends while not one line was received.
	for {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", i.PID())); err != nil {
			break
		}
		select {
		case <-i.Done():
		case <-time.After(time.Millisecond):
		}
	}
	close(hold)
	<-i.Done()
	if got == 0 || dropped == 0 || got+dropped < lines {
		t.Errorf("%d lines came, %d were dropped, of %d", got, dropped, lines)
	}
}

func TestMountsAndFiles(t *testing.T) {
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		for _, disk := range []bool{false, true} {
			source, cache := t.TempDir(), t.TempDir() // below directories of mode 0700
			if err := os.WriteFile(filepath.Join(source, "in"), []byte("source"), 0o600); err != nil {
				t.Fatal(err)
			}
			got, text := run(t, e, engine.Spec{
				Args: []string{"/app", "sh", "/workspace/in", "/cache/out"},
				Disk: disk,
				Mounts: []engine.Mount{{Source: source, Target: "/workspace", ReadOnly: true},
					{Source: cache, Target: "/cache"}},
			})
			if got != (engine.Exit{}) || text != "stdout: source<nil>\nstdout: <nil>\n" {
				t.Errorf("exit %+v, log %s", got, text)
			}
			st, err := os.Stat(filepath.Join(cache, "out"))
			if err != nil || st.Size() != 5 {
				t.Fatal(err)
			}
			if owner := ownerOf(st); owner != [2]uint32{0, 0} {
				t.Errorf("what the container's root wrote belongs to %v on the host", owner)
			}
			_, text = run(t, e, engine.Spec{
				Args:   []string{"/app", "sh", "/workspace/in", "/workspace/out"},
				Mounts: []engine.Mount{{Source: source, Target: "/workspace", ReadOnly: true}},
			})
			if !strings.Contains(text, "read-only file system") {
				t.Errorf("writing to a read-only mount: %s", text)
			}
		}

		s := serving("files")
		s.User = "joker"
		s.Files = []engine.File{
			{Path: "/etc/resolv.conf", Data: []byte("nameserver 169.254.169.254\n")}, // a dangling link in the image
			{Path: "/etc/motd", Data: []byte("who is there\n")},
			{Path: "/not/in/the/image", Data: []byte("x"), Mode: 0o400},
		}
		i := start(t, e, s)
		twin := s
		twin.ID = "twin"
		start(t, e, twin) // shares the content
		for path, want := range map[string]string{"/etc/resolv.conf": "nameserver 169.254.169.254\n",
			"/etc/motd": "who is there\n"} {
			if got := mustGet(t, i, "/read", "path", path); got != want {
				t.Errorf("%s = %q, want %q", path, got, want)
			}
		}
		if _, err := get(t, i, 8080, "/read", "path", "/not/in/the/image"); err == nil ||
			!strings.Contains(err.Error(), "permission denied") {
			t.Errorf("a file for root alone: %v", err)
		}
		if got := mustGet(t, i, "/stat", "path", "/tmp"); !strings.Contains(got, `"dtrwxrwxrwx"`) {
			t.Errorf("/tmp is %s", got)
		}
		if b, err := os.ReadFile(filepath.Join(layer, "etc/motd")); err != nil || string(b) != "knock knock\n" {
			t.Errorf("the layer changed: %q, %v", b, err)
		}
	})
}

// Start scripts of public images change the files that are laid over them, move others in their place, and remove them:
// as root they may, and no other instance sees it. Where the image has links on the way, they are followed inside it.
func TestFilesArePrivate(t *testing.T) {
	e := open(t, "")
	linked := t.TempDir() // /etc/ssl leads to /usr/ssl, and that to nothing
	if err := errors.Join(os.Mkdir(filepath.Join(linked, "etc"), 0o755), os.Mkdir(filepath.Join(linked, "usr"), 0o755),
		os.WriteFile(filepath.Join(linked, "usr/kept"), []byte("kept\n"), 0o644),
		os.Symlink("../usr/ssl", filepath.Join(linked, "etc/ssl")),
		os.MkdirAll(filepath.Join(linked, "usr/ssl"), 0o755),
		os.WriteFile(filepath.Join(linked, "usr/ssl/other"), []byte("other\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	removed := t.TempDir() // in a layer above, /etc/ssl is gone
	if err := errors.Join(os.Mkdir(filepath.Join(removed, "etc"), 0o755),
		unix.Mknod(filepath.Join(removed, "etc/ssl"), unix.S_IFCHR, 0)); err != nil {
		t.Fatal(err)
	}
	files := []engine.File{
		{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n")},
		{Path: "/etc/ssl/certs/ca.crt", Data: []byte("trust\n")},
	}
	for name, tt := range map[string]struct {
		layers []string
		other  string // what the image has beside the files, and keeps
	}{
		"plain":   {[]string{layer}, "/etc/motd"},
		"linked":  {[]string{layer, linked}, "/usr/ssl/other"},
		"removed": {[]string{layer, linked, removed}, "/usr/kept"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := func(id string) engine.Spec {
				s := serving(name + id)
				s.Layers, s.Files, s.User = tt.layers, files, ""
				return s
			}
			one, other := start(t, e, spec("1")), start(t, e, spec("2"))
			for _, f := range files {
				if got := mustGet(t, one, "/read", "path", f.Path); got != string(f.Data) {
					t.Errorf("%s = %q", f.Path, got)
				}
				mustGet(t, one, "/append", "path", f.Path, "text", "mine\n")
				if got := mustGet(t, one, "/read", "path", f.Path); got != string(f.Data)+"mine\n" {
					t.Errorf("%s = %q after it was written to", f.Path, got)
				}
				mustGet(t, one, "/rename", "from", f.Path, "to", f.Path+".old")
				mustGet(t, one, "/append", "path", f.Path+".new", "text", "new\n")
				mustGet(t, one, "/rename", "from", f.Path+".new", "to", f.Path)
				if got := mustGet(t, one, "/read", "path", f.Path); got != "new\n" {
					t.Errorf("%s = %q after another was moved there", f.Path, got)
				}
				if got := mustGet(t, other, "/read", "path", f.Path); got != string(f.Data) {
					t.Errorf("%s of the other instance = %q", f.Path, got)
				}
			}
			if got := mustGet(t, one, "/read", "path", tt.other); got == "" {
				t.Errorf("%s is gone", tt.other)
			}
			third := start(t, e, spec("3"))
			if got := mustGet(t, third, "/read", "path", files[0].Path); got != string(files[0].Data) {
				t.Errorf("%s of a later instance = %q", files[0].Path, got)
			}
		})
	}
}

// What a process writes counts as its memory, as on Cloud Run, unless the spec says otherwise.
func TestWritableLayer(t *testing.T) {
	e := open(t, "")
	size := fmt.Sprint(100 << 20)
	if got, text := run(t, e, engine.Spec{Args: []string{"/app", "write", "/big",
		size}, Memory: 64 << 20}); got.Code == 0 {
		t.Errorf("writing more than memory: %+v %s", got, text)
	}
	if got, text := run(t, e, engine.Spec{
		Args:   []string{"/app", "write", "/big", size},
		Memory: 256 << 20,
		Disk:   true,
	}); got.Code != 0 {
		t.Errorf("writing to disk: %+v %s", got, text)
	}
}

func TestPrepareRefuses(t *testing.T) {
	e := open(t, "")
	hostile := func(links map[string]string) []string {
		dir := t.TempDir()
		for name, target := range links {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		return []string{layer, dir}
	}
	app := []string{"/app", "exit", "0"}
	for name, tc := range map[string]struct {
		spec engine.Spec
		want fault.Code
	}{
		"no id":         {engine.Spec{Layers: []string{layer}, Args: app}, fault.InvalidArgument},
		"no layers":     {engine.Spec{ID: "x", Args: app}, fault.InvalidArgument},
		"no command":    {engine.Spec{ID: "x", Layers: []string{layer}}, fault.InvalidArgument},
		"tiny memory":   {engine.Spec{ID: "x", Layers: []string{layer}, Args: app, Memory: 1}, fault.InvalidArgument},
		"negative cpu":  {engine.Spec{ID: "x", Layers: []string{layer}, Args: app, CPU: -1}, fault.InvalidArgument},
		"env without =": {engine.Spec{ID: "x", Layers: []string{layer}, Args: app, Env: []string{"x"}}, fault.InvalidArgument},
		"zero byte": {engine.Spec{ID: "x", Layers: []string{layer}, Args: []string{"/app",
			"a\x00b"}}, fault.InvalidArgument},
		"relative dir": {engine.Spec{ID: "x", Layers: []string{layer}, Args: app, Dir: "x"}, fault.InvalidArgument},
		"dots in a target": {engine.Spec{
			ID:     "x",
			Layers: []string{layer},
			Args:   app,
			Mounts: []engine.Mount{{Source: "/tmp", Target: "/../x"}},
		}, fault.InvalidArgument},
		"file on the root": {engine.Spec{
			ID:     "x",
			Layers: []string{layer},
			Args:   app,
			Files:  []engine.File{{Path: "/"}},
		}, fault.InvalidArgument},
		"no such command": {engine.Spec{ID: "x", Layers: []string{layer}, Args: []string{"nope"}}, fault.FailedPrecondition},
		"no such path":    {engine.Spec{ID: "x", Layers: []string{layer}, Args: []string{"/bin/nope"}}, fault.FailedPrecondition},
		"not executable":  {engine.Spec{ID: "x", Layers: []string{layer}, Args: []string{"/etc/motd"}}, fault.FailedPrecondition},
		"no such user":    {engine.Spec{ID: "x", Layers: []string{layer}, Args: app, User: "nobody"}, fault.FailedPrecondition},
		"no such group":   {engine.Spec{ID: "x", Layers: []string{layer}, Args: app, User: "0:nobody"}, fault.FailedPrecondition},
		"dir is a file":   {engine.Spec{ID: "x", Layers: []string{layer}, Args: app, Dir: "/etc/motd"}, fault.FailedPrecondition},
		"file on directory": {engine.Spec{
			ID:     "x",
			Layers: []string{layer},
			Args:   app,
			Files:  []engine.File{{Path: "/etc"}},
		}, fault.FailedPrecondition},
		"directory on file": {engine.Spec{
			ID:     "x",
			Layers: []string{layer},
			Args:   app,
			Mounts: []engine.Mount{{Source: layer, Target: "/etc/motd"}},
		}, fault.FailedPrecondition},
		"missing layer": {engine.Spec{ID: "x", Layers: []string{"/nowhere"}, Args: app}, fault.Internal},
		"/sys to nowhere": {engine.Spec{
			ID:     "x",
			Layers: hostile(map[string]string{"sys": "/nowhere"}),
			Args:   app,
		}, fault.FailedPrecondition},
		"/tmp to itself": {engine.Spec{
			ID:     "x",
			Layers: hostile(map[string]string{"tmp": "../../../../../tmp"}),
			Args:   app,
		}, fault.FailedPrecondition},
		"/tmp to a file": {engine.Spec{
			ID:     "x",
			Layers: hostile(map[string]string{"tmp": "/etc/motd"}),
			Args:   app,
		}, fault.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := e.Prepare(t.Context(), tc.spec)
			if !fault.Is(err, tc.want) || i != nil {
				t.Errorf("got %v, %v, want %v", i, err, tc.want)
			}
		})
	}
	start(t, e, serving("twice"))
	s := serving("twice")
	s.Layers = []string{layer}
	if _, err := e.Prepare(t.Context(), s); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("the same ID twice: %v", err)
	}
	// Links within the image are followed there, never on the host.
	got, text := run(t, e, engine.Spec{
		Layers: hostile(map[string]string{"tmp": "/etc", "data": "/"}),
		Args:   []string{"/app", "sh", "/data/etc/motd", "/tmp/written"},
		Files:  []engine.File{{Path: "/data/etc/motd", Data: []byte("in the image\n")}},
	})
	if got.Code != 0 || text != "stdout: in the image\nstdout: <nil>\nstdout: <nil>\n" {
		t.Errorf("an image with links for directories: %+v %s", got, text)
	}
	if _, err := os.Stat("/etc/written"); err == nil {
		t.Error("a link led to the host")
	}
}
