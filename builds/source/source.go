// Package source unpacks uploaded source archives into a directory.
//
// It serves builds. What comes in is hostile: names that lead out of the directory and archives that grow without end
// are refused, links are kept wherever they lead and never followed out, and nothing outside the directory is ever
// touched. It fetches nothing itself.
//
// What becomes of a member is what GNU tar and Go's package zip make of it, as Cloud Build's own fetchers do
// (https://www.gnu.org/software/tar/manual/html_node/Dealing-with-Old-Files.html,
// https://github.com/GoogleCloudPlatform/cloud-builders/tree/master/gcs-fetcher): the last of several members of one
// name counts, modes and times are kept, a leading slash is dropped. Owners and the setuid bits are not kept.
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
	"slices"
	"strings"
	"time"

	"giggle/fault"
)

// Limits bound what an archive may unpack to.
type Limits struct {
	Bytes   int64 // of all files together, each name of a file that has several counted
	Entries int
}

// DefaultLimits are generous for source code.
var DefaultLimits = Limits{Bytes: 4 << 30, Entries: 200_000}

// Extract unpacks a zip archive or a tar archive, compressed with gzip or not, of the given size into an existing,
// empty directory. Which one it is, its first bytes say. It fails with InvalidArgument on what is none of them, and on
// an archive that is damaged, hostile or over the limits. Symbolic links may lead anywhere afterwards: whoever reads
// the directory must not follow them out of it.
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
		err = x.zip(&readerAt{archive}, size)
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		gz, zerr := gzip.NewReader(bufio.NewReader(archive))
		if zerr != nil {
			return bad("the archive is not readable: %v", zerr)
		}
		err = x.tar(gz)
	default:
		err = x.tar(archive)
	}
	if err != nil {
		return err
	}
	return x.settle()
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
	dirs []directory // in the order of the archive
}

// directory is what an archive says of one. It is set at the end: what is put into it changes its time, and needs its
// permissions.
type directory struct {
	name string
	meta meta
}

// meta is what is kept of an entry beside its content.
type meta struct {
	perm fs.FileMode
	time time.Time
}

func metaOf(info fs.FileInfo) meta { return meta{info.Mode().Perm(), info.ModTime()} }

// name checks an entry's name and returns it cleaned; "" for the root itself. A backslash is a character like others.
func (x *extractor) name(s string) (string, error) {
	if x.left.Entries--; x.left.Entries < 0 {
		return "", bad("it has too many files")
	}
	if err := x.ctx.Err(); err != nil {
		return "", err
	}
	clean, ok := local(s)
	if !ok {
		return "", bad("the name %.100q leads out of the directory", s)
	}
	return clean, nil
}

// local is a name below the directory, cleaned and without its leading slash: "" for the directory, and false for a
// name that leads out of it or that no file can have.
func local(s string) (string, bool) {
	clean := path.Clean(strings.TrimLeft(s, "/"))
	if clean == "." {
		return "", true
	}
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(clean, 0) || len(clean) > 4096 {
		return "", false
	}
	return clean, true
}

// parents makes the directories that a name needs.
func (x *extractor) parents(name string) error {
	if dir := path.Dir(name); dir != "." {
		return x.refuse(name, x.root.MkdirAll(dir, 0o755))
	}
	return nil
}

// free removes what an earlier entry of the same name left: the last one counts. It is removed and not written over, so
// that neither a link's target nor the other names of a file change. A directory stays, unless it is empty.
func (x *extractor) free(name string) error {
	err := x.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return x.refuse(name, err)
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

func (x *extractor) dir(name string, m meta) error {
	if name == "" {
		return nil // it is the caller's
	}
	if err := x.parents(name); err != nil {
		return err
	}
	if info, err := x.root.Lstat(name); err != nil || !info.IsDir() {
		if err := x.free(name); err != nil {
			return err
		}
		if err := x.refuse(name, x.root.Mkdir(name, 0o755)); err != nil {
			return err
		}
	}
	x.dirs = append(x.dirs, directory{name, m})
	return nil
}

// settle gives the directories their permissions and times, those inside before those around them.
func (x *extractor) settle() error {
	for _, d := range slices.Backward(x.dirs) {
		info, err := x.root.Lstat(d.name)
		if err != nil || !info.IsDir() {
			continue // a later entry took its place
		}
		if err := x.set(d.name, d.meta); err != nil {
			return err
		}
	}
	return nil
}

// The times that are kept: all that tar's and zip's own clients write. Others are the unpacking's.
var firstTime, lastTime = time.Unix(0, 0), time.Unix(1<<33, 0)

// set gives a file or a directory, which is no link, its permissions and its time.
func (x *extractor) set(name string, m meta) error {
	err := x.root.Chmod(name, m.perm) // past the umask
	if err == nil && m.time.After(firstTime) && m.time.Before(lastTime) {
		err = x.root.Chtimes(name, m.time, m.time)
	}
	return x.refuse(name, err)
}

func (x *extractor) file(name string, m meta, r io.Reader) error {
	if err := x.parents(name); err != nil {
		return err
	}
	if err := x.free(name); err != nil {
		return err
	}
	f, err := x.root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return x.refuse(name, err)
	}
	n, err := io.Copy(f, io.LimitReader(r, x.left.Bytes+1))
	err = errors.Join(err, f.Close())
	if x.left.Bytes -= n; x.left.Bytes < 0 {
		return bad("it is larger than allowed when unpacked")
	}
	if err != nil {
		return x.refuse(name, err)
	}
	return x.set(name, m)
}

