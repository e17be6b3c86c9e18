package cloud

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"giggle/api/aiplatform"
	"giggle/api/artifactregistry"
	"giggle/api/cloudbilling"
	"giggle/api/cloudbuild"
	"giggle/api/cloudlogging"
	"giggle/api/discovery"
	"giggle/api/guard"
	"giggle/api/iamadmin"
	"giggle/api/iamcredentials"
	"giggle/api/policytroubleshooter"
	"giggle/api/resourcemanager"
	"giggle/api/runv1"
	"giggle/api/runv2"
	"giggle/api/serviceusage"
	"giggle/api/sourcerepo"
	"giggle/api/sqladmin"
	"giggle/api/storagejson"
	"giggle/catalog"
	"giggle/edge"
	"giggle/fault"
	"giggle/git/githttp"
	"giggle/iam"
	"giggle/logging"
	"giggle/rest"
)

// api is what serves one API of the catalogue.
type api struct {
	host    string // its row in package catalog
	rules   guard.Rules
	servers []server

	errors  rest.ErrorWriter                                  // nil for Google's usual form
	denied  func(e *fault.Error, permission, resource string) // words of its own for a refusal; may be nil
	maxBody int64                                             // bytes of a request; 0 for rest.DefaultMaxBody
	// what a request shows in place of a token; nil for none
	credential func(ctx context.Context, r *http.Request) (iam.Credential, bool, error)
}

// server is a part of an API.
type server interface{ Register(m *rest.Mux) }

// apis are all APIs. A host that is not here answers that it is not served.
func (c *Cloud) apis() []api {
	find := c.projects.Find
	objects := c.objects()
	return []api{
		{
			host:  "aiplatform.googleapis.com",
			rules: aiplatform.Rules,
			servers: []server{aiplatform.New(aiplatform.Config{
				Models:  c.models,
				Project: find,
				NewID:   uuid.NewString,
				Now:     c.cfg.Now,
			})},
			denied:  aiplatform.Denied,
			maxBody: aiplatform.MaxBody,
		},
		{
			host:  "artifactregistry.googleapis.com",
			rules: artifactregistry.Rules,
			servers: []server{artifactregistry.New(artifactregistry.Config{
				Artifacts:  c.artifacts,
				Operations: c.operations,
				Policies:   c.identity,
				Project:    find,
				Pages:      c.pages,
			})},
		},
		{
			host:    "cloudbilling.googleapis.com",
			rules:   cloudbilling.Rules,
			servers: []server{cloudbilling.New(cloudbilling.Config{Project: find})},
		},
		{
			host:  "cloudbuild.googleapis.com",
			rules: cloudbuild.Rules,
			servers: []server{cloudbuild.New(cloudbuild.Config{
				Builds:     c.builds,
				Operations: c.operations,
				Project:    find,
				Account:    iam.DefaultBuildAccount,
				ActAs:      c.identity.CheckActAs,
				LogsBucket: c.storage.LogsBucket,
				Pages:      c.pages,
				Triggers:   c.triggers,
				Secret:     c.secrets.Get,
			})},
		},
		{
			host:    "cloudresourcemanager.googleapis.com",
			rules:   resourcemanager.Rules,
			servers: []server{resourcemanager.New(resourcemanager.Config{Projects: c.projects, Policies: c.identity})},
		},
		{
			host:  "iam.googleapis.com",
			rules: iamadmin.Rules,
			servers: []server{iamadmin.New(iamadmin.Config{
				Identity: c.identity,
				Project:  find,
				Pages:    c.pages,
				Audited:  catalog.Hosts(),
			})},
		},
		{
			host:    "iamcredentials.googleapis.com",
			rules:   iamcredentials.Rules,
			servers: []server{iamcredentials.New(iamcredentials.Config{Identity: c.identity})},
		},
		{
			host:  "logging.googleapis.com",
			rules: cloudlogging.Rules,
			servers: []server{cloudlogging.New(cloudlogging.Config{
				Log:      c.entries,
				Entries:  logging.Readers{c.entries, c.audit},
				Identity: c.identity,
				Projects: c.projects,
				Pages:    c.pages,
				Now:      c.cfg.Now,
			})},
		},
		{
			host:  "policytroubleshooter.googleapis.com",
			rules: policytroubleshooter.Rules,
			servers: []server{policytroubleshooter.New(policytroubleshooter.Config{
				Identity:  c.identity,
				Canonical: c.guard().Canonical,
			})},
		},
		{
			host:  "run.googleapis.com",
			rules: runv1.Rules.With(runv2.Rules),
			servers: []server{
				runv1.New(runv1.Config{
					Services:   c.services,
					Operations: c.operations,
					Project:    find,
					ActAs:      c.identity.CheckActAs,
					Policies:   c.identity,
					Pages:      c.pages,
				}),
				runv2.New(runv2.Config{
					Services:   c.services,
					Operations: c.operations,
					Project:    find,
					ActAs:      c.identity.CheckActAs,
					Policies:   c.identity,
					Pages:      c.pages,
				}),
				runv2.NewBuilds(runv2.BuildsConfig{
					Builds:     c.builds,
					Project:    find,
					Account:    iam.DefaultBuildAccount,
					ActAs:      c.identity.CheckActAs,
					LogsBucket: c.storage.LogsBucket,
				}),
			},
		},
		{
			host:  "serviceusage.googleapis.com",
			rules: serviceusage.Rules,
			servers: []server{serviceusage.New(serviceusage.Config{
				Projects: c.projects,
				Pages:    c.pages,
				Log:      c.cfg.Log,
			})},
		},
		{
			host:  "sourcerepo.googleapis.com",
			rules: sourcerepo.Rules,
			servers: []server{sourcerepo.New(sourcerepo.Config{
				Repos:    c.repos,
				Policies: c.identity,
				Project:  find,
				Pages:    c.pages,
				Host:     githttp.Host,
			})},
		},
		{
			host:  "sqladmin.googleapis.com",
			rules: sqladmin.Rules,
			servers: []server{sqladmin.New(sqladmin.Config{
				Instances:    c.databases,
				Certificates: c.databaseCA,
				Project:      find,
				Pages:        c.pages,
				Address:      c.databaseHost.Address,
			})},
		},
		{
			host:       "storage.googleapis.com",
			rules:      storagejson.Rules,
			servers:    []server{objects},
			credential: objects.Credential,
			errors:     storagejson.WriteError,
		},
	}
}

