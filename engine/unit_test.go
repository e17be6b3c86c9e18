package engine

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

func writeAll(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func TestParseUser(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\n# no:x:1:1:::\njoker:x:1000:1001::/home/joker:/bin/sh\n1000:x:7:7::/named/by/number:\nbad:x:70000:x:::\nshort:x:1\n"
	const group = "root:x:0:\nstaff:x:50:root,joker\nwheel:x:10:joker\nbad:x:y:joker\nown:x:1001:joker\n"
	for spec, want := range map[string]string{
		"": "0:0 [50] /root", "root": "0:0 [50] /root", "0": "0:0 [50] /root",
		"joker": "1000:1001 [50 10] /home/joker", "joker:staff": "1000:50 [] /home/joker",
		"joker:7": "1000:7 [] /home/joker",
		"1000":    "7:7 [] /named/by/number", "5": "5:0 [] /", "5:6": "5:6 [] /", ":6": "0:6 [] /root",
		"joker:": "1000:1001 [50 10] /home/joker",
		"nobody": "error", "bad": "error", "joker:none": "error", "-1": "error", "65536": "error", "0:65536": "error",
		"joker:bad": "error", "short": "error",
	} {
		u, err := parseUser(spec, passwd, group)
		got := fmt.Sprintf("%d:%d %v %s", u.uid, u.gid, u.groups, u.home)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q = %s, want %s (%v)", spec, got, want, err)
		}
	}
}

func FuzzParseUser(f *testing.F) {
	f.Add("joker:staff", "joker:x:1:2::/:", "staff:x:1:joker")
	f.Add("0", "::::::", ":::")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, err := parseUser(spec, passwd, group)
		if err == nil && (u.uid >= slotSize || u.gid >= slotSize || !strings.HasPrefix(u.home, "/")) {
			t.Errorf("%+v", u)
		}
	})
}

func TestFrame(t *testing.T) {
	long := strings.Repeat("x", maxLine+10)
	for text, want := range map[string][]string{
		"": nil, "a": {"a"}, "a\n": {"a"}, "a\nb": {"a", "b"}, "\n\n": {"", ""}, "a\r\nb\r": {"a", "b\r"},
		"\xff\x00\n":                        {"\xff\x00"},
		strings.Repeat("y", 5000) + "\nz\n": {strings.Repeat("y", 5000), "z"},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(text),
			"bytes": iotest.OneByteReader(strings.NewReader(text))} {
			var got []string
			frame(r, func(b []byte) { got = append(got, string(b)) })
			if !slices.Equal(got, want) {
				t.Errorf("%s %.20q: got %.60q, want %.60q", name, text, got, want)
			}
		}
	}
	got := 0
	frame(strings.NewReader(strings.Repeat("x", maxLine)+"\n"), func(b []byte) { got++ })
	if got != 1 {
		t.Errorf("a line of the greatest length came as %d", got)
	}
	var sizes []int
	frame(strings.NewReader(long+long+"\nend"), func(b []byte) { sizes = append(sizes, len(b)) })
	total := 0
	for _, n := range sizes[:len(sizes)-1] {
		if n > maxLine {
			t.Errorf("a line of %d bytes", n)
		}
		total += n
	}
	if total != 2*len(long) {
		t.Errorf("%d bytes came, want %d", total, 2*len(long))
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out []byte
		frame(bytes.NewReader(in), func(b []byte) { out = append(append(out, b...), '\n') })
		want := bytes.ReplaceAll(in, []byte("\r\n"), []byte("\n"))
		if len(want) > 0 && want[len(want)-1] != '\n' {
			want = append(want, '\n')
		}
		if !bytes.Equal(out, want) {
			t.Errorf("%q became %q", in, out)
		}
	})
}

