package engine_test

import (
	"io/fs"
	"syscall"
)

func ownerOf(st fs.FileInfo) [2]uint32 {
	sys := st.Sys().(*syscall.Stat_t)
	return [2]uint32{sys.Uid, sys.Gid}
}
