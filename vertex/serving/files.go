package serving

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"giggle/fault"
	"giggle/vertex"
	"giggle/vertex/embedded"
	"giggle/vertex/library"
)

// modelIdle is how long the process of an embedded model stays without a question: its memory is returned then.
const modelIdle = 5 * time.Minute

// embeddedModel is the model that comes with the platform, or one that was added under a name.
func (s *Serving) embeddedModel(project, name string) (vertex.Backend, error) {
	if name == "" {
		return vertex.FromRunner(s.modelRunner("", "")), nil
	}
	m, err := s.library.Get(context.Background(), project, name)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Invalid("backend",
			"no model %.100s was added to project %s: `giggle models add FILE.gguf --as %.100s`", name, project, name)
	}
	if err != nil {
		return nil, err
	}
	if m.Unfit != "" {
		return nil, fault.Invalid("backend",
			"the platform can't run %s itself (%s): serve it with Ollama, as `ollama pull %s` gets it", name, m.Unfit,
			name)
	}
	called := name
	if source := strings.TrimSuffix(m.Source, ".gguf"); source != name {
		called += " (" + source + ")" // nobody shall take a model for another one because of the name that it was given
	}
	return vertex.FromRunner(s.modelRunner(s.library.Path(m), called)), nil
}

// modelRunner runs a model's file, or the model that is built in, in a process of its own.
func (s *Serving) modelRunner(file, name string) *embedded.Runner {
	return embedded.New(embedded.Config{
		Binary: s.cfg.Binary,
		Args:   []string{"model-runner"},
		Model:  file,
		Name:   name,
		Idle:   modelIdle,
		Log:    s.cfg.Log,
		Now:    s.cfg.Now,
	})
}

// Add keeps a model's file under a name, and has it answer for that name where the platform can run it. Source is what
// the file was called; file is nil where it is the name of a model that is here.
func (s *Serving) Add(ctx context.Context, project, name, source string, file io.Reader) (m library.Model, err error) {
	defer fault.Wrap(&err, "serving.Add(%s)", name)
	if err := library.CheckName(name); err != nil {
		return m, err
	}
	if _, err := s.cfg.Project(project); err != nil {
		return m, err
	}
	all, err := s.Models.Routes(ctx, project)
	if err != nil {
		return m, err
	}
	if slices.ContainsFunc(all, func(r vertex.Route) bool { return r.Model == name }) {
		return m, fault.New(fault.AlreadyExists,
			"Something answers for %s in project %s already. `giggle models rm %s` first, or add this one under another name.", name, project, name)
	}
	if file == nil {
		stored, original, err := s.storedModel(ctx, project, source)
		if err != nil {
			return m, err
		}
		defer func() { _ = stored.Close() }() // it was only read
		file, source = stored, original
	}
	m, err = s.library.Add(ctx, project, name, source, file,
		func(path string) (string, error) { return s.trial(ctx, project, path) })
	if err != nil || m.Unfit != "" {
		return m, err
	}
	return m, s.Models.Use(ctx, vertex.Route{Project: project, Model: name, Backend: vertex.Embedded + name})
}

// storedModel opens the file of a model that is here, and says what it was called where it came from.
func (s *Serving) storedModel(ctx context.Context, project, name string) (io.ReadCloser, string, error) {
	if name == embedded.Name {
		return io.NopCloser(bytes.NewReader(embedded.File())), embedded.Name, nil
	}
	m, err := s.library.Get(ctx, project, name)
	if fault.Is(err, fault.NotFound) {
		return nil, "", fault.New(fault.NotFound, "There is no file and no model %.100s in project %s to be added.",
			name, project)
	}
	if err != nil {
		return nil, "", err
	}
	f, err := os.Open(s.library.Path(m))
	return f, m.Source, err
}

// trial asks a file's model for a little, in its own process: the file is a stranger's. It returns why the platform
// can't run the model although nothing is wrong with the file.
func (s *Serving) trial(ctx context.Context, project, path string) (unfit string, err error) {
	r := s.modelRunner(path, "")
	_, err = r.Count(ctx, []embedded.Turn{{Role: embedded.User, Text: "hello"}})
	err = errors.Join(err, r.Close())
	why := fault.From(err)
	switch {
	case err == nil:
		return "", nil
	case !fault.Is(err, fault.Unimplemented):
		e := fault.Invalid("file", "is no model that can be run here: %s", why.Message)
		e.Cause = err
		return "", e
	case project != s.cfg.Main:
		return "", fault.New(fault.FailedPrecondition,
			"The platform can't run this model itself (%s), and Ollama pulls models of the project %s only: add it there.", why.Message, s.cfg.Main)
	}
	return why.Message, nil
}

// Files returns the models that were added to a project.
func (s *Serving) Files(ctx context.Context, project string) ([]library.Model, error) {
	return s.library.List(ctx, project)
}

// Forget removes a model's route, and its file where one was added under its name. It fails with FailedPrecondition
// while another route leads to the file.
func (s *Serving) Forget(ctx context.Context, project, model string) error {
	all, err := s.Routes(ctx, project)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Model != model && r.Backend == vertex.Embedded+model {
			return fault.New(fault.FailedPrecondition, "The model %s answers for %s, too. Remove that route first.",
				model, r.Model)
		}
	}
	err = s.Models.Forget(ctx, project, model)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	// A file alone is one that only Ollama can run, or what a kill has left.
	if removed := s.library.Remove(ctx, project, model); !fault.Is(removed, fault.NotFound) {
		return removed
	}
	return err
}
