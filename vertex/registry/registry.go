// Package registry hands the added models to Ollama: it answers for registry.ollama.ai, as much of it as `ollama pull`
// asks for.
//
// A model is a manifest of the Docker registry's form (version 2, schema 2) that names a configuration and layers by
// their digests: the weights, and small ones with the form of a conversation, parameters and a licence (Ollama's
// server/images.go and server/download.go, v0.17.4). The weights are the file in the library; all else is made here,
// the same bytes each time, and says which file it really is. Nothing is taken from the registry at Ollama, nothing can
// be pushed.
package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"

	"giggle/fault"
	"giggle/vertex/library"
)

// Host is the name that Ollama looks for models under.
const Host = "registry.ollama.ai"

// Library is the added models: *library.Library.
type Library interface {
	Get(ctx context.Context, project, name string) (library.Model, error)
	List(ctx context.Context, project string) ([]library.Model, error)
	Path(m library.Model) string
}

// Config is what New needs.
type Config struct {
	Library Library
	Project string // whose models they are
	Threads int    // that a model is to be run with
	Log     *slog.Logger
}

// Server answers as the registry does.
type Server struct {
	cfg Config
	mux *http.ServeMux
}

// New returns the registry of a project's models.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /v2/{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	s.mux.HandleFunc("GET /v2/{namespace}/{model}/manifests/{tag}", s.manifest)
	s.mux.HandleFunc("GET /v2/{namespace}/{model}/blobs/{digest}", s.blob)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED",
				"Nothing can be pushed to this registry. Add a model with: giggle models add FILE.gguf --as NAME")
			return
		}
		refuse(w, http.StatusNotFound, "NOT_FOUND", "404 page not found")
	})
	return s
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// refuse answers with an error in the registry's form
// (https://distribution.github.io/distribution/spec/api/#errors).
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}})
}

// manifest answers with the manifest of a model.
func (s *Server) manifest(w http.ResponseWriter, r *http.Request) {
	namespace, name, tag := r.PathValue("namespace"), r.PathValue("model"), r.PathValue("tag")
	m, err := s.find(r.Context(), namespace, name, tag)
	switch {
	case fault.Is(err, fault.NotFound):
		s.missing(w, namespace, name, tag)
		return
	case err != nil:
		s.failed(w, r, err)
		return
	}
	p := pack(m, s.cfg.Threads)
	s.cfg.Log.Info("a model is pulled", "model", m.Name, "file", m.Source, "digest", m.Digest, "bytes", m.Size)
	w.Header().Set("Content-Type", manifestType)
	w.Header().Set("Docker-Content-Digest", p.digest)
	w.Header().Set("Content-Length", strconv.Itoa(len(p.manifest)))
	_, _ = w.Write(p.manifest)
}

// find returns the model that a name and a tag mean.
func (s *Server) find(ctx context.Context, namespace, name, tag string) (library.Model, error) {
	if namespace != "library" {
		return library.Model{}, fault.New(fault.NotFound, "no model of %.60s is here", namespace)
	}
	m, err := s.cfg.Library.Get(ctx, s.cfg.Project, name+":"+tag)
	if fault.Is(err, fault.NotFound) && tag == "latest" {
		return s.cfg.Library.Get(ctx, s.cfg.Project, name)
	}
	return m, err
}

// missing says that a model was not added, and how that is done. The status is not 404: of that Ollama tells its user
// nothing but "file does not exist"; of any other it shows the text.
func (s *Server) missing(w http.ResponseWriter, namespace, name, tag string) {
	called := name + ":" + tag
	text := fmt.Sprintf("Giggle answers for %s here, offline, and no model was added as %.100s. Get its file, and: giggle models add FILE.gguf --as %.100s", Host, called, called)
	if namespace != "library" {
		text = fmt.Sprintf("Giggle answers for %s here, offline, and has models without a namespace only. Get the file of %.60s/%.100s, add it with giggle models add FILE.gguf --as %.100s, and pull that.", Host, namespace, called, called)
	}
	if s.cfg.Project != "giggle" { // the command's default
		text += " (with --project " + s.cfg.Project + ")"
	}
	s.cfg.Log.Warn("a model that nobody added is pulled", "namespace", namespace, "model", called)
	refuse(w, http.StatusBadRequest, "MANIFEST_UNKNOWN", text)
}

func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error) {
	s.cfg.Log.Error("models for Ollama", "path", r.URL.Path, "err", err)
	refuse(w, http.StatusInternalServerError, "UNKNOWN", "The platform failed; its log says why.")
}

// blob answers with the bytes of a digest, or a part of them. A path has no tag: all models of the name are looked at.
func (s *Server) blob(w http.ResponseWriter, r *http.Request) {
	name, digest := r.PathValue("model"), r.PathValue("digest")
	all, err := s.cfg.Library.List(r.Context(), s.cfg.Project)
	if err != nil {
		s.failed(w, r, err)
		return
	}
	for _, m := range all {
		if base, _, _ := strings.Cut(m.Name, ":"); base != name || r.PathValue("namespace") != "library" {
			continue
		}
		if m.Digest == digest {
			s.weights(w, r, m)
			return
		}
		if text, ok := pack(m, s.cfg.Threads).small[digest]; ok {
			serve(w, r, digest, m, strings.NewReader(text))
			return
		}
	}
	refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
}

// weights answers with a model's file.
func (s *Server) weights(w http.ResponseWriter, r *http.Request, m library.Model) {
	f, err := os.Open(s.cfg.Library.Path(m))
	if err != nil {
		s.failed(w, r, err)
		return
	}
	defer func() { _ = f.Close() }() // it was only read
	serve(w, r, m.Digest, m, f)
}
