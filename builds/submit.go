package builds

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// Request is a build that is asked for.
type Request struct {
	Spec    Spec
	ID      string // of the build; "" for a new one. One that is there already is AlreadyExists
	Trigger string // id of the trigger that asks, or ""
	Source  Source // none, when the bucket is "" and there is no repository
	Tags    []string
	Timeout time.Duration
	Creator string // e-mail address

	ProjectNumber string
	LogsIn        string // the platform's own bucket of logs
	// Account returns the e-mail address of the account that the build runs as, of the spec's account with its
	// substitutions in place. It fails when the caller may not act as it.
	Account func(ctx context.Context, given string) (email string, err error)
	// NeedsApproval holds the build until it is approved.
	NeedsApproval bool
}

// Approval is what was decided on a build that needs one.
type Approval struct {
	Rejected bool
	Approver string // e-mail address; "" while it is pending
	Time     time.Time
	Comment  string
	URL      string
}

// Submit checks a build, puts its substitutions in place and queues it. It fails with InvalidArgument and
// the path of the field, before anything runs.
func (s *Builds) Submit(ctx context.Context, in resource.Location, r Request) (out Build, err error) {
	defer fault.Wrap(&err, "builds.Submit(%s)", in)
	if r.ID == "" {
		r.ID = s.newID()
	}
	b, err := r.build(ctx, in)
	if err != nil {
		return Build{}, err
	}
	return s.open(ctx, b)
}

// Check fails as Submit does, and nothing is queued.
func (r Request) Check(ctx context.Context, in resource.Location) error {
	_, err := r.build(ctx, in)
	return err
}

// build is the build that a request comes to.
func (r Request) build(ctx context.Context, in resource.Location) (Build, error) {
	limit := r.Timeout // of each step; none where the build has only the usual one
	if limit == 0 {
		r.Timeout = DefaultTimeout
	}
	if r.Timeout < 0 || r.Timeout > MaxTimeout {
		return Build{}, fault.Invalid("timeout", "must be at most 24 hours")
	}
	if r.Source.Bucket == "" != (r.Source.Object == "") {
		return Build{}, fault.Invalid("source.storageSource", "bucket and object are needed")
	}
	if !r.Source.given() && r.Spec.BuiltIn() != nil {
		return Build{}, fault.Invalid("source", "an image can't be made of no source")
	}
	given := r.Spec.clone()
	if err := given.checkSubstitutions(); err != nil {
		return Build{}, err
	}
	b := Build{
		Name:    resource.Build(in.Project, in.Location, r.ID),
		Project: in.Project,
		Status:  Queued,
		Source:  r.Source,
		Creator: r.Creator,
		Trigger: r.Trigger,
		Timeout: r.Timeout,
		Usual:   limit == 0,
		LogsIn:  r.LogsIn,
		Given:   given,
		Tags:    r.Tags,
	}
	own := map[string]string{"PROJECT_ID": in.Project, "PROJECT_NUMBER": r.ProjectNumber, "BUILD_ID": b.Name.ID,
		"LOCATION": in.Location}
	// The account comes first: other fields may name it.
	x := &expander{values: map[string]string{}, loose: true, dynamic: given.Options.Dynamic, used: map[string]bool{}}
	maps.Copy(x.values, given.Substitutions)
	maps.Copy(x.values, own)
	if x.dynamic {
		if err := x.evaluate(slices.Sorted(maps.Keys(given.Substitutions))); err != nil {
			return Build{}, err
		}
	}
	account, err := x.text("serviceAccount", given.Account)
	if err != nil {
		return Build{}, err
	}
	if b.Account, err = r.Account(ctx, account); err != nil {
		return Build{}, err
	}
	own["SERVICE_ACCOUNT_EMAIL"], own["SERVICE_ACCOUNT"] = b.Account, "projects/"+in.Project+"/serviceAccounts/"+
		b.Account
	if b.Spec, b.Tags, err = given.expand(own, r.Tags, x.used); err != nil {
		return Build{}, err
	}
	b.Spec.Account = account
	if err := b.Spec.check(limit); err != nil {
		return Build{}, err
	}
	b.Tags = cleanTags(b.Tags)
	if err := checkTags(b.Tags); err != nil {
		return Build{}, err
	}
	if err := b.placeLog(); err != nil {
		return Build{}, err
	}
	b.Steps = make([]StepStatus, len(b.Spec.Steps))
	if r.NeedsApproval {
		b.Status, b.Approval = Pending, &Approval{}
	}
	return b, nil
}

