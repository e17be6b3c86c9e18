package runv2

import (
	"context"
	"encoding/json"
	"strings"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/protobuf/proto"

	"giggle/api/operations"
	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/run"
)

// done is the operation of a change that nothing waits for. It has no name: there is nothing to ask for.
func done(svc *run.Service, p resource.Project) (*longrunningpb.Operation, error) {
	return finished("", toProto(svc, p))
}

// finished is an operation that is done. Its metadata is its response.
func finished(name string, result proto.Message) (*longrunningpb.Operation, error) {
	return operations.Done(name, result, result)
}

// toOperation writes an operation. Its metadata is the service as it is, and so is its response.
func (s *Server) toOperation(ctx context.Context, op operation.Operation) (*longrunningpb.Operation, error) {
	if op.Error != nil {
		return operations.Failed(op.Name, nil, op.Error.Code, op.Error.Message)
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
		return operations.Failed(op.Name, nil, fault.NotFound, "The service was deleted since.")
	}
	if err != nil {
		return nil, err
	}
	if op.Done && svc.Status.Operation == op.Name && svc.Ready().State == run.False {
		return operations.Failed(op.Name, nil, fault.FailedPrecondition, svc.Ready().Message)
	}
	w := toProto(&svc, p)
	if !op.Done {
		return operations.Pending(op.Name, w)
	}
	return finished(op.Name, w)
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
