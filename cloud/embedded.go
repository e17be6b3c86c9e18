package cloud

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"giggle/fault"
	"giggle/models"
	"giggle/models/embedded"
)

// modelIdle is how long the process of an embedded model stays without a question: its memory is returned then.
const modelIdle = 5 * time.Minute

// maxModel bounds a model's file, in bytes. A bigger one belongs to Ollama or llama.cpp.
const maxModel = 4 << 30

// modelName is what an added model may be called: it is a file's name too.
var modelName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,62}$`)

// adding is the pattern of the files that are being added. A kill leaves one; the next start removes it.
const adding = ".adding-*.gguf"

// modelFile is where an added model's file is.
func (c *Cloud) modelFile(project, name string) string {
	return c.path("models", project, name+".gguf")
}

// embeddedModel is the model that comes with the platform, or one that was added under a name.
func (c *Cloud) embeddedModel(project, name string) (models.Backend, error) {
	file := ""
	if name != "" {
		file = c.modelFile(project, name)
		if !modelName.MatchString(name) {
			return nil, fault.Invalid("backend", "%.100q is not the name of a model", name)
		}
		if _, err := os.Stat(file); err != nil {
			return nil, fault.Invalid("backend", "no model %s was added to project %s: `giggle models add FILE.gguf --as %s`", name, project, name)
		}
	}
	return models.FromRunner(c.modelRunner(file)), nil
}

// modelRunner runs a model's file, or the model that is built in, in a process of its own.
func (c *Cloud) modelRunner(file string) *embedded.Runner {
	return embedded.New(embedded.Config{Binary: c.cfg.Binary, Args: []string{"model-runner"}, Model: file, Idle: modelIdle, Log: c.cfg.Log, Now: c.cfg.Now})
}

// addModel keeps a model's file under a name, and has it answer for that name.
func (c *Cloud) addModel(ctx context.Context, project, name string, file io.Reader) (err error) {
	defer fault.Wrap(&err, "cloud.addModel(%s)", name)
	if !modelName.MatchString(name) {
		return fault.Invalid("name", "%.100q is not 1 to 63 letters, digits and any of . _ : -", name)
	}
	if _, err := c.project(project); err != nil {
		return err
	}
	all, err := c.models.Routes(ctx, project)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(r models.Route) bool { return r.Model == name }) {
		return fault.New(fault.AlreadyExists, "Something answers for %s in project %s already. `giggle models rm %s` first, or add this one under another name.", name, project, name)
	}
	to := c.modelFile(project, name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(to), adding)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone when all went well
	n, err := io.Copy(tmp, io.LimitReader(file, maxModel+1))
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if n > maxModel {
		return fault.Invalid("file", "is bigger than %d GiB; a model of that size belongs to Ollama: `giggle models use %s ollama://HOST:PORT/MODEL`", maxModel>>30, name)
	}
	// In its own process: the file is a stranger's.
	trial := c.modelRunner(tmp.Name())
	_, err = trial.Count(ctx, []embedded.Turn{{Role: embedded.User, Text: "hello"}})
	if err := errors.Join(err, trial.Close()); err != nil {
		e := fault.Invalid("file", "is no model that can be run here: %s", fault.From(err).Message)
		e.Cause = err
		return e
	}
	// Over a file without a route, which a kill between this line and the next leaves.
	if err := os.Rename(tmp.Name(), to); err != nil {
		return err
	}
	return c.models.Use(ctx, models.Route{Project: project, Model: name, Backend: models.Embedded + name})
}

// modelTable is the table of models with their files.
type modelTable struct {
	*models.Models
	cloud *Cloud
}

// Forget removes a model's route, and its file where one was added under its name. It fails with FailedPrecondition while
// another route leads to the file.
func (t modelTable) Forget(ctx context.Context, project, model string) error {
	all, err := t.Routes(ctx, project)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Model != model && r.Backend == models.Embedded+model {
			return fault.New(fault.FailedPrecondition, "The model %s answers for %s, too. Remove that route first.", model, r.Model)
		}
	}
	if err := t.Models.Forget(ctx, project, model); err != nil || !modelName.MatchString(model) {
		return err
	}
	if err := os.Remove(t.cloud.modelFile(project, model)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
