package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"giggle/api/giggle"
	"giggle/fault"
	"giggle/vertex"
	"giggle/vertex/embedded"
)

func (p *program) models() *cobra.Command {
	c := &cobra.Command{
		Use:   "models",
		Short: "Say which backend answers for a language model",
		Long: "Models sets what answers when an application calls a model of Vertex AI: the embedded model, an Ollama server, a server\n" +
			"with OpenAI's API, or a Cloud Run service of this platform that runs Ollama. Every answer names what it is of.",
		Example: "  giggle models ls\n" +
			"  giggle models use '*' ollama://127.0.0.1:11434/gemma3:4b\n" +
			"  giggle models use gemini-2.5-pro 'openai+https://api.example.com/big-model?key=openai/1'\n" +
			"  giggle models use gemini-2.0-flash-001 'run://ollama-gemma/gemma3:4b?region=europe-north1'\n" +
			"  giggle models try gemini-2.0-flash-001 'tell me a joke'",
	}
	c.AddCommand(p.modelsList(), p.modelsAdd(), p.modelsUse(), p.modelsRemove(), p.modelsTry())
	return c
}

func (p *program) projectFlag(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "project", "giggle", "id of the project")
}

func (p *program) modelsList() *cobra.Command {
	var data, project string
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List which backend answers for which model",
		Example: "  giggle models ls --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := ask(cmd.Context(), data, "/v1/models", url.Values{"project": {project}})
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			var all []giggle.Route
			if err := json.NewDecoder(body).Decode(&all); err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(all)
			}
			t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "MODEL\tBACKEND\tFILE")
			for _, r := range all {
				model := r.Model
				if model == "*" {
					model = "* (every gemini model besides)"
				}
				backend := r.Backend
				if backend == vertex.Embedded {
					backend += " (" + embedded.Name + ", the small one that comes with giggle)"
				}
				if backend == "" {
					backend = "none: for Ollama only"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\n", model, backend, describe(r.File))
			}
			return t.Flush()
		},
	}
	p.dataFlag(c, &data)
	p.projectFlag(c, &project)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) modelsUse() *cobra.Command {
	var data, project string
	c := &cobra.Command{
		Use:   "use MODEL BACKEND",
		Short: "Have a backend answer for a model",
		Long: "Use has a backend answer for a model's id, or for '*': every gemini model that has none of its own. A backend is one of\n" +
			"  embedded:                          the model that comes with giggle\n" +
			"  ollama://HOST:PORT/MODEL           an Ollama server (ollama+https:// over TLS)\n" +
			"  openai://HOST:PORT/MODEL           a server with OpenAI's chat API (openai+https://; ?key=SECRET/VERSION for its key, which is the file\n" +
			"                                     secrets/projects/PROJECT/secrets/SECRET/versions/VERSION in the data directory)\n" +
			"  run://SERVICE/MODEL?region=REGION  a Cloud Run service of this platform that runs Ollama; it is called as\n" +
			"                                     service-NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com",
		Example: "  giggle models use '*' ollama://127.0.0.1:11434/gemma3:4b",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := json.Marshal(giggle.Route{Project: project, Model: args[0], Backend: args[1]})
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), data, http.MethodPut, "/v1/models", nil, bytes.NewReader(body))
			if err != nil {
				return err
			}
			p.printf("%s answers for %s in project %s.\n", args[1], args[0], project)
			return res.Close()
		},
	}
	p.dataFlag(c, &data)
	p.projectFlag(c, &project)
	return c
}

func (p *program) modelsRemove() *cobra.Command {
	var data, project string
	c := &cobra.Command{
		Use:     "rm MODEL",
		Short:   "Forget what answers for a model",
		Example: "  giggle models rm gemini-2.5-pro",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := call(cmd.Context(), data, http.MethodDelete, "/v1/models",
				url.Values{"project": {project}, "model": {args[0]}}, nil)
			if err != nil {
				return err
			}
			p.printf("Nothing of its own answers for %s in project %s any more.\n", args[0], project)
			return res.Close()
		},
	}
	p.dataFlag(c, &data)
	p.projectFlag(c, &project)
	return c
}

func (p *program) modelsTry() *cobra.Command {
	var data, project string
	c := &cobra.Command{
		Use:     "try MODEL PROMPT…",
		Short:   "Ask a model",
		Example: "  giggle models try gemini-2.0-flash-001 tell me a joke",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := json.Marshal(map[string]string{"project": project, "model": args[0],
				"prompt": strings.Join(args[1:], " ")})
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), data, http.MethodPost, "/v1/models:try", nil, bytes.NewReader(body))
			if err != nil {
				return err
			}
			defer func() { _ = res.Close() }()
			for d := json.NewDecoder(res); ; {
				var piece giggle.Piece
				if err := d.Decode(&piece); errors.Is(err, io.EOF) {
					return fault.New(fault.Unavailable, "The answer broke off.")
				} else if err != nil {
					return err
				}
				if piece.Error != nil {
					return fault.New(fault.Code(piece.Error.Code), "%s", piece.Error.Message)
				}
				if piece.Model != "" {
					p.printf("\n")
					_, err := fmt.Fprintf(p.stderr, "by %s, %d tokens for %d\n", piece.Model, piece.Output,
						piece.Prompt)
					return err
				}
				p.printf("%s", piece.Text)
			}
		},
	}
	p.dataFlag(c, &data)
	p.projectFlag(c, &project)
	return c
}
