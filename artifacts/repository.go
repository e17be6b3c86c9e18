package artifacts

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"sync"
	"time"

	"giggle/blob"
	"giggle/fault"
	"giggle/operation"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// Format is what a repository holds, by Artifact Registry's name.
type Format string

// Docker is the one format that there is so far: OCI and Docker images.
const Docker Format = "DOCKER"

// Repository is one repository.
type Repository struct {
	Name        resource.Child
	Format      Format
	Description string
	Labels      map[string]string
	Created     time.Time
	Updated     time.Time

	// ImmutableTags means that a tag stays on what it was first set on, and that neither it nor that can be removed.
	ImmutableTags bool `json:",omitempty"`

	// Cleanup is the cleanup policies by id, in the form of the wire. They are kept and shown; nothing runs them.
	Cleanup       map[string]json.RawMessage `json:",omitempty"`
	CleanupDryRun bool                       `json:",omitempty"`
}

// RepositoryKind is the kind of repositories' rows.
const RepositoryKind = "artifacts.repository"

var repositories = store.NewTable[Repository](RepositoryKind, "Repository")

// OperationKind is the kind of the operations that make and remove repositories.
const OperationKind = "artifacts.repository"

// Bounds of a repository: ids and labels as the reference of Artifact Registry and "Requirements for labels" have
// them; the length of a description is ours.
const (
	maxRepositoryID = 63
	maxDescription  = 1024
	maxLabels       = 64
	maxCleanup      = 10       // "A repository can have at most 10 cleanup policies"
	maxCleanupBytes = 16 << 10 // of one; ours
)

// The forms of a label's key and value. They are big programs, which every start of giggle would have to make.
var (
	labelKey   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\p{Ll}[\p{Ll}\p{Lo}\p{N}_-]{0,62}$`) })
	labelValue = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`) })
)

func (r Repository) check() error {
	switch {
	case r.Format == "":
		return fault.Invalid("repository.format", "is missing; gcloud sets it with --repository-format=docker")
	case r.Format != Docker:
		return fault.NotImplemented("repository.format",
			"repositories of the format %.30s are not implemented, only DOCKER", r.Format)
	case !isLocation(r.Name.Location.Location):
		return fault.Invalid("parent",
			"%.60q is not a location of Artifact Registry; `gcloud artifacts locations list` shows them",
			r.Name.Location.Location)
	case !repositoryID(r.Name.Location.Location, r.Name.ID):
		return fault.Invalid("repositoryId",
			"%.80q is not 1 to 63 lower-case letters, digits and hyphens that start with a letter and do not end with a hyphen", r.Name.ID)
	case len(r.Description) > maxDescription:
		return fault.Invalid("repository.description", "is longer than %d bytes", maxDescription)
	case len(r.Labels) > maxLabels:
		return fault.Invalid("repository.labels", "more than %d labels", maxLabels)
	case len(r.Cleanup) > maxCleanup:
		return fault.Invalid("repository.cleanupPolicies", "more than %d policies", maxCleanup)
	}
	for id, policy := range r.Cleanup {
		if id == "" || len(id) > 128 || len(policy) > maxCleanupBytes {
			return fault.Invalid("repository.cleanupPolicies", "policy %.130q is too long, or has no name", id)
		}
	}
	for k, v := range r.Labels {
		if !labelKey().MatchString(k) || !labelValue().MatchString(v) {
			return fault.Invalid("repository.labels",
				"label %.70q=%.70q: want lower-case letters, digits, _ and -, at most 63 characters, and a key that starts with a letter", k, v)
		}
	}
	return nil
}

// CreateRepository makes an empty repository and returns the operation of it, which is done. It fails with
// InvalidArgument and AlreadyExists.
func (a *Artifacts) CreateRepository(ctx context.Context, r Repository) (op operation.Operation, err error) {
	defer fault.Wrap(&err, "artifacts.CreateRepository(%s)", r.Name)
	if err := r.check(); err != nil {
		return op, err
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		r.Created, r.Updated = tx.Now().UTC(), tx.Now().UTC()
		_, err := repositories.Get(tx, r.Name.String())
		if fault.Is(err, fault.NotFound) {
			have, err := repositories.Count(tx, r.Name.Location.String()+"/repositories/")
			if err != nil {
				return err
			}
			if err := a.cfg.Quotas.Admit(quota.Repositories, r.Name.Location.String(), have); err != nil {
				return err
			}
		}
		_, err = repositories.Create(tx, r.Name.String(), r)
		if fault.Is(err, fault.AlreadyExists) {
			return fault.New(fault.AlreadyExists, "The repository %q already exists in %s.", r.Name.ID, r.Name.Location)
		}
		if err != nil {
			return err
		}
		op, err = a.done(tx, r.Name, "create", r)
		return err
	})
	return op, err
}

// CreateOnPush makes the repository behind a host of Container Registry in a project where there is none yet, as the
// first push there does. Of other repositories, and of one that is there, it changes nothing.
func (a *Artifacts) CreateOnPush(ctx context.Context, name resource.Child) error {
	if !IsLegacy(name) {
		return nil
	}
	_, err := a.CreateRepository(ctx, Repository{Name: name, Format: Docker})
	if fault.Is(err, fault.AlreadyExists) {
		return nil
	}
	return err
}

