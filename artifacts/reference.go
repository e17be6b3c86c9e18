package artifacts

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
)

// hostSuffix ends the hosts of Artifact Registry's Docker repositories: LOCATION-docker.pkg.dev.
const hostSuffix = "-docker.pkg.dev"

// Image names an image: a package of a repository.
type Image struct {
	Repository resource.Child
	Path       string // in the repository: "jokes", "team/jokes"
}

// String returns the name as container tools write it: "europe-north1-docker.pkg.dev/giggle/my-repo/jokes".
func (i Image) String() string {
	r := i.Repository
	return r.Location.Location + hostSuffix + "/" + r.Project + "/" + r.ID + "/" + i.Path
}

// name is the resource name of the package. Its id is the path with its slashes escaped, as Artifact Registry's are.
func (i Image) name() string { return i.Repository.String() + "/packages/" + url.PathEscape(i.Path) }

// ParsePackage reads the resource name of a package, "projects/P/locations/L/repositories/R/packages/IMAGE", whose
// IMAGE has its slashes escaped. It fails with InvalidArgument.
func ParsePackage(name string) (Image, error) {
	bad := fault.New(fault.InvalidArgument,
		"%.200q is not the name of a package: want projects/P/locations/L/repositories/R/packages/IMAGE.", name)
	of, id, ok := strings.Cut(name, "/packages/")
	repository, err := resource.ParseChild("repositories", of)
	if err != nil || !ok {
		return Image{}, bad
	}
	path, err := url.PathUnescape(id)
	if err != nil || strings.Contains(id, "/") || len(path) > maxPath || !pathForm.MatchString(path) {
		return Image{}, bad
	}
	return Image{repository, path}, nil
}

// packageOf returns the image of a row named IMAGE/tags/… or IMAGE/versions/….
func packageOf(name, kind string) (Image, bool) {
	of, _, ok := strings.Cut(name, kind)
	image, err := ParsePackage(of)
	return image, ok && err == nil
}

// Host returns the host of the Docker repositories of a location.
func Host(location string) string { return location + hostSuffix }

// Registry is what one host stands for: the repositories of a location or, for a host of Container Registry, the
// repository of that name in each project.
type Registry struct {
	Host       string
	Location   string
	Repository string // "" but for gcr.io and its like
}

// legacy are the hosts of Container Registry and where their repositories are, of the host's name
// (https://cloud.google.com/artifact-registry/docs/transition/gcr-repositories).
var legacy = map[string]string{"gcr.io": "us", "us.gcr.io": "us", "eu.gcr.io": "europe", "asia.gcr.io": "asia"}

// ParseHost returns what a host stands for, or false for a host that is none of Artifact Registry's.
func ParseHost(host string) (Registry, bool) {
	if l, ok := legacy[host]; ok {
		return Registry{host, l, host}, true
	}
	l, ok := strings.CutSuffix(host, hostSuffix)
	return Registry{host, l, ""}, ok && isLocation(l)
}

// Image reads the path of an image on the host: "PROJECT/REPOSITORY/IMAGE", or "PROJECT/IMAGE" on one of Container
// Registry's. It fails with InvalidArgument.
func (r Registry) Image(path string) (Image, error) {
	if r.Repository == "" {
		return ParseImage(r.Location, path)
	}
	project, image, ok := strings.Cut(path, "/")
	if !ok || len(path) > maxPath {
		return Image{}, badImage("PROJECT/IMAGE", path)
	}
	return ParseImage(r.Location, project+"/"+r.Repository+"/"+image)
}

// Folder reads the path of an image, or of what is before one: of the repository, "PROJECT/REPOSITORY", or "PROJECT" on
// a host of Container Registry, whose image has the Path "". It fails with InvalidArgument.
func (r Registry) Folder(path string) (Image, error) {
	image, err := r.Image(path)
	if err == nil {
		return image, nil
	}
	const any = "any" // stands for the image that is not named
	if image, err := r.Image(path + "/" + any); err == nil && image.Path == any {
		image.Path = ""
		return image, nil
	}
	return image, err
}

// Path is the path of an image on the host, as Image reads it, or false for one that is not there.
func (r Registry) Path(i Image) (string, bool) {
	switch of := i.Repository; {
	case of.Location.Location != r.Location:
		return "", false
	case r.Repository == "":
		return of.Project + "/" + of.ID + "/" + i.Path, true
	default:
		return of.Project + "/" + i.Path, of.ID == r.Repository
	}
}

