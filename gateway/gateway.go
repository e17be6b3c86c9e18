// Package gateway is the public front of the services: it finds the revision that a request is for, checks that the
// caller may invoke it, waits for an instance, sends the request there, and makes a log entry of it.
//
// It reads a routing table that the run reconciler publishes, never the store, and leaves to package scale how
// instances come and go. TLS and the choice between services and APIs are package edge's.
package gateway

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"giggle/iam"
	"giggle/run"
	"giggle/run/scale"
)

// Instances gives out slots in instances: *scale.Scaler does.
type Instances interface {
	Acquire(ctx context.Context, rev run.Revision) (*scale.Lease, error)
}

// Invoker decides who may call a service: *iam.IAM does.
type Invoker interface {
	CheckServiceToken(raw string, hosts, audiences []string) (iam.Claims, error)
	Allowed(p iam.Principal, permission, resource string) bool
}

// Config is what a Gateway needs.
type Config struct {
	Instances Instances
	Invoker   Invoker
	Recorder  Recorder // nil for none
	// Active reports whether a project is not marked for deletion, and so its services served; nil serves all.
	Active func(project string) bool
	Now    func() time.Time
	Log    *slog.Logger
}

// Gateway serves every service of the platform.
type Gateway struct {
	cfg   Config
	proxy *proxy
	table atomic.Pointer[table]
	stats allSeries

	mu    sync.Mutex                                    // of those who change the table
	known map[string]map[string]map[string]*destination // by id of a service, full name, host
	hosts map[string][]string                           // by id of a service: its hosts in the table
}

var _ run.Routes = (*Gateway)(nil)

// New returns a gateway with an empty routing table.
func New(cfg Config) *Gateway {
	g := &Gateway{
		cfg:   cfg,
		proxy: newProxy(cfg.Log),
		known: make(map[string]map[string]map[string]*destination),
		hosts: make(map[string][]string),
	}
	if g.cfg.Active == nil {
		g.cfg.Active = func(string) bool { return true }
	}
	g.stats.all = make(map[string]map[string]*series)
	g.table.Store(&table{seed: maphash.MakeSeed()})
	return g
}

// callerKey is the context key of the project of the instance that calls.
type callerKey struct{}

// WithCaller says in a connection's context that an instance of a project is on the other end: its requests are
// internal to that project.
func WithCaller(ctx context.Context, project string) context.Context {
	return context.WithValue(ctx, callerKey{}, project)
}

// ServeHTTP serves one request for a service.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := g.cfg.Now()
	from, _ := r.Context().Value(callerKey{}).(string)
	d, to, refused := g.route(r.Host, from)
	if refused != nil && d == nil {
		refused.write(w, r)
		return
	}
	v := &visit{
		gateway:     g,
		start:       start,
		request:     r,
		to:          to,
		destination: d,
		in:          body{ReadCloser: r.Body, length: r.ContentLength},
		out:         response{ResponseWriter: w},
	}
	v.begin()
	defer v.end()
	if refused != nil {
		v.refuse(refused)
		return
	}
	if refused := frontRefusal(r); refused != nil {
		v.refuse(refused)
		return
	}
	if refused := g.mayInvoke(r.Header, r.URL.Path, d); refused != nil {
		v.refuse(refused)
		return
	}
	c := to.rev.Template.Containers[0]
	if v.in.limit = maxBody; c.PortName == "h2c" {
		v.in.limit = 0
	}
	if v.in.limit > 0 && r.ContentLength > v.in.limit {
		v.refuse(tooLarge)
		v.drain()
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(to.rev.Template.Timeout)*time.Second)
	defer cancel()
	lease, err := g.cfg.Instances.Acquire(ctx, to.rev)
	if err != nil {
		v.refuse(g.unavailable(r.Context(), to, err))
		return
	}
	defer lease.Release()
	v.lease = lease
	defer func() {
		if v.note == "" && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			v.note = timedOut.note // in the middle of the answer
		}
	}()
	g.proxy.serve(ctx, v)
}
