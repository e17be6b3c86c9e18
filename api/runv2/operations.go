package runv2

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/run/apiv2/runpb"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/run"
)

// maxWait is the longest that one WaitOperation blocks.
const maxWait = 5 * time.Minute

// operation reads the name of an operation and names its project by id.
func (s *Server) operation(name string) (string, error) {
	n, err := resource.ParseChild("operations", name)
	if err != nil {
		return "", err
	}
	p, err := s.Project(n.Project)
	n.Project = p.ID
	return n.String(), err
}

// GetOperation returns an operation.
func (s *Server) GetOperation(ctx context.Context, r *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	name, err := s.operation(r.GetName())
	if err != nil {
		return nil, err
	}
	op, err := s.Operations.Get(ctx, run.OperationKind, name)
	if err != nil {
		return nil, err
	}
	return s.toOperation(ctx, op)
}

// WaitOperation returns an operation once it is done, or as it is when the timeout ends.
func (s *Server) WaitOperation(ctx context.Context, r *longrunningpb.WaitOperationRequest) (*longrunningpb.Operation, error) {
	name, err := s.operation(r.GetName())
	if err != nil {
		return nil, err
	}
	timeout := maxWait
	if t := r.GetTimeout(); t != nil {
		if t.CheckValid() != nil || t.AsDuration() < 0 {
			return nil, fault.Invalid("timeout", "is no duration")
		}
		timeout = min(timeout, t.AsDuration())
	}
	op, err := s.Operations.Wait(ctx, run.OperationKind, name, timeout)
	if err != nil {
		return nil, err
	}
	return s.toOperation(ctx, op)
}

// ListOperations lists the operations of a location.
func (s *Server) ListOperations(ctx context.Context, r *longrunningpb.ListOperationsRequest) (*longrunningpb.ListOperationsResponse, error) {
	in, _, err := s.location(r.GetName())
	if err != nil {
		return nil, err
	}
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of operations are not implemented")
	}
	query := "v2 " + in.String() + "/operations"
	last, err := s.Pages.Last(query, r.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := pageSize(r.GetPageSize())
	all, err := s.Operations.List(ctx, run.OperationKind, in, last, size+1)
	if err != nil {
		return nil, err
	}
	out := &longrunningpb.ListOperationsResponse{}
	if len(all) > size {
		all = all[:size]
		out.NextPageToken = s.Pages.Token(query, all[size-1].Name)
	}
	for _, op := range all {
		w, err := s.toOperation(ctx, op)
		if err != nil {
			return nil, err
		}
		out.Operations = append(out.Operations, w)
	}
	return out, nil
}

// done is the operation of a change that nothing waits for. It has no name: there is nothing to ask for.
func done(svc *run.Service, p resource.Project) (*longrunningpb.Operation, error) {
	return finished("", toProto(svc, p))
}

func finished(name string, result proto.Message) (*longrunningpb.Operation, error) {
	body, err := anypb.New(result)
	if err != nil {
		return nil, err
	}
	return &longrunningpb.Operation{Name: name, Done: true, Metadata: body, Result: &longrunningpb.Operation_Response{Response: body}}, nil
}

// toOperation writes an operation. Its metadata is the service as it is, and so is its response.
func (s *Server) toOperation(ctx context.Context, op operation.Operation) (*longrunningpb.Operation, error) {
	failed := func(code fault.Code, message string) *longrunningpb.Operation {
		return &longrunningpb.Operation{Name: op.Name, Done: true, Result: &longrunningpb.Operation_Error{
			Error: &spb.Status{Code: int32(code), Message: message},
		}}
	}
	if op.Error != nil {
		return failed(op.Error.Code, op.Error.Message), nil
	}
	project, _, _ := strings.Cut(strings.TrimPrefix(op.Target, "projects/"), "/")
	p, err := s.Project(project)
	if err != nil {
		return nil, err
	}
	if op.Verb == "delete" {
		return deleted(op, p)
	}
	n, err := resource.ParseChild("services", op.Target)
	if err != nil {
		return nil, err
	}
	svc, err := s.Services.Get(ctx, n)
	if fault.Is(err, fault.NotFound) {
		return failed(fault.NotFound, "The service was deleted since."), nil
	}
	if err != nil {
		return nil, err
	}
	if op.Done && svc.Status.Operation == op.Name && svc.Ready().State == run.False {
		return failed(fault.FailedPrecondition, svc.Ready().Message), nil
	}
	out, err := finished(op.Name, toProto(&svc, p))
	if err == nil && !op.Done {
		out.Done, out.Result = false, nil
	}
	return out, err
}

// deleted is the operation of a deletion: its response is what was deleted, as it was.
func deleted(op operation.Operation, p resource.Project) (*longrunningpb.Operation, error) {
	if strings.Contains(op.Target, "/revisions/") {
		var was run.Revision
		if err := json.Unmarshal(op.Response, &was); err != nil {
			return nil, err
		}
		gone := revisionToProto(&was, p)
		gone.CreateTime, gone.UpdateTime, gone.Etag, gone.DeleteTime = nil, nil, "", stamp(op.Finished)
		return finished(op.Name, gone)
	}
	var was run.Service
	if err := json.Unmarshal(op.Response, &was); err != nil {
		return nil, err
	}
	gone := toProto(&was, p)
	gone.CreateTime, gone.UpdateTime, gone.Etag, gone.DeleteTime = nil, nil, "", stamp(op.Finished)
	return finished(op.Name, gone)
}

var _ runpb.ServicesServer = (*Server)(nil)
