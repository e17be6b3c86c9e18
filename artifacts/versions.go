package artifacts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"giggle/blob"
	"giggle/fault"
	"giggle/store"
)

// Rows are named as Artifact Registry names them: REPOSITORY/packages/P, …/versions/DIGEST and …/tags/T.
var (
	packages  = store.NewTable[Package]("artifacts.package", "Package")
	manifests = store.NewTable[Manifest]("artifacts.manifest", "Manifest").
			By(func(_ string, m Manifest) string { return string(m.Digest) }).
			Sum(func(_ *store.Tx, name string, m Manifest) (string, int64, error) {
			return storedIn(name), m.Size,
				nil
		})
	tags = store.NewTable[Tag]("artifacts.tag", "Tag")
)

func (i Image) version(d blob.Digest) string { return i.name() + "/versions/" + string(d) }
func (i Image) tag(t string) string          { return i.name() + "/tags/" + t }

// PutManifest adds a manifest to an image and sets tags on it, if there are any. Its digest is want or, for "",
// sha256. What it refers to must be there before it, in the repository; it is seen whole or not at all. It fails with
// NotFound (repository) and InvalidArgument.
func (a *Artifacts) PutManifest(
	ctx context.Context, image Image, tags []string, want blob.Digest, mediaType string, body []byte,
) (m Manifest, err error) {
	defer fault.Wrap(&err, "artifacts.PutManifest(%s)", image)
	if m, err = ParseManifest(body, mediaType); err != nil {
		return m, err
	}
	named := want
	if named == "" {
		named = blob.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(body)))
	}
	defer a.blobs.Reserve(named)() // until the repository has it
	info, err := a.blobs.Put(ctx, bytes.NewReader(body), want)
	if err != nil {
		return m, err
	}
	m.Digest = info.Digest
	a.describe(ctx, &m)
	// A blob that is not there is for addManifest to say: the repository hasn't it.
	for _, d := range m.Blobs {
		release, err := a.hold(ctx, d)
		if err == nil {
			defer release()
		} else if !fault.Is(err, fault.NotFound) {
			return m, err
		}
	}
	release, err := a.hold(ctx, m.Digest)
	if err != nil {
		return m, err
	}
	defer release()
	return m, a.store.Update(ctx, func(tx *store.Tx) error {
		return addManifest(tx, image, tags, m)
	})
}

// addManifest writes the rows of a manifest whose bytes are stored.
func addManifest(tx *store.Tx, image Image, names []string, m Manifest) error {
	repository, err := getRepository(tx, image.Repository)
	if err != nil {
		return err
	}
	unknown := func(what string, d blob.Digest) error {
		return withReason(ReasonManifestBlob, fault.InvalidArgument,
			"The manifest refers to %s %s, which %s does not have.", what, d, image)
	}
	size := func(d blob.Digest, have int64) error {
		if have == m.sizes[d] {
			return nil
		}
		return withReason(ReasonManifestInvalid, fault.InvalidArgument,
			"The manifest says that %s has %d bytes; it has %d.", d, m.sizes[d], have)
	}
	for _, d := range m.Blobs {
		b, err := getBlob(tx, image.Repository, d)
		if fault.Is(err, fault.NotFound) {
			return unknown("blob", d)
		}
		if err != nil {
			return err
		}
		if err := size(d, b.Size); err != nil {
			return err
		}
	}
	for _, d := range m.Manifests {
		row, err := manifests.Get(tx, image.version(d))
		if fault.Is(err, fault.NotFound) {
			return unknown("manifest", d)
		}
		if err != nil {
			return err
		}
		if err := size(d, row.Value.Size); err != nil {
			return err
		}
	}
	if _, err := packages.Create(tx, image.name(), Package{Image: image}); err != nil &&
		!fault.Is(err, fault.AlreadyExists) {
		return err
	}
	// The same bytes may come again, under another media type if they name none themselves.
	have, err := manifests.Get(tx, image.version(m.Digest))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err != nil || have.Value.MediaType != m.MediaType {
		if _, err := manifests.Put(tx, image.version(m.Digest), m); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := setTag(tx, repository, image, name, m.Digest); err != nil {
			return err
		}
	}
	return nil
}

// Manifest returns the manifest that a reference names, or NotFound.
func (a *Artifacts) Manifest(ctx context.Context, ref Reference) (m Manifest, err error) {
	defer fault.Wrap(&err, "artifacts.Manifest(%s)", ref)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, ref.Repository); err != nil {
			return err
		}
		m, err = getManifest(tx, ref)
		return err
	})
	return m, err
}

func getManifest(tx *store.Tx, ref Reference) (Manifest, error) {
	d, what := ref.Digest, string(ref.Digest)
	unknown := func(err error) error {
		if fault.Is(err, fault.NotFound) {
			return withReason(ReasonManifest, fault.NotFound, "Image %s has no manifest %q.", ref.Image, what)
		}
		return err
	}
	if d == "" {
		what = ref.Tag
		row, err := tags.Get(tx, ref.tag(ref.Tag))
		if err != nil {
			return Manifest{}, unknown(err)
		}
		d = row.Value.Digest
	}
	row, err := manifests.Get(tx, ref.version(d))
	return row.Value, unknown(err)
}

// ReadManifest returns a manifest with its bytes, or NotFound.
func (a *Artifacts) ReadManifest(ctx context.Context, ref Reference) (m Manifest, body []byte, err error) {
	if m, err = a.Manifest(ctx, ref); err != nil {
		return m, nil, err
	}
	defer fault.Wrap(&err, "artifacts.ReadManifest(%s)", ref)
	body, err = a.read(ctx, m.Digest)
	return m, body, err
}

// describe reads the configuration of an image, if there is one.
func (a *Artifacts) describe(ctx context.Context, m *Manifest) {
	if m.config == "" || m.sizes[m.config] > MaxManifest {
		return
	}
	if config, err := a.read(ctx, m.config); err == nil {
		m.describe(config)
	}
}

// read returns the bytes of a stored manifest.
func (a *Artifacts) read(ctx context.Context, d blob.Digest) ([]byte, error) {
	r, info, err := a.blobs.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info.Size > MaxManifest {
		return nil, withReason(ReasonManifestInvalid, fault.InvalidArgument,
			"%s has %d bytes: too much for a manifest.", d, info.Size)
	}
	return io.ReadAll(r)
}

func checkPackage(tx *store.Tx, image Image) error {
	if _, err := getRepository(tx, image.Repository); err != nil {
		return err
	}
	_, err := packages.Get(tx, image.name())
	if fault.Is(err, fault.NotFound) {
		err = withReason(ReasonName, fault.NotFound, "Repository %q has no image %q.", image.Repository.ID, image.Path)
	}
	return err
}

// Referrers returns the manifests of an image whose subject is the given digest, which itself need not be there.
func (a *Artifacts) Referrers(ctx context.Context, image Image, subject blob.Digest) (out []Manifest, err error) {
	defer fault.Wrap(&err, "artifacts.Referrers(%s@%s)", image, subject)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := getRepository(tx, image.Repository); err != nil {
			return err
		}
		rows, err := manifests.List(tx, image.version(""), "", 0)
		for _, r := range rows {
			if r.Value.Subject == subject {
				out = append(out, r.Value)
			}
		}
		return err
	})
	return out, err
}
