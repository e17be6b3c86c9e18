// Package discoverytest reads what Google publishes about its APIs, as Google's Go modules carry it, for tests that
// hold what is served here against it.
package discoverytest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Document is the discovery document of an API (https://developers.google.com/discovery/v1/reference/apis).
type Document struct {
	Name, Version string
	Schemas       map[string]*Schema
	Methods       map[string]*Method
	Resources     map[string]*Resource
	Parameters    map[string]*Schema // query parameters of every method
}

// Resource is a collection of methods.
type Resource struct {
	Methods   map[string]*Method
	Resources map[string]*Resource
}

// Method is one method of an API.
type Method struct {
	ID             string
	HTTPMethod     string
	Path, FlatPath string
	Parameters     map[string]*Schema
	Request        *Schema
	Response       *Schema
}

// Schema is the form of a value.
type Schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Format               string
	Description          string
	Enum                 []string
	Properties           map[string]*Schema
	AdditionalProperties *Schema
	Items                *Schema
	ReadOnly             bool
	Deprecated           bool
	Location             string // of a parameter: "path" or "query"
	Required             bool
}

// dir is where the Go module of the discovery documents is.
var dir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "google.golang.org/api").Output()
	if err != nil {
		return "", fmt.Errorf("find google.golang.org/api: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// Read returns the document of an API, "run" and "v1".
func Read(api, version string) (*Document, error) {
	root, err := dir()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(root, api, version, api+"-api.json"))
	if err != nil {
		return nil, err
	}
	var d Document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("document of %s %s: %w", api, version, err)
	}
	return &d, nil
}
