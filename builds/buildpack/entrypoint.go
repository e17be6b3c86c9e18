package buildpack

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"giggle/fault"
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

// readSource reads a small file of the source, "" for none. Its links are not followed: they may lead anywhere.
func readSource(src, name string, limit int64) (string, error) {
	info, err := os.Lstat(filepath.Join(src, name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	f, err := os.Open(filepath.Join(src, name))
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it is only read
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fault.New(fault.InvalidArgument, "%s is longer than %d bytes.", name, limit)
	}
	return string(b), err
}

// has reports whether the source has a file at its root.
func has(src, name string) bool {
	_, err := os.Lstat(filepath.Join(src, name))
	return err == nil
}
