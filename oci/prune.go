package oci

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
)

// The time of a layer's mark tells when it was last asked for, by the file system's clock.

// use reports whether the layer is there, and if so that it is wanted now.
func (im *Images) use(layer string) bool {
	im.pruning.RLock()
	defer im.pruning.RUnlock()
	if _, err := os.Stat(filepath.Join(im.layers, layer)); err != nil {
		return false
	}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	// One that has no mark yet will get it, with the time of then.
	unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(im.marks, layer), []unix.Timespec{now, now}, 0)
	return true
}

// Prune removes the unpacked layers that are not in keep (directories, as in Image.Layers) and that no Unpack has
// returned since the given time, and tells how many they were, and how many it left because they are too young. An
// image that is used longer than that must be in keep; one that comes back is unpacked again from its blobs, which
// Prune leaves alone.
func (im *Images) Prune(ctx context.Context, keep []string, since time.Time) (n, young int, err error) {
	defer fault.Wrap(&err, "oci.Prune")
	marks, err := os.ReadDir(im.marks)
	if err != nil {
		return 0, 0, err
	}
	for _, m := range marks {
		if err := ctx.Err(); err != nil {
			return n, young, err
		}
		if slices.Contains(keep, filepath.Join(im.layers, m.Name())) {
			continue
		}
		gone, err := im.takeAway(m.Name(), since)
		if err != nil {
			return n, young, err
		}
		if gone == "" {
			young++
			continue
		}
		n++
		if err := os.RemoveAll(gone); err != nil { // what is left here, New sweeps
			return n, young, err
		}
	}
	return n, young, nil
}

// takeAway moves a layer that was not used since the given time out of the way, and returns where it is then.
func (im *Images) takeAway(layer string, since time.Time) (string, error) {
	im.pruning.Lock()
	defer im.pruning.Unlock()
	mark := filepath.Join(im.marks, layer)
	st, err := os.Stat(mark)
	if err != nil || !st.ModTime().Before(since) {
		return "", err
	}
	if err := os.Remove(mark); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(im.tmp(), "pruned-")
	if err != nil {
		return "", err
	}
	return tmp, os.Rename(filepath.Join(im.layers, layer), filepath.Join(tmp, "layer"))
}
