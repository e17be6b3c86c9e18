package dockerapi

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"giggle/blob"
	"giggle/fault"
)

// maxDocument bounds a manifest or configuration, in bytes.
const maxDocument = 4 << 20

// read reads a small blob.
func (x *session) read(ctx context.Context, digest string) ([]byte, error) {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	f, info, err := x.cfg.Blobs.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if info.Size > maxDocument {
		return nil, fault.New(fault.InvalidArgument, "%s is no image.", digest)
	}
	return io.ReadAll(f)
}

// manifest reads the manifest of the image of this machine's platform.
func (x *session) manifest(ctx context.Context, digest string) (v1.Manifest, error) {
	found, err := x.cfg.Images.Inspect(ctx, digest)
	if err != nil {
		return v1.Manifest{}, err
	}
	raw, err := x.read(ctx, found.Digest)
	if err != nil {
		return v1.Manifest{}, err
	}
	var m v1.Manifest
	return m, json.Unmarshal(raw, &m)
}

// stored is an image of the platform's blobs, as go-containerregistry sees images.
type stored struct {
	x        *session
	ctx      context.Context
	manifest v1.Manifest
	raw      []byte
	config   []byte
}

func (s *stored) RawConfigFile() ([]byte, error)      { return s.config, nil }
func (s *stored) MediaType() (types.MediaType, error) { return s.manifest.MediaType, nil }
func (s *stored) RawManifest() ([]byte, error)        { return s.raw, nil }
func (s *stored) Manifest() (*v1.Manifest, error)     { return &s.manifest, nil }
func (s *stored) ConfigFile() (*v1.ConfigFile, error) { return partial.ConfigFile(s) }
func (s *stored) layer(h v1.Hash) (v1.Descriptor, bool) {
	for _, l := range s.manifest.Layers {
		if l.Digest == h {
			return l, true
		}
	}
	return v1.Descriptor{}, false
}

func (s *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	d, ok := s.layer(h)
	if !ok {
		return nil, fault.New(fault.NotFound, "The image has no layer %s.", h)
	}
	return &storedLayer{s, d}, nil
}

type storedLayer struct {
	s *stored
	d v1.Descriptor
}

func (l *storedLayer) Digest() (v1.Hash, error)            { return l.d.Digest, nil }
func (l *storedLayer) Size() (int64, error)                { return l.d.Size, nil }
func (l *storedLayer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }
func (l *storedLayer) Compressed() (io.ReadCloser, error) {
	f, _, err := l.s.x.cfg.Blobs.Open(l.s.ctx, blob.Digest(l.d.Digest.String()))
	return f, err
}

func (x *session) stored(ctx context.Context, img image) (v1.Image, error) {
	found, err := x.inspect(ctx, img)
	if err != nil {
		return nil, err
	}
	s := &stored{x: x, ctx: ctx}
	if s.raw, err = x.read(ctx, found.Digest); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(s.raw, &s.manifest); err != nil {
		return nil, err
	}
	if s.config, err = x.read(ctx, s.manifest.Config.Digest.String()); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(s)
}

func (x *session) save(w http.ResponseWriter, r *http.Request) error {
	return x.saveNames(w, r, r.URL.Query()["names"])
}

