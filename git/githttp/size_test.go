//go:build !long

package githttp_test

// Bytes of the large push, and of what a bomb unpacks to.
const (
	bigPush = 20 << 20
	bomb    = 128 << 20
)
