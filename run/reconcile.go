package run

import (
	"context"
	"log/slog"

	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/store"
)

// Resolver resolves image references.
type Resolver interface {
	// Resolve returns the reference with its tag replaced by a digest, "HOST/REPO@sha256:…", or a fault whose message
	// says what is wrong with it.
	Resolve(ctx context.Context, project, ref string) (string, error)
}

// Instances runs containers of revisions.
type Instances interface {
	// EnsureInstance starts an instance of the revision and returns nil once its startup probe succeeds. A fault's
	// Reason and Message are those of the condition. The instance stays, for the requests to come.
	EnsureInstance(ctx context.Context, rev Revision) error
	// Drop stops all instances of a revision that no route leads to any more. It returns at once.
	Drop(name resource.Revision)
}

// Routes takes the routing table.
type Routes interface {
	// Publish makes the route effective for the next request.
	Publish(r Route)
	// Remove takes a service out of the table.
	Remove(service resource.Child)
}

// Route says where the requests for one service go.
type Route struct {
	Service            resource.Child
	Hosts              []string // all hosts of the service itself
	Ingress            Ingress
	InvokerIAMDisabled bool
	CustomAudiences    []string            // of ID tokens, besides the hosts
	Targets            []RouteTarget       // their percents add up to 100
	Tags               map[string]Revision // by tag; its hosts are TagHost(tag, host)
	Scaling            Scaling             // of the whole service, over the instances of all its targets
}

// RouteTarget is one revision that takes a share of the requests.
type RouteTarget struct {
	Revision
	Percent int
}

// ReconcilerConfig is what a Reconciler needs.
type ReconcilerConfig struct {
	Services  *Services
	Images    Resolver
	Instances Instances
	Routes    Routes
	Project   resource.FindProject
	Log       *slog.Logger
}

// Reconciler makes true what services ask for, and says in their status how far it is. It is level-triggered: each
// step reads everything, computes, acts and writes status, and running it again changes nothing.
type Reconciler struct{ ReconcilerConfig }

// NewReconciler returns a Reconciler, which works while it is run.
func NewReconciler(cfg ReconcilerConfig) *Reconciler { return &Reconciler{cfg} }

// maxBringingUp is how many revisions are brought up at once; the rest wait for their turn.
const maxBringingUp = 8

