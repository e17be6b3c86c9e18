// Package serving opens the backends of models by their addresses, and adds and removes the files of models.
//
// It puts package vertex's table of routes and package library's files together with what runs them: a process of the
// platform's own, a server that speaks Ollama's or OpenAI's API, or a service on this platform. It serves no API.
package serving

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"time"

	"giggle/iam"
	"giggle/resource"
	"giggle/store"
	"giggle/vertex"
	"giggle/vertex/library"
)

// Config is what Open needs.
type Config struct {
	Dir       string // of the files that are added
	Store     *store.Store
	Main      string // id of the project whose models Ollama pulls
	Binary    string // giggle's own program, from which processes of models are started
	PerMinute int    // requests of a project to one model; 0 for any number
	// Writer returns a writer that fails when the disk is full.
	Writer  func(w io.Writer) io.Writer
	Project resource.FindProject
	Secrets Secrets
	// Identity makes the tokens with which models on services are called.
	Identity Identity
	// ServiceURL returns the URL of a service.
	ServiceURL func(p resource.Project, service resource.Child) string
	// Edge returns where the platform's own edge listens.
	Edge  func() string
	Roots *x509.CertPool // that the edge's certificates are of
	Now   func() time.Time
	Log   *slog.Logger
}

// Secrets has the keys of models' servers: *secrets.Secrets.
type Secrets interface {
	Get(name string) ([]byte, error)
}

// Identity makes tokens: *iam.IAM.
type Identity interface {
	IDToken(p iam.Principal, audience string) (string, error)
}

// Serving is the models of a platform, with their files.
type Serving struct {
	*vertex.Models
	cfg     Config
	library *library.Library
}

// Open opens the files of models and the table of their backends.
func Open(ctx context.Context, cfg Config) (*Serving, error) {
	files, err := library.Open(ctx, cfg.Dir, cfg.Store, cfg.Now)
	if err != nil {
		return nil, err
	}
	files.Guard(cfg.Writer)
	s := &Serving{cfg: cfg, library: files}
	s.Models = vertex.New(vertex.Config{
		Store:     cfg.Store,
		PerMinute: cfg.PerMinute,
		Now:       cfg.Now,
		Log:       cfg.Log,
		Open:      s.open,
	})
	return s, nil
}

// Library returns the files of models.
func (s *Serving) Library() *library.Library { return s.library }