// objects is the API of Cloud Storage.
func (c *Cloud) objects() *storagejson.Server {
	return storagejson.New(storagejson.Config{
		Storage: c.storage,
		Pages:   c.pages,
		Project: c.projects.Find,
		Allow: storagejson.Access{
			Identity: c.identity,
			Buckets:  c.storage,
			Enabled:  c.projects.CheckEnabled,
		}.Allow,
		Policies:   c.identity,
		Signatures: c.identity,
		Now:        c.cfg.Now,
		Base:       edge.Base,
		Asked:      edge.Asked,
	})
}

// guard stands before every API.
func (c *Cloud) guard() *guard.Guard {
	return guard.New(guard.Config{
		Identity: c.identity,
		Projects: c.projects,
		Audit:    c.audit,
		Log:      c.cfg.Log,
		Find:     c.find,
	})
}

// judge has the log say what of an API's answers is not as Google's documents say; nil without documents.
func (c *Cloud) judge(documents *discovery.Checker, host string) func(r *http.Request, body []byte) {
	if documents == nil {
		return nil
	}
	return func(r *http.Request, body []byte) {
		for _, wrong := range documents.Check(host, r.Method, r.URL.Path, body) {
			c.cfg.Log.Warn("an answer is not as its document says", "what", wrong)
		}
	}
}

// muxes builds every API's routes, by host.
func (c *Cloud) muxes() (map[string]*rest.Mux, error) {
	bodies := rest.NewBodies(rest.DefaultBodies)
	g := c.guard()
	out := make(map[string]*rest.Mux)
	var documents *discovery.Checker
	if c.cfg.Discovery != "" {
		documents = discovery.NewChecker(c.cfg.Discovery)
	}
	for _, a := range c.apis() {
		chain, err := g.Chain(guard.API{
			Host:       a.host,
			Service:    a.host,
			Rules:      a.rules,
			Denied:     a.denied,
			Credential: a.credential,
		})
		if err != nil {
			return nil, err
		}
		m := rest.NewMux(a.host, rest.Options{
			Admit:        chain.Admit,
			Interceptors: chain.Interceptors(),
			Log:          c.cfg.Log,
			NewID:        uuid.NewString,
			Errors:       a.errors,
			MaxBody:      a.maxBody,
			Bodies:       bodies,
			Answered:     c.judge(documents, a.host),
		})
		for _, s := range a.servers {
			s.Register(m)
		}
		if err := m.Build(); err != nil {
			return nil, fmt.Errorf("routes of %s: %w", a.host, err)
		}
		out[a.host] = m
	}
	return out, nil
}
