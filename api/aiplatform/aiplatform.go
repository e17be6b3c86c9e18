// Package aiplatform is the wire form of Vertex AI, as far as applications call models with it: generateContent,
// streamGenerateContent and countTokens, v1 and v1beta1, gRPC and REST, and the list of publisher models.
//
// It translates between google.cloud.aiplatform and package models', in which backends answer. A field that is not
// implemented is refused by its path. The rest of the API answers UNIMPLEMENTED.
package aiplatform

import (
	"context"
	"strings"
	"time"

	"cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	beta "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/vertex"
)

// Models answers for the names of models: *models.Models.
type Models interface {
	Resolve(ctx context.Context, project, model string) (vertex.Route, vertex.Backend, error)
	Admit(project, model string) error
}

// Config is what a Server needs.
type Config struct {
	Models  Models
	Project resource.FindProject
	NewID   func() string
	Now     func() time.Time
}

// Server serves the API in its version v1beta1, of which v1 is a part.
type Server struct {
	Config
	absent
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself or by what it embeds.
type absent struct {
	beta.UnimplementedPredictionServiceServer
	beta.UnimplementedModelGardenServiceServer
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

const (
	predictionV1   = "/google.cloud.aiplatform.v1.PredictionService/"
	predictionBeta = "/google.cloud.aiplatform.v1beta1.PredictionService/"
	utilityV1      = "/google.cloud.aiplatform.v1.LlmUtilityService/"
	gardenV1       = "/google.cloud.aiplatform.v1.ModelGardenService/"
	gardenBeta     = "/google.cloud.aiplatform.v1beta1.ModelGardenService/"
	absentRPC      = "aiplatform.other"
	predict        = "aiplatform.endpoints.predict"
)

// MaxBody is the largest request in bytes: pictures and sound come in it
// (https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference, "inlineData").
const MaxBody = 20 << 20

// Rules says what each RPC needs. Google counts what models answer among the reads of data, which are not logged unless
// that is turned on; which models of Google's there are is no secret, and needs no permission there either.
var Rules = guard.Absent(
	&aiplatformpb.PredictionService_ServiceDesc,
	&aiplatformpb.LlmUtilityService_ServiceDesc,
	&aiplatformpb.ModelGardenService_ServiceDesc,
	&beta.PredictionService_ServiceDesc,
	&beta.LlmUtilityService_ServiceDesc,
	&beta.ModelGardenService_ServiceDesc,
).With(guard.Rules{
	predictionV1 + "GenerateContent":         {Permission: predict, On: "{model}", Reads: true},
	predictionV1 + "StreamGenerateContent":   {Permission: predict, On: "{model}", Reads: true},
	predictionBeta + "GenerateContent":       {Permission: predict, On: "{model}", Reads: true},
	predictionBeta + "StreamGenerateContent": {Permission: predict, On: "{model}", Reads: true},

	utilityV1 + "CountTokens":      {Permission: predict, On: "{endpoint}"}, // v1 has it in another service
	predictionBeta + "CountTokens": {Permission: predict, On: "{endpoint}"},

	gardenV1 + "GetPublisherModel":     {Authenticated: true},
	gardenBeta + "GetPublisherModel":   {Authenticated: true},
	gardenBeta + "ListPublisherModels": {Authenticated: true},

	absentRPC: {Authenticated: true},
})

// Denied puts a refusal into Vertex AI's words, which are not IAM's (seen in its users' reports).
func Denied(e *fault.Error, permission, resource string) {
	e.Message = "Permission '" + permission + "' denied on resource '//aiplatform.googleapis.com/" + resource +
		"' (or it may not exist)."
	e.Domain = "aiplatform.googleapis.com"
	e.Metadata = map[string]string{"permission": permission, "resource": resource}
}

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	beta.RegisterPredictionServiceServer(m, s)
	beta.RegisterModelGardenServiceServer(m, s)
	beta.RegisterLlmUtilityServiceServer(m, beta.UnimplementedLlmUtilityServiceServer{})
	aiplatformpb.RegisterPredictionServiceServer(m, &v1{Server: s})
	aiplatformpb.RegisterLlmUtilityServiceServer(m, &v1{Server: s})
	aiplatformpb.RegisterModelGardenServiceServer(m, &v1{Server: s})
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		for _, version := range []string{"/v1/", "/v1beta1/"} {
			m.HandleFunc(method, version+"{name=projects/*/locations/*/**}", absentRPC, notServed)
		}
	}
}

func notServed(context.Context, *rest.Request) (any, error) {
	return nil, fault.New(fault.Unimplemented,
		"This part of Vertex AI is not implemented by Giggle: generateContent, streamGenerateContent and countTokens of publisher models are.")
}

// name is the full name of a publisher's model.
type name struct{ project, model string }

// parse reads "projects/P/locations/L/publishers/google/models/M".
func (s *Server) parse(field, full string) (name, error) {
	p := strings.Split(full, "/")
	if len(p) == 6 && p[0] == "projects" && p[4] == "endpoints" {
		return name{}, fault.NotImplemented(field,
			"endpoints of one's own are not implemented; models of publishers are")
	}
	if len(p) != 8 || p[0] != "projects" || p[2] != "locations" || p[4] != "publishers" || p[6] != "models" ||
		p[7] == "" {
		return name{}, fault.Invalid(field,
			"%.200q is not projects/PROJECT/locations/LOCATION/publishers/google/models/MODEL", full)
	}
	project, err := s.Project(p[1])
	return name{project.ID, p[7]}, err
}
