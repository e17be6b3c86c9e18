// Package artifactregistry is the wire form of Artifact Registry v1: repositories with their policies, the packages,
// versions, tags, Docker images and files in them, the operations that make and remove them, and locations.
//
// It translates for package artifacts. Images themselves come by artifacts/registry. Rules, attachments, annotations,
// changes of packages, versions, files and settings, downloads and other formats than DOCKER answer UNIMPLEMENTED.
// Cleanup policies are kept and shown, and nothing runs them.
package artifactregistry

import (
	"context"
	"encoding/json"
	"strings"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/api/guard"
	"giggle/api/iampolicy"
	"giggle/artifacts"
	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
)

// Server serves the API.
type Server struct {
	artifactregistrypb.UnimplementedArtifactRegistryServer
	longrunningpb.UnimplementedOperationsServer

	Artifacts  *artifacts.Artifacts
	Operations *operation.Operations
	Policies   iampolicy.Policies
	ProjectID  func(ref string) (string, error) // the id of a project that is named by id or number
	Pages      *resource.Pages
}

const (
	rpc       = "/google.devtools.artifactregistry.v1.ArtifactRegistry/"
	ops       = "/google.longrunning.Operations/"
	locations = "google.cloud.location.Locations"
	locs      = "/" + locations + "/"
)

// Rules says what each RPC needs. What is not implemented still needs a signed-in caller.
var Rules = func() guard.Rules {
	r := guard.Absent(&artifactregistrypb.ArtifactRegistry_ServiceDesc, &longrunningpb.Operations_ServiceDesc)
	const permission = "artifactregistry.repositories."
	r[rpc+"ListRepositories"] = guard.Rule{Permission: permission + "list", On: "{parent}"}
	r[rpc+"CreateRepository"] = guard.Rule{Permission: permission + "create", On: "{parent}"}
	r[rpc+"GetRepository"] = guard.Rule{Permission: permission + "get", On: "{name}"}
	r[rpc+"UpdateRepository"] = guard.Rule{Permission: permission + "update", On: "{repository.name}"}
	r[rpc+"DeleteRepository"] = guard.Rule{Permission: permission + "delete", On: "{name}"}
	r[rpc+"GetIamPolicy"] = guard.Rule{Permission: permission + "getIamPolicy", On: "{resource}"}
	r[rpc+"TestIamPermissions"] = guard.Rule{Authenticated: true}
	r[rpc+"SetIamPolicy"] = guard.Rule{Permission: permission + "setIamPolicy", On: "{resource}"}
	for _, noun := range []string{"Package", "Version", "Tag", "DockerImage", "File"} {
		of := "artifactregistry." + strings.ToLower(noun) + "s."
		r[rpc+"List"+noun+"s"] = guard.Rule{Permission: of + "list", On: "{parent}"}
		r[rpc+"Get"+noun] = guard.Rule{Permission: of + "get", On: "{name}"}
	}
	r[rpc+"DeletePackage"] = guard.Rule{Permission: "artifactregistry.packages.delete", On: "{name}"}
	r[rpc+"DeleteVersion"] = guard.Rule{Permission: "artifactregistry.versions.delete", On: "{name}"}
	r[rpc+"BatchDeleteVersions"] = guard.Rule{Permission: "artifactregistry.versions.delete", On: "{parent}"}
	r[rpc+"CreateTag"] = guard.Rule{Permission: "artifactregistry.tags.create", On: "{parent}"}
	r[rpc+"UpdateTag"] = guard.Rule{Permission: "artifactregistry.tags.update", On: "{tag.name}"}
	r[rpc+"DeleteTag"] = guard.Rule{Permission: "artifactregistry.tags.delete", On: "{name}"}
	r[rpc+"GetProjectSettings"] = guard.Rule{Permission: "artifactregistry.projectsettings.get", On: "{name}"}
	r[ops+"GetOperation"] = guard.Rule{Permission: permission + "get", On: "{name}"}
	r[ops+"ListOperations"] = guard.Rule{Permission: permission + "list", On: "{name}"}
	r[locs+"ListLocations"] = guard.Rule{Permission: "artifactregistry.locations.list", On: "{name}"}
	r[locs+"GetLocation"] = guard.Rule{Permission: "artifactregistry.locations.get", On: "{name}"}
	return r
}()

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	artifactregistrypb.RegisterArtifactRegistryServer(m, s)
	longrunningpb.RegisterOperationsServer(m, s)
	m.RegisterService(rest.Describe(locations, s), s)
	// gcloud 528 asks for locations by this version.
	m.Bind(locs+"ListLocations", rest.HTTPRule{Method: "GET", Pattern: "/v1beta2/{name=projects/*}/locations"})
	// The routes of operations stand in artifactregistry_v1.yaml and not in their proto.
	const name = "/v1/{name=projects/*/locations/*}"
	m.Bind(ops+"GetOperation", rest.HTTPRule{Method: "GET", Pattern: "/v1/{name=projects/*/locations/*/operations/*}"})
	m.Bind(ops+"ListOperations", rest.HTTPRule{Method: "GET", Pattern: name + "/operations"})
}

