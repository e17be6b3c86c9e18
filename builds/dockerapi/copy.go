package dockerapi

import (
	"archive/tar"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"giggle/builds/volumes"
	"giggle/engine"
	"giggle/fault"
)

// volumes is where the build's volumes are: those of its steps, too.
func (x *session) volumes() string { return filepath.Join(x.cfg.Shared(x.build), "volumes") }

// describeVolume is a volume in Docker's form.
func describeVolume(name string) map[string]any {
	return map[string]any{"Name": name, "Driver": "local", "Mountpoint": "/var/lib/docker/volumes/" + name + "/_data",
		"Scope": "local", "Labels": nil, "Options": nil}
}

func (x *session) listVolumes(w http.ResponseWriter, _ *http.Request) error {
	names, err := volumes.List(x.volumes())
	if err != nil {
		return err
	}
	all := []map[string]any{}
	for _, n := range names {
		all = append(all, describeVolume(n))
	}
	reply(w, http.StatusOK, map[string]any{"Volumes": all, "Warnings": nil})
	return nil
}

func (x *session) createVolume(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Name, Driver string
		DriverOpts   map[string]string
	}
	if err := body(w, r, &req); err != nil {
		return err
	}
	if req.Driver != "" && req.Driver != "local" || len(req.DriverOpts) > 0 {
		return fault.New(fault.Unimplemented, "A volume of a build has no driver and no options.")
	}
	if req.Name == "" {
		req.Name = strings.ReplaceAll(x.cfg.NewID(), "-", "")
	}
	if _, err := volumes.Open(r.Context(), x.volumes(), req.Name, nil, "/"); err != nil {
		return err
	}
	reply(w, http.StatusCreated, describeVolume(req.Name))
	return nil
}

func (x *session) volume(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	names, err := volumes.List(x.volumes())
	if err != nil {
		return err
	}
	if !slices.Contains(names, name) {
		return fault.New(fault.NotFound, "get %.200s: no such volume", name)
	}
	if r.Method == http.MethodDelete {
		for _, used := range slices.Concat([][]string{x.stepVolumes()}, x.containerVolumes()) {
			if slices.Contains(used, name) {
				return fault.New(fault.AlreadyExists, "remove %s: volume is in use", name)
			}
		}
		w.WriteHeader(http.StatusNoContent)
		return os.RemoveAll(filepath.Join(x.volumes(), name))
	}
	reply(w, http.StatusOK, describeVolume(name))
	return nil
}

// stepVolumes are those of the build's steps, which stay.
func (x *session) stepVolumes() (names []string) {
	for _, v := range x.build.Spec.Options.Volumes {
		names = append(names, v.Name)
	}
	for _, t := range x.build.Spec.Steps {
		for _, v := range t.Volumes {
			names = append(names, v.Name)
		}
	}
	return names
}

// containerVolumes are those of each container.
func (x *session) containerVolumes() (all [][]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.containers {
		var names []string
		for _, m := range c.spec.Mounts {
			if filepath.Dir(m.Source) == x.volumes() {
				names = append(names, filepath.Base(m.Source))
			}
		}
		all = append(all, names)
	}
	return all
}

// placeholders are the files that Docker makes in every container.
var placeholders = []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

// copyLimits bound one docker cp.
var copyLimits = engine.CopyLimits{Bytes: maxContext, Entries: 500_000}

// copyFrom is docker cp from a container: as it is while it runs and after its end, or what its image has while nobody
// has written to it.
func (x *session) copyFrom(w http.ResponseWriter, r *http.Request, c *container) error {
	i := c.made()
	if i == nil {
		return x.copyFromImage(w, r, c)
	}
	at := r.URL.Query().Get("path")
	info, err := i.Stat(at)
	if fault.Is(err, fault.NotFound) {
		return noSuchFile(at, c)
	}
	if err != nil {
		return err
	}
	if info.Name == "." {
		info.Name = path.Base(path.Clean("/" + at))
	}
	if err := pathStat(w, info); err != nil || r.Method == http.MethodHead {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := i.CopyOut(r.Context(), at, w, copyLimits); err != nil {
		x.cfg.Log.Warn("docker cp", "build", x.build.Name, "err", err)
		panic(http.ErrAbortHandler) // half an archive must not look like a whole one
	}
	return nil
}

func noSuchFile(at string, c *container) error {
	return fault.New(fault.NotFound, "Could not find the file %.200s in container %s", at, c.id[:12])
}

// pathStat says what is at a path.
func pathStat(w http.ResponseWriter, info engine.FileInfo) error {
	text, err := json.Marshal(map[string]any{"name": info.Name, "size": info.Size, "mode": uint32(info.Mode),
		"mtime": info.ModTime, "linkTarget": info.Link})
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(text))
	return nil
}

// copyTo is docker cp into a container.
func (x *session) copyTo(w http.ResponseWriter, r *http.Request, c *container) error {
	if err := x.prepare(c); err != nil {
		return err
	}
	q := r.URL.Query()
	at := q.Get("path")
	if at == "" {
		return fault.New(fault.InvalidArgument, "docker cp needs a path in the container.")
	}
	body, err := plain(r.Body)
	if err != nil {
		return err
	}
	keep := q.Get("copyUIDGID") == "1" || q.Get("copyUIDGID") == "true"
	err = c.made().CopyIn(r.Context(), at, body, keep, copyLimits)
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// copyFromImage copies what a container that was created has from its image.
func (x *session) copyFromImage(w http.ResponseWriter, r *http.Request, c *container) (err error) {
	if c.state() != "created" {
		return fault.New(fault.FailedPrecondition, "The container %s was never started: it has no files.", c.id[:12])
	}
	at := r.URL.Query().Get("path")
	clean := path.Clean("/" + at)
	dir, err := os.MkdirTemp(x.dir+"/tmp", "copy-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	switch err := volumes.Copy(r.Context(), c.spec.Layers, clean, dir); {
	case fault.Is(err, fault.NotFound) && slices.Contains(placeholders, clean):
		if err := os.WriteFile(filepath.Join(dir, path.Base(clean)), nil, 0o644); err != nil {
			return err
		}
	case fault.Is(err, fault.NotFound):
		return noSuchFile(at, c)
	case err != nil:
		return err
	}
	base := dir
	if clean != "/" {
		base = filepath.Join(dir, path.Base(clean))
	}
	info, err := os.Lstat(base)
	if err != nil {
		return err
	}
	found := engine.FileInfo{Name: path.Base(clean), Size: info.Size(), Mode: info.Mode(), ModTime: info.ModTime()}
	if info.Mode()&fs.ModeSymlink != 0 {
		if found.Link, err = os.Readlink(base); err != nil {
			return err
		}
	}
	if err := pathStat(w, found); err != nil || r.Method == http.MethodHead {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	from := dir
	if strings.HasSuffix(at, "/.") { // what is in it, without its name
		from = base
	}
	if err := writeTree(w, from); err != nil {
		x.cfg.Log.Warn("docker cp", "build", x.build.Name, "err", err)
		panic(http.ErrAbortHandler) // half an archive must not look like a whole one
	}
	return nil
}

// writeTree writes an archive of what is in a directory.
func writeTree(w io.Writer, dir string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(p); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(dir, p); err != nil {
			return err
		}
		if d.IsDir() {
			h.Name += "/"
		}
		if err := out.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, f)
		return errors.Join(err, f.Close())
	})
	return errors.Join(err, out.Close())
}
