package artifactregistry

import (
	"context"
	"strings"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/artifacts"
	"giggle/fault"
)

// image reads the name of a package.
func (s *Server) image(name string) (artifacts.Image, error) {
	image, err := artifacts.ParsePackage(name)
	if err != nil {
		return image, err
	}
	p, err := s.Project(image.Repository.Project)
	image.Repository.Project = p.ID
	return image, err
}

// below reads the name of something in a package: ".../packages/P/versions/V".
func (s *Server) below(collection, name string) (artifacts.Image, string, error) {
	of, id, ok := strings.Cut(name, "/"+collection+"/")
	if !ok || id == "" || strings.Contains(id, "/") || len(id) > 255 {
		return artifacts.Image{}, "",
			fault.New(fault.InvalidArgument, "%.200q is not the name of one of the %s of a package.", name, collection)
	}
	image, err := s.image(of)
	return image, id, err
}

func packageToProto(p artifacts.Package) *artifactregistrypb.Package {
	return &artifactregistrypb.Package{
		Name:       p.Image.Name(),
		CreateTime: timestamppb.New(p.Created),
		UpdateTime: timestamppb.New(p.Updated),
	}
}

// ListPackages lists the images of a repository.
func (s *Server) ListPackages(
	ctx context.Context, r *artifactregistrypb.ListPackagesRequest,
) (*artifactregistrypb.ListPackagesResponse, error) {
	n, err := s.repository(r.GetParent())
	if err != nil {
		return nil, err
	}
	all, err := s.Artifacts.Packages(ctx, n)
	if err != nil {
		return nil, err
	}
	page, next, err := arrange(s.Pages,
		listing{n.String() + "/packages", r.GetFilter(), r.GetOrderBy(), r.GetPageSize(), r.GetPageToken()}, all,
		func(p artifacts.Package) columns {
			return columns{"name": p.Image.Name(), "createtime": timeKey(p.Created), "updatetime": timeKey(p.Updated)}
		}, []string{"name"}, []string{"name", "createTime", "updateTime"})
	if err != nil {
		return nil, err
	}
	out := &artifactregistrypb.ListPackagesResponse{NextPageToken: next}
	for _, p := range page {
		out.Packages = append(out.Packages, packageToProto(p))
	}
	return out, nil
}

// GetPackage returns one image of a repository.
func (s *Server) GetPackage(
	ctx context.Context, r *artifactregistrypb.GetPackageRequest,
) (*artifactregistrypb.Package, error) {
	image, err := s.image(r.GetName())
	if err != nil {
		return nil, err
	}
	p, err := s.Artifacts.Package(ctx, image)
	if err != nil {
		return nil, err
	}
	return packageToProto(p), nil
}

// DeletePackage removes an image with all its versions and tags.
func (s *Server) DeletePackage(
	ctx context.Context, r *artifactregistrypb.DeletePackageRequest,
) (*longrunningpb.Operation, error) {
	image, err := s.image(r.GetName())
	if err != nil {
		return nil, err
	}
	op, err := s.Artifacts.DeletePackage(ctx, image)
	if err != nil {
		return nil, err
	}
	return operationToProto(op)
}
