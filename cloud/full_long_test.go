//go:build long

package cloud

import "testing"

// At twenty points, close ones where SQLite's and the file system's own needs are.
func TestFullDiskAtEveryPoint(t *testing.T) {
	testFullDisk(t, 0, 1, 512, 4<<10, 16<<10, 64<<10, 200<<10, 512<<10, 1<<20, 2<<20, 3<<20, 4<<20, 6<<20, 8<<20,
		10<<20, 12<<20, 15<<20, 20<<20, 28<<20, 31<<20)
}
