package buildpack

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"

	"giggle/fault"
	"giggle/oci"
)

// maxProcfile and maxManifest bound the files of a source that are read here, in bytes.
const (
	maxProcfile = 64 << 10
	maxManifest = 1 << 20
)

// process is a line of a Procfile: "web: gunicorn main:app".
var process = regexp.MustCompile(`^([A-Za-z0-9_-]+):\s*(.+)$`)

// entrypoint is the command that the source asks for, as a shell reads it: GOOGLE_ENTRYPOINT, or the web process of the
// Procfile; "" for none (https://cloud.google.com/docs/buildpacks/service-specific-configs).
func entrypoint(src string, env map[string]string) (string, error) {
	if e := env["GOOGLE_ENTRYPOINT"]; e != "" {
		return e, nil
	}
	text, err := readSource(src, "Procfile", maxProcfile)
	if err != nil || text == "" {
		return "", err
	}
	var names []string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		m := process.FindStringSubmatch(strings.TrimSpace(lines.Text()))
		if m == nil {
			continue
		}
		if m[1] == "web" {
			return m[2], nil
		}
		names = append(names, m[1])
	}
	return "", fault.New(fault.InvalidArgument, "The Procfile has no process \"web\" (it has: %.200s).",
		strings.Join(names, ", "))
}

// shell makes a command of what a shell reads. The shell becomes the program, so that signals reach it.
func shell(command string) []string { return []string{"/bin/sh", "-c", command} }

// readSource reads a small file of the source, "" for none. A link is followed inside the source only: others may lead
// to anything of this machine's.
func readSource(src, name string, limit int64) (text string, err error) {
	root, err := os.OpenRoot(src)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // no pipe that blocks
	if err != nil {
		return "", nil // there is none, or it is a link that leads out
	}
	defer func() { _ = f.Close() }() // it is only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fault.New(fault.InvalidArgument, "%s is longer than %d bytes.", name, limit)
	}
	return string(b), err
}

// stat tells what a name of the source is, or a link of that name leads to inside the source; nil for nothing.
func stat(src, name string) fs.FileInfo {
	root, err := os.OpenRoot(src)
	if err != nil {
		return nil
	}
	defer func() { _ = root.Close() }() // it was only read
	info, err := root.Stat(name)
	if err != nil {
		return nil
	}
	return info
}

// has reports whether the source has a file or a directory of a name, which may be a link inside the source.
func has(src, name string) bool { return stat(src, name) != nil }

// hasDir reports whether the source has a directory of a name, which may be a link inside the source.
func hasDir(src, name string) bool {
	info := stat(src, name)
	return info != nil && info.IsDir()
}

// appFiles lists a directory's files for an image. Its program runs as another user than the one whom they belong to:
// what their owner may do, all may, except to write (Google's buildpacks give the source to the user instead).
func appFiles(from, to string) ([]oci.File, error) {
	files, err := oci.Tree(from, to, nil)
	for i, f := range files {
		files[i].Mode |= f.Mode & 0o500 >> 3
		files[i].Mode |= f.Mode & 0o500 >> 6
	}
	return files, err
}
