package run

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"giggle/fault"
	"giggle/operation"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// OperationKind is the kind of a service's operations.
const OperationKind = "run.service"

// Services is the services and revisions of a platform, as the APIs see them: they write intent, a Reconciler does
// the work.
type Services struct {
	store   *store.Store
	newID   func() string
	letters func(n int) string
	gpus    GPUs
	quotas  *quota.Limits

	databases Databases
	account   func(project string) (string, error)
}

// Databases are the Cloud SQL instances of the platform.
type Databases interface {
	// Check fails when containers can have no socket of the instance PROJECT:REGION:INSTANCE.
	Check(tx *store.Tx, name string) error
}

// Config is what NewServices needs.
type Config struct {
	Store   *store.Store
	NewID   func() string      // a UUID
	Letters func(n int) string // n random lower-case letters
	GPUs    GPUs               // what the machine does with services that want one
	Quotas  *quota.Limits      // nil is the usual ones
	// Databases are asked about each that a new revision names; nil takes all.
	Databases Databases
	// DefaultAccount is the address of a project's default service account.
	DefaultAccount func(project string) (string, error)
}

// NewServices returns the services in the store.
func NewServices(c Config) *Services {
	return &Services{
		store:   c.Store,
		newID:   c.NewID,
		letters: c.Letters,
		gpus:    c.GPUs,
		quotas:  c.Quotas,

		databases: c.Databases,
		account:   c.DefaultAccount,
	}
}

// Complete checks a service that somebody wants, and returns it with Cloud Run's defaults where its owner left
// something out. The fault names the field by one of Fields.
func (s *Services) Complete(want Service) (Service, error) {
	if err := want.Validate(); err != nil {
		return want, err
	}
	return s.withDefaults(want)
}

func (s *Services) withDefaults(of Service) (Service, error) {
	account, err := s.account(of.Name.Project)
	if err != nil {
		return of, err
	}
	of.Template = of.Template.WithDefaults(account)
	if len(of.Traffic) == 0 {
		of.Traffic = []Target{{Latest: true, Percent: 100}}
	}
	return of, nil
}

func fromRow(r store.Row[Service]) Service {
	s := r.Value
	s.Version, s.Cursor, s.Created, s.Updated, s.Deleted = r.Version, r.Cursor, r.Created, r.Updated, r.Deleted
	return s
}

// read is fromRow with the defaults written in that older data lacks.
func (s *Services) read(r store.Row[Service]) Service {
	svc, err := s.withDefaults(fromRow(r))
	if err != nil {
		return fromRow(r) // its project is gone, and so will it be
	}
	return svc
}

func fromRevisionRow(r store.Row[Revision]) Revision {
	v := r.Value
	v.Version, v.Cursor, v.Created, v.Updated, v.Deleted = r.Version, r.Cursor, r.Created, r.Updated, r.Deleted
	return v
}

// Get returns a service, or NotFound.
func (s *Services) Get(ctx context.Context, name resource.Child) (out Service, err error) {
	defer fault.Wrap(&err, "run.Services.Get(%s)", name)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		row, err := services.Get(tx, name.String())
		if err == nil {
			out = s.read(row)
		}
		return err
	})
	return out, err
}

// List returns the services of a location ("-" for all of the project) by name, after the one called last, at most
// limit of them, and the cursor to watch from.
func (s *Services) List(
	ctx context.Context, in resource.Location, last string, limit int,
) (out []Service, cursor int64, err error) {
	defer fault.Wrap(&err, "run.Services.List(%s)", in)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := services.List(tx, prefix(in), last, limit)
		for _, r := range rows {
			out = append(out, s.read(r))
		}
		if err != nil {
			return err
		}
		cursor, err = store.Cursor(tx)
		return err
	})
	return out, cursor, err
}

// prefix is the start of the names of all services in a location.
func prefix(in resource.Location) string {
	if in.Location == "-" {
		return "projects/" + in.Project + "/locations/"
	}
	return in.String() + "/services/"
}

