package cloud

import (
	"os"

	"giggle/cloud/garbage"
	"giggle/disk"
)

// ballastBytes is what deletes have when the disk is full to the last byte: four times SQLite's write-ahead log.
const ballastBytes = 16 << 20

// auditBytes is what the audit log has then: some ten thousand entries, for the deletes that make room.
const auditBytes = 8 << 20

// What the audit log keeps of what was done: a share of the file system, and this at least.
const (
	auditShare = 16
	leastAudit = 256 << 20
)

// openDisk looks at the data directory's file system.
func (c *Cloud) openDisk() (err error) {
	c.released = garbage.NewReleased()
	c.disk = disk.New(disk.Config{
		Dir:  c.cfg.Data,
		Full: c.released.Full,
		Parts: []disk.Part{
			{
				Name: "objects and images",
				Dirs: []string{c.path("blobs")},
				Fix:  "`gcloud storage rm` or `gcloud artifacts docker images delete`",
			},
			{Name: "unpacked images", Dirs: []string{c.path("layers")}, Fix: "deleting services and images"},
			{Name: "models", Dirs: []string{c.path("models")}, Fix: "`giggle models rm`"},
			{Name: "Git repositories", Dirs: []string{c.path("git")}, Fix: "`gcloud source repos delete`"},
			{Name: "builds and their caches", Dirs: []string{c.path("build"), c.path("buildkit"), c.path("docker")}},
			{Name: "modules and packages", Dirs: []string{c.path("cache")}},
			{Name: "logs", Dirs: []string{c.path("storage"), c.path("audit")}},
			{Name: "the platform's state", Dirs: []string{c.path("state")}},
		},
	})
	if err := os.MkdirAll(c.path("state"), 0o700); err != nil {
		return err
	}
	space, err := c.disk.Space()
	if err != nil {
		return err
	}
	c.quotas.SizeStored(space.Total)
	c.auditMost = max(space.Total/auditShare, leastAudit)
	if c.ballast, err = c.disk.Ballast(c.path("state", "ballast"), ballastBytes); err != nil {
		return err
	}
	// One of its own: what fills the one log must not take what the other needs.
	c.auditBallast, err = c.disk.Ballast(c.path("state", "audit-ballast"), auditBytes)
	return err
}

// room is Admit for those who don't know yet how many bytes will come.
func (c *Cloud) room() error { return c.disk.Admit(0) }
