// Package source unpacks uploaded source archives into a directory.
//
// It serves builds. What comes in is hostile: names that lead out of the directory, links that do, and archives that
// grow without end are refused, and nothing outside the directory is ever touched. It fetches nothing itself.
package source

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"giggle/fault"
)

// Limits bound what an archive may unpack to.
type Limits struct {
	Bytes   int64 // of all files together
	Entries int
	// AnyLinks keeps symbolic links that lead out of the directory as links, for those who never follow them. Extract
	// itself follows none.
	AnyLinks bool
}

// DefaultLimits are generous for source code.
var DefaultLimits = Limits{Bytes: 4 << 30, Entries: 200_000}

// Extract unpacks a zip archive or a tar archive, compressed with gzip or not, of the given size into an existing,
// empty directory. Which one it is, its first bytes say. It fails with InvalidArgument on what is none of them, and on
// an archive that is damaged, hostile or over the limits.
func Extract(ctx context.Context, archive io.ReadSeeker, size int64, dir string, limits Limits) (err error) {
	defer fault.Wrap(&err, "source.Extract")
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	x := &extractor{ctx: ctx, root: root, left: limits}
	magic := make([]byte, 4)
	n, err := io.ReadFull(archive, magic)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return bad("the archive is empty")
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return err
	}
	switch magic = magic[:n]; {
	case bytes.HasPrefix(magic, []byte("PK")):
		return x.zip(&readerAt{archive}, size)
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		gz, err := gzip.NewReader(bufio.NewReader(archive))
		if err != nil {
			return bad("the archive is not readable: %v", err)
		}
		return x.tar(gz)
	default:
		return x.tar(archive)
	}
}

func bad(format string, args ...any) error {
	return fault.New(fault.InvalidArgument, "The source can't be unpacked: "+format+".", args...)
}

// readerAt reads at offsets of a seeker, one reader at a time.
type readerAt struct{ s io.ReadSeeker }

func (r *readerAt) ReadAt(p []byte, off int64) (int, error) {
	if _, err := r.s.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r.s, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// extractor writes entries below its root. os.Root refuses every name and every link that leads out of it.
type extractor struct {
	ctx  context.Context
	root *os.Root
	left Limits
}

// name checks an entry's name and returns it cleaned; "" for the root itself.
func (x *extractor) name(s string) (string, error) {
	if x.left.Entries--; x.left.Entries < 0 {
		return "", bad("it has too many files")
	}
	if err := x.ctx.Err(); err != nil {
		return "", err
	}
	clean := path.Clean(strings.ReplaceAll(s, `\`, "/"))
	if clean == "." {
		return "", nil
	}
	if !fs.ValidPath(clean) || strings.ContainsRune(clean, 0) || len(clean) > 4096 {
		return "", bad("the name %.100q leads out of the directory", s)
	}
	return clean, nil
}

func (x *extractor) mkdir(name string) error {
	if name == "" || name == "." {
		return nil
	}
	return x.refuse(name, x.root.MkdirAll(name, 0o755))
}

// refuse says which entry a file system error is about.
func (x *extractor) refuse(name string, err error) error {
	if err == nil {
		return nil
	}
	return bad("%.200q: %v", name, unwrapPath(err))
}

// unwrapPath leaves this machine's paths out of an error.
func unwrapPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}

func (x *extractor) file(name string, mode fs.FileMode, r io.Reader) error {
	if err := x.mkdir(path.Dir(name)); err != nil {
		return err
	}
	// Executable or not is all of the mode that source code needs; setuid bits never survive.
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	f, err := x.root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, perm)
	if err != nil {
		return x.refuse(name, err)
	}
	n, err := io.Copy(f, io.LimitReader(r, x.left.Bytes+1))
	err = errors.Join(err, f.Close())
	if x.left.Bytes -= n; x.left.Bytes < 0 {
		return bad("it is larger than allowed when unpacked")
	}
	return x.refuse(name, err)
}

// link makes a symbolic link, if it stays inside the directory or may lead anywhere.
func (x *extractor) link(name, target string) error {
	inside := path.Join(path.Dir(name), target)
	if !x.left.AnyLinks && (path.IsAbs(target) || inside != "." && !fs.ValidPath(inside)) {
		return bad("the link %.100q leads out of the directory", name)
	}
	if err := x.mkdir(path.Dir(name)); err != nil {
		return err
	}
	return x.refuse(name, x.root.Symlink(target, name))
}

func (x *extractor) tar(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return bad("the archive is neither zip nor tar, or it is damaged: %v", err)
		}
		name, err := x.name(h.Name)
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = x.mkdir(name)
		case tar.TypeReg:
			err = x.file(name, h.FileInfo().Mode(), t)
		case tar.TypeSymlink:
			err = x.link(name, h.Linkname)
		case tar.TypeXGlobalHeader: // git archive writes one
		default:
			err = bad("%.100q is neither a file, a directory nor a symbolic link", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func (x *extractor) zip(r io.ReaderAt, size int64) error {
	directory := &directoryReader{r: r, entries: x.left.Entries, bytes: int64(x.left.Entries) * meanHeader}
	z, err := zip.NewReader(directory, size)
	directory.over = true
	switch {
	case errors.Is(err, errDirectory):
		return err
	case err != nil && !errors.Is(err, zip.ErrInsecurePath):
		return bad("the archive is damaged: %v", err)
	}
	for _, f := range z.File {
		name, err := x.name(f.Name)
		if err != nil {
			return err
		}
		if strings.HasSuffix(f.Name, "/") || f.Mode().IsDir() {
			if err := x.mkdir(name); err != nil {
				return err
			}
			continue
		}
		if err := x.zipEntry(f, name); err != nil {
			return err
		}
	}
	return nil
}

// meanHeader is how long the entries of an archive's directory may be on average, in bytes. The least is 46 and a name.
const meanHeader = 512

// errDirectory is what is said of an archive with too large a directory.
var errDirectory = bad("it has too many files")

// directoryReader lets package zip, which keeps all of an archive's directory in memory, read only so many entries of
// one. It can't go by the number that the archive says: nothing holds the archive to it.
type directoryReader struct {
	r       io.ReaderAt
	entries int
	bytes   int64
	end     []byte // of what was read last, since a signature may lie across two reads
	over    bool   // the directory was read: what follows is files
}

func (d *directoryReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.r.ReadAt(p, off)
	if d.over {
		return n, err
	}
	const signature = "PK\x01\x02"
	text := append(d.end, p[:n]...)
	d.entries -= bytes.Count(text, []byte(signature))
	d.bytes -= int64(n)
	d.end = bytes.Clone(text[max(0, len(text)-len(signature)+1):])
	// The end of the archive is read first, by up to 65 KiB and twice: a little of the directory may be in it.
	if d.entries < -2*(64<<10)/46 || d.bytes < -3*(64<<10) {
		return 0, errDirectory
	}
	return n, err
}

func (x *extractor) zipEntry(f *zip.File, name string) (err error) {
	r, err := f.Open()
	if err != nil {
		return bad("the archive is damaged: %v", err)
	}
	defer func() { _ = r.Close() }() // it was only read
	switch mode := f.Mode(); {
	case mode.IsRegular():
		return x.file(name, mode, r)
	case mode&fs.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(r, 4096))
		if err != nil {
			return bad("the archive is damaged: %v", err)
		}
		return x.link(name, string(target))
	default:
		return bad("%.100q is neither a file, a directory nor a symbolic link", f.Name)
	}
}