// Create makes a service by the wish of a principal's e-mail address, with its first revision. It fails with
// AlreadyExists, or with InvalidArgument and the path of the field.
func (s *Services) Create(ctx context.Context, want Service, by string) (out Service, err error) {
	defer fault.Wrap(&err, "run.Services.Create(%s)", want.Name)
	if want, err = s.Complete(want); err != nil {
		return Service{}, err
	}
	if strings.Contains(want.Name.ID, TagMark) { // in a host name it stands between a tag and its service
		return Service{}, invalid(FieldName,
			"%q must not have %q in it: so the hosts of tags are told from those of services", want.Name.ID, TagMark)
	}
	want.UID, want.Generation, want.Creator, want.LastModifier, want.Status = s.newID(), 1, by, by, Status{}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		switch _, err := services.Get(tx, want.Name.String()); {
		case err == nil:
			return fault.New(fault.AlreadyExists, "Resource '%s' already exists.", want.Name.ID)
		case !fault.Is(err, fault.NotFound):
			return err
		}
		have, err := services.Count(tx, prefix(want.Name.Location))
		if err != nil {
			return err
		}
		if err := s.quotas.Admit(quota.Services, want.Name.Location.String(), have); err != nil {
			return err
		}
		if err := s.intend(tx, &want, nil, "create", by); err != nil {
			return err
		}
		row, err := services.Create(tx, want.Name.String(), want)
		out = fromRow(row)
		return err
	})
	return out, err
}

// Replace changes a service to what is wanted. Version, when not 0, must be the service's present one, or the call
// fails with Aborted. A changed template makes a new revision; an unchanged one does not.
func (s *Services) Replace(ctx context.Context, want Service, by string) (out Service, err error) {
	defer fault.Wrap(&err, "run.Services.Replace(%s)", want.Name)
	if want, err = s.Complete(want); err != nil {
		return Service{}, err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := services.Get(tx, want.Name.String())
		if err != nil {
			return err
		}
		have := s.read(row)
		if want.Version != 0 && want.Version != have.Version {
			// The same change once more: its answer was lost with a connection, or with the platform. gcloud 528 sends it
			// again and would tell its user of a conflict. It is known by what gcloud puts into each change.
			if want.Version == have.Version-1 && have.Since == have.Version && have.LastModifier == by &&
				sameSpec(&want, &have) && want.Template.Labels[nonceLabel] != "" {
				out = have
				return nil
			}
			return conflict(want.Name.ID, want.Version, have.Version)
		}
		want.UID, want.Creator, want.Status, want.Generation = have.UID, have.Creator, have.Status, have.Generation
		want.LastModifier, want.Since = by, have.Since
		if !sameSpec(&want, &have) {
			want.Generation++
			want.Since = have.Version + 1
		}
		if err := s.intend(tx, &want, &have, "update", by); err != nil {
			return err
		}
		row.Value = want
		row, err = services.Update(tx, row)
		out = fromRow(row)
		return err
	})
	return out, err
}

// nonceLabel is a label of a template that gcloud 528 gives a value of its own for each change.
const nonceLabel = "client.knative.dev/nonce"

// sameSpec reports whether two versions of a service ask for the same.
func sameSpec(a, b *Service) bool {
	return sameJSON(a.Template, b.Template) && sameJSON(a.Traffic, b.Traffic) && a.Scaling == b.Scaling &&
		a.Ingress == b.Ingress && a.InvokerIAMDisabled == b.InvokerIAMDisabled &&
		slices.Equal(a.CustomAudiences, b.CustomAudiences)
}

// sameJSON compares what would be stored, so that nil and empty are the same.
func sameJSON(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && reflect.DeepEqual(strip(x), strip(y))
}

// strip decodes JSON and drops empty values.
func strip(b []byte) any {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return nil
	}
	return stripped(v)
}

