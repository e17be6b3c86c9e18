package oci

import (
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Tree lists what is at and below a path of this machine for a layer, where it has another path; skip, when not nil,
// leaves files and whole directories out by their path below. Links stay links, and what is neither file, directory nor
// link is left out: a container may have left anything there. Contents are read when the layer is written.
func Tree(from, to string, skip func(rel string, dir bool) bool) ([]File, error) {
	var out []File
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if skip != nil && rel != "." && skip(rel, d.IsDir()) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := File{Path: path.Join(to, filepath.ToSlash(rel)), Mode: info.Mode().Perm()}
		switch {
		case d.IsDir():
			f.Mode |= fs.ModeDir
		case info.Mode()&fs.ModeSymlink != 0:
			if f.Link, err = os.Readlink(p); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			f.Size, f.Open = info.Size(), func() (io.ReadCloser, error) { return os.Open(p) }
		default:
			return nil
		}
		out = append(out, f)
		return nil
	})
	return out, err
}
