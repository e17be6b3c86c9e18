// Package operations is the wire form of long-running operations that every API has in the same shape:
// google.longrunning.Operations over the operations of one product, for servers to embed.
//
// It reads names, asks package operation, cuts pages and writes what is common. What an operation's metadata and
// response are, each API says.
package operations

import (
	"context"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
)

// RPC is how the names of the RPCs begin.
const RPC = "/google.longrunning.Operations/"

const (
	maxPage = 1000            // operations of one page, and how many there are where a client names no number
	maxWait = 5 * time.Minute // that one call to wait blocks
)

// Store keeps the operations: *operation.Operations.
type Store interface {
	Get(ctx context.Context, kind, name string) (operation.Operation, error)
	List(ctx context.Context, kind string, in resource.Location, last string, limit int) ([]operation.Operation, error)
	Wait(ctx context.Context, kind, name string, timeout time.Duration) (operation.Operation, error)
}

// Reader reads the operations of one product as requests name them. Those of other products are NotFound.
type Reader struct {
	Store   Store
	Kind    string // of the product's operations
	Project resource.FindProject
	Pages   *resource.Pages
}

// Get returns an operation by its name.
func (r Reader) Get(ctx context.Context, name string) (operation.Operation, error) {
	n, _, err := r.Project.Child("operations", name)
	if err != nil {
		return operation.Operation{}, err
	}
	return r.Store.Get(ctx, r.Kind, n.String())
}

// Wait returns an operation once it is done, or as it is when the timeout ends; 0 is for the longest, five minutes.
func (r Reader) Wait(ctx context.Context, name string, timeout time.Duration) (operation.Operation, error) {
	n, _, err := r.Project.Child("operations", name)
	if err != nil {
		return operation.Operation{}, err
	}
	if timeout < 0 {
		return operation.Operation{}, fault.Invalid("timeout", "must not be negative")
	}
	if timeout == 0 || timeout > maxWait {
		timeout = maxWait
	}
	return r.Store.Wait(ctx, r.Kind, n.String(), timeout)
}

// List returns a page of the operations of a location, and the token of the next.
func (r Reader) List(
	ctx context.Context, parent string, size int, token string,
) ([]operation.Operation, string, error) {
	in, _, err := r.Project.Location(parent)
	if err != nil {
		return nil, "", err
	}
	list := resource.List{Query: r.Kind + " operations of " + in.String(), Size: size, Most: maxPage, Token: token}
	return resource.Page(r.Pages, list, func(after string, limit int) ([]operation.Operation, error) {
		return r.Store.List(ctx, r.Kind, in, after, limit)
	}, func(op operation.Operation) string { return op.Name })
}

// Operations is the methods of google.longrunning.Operations that read, for a server to embed. Google's
// UnimplementedOperationsServer has them, too: it goes one level deeper into the server, so that these win.
type Operations struct {
	read    Reader
	toProto func(ctx context.Context, op operation.Operation) (*longrunningpb.Operation, error)
}

// New returns the methods over the operations that a reader reads.
func New(
	read Reader, toProto func(ctx context.Context, op operation.Operation) (*longrunningpb.Operation, error),
) Operations {
	return Operations{read, toProto}
}

// routes are where the methods are, behind the version.
var routes = map[string]rest.HTTPRule{
	"GetOperation":    {Method: "GET", Pattern: one},
	"ListOperations":  {Method: "GET", Pattern: "/{name=projects/*/locations/*}/operations"},
	"WaitOperation":   {Method: "POST", Pattern: one + ":wait", Body: "*"},
	"CancelOperation": {Method: "POST", Pattern: one + ":cancel", Body: "*"},
}

const one = "/{name=projects/*/locations/*/operations/*}"

// Bind adds the REST routes, which stand in an API's service configuration and not in the protos: version is "v1", and
// methods are those that the API has.
func Bind(m *rest.Mux, version string, methods ...string) {
	for _, method := range methods {
		rule := routes[method]
		rule.Pattern = "/" + version + rule.Pattern
		m.Bind(RPC+method, rule)
	}
}

// GetOperation returns an operation.
func (m Operations) GetOperation(
	ctx context.Context, r *longrunningpb.GetOperationRequest,
) (*longrunningpb.Operation, error) {
	op, err := m.read.Get(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	return m.toProto(ctx, op)
}

// WaitOperation returns an operation once it is done, or as it is when the timeout ends.
func (m Operations) WaitOperation(
	ctx context.Context, r *longrunningpb.WaitOperationRequest,
) (*longrunningpb.Operation, error) {
	op, err := m.read.Wait(ctx, r.GetName(), r.GetTimeout().AsDuration())
	if err != nil {
		return nil, err
	}
	return m.toProto(ctx, op)
}

// ListOperations lists the operations of a location.
func (m Operations) ListOperations(
	ctx context.Context, r *longrunningpb.ListOperationsRequest,
) (*longrunningpb.ListOperationsResponse, error) {
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of operations are not implemented")
	}
	all, next, err := m.read.List(ctx, r.GetName(), int(r.GetPageSize()), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &longrunningpb.ListOperationsResponse{NextPageToken: next}
	for _, op := range all {
		w, err := m.toProto(ctx, op)
		if err != nil {
			return nil, err
		}
		out.Operations = append(out.Operations, w)
	}
	return out, nil
}

// Pending is an operation that is not done.
func Pending(name string, metadata proto.Message) (*longrunningpb.Operation, error) {
	meta, err := packed(metadata)
	return &longrunningpb.Operation{Name: name, Metadata: meta}, err
}

// Done is an operation that succeeded. Metadata may be nil. It has no name where there is nothing to ask for.
func Done(name string, metadata, response proto.Message) (*longrunningpb.Operation, error) {
	out, err := Pending(name, metadata)
	if err != nil {
		return nil, err
	}
	body, err := anypb.New(response)
	out.Done, out.Result = true, &longrunningpb.Operation_Response{Response: body}
	return out, err
}

// Failed is an operation that failed. Metadata may be nil.
func Failed(name string, metadata proto.Message, code fault.Code, message string) (*longrunningpb.Operation, error) {
	out, err := Pending(name, metadata)
	if err != nil {
		return nil, err
	}
	out.Done = true
	out.Result = &longrunningpb.Operation_Error{Error: &status.Status{Code: int32(code), Message: message}}
	return out, nil
}

func packed(m proto.Message) (*anypb.Any, error) {
	if m == nil {
		return nil, nil
	}
	return anypb.New(m)
}