func stripped(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if e = stripped(e); e == nil {
				delete(x, k)
			} else {
				x[k] = e
			}
		}
		if len(x) == 0 {
			return nil
		}
	case []any:
		if len(x) == 0 {
			return nil
		}
		for i := range x {
			x[i] = stripped(x[i])
		}
	case string:
		if x == "" {
			return nil
		}
	}
	return v
}

// intend writes what goes with a change of a service: its revision, if the template is a new one, and its operation.
func (s *Services) intend(tx *store.Tx, want, have *Service, verb, by string) error {
	if have == nil || !sameJSON(want.Template, have.Template) {
		if err := s.revise(tx, want, by); err != nil {
			return err
		}
	}
	if have != nil && want.Generation == have.Generation {
		return nil // labels and the like: there is nothing to wait for
	}
	op := resource.Operation(want.Name.Project, want.Name.Location.Location, s.newID())
	want.Status.Operation = op.String()
	meta, err := json.Marshal(map[string]string{"target": want.Name.String(), "verb": verb})
	if err != nil {
		return err
	}
	return operation.Open(tx, operation.Operation{
		Name:     op.String(),
		Kind:     OperationKind,
		Target:   want.Name.String(),
		Verb:     verb,
		Metadata: meta,
	})
}

// revise makes the revision of a service's template.
func (s *Services) revise(tx *store.Tx, want *Service, by string) error {
	id := want.Template.Revision
	if id == "" {
		id = fmt.Sprintf("%s-%05d-%s", want.Name.ID, want.Generation, s.letters(3))
	}
	rev := Revision{
		Name:       resource.Revision{Service: want.Name, ID: id},
		UID:        s.newID(),
		Generation: want.Generation,
		Creator:    by,
		Template:   want.Template,
		Status: RevisionStatus{
			Conditions: []Condition{{Type: Ready, State: Unknown, Reason: "Deploying", Since: tx.Now()}},
		},
	}
	rev.Template.Revision = ""
	for _, name := range rev.Template.CloudSQL.Instances {
		if s.databases == nil {
			break
		}
		if err := s.databases.Check(tx, name); err != nil {
			return err
		}
	}
	if err := s.gpus.admit(want, &rev.Template); err != nil {
		return err
	}
	rev.Status.Conditions = append(rev.Status.Conditions, s.gpus.condition(&rev.Template, tx.Now())...)
	have, err := revisions.Get(tx, rev.Name.String())
	switch {
	case err == nil && sameJSON(have.Value.Template, rev.Template):
	case err == nil:
		return fault.New(fault.AlreadyExists, "Revision named '%s' with different configuration already exists.", id)
	case fault.Is(err, fault.NotFound):
		if err := s.makeRoom(tx, want); err != nil {
			return err
		}
		if _, err := revisions.Create(tx, rev.Name.String(), rev); err != nil {
			return err
		}
	default:
		return err
	}
	want.Status.LatestCreated = id
	return nil
}

// makeRoom removes a service's oldest revisions where it has as many as it may, as Cloud Run does: those that get no
// traffic and have no tag, now or by what is wanted. It fails with ResourceExhausted when there are none of that kind.
func (s *Services) makeRoom(tx *store.Tx, want *Service) error {
	of := resource.Revision{Service: want.Name}.String()
	have, err := revisions.Count(tx, of)
	over := have + 1 - s.quotas.Of(quota.Revisions)
	if err != nil || over <= 0 {
		return err
	}
	rows, err := revisions.List(tx, of, "", 0)
	if err != nil {
		return err
	}
	needed := map[string]bool{want.Status.LatestCreated: true, want.Status.LatestReady: true}
	for _, t := range append(targetsOf(want.Status.Traffic), want.Traffic...) {
		needed[t.Revision] = true
	}
	slices.SortFunc(rows, func(a, b store.Row[Revision]) int { return a.Created.Compare(b.Created) })
	for _, r := range rows {
		if over == 0 || needed[r.Value.Name.ID] {
			continue
		}
		if err := revisions.Delete(tx, r.Name); err != nil {
			return err
		}
		over--
	}
	if over > 0 {
		return s.quotas.Admit(quota.Revisions, want.Name.String(), have)
	}
	return nil
}

