package dockerapi

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
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

func (x *session) save(w http.ResponseWriter, r *http.Request) error {
	return x.saveNames(w, r, r.URL.Query()["names"])
}

// saveNames is docker save: an archive of images.
func (x *session) saveNames(w http.ResponseWriter, r *http.Request, refs []string) error {
	var images []oci.Archived
	for _, ref := range refs {
		found, err := x.named(ref)
		if err != nil {
			return err
		}
		for _, img := range found {
			m, err := x.cfg.Images.Inspect(r.Context(), img.Digest) // of an index, what is for this machine
			if err != nil {
				return err
			}
			img.Digest = m.Digest
			i := slices.IndexFunc(images, func(have oci.Archived) bool { return have.Digest == img.Digest })
			if i < 0 {
				images = append(images, img)
				continue
			}
			for _, t := range img.Tags {
				if !slices.Contains(images[i].Tags, t) {
					images[i].Tags = append(images[i].Tags, t)
				}
			}
		}
	}
	if len(images) == 0 {
		return fault.New(fault.InvalidArgument, "docker save needs an image.")
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := oci.WriteArchive(r.Context(), w, x.cfg.Blobs, images...); err != nil {
		x.cfg.Log.Warn("docker save", "build", x.build.Name, "err", err)
		panic(http.ErrAbortHandler) // half an archive must not look like a whole one
	}
	return nil
}

// named are the images that docker save means, with the tags that the archive says: a name's own, all of a repository's
// where it says no tag, none of what is called by its id.
func (x *session) named(ref string) ([]oci.Archived, error) {
	tags := []string{ref}
	if !strings.Contains(ref, "@") && strings.LastIndexByte(ref, ':') <= strings.LastIndexByte(ref, '/') {
		if all := x.tagsOf(ref); len(all) > 0 {
			tags = nil
			for _, t := range all {
				tags = append(tags, ref+":"+t)
			}
		}
	}
	var out []oci.Archived
	for _, ref := range tags {
		img, err := x.find(ref)
		if err != nil {
			return nil, err
		}
		one := oci.Archived{Digest: img.digest}
		if full, err := x.name(ref); err == nil && slices.Contains(img.names, full) {
			if t, err := name.NewTag(full); err == nil {
				one.Tags = []name.Tag{t}
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// load is docker load: an archive that docker save wrote, or an OCI image layout, compressed by gzip or not.
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
	_, docker := entries["manifest.json"]
	if _, layout := entries["oci-layout"]; layout && !docker {
		return x.loadLayout(w, r, opener)
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
		id, err := x.loadOne(r.Context(), opener, d)
		if err != nil {
			out.fail(x.message(r, err))
			return nil
		}
		out.loaded(id, d.RepoTags)
	}
	return nil
}

// loaded says what docker load has brought.
func (s *stream) loaded(id string, names []string) {
	if len(names) == 0 {
		_, _ = s.Write([]byte("Loaded image ID: " + id + "\n"))
	}
	for _, n := range names {
		_, _ = s.Write([]byte("Loaded image: " + n + "\n"))
	}
}

// layout is an OCI image layout in an archive.
type layout struct {
	ctx  context.Context
	x    *session
	open tarball.Opener
}

// loadLayout loads the images of an OCI image layout
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md).
func (x *session) loadLayout(w http.ResponseWriter, r *http.Request, open tarball.Opener) error {
	l := &layout{ctx: r.Context(), x: x, open: open}
	var index v1.IndexManifest
	if err := l.document("index.json", &index); err != nil {
		return err
	}
	out := newStream(w)
	for i, d := range index.Manifests {
		if i >= maxImages {
			out.fail(fmt.Sprintf("The archive has more than %d images.", maxImages))
			return nil
		}
		id, names, err := l.load(d)
		if err != nil {
			out.fail(x.message(r, err))
			return nil
		}
		out.loaded(id, names)
	}
	return nil
}

// load puts an image into the store, and what an index lists for this machine.
func (l *layout) load(d v1.Descriptor) (id string, names []string, err error) {
	digest, err := l.store(d, 2)
	if err != nil {
		return "", nil, err
	}
	if id, err = l.x.configOf(l.ctx, digest); err != nil {
		return "", nil, err
	}
	called := d.Annotations["io.containerd.image.name"]
	if ref := d.Annotations["org.opencontainers.image.ref.name"]; called == "" && strings.ContainsAny(ref, ":/") {
		called = ref // podman and buildah have the whole name there, Docker the tag
	}
	if called != "" {
		n, err := l.x.name(called)
		if err != nil {
			return "", nil, err
		}
		names = []string{n}
	}
	return id, names, l.x.add(id, digest, names...)
}

// store keeps the manifest of an image for this machine and all that it names, by their digests.
func (l *layout) store(d v1.Descriptor, depth int) (string, error) {
	var m struct {
		Manifests []v1.Descriptor
		Config    v1.Descriptor
		Layers    []v1.Descriptor
	}
	if err := l.document(layoutPath(d.Digest), &m); err != nil {
		return "", err
	}
	for _, below := range m.Manifests {
		if p := below.Platform; depth > 0 && p != nil && p.OS == "linux" && p.Architecture == runtime.GOARCH {
			return l.store(below, depth-1)
		}
	}
	if len(m.Manifests) > 0 {
		return "", fault.New(fault.InvalidArgument, "The archive has no image for linux/%s.", runtime.GOARCH)
	}
	for _, part := range slices.Concat(m.Layers, []v1.Descriptor{m.Config, d}) {
		if err := l.file(layoutPath(part.Digest), func(r io.Reader) error {
			_, err := l.x.cfg.Blobs.Put(l.ctx, r, blob.Digest(part.Digest.String()))
			return err
		}); err != nil {
			return "", err
		}
	}
	return d.Digest.String(), nil
}

func layoutPath(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }

// document reads a small file of the archive.
func (l *layout) document(name string, into any) error {
	return l.file(name, func(r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
		if err == nil && len(b) > maxDocument {
			return fault.New(fault.InvalidArgument, "%.100q in the archive is bigger than %d MiB.", name, maxDocument>>20)
		}
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			return fault.New(fault.InvalidArgument, "The archive is damaged: %.100q can't be read: %v", name, err)
		}
		return nil
	})
}

// file calls fn with a file of the archive. A link is none.
func (l *layout) file(name string, fn func(io.Reader) error) error {
	f, err := l.open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	t := tar.NewReader(f)
	for {
		h, err := t.Next()
		if err != nil {
			return fault.New(fault.InvalidArgument, "The archive is damaged: it has no file %.100q.", name)
		}
		if path.Clean(h.Name) == name && h.Typeflag == tar.TypeReg {
			return fn(t)
		}
	}
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

// loadOne puts one image of an archive of docker save into the store, and returns its id.
func (x *session) loadOne(ctx context.Context, opener tarball.Opener, d tarball.Descriptor) (id string, err error) {
	bad := func(err error) (string, error) {
		return "", fault.New(fault.InvalidArgument, "The archive is damaged: %v", err)
	}
	var names []string
	for _, t := range d.RepoTags {
		n, err := x.name(t)
		if err != nil {
			return bad(err)
		}
		names = append(names, n)
	}
	img, err := imageOf(opener, d)
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
		return "", err
	}
	m, err := x.cfg.Blobs.Put(ctx, bytes.NewReader(manifest), "")
	if err != nil {
		return "", err
	}
	return string(c.Digest), x.add(string(c.Digest), string(m.Digest), names...)
}

// imageOf is an image of an archive, also one without a name: go-containerregistry finds those by name only, so it is
// shown a manifest.json that has nothing but this image.
func imageOf(opener tarball.Opener, d tarball.Descriptor) (v1.Image, error) {
	text, err := json.Marshal(tarball.Manifest{d})
	if err != nil {
		return nil, err
	}
	var list bytes.Buffer
	out := tar.NewWriter(&list)
	if err := out.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(text))}); err != nil {
		return nil, err
	}
	if _, err := out.Write(text); err != nil {
		return nil, err
	}
	if err := out.Flush(); err != nil { // the archive goes on after it
		return nil, err
	}
	return tarball.Image(func() (io.ReadCloser, error) {
		f, err := opener()
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(list.Bytes()), f), f}, nil
	}, nil)
}