// Run reconciles until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	w := r.Services.store.Watch(services.Kind(), revisions.Kind())
	defer w.Close()
	svcQueue := newQueue(ctx, 2, r.Log, r.reconcileService)
	revQueue := newQueue(ctx, maxBringingUp, r.Log, r.reconcileRevision)
	defer svcQueue.wait()
	defer revQueue.wait()
	var svcCursor, revCursor int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.C:
		}
		err := r.Services.store.View(ctx, func(tx *store.Tx) error {
			svcs, next, err := changes(tx, services, svcCursor)
			if err != nil {
				return err
			}
			svcCursor = next
			for _, s := range svcs {
				svcQueue.add(s.Name)
			}
			revs, next, err := changes(tx, revisions, revCursor)
			if err != nil {
				return err
			}
			revCursor = next
			for _, v := range revs {
				svcQueue.add(serviceOf(v.Name))
				revQueue.add(v.Name)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// changes is Table.Changes for a reader that wants all keys again when its cursor is too old.
func changes[T any](tx *store.Tx, t store.Table[T], cursor int64) ([]store.Row[T], int64, error) {
	rows, next, err := t.Changes(tx, "", cursor)
	if fault.Is(err, fault.OutOfRange) {
		return t.Changes(tx, "", 0)
	}
	return rows, next, err
}

// PublishAll puts every service's route into the table as its status says, so that a platform that starts serves
// before the first reconcile.
func (r *Reconciler) PublishAll(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "run.Reconciler.PublishAll")
	return r.Services.store.View(ctx, func(tx *store.Tx) error {
		rows, err := services.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		for _, row := range rows {
			revs, err := concerned(tx, &row.Value)
			if err != nil {
				return err
			}
			if err := r.publish(row.Value, revs); err != nil {
				return err
			}
		}
		return nil
	})
}

// concerned returns those of a service's revisions, by id, that its status and its route depend on. There may be a
// thousand others.
func concerned(tx *store.Tx, svc *Service) (map[string]Revision, error) {
	ids := []string{svc.Status.LatestCreated, svc.Status.LatestReady}
	for _, t := range svc.Traffic {
		ids = append(ids, t.Revision)
	}
	for _, t := range svc.Status.Traffic {
		ids = append(ids, t.Revision)
	}
	out := make(map[string]Revision)
	for _, id := range ids {
		if _, read := out[id]; read || id == "" {
			continue
		}
		row, err := revisions.Get(tx, resource.Revision{Service: svc.Name, ID: id}.String())
		switch {
		case fault.Is(err, fault.NotFound):
		case err != nil:
			return nil, err
		default:
			out[id] = fromRevisionRow(row)
		}
	}
	return out, nil
}

// reconcileRevision resolves a new revision's image and tries whether it starts.
func (r *Reconciler) reconcileRevision(ctx context.Context, name string) error {
	var rev Revision
	err := r.Services.store.View(ctx, func(tx *store.Tx) error {
		row, err := revisions.Get(tx, name)
		rev = fromRevisionRow(row)
		return err
	})
	if fault.Is(err, fault.NotFound) {
		n, err := resource.ParseRevision(name)
		if err == nil {
			r.Instances.Drop(n)
		}
		return err
	}
	if err != nil {
		return err
	}
	if r.Services.gpus.correct(&rev.Template, &rev.Status, r.Services.store.Now()) {
		if err := r.setRevision(ctx, rev,
			func(s *RevisionStatus) { r.Services.gpus.correct(&rev.Template, s, r.Services.store.Now()) }); err != nil {
			return err
		}
	}
	if rev.Ready().State != Unknown {
		return nil
	}
	if rev.Status.ImageDigest == "" {
		digest, err := r.Images.Resolve(ctx, rev.Name.Service.Project, rev.Template.Containers[0].Image)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return r.finishRevision(ctx, rev, err)
		}
		rev.Status.ImageDigest = digest
		if err := r.setRevision(ctx, rev, func(s *RevisionStatus) { s.ImageDigest = digest }); err != nil {
			return err
		}
	}
	err = r.Instances.EnsureInstance(ctx, rev)
	if ctx.Err() != nil {
		return ctx.Err() // the platform stops: the next start tries again
	}
	return r.finishRevision(ctx, rev, err)
}

// finishRevision writes how the attempt to start a revision ended.
func (r *Reconciler) finishRevision(ctx context.Context, rev Revision, cause error) error {
	state, reason, message := True, "", ""
	if cause != nil {
		f := fault.From(cause)
		if f.Code == fault.Internal {
			r.Log.Error("revision did not start", "revision", rev.Name, "err", cause)
		}
		state, reason, message = False, f.Reason, f.Message
		if reason == "" {
			reason = "HealthCheckContainerError"
		}
	}
	return r.setRevision(ctx, rev, func(s *RevisionStatus) {
		for _, kind := range []string{Ready, ContainerHealthy, ResourcesAvailable} {
			s.Conditions = setCondition(s.Conditions,
				Condition{Type: kind, State: state, Reason: reason, Message: message}, r.Services.store.Now())
		}
	})
}

// setRevision changes a revision's status, unless the revision is gone.
func (r *Reconciler) setRevision(ctx context.Context, rev Revision, change func(*RevisionStatus)) error {
	err := r.Services.store.Update(ctx, func(tx *store.Tx) error {
		row, err := revisions.Get(tx, rev.Name.String())
		if err != nil {
			return err
		}
		change(&row.Value.Status)
		_, err = revisions.SetStatus(tx, row)
		return err
	})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// reconcileService computes a service's status and route from its revisions.
func (r *Reconciler) reconcileService(ctx context.Context, name string) error {
	var svc Service
	var row store.Row[Service]
	var revs map[string]Revision
	read := func(tx *store.Tx) (err error) {
		if row, err = services.Get(tx, name); err != nil {
			return err
		}
		svc = fromRow(row)
		revs, err = concerned(tx, &svc)
		return err
	}
	err := r.Services.store.View(ctx, read)
	if fault.Is(err, fault.NotFound) {
		return r.remove(ctx, name)
	}
	if err != nil {
		return err
	}
	p, err := r.Project(svc.Name.Project)
	if err != nil {
		return err
	}
	next := computeStatus(&svc, revs, p, r.Services.store.Now())
	before, generation := svc.Status, svc.Generation
	svc.Status = next
	// First the route, which follows from what is on disk, and then its status, which takes a write to the disk.
	if err := r.publish(svc, revs); err != nil || sameJSON(next, before) {
		return err
	}
	// Again inside the one writer, so that status belongs to what is there when it is written.
	err = r.Services.store.Update(ctx, func(tx *store.Tx) error {
		if err := read(tx); err != nil {
			return err
		}
		svc.Status = computeStatus(&svc, revs, p, tx.Now())
		// changed or became ready meanwhile
		if svc.Generation != generation || !sameJSON(svc.Status.Traffic, next.Traffic) {
			if err := r.publish(svc, revs); err != nil {
				return err
			}
		}
		row.Value.Status = svc.Status
		if row, err = services.SetStatus(tx, row); err != nil {
			return err
		}
		svc = fromRow(row)
		if svc.Settled() && svc.Status.Operation != "" {
			return operation.Finish(tx, svc.Status.Operation, struct{}{}, nil)
		}
		return nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil // deleted meanwhile: its own event follows
	}
	return err
}

// publish puts the service's route into the table.
func (r *Reconciler) publish(svc Service, revs map[string]Revision) error {
	if len(svc.Status.Traffic) == 0 {
		r.Routes.Remove(svc.Name) // nothing that could serve yet
		return nil
	}
	p, err := r.Project(svc.Name.Project)
	if err != nil {
		return err
	}
	r.Routes.Publish(routeOf(&svc, revs, p))
	return nil
}

// remove takes a deleted service out of the routing table, then its revisions away.
func (r *Reconciler) remove(ctx context.Context, name string) error {
	n, err := resource.ParseChild("services", name)
	if err != nil {
		return err
	}
	r.Routes.Remove(n)
	return r.Services.store.Update(ctx, func(tx *store.Tx) error {
		// The service may have been made again since: then its revisions are not ours to remove.
		if _, err := services.Get(tx, name); !fault.Is(err, fault.NotFound) {
			return err
		}
		rows, err := revisions.List(tx, name+"/revisions/", "", 0)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := revisions.Delete(tx, row.Name); err != nil {
				return err
			}
		}
		return nil
	})
}
