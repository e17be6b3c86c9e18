package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tree is a Debian root file system under construction.
type tree struct{ dir string }

// bootstrap makes the smallest Debian that apt works in.
func bootstrap(ctx context.Context, dir string) (*tree, error) {
	args := []string{
		"--quiet", "--variant=minbase", "--include=ca-certificates,netbase,tzdata", "--dpkgopt=force-unsafe-io",
		`--aptopt=APT::Sandbox::User "root"`, suite, dir,
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, aptSources(ctx)...)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0", "TMPDIR="+filepath.Dir(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return &tree{dir}, nil
}

// aptSources are where this machine gets packages of the suite from, by its own settings, in apt's one-line form. A
// machine with another system has none: then mmdebstrap takes its own.
func aptSources(ctx context.Context) (lines []string) {
	const format = "$(ORIGIN) $(CODENAME) deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
	for line := range strings.Lines(output(ctx, "apt-get", "indextargets", "--format", format,
		"Created-By: Packages")) {
		of, source, _ := strings.Cut(strings.TrimSpace(line), " deb ")
		if source = "deb " + source; (of == "Debian "+suite || strings.HasPrefix(of, "Debian "+suite+"-")) &&
			!slices.Contains(lines, source) {
			lines = append(lines, source)
		}
	}
	return lines
}

// copy makes another tree with the same files.
func (t *tree) copy(ctx context.Context, dir string) (*tree, error) {
	if out, err := exec.CommandContext(ctx, "cp", "-a", t.dir, dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cp -a: %w\n%s", err, out)
	}
	return &tree{dir}, nil
}

// inside is run in the tree, in mount and process namespaces of its own, so that nothing stays mounted or running. A
// directory BIND is seen at AT.
const inside = `set -e
mount --bind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
[ -z "${BIND-}" ] || mount --bind "$BIND" "$ROOT$AT"
cp /etc/resolv.conf "$ROOT/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
chroot "$ROOT" sh -c "$1"
rm -f "$ROOT/usr/sbin/policy-rc.d"
`

// install adds Debian packages to the tree.
func (t *tree) install(ctx context.Context, names ...string) error {
	script := "apt-get -qq update && apt-get -qq -y -o APT::Sandbox::User=root -o Dpkg::Options::=--force-unsafe-io install --no-install-recommends " +
		strings.Join(names, " ") + " && apt-get clean"
	if err := t.run(ctx, script, "DEBIAN_FRONTEND=noninteractive"); err != nil {
		return fmt.Errorf("apt-get install %s: %w", strings.Join(names, " "), err)
	}
	return nil
}

// run runs a shell script in the tree.
func (t *tree) run(ctx context.Context, script string, env ...string) error {
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", inside, "sh",
		script)
	cmd.Env = append(append(os.Environ(), "ROOT="+t.dir, "LC_ALL=C"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// leftOut are paths of a running system, and what apt and dpkg leave behind that no image needs.
func leftOut(path string) bool {
	for _, dir := range []string{"dev/", "proc/", "sys/", "run/", "tmp/", "var/cache/apt/", "var/lib/apt/lists/",
		"var/log/", "var/cache/ldconfig/", "var/cache/debconf/"} {
		if strings.HasPrefix(path, dir) && path != dir {
			return true
		}
	}
	return path == "etc/resolv.conf" || path == "etc/hostname" || path == "etc/machine-id" ||
		strings.HasSuffix(path, ".dpkg-old")
}

// files are the fingerprints of a tree's files by path: what an upper layer need not repeat.
type files map[string]string

// layer writes as a tar stream what the tree has and the layer below has not, and returns the fingerprints of both.
func (t *tree) layer(ctx context.Context, w io.Writer, below files) (_ files, err error) {
	all := maps.Clone(below)
	if all == nil {
		all = make(files)
	}
	mine := make(files)
	if err := t.walk(ctx, func(h *tar.Header, body io.Reader) error {
		mark, err := fingerprint(h, body)
		mine[h.Name] = mark
		return err
	}); err != nil {
		return nil, err
	}
	maps.Copy(all, mine)
	out := tar.NewWriter(w)
	err = t.walk(ctx, func(h *tar.Header, body io.Reader) error {
		if below[h.Name] == mine[h.Name] {
			return nil
		}
		if h.Typeflag == tar.TypeLink && below[h.Linkname] != "" && below[h.Linkname] == mine[h.Linkname] {
			return fmt.Errorf("%s is a hard link into the layer below", h.Name)
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(out, body)
		return err
	})
	return all, errors.Join(err, out.Close())
}

// walk calls fn with each entry of the tree, in order of their names, as the layer will have it.
func (t *tree) walk(ctx context.Context, fn func(h *tar.Header, body io.Reader) error) (err error) {
	cmd := exec.CommandContext(ctx, "tar", "-C", t.dir, "--sort=name", "--numeric-owner", "--format=pax",
		"--one-file-system", "-cf", "-", ".")
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_, _ = io.Copy(io.Discard, pipe)
		err = errors.Join(err, cmd.Wait())
	}()
	in := tar.NewReader(pipe)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		h.Name = strings.TrimPrefix(h.Name, "./")
		if h.Name == "" || leftOut(h.Name) || h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock ||
			h.Typeflag == tar.TypeFifo {
			continue
		}
		h.Linkname = strings.TrimPrefix(h.Linkname, "./")
		h.ModTime, h.AccessTime, h.ChangeTime, h.PAXRecords, h.Uname, h.Gname = epoch, epoch, epoch, nil, "", ""
		h.Format = tar.FormatPAX
		if err := fn(h, in); err != nil {
			return err
		}
	}
}

func fingerprint(h *tar.Header, body io.Reader) (string, error) {
	sum := sha256.New()
	_, err := io.Copy(sum, body)
	return fmt.Sprintf("%c %o %d:%d %s %x", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, sum.Sum(nil)), err
}
