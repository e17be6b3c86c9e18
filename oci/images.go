// Package oci turns images into directories and back: it resolves a manifest, unpacks its layers once each, writes
// layers of our own and puts images together, all over a content-addressed store of bytes.
//
// It serves the engine (layers to mount), the builders (images to make) and what needs an image's configuration.
// It knows no names, tags, registries or networks, runs nothing and mounts nothing.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/singleflight"

	"giggle/blob"
	"giggle/fault"
)

// Blobs is what images need of a store: blob.Dir has it.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, want blob.Digest) (blob.Info, error)
	Open(ctx context.Context, dg blob.Digest) (io.ReadSeekCloser, blob.Info, error)
}

// Limits bound what one layer may unpack to. They are ours: no specification has any.
type Limits struct {
	Bytes   int64 // of all files together
	Entries int64 // files, directories and links
}

// Images resolves, unpacks and assembles images. It is safe for concurrent use.
type Images struct {
	dir    string
	blobs  Blobs
	limits Limits
	admit  func(n int64) error
	lender string // directory of other Images whose unpacked layers serve, too; "" for none
	flight singleflight.Group
	settler
}

// New returns images over blobs, with unpacked layers in dir. A zero limit means 20 GiB and two million entries.
// What a crash left half-unpacked is removed. The caller ends it with Close.
func New(dir string, blobs Blobs, limits Limits) (_ *Images, err error) {
	defer fault.Wrap(&err, "oci.New(%s)", dir)
	if limits.Bytes == 0 {
		limits.Bytes = 20 << 30
	}
	if limits.Entries == 0 {
		limits.Entries = 2_000_000
	}
	im := &Images{
		dir:     dir,
		blobs:   blobs,
		limits:  limits,
		admit:   func(int64) error { return nil },
		settler: settler{layers: filepath.Join(dir, "layers"), marks: filepath.Join(dir, "settled")},
	}
	if err := os.RemoveAll(im.tmp()); err != nil {
		return nil, err
	}
	for _, d := range []string{im.tmp(), im.layers, im.marks} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	return im, im.sweep()
}

// Borrow makes the layers that other Images have unpacked in a directory serve here, too: a layer has the same name
// wherever it was unpacked. The lender must not prune what is borrowed. It is called before anything else.
func (im *Images) Borrow(dir string) { im.lender = dir }

// Guard has admit asked while a layer is unpacked, for the disk reserve. It is called before anything else.
func (im *Images) Guard(admit func(n int64) error) { im.admit = admit }

// borrowed is the directory of a layer that the lender has, whole and on disk; "" where it has not.
func (im *Images) borrowed(layer string) string {
	if im.lender == "" {
		return ""
	}
	if _, err := os.Stat(filepath.Join(im.lender, "settled", layer)); err != nil {
		return ""
	}
	dir := filepath.Join(im.lender, "layers", layer)
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// Close waits for what goes on in the background. No call may follow.
func (im *Images) Close() error {
	im.wg.Wait()
	return nil
}

func (im *Images) tmp() string { return filepath.Join(im.dir, "tmp") }

// Image is an image on this machine, ready to be mounted.
type Image struct {
	Digest string    // of the manifest for this machine's platform, "sha256:…"
	Config v1.Config // Env, Cmd, Entrypoint, WorkingDir, User, ExposedPorts, Labels
	Layers []string  // unpacked directories for overlay, bottom first
	Size   int64     // bytes of the layers as they are stored, compressed
}

// Layer is one layer of an image as it is stored.
type Layer struct {
	Digest    v1.Hash // of the stored, compressed bytes
	DiffID    v1.Hash // of the tar stream
	Size      int64   // stored bytes
	MediaType types.MediaType
	CreatedBy string // what made it, for the history of an image; "" where it was read
}

// Manifest is a resolved image: one platform's manifest and its configuration.
type Manifest struct {
	Digest       string
	ConfigDigest string
	Config       v1.ConfigFile
	Layers       []Layer // bottom first
}

// maxDocument bounds a manifest or configuration: the OCI distribution specification asks registries for 4 MiB.
const maxDocument = 4 << 20

// Inspect reads the manifest with the given digest, OCI or Docker schema 2. Of an index it takes the image for this
// machine's platform.
func (im *Images) Inspect(ctx context.Context, digest string) (_ Manifest, err error) {
	defer fault.Wrap(&err, "oci.Inspect(%s)", digest)
	return im.inspect(ctx, digest, 2)
}

func (im *Images) inspect(ctx context.Context, digest string, depth int) (Manifest, error) {
	var probe struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests []v1.Descriptor `json:"manifests"`
		Config    v1.Descriptor   `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
	}
	if err := im.document(ctx, digest, &probe); err != nil {
		return Manifest{}, err
	}
	if probe.MediaType.IsIndex() || len(probe.Manifests) > 0 {
		if depth == 0 {
			return Manifest{}, fault.New(fault.InvalidArgument, "Image index %s holds indexes in indexes.", digest)
		}
		d := platform(probe.Manifests)
		if d == nil {
			return Manifest{}, fault.New(fault.FailedPrecondition, "Image index %s has no image for linux/%s.", digest,
				runtime.GOARCH)
		}
		return im.inspect(ctx, d.Digest.String(), depth-1)
	}

	m := Manifest{Digest: digest, ConfigDigest: probe.Config.Digest.String()}
	if err := im.document(ctx, probe.Config.Digest.String(), &m.Config); err != nil {
		return Manifest{}, err
	}
	if got, want := len(m.Config.RootFS.DiffIDs), len(probe.Layers); got != want {
		return Manifest{}, fault.New(fault.InvalidArgument, "Image %s has %d layers, its configuration names %d.",
			digest, want, got)
	}
	for i, d := range probe.Layers {
		m.Layers = append(m.Layers, Layer{
			Digest:    d.Digest,
			DiffID:    m.Config.RootFS.DiffIDs[i],
			Size:      d.Size,
			MediaType: d.MediaType,
		})
	}
	return m, nil
}

// document decodes a small JSON blob.
func (im *Images) document(ctx context.Context, digest string, into any) error {
	dg, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	f, info, err := im.blobs.Open(ctx, dg)
	if err != nil {
		return err
	}
	defer f.Close()
	if info.Size > maxDocument {
		return fault.New(fault.InvalidArgument,
			"Blob %s has %d bytes, which is too much for a manifest or configuration.", dg, info.Size)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return &fault.Error{
			Code:    fault.InvalidArgument,
			Message: "Blob " + digest + " is not a valid image document.",
			Cause:   err,
		}
	}
	return nil
}

// platform picks the image for this machine. An entry without a platform is taken when nothing fits better.
func platform(ds []v1.Descriptor) *v1.Descriptor {
	var plain *v1.Descriptor
	for i, d := range ds {
		switch {
		case d.Platform == nil && plain == nil:
			plain = &ds[i]
		case d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH:
			return &ds[i]
		}
	}
	return plain
}

// put stores v as JSON, without a final newline as other tools do, and returns its descriptor and bytes.
func (im *Images) put(ctx context.Context, v any, mt types.MediaType) (v1.Descriptor, []byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	info, err := im.blobs.Put(ctx, bytes.NewReader(b), "")
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	h, err := v1.NewHash(string(info.Digest))
	return v1.Descriptor{MediaType: mt, Size: info.Size, Digest: h}, b, err
}
