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

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/api/guard"
	"giggle/api/operations"
	"giggle/api/policies"
	"giggle/artifacts"
	"giggle/fault"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
)

// Config is what a Server needs.
type Config struct {
	Artifacts  *artifacts.Artifacts
	Operations *operation.Operations
	Policies   policies.Policies
	Project    resource.FindProject
	Pages      *resource.Pages
}

// Server serves the API.
type Server struct {
	Config
	absent
	policies.IAMPolicy
	operations.Operations
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	artifactregistrypb.UnimplementedArtifactRegistryServer
	longrunningpb.UnimplementedOperationsServer
}

// New returns the server of the API.
func New(cfg Config) *Server {
	s := &Server{Config: cfg}
	s.IAMPolicy = policies.New(cfg.Policies, policies.Resource{
		Resolve: func(_ context.Context, name string) (string, error) {
			n, _, err := s.Project.Child("repositories", name)
			return n.String(), err
		},
		Exists: func(ctx context.Context, name string) error {
			n, err := resource.ParseChild("repositories", name)
			if err == nil {
				_, err = s.Artifacts.Repository(ctx, n)
			}
			return err
		},
	})
	s.Operations = operations.New(operations.Reader{
		Store:   cfg.Operations,
		Kind:    artifacts.OperationKind,
		Project: cfg.Project,
		Pages:   cfg.Pages,
	}, func(_ context.Context, op operation.Operation) (*longrunningpb.Operation, error) {
		return operationToProto(op)
	})
	return s
}

const (
	rpc       = "/google.devtools.artifactregistry.v1.ArtifactRegistry/"
	ops       = operations.RPC
	locations = "google.cloud.location.Locations"
	locs      = "/" + locations + "/"
)

// Rules says what each RPC needs.
var Rules = guard.Absent(
	&artifactregistrypb.ArtifactRegistry_ServiceDesc,
	&longrunningpb.Operations_ServiceDesc,
).With(guard.Rules{
	rpc + "ListRepositories":   {Permission: "artifactregistry.repositories.list", On: "{parent}"},
	rpc + "CreateRepository":   {Permission: "artifactregistry.repositories.create", On: "{parent}"},
	rpc + "GetRepository":      {Permission: "artifactregistry.repositories.get", On: "{name}"},
	rpc + "UpdateRepository":   {Permission: "artifactregistry.repositories.update", On: "{repository.name}"},
	rpc + "DeleteRepository":   {Permission: "artifactregistry.repositories.delete", On: "{name}"},
	rpc + "GetIamPolicy":       {Permission: "artifactregistry.repositories.getIamPolicy", On: "{resource}"},
	rpc + "SetIamPolicy":       {Permission: "artifactregistry.repositories.setIamPolicy", On: "{resource}"},
	rpc + "TestIamPermissions": {Authenticated: true},

	rpc + "ListPackages":     {Permission: "artifactregistry.packages.list", On: "{parent}"},
	rpc + "GetPackage":       {Permission: "artifactregistry.packages.get", On: "{name}"},
	rpc + "ListVersions":     {Permission: "artifactregistry.versions.list", On: "{parent}"},
	rpc + "GetVersion":       {Permission: "artifactregistry.versions.get", On: "{name}"},
	rpc + "ListTags":         {Permission: "artifactregistry.tags.list", On: "{parent}"},
	rpc + "GetTag":           {Permission: "artifactregistry.tags.get", On: "{name}"},
	rpc + "ListDockerImages": {Permission: "artifactregistry.dockerimages.list", On: "{parent}"},
	rpc + "GetDockerImage":   {Permission: "artifactregistry.dockerimages.get", On: "{name}"},
	rpc + "ListFiles":        {Permission: "artifactregistry.files.list", On: "{parent}"},
	rpc + "GetFile":          {Permission: "artifactregistry.files.get", On: "{name}"},

	rpc + "DeletePackage":       {Permission: "artifactregistry.packages.delete", On: "{name}"},
	rpc + "DeleteVersion":       {Permission: "artifactregistry.versions.delete", On: "{name}"},
	rpc + "BatchDeleteVersions": {Permission: "artifactregistry.versions.delete", On: "{parent}"},
	rpc + "CreateTag":           {Permission: "artifactregistry.tags.create", On: "{parent}"},
	rpc + "UpdateTag":           {Permission: "artifactregistry.tags.update", On: "{tag.name}"},
	rpc + "DeleteTag":           {Permission: "artifactregistry.tags.delete", On: "{name}"},
	rpc + "GetProjectSettings":  {Permission: "artifactregistry.projectsettings.get", On: "{name}"},

	ops + "GetOperation":   {Permission: "artifactregistry.repositories.get", On: "{name}"},
	ops + "ListOperations": {Permission: "artifactregistry.repositories.list", On: "{name}"},
	locs + "ListLocations": {Permission: "artifactregistry.locations.list", On: "{name}"},
	locs + "GetLocation":   {Permission: "artifactregistry.locations.get", On: "{name}"},
})

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	artifactregistrypb.RegisterArtifactRegistryServer(m, s)
	longrunningpb.RegisterOperationsServer(m, s)
	m.RegisterService(rest.Describe(locations, s), s)
	// gcloud 528 asks for locations by this version.
	m.Bind(locs+"ListLocations", rest.HTTPRule{Method: "GET", Pattern: "/v1beta2/{name=projects/*}/locations"})
	operations.Bind(m, "v1", "GetOperation", "ListOperations")
}

