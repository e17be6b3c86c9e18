package artifactregistry

import (
	"context"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
)

func tagToProto(image artifacts.Image, t artifacts.Tag) *artifactregistrypb.Tag {
	return &artifactregistrypb.Tag{Name: image.TagName(t.Name), Version: image.VersionName(t.Digest)}
}

// ListTags lists the tags of an image.
func (s *Server) ListTags(
	ctx context.Context, r *artifactregistrypb.ListTagsRequest,
) (*artifactregistrypb.ListTagsResponse, error) {
	image, err := s.image(r.GetParent())
	if err != nil {
		return nil, err
	}
	all, err := s.Artifacts.Tags(ctx, image, "", 0)
	if err != nil {
		return nil, err
	}
	page, next, err := arrange(s.Pages,
		listing{image.Name() + "/tags", r.GetFilter(), "", r.GetPageSize(), r.GetPageToken()}, all,
		func(t artifacts.Tag) columns {
			return columns{"name": image.TagName(t.Name), "version": image.VersionName(t.Digest)}
		}, []string{"name", "version"}, nil)
	if err != nil {
		return nil, err
	}
	out := &artifactregistrypb.ListTagsResponse{NextPageToken: next}
	for _, t := range page {
		out.Tags = append(out.Tags, tagToProto(image, t))
	}
	return out, nil
}

// GetTag returns one tag of an image.
func (s *Server) GetTag(ctx context.Context, r *artifactregistrypb.GetTagRequest) (*artifactregistrypb.Tag, error) {
	image, id, err := s.below("tags", r.GetName())
	if err != nil {
		return nil, err
	}
	t, err := s.Artifacts.Tag(ctx, image, id)
	if err != nil {
		return nil, err
	}
	return tagToProto(image, t), nil
}

// target returns the digest that a tag is to be set on.
func (s *Server) target(image artifacts.Image, version string) (blob.Digest, error) {
	of, id, err := s.below("versions", version)
	if err != nil {
		return "", err
	}
	if of != image {
		return "", fault.Invalid("tag.version", "%.200q is not a version of %s", version, image.Name())
	}
	return blob.ParseDigest(id)
}

// CreateTag sets a tag that is not there yet.
func (s *Server) CreateTag(
	ctx context.Context, r *artifactregistrypb.CreateTagRequest,
) (*artifactregistrypb.Tag, error) {
	image, err := s.image(r.GetParent())
	if err != nil {
		return nil, err
	}
	d, err := s.target(image, r.GetTag().GetVersion())
	if err != nil {
		return nil, err
	}
	t, err := s.Artifacts.CreateTag(ctx, image, r.GetTagId(), d)
	if err != nil {
		return nil, err
	}
	return tagToProto(image, t), nil
}

// UpdateTag moves a tag to another version.
func (s *Server) UpdateTag(
	ctx context.Context, r *artifactregistrypb.UpdateTagRequest,
) (*artifactregistrypb.Tag, error) {
	image, id, err := s.below("tags", r.GetTag().GetName())
	if err != nil {
		return nil, err
	}
	for _, p := range r.GetUpdateMask().GetPaths() {
		if p != "version" && p != "*" {
			return nil, fault.Invalid("updateMask", "%.60q of a tag can't be changed, only its version", p)
		}
	}
	d, err := s.target(image, r.GetTag().GetVersion())
	if err != nil {
		return nil, err
	}
	if _, err := s.Artifacts.Tag(ctx, image, id); err != nil {
		return nil, err
	}
	t, err := s.Artifacts.SetTag(ctx, image, id, d)
	if err != nil {
		return nil, err
	}
	return tagToProto(image, t), nil
}

// DeleteTag removes a tag, and not its version.
func (s *Server) DeleteTag(ctx context.Context, r *artifactregistrypb.DeleteTagRequest) (*emptypb.Empty, error) {
	image, id, err := s.below("tags", r.GetName())
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.Artifacts.DeleteTag(ctx, image, id)
}