// Delete removes a service; the reconciler stops its instances and removes its revisions. Version, when not 0, must be
// the service's present one, or the call fails with Aborted. It fails with NotFound. The operation that it returns is
// done, and its response is the service as it was.
func (s *Services) Delete(ctx context.Context, name resource.Child, version int64) (op operation.Operation, err error) {
	defer fault.Wrap(&err, "run.Services.Delete(%s)", name)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := services.Get(tx, name.String())
		if err != nil {
			return err
		}
		if version != 0 && version != row.Version {
			return conflict(name.ID, version, row.Version)
		}
		if op := row.Value.Status.Operation; op != "" {
			if err := operation.Finish(tx, op, nil, fault.New(fault.Canceled, "The service was deleted.")); err != nil {
				return err
			}
		}
		if op, err = s.deleted(tx, name.Location, name.String(), row.Value); err != nil {
			return err
		}
		return services.Delete(tx, name.String())
	})
	return op, err
}

func conflict(id string, want, have int64) error {
	return fault.New(fault.Aborted,
		"Conflict for resource '%s': version '%d' was specified but current version is '%d'. Read the service again and repeat the change.",
		id, want, have)
}

// deleted writes the operation of a deletion, which is done when it is written.
func (s *Services) deleted(tx *store.Tx, in resource.Location, name string, was any) (operation.Operation, error) {
	op := operation.Operation{
		Name:   resource.Operation(in.Project, in.Location, s.newID()).String(),
		Kind:   OperationKind,
		Target: name,
		Verb:   "delete",
	}
	var err error
	if op.Metadata, err = json.Marshal(map[string]string{"target": name, "verb": op.Verb}); err != nil {
		return op, err
	}
	if err := operation.Open(tx, op); err != nil {
		return op, err
	}
	if err := operation.Finish(tx, op.Name, was, nil); err != nil {
		return op, err
	}
	return operation.Get(tx, op.Name)
}

// GetRevision returns a revision of a location by its id, or NotFound.
func (s *Services) GetRevision(ctx context.Context, in resource.Location, id string) (out Revision, err error) {
	defer fault.Wrap(&err, "run.Services.GetRevision(%s, %s)", in, id)
	all, _, err := s.ListRevisions(ctx, in)
	if err != nil {
		return Revision{}, err
	}
	for _, r := range all {
		if r.Name.ID == id {
			return r, nil
		}
	}
	return Revision{}, fault.New(fault.NotFound, "Revision '%s' was not found.", id)
}

// ListRevisions returns the revisions of a location, by service, oldest first, and the cursor to watch from.
func (s *Services) ListRevisions(ctx context.Context, in resource.Location) (out []Revision, cursor int64, err error) {
	defer fault.Wrap(&err, "run.Services.ListRevisions(%s)", in)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := revisions.List(tx, prefix(in), "", 0)
		for _, r := range rows {
			out = append(out, fromRevisionRow(r))
		}
		if err != nil {
			return err
		}
		cursor, err = store.Cursor(tx)
		return err
	})
	return out, cursor, err
}

// DeleteRevision removes a revision that no traffic and no tag needs. It fails with FailedPrecondition otherwise. The
// operation that it returns is done, and its response is the revision as it was.
func (s *Services) DeleteRevision(ctx context.Context, name resource.Revision) (op operation.Operation, err error) {
	defer fault.Wrap(&err, "run.Services.DeleteRevision(%s)", name)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := revisions.Get(tx, name.String())
		if err != nil {
			return err
		}
		svc, err := services.Get(tx, name.Service.String())
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err == nil {
			if svc.Value.Status.LatestCreated == name.ID {
				return fault.New(fault.FailedPrecondition,
					"Revision '%s' can't be deleted: it is the latest of service '%s'.", name.ID, name.Service.ID)
			}
			for _, t := range append(targetsOf(svc.Value.Status.Traffic), svc.Value.Traffic...) {
				if t.Revision == name.ID {
					return fault.New(fault.FailedPrecondition,
						"Revision '%s' can't be deleted: service '%s' sends traffic or a tag to it.", name.ID,
						name.Service.ID)
				}
			}
		}
		if op, err = s.deleted(tx, name.Service.Location, name.String(), row.Value); err != nil {
			return err
		}
		return revisions.Delete(tx, name.String())
	})
	return op, err
}

