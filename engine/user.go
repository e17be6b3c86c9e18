package engine

import (
	"bufio"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// user is who a process runs as inside the container.
type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// maxAccounts bounds /etc/passwd and /etc/group, in bytes: they belong to the image, which may be hostile.
const maxAccounts = 1 << 20

// readIn reads a regular file of the image, "" if there is none.
func readIn(root *os.File, p string) (string, error) {
	// O_NONBLOCK: the image may have a FIFO there.
	fd, err := openIn(int(root.Fd()), p, unix.O_RDONLY|unix.O_NONBLOCK)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "open in image", Path: p, Err: err}
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxAccounts))
	return string(b), err
}

// lookupUser resolves an image's user against its /etc/passwd and /etc/group.
func lookupUser(root *os.File, spec string) (user, error) {
	passwd, err := readIn(root, "/etc/passwd")
	if err != nil {
		return user{}, err
	}
	group, err := readIn(root, "/etc/group")
	if err != nil {
		return user{}, err
	}
	return parseUser(spec, passwd, group)
}

// parseUser does what the OCI image specification (config.md, User) and Docker do: names are looked up; a number need
// not be known; without a group the user's own one holds, and the groups that list the user.
func parseUser(spec, passwd, group string) (user, error) {
	name, groupName, hasGroup := strings.Cut(spec, ":")
	if name == "" {
		name = "0"
	}
	u := user{home: "/"}
	entry := find(passwd, name, 2, 6)
	uid, numeric := id(name)
	switch {
	case entry != nil:
		var ok, ok2 bool
		uid, ok = id(entry[2])
		u.gid, ok2 = id(entry[3])
		if !ok || !ok2 {
			return user{}, fault.New(fault.FailedPrecondition, "User %q has no valid ids in the image's /etc/passwd.",
				name)
		}
		u.home = entry[5]
	case !numeric:
		return user{}, fault.New(fault.FailedPrecondition, "User %q is not in the image's /etc/passwd.", name)
	}
	u.uid = uid

	if hasGroup && groupName != "" {
		gid, numeric := id(groupName)
		if g := find(group, groupName, 2, 3); g != nil {
			gid, numeric = id(g[2])
		}
		if !numeric {
			return user{}, fault.New(fault.FailedPrecondition, "Group %q is not in the image's /etc/group.", groupName)
		}
		u.gid = gid
	} else if entry != nil {
		for fields := range lines(group, 4) {
			gid, ok := id(fields[2])
			for member := range strings.SplitSeq(fields[3], ",") {
				if ok && member == entry[0] && gid != u.gid {
					u.groups = append(u.groups, gid)
				}
			}
		}
	}
	if !path.IsAbs(u.home) {
		u.home = "/"
	}
	return u, nil
}

// id parses a uid or gid that fits a slot.
func id(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint32(n), err == nil
}

// find returns the entry whose name, or else whose number in the given column, is key.
func find(file, key string, column, columns int) []string {
	var byNumber []string
	for fields := range lines(file, columns) {
		if fields[0] == key {
			return fields
		}
		if byNumber == nil && fields[column] == key {
			byNumber = fields
		}
	}
	return byNumber
}

// lines yields the entries of a colon-separated file that have at least n fields.
func lines(file string, n int) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		s := bufio.NewScanner(strings.NewReader(file))
		s.Buffer(nil, maxAccounts)
		for s.Scan() {
			if f := strings.Split(s.Text(), ":"); len(f) >= n && !strings.HasPrefix(f[0], "#") {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// lookCommand tells whether the command is there, as execvp would find it: the runtimes' own errors differ and are
// hard to read. It looks at no permissions but "some execute bit".
func lookCommand(root *os.File, command, dir, pathEnv string) error {
	candidates := []string{command}
	switch {
	case strings.Contains(command, "/"):
		if !path.IsAbs(command) {
			candidates[0] = path.Join("/", dir, command)
		}
	default:
		candidates = nil
		for d := range strings.SplitSeq(pathEnv, ":") {
			candidates = append(candidates, path.Join("/", d, command))
		}
	}
	reason := "no such file or directory"
	for _, c := range candidates {
		fd, err := openIn(int(root.Fd()), c, unix.O_PATH)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return nil
		}
		reason = "not an executable file"
	}
	return fault.New(fault.FailedPrecondition, "Application failed to start: failed to load %s: %s.", command, reason)
}
