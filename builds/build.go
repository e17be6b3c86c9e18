// Package builds is Cloud Build's domain: builds as rows, and the scheduler that runs them a few at a time.
//
// A build is steps. A deploy from source is a build with one step that is built in (Builtin): it is submitted, queued
// and run like any other. The API's wire forms are in api/cloudbuild and api/runv2. How steps run is the business of
// Steps (builds/steps); where sources, logs and images are is behind interfaces that storage and artifacts fill.
package builds

import (
	"context"
	"encoding/json"
	"time"

	"giggle/fault"
	"giggle/operation"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// Status is where a build is. The values are those of google.devtools.cloudbuild.v1.Build.Status.
type Status string

// The states of a build.
const (
	Pending       Status = "PENDING" // waits for an approval
	Queued        Status = "QUEUED"
	Working       Status = "WORKING"
	Success       Status = "SUCCESS"
	Failure       Status = "FAILURE"
	InternalError Status = "INTERNAL_ERROR"
	Timeout       Status = "TIMEOUT"
	Cancelled     Status = "CANCELLED"
	Expired       Status = "EXPIRED" // waited longer than its queueTtl
)

// Terminal reports whether a build in this state has ended.
func (s Status) Terminal() bool { return s != Pending && s != Queued && s != Working }

// OperationKind is the kind of a build's operation. An operation's id is its build's id: gcloud 528 asks for it so.
const OperationKind = "build"

// Build is one build.
type Build struct {
	Name     resource.Child // "projects/P/locations/L/builds/ID"
	Project  string         // id
	Status   Status
	Detail   string // why it ended so, for people
	Source   Source
	Spec     Spec // with its substitutions in place
	Given    Spec // as it was asked for
	Tags     []string
	Account  string // e-mail address of the service account that it runs as
	Creator  string // e-mail address of who asked for it
	Timeout  time.Duration
	Usual    bool   // no timeout was given: it is the usual one, which the steps' own may exceed
	LogsIn   string // bucket of the log object
	LogsDir  string // directory in it, "" or with a slash at its end
	Started  time.Time
	Finished time.Time
	Steps    []StepStatus // by the index in Spec.Steps
	Images   []Pushed     // that are pushed
	Objects  int          // files uploaded
	Manifest string       // URL of the list of them, "gs://BUCKET/OBJECT"
	Uploaded Span         // when they were
	Hashes   []Hash       // of the source's archive, as Spec.Options asks for
	Approval *Approval
	Trigger  string // id of the trigger that asked for it, or ""

	Created time.Time `json:"-"`
	Version int64     `json:"-"`
}

// Span is from when to when something was done.
type Span struct{ Started, Finished time.Time }

// Hash is a hash of a file. The kinds are those of google.devtools.cloudbuild.v1.Hash.HashType.
type Hash struct {
	Kind  string
	Value []byte
}

// Source is an uploaded archive: one generation of a storage object.
type Source struct {
	Bucket     string
	Object     string
	Generation int64  // 0 for the newest
	Fetcher    string // how Cloud Build is to fetch it, GSUTIL or GCS_FETCHER; it is only shown
	Repo       *Repo  // in place of an object
}

// Repo is a commit of one of the project's repositories.
type Repo struct {
	Name   string
	Commit string // its full hash
	Branch string // or Tag, by which it was named, or neither
	Tag    string
	Dir    string // in it that the steps run in, relative to its root
}

// given reports whether there is any source.
func (s *Source) given() bool { return s.Bucket != "" || s.Repo != nil }

// LogObject is the name of a build's log in its bucket, as gcloud 528 makes it from the build's id.
func (b *Build) LogObject() string { return b.LogsDir + "log-" + b.Name.ID + ".txt" }

// Limits of a build's time, from the API reference.
const (
	DefaultTimeout = 60 * time.Minute
	MaxTimeout     = 24 * time.Hour
)

var builds = store.NewTable[Build]("build.build", "Build").By(func(_ string, b Build) string {
	switch b.Status {
	case Working:
		return working
	case Pending, Queued:
		return queued + b.Project
	}
	return ""
})

// What the table's index has builds under that have not ended: all that work, and those of each project that wait.
const (
	working = "working"
	queued  = "queued/"
)

// Builds is the builds of a platform, as the APIs see them.
type Builds struct {
	Quotas *quota.Limits // nil is the usual ones

	store *store.Store
	newID func() string
}

// New returns the builds in the store. newID makes UUIDs.
func New(st *store.Store, newID func() string) *Builds { return &Builds{store: st, newID: newID} }

func fromRow(r store.Row[Build]) Build {
	b := r.Value
	b.Created, b.Version = r.Created, r.Version
	return b
}

// open writes a new build and its operation.
func (s *Builds) open(ctx context.Context, b Build) (out Build, err error) {
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := s.add(tx, b)
		out = fromRow(row)
		return err
	})
	return out, err
}

