package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"giggle/vertex/library"
)

// Media types (Ollama's server/create.go, v0.17.4).
const (
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	configType   = "application/vnd.docker.container.image.v1+json"
	modelType    = "application/vnd.ollama.image.model"
	templateType = "application/vnd.ollama.image.template"
	licenseType  = "application/vnd.ollama.image.license"
	paramsType   = "application/vnd.ollama.image.params"
)

// descriptor names a blob.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// packed is a model in the registry's form.
type packed struct {
	manifest []byte
	digest   string
	small    map[string]string // the blobs besides the weights, by digest
}

// config is what Ollama's list of models shows.
type config struct {
	Format       string   `json:"model_format"`
	Family       string   `json:"model_family"`
	Families     []string `json:"model_families"`
	Parameters   string   `json:"model_type"`
	Precision    string   `json:"file_type"`
	Architecture string   `json:"architecture"` // of what runs it; Ollama's own say amd64 everywhere
	OS           string   `json:"os"`
	RootFS       rootFS   `json:"rootfs"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// params are how Ollama runs a model where its user does not say
// (https://github.com/ollama/ollama/blob/main/docs/modelfile.md).
type params struct {
	Threads int      `json:"num_thread,omitempty"`
	Stop    []string `json:"stop,omitempty"`
}

// pack puts a model into the registry's form: the same model, the same bytes.
func pack(m library.Model, threads int) packed {
	p := packed{small: make(map[string]string)}
	keep := func(mediaType, text string) descriptor {
		digest := digestOf(text)
		p.small[digest] = text
		return descriptor{mediaType, digest, int64(len(text))}
	}
	layers := []descriptor{{modelType, m.Digest, m.Size}}
	how := params{Threads: threads}
	if f := formOf(m.Template); f != nil {
		how.Stop = f.stop
		layers = append(layers, keep(templateType, f.template))
	}
	layers = append(layers, keep(paramsType, encode(how)), keep(licenseType, label(m)))
	c := config{
		Format:       "gguf",
		Family:       m.Architecture,
		Families:     []string{m.Architecture},
		Parameters:   amount(m.Parameters),
		Precision:    m.Precision,
		Architecture: "amd64",
		OS:           "linux",
		RootFS:       rootFS{Type: "layers"},
	}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
	}
	manifest := encode(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{2, manifestType, keep(configType, encode(c)), layers})
	p.manifest, p.digest = []byte(manifest), digestOf(manifest)
	return p
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// encode writes a value that can't fail to be written.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers
	}
	return string(b)
}

// label says which file a model is: `ollama show` prints it as the licence.
func label(m library.Model) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on this machine is what was added to Giggle under that name on %s. It did not come from Ollama's registry.\n\n", m.Name, m.Added.Format("2006-01-02"))
	fmt.Fprintf(&b, "File: %s (%s, %d bytes)\n", m.Source, m.Digest, m.Size)
	for _, line := range []struct{ what, says string }{{"Calls itself", m.Title}, {"Architecture", m.Architecture},
		{"Licence", m.License}} {
		if line.says != "" {
			fmt.Fprintf(&b, "%s: %s\n", line.what, line.says)
		}
	}
	if m.License == "" {
		b.WriteString("The file names no licence.\n")
	}
	return b.String()
}

// amount writes a number of parameters as Ollama does: 919K, 4.3B.
func amount(n uint64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.2fM", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0fK", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}

// serve writes a blob, or the part that Range asks for. Ollama first asks for the whole and takes the address of the
// parts from Location, which must be there, and then does not read the answer.
func serve(w http.ResponseWriter, r *http.Request, digest string, m library.Model, content io.ReadSeeker) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("ETag", `"`+digest+`"`)
	w.Header().Set("Location", r.URL.Path)
	http.ServeContent(w, r, "", m.Added, content)
}