func TestParseListening(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1
   1: FEA9FEA9:EED8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12346 1
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12347 1
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1
   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1
   x: zz:1 y 0A
`
	want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("[::]:80"),
		netip.MustParseAddrPort("[::1]:81")}
	if got := parseListening(text); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseListening(f *testing.F) {
	f.Add("0: 0100007F:1F90 0 0A")
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range parseListening(text) {
			if !a.IsValid() {
				t.Errorf("%v", a)
			}
		}
	})
}

func TestHears(t *testing.T) {
	for status, want := range map[string]bool{
		"":                          false,
		"SigCgt:\t0000000000004000": true,
		"SigBlk:\t0000000000004000": true,
		"SigIgn:\t0000000000004000": false,
		"SigCgt:\tfffffffffffbfff":  false,
		"SigCgt:\tx\nSigBlk:\t4000": true,
	} {
		if got := hears(status, syscall.SIGTERM); got != want {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}

func TestParseCgroups(t *testing.T) {
	const hybrid = `30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
garbage
`
	c, err := parseCgroups(strings.NewReader(hybrid))
	if err != nil {
		t.Fatal(err)
	}
	c.parent = "giggle-x"
	for got, want := range map[string]string{
		c.file("i1", "cpu", "cpu.cfs_quota_us"): "/sys/fs/cgroup/cpu,cpuacct/giggle-x/i1/cpu.cfs_quota_us",
		c.file("i1", "memory", "memory.stat"):   "/sys/fs/cgroup/memory/giggle-x/i1/memory.stat",
		c.path("i1"):                            "/giggle-x/i1",
		c.unified:                               "/sys/fs/cgroup/unified",
		strings.Join(c.mounts(),
			" "): "/sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup/memory /sys/fs/cgroup/systemd /sys/fs/cgroup/unified",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}

	c, err = parseCgroups(strings.NewReader("30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"))
	if err != nil || !c.v2 || c.unified != "" {
		t.Fatalf("%+v, %v", c, err)
	}
	c.parent = "giggle-x"
	if got, want := c.file("i1", "memory", "memory.events"), "/sys/fs/cgroup/giggle-x/i1/memory.events"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := parseCgroups(strings.NewReader("30 20 0:26 / / rw - ext4 /dev/vda rw\n")); err == nil {
		t.Error("a machine without cgroups passed")
	}
}

// The unified tree can't be had beside v1 controllers: its control files are played by plain ones.
func TestUnifiedControlFiles(t *testing.T) {
	c := &cgroups{parent: "giggle-x", v2: true, trees: map[string]string{"": t.TempDir()}}
	write := func(file, text string) {
		t.Helper()
		if err := writeAll(c.file("i1", "", file), text); err != nil {
			t.Fatal(err)
		}
	}
	write("memory.current", "1000\n")
	write("memory.stat", "anon 5\ninactive_file 300\nactive_file 7\n")
	write("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
	write("cpu.stat", "usage_usec 1500\nuser_usec 1\n")
	write("cpu.max", "max 100000\n")
	u, err := c.usage("i1")
	if err != nil || u.MemoryBytes != 700 || u.CPUTime.Microseconds() != 1500 {
		t.Errorf("usage = %+v, %v", u, err)
	}
	for events, want := range map[string]int64{
		"low 0\noom 3\noom_kill 2\noom_group_kill 0\n": 2,
		"low 0\noom 0\noom_kill 1\noom_group_kill 0\n": 0, // the machine's memory was full, or a group's above
		"": 0,
	} {
		write("memory.events", events)
		if got := c.oomKills("i1"); got != want {
			t.Errorf("oom kills = %d, want %d, of %q", got, want, events)
		}
	}
	for millicores, want := range map[int64]string{0: "max 100000", 1: "1000 100000", 10: "1000 100000",
		1500: "150000 100000"} {
		if err := c.setCPU("i1", millicores); err != nil {
			t.Fatal(err)
		}
		if got, err := c.read("i1", "", "cpu.max"); err != nil || got != want {
			t.Errorf("%d millicores: %q, %v, want %q", millicores, got, err, want)
		}
	}
}

func TestOwnGroup(t *testing.T) {
	const text = "9:name=systemd:/\n8:pids,misc:/user/a:b\n0::/unified\n"
	for controller, want := range map[string]string{"pids": "/user/a:b", "misc": "/user/a:b", "": "/unified",
		"memory": "none"} {
		got, ok := ownGroup(text, controller)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", controller, got, want)
		}
	}
}
