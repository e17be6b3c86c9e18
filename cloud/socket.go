package cloud

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"

	"giggle/api/giggle"
	"giggle/cloud/asbuild"
	"giggle/edge"
	"giggle/shell"
)

// openSocket makes the server of the platform's socket in its data directory.
func (c *Cloud) openSocket(context.Context) error {
	c.owners = giggle.Owners{UIDs: c.cfg.OwnerUIDs, Owner: c.identity.Owner()}
	c.sessions = shell.Sessions{Dir: c.path("shell"), Identity: c.identity, Template: c.session}
	c.api = giggle.New(giggle.Config{
		Identity:  c.identity,
		Audit:     c.audit,
		Log:       c.entries,
		Models:    c.models,
		Databases: c.databases,
		Loads:     func() giggle.Top { return giggle.Loads(c.cfg.Now(), c.scaler.Stats(), c.gateway.Stats()) },
		Projects:  c.projects.IDs,
		Caller:    c.owners.Caller,
		OpenShell: asbuild.Shells{Steps: c.steps, Identity: c.identity}.Open,
		Status:    c.Status,
		Session:   c.sessions.Open,
	})
	return nil
}

// Session signs a local user in, by uid. It fails with PermissionDenied for one who isn't an owner.
func (c *Cloud) Session(ctx context.Context, uid int) (shell.Session, error) {
	who, err := c.owners.Caller(uid)
	if err != nil {
		return shell.Session{}, err
	}
	return c.sessions.Open(ctx, uid, who)
}

// Status returns the platform's state.
func (c *Cloud) Status(ctx context.Context) (giggle.Status, error) {
	services := 0
	for _, p := range c.projects.IDs() {
		count, err := c.services.Count(ctx, p)
		if err != nil {
			return giggle.Status{}, err
		}
		services += count
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	n := c.scaler.Instances()
	var gpus []giggle.GPU
	for _, g := range c.scaler.GPUs() {
		gpus = append(gpus, giggle.GPU{UUID: g.UUID, Model: g.Model, Types: g.Kinds, Used: g.Holder.ID})
	}
	var ports []string
	for _, p := range c.cfg.HostPorts {
		ports = append(ports, p.String())
	}
	return giggle.Status{
		PID:        os.Getpid(),
		Version:    c.cfg.Version,
		Data:       c.cfg.Data,
		Project:    c.cfg.Project,
		Address:    c.cfg.Address,
		Ports:      c.ports(),
		Edge:       c.plain.Addr().String(),
		Console:    c.console.Addr().String(),
		Runtime:    c.engine.Runtime(),
		Services:   services,
		Instances:  map[string]int{"ready": n.Ready, "starting": n.Starting, "prepared": n.Prepared, "ending": n.Ending},
		Memory:     giggle.Memory{Heap: mem.HeapAlloc},
		GPUs:       gpus,
		SentBytes:  c.engine.Sent(),
		Online:     c.engine.Online(),
		Egress:     string(c.engine.EgressPath()),
		HostPorts:  ports,
		Goroutines: runtime.NumGoroutine(),
	}, nil
}

func (c *Cloud) ports() shell.Ports {
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	return shell.Ports{HTTPS: port(c.https), HTTP: port(c.http), DNS: port(c.dnsTCP)}
}

// shellRegion is where shells are, as far as their metadata server says: the tutorial's region.
const shellRegion = "europe-north1"

// session is what all sessions of shells have in common.
func (c *Cloud) session() (shell.Session, error) {
	p, err := c.projects.Find(c.cfg.Project)
	return shell.Session{
		Project:       p.ID,
		ProjectNumber: p.Number,
		Region:        shellRegion,
		Address:       c.cfg.Address,
		Ports:         c.ports(),
		Proxy:         c.plain.Addr().String(),
		CA:            string(c.ca.CertPEM()),
		Bundle:        string(c.trust),
	}, err
}

// serveConsole answers on the console's address. The console itself comes later; until then it says what runs and how
// to use it, and nothing else.
func (c *Cloud) serveConsole(w http.ResponseWriter, r *http.Request) {
	// A foreign page, whose name leads here by its DNS, is to read nothing.
	if host := edge.CleanHost(r.Host); !loopback(host) && edge.ParseName(host).Class != edge.Console {
		http.Error(w, "The console does not go by this name.", http.StatusMisdirectedRequest)
		return
	}
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, "Giggle %s, project %s.\n\nThe web console is not implemented yet. Use the platform with:\n\n  giggle shell\n", c.cfg.Version, c.cfg.Project)
}