// add writes a new build and its operation.
func (s *Builds) add(tx *store.Tx, b Build) (store.Row[Build], error) {
	have, err := builds.CountBy(tx, queued+b.Project, s.Quotas.Of(quota.Builds))
	if err != nil {
		return store.Row[Build]{}, err
	}
	if err := s.Quotas.Admit(quota.Builds, "project "+b.Project, have); err != nil {
		return store.Row[Build]{}, err
	}
	row, err := builds.Create(tx, b.Name.String(), b)
	if err != nil {
		return row, err
	}
	op := resource.Operation(b.Name.Project, b.Name.Location.Location, b.Name.ID)
	meta, err := json.Marshal(b.Name.String())
	if err != nil {
		return row, err
	}
	return row, operation.Open(tx, operation.Operation{
		Name:     op.String(),
		Kind:     OperationKind,
		Target:   b.Name.String(),
		Verb:     "build",
		Metadata: meta,
	})
}

// Get returns a build, or NotFound.
func (s *Builds) Get(ctx context.Context, name resource.Child) (b Build, err error) {
	defer fault.Wrap(&err, "builds.Get(%s)", name)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		row, err := builds.Get(tx, name.String())
		b = fromRow(row)
		return err
	})
	return b, err
}

// List returns the builds of a location ("-" for all), newest first.
func (s *Builds) List(ctx context.Context, in resource.Location) (out []Build, err error) {
	defer fault.Wrap(&err, "builds.List(%s)", in)
	prefix := in.String() + "/builds/"
	if in.Location == "-" {
		prefix = "projects/" + in.Project + "/locations/"
	}
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := builds.List(tx, prefix, "", 0)
		for _, r := range rows {
			out = append(out, fromRow(r))
		}
		return err
	})
	newestFirst(out)
	return out, err
}

// Oldest returns when the oldest of the builds that are being worked on was made, and whether there is any.
func (s *Builds) Oldest(ctx context.Context) (oldest time.Time, any bool, err error) {
	defer fault.Wrap(&err, "builds.Oldest")
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := builds.ListBy(tx, working)
		for _, r := range rows {
			if !any || r.Created.Before(oldest) {
				oldest, any = r.Created, true
			}
		}
		return err
	})
	return oldest, any, err
}

// Cancel ends a build that has not ended: a queued one at once, a working one as soon as its container is stopped. It
// fails with FailedPrecondition on one that has ended.
func (s *Builds) Cancel(ctx context.Context, name resource.Child) (b Build, err error) {
	defer fault.Wrap(&err, "builds.Cancel(%s)", name)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := builds.Get(tx, name.String())
		if err != nil {
			return err
		}
		if row.Value.Status.Terminal() {
			return fault.New(fault.FailedPrecondition, "Cannot cancel build %s: it has ended (%s).", name.ID,
				row.Value.Status)
		}
		b, err = end(tx, row, Cancelled, "Build was cancelled.")
		return err
	})
	return b, err
}

// end writes a build's terminal state and closes its operation, in one transaction.
func end(tx *store.Tx, row store.Row[Build], status Status, detail string) (Build, error) {
	row.Value.Status, row.Value.Detail, row.Value.Finished = status, detail, tx.Now()
	for i := range row.Value.Steps { // none runs on in an ended build
		if t := &row.Value.Steps[i]; t.Status == Working {
			t.Status, t.Finished = Cancelled, tx.Now()
		}
	}
	row, err := builds.SetStatus(tx, row)
	if err != nil {
		return Build{}, err
	}
	b := row.Value
	op := resource.Operation(b.Name.Project, b.Name.Location.Location, b.Name.ID)
	// gcloud 528 crashes on the response of a source build that failed; the operation's error it prints.
	var failure error
	switch status {
	case Success:
	case Expired:
		failure = fault.New(fault.DeadlineExceeded, "Build %s waited longer than its queueTtl.", b.Name.ID)
	case Cancelled:
		failure = fault.New(fault.Canceled, "Build %s was cancelled.", b.Name.ID)
	default:
		failure = fault.New(fault.FailedPrecondition, "Build failed; check build logs for details. %s", detail)
	}
	return fromRow(row), operation.Finish(tx, op.String(), b.Name.String(), failure)
}
