package artifacts

import (
	"context"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// Package is an image of a repository, whatever its versions.
type Package struct {
	Image   Image
	Created time.Time `json:"-"` // of the first push
	Updated time.Time `json:"-"` // of the last one
}

// Version is one manifest of an image with what is known of it in its repository.
type Version struct {
	Manifest
	Image     Image
	Created   time.Time  // when it was pushed first
	Updated   time.Time  // when it, or a tag on it, was pushed last
	Tags      []string   // in order
	ImageSize int64      // bytes of what it refers to, without itself: configuration and layers, once each
	Children  []Manifest // of an index, as far as they are there
}

// Name returns the resource name of a version.
func (v Version) Name() string { return v.Image.version(v.Digest) }

// Name returns the resource name of the package of an image.
func (i Image) Name() string { return i.name() }

// TagName returns the resource name of a tag of an image.
func (i Image) TagName(tag string) string { return i.tag(tag) }

// VersionName returns the resource name of a version of an image.
func (i Image) VersionName(d blob.Digest) string { return i.version(d) }

// shelf is all rows of one repository that a list needs, read at once: a version alone knows neither its tags nor the
// sizes of its blobs.
type shelf struct {
	sizes    map[blob.Digest]int64
	versions []store.Row[Manifest]
	byName   map[string]Manifest
	tags     map[string][]Tag // by the name of the version
}

// readShelf reads what is below prefix: a repository's or an image's name with "/" after it.
func readShelf(tx *store.Tx, repository resource.Child, prefix string) (s shelf, err error) {
	s = shelf{sizes: map[blob.Digest]int64{}, byName: map[string]Manifest{}, tags: map[string][]Tag{}}
	have, err := blobs.List(tx, blobName(repository, ""), "", 0)
	if err != nil {
		return s, err
	}
	for _, r := range have {
		s.sizes[blob.Digest(r.Name[len(blobName(repository, "")):])] = r.Value.Size
	}
	if s.versions, err = manifests.List(tx, prefix, "", 0); err != nil {
		return s, err
	}
	for _, r := range s.versions {
		s.byName[r.Name] = r.Value
	}
	named, err := tags.List(tx, prefix, "", 0)
	for _, r := range named {
		image, ok := packageOf(r.Name, "/tags/")
		if ok {
			version := image.version(r.Value.Digest)
			s.tags[version] = append(s.tags[version], r.Value)
		}
	}
	return s, err
}

// version puts a version together.
func (s shelf) version(r store.Row[Manifest]) (Version, bool) {
	image, ok := packageOf(r.Name, "/versions/")
	if !ok {
		return Version{}, false
	}
	v := Version{Manifest: r.Value, Image: image, Created: r.Created.UTC(), Updated: r.Updated.UTC()}
	for _, t := range s.tags[r.Name] {
		v.Tags = append(v.Tags, t.Name)
		if t.Updated.After(v.Updated) {
			v.Updated = t.Updated
		}
	}
	seen := map[blob.Digest]bool{}
	count := func(all []blob.Digest) {
		for _, d := range all {
			if !seen[d] {
				seen[d] = true
				v.ImageSize += s.sizes[d]
			}
		}
	}
	count(v.Blobs)
	for _, d := range v.Manifests {
		if child, ok := s.byName[image.version(d)]; ok {
			v.Children = append(v.Children, child)
			count(child.Blobs)
		}
	}
	return v, true
}

// Packages returns the images of a repository by name.
func (a *Artifacts) Packages(ctx context.Context, repository resource.Child) (out []Package, err error) {
	defer fault.Wrap(&err, "artifacts.Packages(%s)", repository)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, repository); err != nil {
			return err
		}
		rows, err := packages.List(tx, repository.String()+"/packages/", "", 0)
		if err != nil {
			return err
		}
		named, err := tags.List(tx, repository.String()+"/packages/", "", 0)
		if err != nil {
			return err
		}
		last := map[string]time.Time{}
		for _, t := range named {
			if image, ok := packageOf(t.Name, "/tags/"); ok && t.Value.Updated.After(last[image.name()]) {
				last[image.name()] = t.Value.Updated
			}
		}
		for _, r := range rows {
			p := Package{Image: r.Value.Image, Created: r.Created.UTC(), Updated: r.Updated.UTC()}
			if t := last[r.Name]; t.After(p.Updated) {
				p.Updated = t
			}
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// Package returns one image of a repository, or NotFound.
func (a *Artifacts) Package(ctx context.Context, image Image) (p Package, err error) {
	defer fault.Wrap(&err, "artifacts.Package(%s)", image)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if err := checkPackage(tx, image); err != nil {
			return err
		}
		r, err := packages.Get(tx, image.name())
		if err != nil {
			return err
		}
		p = Package{Image: r.Value.Image, Created: r.Created.UTC(), Updated: r.Updated.UTC()}
		named, err := tags.List(tx, image.tag(""), "", 0)
		for _, t := range named {
			if t.Value.Updated.After(p.Updated) {
				p.Updated = t.Value.Updated
			}
		}
		return err
	})
	return p, err
}

