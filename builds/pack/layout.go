package pack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

// maxDocument bounds an index or a manifest that the lifecycle wrote.
const maxDocument = 4 << 20

// layoutPath is where the lifecycle looks for an image in its layout directory: REGISTRY/REPOSITORY/TAG, or
// REGISTRY/REPOSITORY/sha256/HEX.
func layoutPath(image string) (string, error) {
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return "", refuse("%.200q is not the name of an image.", image)
	}
	return path.Join(ref.Context().RegistryStr(), ref.Context().RepositoryStr(),
		strings.Replace(ref.Identifier(), ":", "/", 1)), nil
}

// layOut writes the manifest and the configuration of the run image to the layout directory. Its layers stay away: the
// lifecycle reads none of them.
func (l *Lifecycle) layOut(ctx context.Context, dir, image string, m oci.Manifest) error {
	at, err := layoutPath(image)
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, at)
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	var manifest []byte
	for _, digest := range []string{m.ConfigDigest, m.Digest} {
		dg, err := blob.ParseDigest(digest)
		if err != nil {
			return err
		}
		r, _, err := l.cfg.Blobs.Open(ctx, dg)
		if err != nil {
			return err
		}
		manifest, err = io.ReadAll(io.LimitReader(r, maxDocument))
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "blobs", dg.Algorithm(), dg.Hex()), manifest, 0o644); err != nil {
			return err
		}
	}
	var kind struct{ MediaType types.MediaType }
	if err := json.Unmarshal(manifest, &kind); err != nil {
		return err
	}
	hash, err := v1.NewHash(m.Digest)
	if err != nil {
		return err
	}
	if kind.MediaType == "" {
		kind.MediaType = types.OCIManifestSchema1
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests:     []v1.Descriptor{{MediaType: kind.MediaType, Size: int64(len(manifest)), Digest: hash}},
	})
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644),
		os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644))
}

// collect takes what the lifecycle has made into the platform's blobs: the image at a path of the layout directory,
// without the layers of the run image, which are there. A builder is not trusted: no link leads out of the directory,
// and each blob must be what its digest says.
func (l *Lifecycle) collect(ctx context.Context, dir, at string, below oci.Manifest) (digest string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var index v1.IndexManifest
	text, err := document(root, path.Join(at, "index.json"))
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(text, &index); err != nil || len(index.Manifests) != 1 {
		return "", bad("its index names %d images", len(index.Manifests))
	}
	image := index.Manifests[0].Digest
	text, err = document(root, blobPath(at, image))
	if err != nil {
		return "", err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return "", bad("its manifest is not readable")
	}
	for _, d := range append([]v1.Descriptor{manifest.Config}, manifest.Layers...) {
		if slices.ContainsFunc(below.Layers, func(known oci.Layer) bool { return known.Digest == d.Digest }) {
			continue
		}
		if err := l.take(ctx, root, blobPath(at, d.Digest), d.Digest); err != nil {
			return "", err
		}
	}
	if _, err := l.cfg.Blobs.Put(ctx, bytes.NewReader(text), blob.Digest(image.String())); err != nil {
		return "", err
	}
	_, err = l.cfg.Manifests.Inspect(ctx, image.String())
	return image.String(), err
}

func bad(format string, args ...any) error {
	return fault.New(fault.FailedPrecondition, "The builder left no image that can be used: "+format+".", args...)
}

func blobPath(at string, d v1.Hash) string { return path.Join(at, "blobs", d.Algorithm, d.Hex) }

// open opens a file of the layout directory; a pipe does not block.
func open(root *os.Root, file string) (*os.File, error) {
	f, err := root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, bad("%s is missing", path.Base(file))
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(bad("%s is no file", path.Base(file)), f.Close())
	}
	return f, nil
}

func document(root *os.Root, file string) ([]byte, error) {
	f, err := open(root, file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(text) > maxDocument {
		err = bad("%s is larger than %d bytes", path.Base(file), maxDocument)
	}
	return text, err
}

// take puts a file of the layout directory into the platform's blobs.
func (l *Lifecycle) take(ctx context.Context, root *os.Root, file string, want v1.Hash) error {
	f, err := open(root, file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	dg, err := blob.ParseDigest(want.String())
	if err != nil {
		return bad("%.100q is no digest", want.String())
	}
	_, err = l.cfg.Blobs.Put(ctx, f, dg)
	return err
}
