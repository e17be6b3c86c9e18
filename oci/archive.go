package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"giggle/blob"
	"giggle/fault"
)

// Archived is an image of an archive: the digest of one platform's manifest, and its tags there.
type Archived struct {
	Digest string
	Tags   []name.Tag
}

// archiver writes an archive. Files have the names that docker save gives them since its version 25: those of an OCI
// image layout.
type archiver struct {
	ctx     context.Context
	blobs   Blobs
	out     *tar.Writer
	written map[string]bool // paths
}

// loadable is an entry of manifest.json.
type loadable struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// WriteArchive writes images as docker save does: an archive that is an OCI image layout as well, and has the older
// files repositories and manifest.json, so that it loads in every client. Layers are as they are stored.
//
// Rules: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md and
// https://github.com/moby/moby/blob/v28.2.2/image/spec/spec.md
func WriteArchive(ctx context.Context, w io.Writer, blobs Blobs, images ...Archived) (err error) {
	defer fault.Wrap(&err, "oci.WriteArchive")
	a := &archiver{ctx: ctx, blobs: blobs, out: tar.NewWriter(w), written: make(map[string]bool)}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	repositories := make(map[string]map[string]string)
	list := make([]loadable, 0, len(images))
	for _, img := range images {
		m, err := a.image(img.Digest)
		if err != nil {
			return err
		}
		one := loadable{Config: blobPath(m.manifest.Config.Digest), RepoTags: []string{}, Layers: []string{}}
		for _, l := range m.manifest.Layers {
			one.Layers = append(one.Layers, blobPath(l.Digest))
		}
		if len(img.Tags) == 0 {
			index.Manifests = append(index.Manifests, m.descriptor)
		}
		for _, t := range img.Tags {
			d, full := m.descriptor, strings.Replace(t.Name(), name.DefaultRegistry, "docker.io", 1)
			d.Annotations = map[string]string{"io.containerd.image.name": full,
				"org.opencontainers.image.ref.name": t.TagStr()}
			index.Manifests = append(index.Manifests, d)
			short := strings.TrimPrefix(strings.TrimPrefix(full, "docker.io/"), "library/")
			one.RepoTags = append(one.RepoTags, short)
			repository := strings.TrimSuffix(short, ":"+t.TagStr())
			if repositories[repository] == nil {
				repositories[repository] = make(map[string]string)
			}
			if n := len(m.manifest.Layers); n > 0 {
				repositories[repository][t.TagStr()] = m.manifest.Layers[n-1].Digest.Hex
			}
		}
		list = append(list, one)
	}
	for _, f := range []struct {
		name string
		v    any
	}{
		{"index.json", index},
		{"manifest.json", list},
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
		{"repositories", repositories},
	} {
		b, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := a.file(f.name, int64(len(b)), bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return a.out.Close()
}

// archivedImage is an image whose parts have been written.
type archivedImage struct {
	manifest   v1.Manifest
	descriptor v1.Descriptor
}

// image writes all that an image is made of, with a manifest of the OCI's kind: others are none in a layout.
func (a *archiver) image(digest string) (out archivedImage, err error) {
	im := &Images{blobs: a.blobs}
	m := &out.manifest
	if err := im.document(a.ctx, digest, m); err != nil {
		return out, err
	}
	m.MediaType, m.Config.MediaType = types.OCIManifestSchema1, types.OCIConfigJSON
	for i := range m.Layers {
		m.Layers[i].MediaType = ociMediaType(m.Layers[i].MediaType)
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := a.blob(d.Digest); err != nil {
			return out, err
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return out, err
	}
	h, size, err := v1.SHA256(bytes.NewReader(b))
	if err != nil {
		return out, err
	}
	out.descriptor = v1.Descriptor{MediaType: m.MediaType, Digest: h, Size: size}
	return out, a.file(blobPath(h), size, bytes.NewReader(b))
}

// blob writes what the store has under a digest.
func (a *archiver) blob(h v1.Hash) (err error) {
	d, err := blob.ParseDigest(h.String())
	if err != nil {
		return err
	}
	r, info, err := a.blobs.Open(a.ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return a.file(blobPath(h), info.Size, r)
}

// file writes a file once: images share layers.
func (a *archiver) file(name string, size int64, r io.Reader) error {
	if a.written[name] {
		return nil
	}
	a.written[name] = true
	if err := a.out.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(a.out, r)
	return err
}

func blobPath(h v1.Hash) string { return path.Join("blobs", h.Algorithm, h.Hex) }