// IsLegacy reports whether a repository is the one behind a host of Container Registry.
func IsLegacy(repository resource.Child) bool {
	return legacy[repository.ID] != "" && legacy[repository.ID] == repository.Location.Location
}

// repositoryID reports whether a repository may have an id: a label, or a host of Container Registry in its place.
func repositoryID(location, id string) bool {
	return resource.Label(id, maxRepositoryID) || legacy[id] != "" && legacy[id] == location
}

func badImage(want, path string) error {
	return withReason(ReasonNameInvalid, fault.InvalidArgument,
		"%.100q is not the name of an image: want %s in lower-case letters, digits and single separators.", path, want)
}

// isLocation reports whether repositories may be in a location: a region or a multi-region.
func isLocation(name string) bool {
	return name == strings.ToLower(name) && name != "eu" && resource.IsLocation(name)
}

// The forms of the distribution specification, "Pulling manifests". A project or repository id is a part of a name,
// but of its own form.
var (
	pathForm = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`) })
)

// maxPath is the most bytes of a name in a registry, as in distribution's reference grammar.
const maxPath = 255

// ParseImage reads "PROJECT/REPOSITORY/IMAGE", the path of an image on the host of a location. It fails with
// InvalidArgument.
func ParseImage(location, path string) (Image, error) {
	bad := badImage("PROJECT/REPOSITORY/IMAGE", path)
	if len(path) > maxPath || !pathForm.MatchString(path) {
		return Image{}, bad
	}
	project, rest, _ := strings.Cut(path, "/")
	repository, image, ok := strings.Cut(rest, "/")
	if !ok || !resource.ProjectID(project) && !resource.IsProjectNumber(project) ||
		!repositoryID(location, repository) {
		return Image{}, bad
	}
	return Image{resource.Repository(project, location, repository), image}, nil
}

// IsTag reports whether s has the form of a tag.
func IsTag(s string) bool { return tagForm().MatchString(s) }

// Reference is an image with the tag or the digest of one manifest. With both, the digest counts.
type Reference struct {
	Image
	Tag    string // "latest" where a reference has neither
	Digest blob.Digest

	host Registry // where it was read from
}

// Name is the name of the image, on the host that the reference was read with.
func (r Reference) Name() string {
	if path, ok := r.host.Path(r.Image); ok {
		return r.host.Host + "/" + path
	}
	return r.Image.String()
}

// HowToBring says how an image of another registry comes to this platform.
func HowToBring(reference string) string {
	return fmt.Sprintf("`sudo giggle images pull %[1]s` brings it from its registry, and "+
		"`sudo giggle images add %[1]s FILE` from a file.", reference)
}

// ParseReference reads "HOST/PROJECT/REPOSITORY/IMAGE" with ":TAG", "@DIGEST", both or neither. It fails with
// InvalidArgument; NotFound is for a reference to another registry.
func ParseReference(s string) (Reference, error) {
	if len(s) > 600 {
		return Reference{}, fault.New(fault.InvalidArgument, "The image reference %.60q… is too long.", s)
	}
	host, rest, _ := strings.Cut(s, "/")
	registry, ok := ParseHost(host)
	if !ok {
		return Reference{}, fault.New(fault.NotFound,
			"'%s' is not in this platform's Artifact Registry, whose images are "+
				"LOCATION%s/PROJECT/REPOSITORY/IMAGE. %s", s, hostSuffix, HowToBring(s))
	}
	r := Reference{Tag: "latest", host: registry}
	rest, digest, pinned := strings.Cut(rest, "@")
	if pinned {
		d, err := blob.ParseDigest(digest)
		if err != nil {
			return Reference{}, err
		}
		r.Digest, r.Tag = d, ""
	}
	path, tag, tagged := strings.Cut(rest, ":")
	if tagged {
		if !IsTag(tag) {
			return Reference{}, fault.New(fault.InvalidArgument, "%.150q is not a tag.", tag)
		}
		r.Tag = tag
	}
	var err error
	r.Image, err = registry.Image(path)
	return r, err
}

// String returns the reference as ParseReference reads it.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}
