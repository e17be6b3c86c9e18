package artifactregistry

import (
	"context"
	"strconv"
	"time"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
)

// maxTagsShown is the most tags in a version: "Will contain up to 100 tags" (Version.related_tags).
const maxTagsShown = 100

// versionToProto writes a version. Only the full view has tags.
func versionToProto(v artifacts.Version, view artifactregistrypb.VersionView) (*artifactregistrypb.Version, error) {
	// Artifact Registry writes every value of the metadata as text; gcloud reads nothing else.
	fields := map[string]any{"name": dockerImageName(v), "mediaType": v.MediaType,
		"imageSizeBytes": strconv.FormatInt(v.ImageSize, 10)}
	if !v.Built.IsZero() {
		fields["buildTime"] = v.Built.Format(time.RFC3339Nano)
	}
	if v.ArtifactType != "" {
		fields["artifactType"] = v.ArtifactType
	}
	metadata, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, err
	}
	w := &artifactregistrypb.Version{
		Name:       v.Name(),
		CreateTime: timestamppb.New(v.Created),
		UpdateTime: timestamppb.New(v.Updated),
		Metadata:   metadata,
	}
	if view == artifactregistrypb.VersionView_FULL {
		for _, t := range v.Tags[:min(len(v.Tags), maxTagsShown)] {
			w.RelatedTags = append(w.RelatedTags, tagToProto(v.Image, artifacts.Tag{Name: t, Digest: v.Digest}))
		}
	}
	return w, nil
}

// ListVersions lists the versions of an image: its manifests.
func (s *Server) ListVersions(
	ctx context.Context, r *artifactregistrypb.ListVersionsRequest,
) (*artifactregistrypb.ListVersionsResponse, error) {
	image, err := s.image(r.GetParent())
	if err != nil {
		return nil, err
	}
	all, err := s.Artifacts.Versions(ctx, image)
	if err != nil {
		return nil, err
	}
	page, next, err := arrange(s.Pages,
		listing{image.Name() + "/versions", r.GetFilter(), r.GetOrderBy(), r.GetPageSize(), r.GetPageToken()}, all,
		versionColumns, []string{"name"}, []string{"name", "createTime", "updateTime"})
	if err != nil {
		return nil, err
	}
	out := &artifactregistrypb.ListVersionsResponse{NextPageToken: next}
	for _, v := range page {
		w, err := versionToProto(v, r.GetView())
		if err != nil {
			return nil, err
		}
		out.Versions = append(out.Versions, w)
	}
	return out, nil
}

func versionColumns(v artifacts.Version) columns {
	return columns{
		"name": v.Name(), "createtime": timeKey(v.Created), "updatetime": timeKey(v.Updated), "uploadtime": timeKey(v.Created),
		"buildtime": timeKey(v.Built), "mediatype": v.MediaType,
	}
}

// version reads the name of a version. One may be named by its tag, too, as Artifact Registry has it.
func (s *Server) version(ctx context.Context, name string) (artifacts.Image, blob.Digest, error) {
	image, id, err := s.below("versions", name)
	if err != nil {
		return image, "", err
	}
	d, err := blob.ParseDigest(id)
	if err == nil {
		return image, d, nil
	}
	if !artifacts.IsTag(id) {
		return image, "", fault.New(fault.InvalidArgument, "%.150q is neither the digest nor a tag of a version.", id)
	}
	t, err := s.Artifacts.Tag(ctx, image, id)
	return image, t.Digest, err
}

// GetVersion returns one version of an image.
func (s *Server) GetVersion(
	ctx context.Context, r *artifactregistrypb.GetVersionRequest,
) (*artifactregistrypb.Version, error) {
	image, d, err := s.version(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	v, err := s.Artifacts.Version(ctx, image, d)
	if err != nil {
		return nil, err
	}
	return versionToProto(v, r.GetView())
}

// DeleteVersion removes a version, with its tags if force is set.
func (s *Server) DeleteVersion(
	ctx context.Context, r *artifactregistrypb.DeleteVersionRequest,
) (*longrunningpb.Operation, error) {
	image, d, err := s.version(ctx, r.GetName())
	if err != nil {
		return nil, err
	}
	op, err := s.Artifacts.DeleteVersions(ctx, image, []blob.Digest{d}, r.GetForce())
	if err != nil {
		return nil, err
	}
	return operationToProto(op)
}

// maxBatch is the most versions of one call: "A maximum of 10000 versions can be deleted in a batch".
const maxBatch = 10000

// BatchDeleteVersions removes several versions of one image, all or none, with their tags.
func (s *Server) BatchDeleteVersions(
	ctx context.Context, r *artifactregistrypb.BatchDeleteVersionsRequest,
) (*longrunningpb.Operation, error) {
	image, err := s.image(r.GetParent())
	if err != nil {
		return nil, err
	}
	if len(r.GetNames()) == 0 || len(r.GetNames()) > maxBatch {
		return nil, fault.Invalid("names", "has %d versions: want 1 to %d", len(r.GetNames()), maxBatch)
	}
	if r.GetValidateOnly() {
		return nil, fault.NotImplemented("validateOnly", "is not implemented")
	}
	var all []blob.Digest
	for _, name := range r.GetNames() {
		of, d, err := s.version(ctx, name)
		if err != nil {
			return nil, err
		}
		if of != image {
			return nil, fault.Invalid("names", "%.200q is not a version of %s", name, image.Name())
		}
		all = append(all, d)
	}
	op, err := s.Artifacts.DeleteVersions(ctx, image, all, true)
	if err != nil {
		return nil, err
	}
	return operationToProto(op)
}
