package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"giggle/blob"
	"giggle/fault"
)

// Unpack resolves the manifest as Inspect does and returns the image with its layers unpacked. A layer is unpacked once
// for all images that have it over the same layers below; callers that want the same one at once share the work.
func (im *Images) Unpack(ctx context.Context, manifestDigest string) (_ Image, err error) {
	defer fault.Wrap(&err, "oci.Unpack(%s)", manifestDigest)
	m, err := im.inspect(ctx, manifestDigest, 2)
	if err != nil {
		return Image{}, err
	}
	out := Image{Digest: m.Digest, Config: m.Config.Config}
	for i, chain := range m.chain() {
		l := m.Layers[i]
		dir, err := im.layer(ctx, chain, l, out.Layers)
		if err != nil {
			return Image{}, err
		}
		out.Layers = append(out.Layers, dir)
		out.Size += l.Size
	}
	return out, nil
}

// chain names the directories of an image's layers. The layers below belong to a name: a directory that the tar stream
// only implies takes its mode from them.
func (m Manifest) chain() (names []string) {
	chain := ""
	for _, l := range m.Layers {
		sum := sha256.Sum256([]byte(chain + " " + l.Digest.String()))
		chain = hex.EncodeToString(sum[:])
		names = append(names, chain)
	}
	return names
}

// Layers returns where the layers of an image are when they are unpacked, which they need not be: what Prune is to
// keep.
func (im *Images) Layers(ctx context.Context, manifestDigest string) (dirs []string, err error) {
	defer fault.Wrap(&err, "oci.Layers(%s)", manifestDigest)
	m, err := im.inspect(ctx, manifestDigest, 2)
	for _, name := range m.chain() {
		dirs = append(dirs, filepath.Join(im.layers, name))
	}
	return dirs, err
}

// layer returns the directory of a layer, unpacked.
func (im *Images) layer(ctx context.Context, chain string, l Layer, below []string) (string, error) {
	dir := filepath.Join(im.layers, chain)
	if im.use(chain) {
		return dir, nil
	}
	if lent := im.borrowed(chain); lent != "" {
		return lent, nil
	}
	// The work is detached from the caller that happens to be first: the others still want it when that one leaves.
	done := im.flight.DoChan(chain, func() (any, error) {
		return nil, im.unpack(context.WithoutCancel(ctx), dir, l, slices.Clone(below))
	})
	select {
	case r := <-done:
		return dir, r.Err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (im *Images) unpack(ctx context.Context, dir string, l Layer, below []string) (err error) {
	defer fault.Wrap(&err, "layer %s", l.Digest)
	if _, err := os.Stat(dir); err == nil {
		return nil // another flight has just landed
	}
	dg, err := blob.ParseDigest(l.Digest.String())
	if err != nil {
		return err
	}
	f, _, err := im.blobs.Open(ctx, dg)
	if err != nil {
		return err
	}
	defer f.Close()
	stream, err := decompress(f)
	if err != nil {
		return err
	}
	defer stream.Close()

	tmp, err := os.MkdirTemp(im.tmp(), "layer-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // finds nothing once the directory has its name
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	counted := newCounter(stream, im.limits, im.admit)
	slices.Reverse(below) // the archive package asks the nearest layer first
	if _, err := archive.Apply(ctx, tmp, counted,
		archive.WithFilter(counted.entry),
		archive.WithConvertWhiteout(archive.OverlayConvertWhiteout),
		archive.WithParents(below)); err != nil {
		return invalid(err)
	}
	// The tar reader stops at the end marker; the digest covers what follows too.
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return invalid(err)
	}
	if got := counted.diffID(); got != l.DiffID {
		return fault.New(fault.InvalidArgument, "Layer %s unpacks to %s, the configuration says %s.", l.Digest, got,
			l.DiffID)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	im.settle(filepath.Base(dir))
	return nil
}

// invalid makes a fault of what a broken stream causes; a full disk and the like stay what they are.
func invalid(err error) error {
	var sys *fs.PathError
	var known *fault.Error
	if errors.As(err, &known) || errors.As(err, &sys) {
		return err
	}
	return &fault.Error{Code: fault.InvalidArgument, Message: "The layer is not a readable tar archive.", Cause: err}
}

// counter reads a layer's tar stream: it hashes it, and it stops at the limits.
type counter struct {
	r       io.Reader
	hash    hash.Hash
	limits  Limits
	admit   func(n int64) error
	bytes   int64 // of the stream
	files   int64 // bytes of the files, which a sparse entry can make more than the stream's
	entries int64
}

func newCounter(r io.Reader, limits Limits, admit func(n int64) error) *counter {
	return &counter{r: r, hash: sha256.New(), limits: limits, admit: admit}
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.hash.Write(p[:n])
	c.bytes += int64(n)
	// 2 KiB an entry is generous for headers and padding.
	if c.bytes > c.limits.Bytes+c.limits.Entries*2048 {
		return n, c.tooMuch()
	}
	if n > 0 { // what is read is about to be written
		if full := c.admit(int64(n)); full != nil {
			return n, full
		}
	}
	return n, err
}

func (c *counter) diffID() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(c.hash.Sum(nil))}
}

func (c *counter) tooMuch() error {
	return fault.New(fault.ResourceExhausted, "The layer unpacks to more than %d bytes or %d entries.", c.limits.Bytes,
		c.limits.Entries)
}

// entry looks at each header before it is applied.
func (c *counter) entry(h *tar.Header) (bool, error) {
	c.entries++
	c.files += max(h.Size, 0)
	if c.entries > c.limits.Entries || c.files > c.limits.Bytes {
		return false, c.tooMuch()
	}
	// All of the file, which may be one that the stream has only a hole of; and its inode.
	if err := c.admit(max(h.Size, 0)); err != nil {
		return false, err
	}
	// Device nodes have no use in an instance, which has its own /dev. Overlay's own attributes would let a layer
	// redirect lookups within the stack.
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		return false, nil
	}
	for key := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok &&
			(strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.")) {
			delete(h.PAXRecords, key)
		}
	}
	return true, nil
}

// decompress tells gzip, zstd and plain tar apart by their first bytes: media types in the wild are not to be trusted.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b: // RFC 1952
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, invalid(err)
		}
		return z, nil
	case string(magic) == "\x28\xb5\x2f\xfd": // RFC 8878
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, invalid(err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}