// maxPage is the most entries of one page, and how many there are where a client names no number.
const maxPage = 1000

// page reads a page size and token; the query is what must not change between pages.
func (s *Server) page(query string, size int32, token string) (limit int, last string, err error) {
	last, err = s.Pages.Last(query, token)
	limit = int(size)
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	return limit, last, err
}

func (s *Server) location(name string) (resource.Location, error) {
	in, err := resource.ParseLocation(name)
	if err != nil {
		return in, err
	}
	in.Project, err = s.ProjectID(in.Project)
	return in, err
}

func (s *Server) repository(name string) (resource.Child, error) {
	n, err := resource.ParseChild("repositories", name)
	if err != nil {
		return n, err
	}
	n.Project, err = s.ProjectID(n.Project)
	return n, err
}

// ListRepositories lists the repositories of a location, or of all for the location "-".
func (s *Server) ListRepositories(ctx context.Context, r *artifactregistrypb.ListRepositoriesRequest) (*artifactregistrypb.ListRepositoriesResponse, error) {
	in, err := s.location(r.GetParent())
	if err != nil {
		return nil, err
	}
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of repositories are not implemented")
	}
	if o := r.GetOrderBy(); o != "" && o != "name" {
		return nil, fault.NotImplemented("orderBy", "an order of repositories other than by name is not implemented")
	}
	limit, last, err := s.page(in.String(), r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	all, err := s.Artifacts.Repositories(ctx, in, last, limit+1)
	if err != nil {
		return nil, err
	}
	out := &artifactregistrypb.ListRepositoriesResponse{}
	if len(all) > limit {
		all = all[:limit]
		out.NextPageToken = s.Pages.Token(in.String(), all[limit-1].Name.String())
	}
	for _, repository := range all {
		w, err := s.toProto(ctx, repository)
		if err != nil {
			return nil, err
		}
		out.Repositories = append(out.Repositories, w)
	}
	return out, nil
}

// GetRepository returns a repository with the size of what it has.
func (s *Server) GetRepository(ctx context.Context, r *artifactregistrypb.GetRepositoryRequest) (*artifactregistrypb.Repository, error) {
	n, err := s.repository(r.GetName())
	if err != nil {
		return nil, err
	}
	repository, err := s.Artifacts.Repository(ctx, n)
	if err != nil {
		return nil, err
	}
	return s.toProto(ctx, repository)
}

// CreateRepository makes a repository.
func (s *Server) CreateRepository(ctx context.Context, r *artifactregistrypb.CreateRepositoryRequest) (*longrunningpb.Operation, error) {
	in, err := s.location(r.GetParent())
	if err != nil {
		return nil, err
	}
	want, err := fromProto(r.GetRepository())
	if err != nil {
		return nil, err
	}
	want.Name = resource.Repository(in.Project, in.Location, r.GetRepositoryId())
	op, err := s.Artifacts.CreateRepository(ctx, want)
	if err != nil {
		return nil, err
	}
	return operationToProto(op)
}

// DeleteRepository removes a repository with all that is in it.
func (s *Server) DeleteRepository(ctx context.Context, r *artifactregistrypb.DeleteRepositoryRequest) (*longrunningpb.Operation, error) {
	n, err := s.repository(r.GetName())
	if err != nil {
		return nil, err
	}
	op, err := s.Artifacts.DeleteRepository(ctx, n)
	if err != nil {
		return nil, err
	}
	return operationToProto(op)
}

