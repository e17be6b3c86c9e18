package giggle

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"giggle/fault"
	"giggle/iam"
	"giggle/vertex"
	"giggle/vertex/library"
)

// Models is the table of models' backends, and the files that were added.
type Models interface {
	// Add keeps a model's file under a name of a project, and has it answer for that name where the platform can run
	// it. Source is what the file was called; without a file it is the name of a model that is here.
	Add(ctx context.Context, project, name, source string, file io.Reader) (library.Model, error)
	Files(ctx context.Context, project string) ([]library.Model, error)
	Routes(ctx context.Context, project string) ([]vertex.Route, error)
	Use(ctx context.Context, r vertex.Route) error
	Forget(ctx context.Context, project, model string) error
	Resolve(ctx context.Context, project, model string) (vertex.Route, vertex.Backend, error)
}

// Route says what answers for a model.
type Route struct {
	Project string `json:"project"`
	Model   string `json:"model"`          // "*" for every gemini model that has no route of its own
	Backend string `json:"backend"`        // "" where nothing does: of a file that only Ollama can run
	File    *File  `json:"file,omitempty"` // that was added under the model's name
}

// File is a model's file, as it was added and as it describes itself.
type File struct {
	Source       string    `json:"source"` // what it was called
	Digest       string    `json:"digest"`
	Bytes        int64     `json:"bytes"`
	Added        time.Time `json:"added"`
	Title        string    `json:"title,omitempty"`
	License      string    `json:"license,omitempty"`
	Architecture string    `json:"architecture,omitempty"`
	Parameters   uint64    `json:"parameters"`
	Unfit        string    `json:"unfit,omitempty"` // why the platform can't run it itself
}

func fileOf(m library.Model) *File {
	return &File{m.Source, m.Digest, m.Size, m.Added, m.Title, m.License, m.Architecture, m.Parameters, m.Unfit}
}

// maxQuestion bounds the body of a call about models, in bytes.
const maxQuestion = 1 << 20

func (s *Server) listModels(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	project := r.URL.Query().Get("project")
	if err := s.cfg.Identity.Authorize(r.Context(), who, "aiplatform.models.list", "projects/"+project); err != nil {
		return nil, err
	}
	routes, err := s.cfg.Models.Routes(r.Context(), project)
	if err != nil {
		return nil, err
	}
	files, err := s.cfg.Models.Files(r.Context(), project)
	if err != nil {
		return nil, err
	}
	out := []Route{}
	at := make(map[string]int)
	for _, m := range routes {
		at[m.Model] = len(out)
		out = append(out, Route{Project: m.Project, Model: m.Model, Backend: m.Backend})
	}
	for _, f := range files {
		i, ok := at[f.Name]
		if !ok {
			i = len(out)
			out = append(out, Route{Project: f.Project, Model: f.Name})
		}
		out[i].File = fileOf(f)
	}
	return out, nil
}

func (s *Server) useModel(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	var route Route
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&route); err != nil {
		return nil, fault.New(fault.InvalidArgument, "The body is no route: %v", err)
	}
	if err := s.cfg.Identity.Authorize(r.Context(), who, "aiplatform.models.upload",
		"projects/"+route.Project); err != nil {
		return nil, err
	}
	route.File = nil
	return route, s.cfg.Models.Use(r.Context(),
		vertex.Route{Project: route.Project, Model: route.Model, Backend: route.Backend})
}

// addModel takes the body as a model's file under a name, or with from in the query a model that is here.
func (s *Server) addModel(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	q := r.URL.Query()
	project, source := q.Get("project"), q.Get("source")
	if err := s.cfg.Identity.Authorize(r.Context(), who, "aiplatform.models.upload", "projects/"+project); err != nil {
		return nil, err
	}
	file := io.Reader(r.Body)
	if from := q.Get("from"); from != "" {
		source, file = from, nil
	}
	m, err := s.cfg.Models.Add(r.Context(), project, q.Get("name"), source, file)
	if err != nil {
		return nil, err
	}
	out := Route{Project: project, Model: m.Name, File: fileOf(m)}
	if m.Unfit == "" {
		out.Backend = vertex.Embedded + m.Name
	}
	return out, nil
}

func (s *Server) forgetModel(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	project, model := r.URL.Query().Get("project"), r.URL.Query().Get("model")
	if err := s.cfg.Identity.Authorize(r.Context(), who, "aiplatform.models.delete", "projects/"+project); err != nil {
		return nil, err
	}
	if err := s.cfg.Models.Forget(r.Context(), project, model); err != nil {
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
	if err := s.cfg.Identity.Authorize(r.Context(), who, "aiplatform.endpoints.predict",
		"projects/"+q.Project); err != nil {
		return nil, err
	}
	_, backend, err := s.cfg.Models.Resolve(r.Context(), q.Project, q.Model)
	if err != nil {
		return nil, err
	}
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	begun := false
	request := &vertex.Request{Turns: []vertex.Turn{{Role: vertex.User, Parts: []vertex.Part{{Text: q.Prompt}}}}}
	answer, err := backend.Generate(r.Context(), request, func(c vertex.Chunk) error {
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
