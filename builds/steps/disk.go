package steps

import (
	"context"
	"io/fs"
	"path/filepath"
	"syscall"
)

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