// policed returns the name that a repository's policy is kept under, or NotFound.
func (s *Server) policed(ctx context.Context, name string) (string, error) {
	n, err := s.repository(name)
	if err != nil {
		return "", err
	}
	_, err = s.Artifacts.Repository(ctx, n)
	return n.String(), err
}

// GetIamPolicy returns the policy on a repository.
func (s *Server) GetIamPolicy(ctx context.Context, r *iampb.GetIamPolicyRequest) (*iampb.Policy, error) {
	n, err := s.policed(ctx, r.GetResource())
	if err != nil {
		return nil, err
	}
	return iampolicy.Get(s.Policies, n, r.GetOptions().GetRequestedPolicyVersion())
}

// SetIamPolicy replaces the policy on a repository.
func (s *Server) SetIamPolicy(ctx context.Context, r *iampb.SetIamPolicyRequest) (*iampb.Policy, error) {
	n, err := s.policed(ctx, r.GetResource())
	if err != nil {
		return nil, err
	}
	want, err := iampolicy.FromProto(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	have, err := s.Policies.SetPolicy(ctx, n, want)
	if err != nil {
		return nil, err
	}
	return iampolicy.ToProto(have)
}

// maxPermissions is the most permissions that one call may ask about.
const maxPermissions = 100

// TestIamPermissions returns which of the permissions the caller has on a repository.
func (s *Server) TestIamPermissions(ctx context.Context, r *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	n, err := s.repository(r.GetResource())
	if err != nil {
		return nil, err
	}
	if len(r.GetPermissions()) > maxPermissions {
		return nil, fault.Invalid("permissions", "more than %d", maxPermissions)
	}
	return &iampb.TestIamPermissionsResponse{Permissions: iampolicy.Held(s.Policies, guard.Caller(ctx), r.GetPermissions(), n.String())}, nil
}

// GetOperation returns an operation on a repository.
func (s *Server) GetOperation(ctx context.Context, r *longrunningpb.GetOperationRequest) (*longrunningpb.Operation, error) {
	n, err := resource.ParseChild("operations", r.GetName())
	if err != nil {
		return nil, err
	}
	if n.Project, err = s.ProjectID(n.Project); err != nil {
		return nil, err
	}
	op, err := s.Operations.Get(ctx, artifacts.OperationKind, n.String())
	if err != nil {
		return nil, err
	}
	return operationToProto(op)
}

// ListOperations lists the operations on the repositories of a location.
func (s *Server) ListOperations(ctx context.Context, r *longrunningpb.ListOperationsRequest) (*longrunningpb.ListOperationsResponse, error) {
	in, err := s.location(r.GetName())
	if err != nil {
		return nil, err
	}
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of operations are not implemented")
	}
	query := in.String() + "/operations"
	limit, last, err := s.page(query, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	all, err := s.Operations.List(ctx, artifacts.OperationKind, in, last, limit+1)
	if err != nil {
		return nil, err
	}
	out := &longrunningpb.ListOperationsResponse{}
	for _, op := range all {
		if len(out.Operations) == limit {
			out.NextPageToken = s.Pages.Token(query, out.Operations[limit-1].GetName())
			break
		}
		w, err := operationToProto(op)
		if err != nil {
			return nil, err
		}
		out.Operations = append(out.Operations, w)
	}
	return out, nil
}

// operationToProto writes an operation. gcloud reads the repository's name from the response.
func operationToProto(op operation.Operation) (*longrunningpb.Operation, error) {
	meta, err := anypb.New(&artifactregistrypb.OperationMetadata{})
	if err != nil {
		return nil, err
	}
	out := &longrunningpb.Operation{Name: op.Name, Metadata: meta, Done: op.Done}
	switch {
	case !op.Done:
		return out, nil
	case op.Error != nil:
		out.Result = &longrunningpb.Operation_Error{Error: status.New(codes.Code(op.Error.Code), op.Error.Message).Proto()}
		return out, nil
	}
	var response proto.Message = &emptypb.Empty{}
	if op.Verb != "delete" {
		var r artifacts.Repository
		if err := json.Unmarshal(op.Response, &r); err != nil {
			return nil, err
		}
		w, err := toProto(r)
		if err != nil {
			return nil, err
		}
		response = w
	}
	body, err := anypb.New(response)
	out.Result = &longrunningpb.Operation_Response{Response: body}
	return out, err
}
