package registry

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
)

// maxPage is the most entries of one page, and how many there are where a client names no number.
const maxPage = 1000

// page reads n and last of a list request.
func page(q url.Values) (n int, last string, err error) {
	n = maxPage
	if s := q.Get("n"); s != "" {
		if n, err = strconv.Atoi(s); err != nil || n < 0 {
			return 0, "", coded("PAGINATION_NUMBER_INVALID",
				fault.New(fault.InvalidArgument, "n=%.20q is not a number of 0 or more.", s))
		}
	}
	return min(n, maxPage), q.Get("last"), nil
}

// link points to the page after the entry called last (RFC 8288).
func link(w http.ResponseWriter, path string, n int, last string) {
	w.Header().Set("Link", "<"+path+"?"+url.Values{"n": {strconv.Itoa(n)}, "last": {last}}.Encode()+`>; rel="next"`)
}

// tagList answers GET tags/list: the specification's members, and those by which Container Registry's clients list
// versions and images below a name (`gcloud container images`, https://github.com/google/go-containerregistry's package
// google).
type tagList struct {
	Child    []string                        `json:"child"` // the next part of the names below this one
	Manifest map[blob.Digest]*listedManifest `json:"manifest"`
	Name     string                          `json:"name"`
	Tags     []string                        `json:"tags"`
}

// listedManifest is a version in a list of tags. Its numbers are texts, as an int64 in Google's JSON is.
type listedManifest struct {
	Size     int64    `json:"imageSizeBytes,string"`
	Layer    string   `json:"layerId"`
	Type     string   `json:"mediaType"`
	Tags     []string `json:"tag"`
	Created  int64    `json:"timeCreatedMs,string"`
	Uploaded int64    `json:"timeUploadedMs,string"`
}

// listTags answers GET tags/list, of an image, or of a part of its name before it. The first page has everything that
// is no tag.
func (s *server) listTags(w http.ResponseWriter, r *request) error {
	n, last, err := page(r.URL.Query())
	if err != nil {
		return err
	}
	out := tagList{Child: []string{}, Manifest: map[blob.Digest]*listedManifest{}, Name: r.name, Tags: []string{}}
	if last == "" {
		if out.Child, err = s.below(r.Context(), r.image); err != nil {
			return err
		}
	}
	switch err := s.versions(r, &out, n, last, w); {
	case err == nil:
	case fault.Is(err, fault.NotFound) && len(out.Child) > 0: // no image, but a part of names
	default:
		return err
	}
	return writeJSON(w, http.StatusOK, "application/json", out)
}

// versions adds a page of an image's tags to a list, and the image's versions to the first page.
func (s *server) versions(r *request, out *tagList, n int, last string, w http.ResponseWriter) error {
	if r.image.Path == "" {
		return nil
	}
	tags, err := s.Artifacts.Tags(r.Context(), r.image, last, n+1)
	if err != nil {
		return err
	}
	for i, t := range tags {
		if i == n {
			if n > 0 {
				link(w, r.path("/tags/list"), n, tags[n-1].Name)
			}
			break
		}
		out.Tags = append(out.Tags, t.Name)
	}
	if last != "" {
		return nil
	}
	versions, err := s.Artifacts.Versions(r.Context(), r.image)
	for _, v := range versions {
		created := v.Created
		if !v.Built.IsZero() {
			created = v.Built
		}
		out.Manifest[v.Digest] = &listedManifest{
			Size:     v.ImageSize,
			Type:     v.MediaType,
			Tags:     append([]string{}, v.Tags...),
			Created:  created.UnixMilli(),
			Uploaded: v.Created.UnixMilli(),
		}
	}
	return err
}

// below are the names below a name, as far as their next slash, in order.
func (s *server) below(ctx context.Context, at artifacts.Image) ([]string, error) {
	names := []string{}
	all, err := s.Artifacts.Packages(ctx, at.Repository)
	if fault.Is(err, fault.NotFound) && at.Path == "" && artifacts.IsLegacy(at.Repository) {
		return names, nil // the first push makes it
	}
	if err != nil {
		return nil, err
	}
	prefix := ""
	if at.Path != "" {
		prefix = at.Path + "/"
	}
	for _, p := range all {
		if rest, ok := strings.CutPrefix(p.Image.Path, prefix); ok {
			name, _, _ := strings.Cut(rest, "/")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// descriptor is an OCI content descriptor in a list of referrers.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       blob.Digest       `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// listReferrers answers what is attached to a digest: signatures, SBOMs, attestations.
func (s *server) listReferrers(w http.ResponseWriter, r *request) error {
	d, err := parseDigest(r.ref)
	if err != nil {
		return err
	}
	found, err := s.Artifacts.Referrers(r.Context(), r.image, d)
	if err != nil {
		return err
	}
	const index = "application/vnd.oci.image.index.v1+json"
	out := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{2, index, []descriptor{}}
	only := r.URL.Query().Get("artifactType")
	for _, m := range found {
		if only == "" || m.ArtifactType == only {
			out.Manifests = append(out.Manifests,
				descriptor{m.MediaType, m.Digest, m.Size, m.ArtifactType, m.Annotations})
		}
	}
	if only != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return writeJSON(w, http.StatusOK, index, out)
}

// catalog lists the images of a location that the caller may pull, over all projects.
func (s *server) catalog(w http.ResponseWriter, r *http.Request, host artifacts.Registry) error {
	if r.Method != http.MethodGet {
		return coded("UNSUPPORTED", fault.New(fault.Unimplemented, "%.20s is not a method of the catalog.", r.Method))
	}
	n, last, err := page(r.URL.Query())
	if err != nil {
		return err
	}
	who, err := s.authenticate(r)
	if err != nil {
		return err
	}
	if who == iam.Anonymous && !anonymousToken(r) {
		return iam.Unauthenticated("CREDENTIALS_MISSING")
	}
	all, err := s.Artifacts.Repositories(r.Context(), resource.Location{Project: "-", Location: host.Location}, "", 0)
	if err != nil {
		return err
	}
	names := []string{}
	for _, repository := range all {
		if s.Identity.Authorize(r.Context(), who, download, repository.Name.String()) != nil {
			continue
		}
		images, err := s.Artifacts.Packages(r.Context(), repository.Name)
		if err != nil {
			return err
		}
		for _, i := range images {
			if name, ok := host.Path(i.Image); ok && name > last {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	if len(names) > n {
		names = names[:n]
		if n > 0 {
			link(w, "/v2/_catalog", n, names[n-1])
		}
	}
	return writeJSON(w, http.StatusOK, "application/json", map[string][]string{"repositories": names})
}
