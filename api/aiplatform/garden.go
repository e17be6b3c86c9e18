package aiplatform

import (
	"context"
	"strings"

	beta "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"giggle/fault"
	"giggle/vertex"
)

// GetPublisherModel returns a model of Google's, for which a backend stands in. Which one, an answer's modelVersion
// says.
func (s *Server) GetPublisherModel(_ context.Context, r *beta.GetPublisherModelRequest) (*beta.PublisherModel, error) {
	model, ok := strings.CutPrefix(r.GetName(), "publishers/google/models/")
	// in a project and a location, as the newer library asks
	if i := strings.Index(r.GetName(), "/publishers/google/models/"); i >= 0 {
		model, ok = r.GetName()[i+len("/publishers/google/models/"):], true
	}
	if !ok || !vertex.Gemini(model) {
		return nil, fault.New(fault.NotFound, "Publisher Model `%.300s` is not found.", r.GetName())
	}
	return publisherModel(model), nil
}

func publisherModel(model string) *beta.PublisherModel {
	return &beta.PublisherModel{
		Name:               "publishers/google/models/" + model,
		VersionId:          "default",
		LaunchStage:        beta.PublisherModel_GA,
		OpenSourceCategory: beta.PublisherModel_PROPRIETARY,
		VersionState:       beta.PublisherModel_VERSION_STATE_STABLE,
	}
}

// known are the models that a list has. Every other gemini id is answered for as well.
var known = []string{"gemini-2.0-flash-001", "gemini-2.0-flash-lite-001", "gemini-2.5-flash", "gemini-2.5-flash-lite",
	"gemini-2.5-pro"}

// ListPublisherModels lists Google's models.
func (s *Server) ListPublisherModels(
	_ context.Context, r *beta.ListPublisherModelsRequest,
) (*beta.ListPublisherModelsResponse, error) {
	if r.GetParent() != "publishers/google" && !strings.HasSuffix(r.GetParent(), "/publishers/google") {
		return &beta.ListPublisherModelsResponse{}, nil
	}
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of models are not implemented")
	}
	out := &beta.ListPublisherModelsResponse{}
	for _, m := range known {
		out.PublisherModels = append(out.PublisherModels, publisherModel(m))
	}
	return out, nil
}
