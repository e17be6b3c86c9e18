package run

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"giggle/resource"
)

// hashOf is the ten characters that stand for a project in service hosts. It is the same for all of a project's
// services, as on Cloud Run.
func hashOf(p resource.Project) string {
	h := sha256.Sum256([]byte("giggle service hosts\x00" + p.Number))
	return strings.ToLower(base32.StdEncoding.EncodeToString(h[:]))[:10]
}

// Hosts returns the two host names of a service: SERVICE-HASH-RR.a.run.app, which status.url shows, and
// SERVICE-NUMBER.REGION.run.app.
func Hosts(p resource.Project, n resource.Child) (hashed, numbered string) {
	code := resource.RegionCode(n.Location.Location)
	return n.ID + "-" + hashOf(p) + "-" + code + ".a.run.app",
		n.ID + "-" + p.Number + "." + n.Location.Location + ".run.app"
}

// URLs returns the two URLs of a service; the second is the one with the project's number.
func URLs(p resource.Project, n resource.Child) (hashed, numbered string) {
	h, m := Hosts(p, n)
	return "https://" + h, "https://" + m
}

// TagMark stands between a tag and the name of its service in a host.
const TagMark = "---"

// TagHost returns the host of a tag of a service whose host is given.
func TagHost(tag, host string) string { return tag + TagMark + host }
