package cloud

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/google/uuid"

	"giggle/api/aiplatform"
	artifactregistryapi "giggle/api/artifactregistry"
	"giggle/api/cloudbilling"
	cloudbuildapi "giggle/api/cloudbuild"
	"giggle/api/guard"
	"giggle/api/iamadmin"
	"giggle/api/iamcredentials"
	"giggle/api/oauth"
	"giggle/api/resourcemanager"
	"giggle/api/runv1"
	"giggle/api/runv2"
	"giggle/api/serviceusage"
	"giggle/api/sourcerepo"
	"giggle/api/storagejson"
	"giggle/artifacts/registry"
	"giggle/catalog"
	"giggle/edge"
	"giggle/engine"
	"giggle/fault"
	"giggle/gateway"
	"giggle/git/githttp"
	"giggle/iam"
	"giggle/metadata"
	"giggle/rest"
	"giggle/run/scale/local"
	modelregistry "giggle/vertex/registry"
)

// systemBundles are where distributions keep the certificates that the machine trusts.
var systemBundles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"}

// openTrust opens the platform's CA and the bundle that containers and shells trust.
func (c *Cloud) openTrust(context.Context) (err error) {
	if c.ca, err = edge.OpenCA(c.path("ca"), c.cfg.Now); err != nil {
		return err
	}
	for _, path := range systemBundles {
		if c.systemTrust, err = os.ReadFile(path); err == nil {
			break
		}
	}
	c.trust = c.ca.Bundle(c.systemTrust) // a machine without certificates trusts only us
	return nil
}

// api is one API of the platform.
type api struct {
	host     string
	service  string // its name in Service Usage, "" for what can't be disabled
	rules    guard.Rules
	register func(m *rest.Mux)
	errors   rest.ErrorWriter
	maxBody  int64 // bytes of a request; 0 for rest.DefaultMaxBody
}

// denials are the APIs that refuse in words of their own.
var denials = map[string]func(e *fault.Error, permission, resource string){"aiplatform.googleapis.com": aiplatform.Denied}

// apis are all APIs. A host that is not here answers that it is not served.
func (c *Cloud) apis() []api {
	return []api{
		{"run.googleapis.com", "run.googleapis.com", merge(runv1.Rules, runv2.Rules), func(m *rest.Mux) {
			runv1.New(runv1.Config{
				Services: c.services, Operations: c.operations, Project: c.projects.Find, Accounts: c, Policies: c.identity, Pages: c.pages,
			}).Register(m)
			runv2.New(runv2.Config{
				Services: c.services, Operations: c.operations, Project: c.projects.Find, Accounts: c, Policies: c.identity, Pages: c.pages,
			}).Register(m)
			(&runv2.Builds{Builds: c.builds, Project: c.project, Account: buildAccount, ActAs: c.CheckActAs, LogsBucket: c.logsBucket}).Register(m)
		}, nil, 0},
		{"cloudbuild.googleapis.com", "cloudbuild.googleapis.com", cloudbuildapi.Rules, func(m *rest.Mux) {
			cloudbuildapi.New(cloudbuildapi.Config{
				Builds: c.builds, Operations: c.operations, Project: c.projects.Find, Pages: c.pages, Account: buildAccount, ActAs: c.CheckActAs, LogsBucket: c.logsBucket,
				Triggers: c.triggers, Secret: c.secret,
			}).Register(m)
		}, nil, 0},
		{"artifactregistry.googleapis.com", "artifactregistry.googleapis.com", artifactregistryapi.Rules, func(m *rest.Mux) {
			artifactregistryapi.New(artifactregistryapi.Config{
				Artifacts: c.artifacts, Operations: c.operations, Policies: c.identity, Project: c.projects.Find, Pages: c.pages,
			}).Register(m)
		}, nil, 0},
		{"aiplatform.googleapis.com", "aiplatform.googleapis.com", aiplatform.Rules, func(m *rest.Mux) {
			aiplatform.New(aiplatform.Config{Models: c.models, Project: c.projects.Find, NewID: uuid.NewString, Now: c.cfg.Now}).Register(m)
		}, nil, aiplatform.MaxBody},
		{"storage.googleapis.com", "storage.googleapis.com", storagejson.Rules, c.registerStorage, storagejson.WriteError, 0},
		{"sourcerepo.googleapis.com", "sourcerepo.googleapis.com", sourcerepo.Rules, c.registerRepos, nil, 0},
		{"cloudresourcemanager.googleapis.com", "", resourcemanager.Rules, func(m *rest.Mux) {
			resourcemanager.New(resourcemanager.Config{Projects: c.projects, Policies: c.identity}).Register(m)
		}, nil, 0},
		{"cloudbilling.googleapis.com", "", cloudbilling.Rules, func(m *rest.Mux) { cloudbilling.New(cloudbilling.Config{Project: c.projects.Find}).Register(m) }, nil, 0},
		{"serviceusage.googleapis.com", "", serviceusage.Rules, func(m *rest.Mux) {
			serviceusage.New(serviceusage.Config{Projects: c.projects, Pages: c.pages}).Register(m)
		}, nil, 0},
		{"iam.googleapis.com", "", iamadmin.Rules, func(m *rest.Mux) {
			iamadmin.New(iamadmin.Config{Identity: c.identity, Project: c.projects.Find, Pages: c.pages, Audited: catalog.Hosts()}).Register(m)
		}, nil, 0},
		{"iamcredentials.googleapis.com", "", iamcredentials.Rules, func(m *rest.Mux) {
			iamcredentials.New(iamcredentials.Config{Identity: c.identity}).Register(m)
		}, nil, 0},
	}
}