// placeLog says where the log goes: to the user's bucket, else to the platform's own. CLOUD_LOGGING_ONLY keeps the log
// in the bucket, too, where gcloud finds it; NONE keeps none.
func (b *Build) placeLog() error {
	logging := b.Spec.Options.Logging
	none := logging == LoggingNone || logging == LoggingCloud || logging == loggingOld
	switch {
	case b.Spec.LogsBucket != "":
		bucket, dir, ok := SplitGS(b.Spec.LogsBucket)
		if !ok {
			bucket, dir, _ = strings.Cut(b.Spec.LogsBucket, "/")
		}
		if bucket == "" {
			return fault.Invalid("logsBucket", "%.100q is not gs://BUCKET", b.Spec.LogsBucket)
		}
		if dir = strings.Trim(dir, "/"); dir != "" {
			dir += "/"
		}
		b.LogsIn, b.LogsDir = bucket, dir
	case b.Spec.Account != "" && !none:
		return fault.New(fault.InvalidArgument,
			"if 'build.service_account' is specified, the build must either (a) specify 'build.logs_bucket', "+
				"(b) use the REGIONAL_USER_OWNED_BUCKET build.options.default_logs_bucket_behavior option, or (c) use either CLOUD_LOGGING_ONLY / NONE logging options")
	}
	if logging == LoggingNone {
		b.LogsIn, b.LogsDir = "", ""
	}
	return nil
}

// LogsEntries reports whether the lines of the build's log are entries in Cloud Logging, too: they are unless its
// options say GCS_ONLY or NONE (https://cloud.google.com/build/docs/api/reference/rest/v1/projects.builds#loggingmode).
func (b *Build) LogsEntries() bool {
	return b.Spec.Options.Logging != loggingBucket && b.Spec.Options.Logging != LoggingNone
}

// Refuse records a build that could not begin, as a failure with a reason: what asked for it is not there to be told.
func (s *Builds) Refuse(ctx context.Context, in resource.Location, r Request, why string) (out Build, err error) {
	defer fault.Wrap(&err, "builds.Refuse(%s)", in)
	b := Build{
		Name:    resource.Build(in.Project, in.Location, r.ID),
		Project: in.Project,
		Status:  Queued,
		Source:  r.Source,
		Creator: r.Creator,
		Trigger: r.Trigger,
		Timeout: DefaultTimeout,
		Tags:    r.Tags,
		Spec:    Spec{Substitutions: r.Spec.Substitutions},
	}
	b.Given = b.Spec.clone()
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := s.add(tx, b)
		if err != nil {
			return err
		}
		out, err = end(tx, row, Failure, why)
		return err
	})
	return out, err
}

// Again returns the request of a build, to be submitted again. It fails with FailedPrecondition on one that has not
// ended.
func (b *Build) Again() (Request, error) {
	if !b.Status.Terminal() {
		return Request{}, fault.New(fault.FailedPrecondition, "Build %s has not ended.", b.Name.ID)
	}
	r := Request{
		Spec:          b.Given.clone(),
		Source:        b.Source,
		Trigger:       b.Trigger,
		Tags:          slices.Clone(b.Tags),
		Timeout:       b.Timeout,
		NeedsApproval: b.Approval != nil,
	}
	if b.Usual {
		r.Timeout = 0
	}
	return r, nil
}

// Approve decides on a build that waits for an approval. It fails with FailedPrecondition on one that does not.
func (s *Builds) Approve(ctx context.Context, name resource.Child, a Approval) (b Build, err error) {
	defer fault.Wrap(&err, "builds.Approve(%s)", name)
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		row, err := builds.Get(tx, name.String())
		if err != nil {
			return err
		}
		if row.Value.Status != Pending {
			return fault.New(fault.FailedPrecondition, "Build %s does not wait for an approval: it is %s.", name.ID,
				row.Value.Status)
		}
		a.Time = tx.Now()
		row.Value.Approval = &a
		if a.Rejected {
			b, err = end(tx, row, Cancelled, "The build was rejected.")
			return err
		}
		row.Value.Status = Queued
		row, err = builds.SetStatus(tx, row)
		b = fromRow(row)
		return err
	})
	return b, err
}
