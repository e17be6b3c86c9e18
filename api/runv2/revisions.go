package runv2

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/run/apiv2/runpb"

	"giggle/fault"
	"giggle/resource"
	"giggle/run"
)

// revision reads the name of a revision and names its project by id.
func (s *Server) revision(name string) (resource.Revision, resource.Project, error) {
	n, err := resource.ParseRevision(name)
	if err != nil {
		return n, resource.Project{}, err
	}
	p, err := s.Project(n.Service.Project)
	n.Service.Project = p.ID
	return n, p, err
}

// find returns a revision by its full name: its id alone is of a location, whatever the service.
func (s *Server) find(ctx context.Context, n resource.Revision) (run.Revision, error) {
	have, err := s.Services.GetRevision(ctx, n.Service.Location, n.ID)
	if err == nil && have.Name != n {
		err = fault.New(fault.NotFound, "no such revision")
	}
	return have, notFound(err, "Revision", n.ID)
}

// GetRevision returns a revision.
func (s *Server) GetRevision(ctx context.Context, r *runpb.GetRevisionRequest) (*runpb.Revision, error) {
	n, p, err := s.revision(r.GetName())
	if err != nil {
		return nil, err
	}
	have, err := s.find(ctx, n)
	if err != nil {
		return nil, err
	}
	return revisionToProto(&have, p), nil
}

// ListRevisions lists the revisions of a service, newest first; of all services of the location for the service "-".
func (s *Server) ListRevisions(
	ctx context.Context, r *runpb.ListRevisionsRequest,
) (*runpb.ListRevisionsResponse, error) {
	of, p, err := s.service(r.GetParent())
	if err != nil {
		return nil, err
	}
	all, _, err := s.Services.ListRevisions(ctx, of.Location)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r run.Revision) bool { return of.ID != "-" && r.Name.Service != of })
	newest := func(r run.Revision) string { return resource.Descending(r.Created, r.Name.String()) }
	list := resource.List{
		Query: "v2 " + of.String() + "/revisions",
		Size:  int(r.GetPageSize()),
		Most:  maxPage,
		Token: r.GetPageToken(),
	}
	page, next, err := resource.Page(s.Pages, list, resource.Rows(all, newest), newest)
	if err != nil {
		return nil, err
	}
	out := &runpb.ListRevisionsResponse{NextPageToken: next}
	for i := range page {
		out.Revisions = append(out.Revisions, revisionToProto(&page[i], p))
	}
	return out, nil
}

// DeleteRevision removes a revision that no traffic and no tag needs. The operation that it returns is done.
func (s *Server) DeleteRevision(ctx context.Context, r *runpb.DeleteRevisionRequest) (*longrunningpb.Operation, error) {
	n, p, err := s.revision(r.GetName())
	if err != nil {
		return nil, err
	}
	have, err := s.find(ctx, n)
	if err != nil {
		return nil, err
	}
	version, err := fromEtag(r.GetEtag())
	if err != nil {
		return nil, err
	}
	if version != 0 && version != have.Version {
		return nil, fault.New(fault.Aborted, "Revision '%s' has changed since it was read. Read it again.", n.ID)
	}
	if r.GetValidateOnly() {
		return finished("", revisionToProto(&have, p))
	}
	op, err := s.Services.DeleteRevision(ctx, n)
	if err != nil {
		return nil, notFound(err, "Revision", n.ID)
	}
	return s.toOperation(ctx, op)
}

func revisionToProto(r *run.Revision, p resource.Project) *runpb.Revision {
	t := templateToProto(&r.Template)
	out := &runpb.Revision{
		Name:                          r.Name.String(),
		Uid:                           r.UID,
		Generation:                    1,
		ObservedGeneration:            1,
		Service:                       r.Name.Service.ID,
		Creator:                       r.Creator,
		Labels:                        t.GetLabels(),
		Annotations:                   t.GetAnnotations(),
		CreateTime:                    stamp(r.Created),
		UpdateTime:                    stamp(r.Updated),
		Scaling:                       t.GetScaling(),
		MaxInstanceRequestConcurrency: t.GetMaxInstanceRequestConcurrency(),
		Timeout:                       t.GetTimeout(),
		ServiceAccount:                t.GetServiceAccount(),
		Containers:                    t.GetContainers(),
		ExecutionEnvironment:          t.GetExecutionEnvironment(),
		NodeSelector:                  t.GetNodeSelector(),
		VpcAccess:                     t.GetVpcAccess(),
		Reconciling:                   r.Ready().State == run.Unknown,
		Conditions:                    conditionsToProto(r.Status.Conditions, true),
		LogUri: "https://console.cloud.google.com/logs/viewer?project=" + p.ID +
			"&resource=cloud_run_revision/service_name/" + r.Name.Service.ID +
			"/revision_name/" + r.Name.ID,
		Etag: resource.Etag(r.Version),
	}
	if digest := r.Status.ImageDigest; strings.Contains(digest, "@") && len(out.Containers) > 0 {
		out.Containers[0].Image = digest // a revision never changes, whatever its tag points to
	}
	return out
}
