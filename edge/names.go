package edge

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Class is what kind of host a name is.
type Class int

// The classes of names. Unknown is none of ours.
const (
	Unknown  Class = iota
	API            // run.googleapis.com, europe-north1-run.googleapis.com, accounts.google.com
	Service        // *.run.app, and *.localhost on the plain edge
	Registry       // *-docker.pkg.dev, gcr.io, *.gcr.io
	Storage        // storage.googleapis.com, BUCKET.storage.googleapis.com
	Console        // console.cloud.google.com
)

// Name is a host name taken apart.
type Name struct {
	Class  Class
	Host   string // lower case, no port, no last dot
	API    string // for API: the host without its region, such as "run.googleapis.com"
	Region string // for API: "europe-north1", or ""
	Bucket string // for Storage: of BUCKET.storage.googleapis.com, or ""
}

// region is how Google's regions look at the front of a label: europe-north1-run.
var region = regexp.MustCompile(`^([a-z]+-[a-z]+[0-9]+)-(.+)$`)

// CleanHost returns a Host header or SNI in lower case without port and last dot, or "" if it is no DNS name and no
// IP address.
func CleanHost(s string) string {
	if len(s) > 260 {
		return ""
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") &&
		(strings.Count(s, ":") == 1 || strings.Contains(s[:i], "]")) {
		s = s[:i]
	}
	s = strings.TrimSuffix(strings.ToLower(s), ".")
	if bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"); strings.Contains(bare, ":") {
		if a, err := netip.ParseAddr(bare); err == nil && a.Zone() == "" {
			return a.String()
		}
		return ""
	}
	if len(s) > 253 {
		return ""
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 {
			return ""
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return ""
			}
		}
	}
	return s
}

// ParseName says whose name a host is. It knows Google's name space, not which of it is served: that is the Router's.
func ParseName(host string) Name {
	n := Name{Host: CleanHost(host)}
	switch h := n.Host; {
	case h == "console.cloud.google.com":
		n.Class = Console
	case h == "accounts.google.com", h == "source.developers.google.com":
		n.Class, n.API = API, h
	case h == "gcr.io", under(h, "gcr.io") != "":
		n.Class = Registry
	case strings.HasSuffix(h, "-docker.pkg.dev") && !strings.Contains(under(h, "pkg.dev"), "."):
		n.Class = Registry
	case under(h, "run.app") != "":
		n.Class = Service
	case under(h, "localhost") != "":
		n.Class = Service
	case h == "storage.googleapis.com":
		n.Class = Storage
	case under(h, "storage.googleapis.com") != "":
		n.Class, n.Bucket = Storage, under(h, "storage.googleapis.com")
	case under(h, "googleapis.com") != "":
		n.parseAPI(under(h, "googleapis.com"))
	}
	return n
}

// under returns what stands before ".suffix", or "".
func under(host, suffix string) string {
	s, ok := strings.CutSuffix(host, "."+suffix)
	if !ok {
		return ""
	}
	return s
}

// parseAPI reads "run", "europe-north1-run", "run.mtls" and "run.europe-north1.rep".
func (n *Name) parseAPI(labels string) {
	parts := strings.Split(labels, ".")
	service := parts[0]
	switch {
	case len(parts) == 1:
		if m := region.FindStringSubmatch(service); m != nil {
			n.Region, service = m[1], m[2]
		}
	case len(parts) == 2 && parts[1] == "mtls":
	case len(parts) == 3 && parts[2] == "rep":
		n.Region = parts[1]
	default:
		return
	}
	if service == "" {
		return
	}
	n.Class, n.API = API, service+".googleapis.com"
	if service == "storage" {
		n.Class, n.API = Storage, ""
	}
}

// zones are the DNS trees that the platform answers for, and nothing below the resolver is asked about.
var zones = []string{
	"googleapis.com", "run.app", "pkg.dev", "gcr.io", "accounts.google.com", "console.cloud.google.com",
	"source.developers.google.com", "metadata.google.internal", "registry.ollama.ai",
}

// Zones returns the DNS trees that the platform answers for.
func Zones() []string { return slices.Clone(zones) }

// OwnName reports whether the platform's DNS answers for a name.
func OwnName(name string) bool {
	name = CleanHost(name)
	if name == "metadata" { // the short form that old libraries use
		return true
	}
	for _, z := range zones {
		if name == z || strings.HasSuffix(name, "."+z) {
			return true
		}
	}
	return false
}
