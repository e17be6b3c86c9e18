package giggle

import (
	"context"
	"encoding/json"
	"net/http"

	"giggle/fault"
	"giggle/iam"
	"giggle/models"
)

// Models is the table of models' backends: *models.Models.
type Models interface {
	Routes(ctx context.Context, project string) ([]models.Route, error)
	Use(ctx context.Context, r models.Route) error
	Forget(ctx context.Context, project, model string) error
	Resolve(ctx context.Context, project, model string) (models.Route, models.Backend, error)
}

// Route says what answers for a model.
type Route struct {
	Project string `json:"project"`
	Model   string `json:"model"` // "*" for every gemini model that has no route of its own
	Backend string `json:"backend"`
}

// maxQuestion bounds the body of a call about models, in bytes.
const maxQuestion = 1 << 20

func (s *Server) listModels(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	project := r.URL.Query().Get("project")
	if err := s.Identity.Authorize(r.Context(), who, "aiplatform.models.list", "projects/"+project); err != nil {
		return nil, err
	}
	routes, err := s.Models.Routes(r.Context(), project)
	out := []Route{}
	for _, m := range routes {
		out = append(out, Route(m))
	}
	return out, err
}

func (s *Server) useModel(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	var route Route
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&route); err != nil {
		return nil, fault.New(fault.InvalidArgument, "The body is no route: %v", err)
	}
	if err := s.Identity.Authorize(r.Context(), who, "aiplatform.models.upload", "projects/"+route.Project); err != nil {
		return nil, err
	}
	return route, s.Models.Use(r.Context(), models.Route(route))
}

// addModel takes the body as a model's file under a name.
func (s *Server) addModel(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	project, name := r.URL.Query().Get("project"), r.URL.Query().Get("name")
	if err := s.Identity.Authorize(r.Context(), who, "aiplatform.models.upload", "projects/"+project); err != nil {
		return nil, err
	}
	if err := s.AddModel(r.Context(), project, name, r.Body); err != nil {
		return nil, err
	}
	return Route{Project: project, Model: name, Backend: models.Embedded + name}, nil
}

func (s *Server) forgetModel(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	project, model := r.URL.Query().Get("project"), r.URL.Query().Get("model")
	if err := s.Identity.Authorize(r.Context(), who, "aiplatform.models.delete", "projects/"+project); err != nil {
		return nil, err
	}
	if err := s.Models.Forget(r.Context(), project, model); err != nil {
		if fault.Is(err, fault.NotFound) {
			err = fault.New(fault.NotFound, "The model %.100q has no route in project %.60s.", model, project)
		}
		return nil, err
	}
	return Route{Project: project, Model: model}, nil
}

// Piece is a part of the answer to a trial; the last has Model set.
type Piece struct {
	Text   string `json:"text,omitempty"`
	Model  string `json:"model,omitempty"` // what answered
	Prompt int    `json:"promptTokens,omitempty"`
	Output int    `json:"outputTokens,omitempty"`
	Error  *Error `json:"error,omitempty"`
}

// tryModel asks a model one question, and answers with a line for each piece.
func (s *Server) tryModel(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	var q struct{ Project, Model, Prompt string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q); err != nil {
		return nil, fault.New(fault.InvalidArgument, "The body is no question: %v", err)
	}
	if q.Prompt == "" {
		return nil, fault.Invalid("prompt", "is missing")
	}
	if err := s.Identity.Authorize(r.Context(), who, "aiplatform.endpoints.predict", "projects/"+q.Project); err != nil {
		return nil, err
	}
	_, backend, err := s.Models.Resolve(r.Context(), q.Project, q.Model)
	if err != nil {
		return nil, err
	}
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	begun := false
	request := &models.Request{Turns: []models.Turn{{Role: models.User, Parts: []models.Part{{Text: q.Prompt}}}}}
	answer, err := backend.Generate(r.Context(), request, func(c models.Chunk) error {
		begun = true
		if err := out.Encode(Piece{Text: c.Text}); err != nil {
			return err
		}
		return flush.Flush()
	})
	if err != nil {
		if begun { // the head is out
			_ = out.Encode(Piece{Error: &Error{Code: uint32(fault.CodeOf(err)), Message: fault.From(err).Message}})
			return nil, nil
		}
		return nil, err
	}
	_ = out.Encode(Piece{Model: answer.Model, Prompt: answer.Usage.Prompt, Output: answer.Usage.Output})
	return nil, nil
}
