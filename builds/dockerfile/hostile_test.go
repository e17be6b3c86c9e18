package dockerfile_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"giggle/artifacts/mirror"
	"giggle/builds"
	"giggle/builds/dockerfile"
	"giggle/fault"
)

// What RUN steps do stays in their containers, their limits and their network.
func TestHostileRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the host's
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := files(t, map[string]string{"Dockerfile": fmt.Sprintf(`FROM debian:12
RUN ! (exec 3<>/dev/tcp/%s) 2>/dev/null || { echo the host answers; exit 1; }
SHELL ["/bin/bash", "-c"]
RUN ! (exec 3<>/dev/tcp/127.0.0.1/%d) 2>/dev/null || { echo the host answers; exit 1; }
RUN exec 3<>/dev/tcp/169.254.169.254/80 && printf 'GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.0\r\nMetadata-Flavor: Google\r\n\r\n' >&3 && cat <&3 | tee /answer | grep 'have no identity'
RUN ! mount -t tmpfs none /mnt 2>/dev/null && ! mknod /tmp/zero c 1 11 2>/dev/null && ! unshare -m true 2>/dev/null
RUN ls -d /proc/[0-9]* | wc -l | xargs test 20 -gt
`, strings.Replace(l.Addr().String(), ":", "/", 1), l.Addr().(*net.TCPAddr).Port)})
	if _, log, err := try(t, dockerfile.Request{Context: dir, NoCache: true}); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
}