// link makes a symbolic link, wherever it leads.
func (x *extractor) link(name, target string) error {
	if err := x.parents(name); err != nil {
		return err
	}
	if err := x.free(name); err != nil {
		return err
	}
	return x.refuse(name, x.root.Symlink(target, name))
}

// hardLink gives an entry that came before another name. It counts as another file: whoever makes an image of the
// directory reads it twice.
func (x *extractor) hardLink(name, of string) error {
	target, ok := local(of)
	if !ok || target == "" {
		return bad("the hard link %.100q leads out of the directory", name)
	}
	info, err := x.root.Lstat(target)
	switch {
	case err != nil:
		return bad("%.200q is a hard link to %.200q, which did not come before it", name, of)
	case info.IsDir():
		return bad("%.200q is a hard link to a directory", name)
	case target == name:
		return nil
	}
	if x.left.Bytes -= info.Size(); x.left.Bytes < 0 {
		return bad("it is larger than allowed when unpacked")
	}
	if err := x.parents(name); err != nil {
		return err
	}
	if at, err := x.root.Lstat(name); err == nil && os.SameFile(at, info) {
		return nil // to remove it could remove both
	}
	if err := x.free(name); err != nil {
		return err
	}
	return x.refuse(name, x.root.Link(target, name))
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
		m := metaOf(h.FileInfo())
		switch h.Typeflag {
		case tar.TypeDir, gnuDirectory:
			err = x.dir(name, m)
		case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
			err = x.file(name, m, t)
		case tar.TypeSymlink:
			err = x.link(name, h.Linkname)
		case tar.TypeLink:
			err = x.hardLink(name, h.Linkname)
		case tar.TypeXGlobalHeader, gnuLabel: // git archive writes the first
		case tar.TypeFifo: // gcloud takes in those that a running program left; no build reads one
		default:
			err = bad("%.100q is neither a file, a directory nor a link", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

// Types of members that GNU tar alone writes (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
const (
	gnuDirectory = 'D' // of an incremental archive, with a list of its files as its content
	gnuLabel     = 'V' // the name of the volume
)

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
		if err == nil {
			err = x.zipEntry(f, name)
		}
		if err != nil {
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

// encrypted is the flag of a file that needs a password (APPNOTE.TXT, 4.4.4).
const encrypted = 0x1

func (x *extractor) zipEntry(f *zip.File, name string) (err error) {
	m, mode := metaOf(f.FileInfo()), f.Mode()
	isDir := mode.IsDir() || strings.HasSuffix(f.Name, "/")
	if byUnix := f.CreatorVersion>>8 == 3 || f.CreatorVersion>>8 == 19; !byUnix || m.perm == 0 {
		// Neither MS-DOS's attributes nor the absence of any say more.
		if m.perm = 0o644; isDir {
			m.perm = 0o755
		}
	}
	switch {
	case isDir:
		return x.dir(name, m)
	case f.Flags&encrypted != 0:
		return bad("%.100q needs a password", f.Name)
	case mode&fs.ModeNamedPipe != 0:
		return nil // as in a tar archive
	case !mode.IsRegular() && mode&fs.ModeSymlink == 0:
		return bad("%.100q is neither a file, a directory nor a link", f.Name)
	}
	r, err := f.Open()
	if err != nil {
		return bad("the archive is damaged: %v", err)
	}
	defer func() { _ = r.Close() }() // it was only read
	if mode.IsRegular() {
		return x.file(name, m, r)
	}
	target, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return bad("the archive is damaged: %v", err)
	}
	return x.link(name, string(target))
}