// UpdateRepository changes what change changes in a repository: its description, labels, tag immutability and cleanup
// policies. It fails with NotFound and InvalidArgument.
func (a *Artifacts) UpdateRepository(
	ctx context.Context, name resource.Child, change func(*Repository),
) (r Repository, err error) {
	defer fault.Wrap(&err, "artifacts.UpdateRepository(%s)", name)
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		have, err := getRepository(tx, name)
		if err != nil {
			return err
		}
		r = have
		change(&r)
		r.Name, r.Format, r.Created, r.Updated = have.Name, have.Format, have.Created, tx.Now().UTC()
		if err := r.check(); err != nil {
			return err
		}
		_, err = repositories.Put(tx, name.String(), r)
		return err
	})
	return r, err
}

// done writes an operation on a repository that has done its work in the same transaction.
func (a *Artifacts) done(tx *store.Tx, target resource.Child, verb string, response any) (operation.Operation, error) {
	name := resource.Operation(target.Project, target.Location.Location, a.cfg.NewID()).String()
	err := operation.Open(tx, operation.Operation{Name: name, Kind: OperationKind, Target: target.String(), Verb: verb})
	if err != nil {
		return operation.Operation{}, err
	}
	if err := operation.Finish(tx, name, response, nil); err != nil {
		return operation.Operation{}, err
	}
	return operation.Get(tx, name)
}

// Repository returns a repository, or NotFound.
func (a *Artifacts) Repository(ctx context.Context, name resource.Child) (r Repository, err error) {
	defer fault.Wrap(&err, "artifacts.Repository(%s)", name)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		r, err = getRepository(tx, name)
		return err
	})
	return r, err
}

// getRepository begins its text as Artifact Registry does, which people search the web for.
func getRepository(tx *store.Tx, name resource.Child) (Repository, error) {
	row, err := repositories.Get(tx, name.String())
	if fault.Is(err, fault.NotFound) {
		err = withReason(ReasonName, fault.NotFound,
			"Repository %q not found. `gcloud artifacts repositories create %s --repository-format=docker --location=%s --project=%s` makes it.",
			name.ID, name.ID, name.Location.Location, name.Project)
	}
	return row.Value, err
}

// Repositories returns the repositories of a project and location by name, after the one called last, at most limit of
// them (all for 0). A "-" for the project or the location stands for all.
func (a *Artifacts) Repositories(
	ctx context.Context, in resource.Location, last string, limit int,
) (out []Repository, err error) {
	defer fault.Wrap(&err, "artifacts.Repositories(%s)", in)
	prefix := "projects/"
	if in.Project != "-" {
		prefix += in.Project + "/"
	}
	err = a.store.View(ctx, func(tx *store.Tx) error {
		rows, err := repositories.List(tx, prefix, last, 0)
		for _, r := range rows {
			if in.Location != "-" && r.Value.Name.Location.Location != in.Location {
				continue
			}
			if out = append(out, r.Value); len(out) == limit {
				break
			}
		}
		return err
	})
	return out, err
}

// Size returns how many bytes the blobs and manifests of a repository have together.
func (a *Artifacts) Size(ctx context.Context, name resource.Child) (n int64, err error) {
	defer fault.Wrap(&err, "artifacts.Size(%s)", name)
	err = a.store.View(ctx, func(tx *store.Tx) error {
		rows, err := blobs.List(tx, name.String()+"/blobs/", "", 0)
		for _, r := range rows {
			n += r.Value.Size
		}
		if err != nil {
			return err
		}
		versions, err := manifests.List(tx, name.String()+"/packages/", "", 0)
		for _, r := range versions {
			n += r.Value.Size
		}
		return err
	})
	return n, err
}

// DeleteRepository removes a repository with all that is in it, and returns the operation of it, which is done.
func (a *Artifacts) DeleteRepository(ctx context.Context, name resource.Child) (op operation.Operation, err error) {
	defer fault.Wrap(&err, "artifacts.DeleteRepository(%s)", name)
	err = a.releasing(ctx, name, func(tx *store.Tx, released func(...blob.Digest)) error {
		if _, err := getRepository(tx, name); err != nil {
			return err
		}
		all, err := inRepository(tx, name)
		if err != nil {
			return err
		}
		released(all...)
		if err := repositories.Delete(tx, name.String()); err != nil {
			return err
		}
		err = errors.Join(
			deleteAll(tx, blobs, name), deleteAll(tx, packages, name), deleteAll(tx, manifests, name),
			deleteAll(tx, tags, name))
		if err != nil {
			return err
		}
		op, err = a.done(tx, name, "delete", struct{}{})
		return err
	})
	return op, err
}

// inRepository is the blobs and manifests that a repository has.
func inRepository(tx *store.Tx, repository resource.Child) (all []blob.Digest, err error) {
	rows, err := blobs.List(tx, repository.String()+"/blobs/", "", 0)
	for _, r := range rows {
		all = append(all, digestIn(r.Name))
	}
	if err != nil {
		return nil, err
	}
	versions, err := manifests.List(tx, repository.String()+"/packages/", "", 0)
	for _, r := range versions {
		all = append(all, r.Value.Digest)
	}
	return all, err
}

// deleteAll removes the rows of one kind that a repository has.
func deleteAll[T any](tx *store.Tx, t store.Table[T], repository resource.Child) error {
	rows, err := t.List(tx, repository.String()+"/", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := t.Delete(tx, r.Name); err != nil {
			return err
		}
	}
	return nil
}