func merge(all ...guard.Rules) guard.Rules {
	out := make(guard.Rules)
	for _, rules := range all {
		for rpc, rule := range rules {
			out[rpc] = rule
		}
	}
	return out
}

// Muxes builds every API's routes, by host.
func (c *Cloud) muxes() (map[string]*rest.Mux, error) {
	bodies := rest.NewBodies(rest.DefaultBodies)
	g := &guard.Guard{Identity: c.identity, Projects: c.projects, Audit: c.audit, Log: c.cfg.Log, Find: c.find}
	out := make(map[string]*rest.Mux)
	for _, a := range c.apis() {
		guarded := guard.API{Host: a.host, Service: a.service, Rules: a.rules, Denied: denials[a.host]}
		m := rest.NewMux(a.host, rest.Options{
			Admit:        g.Admit(guarded),
			Interceptors: g.Interceptors(guarded),
			Log:          c.cfg.Log,
			NewID:        uuid.NewString,
			Errors:       a.errors,
			MaxBody:      a.maxBody,
			Bodies:       bodies,
		})
		a.register(m)
		if err := m.Build(); err != nil {
			return nil, fmt.Errorf("routes of %s: %w", a.host, err)
		}
		out[a.host] = m
	}
	return out, nil
}

// openEdge makes the router over everything that is served by name.
func (c *Cloud) openEdge(context.Context) error {
	muxes, err := c.muxes()
	if err != nil {
		return err
	}
	hosts := make(map[string]http.Handler)
	for host, m := range muxes {
		if host != "storage.googleapis.com" {
			hosts[host] = m
		}
	}
	tokens := oauth.New(c.identity, c.cfg.Now, c.cfg.Log)
	for _, host := range oauth.Hosts {
		hosts[host] = tokens
	}
	hosts[githttp.Host] = c.gitHost()
	// llama.cpp's threads wait for one another by spinning: where one shares its processor with the platform or with another
	// service, all of them crawl. Half of them are as many as there are cores on most machines, and leave one free on small ones.
	threads := max(1, runtime.NumCPU()/2)
	hosts[modelregistry.Host] = modelregistry.New(modelregistry.Config{Library: c.library, Project: c.cfg.Project, Threads: threads, Log: c.cfg.Log})
	c.router = edge.NewRouter(edge.Routes{
		API: hosts, Service: c.gateway, Storage: muxes["storage.googleapis.com"],
		Registry: registry.New(registry.Config{
			Artifacts: c.artifacts, Blobs: c.blobs, Identity: c.identity, Project: c.projects.Find, Audit: c.audit, NewID: uuid.NewString, Log: c.cfg.Log,
			Admit: c.room, Bytes: c.incoming,
		}),
		Console: http.HandlerFunc(c.serveConsole),
	})
	c.server = edge.NewServer(edge.Config{CA: c.ca, Router: c.router, Log: c.cfg.Log, Direct: true, Owner: c.isOwner})
	c.inner = edge.NewDNS(edge.DNSConfig{Address: netip.MustParseAddr(insideAddress), TTL: time.Second})
	c.onClose(func() error { c.inner.Close(); return nil })
	return nil
}

// insideAddress is where the platform's sockets are inside an instance.
const insideAddress = "169.254.169.254"

// sockets is what answers inside an instance: it knows which instance calls by the listener.
func (c *Cloud) sockets(caller local.Caller) engine.Sockets {
	s := c.socketsFor(metadata.Identity{
		ProjectID: caller.Project.ID, ProjectNumber: caller.Project.Number, Region: caller.Region, InstanceID: caller.InstanceID,
		Account: caller.Account, Scopes: []string{iam.ScopeCloudPlatform},
	}, nil)
	// What comes through an instance's own socket is internal to its project, for the ingress settings of services.
	s.Edge = c.edgeInside(caller.InstanceID, func(ctx context.Context, _ net.Conn) context.Context {
		return gateway.WithCaller(ctx, caller.Project.ID)
	})
	return s
}

// edgeInside serves the edge inside an instance. Mark may be nil.
func (c *Cloud) edgeInside(instance string, mark edge.ConnContext) func(net.Listener) {
	return func(l net.Listener) {
		if err := c.server.ServeTLS(l, mark); err != nil {
			c.cfg.Log.Debug("edge inside an instance ended", "instance", instance, "err", err)
		}
	}
}

// socketsFor is the sockets of one identity. Wrap, when not nil, stands in front of the metadata server.
func (c *Cloud) socketsFor(id metadata.Identity, wrap func(http.Handler) http.Handler) engine.Sockets {
	var meta http.Handler = metadata.New(id, metadataTokens{c.identity}, c.cfg.Now)
	if wrap != nil {
		meta = wrap(meta)
	}
	return engine.Sockets{
		Metadata: func(l net.Listener) {
			s := &http.Server{Handler: meta, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
			if err := s.Serve(l); err != nil && c.cfg.Log.Enabled(context.Background(), -4) {
				c.cfg.Log.Debug("metadata server ended", "instance", id.InstanceID, "err", err)
			}
		},
		Edge: c.edgeInside(id.InstanceID, nil),
		DNS: func(pc net.PacketConn, l net.Listener) {
			if err := c.inner.Serve(pc, l); err != nil {
				c.cfg.Log.Debug("DNS inside an instance ended", "instance", id.InstanceID, "err", err)
			}
		},
	}
}
