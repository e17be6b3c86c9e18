package artifactregistry

import (
	"context"
	"net/url"
	"strings"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
)

// dockerImageName is the name of a version as a Docker image: ".../dockerImages/team%2Fjokes@sha256:…".
func dockerImageName(v artifacts.Version) string {
	return v.Image.Repository.String() + "/dockerImages/" + url.PathEscape(v.Image.Path) + "@" + string(v.Digest)
}

func dockerImageToProto(v artifacts.Version) *artifactregistrypb.DockerImage {
	w := &artifactregistrypb.DockerImage{
		Name:           dockerImageName(v),
		Uri:            v.Image.String() + "@" + string(v.Digest),
		Tags:           v.Tags,
		ImageSizeBytes: v.ImageSize,
		UploadTime:     timestamppb.New(v.Created),
		UpdateTime:     timestamppb.New(v.Updated),
		MediaType:      v.MediaType,
		ArtifactType:   v.ArtifactType,
	}
	if !v.Built.IsZero() {
		w.BuildTime = timestamppb.New(v.Built)
	}
	for _, c := range v.Children {
		w.ImageManifests = append(w.ImageManifests, &artifactregistrypb.ImageManifest{
			Architecture: c.Architecture,
			Os:           c.OS,
			Variant:      c.Variant,
			Digest:       string(c.Digest),
			MediaType:    c.MediaType,
		})
	}
	return w
}

// ListDockerImages lists the versions of all images of a repository.
func (s *Server) ListDockerImages(
	ctx context.Context, r *artifactregistrypb.ListDockerImagesRequest,
) (*artifactregistrypb.ListDockerImagesResponse, error) {
	n, err := s.repository(r.GetParent())
	if err != nil {
		return nil, err
	}
	all, err := s.Artifacts.RepositoryVersions(ctx, n)
	if err != nil {
		return nil, err
	}
	page, next, err := arrange(s.Pages,
		listing{n.String() + "/dockerImages", "", r.GetOrderBy(), r.GetPageSize(), r.GetPageToken()}, all,
		versionColumns, nil, []string{"name", "uploadTime", "updateTime", "buildTime", "mediaType"})
	if err != nil {
		return nil, err
	}
	out := &artifactregistrypb.ListDockerImagesResponse{NextPageToken: next}
	for _, v := range page {
		out.DockerImages = append(out.DockerImages, dockerImageToProto(v))
	}
	return out, nil
}

// GetDockerImage returns one version of an image, by its digest or by a tag (".../dockerImages/jokes:v1").
func (s *Server) GetDockerImage(
	ctx context.Context, r *artifactregistrypb.GetDockerImageRequest,
) (*artifactregistrypb.DockerImage, error) {
	of, id, ok := strings.Cut(r.GetName(), "/dockerImages/")
	path, version, pinned := strings.Cut(id, "@")
	if !pinned {
		var tagged bool
		if path, version, tagged = strings.Cut(id, ":"); !tagged {
			version = "latest"
		}
	}
	if !ok || version == "" || strings.Contains(version, "/") {
		return nil, fault.New(fault.InvalidArgument, "%.200q is not the name of a Docker image.", r.GetName())
	}
	image, d, err := s.version(ctx, of+"/packages/"+path+"/versions/"+version)
	if err != nil {
		return nil, err
	}
	v, err := s.Artifacts.Version(ctx, image, d)
	if err != nil {
		return nil, err
	}
	return dockerImageToProto(v), nil
}

func fileToProto(repository string, f artifacts.File) (*artifactregistrypb.File, error) {
	w := &artifactregistrypb.File{
		Name:       repository + "/files/" + string(f.Digest),
		SizeBytes:  f.Size,
		Owner:      f.Owner,
		CreateTime: timestamppb.New(f.Created),
		UpdateTime: timestamppb.New(f.Updated),
	}
	sum, err := f.Digest.Bytes()
	if err == nil && f.Digest.Algorithm() == "sha256" { // the API knows no other of ours
		w.Hashes = []*artifactregistrypb.Hash{{Type: artifactregistrypb.Hash_SHA256, Value: sum}}
	}
	return w, err
}

// ListFiles lists what a repository stores: manifests, configurations and layers.
func (s *Server) ListFiles(
	ctx context.Context, r *artifactregistrypb.ListFilesRequest,
) (*artifactregistrypb.ListFilesResponse, error) {
	n, err := s.repository(r.GetParent())
	if err != nil {
		return nil, err
	}
	all, err := s.Artifacts.Files(ctx, n)
	if err != nil {
		return nil, err
	}
	page, next, err := arrange(s.Pages,
		listing{n.String() + "/files", r.GetFilter(), r.GetOrderBy(), r.GetPageSize(), r.GetPageToken()}, all,
		func(f artifacts.File) columns {
			return columns{"name": n.String() + "/files/" +
				string(f.Digest), "owner": f.Owner, "createtime": timeKey(f.Created), "updatetime": timeKey(f.Updated)}
		}, []string{"name", "owner"}, []string{"name", "owner", "createTime", "updateTime"})
	if err != nil {
		return nil, err
	}
	out := &artifactregistrypb.ListFilesResponse{NextPageToken: next}
	for _, f := range page {
		w, err := fileToProto(n.String(), f)
		if err != nil {
			return nil, err
		}
		out.Files = append(out.Files, w)
	}
	return out, nil
}

// GetFile returns one file of a repository, by its digest.
func (s *Server) GetFile(ctx context.Context, r *artifactregistrypb.GetFileRequest) (*artifactregistrypb.File, error) {
	of, id, _ := strings.Cut(r.GetName(), "/files/")
	n, err := s.repository(of)
	if err != nil {
		return nil, err
	}
	d, err := blob.ParseDigest(id)
	if err != nil {
		return nil, err
	}
	all, err := s.Artifacts.Files(ctx, n)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.Digest == d {
			return fileToProto(n.String(), f)
		}
	}
	return nil, fault.New(fault.NotFound, "Repository %q has no file %s.", n.ID, d)
}
