package cloud

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/google/uuid"

	"giggle/api/oauth"
	"giggle/api/sqladmin"
	"giggle/artifacts/registry"
	"giggle/edge"
	"giggle/engine"
	"giggle/engine/egress"
	"giggle/engine/netns"
	"giggle/fault"
	"giggle/gateway"
	"giggle/git/githttp"
	"giggle/hostports"
	"giggle/iam"
	"giggle/metadata"
	"giggle/run/scale/local"
	"giggle/sql"
	modelregistry "giggle/vertex/registry"
)

// systemBundles are where distributions keep the certificates that the machine trusts.
var systemBundles = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"}

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
	// llama.cpp's threads wait for one another by spinning: where one shares its processor with the platform or with
	// another service, all of them crawl. Half of them are as many as there are cores on most machines, and leave one
	// free on small ones.
	threads := max(1, runtime.NumCPU()/2)
	hosts[modelregistry.Host] = modelregistry.New(modelregistry.Config{
		Library: c.models.Library(),
		Project: c.cfg.Project,
		Threads: threads,
		Log:     c.cfg.Log,
	})
	c.router = edge.NewRouter(edge.Routes{
		API:     hosts,
		Service: c.gateway,
		Storage: muxes["storage.googleapis.com"],
		Registry: registry.New(registry.Config{
			Artifacts: c.artifacts,
			Blobs:     c.blobs,
			Identity:  c.identity,
			Project:   c.projects.Find,
			Audit:     c.audit,
			NewID:     uuid.NewString,
			Log:       c.cfg.Log,
			Admit:     c.room,
			Bytes:     c.incoming,
		}),
		Console: http.HandlerFunc(c.serveConsole),
	})
	c.server = edge.NewServer(edge.Config{
		CA:     c.ca,
		Router: c.router,
		Log:    c.cfg.Log,
		Direct: true,
		Owner:  c.owners.Is,
	})
	return nil
}

// openNames makes what answers for names inside instances: of those that reach ports of this machine, and of the rest.
// The sockets of builds have it from the start, so it comes before them.
func (c *Cloud) openNames(context.Context) error {
	self, err := netip.ParseAddr(c.cfg.Address)
	if err != nil {
		return err
	}
	machine := edge.MachineResolvers(self)
	resolvers := func() []string {
		if !c.engine.Online() {
			return nil
		}
		return machine()
	}
	if n := len(c.cfg.HostPorts); n > netns.MaxHostPorts {
		return fault.New(fault.InvalidArgument, "--host-port: %d ports are too many, %d are the most.", n,
			netns.MaxHostPorts)
	}
	c.hostPorts = hostports.New(hostports.Config{Allowed: c.cfg.HostPorts, Own: c.ownAddress, Log: c.cfg.Log})
	with := func(host netip.Addr) *edge.DNS {
		hosts := make(map[string]netip.Addr)
		for _, name := range hostports.Names {
			hosts[name] = host
		}
		d := edge.NewDNS(edge.DNSConfig{
			Address:   netip.MustParseAddr(insideAddress),
			TTL:       time.Second,
			Hosts:     hosts,
			Resolvers: resolvers,
		})
		c.onClose(func() error { d.Close(); return nil })
		return d
	}
	c.inner, c.innerHost = with(netip.Addr{}), with(netns.HostAddr)
	return nil
}

// namesInside is what answers for names in the instances of a project.
func (c *Cloud) namesInside(project string) *edge.DNS {
	if len(c.hostPorts.Of(project)) > 0 {
		return c.innerHost
	}
	return c.inner
}

// insideAddress is where the platform's sockets are inside an instance.
const insideAddress = "169.254.169.254"

// sockets is what answers inside an instance: it knows which instance calls by the listener.
func (c *Cloud) sockets(caller local.Caller) engine.Sockets {
	s := c.socketsFor(metadata.Identity{
		ProjectID:     caller.Project.ID,
		ProjectNumber: caller.Project.Number,
		Region:        caller.Region,
		InstanceID:    caller.InstanceID,
		Account:       caller.Account,
		Scopes:        []string{iam.ScopeCloudPlatform},
	}, nil)
	s = s.Saying(caller.Warn, c.cfg.Now)
	// What comes through an instance's own socket is internal to its project, for the ingress settings of services.
	s.Edge = c.edgeInside(caller.InstanceID, func(ctx context.Context) context.Context {
		return gateway.WithCaller(ctx, caller.Project.ID)
	})
	s.Databases = c.databasesInside(sql.Client{ID: caller.InstanceID, Say: caller.Warn})
	return s
}

// edgeInside serves the edge inside an instance. Mark, which may be nil, marks the contexts of its requests.
func (c *Cloud) edgeInside(instance string, mark func(context.Context) context.Context) func(net.Listener) {
	return func(l net.Listener) {
		err := c.server.ServeTLS(l, func(ctx context.Context, _ net.Conn) context.Context {
			if mark != nil {
				ctx = mark(ctx)
			}
			return sqladmin.Inside(ctx)
		})
		if err != nil {
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
	names := c.namesInside(id.ProjectID)
	s := engine.Sockets{
		Metadata: func(l net.Listener) {
			s := &http.Server{Handler: meta, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
			if err := s.Serve(l); err != nil && c.cfg.Log.Enabled(context.Background(), -4) {
				c.cfg.Log.Debug("metadata server ended", "instance", id.InstanceID, "err", err)
			}
		},
		Edge: c.edgeInside(id.InstanceID, nil),
		DNS: func(pc net.PacketConn, l net.Listener) {
			if err := names.Serve(pc, l); err != nil {
				c.cfg.Log.Debug("DNS inside an instance ended", "instance", id.InstanceID, "err", err)
			}
		},
		Outside: func(d egress.Drop) {
			c.cfg.Log.Info("egress was refused", "instance", id.InstanceID, "to", d.To, "protocol", d.Protocol)
		},
		Host: c.hostPorts.Of(id.ProjectID),
	}
	if id.ProjectID != "" { // a build engine itself is nobody
		s.Databases = c.databasesInside(sql.Client{
			ID:  id.InstanceID,
			Say: func(text string) { c.cfg.Log.Info(text, "instance", id.InstanceID) },
		})
	}
	return s
}
