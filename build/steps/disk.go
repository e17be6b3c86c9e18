package steps

import (
	"context"
	"io/fs"
	"path/filepath"
	"syscall"
)

// space returns the free and all bytes of the file system that a directory is on.
func space(dir string) (free, total int64, err error) {
	var st syscall.Statfs_t
	err = syscall.Statfs(dir, &st)
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, err
}

// usage returns the bytes of disk that a directory takes. Files that come and go meanwhile may be missed.
func usage(ctx context.Context, dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil {
			return nil // gone already
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum, err
}
