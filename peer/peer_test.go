package peer

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:A2C4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1
   2: 0100007F:1F90 0100007F:A2C4 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   3: 0100007F:A2C5 0100007F:1F90 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   4: 0100007F:A2C6 0100007F:1F90 05 00000000:00000000 03:00000000 00000000     0        0 0 1 0
   5: B80D0120000000000000000001000000:A2C4 B80D0120000000000000000002000000:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 4 1 0 20 4 30 10 -1
`

func TestFind(t *testing.T) {
	for _, c := range []struct {
		from, to string
		uid      int // -1: an error
	}{
		{"127.0.0.1:41668", "127.0.0.1:8080", 1000},
		{"[::ffff:127.0.0.1]:41668", "127.0.0.1:8080", 1000},
		{"127.0.0.1:8080", "127.0.0.1:41668", 0},
		{"[2001:db8::1]:41668", "[2001:db8::2]:8080", 1001},
		// TIME_WAIT and FIN_WAIT2 without a process are nobody's, and not root's
		{"127.0.0.1:41669", "127.0.0.1:8080", -1},
		{"127.0.0.1:41670", "127.0.0.1:8080", -1},
		{"127.0.0.1:41671", "127.0.0.1:8080", -1},
		{"127.0.0.2:41668", "127.0.0.1:8080", -1},
		{"[::1]:41668", "127.0.0.1:8080", -1},
		{"nonsense", "127.0.0.1:8080", -1},
		{"", "", -1},
	} {
		uid, err := find(strings.NewReader(table), c.from, c.to)
		if err != nil {
			uid = -1
		}
		if uid != c.uid {
			t.Errorf("find(%q, %q) = %d (%v), want %d", c.from, c.to, uid, err, c.uid)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add(table, "127.0.0.1:41668", "127.0.0.1:8080")
	f.Fuzz(func(t *testing.T, table, from, to string) {
		if uid, err := find(strings.NewReader(table), from, to); err == nil && uid < 0 {
			t.Errorf("uid %d", uid)
		}
	})
}

func TestUser(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		theirs, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ours, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		if uid, err := User(ours); err != nil || uid != os.Getuid() {
			t.Errorf("%s: the other end is %d's (%v), want %d's", network, uid, err, os.Getuid())
		}
		if err := theirs.Close(); err != nil {
			t.Fatal(err)
		}
		if uid, err := User(ours); network == "tcp4" && err == nil {
			t.Errorf("an end that is closed is %d's", uid)
		}
	}
}