// maxPage is the most entries of one page, and how many there are where a client names no number.
const maxPage = 1000

func (s *Server) location(name string) (resource.Location, error) {
	in, _, err := s.Project.Location(name)
	return in, err
}

func (s *Server) repository(name string) (resource.Child, error) {
	n, _, err := s.Project.Child("repositories", name)
	return n, err
}

// ListRepositories lists the repositories of a location, or of all for the location "-".
func (s *Server) ListRepositories(
	ctx context.Context, r *artifactregistrypb.ListRepositoriesRequest,
) (*artifactregistrypb.ListRepositoriesResponse, error) {
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
	list := resource.List{Query: in.String(), Size: int(r.GetPageSize()), Most: maxPage, Token: r.GetPageToken()}
	all, next, err := resource.Page(s.Pages, list, func(after string, limit int) ([]artifacts.Repository, error) {
		return s.Artifacts.Repositories(ctx, in, after, limit)
	}, func(r artifacts.Repository) string { return r.Name.String() })
	if err != nil {
		return nil, err
	}
	out := &artifactregistrypb.ListRepositoriesResponse{NextPageToken: next}
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
func (s *Server) GetRepository(
	ctx context.Context, r *artifactregistrypb.GetRepositoryRequest,
) (*artifactregistrypb.Repository, error) {
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
func (s *Server) CreateRepository(
	ctx context.Context, r *artifactregistrypb.CreateRepositoryRequest,
) (*longrunningpb.Operation, error) {
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
func (s *Server) DeleteRepository(
	ctx context.Context, r *artifactregistrypb.DeleteRepositoryRequest,
) (*longrunningpb.Operation, error) {
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

// operationToProto writes an operation. gcloud reads the repository's name from the response.
func operationToProto(op operation.Operation) (*longrunningpb.Operation, error) {
	meta := &artifactregistrypb.OperationMetadata{}
	switch {
	case !op.Done:
		return operations.Pending(op.Name, meta)
	case op.Error != nil:
		return operations.Failed(op.Name, meta, op.Error.Code, op.Error.Message)
	case op.Verb == "delete":
		return operations.Done(op.Name, meta, &emptypb.Empty{})
	}
	var r artifacts.Repository
	if err := json.Unmarshal(op.Response, &r); err != nil {
		return nil, err
	}
	w, err := toProto(r)
	if err != nil {
		return nil, err
	}
	return operations.Done(op.Name, meta, w)
}
