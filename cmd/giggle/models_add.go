package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"giggle/api/giggle"
	"giggle/fault"
)

func (p *program) modelsAdd() *cobra.Command {
	var data, project, as string
	c := &cobra.Command{
		Use:   "add FILE.gguf|MODEL",
		Short: "Add a model's file, for the platform and for ollama pull",
		Long: "Add copies a GGUF file, or a model that is here already. In builds, services and giggle shell, `ollama pull NAME` then gets\n" +
			"it as from Ollama's own registry: with a licence that says which file it is. A small one with Llama's architecture (F32, F16\n" +
			"or Q8_0, at most 1 GiB) the platform runs itself, too, and it answers for its name. Ollama pulls models of the first project.",
		Example: "  giggle models add gemma-3-4b-it-q4_k_m.gguf --as gemma3:4b\n" +
			"  giggle models add giggle-tiny-1 --as gemma3:4b   # the one that is built in, where no other can be had\n" +
			"  giggle models add smollm2-135m-q8_0.gguf --as smollm2\n  giggle models use '*' embedded:smollm2",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"project": {project}, "name": {as}, "source": {filepath.Base(args[0])}}
			if as == "" {
				query.Set("name", strings.TrimSuffix(filepath.Base(args[0]), ".gguf"))
			}
			var body io.Reader
			f, err := os.Open(args[0])
			switch {
			case err == nil:
				defer func() { _ = f.Close() }() // it was only read
				body = p.watched(f)
			case errors.Is(err, os.ErrNotExist) && !strings.ContainsRune(args[0], filepath.Separator) &&
				!strings.HasSuffix(args[0], ".gguf"):
				query.Set("from", args[0])
			default:
				return fault.New(fault.NotFound, "%v", err)
			}
			res, err := call(cmd.Context(), data, http.MethodPut, "/v1/models:add", query, body)
			if err != nil {
				return err
			}
			defer func() { _ = res.Close() }() // it was only read
			var added giggle.Route
			if err := json.NewDecoder(res).Decode(&added); err != nil {
				return err
			}
			p.printf("Added %s as %s in project %s.\n", describe(added.File), added.Model, project)
			st, err := getStatus(cmd.Context(), data)
			if err != nil {
				return err
			}
			if added.Backend != "" {
				p.printf("It answers for %s.\n", added.Model)
			} else {
				p.printf("The platform can't run it itself: %s.\n", strings.TrimSuffix(added.File.Unfit, "."))
			}
			if project == st.Project {
				p.printf("`ollama pull %s` gets it, in builds, services and giggle shell.\n", added.Model)
			}
			return nil
		},
	}
	p.dataFlag(c, &data)
	p.projectFlag(c, &project)
	c.Flags().StringVar(&as, "as", "", "name of the model; the file's if left out")
	return c
}

// describe is a model's file in a few words.
func describe(f *giggle.File) string {
	if f == nil {
		return ""
	}
	out := fmt.Sprintf("%s, %.1f MB, %.19s", f.Source, float64(f.Bytes)/1e6, f.Digest)
	if f.Title != "" && f.Title != f.Source {
		out += ", calls itself " + f.Title
	}
	return out
}

// watched is a file that shows on a terminal how much of it was read.
func (p *program) watched(f *os.File) io.Reader {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 || !p.onTerminal() {
		return f
	}
	return &progress{Reader: f, out: p.stdout, size: info.Size()}
}

// progress prints the percentage of a reader's bytes that were read, and takes it away at the end.
type progress struct {
	io.Reader
	out        io.Writer
	read, size int64
	shown      int64
}

// Read reads.
func (r *progress) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.read += int64(n)
	switch percent := 100 * r.read / r.size; {
	case err != nil:
		fmt.Fprint(r.out, "\r\x1b[K")
	case percent != r.shown:
		r.shown = percent
		fmt.Fprintf(r.out, "\r%3d %%", percent)
	}
	return n, err
}