// Versions returns the versions of an image by digest. It fails with NotFound when nothing was ever pushed under the
// image's name.
func (a *Artifacts) Versions(ctx context.Context, image Image) (out []Version, err error) {
	defer fault.Wrap(&err, "artifacts.Versions(%s)", image)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if err := checkPackage(tx, image); err != nil {
			return err
		}
		out, err = versionsBelow(tx, image.Repository, image.name()+"/")
		return err
	})
	return out, err
}

// RepositoryVersions returns the versions of all images of a repository, by image and digest.
func (a *Artifacts) RepositoryVersions(ctx context.Context, repository resource.Child) (out []Version, err error) {
	defer fault.Wrap(&err, "artifacts.RepositoryVersions(%s)", repository)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, repository); err != nil {
			return err
		}
		out, err = versionsBelow(tx, repository, repository.String()+"/packages/")
		return err
	})
	return out, err
}

func versionsBelow(tx *store.Tx, repository resource.Child, prefix string) ([]Version, error) {
	s, err := readShelf(tx, repository, prefix)
	if err != nil {
		return nil, err
	}
	var out []Version
	for _, r := range s.versions {
		if v, ok := s.version(r); ok {
			out = append(out, v)
		}
	}
	return out, nil
}

// Version returns one version of an image, or NotFound.
func (a *Artifacts) Version(ctx context.Context, image Image, d blob.Digest) (v Version, err error) {
	defer fault.Wrap(&err, "artifacts.Version(%s@%s)", image, d)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if err := checkPackage(tx, image); err != nil {
			return err
		}
		if _, err := getManifest(tx, Reference{Image: image, Digest: d}); err != nil {
			return err
		}
		s, err := readShelf(tx, image.Repository, image.name()+"/")
		if err != nil {
			return err
		}
		row, err := manifests.Get(tx, image.version(d))
		v, _ = s.version(row)
		return err
	})
	return v, err
}

// File is one file that a repository stores: a manifest, or a blob that one of them refers to.
type File struct {
	Digest  blob.Digest
	Size    int64
	Owner   string // resource name of a version that it belongs to
	Created time.Time
	Updated time.Time
}

// Files returns the files of a repository by digest. One that several versions have belongs to the first of them.
func (a *Artifacts) Files(ctx context.Context, repository resource.Child) (out []File, err error) {
	defer fault.Wrap(&err, "artifacts.Files(%s)", repository)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, repository); err != nil {
			return err
		}
		versions, err := versionsBelow(tx, repository, repository.String()+"/packages/")
		if err != nil {
			return err
		}
		owner := map[blob.Digest]string{}
		for _, v := range versions {
			for _, d := range append([]blob.Digest{v.Digest}, v.Blobs...) {
				if owner[d] == "" {
					owner[d] = v.Name()
				}
			}
			if owner[v.Digest] == v.Name() {
				out = append(out, File{v.Digest, v.Size, v.Name(), v.Created, v.Created})
			}
		}
		prefix := blobName(repository, "")
		rows, err := blobs.List(tx, prefix, "", 0)
		for _, r := range rows {
			d := blob.Digest(r.Name[len(prefix):])
			out = append(out, File{d, r.Value.Size, owner[d], r.Created.UTC(), r.Updated.UTC()})
		}
		return err
	})
	return out, err
}
