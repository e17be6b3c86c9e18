//go:build long

package githttp_test

// Bytes of the large push, and of what a bomb unpacks to.
const (
	bigPush = 200 << 20
	bomb    = 1 << 30
)
