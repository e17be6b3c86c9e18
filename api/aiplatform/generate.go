package aiplatform

import (
	"context"
	"strings"
	"unicode/utf8"

	beta "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/fault"
	"giggle/vertex"
)

// question is a request, read, with the backend that is to answer.
type question struct {
	request *vertex.Request
	backend vertex.Backend
	answers int // wanted
}

// maxAnswers is the most candidates of one request, from the API reference.
const maxAnswers = 8

func (s *Server) question(ctx context.Context, r *beta.GenerateContentRequest) (question, error) {
	n, err := s.parse("model", r.GetModel())
	if err != nil {
		return question{}, err
	}
	q := question{answers: 1}
	if q.request, err = toRequest(r); err != nil {
		return q, err
	}
	if c := r.GetGenerationConfig(); c != nil && c.CandidateCount != nil {
		if q.answers = int(c.GetCandidateCount()); q.answers < 1 || q.answers > maxAnswers {
			return q, fault.Invalid("generationConfig.candidateCount", "must be 1 to %d", maxAnswers)
		}
	}
	if err := s.Models.Admit(n.project, n.model); err != nil {
		return q, err
	}
	if _, q.backend, err = s.Models.Resolve(ctx, n.project, n.model); err != nil {
		return q, notFound(err, r.GetModel())
	}
	return q, fieldNames.Translate(q.request.Check(q.backend.Abilities()))
}

// notFound says in Vertex AI's words which model is not there.
func notFound(err error, model string) error {
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	e := fault.New(fault.NotFound, "Publisher Model `%.300s` was not found or your project does not have access to it.",
		model)
	e.Help = []fault.Link{{Description: fault.From(err).Message}}
	return e
}

// answer has the backend answer once for each candidate, one after the other, each with a seed of its own.
func (q *question) answer(
	ctx context.Context, emit func(candidate int, c vertex.Chunk) error, end func(candidate int, a vertex.Answer) error,
) error {
	for i := range q.answers {
		r := *q.request
		if r.Config.Seed != nil && i > 0 {
			seed := *r.Config.Seed + int64(i)
			r.Config.Seed = &seed
		}
		a, err := q.backend.Generate(ctx, &r, func(c vertex.Chunk) error { return emit(i, c) })
		if err != nil {
			return err
		}
		if err := end(i, a); err != nil {
			return err
		}
	}
	return nil
}

// GenerateContent answers at once: each candidate has one text, then the calls of functions.
func (s *Server) GenerateContent(
	ctx context.Context, r *beta.GenerateContentRequest,
) (*beta.GenerateContentResponse, error) {
	q, err := s.question(ctx, r)
	if err != nil {
		return nil, err
	}
	out := s.response()
	texts := make([]strings.Builder, q.answers)
	parts := make([][]*beta.Part, q.answers)
	usage := vertex.Usage{}
	err = q.answer(ctx, func(i int, c vertex.Chunk) error {
		texts[i].WriteString(c.Text)
		calls, err := callParts(c.Calls)
		parts[i] = append(parts[i], calls...)
		return err
	}, func(i int, a vertex.Answer) error {
		all := parts[i]
		if texts[i].Len() > 0 || len(all) == 0 { // never none: the tutorial's library reads the first unasked
			all = append([]*beta.Part{textPart(texts[i].String())}, all...)
		}
		out.Candidates = append(out.Candidates, candidate(i, all, finish[a.Finish]))
		usage.Prompt, usage.Output = a.Usage.Prompt, usage.Output+a.Usage.Output
		out.ModelVersion = a.Model
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.UsageMetadata = usageOf(usage)
	return out, nil
}

// StreamGenerateContent answers piece by piece. The last piece has the reason of the end and the usage.
func (s *Server) StreamGenerateContent(
	r *beta.GenerateContentRequest, stream beta.PredictionService_StreamGenerateContentServer,
) error {
	return s.stream(stream.Context(), r, stream.Send)
}

func (s *Server) stream(
	ctx context.Context, r *beta.GenerateContentRequest, send func(*beta.GenerateContentResponse) error,
) error {
	q, err := s.question(ctx, r)
	if err != nil {
		return err
	}
	head := s.response()
	usage := vertex.Usage{}
	piece := func(c *beta.Candidate, version string) *beta.GenerateContentResponse {
		return &beta.GenerateContentResponse{
			Candidates:   []*beta.Candidate{c},
			ModelVersion: version,
			CreateTime:   head.CreateTime,
			ResponseId:   head.ResponseId,
		}
	}
	flow := coalesce(ctx, func(i int, c vertex.Chunk) error {
		var all []*beta.Part
		if c.Text != "" {
			all = append(all, textPart(c.Text))
		}
		calls, err := callParts(c.Calls)
		if err != nil {
			return err
		}
		return send(piece(candidate(i, append(all, calls...), beta.Candidate_FINISH_REASON_UNSPECIFIED), ""))
	})
	defer flow.stop()
	return q.answer(ctx, flow.add, func(i int, a vertex.Answer) error {
		if err := flow.flush(); err != nil {
			return err
		}
		last := piece(candidate(i, []*beta.Part{textPart("")}, finish[a.Finish]), a.Model)
		usage.Prompt, usage.Output = a.Usage.Prompt, usage.Output+a.Usage.Output
		last.UsageMetadata = usageOf(usage)
		return send(last)
	})
}

func (s *Server) response() *beta.GenerateContentResponse {
	return &beta.GenerateContentResponse{CreateTime: timestamppb.New(s.Now()), ResponseId: s.NewID()}
}

// CountTokens says how many tokens a prompt has for a model.
func (s *Server) CountTokens(ctx context.Context, r *beta.CountTokensRequest) (*beta.CountTokensResponse, error) {
	full := r.GetModel()
	if full == "" {
		full = r.GetEndpoint()
	}
	n, err := s.parse("endpoint", full)
	if err != nil {
		return nil, err
	}
	if at, err := s.parse("endpoint", r.GetEndpoint()); err != nil || at != n { // the permission was asked for this one
		return nil, fault.Invalid("model", "%.200q is not the model of the endpoint", r.GetModel())
	}
	if len(r.GetInstances()) > 0 {
		return nil, fault.NotImplemented("instances", "tokens are counted of contents")
	}
	request, err := toRequest(&beta.GenerateContentRequest{
		Contents:          r.GetContents(),
		SystemInstruction: r.GetSystemInstruction(),
		Tools:             r.GetTools(),
		GenerationConfig:  r.GetGenerationConfig(),
	})
	if err != nil {
		return nil, err
	}
	if err := s.Models.Admit(n.project, n.model); err != nil {
		return nil, err
	}
	_, backend, err := s.Models.Resolve(ctx, n.project, n.model)
	if err != nil {
		return nil, notFound(err, full)
	}
	if err := request.Check(backend.Abilities()); err != nil {
		return nil, fieldNames.Translate(err)
	}
	count, err := backend.Count(ctx, request)
	if err != nil {
		return nil, err
	}
	characters := utf8.RuneCountInString(strings.Join(strings.Fields(request.System), ""))
	for _, t := range request.Turns {
		characters += utf8.RuneCountInString(strings.Join(strings.Fields(t.Text()), "")) // white space is not billed
	}
	return &beta.CountTokensResponse{
		TotalTokens: int32(count), TotalBillableCharacters: int32(characters),
		PromptTokensDetails: []*beta.ModalityTokenCount{{Modality: beta.Modality_TEXT, TokenCount: int32(count)}},
	}, nil
}
