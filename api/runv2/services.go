package runv2

import (
	"context"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/protobuf/proto"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/run"
)

// CreateService makes a service.
func (s *Server) CreateService(ctx context.Context, r *runpb.CreateServiceRequest) (*longrunningpb.Operation, error) {
	in, p, err := s.location(r.GetParent())
	if err != nil {
		return nil, err
	}
	if in.Location == "-" {
		return nil, fault.Invalid("parent", "a service is made in one location")
	}
	if r.GetServiceId() == "" {
		return nil, fault.Invalid("serviceId", "is missing")
	}
	if r.GetService() == nil {
		return nil, fault.Invalid("service", "is missing")
	}
	want, err := fromProto(resource.Service(in.Project, in.Location, r.GetServiceId()), r.GetService())
	if err != nil {
		return nil, err
	}
	return s.write(ctx, want, p, r.GetValidateOnly(), s.Services.Create)
}

// write checks a service and, unless the caller only wants to know, writes it.
func (s *Server) write(
	ctx context.Context,
	want run.Service,
	p resource.Project,
	dry bool,
	write func(context.Context, run.Service, string) (run.Service, error),
) (*longrunningpb.Operation, error) {
	want, err := s.Services.Complete(want)
	if err != nil {
		return nil, fieldNames.Translate(err)
	}
	who := guard.Caller(ctx)
	if err := s.ActAs(ctx, who, p, want.Template.ServiceAccount); err != nil {
		return nil, err
	}
	if dry {
		return done(&want, p)
	}
	have, err := write(ctx, want, who.Email())
	if err != nil {
		return nil, fieldNames.Translate(err)
	}
	if have.Settled() { // a change of labels and the like, which nothing waits for
		return done(&have, p)
	}
	op, err := s.Config.Operations.Get(ctx, run.OperationKind, have.Status.Operation)
	if err != nil {
		return nil, err
	}
	return s.toOperation(ctx, op)
}

// GetService returns a service.
func (s *Server) GetService(ctx context.Context, r *runpb.GetServiceRequest) (*runpb.Service, error) {
	n, p, err := s.service(r.GetName())
	if err != nil {
		return nil, err
	}
	svc, err := s.Services.Get(ctx, n)
	if err != nil {
		return nil, notFound(err, "Service", n.ID)
	}
	return toProto(&svc, p), nil
}

// notFound says in Cloud Run's words which resource is not there.
func notFound(err error, kind, id string) error {
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "Resource '%s' of kind '%s' in region was not found.", id, kind)
	}
	return err
}

// ListServices lists the services of a location, or of all for the location "-".
func (s *Server) ListServices(ctx context.Context, r *runpb.ListServicesRequest) (*runpb.ListServicesResponse, error) {
	in, p, err := s.location(r.GetParent())
	if err != nil {
		return nil, err
	}
	list := resource.List{
		Query: "v2 " + in.String() + "/services",
		Size:  int(r.GetPageSize()),
		Most:  maxPage,
		Token: r.GetPageToken(),
	}
	page, next, err := resource.Page(s.Pages, list, func(after string, limit int) ([]run.Service, error) {
		all, _, err := s.Services.List(ctx, in, after, limit)
		return all, err
	}, func(svc run.Service) string { return svc.Name.String() })
	if err != nil {
		return nil, err
	}
	out := &runpb.ListServicesResponse{NextPageToken: next}
	for i := range page {
		out.Services = append(out.Services, toProto(&page[i], p))
	}
	return out, nil
}

// UpdateService changes the fields of the mask, or all where there is none.
func (s *Server) UpdateService(ctx context.Context, r *runpb.UpdateServiceRequest) (*longrunningpb.Operation, error) {
	n, p, err := s.service(r.GetService().GetName())
	if err != nil {
		return nil, err
	}
	have, err := s.Services.Get(ctx, n)
	missing := fault.Is(err, fault.NotFound)
	if err != nil && (!missing || !r.GetAllowMissing()) {
		return nil, notFound(err, "Service", n.ID)
	}
	given := r.GetService()
	if paths := r.GetUpdateMask().GetPaths(); len(paths) > 0 && !missing {
		base := toProto(&have, p)
		if err := rest.Overlay(base, given, paths); err != nil {
			return nil, err
		}
		base.Etag, given = given.GetEtag(), base
	}
	want, err := fromProto(n, given)
	if err != nil {
		return nil, err
	}
	if missing {
		return s.write(ctx, want, p, r.GetValidateOnly(), s.Services.Create)
	}
	keep(&want, &have)
	return s.write(ctx, want, p, r.GetValidateOnly(), s.Services.Replace)
}

// keep carries over what v2 does not show: annotations of v1's, and all of a template in which v2 sees no difference.
// Without that, a read and a write through v2 would make a new revision.
func keep(want, have *run.Service) {
	want.Annotations = withSystem(want.Annotations, have.Annotations)
	want.Template.Annotations = withSystem(want.Template.Annotations, have.Template.Annotations)
	if !proto.Equal(templateToProto(&want.Template), templateToProto(&have.Template)) {
		return
	}
	want.Template = have.Template
}

// DeleteService removes a service. The operation that it returns is done.
func (s *Server) DeleteService(ctx context.Context, r *runpb.DeleteServiceRequest) (*longrunningpb.Operation, error) {
	n, p, err := s.service(r.GetName())
	if err != nil {
		return nil, err
	}
	version, err := fromEtag(r.GetEtag())
	if err != nil {
		return nil, err
	}
	if r.GetValidateOnly() {
		have, err := s.Services.Get(ctx, n)
		if err != nil {
			return nil, notFound(err, "Service", n.ID)
		}
		return done(&have, p)
	}
	op, err := s.Services.Delete(ctx, n, version)
	if err != nil {
		return nil, notFound(err, "Service", n.ID)
	}
	return s.toOperation(ctx, op)
}
