package artifacts

import (
	"context"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/store"
)

// Tag is a name for one version of an image.
type Tag struct {
	Name    string
	Digest  blob.Digest
	Updated time.Time // when it was last set
}

// immutable is the refusal of a repository whose tags stay what they are.
func immutable(image Image, tag string) error {
	return withReason(ReasonImmutable, fault.FailedPrecondition,
		"%s:%s can't be moved or removed: the tags of repository %q are immutable.", image, tag, image.Repository.ID)
}

// setTag puts a tag on a version that is there.
func setTag(tx *store.Tx, repository Repository, image Image, name string, d blob.Digest) error {
	row, err := tags.Get(tx, image.tag(name))
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err == nil && repository.ImmutableTags && row.Value.Digest != d {
		return immutable(image, name)
	}
	_, err = tags.Put(tx, image.tag(name), Tag{name, d, tx.Now().UTC()})
	return err
}

// deleteTag removes a tag that is there.
func deleteTag(tx *store.Tx, repository Repository, image Image, name string) error {
	if repository.ImmutableTags {
		return immutable(image, name)
	}
	return tags.Delete(tx, image.tag(name))
}

// Tag returns a tag of an image, or NotFound.
func (a *Artifacts) Tag(ctx context.Context, image Image, name string) (t Tag, err error) {
	defer fault.Wrap(&err, "artifacts.Tag(%s:%s)", image, name)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if err := checkPackage(tx, image); err != nil {
			return err
		}
		t, err = getTag(tx, image, name)
		return err
	})
	return t, err
}

func getTag(tx *store.Tx, image Image, name string) (Tag, error) {
	row, err := tags.Get(tx, image.tag(name))
	if fault.Is(err, fault.NotFound) {
		err = withReason(ReasonManifest, fault.NotFound, "Image %s has no tag %q.", image, name)
	}
	return row.Value, err
}

// SetTag puts a tag on a version, whether the tag is there or not. It fails with NotFound (version), InvalidArgument
// (name of the tag) and FailedPrecondition (immutable tags).
func (a *Artifacts) SetTag(ctx context.Context, image Image, name string, d blob.Digest) (t Tag, err error) {
	defer fault.Wrap(&err, "artifacts.SetTag(%s:%s)", image, name)
	return a.tag(ctx, image, name, d, func(*store.Tx) error { return nil })
}

// CreateTag is SetTag of a tag that must not be there: it fails with AlreadyExists, too.
func (a *Artifacts) CreateTag(ctx context.Context, image Image, name string, d blob.Digest) (t Tag, err error) {
	defer fault.Wrap(&err, "artifacts.CreateTag(%s:%s)", image, name)
	return a.tag(ctx, image, name, d, func(tx *store.Tx) error {
		_, err := tags.Get(tx, image.tag(name))
		if err == nil {
			return fault.New(fault.AlreadyExists, "Image %s has a tag %q already.", image, name)
		}
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		return err
	})
}

func (a *Artifacts) tag(
	ctx context.Context, image Image, name string, d blob.Digest, allow func(*store.Tx) error,
) (t Tag, err error) {
	if !IsTag(name) {
		return t, fault.Invalid("tagId", "%.150q is not a tag", name)
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		repository, err := getRepository(tx, image.Repository)
		if err != nil {
			return err
		}
		if _, err := getManifest(tx, Reference{Image: image, Digest: d}); err != nil {
			return err
		}
		if err := allow(tx); err != nil {
			return err
		}
		if err := setTag(tx, repository, image, name, d); err != nil {
			return err
		}
		t, err = getTag(tx, image, name)
		return err
	})
	return t, err
}

// DeleteTag removes a tag, and not what it names. It fails with NotFound and FailedPrecondition (immutable tags).
func (a *Artifacts) DeleteTag(ctx context.Context, image Image, name string) (err error) {
	defer fault.Wrap(&err, "artifacts.DeleteTag(%s:%s)", image, name)
	return a.store.Update(ctx, func(tx *store.Tx) error {
		repository, err := getRepository(tx, image.Repository)
		if err != nil {
			return err
		}
		if _, err := getTag(tx, image, name); err != nil {
			return err
		}
		return deleteTag(tx, repository, image, name)
	})
}

// Tags returns the tags of an image in the order of their names, after the one called last, at most limit of them (all
// for 0). It fails with NotFound when nothing was ever pushed under the image's name.
func (a *Artifacts) Tags(ctx context.Context, image Image, last string, limit int) (out []Tag, err error) {
	defer fault.Wrap(&err, "artifacts.Tags(%s)", image)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if err := checkPackage(tx, image); err != nil {
			return err
		}
		after := ""
		if last != "" {
			after = image.tag(last)
		}
		rows, err := tags.List(tx, image.tag(""), after, limit)
		for _, r := range rows {
			out = append(out, r.Value)
		}
		return err
	})
	return out, err
}