func targetsOf(ts []TargetStatus) []Target {
	out := make([]Target, len(ts))
	for i, t := range ts {
		out[i] = t.Target
	}
	return out
}

// Events follows the services of a location from a cursor: each call of the returned function blocks until there is
// a change and returns all of them, deletions included. It fails with OutOfRange when the cursor is too old.
func (s *Services) Events(
	ctx context.Context, in resource.Location, cursor int64,
) (next func() ([]Service, error), stop func()) {
	return follow(ctx, s.store, services, prefix(in), cursor, s.read)
}

// RevisionEvents is Events for revisions.
func (s *Services) RevisionEvents(
	ctx context.Context, in resource.Location, cursor int64,
) (next func() ([]Revision, error), stop func()) {
	return follow(ctx, s.store, revisions, prefix(in), cursor, fromRevisionRow)
}

func follow[T any](
	ctx context.Context, st *store.Store, t store.Table[T], prefix string, cursor int64, from func(store.Row[T]) T,
) (func() ([]T, error), func()) {
	w := st.Watch(t.Kind())
	return func() ([]T, error) {
		for {
			select {
			case <-w.C:
			case <-w.HangUp:
				return nil, store.ErrStopping
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			var out []T
			err := st.View(ctx, func(tx *store.Tx) error {
				rows, now, err := t.Changes(tx, prefix, cursor)
				cursor = now
				for _, r := range rows {
					out = append(out, from(r))
				}
				return err
			})
			if err != nil || len(out) > 0 {
				return out, err
			}
		}
	}, w.Close
}

// serviceOf returns the name of the service that a revision's full name belongs to.
func serviceOf(revision string) string {
	name, _, _ := strings.Cut(revision, "/revisions/")
	return name
}

// Count returns how many services a project has.
func (s *Services) Count(ctx context.Context, project string) (n int, err error) {
	defer fault.Wrap(&err, "run.Services.Count(%s)", project)
	err = s.store.View(ctx, func(tx *store.Tx) (err error) {
		n, err = services.Count(tx, prefix(resource.Location{Project: project, Location: "-"}))
		return err
	})
	return n, err
}

// Gone follows the deletions of revisions from now on: each call of the returned function blocks until there are some
// and returns their images, as Images does.
func (s *Services) Gone(ctx context.Context) (next func() ([]string, error), stop func(), err error) {
	defer fault.Wrap(&err, "run.Services.Gone")
	var cursor int64
	err = s.store.View(ctx, func(tx *store.Tx) (err error) {
		cursor, err = store.Cursor(tx)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	changed, stop := follow(ctx, s.store, revisions, "projects/", cursor, fromRevisionRow)
	return func() (images []string, err error) {
		for len(images) == 0 {
			all, err := changed()
			if err != nil {
				return nil, err
			}
			for _, r := range all {
				if image := r.Status.ImageDigest; r.Deleted && image != "" {
					images = append(images, image)
				}
			}
		}
		return images, nil
	}, stop, nil
}

// Images returns the images that revisions run, by digest ("HOST/REPO@sha256:…"), each as often as it is used.
func (s *Services) Images(ctx context.Context) (out []string, err error) {
	defer fault.Wrap(&err, "run.Services.Images")
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := revisions.List(tx, "", "", 0)
		for _, r := range rows {
			if image := r.Value.Status.ImageDigest; image != "" {
				out = append(out, image)
			}
		}
		return err
	})
	return out, err
}
