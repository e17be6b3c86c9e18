package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"giggle/fault"
)

// File is one entry of a layer of our own. Its owner is root and its time is zero.
type File struct {
	Path string      // absolute, in the image
	Mode fs.FileMode // permissions, and fs.ModeDir for a directory
	Link string      // makes it a symbolic link to this target

	Data []byte                        // the content, or
	Open func() (io.ReadCloser, error) // where it comes from, with Size bytes
	Size int64
}

// WriteLayer writes files as a tar stream. The same files give the same bytes, in whatever order they come. Directories
// on the way to a file need no entry: they take the form they have in the layers below, or root's 0755.
func WriteLayer(w io.Writer, files []File) (err error) {
	defer fault.Wrap(&err, "oci.WriteLayer")
	files = slices.Clone(files)
	for i, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return fault.New(fault.InvalidArgument, "%q is not a clean absolute path for a file of a layer.", f.Path)
		}
		if f.Open == nil {
			files[i].Size = int64(len(f.Data))
		}
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })

	tw := tar.NewWriter(w)
	for i, f := range files {
		if i > 0 && files[i-1].Path == f.Path {
			return fault.New(fault.InvalidArgument, "The layer has %q twice.", f.Path)
		}
		if err := writeFile(tw, f); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeFile(tw *tar.Writer, f File) error {
	h := &tar.Header{
		Name:    strings.TrimPrefix(f.Path, "/"),
		Mode:    int64(f.Mode.Perm()),
		ModTime: time.Unix(0, 0),
	}
	for bit, mode := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if f.Mode&bit != 0 {
			h.Mode |= mode
		}
	}
	switch {
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return tw.WriteHeader(h)
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return tw.WriteHeader(h)
	}
	h.Typeflag, h.Size = tar.TypeReg, f.Size
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if f.Open == nil {
		_, err := tw.Write(f.Data)
		return err
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(tw, r)
	if err == nil && n != f.Size {
		err = fault.New(fault.InvalidArgument, "%q has %d bytes, not %d.", f.Path, n, f.Size)
	}
	return err
}

// AddLayer stores files as a compressed layer.
func (im *Images) AddLayer(ctx context.Context, files []File) (_ Layer, err error) {
	defer fault.Wrap(&err, "oci.AddLayer")
	return im.AddTar(ctx, func(w io.Writer) error { return WriteLayer(w, files) })
}

// AddTar stores what write writes, a tar stream in the form of a layer (OCI image layer specification), as a compressed
// layer.
func (im *Images) AddTar(ctx context.Context, write func(w io.Writer) error) (_ Layer, err error) {
	defer fault.Wrap(&err, "oci.AddTar")
	pr, pw := io.Pipe()
	diff := sha256.New()
	go func() {
		z, err := gzip.NewWriterLevel(pw, gzip.BestSpeed)
		if err == nil {
			if err = write(io.MultiWriter(z, diff)); err == nil {
				err = z.Close()
			}
		}
		pw.CloseWithError(err)
	}()
	info, err := im.blobs.Put(ctx, pr, "")
	pr.CloseWithError(io.ErrClosedPipe) // lets the writer go when the store gave up early
	if err != nil {
		return Layer{}, err
	}
	h, err := v1.NewHash(string(info.Digest))
	return Layer{
		Digest:    h,
		DiffID:    v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(diff.Sum(nil))},
		Size:      info.Size,
		MediaType: types.OCILayer,
	}, err
}

// reproducible is when an image was made whose maker says no time: what tools that build reproducible images write
// (https://buildpacks.io/docs/for-app-developers/concepts/reproducibility).
var reproducible = v1.Time{Time: time.Date(1980, time.January, 1, 0, 0, 1, 0, time.UTC)}

// Assemble stores an image of the layers, bottom first, with the configuration cfg, whose RootFS it fills in. Its
// History may be that of the lowest layers; those above get an entry each. It returns the manifest's digest and bytes.
// The same input gives the same digest: times are the caller's business.
func (im *Images) Assemble(
	ctx context.Context, layers []Layer, cfg v1.ConfigFile,
) (digest string, manifest []byte, err error) {
	defer fault.Wrap(&err, "oci.Assemble")
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Layers: []v1.Descriptor{}}
	if cfg.Created.IsZero() {
		cfg.Created = reproducible
	}
	cfg.History = history(cfg.History, layers, cfg.Created)
	cfg.RootFS = v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}}
	for _, l := range layers {
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: ociMediaType(l.MediaType), Size: l.Size, Digest: l.Digest})
	}
	if m.Config, _, err = im.put(ctx, cfg, types.OCIConfigJSON); err != nil {
		return "", nil, err
	}
	d, b, err := im.put(ctx, m, types.OCIManifestSchema1)
	return d.Digest.String(), b, err
}

// history has an entry for each layer: clients that build on an image count them, and refuse one with others. What is
// known of the lowest layers stays, where it can be true.
func history(known []v1.History, layers []Layer, created v1.Time) []v1.History {
	n := 0
	for _, h := range known {
		if !h.EmptyLayer {
			n++
		}
	}
	if n > len(layers) {
		known, n = nil, 0
	}
	known = slices.Clone(known)
	for _, l := range layers[n:] {
		by := l.CreatedBy
		if by == "" {
			by = "layer " + l.DiffID.String()
		}
		known = append(known, v1.History{Created: created, CreatedBy: by, Comment: "giggle"})
	}
	return known
}

// ociMediaType gives a layer of a Docker image its OCI name: a manifest should not mix the two.
func ociMediaType(mt types.MediaType) types.MediaType {
	switch mt {
	case types.DockerLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer
	}
	return mt
}