// saveNames is docker save: an archive of images.
func (x *session) saveNames(w http.ResponseWriter, r *http.Request, refs []string) error {
	images := map[name.Reference]v1.Image{}
	for _, ref := range refs {
		img, err := x.find(ref)
		if err != nil {
			return err
		}
		got, err := x.stored(r.Context(), img)
		if err != nil {
			return err
		}
		called, err := name.ParseReference(ref, name.WithDefaultRegistry(""))
		if err != nil {
			return fault.New(fault.InvalidArgument, "invalid reference format: %.200q", ref)
		}
		images[called] = got
	}
	if len(images) == 0 {
		return fault.New(fault.InvalidArgument, "docker save needs an image.")
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := tarball.MultiRefWrite(images, w); err != nil {
		x.cfg.Log.Warn("docker save", "build", x.build.Name, "err", err)
		panic(http.ErrAbortHandler) // half an archive must not look like a whole one
	}
	return nil
}

// load is docker load: an archive that docker save wrote, compressed by gzip or not.
func (x *session) load(w http.ResponseWriter, r *http.Request) (err error) {
	f, err := os.CreateTemp(x.dir+"/tmp", "load-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	body, err := plain(r.Body)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(body, maxContext+1))
	if err != nil {
		return fault.New(fault.InvalidArgument, "The archive can't be read: %v", err)
	}
	if n > maxContext {
		return fault.New(fault.InvalidArgument, "The archive is bigger than %d GiB.", maxContext>>30)
	}
	opener := func() (io.ReadCloser, error) { return os.Open(f.Name()) }
	entries, err := bounded(opener)
	if err != nil {
		return err
	}
	list, err := tarball.LoadManifest(opener)
	if err != nil {
		return fault.New(fault.InvalidArgument, "This is no archive of docker save: %v", err)
	}
	if err := documents(entries, list); err != nil {
		return err
	}
	out := newStream(w)
	for _, d := range list {
		if len(d.RepoTags) == 0 {
			continue
		}
		if err := x.loadOne(r.Context(), opener, d.RepoTags); err != nil {
			out.fail(x.message(r, err))
			return nil
		}
		for _, t := range d.RepoTags {
			_, _ = out.Write([]byte("Loaded image: " + t + "\n"))
		}
	}
	return nil
}

// plain decompresses what is compressed by gzip.
func plain(r io.Reader) (io.Reader, error) {
	br := bufio.NewReader(r)
	if magic, _ := br.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return br, nil
	}
	z, err := gzip.NewReader(br)
	if err != nil {
		return nil, fault.New(fault.InvalidArgument, "The archive can't be read: %v", err)
	}
	return z, nil
}

// maxEntries bounds the files of an archive.
const maxEntries = 10_000

// bounded reads what is in an archive, and fails where that is more than an image archive has: go-containerregistry
// reads the documents in it whole, and the archive is a stranger's.
func bounded(open tarball.Opener) (map[string]tar.Header, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	entries := make(map[string]tar.Header)
	t := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return entries, nil
		case err != nil:
			return nil, fault.New(fault.InvalidArgument, "The archive can't be read: %v", err)
		case n >= maxEntries:
			return nil, fault.New(fault.InvalidArgument, "The archive has more than %d entries.", maxEntries)
		case strings.HasSuffix(h.Name, ".json") && h.Size > maxDocument:
			return nil, fault.New(fault.InvalidArgument, "%.100q in the archive is bigger than %d MiB.", h.Name,
				maxDocument>>20)
		}
		// Of several of one name, the worst: which one is read is go-containerregistry's choice.
		name := path.Clean(h.Name)
		e, twice := entries[name]
		if !twice || h.Typeflag != tar.TypeReg {
			e.Typeflag = h.Typeflag
		}
		e.Size = max(e.Size, h.Size)
		entries[name] = e
	}
}

// documents fails when what the manifest calls a configuration is no small file, whatever its name.
func documents(entries map[string]tar.Header, list tarball.Manifest) error {
	for _, d := range list {
		h, there := entries[path.Clean(d.Config)]
		switch {
		case !there: // the loading says it better
		case h.Typeflag != tar.TypeReg: // a link could lead to a layer
			return fault.New(fault.InvalidArgument, "The configuration %.100q in the archive is no file.", d.Config)
		case h.Size > maxDocument:
			return fault.New(fault.InvalidArgument, "%.100q in the archive is bigger than %d MiB.", d.Config,
				maxDocument>>20)
		}
	}
	return nil
}

func (x *session) loadOne(ctx context.Context, opener tarball.Opener, tags []string) error {
	bad := func(err error) error {
		return fault.New(fault.InvalidArgument, "The archive is damaged: %v", err)
	}
	tag, err := name.NewTag(tags[0])
	if err != nil {
		return bad(err)
	}
	img, err := tarball.Image(opener, &tag)
	if err != nil {
		return bad(err)
	}
	layers, err := img.Layers()
	if err != nil {
		return bad(err)
	}
	for _, l := range layers {
		z, err := l.Compressed()
		if err != nil {
			return bad(err)
		}
		_, err = x.cfg.Blobs.Put(ctx, z, "")
		if err := errors.Join(err, z.Close()); err != nil {
			return bad(err)
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return bad(err)
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return bad(err)
	}
	c, err := x.cfg.Blobs.Put(ctx, bytes.NewReader(config), "")
	if err != nil {
		return err
	}
	m, err := x.cfg.Blobs.Put(ctx, bytes.NewReader(manifest), "")
	if err != nil {
		return err
	}
	var names []string
	for _, t := range tags {
		n, err := x.name(t)
		if err != nil {
			return err
		}
		names = append(names, n)
	}
	return x.add(string(c.Digest), string(m.Digest), names...)
}
