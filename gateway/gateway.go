// Package gateway is the public front of the services: it finds the revision that a request is for, checks that the
// caller may invoke it, waits for an instance and proxies the request to it.
//
// It reads a routing table that the run reconciler publishes, never the store, and leaves to package scale how
// instances come and go. TLS and the choice between services and APIs are package edge's.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
)

// Instances gives out slots in instances: *scale.Scaler does.
type Instances interface {
	Acquire(ctx context.Context, rev run.Revision) (*scale.Lease, error)
}

// Invoker decides who may call a service: *iam.IAM does.
type Invoker interface {
	CheckIDToken(raw string, audiences ...string) (iam.Claims, error)
	Allowed(p iam.Principal, permission, resource string) bool
}

// Gateway serves every service of the platform.
type Gateway struct {
	instances Instances
	invoker   Invoker
	log       *slog.Logger
	proxy     proxy

	hosts sync.Map // host → *destination; read without a lock
	mu    sync.Mutex
	known map[string][]string // service → its hosts in the table
}

// destination is where the requests for one host go.
type destination struct {
	route     run.Route
	revision  *run.Revision // of a tag; nil: one of the route's targets
	name      string        // the service's full name, for the policy
	audiences []string      // of ID tokens
}

var _ run.Routes = (*Gateway)(nil)

// New returns a gateway with an empty routing table.
func New(instances Instances, invoker Invoker, log *slog.Logger) *Gateway {
	return &Gateway{instances: instances, invoker: invoker, log: log, proxy: newProxy(log), known: make(map[string][]string)}
}

// Publish makes a service's route effective for the next request. Requests in flight stay on their revision.
func (g *Gateway) Publish(r run.Route) {
	g.mu.Lock()
	defer g.mu.Unlock()
	audiences := append([]string{iam.GcloudClientID}, r.CustomAudiences...)
	for _, h := range r.Hosts {
		audiences = append(audiences, "https://"+h)
	}
	to := &destination{route: r, name: r.Service.String(), audiences: audiences}
	table := make(map[string]*destination)
	for _, h := range r.Hosts {
		table[h] = to
		for tag, rev := range r.Tags {
			tagged := *to
			tagged.revision = &rev
			tagged.audiences = append(append([]string(nil), audiences...), "https://"+run.TagHost(tag, h))
			table[run.TagHost(tag, h)] = &tagged
		}
	}
	hosts := make([]string, 0, len(table))
	for h, d := range table {
		g.hosts.Store(h, d)
		hosts = append(hosts, h)
	}
	for _, h := range g.known[to.name] {
		if table[h] == nil {
			g.hosts.Delete(h)
		}
	}
	g.known[to.name] = hosts
}

// Remove takes a service out of the table.
func (g *Gateway) Remove(service resource.Child) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.known[service.String()] {
		g.hosts.Delete(h)
	}
	delete(g.known, service.String())
}

// lookup returns the destination of a Host header, or nil.
func (g *Gateway) lookup(host string) *destination {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if d, ok := g.hosts.Load(host); ok {
		return d.(*destination)
	}
	if local, ok := strings.CutSuffix(host, ".localhost"); ok {
		return g.lookupLocal(local)
	}
	return nil
}

// lookupLocal finds the service for SERVICE.localhost, or SERVICE.REGION.localhost where several regions have one of
// that name: what a browser on this machine uses. It returns nil when none or several fit.
func (g *Gateway) lookupLocal(local string) *destination {
	id, region, _ := strings.Cut(local, ".")
	tag, id2, tagged := strings.Cut(id, "---")
	if tagged {
		id = id2
	}
	found := make(map[string]*destination)
	g.hosts.Range(func(host, v any) bool {
		d := v.(*destination)
		isTag := strings.HasPrefix(host.(string), tag+"---")
		if d.route.Service.ID == id && (region == "" || d.route.Service.Location.Location == region) && (d.revision != nil) == tagged && (!tagged || isTag) {
			found[d.name] = d
		}
		return true
	})
	if len(found) != 1 {
		return nil
	}
	for _, d := range found {
		return d
	}
	return nil
}

// pick chooses the revision of one request, by its share of the traffic.
func (d *destination) pick() *run.Revision {
	if d.revision != nil {
		return d.revision
	}
	n := rand.IntN(100)
	for i := range d.route.Targets {
		if n -= d.route.Targets[i].Percent; n < 0 {
			return &d.route.Targets[i].Revision
		}
	}
	return nil
}

// ServeHTTP serves one request for a service.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d := g.lookup(r.Host)
	if d == nil {
		writePage(w, r, http.StatusNotFound)
		return
	}
	if !g.mayInvoke(w, r, d) {
		return
	}
	rev := d.pick()
	if rev == nil {
		writePage(w, r, http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(rev.Template.Timeout)*time.Second)
	defer cancel()
	lease, err := g.instances.Acquire(ctx, *rev)
	if err != nil {
		g.refuse(w, r, rev, err)
		return
	}
	defer lease.Release()
	g.proxy.serve(w, r.WithContext(ctx), lease)
}

// refuse answers a request that no instance took.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, rev *run.Revision, err error) {
	switch {
	case r.Context().Err() != nil: // the client left
	case errors.Is(err, context.DeadlineExceeded):
		writePage(w, r, http.StatusGatewayTimeout)
	case fault.Is(err, fault.ResourceExhausted):
		w.Header().Set("Retry-After", "1")
		writeText(w, http.StatusTooManyRequests, "Rate exceeded.")
	default:
		g.log.Warn("no instance for a request", "revision", rev.Name.ID, "err", err)
		writePage(w, r, http.StatusServiceUnavailable)
	}
}
