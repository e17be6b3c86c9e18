// Package peer says which local user is at the other end of a connection, by the kernel's word.
//
// It serves the platform's socket, its proxy and the metadata server of a shell. What a user may do is not its
// business.
package peer

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User returns the uid of the process at the other end of a connection, which is over a Unix socket or from a loopback
// address to one. It fails when the process has closed its end: it has no owner any more.
func User(c net.Conn) (uid int, err error) {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	if u, ok := c.(*net.UnixConn); ok {
		return unixUser(u)
	}
	return TCPUser(c.RemoteAddr().String(), c.LocalAddr().String())
}

// unixUser asks for SO_PEERCRED (unix(7)).
func unixUser(u *net.UnixConn) (int, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET,
			unix.SO_PEERCRED)
	}); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// TCPUser returns the owner of the end "from", IP:PORT, of the TCP connection from there to another local address.
func TCPUser(from, to string) (uid int, err error) {
	a, err := netip.ParseAddrPort(from)
	if err != nil {
		return 0, err
	}
	table := "/proc/net/tcp"
	if !a.Addr().Unmap().Is4() {
		table = "/proc/net/tcp6"
	}
	f, err := os.Open(table)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return find(f, from, to)
}

// find looks a connection up in a table of proc_net_tcp(5): addresses are 32-bit words of the machine's order in hex, a
// colon, and the port. A connection that its process has closed has inode 0 there, and uid 0, which has no owner.
func find(table io.Reader, from, to string) (uid int, err error) {
	local, err := kernelAddress(from)
	if err != nil {
		return 0, err
	}
	remote, err := kernelAddress(to)
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 10 || field[1] != local || field[2] != remote {
			continue
		}
		if field[9] == "0" {
			return 0, errors.New("the other end is closed")
		}
		return strconv.Atoi(field[7])
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("there is no connection from %s to %s", from, to)
}

func kernelAddress(s string) (string, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", err
	}
	b := a.Addr().Unmap().AsSlice()
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word) // amd64 and arm64 are little-endian
	}
	return strings.ToUpper(hex.EncodeToString(b)) + fmt.Sprintf(":%04X", a.Port()), nil
}
