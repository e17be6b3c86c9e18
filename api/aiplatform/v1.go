package aiplatform

import (
	"context"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	beta "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"giggle/fault"
)

// v1 serves the API's version v1. Its messages are v1beta1's with fewer fields, each of the same number and type.
type v1 struct {
	aiplatformpb.UnimplementedPredictionServiceServer
	aiplatformpb.UnimplementedModelGardenServiceServer
	aiplatformpb.UnimplementedLlmUtilityServiceServer

	*Server
}

// as reads a message of one version as one of the other. A field that the other lacks is refused rather than lost.
func as[T proto.Message](from proto.Message, to T) (T, error) {
	b, err := proto.Marshal(from)
	if err == nil {
		err = proto.Unmarshal(b, to)
	}
	if err != nil {
		e := fault.New(fault.InvalidArgument, "The message can't be read.")
		e.Cause = err
		return to, e
	}
	if len(to.ProtoReflect().GetUnknown()) > 0 {
		return to, fault.New(fault.Unimplemented, "A field of %s is not implemented.",
			from.ProtoReflect().Descriptor().Name())
	}
	return to, nil
}

func (s *v1) GenerateContent(
	ctx context.Context, r *aiplatformpb.GenerateContentRequest,
) (*aiplatformpb.GenerateContentResponse, error) {
	in, err := as(r, &beta.GenerateContentRequest{})
	if err != nil {
		return nil, err
	}
	out, err := s.Server.GenerateContent(ctx, in)
	if err != nil {
		return nil, err
	}
	return as(out, &aiplatformpb.GenerateContentResponse{})
}

func (s *v1) StreamGenerateContent(
	r *aiplatformpb.GenerateContentRequest, stream aiplatformpb.PredictionService_StreamGenerateContentServer,
) error {
	in, err := as(r, &beta.GenerateContentRequest{})
	if err != nil {
		return err
	}
	return s.stream(stream.Context(), in, func(p *beta.GenerateContentResponse) error {
		out, err := as(p, &aiplatformpb.GenerateContentResponse{})
		if err != nil {
			return err
		}
		return stream.Send(out)
	})
}

func (s *v1) CountTokens(
	ctx context.Context, r *aiplatformpb.CountTokensRequest,
) (*aiplatformpb.CountTokensResponse, error) {
	in, err := as(r, &beta.CountTokensRequest{})
	if err != nil {
		return nil, err
	}
	out, err := s.Server.CountTokens(ctx, in)
	if err != nil {
		return nil, err
	}
	return as(out, &aiplatformpb.CountTokensResponse{})
}

func (s *v1) GetPublisherModel(
	ctx context.Context, r *aiplatformpb.GetPublisherModelRequest,
) (*aiplatformpb.PublisherModel, error) {
	out, err := s.Server.GetPublisherModel(ctx, &beta.GetPublisherModelRequest{Name: r.GetName()})
	if err != nil {
		return nil, err
	}
	return as(out, &aiplatformpb.PublisherModel{})
}
