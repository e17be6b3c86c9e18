package buildpack

import (
	"archive/zip"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"giggle/oci"
)

// nonroot is the user that built images run as: 65532, as in distroless images.
const nonroot = "65532:65532"

// base is the small layer below every program: certificates, users, time zones, /tmp. It is made once.
type base struct {
	mu   sync.Mutex
	made *oci.Layer
}

func (x *base) layer(ctx context.Context, cfg Config, toolchain oci.Image) (oci.Layer, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.made != nil {
		return *x.made, nil
	}
	files := []oci.File{
		{
			Path: "/etc/passwd",
			Mode: 0o644,
			Data: []byte("root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"),
		},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n")},
		{Path: "/etc/nsswitch.conf", Mode: 0o644, Data: []byte("hosts: files dns\n")},
		{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Data: cfg.SystemTrust},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/home/nonroot", Mode: fs.ModeDir | 0o755},
		{Path: workspace, Mode: fs.ModeDir | 0o755},
	}
	zones, err := zoneFiles(toolchain)
	if err != nil {
		return oci.Layer{}, err
	}
	l, err := cfg.Images.AddLayer(ctx, append(files, zones...))
	if err != nil {
		return oci.Layer{}, err
	}
	x.made = &l
	return l, nil
}

// zoneFiles are the time zones that come with the Go toolchain, as /usr/share/zoneinfo.
func zoneFiles(toolchain oci.Image) ([]oci.File, error) {
	for _, layer := range toolchain.Layers {
		z, err := zip.OpenReader(filepath.Join(layer, GoRoot, "lib/time/zoneinfo.zip"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var out []oci.File
		for _, f := range z.File {
			if strings.HasSuffix(f.Name, "/") || !fs.ValidPath(f.Name) {
				continue
			}
			r, err := f.Open()
			if err != nil {
				return nil, errors.Join(err, z.Close())
			}
			data, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				return nil, errors.Join(err, z.Close())
			}
			out = append(out, oci.File{Path: path.Join("/usr/share/zoneinfo", f.Name), Mode: 0o644, Data: data})
		}
		return out, z.Close()
	}
	return nil, nil
}
