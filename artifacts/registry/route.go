package registry

import "strings"

// noun is what the path of a request is about.
type noun int

const (
	blobNoun      noun = iota + 1 // /v2/NAME/blobs/DIGEST
	uploadsNoun                   // /v2/NAME/blobs/uploads/
	uploadNoun                    // /v2/NAME/blobs/uploads/ID
	manifestNoun                  // /v2/NAME/manifests/TAG or DIGEST
	tagsNoun                      // /v2/NAME/tags/list
	referrersNoun                 // /v2/NAME/referrers/DIGEST
)

// route is the path of a request taken apart. The name and the reference are as the client wrote them.
type route struct {
	noun noun
	name string // of the image: "PROJECT/REPOSITORY/IMAGE"
	ref  string // digest, tag or upload id; "" for uploads and tags
}

// maxRoute is the most bytes of a path that are looked at.
const maxRoute = 1024

// parseRoute reads a path from its end, because a part of a name may be called "blobs" or "manifests", too.
func parseRoute(path string) (route, bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok || len(path) > maxRoute {
		return route{}, false
	}
	if name, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return route{uploadsNoun, name, ""}, name != ""
	}
	rest, ref, ok := cutLast(rest)
	if !ok || ref == "" {
		return route{}, false
	}
	name, kind, ok := cutLast(rest)
	if !ok || name == "" {
		return route{}, false
	}
	if kind == "uploads" {
		name, ok := strings.CutSuffix(name, "/blobs")
		return route{uploadNoun, name, ref}, ok && name != ""
	}
	switch {
	case kind == "blobs":
		return route{blobNoun, name, ref}, true
	case kind == "manifests":
		return route{manifestNoun, name, ref}, true
	case kind == "referrers":
		return route{referrersNoun, name, ref}, true
	case kind == "tags" && ref == "list":
		return route{tagsNoun, name, ""}, true
	}
	return route{}, false
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}