// A step's root is nobody on the host and nothing to BuildKit.
func TestStepIsConfined(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": `FROM python:3
COPY probe.py /
RUN python3 /probe.py
`, "probe.py": `
import os, socket, ctypes, errno
def status(name):
    return next(l.split()[1] for l in open("/proc/self/status") if l.startswith(name + ":"))
uids = open("/proc/self/uid_map").read().split()
assert os.getuid() == 0 and uids == ["0", "0", "65536"], uids  # within BuildKit's users, which are strangers to the host
assert status("NoNewPrivs") == "1" and status("Seccomp") == "2"
for set in "CapEff", "CapPrm", "CapBnd":
    caps = int(status(set), 16)
    for name, bit in {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_MODULE": 16, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "MKNOD": 27}.items():
        assert not caps >> bit & 1, (set, name)
def refused(what, fn):
    try: fn()
    except OSError as e:
        assert e.errno in (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EROFS, errno.ENOENT, errno.EINVAL), (what, e)
        return
    raise SystemExit(what + " is not refused")
refused("a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
refused("a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
refused("a device", lambda: os.mknod("/dev/mem2", 0o20600, os.makedev(1, 1)))
refused("a device in the layer", lambda: os.mknod("/zero", 0o20600, os.makedev(1, 5)))
refused("a sysctl", lambda: open("/proc/sys/net/ipv4/ip_forward", "w"))
refused("a control group", lambda: os.makedirs("/sys/fs/cgroup/pids/mine"))
refused("the sysfs", lambda: open("/sys/kernel/mm/ksm/run", "w"))
libc = ctypes.CDLL(None, use_errno=True)
def call(n, *a):
    if libc.syscall(n, *a) < 0: raise OSError(ctypes.get_errno(), "syscall")
for flag in 0x10000000, 0x20000, 0x40000000: refused("unshare %x" % flag, lambda: call(272, flag))
# Its network may be looked at, and is its own: nobody else's sockets, no other device.
assert os.listdir("/sys/class/net") == ["lo"]
for table in "tcp", "tcp6", "unix":
    mine = [l for l in open("/proc/net/" + table).read().splitlines()[1:] if "/run/" in l or "A9FEA9FE:0050" in l.split()[2:3]]
    assert not mine, mine
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
import struct
def nl(kind, payload): # RTM_…, with NLM_F_REQUEST|NLM_F_ACK
    s.send(struct.pack("=IHHII", 16 + len(payload), kind, 5, 1, 0) + payload)
    return struct.unpack("=i", s.recv(4096)[16:20])[0]
assert nl(16, struct.pack("=BBHiII", 0, 0, 0, 1, 0, 1)) in (-errno.EPERM,), "the loopback device can be taken down"
# The registry that BuildKit has is not there.
c = socket.create_connection(("169.254.169.254", 80)); c.sendall(b"GET /v2/ HTTP/1.0\r\n\r\n"); assert b" 404 " in c.recv(4096)
for path in "/state", "/run/gate", "/run/buildkitd.sock", "/opt/giggle":
    assert not os.path.exists(path), path
print("confined")
`})
	_, log, err := try(t, dockerfile.Request{Context: dir, NoCache: true})
	if err != nil || !strings.Contains(log, "confined") {
		t.Fatalf("%v\n%s", err, log)
	}
}

// Files get the owners that a Dockerfile says, in the layers and for the steps that follow.
func TestOwners(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": `FROM python:3
RUN mkdir /a && touch /a/root && touch /a/other && chown 1000:2000 /a/other && touch /a/last && chown 65534:65534 /a/last
RUN cp /bin/true /a/setuid && chmod 4755 /a/setuid && touch /a/capable && python3 -c 'import os; os.setxattr("/a/capable", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))'
COPY --chown=33:33 in.txt /a/copied
RUN test "$(stat -c %u:%g /a/root /a/other /a/last /a/copied | xargs)" = "0:0 1000:2000 65534:65534 33:33"
RUN test "$(stat -c %a /a/setuid)" = 4755 && python3 -c 'import os; print(os.getxattr("/a/capable", "security.capability").hex())' && rm /a/root && rm -r /var/lib/dpkg && mkdir /var/lib/dpkg
USER 1000:2000
WORKDIR /home/me
RUN test "$(id -u):$(id -g)" = 1000:2000 && echo mine >/tmp/mine && ! touch /a/other2 2>/dev/null && echo x >>/a/other
RUN --mount=type=cache,target=/c,uid=1000 echo cached >/c/x && test "$(stat -c %u /c/x)" = 1000
USER root
RUN --network=none ! ls /sys/class/net | grep -v lo
RUN --mount=type=bind,from=gcr.io/distroless/static-debian11,target=/other test -d /other/etc && test "$(stat -c %u /other/etc)" = 0
`, "in.txt": "x"})
	img, log, err := try(t, dockerfile.Request{Context: dir})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	type entry struct {
		uid, gid int
		mode     int64
		xattr    string
	}
	got := map[string]entry{}
	layers(t, img, func(h *tar.Header) {
		got[h.Name] = entry{h.Uid, h.Gid, h.Mode & 0o7777,
			fmt.Sprintf("%x", h.PAXRecords["SCHILY.xattr.security.capability"])}
	})
	for name, want := range map[string]entry{
		"a/other":    {1000, 2000, 0o644, ""},
		"a/last":     {65534, 65534, 0o644, ""},
		"a/copied":   {33, 33, 0o644, ""},
		"a/setuid":   {0, 0, 0o4755, ""},
		"a/capable":  {0, 0, 0o644, "0100000200040000000000000000000000000000"},
		"tmp/mine":   {1000, 2000, 0o644, ""},
		"a/.wh.root": {0, 0, 0, ""},
	} {
		e, ok := got[name]
		if !ok {
			t.Errorf("no layer has %s", name)
		} else if strings.Contains(name, ".wh.") {
			continue
		} else if e != want {
			t.Errorf("%s: %+v, want %+v", name, e, want)
		}
	}
	emptied := false
	for name, e := range got {
		emptied = emptied || strings.HasPrefix(name, "var/lib/dpkg/.wh.")
		if e.uid > 65535 || e.gid > 65535 {
			t.Errorf("%s is %d:%d's", name, e.uid, e.gid)
		}
	}
	if !emptied {
		t.Error("no layer says that a directory was replaced by an empty one")
	}
}

// A fork bomb ends in its limit, and the next build works.
func TestForkBomb(t *testing.T) {
	dir := files(t, map[string]string{"Dockerfile": "FROM debian:12\nRUN perl -e 'while (defined($p = fork)) { $p or sleep 30; die \"no limit\" if ++$n > 2000 } print \"full: $!\\n\"; exit 7'\n"})
	_, log, err := try(t, dockerfile.Request{Context: dir, NoCache: true})
	if err == nil || !strings.Contains(log, "full: Resource temporarily unavailable") {
		t.Errorf("2000 processes with a limit of 512: %v\n%.2000s", err, log)
	}
	dir = files(t, map[string]string{"Dockerfile": "FROM debian:12\nRUN true\n"})
	if _, log, err := try(t, dockerfile.Request{Context: dir, NoCache: true}); err != nil {
		t.Errorf("the next build: %v\n%s", err, log)
	}
}

func TestSourceBombs(t *testing.T) {
	if _, err := builder.BuildSource(t.Context(), job, builds.Step{}, strings.NewReader("no archive"), 10,
		io.Discard); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("no archive: %v", err)
	}
}

// BuildKit ends when it is idle, with the builder, and is started again; its cache stays.
func TestIdle(t *testing.T) {
	dir := t.TempDir()
	m, err := mirror.Open(mirrorDir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(dir, m)
	cfg.Idle = time.Millisecond
	cfg.Engine = shared
	idle, err := dockerfile.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	src := files(t, map[string]string{"Dockerfile": "FROM gcr.io/distroless/static-debian11\nCOPY Dockerfile /x\n"})
	for i := range 2 {
		var log bytes.Buffer
		if _, err := idle.Build(t.Context(), dockerfile.Request{Build: of("idle"), Context: src}, &log); err != nil {
			t.Fatal(err)
		}
		if cached := strings.Contains(log.String(), "CACHED"); cached != (i == 1) {
			t.Errorf("build %d: from the cache: %t\n%s", i, cached, &log)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		for idle.Running() > 0 && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
		cancel()
		if idle.Running() > 0 {
			t.Fatal("BuildKit still runs")
		}
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/giggle-*/daemons/idle", "/sys/fs/cgroup/giggle-*/daemons/idle",
		"/run/giggle-*/daemon-idle"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if _, err := idle.Build(t.Context(), dockerfile.Request{Build: of("idle"), Context: src},
		io.Discard); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after Close: %v", err)
	}
}

// Without its programs the message says what to do.
func TestNoBuildKit(t *testing.T) {
	m, err := mirror.Open(mirrorDir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t.TempDir(), m)
	cfg.Path, cfg.Log = nil, slog.Default()
	t.Setenv("PATH", "/nowhere")
	none, err := dockerfile.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = none.Build(t.Context(), dockerfile.Request{
		Build:   job,
		Context: files(t, map[string]string{"Dockerfile": "FROM scratch\n"}),
	}, io.Discard)
	if f := fault.From(err); f.Code != fault.FailedPrecondition || !strings.Contains(f.Message, "hack/setup build") {
		t.Errorf("got %v", err)
	}
	if errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
