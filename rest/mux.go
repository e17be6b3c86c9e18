// Package rest is the API layer: one registration of a service serves gRPC and REST.
//
// A Mux is one API host. It implements grpc.ServiceRegistrar, so Google's generated Register…Server functions fill
// it: the gRPC methods come from the ServiceDesc, the REST routes from the google.api.http annotations of the
// registered descriptor. Dialects that have no proto (Cloud Run v1, Resource Manager v1, Storage JSON) are added with
// HandleFunc. All of them run through one chain of interceptors and end in one error writer.
//
// It serves the api/… packages and cloud. It knows no product, does not authenticate or authorise (interceptors do),
// and does not decide which host a request is for (package edge does).
//
// Rules come from google/api/http.proto, https://cloud.google.com/apis/docs/system-parameters and AIP-193 (errors).
package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sort"
	"time"

	"google.golang.org/grpc"
)

// DefaultMaxBody is the largest request body, and gRPC message, in bytes that a route accepts unless it says otherwise.
const DefaultMaxBody = 1 << 20

// Options is what the hosts of one platform share.
type Options struct {
	Interceptors []Interceptor // outermost first; run for gRPC and REST alike
	Log          *slog.Logger  // nil discards

	// Admit is asked before a byte of a request's body is read, with a Call whose Message is nil, or a *Request whose
	// body must not be read: a caller without permission has nothing read or decoded, and hears nothing of what is
	// wrong with the body. What it learns it writes into the Call, which the chain gets. Nil admits all.
	Admit func(ctx context.Context, call *Call) error

	NewID   func() string // makes request ids; required
	MaxBody int64         // bytes per request body, after decompression, and per gRPC message; 0 means DefaultMaxBody
	Bodies  *Bodies       // what all bodies may hold in memory; nil means DefaultBodies for this Mux alone
	Errors  ErrorWriter   // nil means WriteError; a route may have its own

	// Answered is told of each answer in JSON that is none of an error, before it is written; nil is nobody.
	Answered func(r *http.Request, body []byte)
}

// Mux serves one API host. Register everything, call Build, then serve: registering after Build is a mistake that
// panics, and routing reads an immutable trie without locks.
type Mux struct {
	host    string
	opts    Options
	methods map[string]*method // by full method name, "/package.Service/Method"
	names   []string           // of methods, in order of registration
	rules   []boundRule
	unknown func(path string) (skip bool, err error)
	before  map[string]func(ctx context.Context, call *Call) error
	funcs   []*route
	routes  []*route
	trie    *node
	grpc    *grpc.Server
	descs   []registered
	errs    []error
}

var (
	_ grpc.ServiceRegistrar = (*Mux)(nil)
	_ http.Handler          = (*Mux)(nil)
)

type registered struct {
	desc *grpc.ServiceDesc
	impl any
}

type boundRule struct {
	rpc  string
	rule HTTPRule
}

// HTTPRule is one REST binding of an RPC, as a google.api.HttpRule has it.
type HTTPRule struct {
	Method       string // GET, POST, …
	Pattern      string // google.api.http template, such as "/v1/{name=projects/*}:undelete"
	Body         string // "", "*" or a field of the request
	ResponseBody string // "" or a field of the response
}

// NewMux returns an empty Mux for host, such as "run.googleapis.com". The host is also the domain of its ErrorInfo
// details where a fault names none.
func NewMux(host string, opts Options) *Mux {
	if opts.NewID == nil {
		panic("rest: Options.NewID is required")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.MaxBody == 0 {
		opts.MaxBody = DefaultMaxBody
	}
	if opts.Bodies == nil {
		opts.Bodies = NewBodies(DefaultBodies)
	}
	if opts.Errors == nil {
		opts.Errors = WriteError
	}
	return &Mux{
		host:    host,
		opts:    opts,
		methods: map[string]*method{},
		before:  map[string]func(context.Context, *Call) error{},
	}
}

// Bind adds REST bindings to a registered RPC ("/google.longrunning.Operations/GetOperation"): for the mixins whose
// rules stand in a service's YAML and not in its protos.
func (m *Mux) Bind(fullMethod string, rules ...HTTPRule) {
	m.mustBeOpen()
	for _, r := range rules {
		m.rules = append(m.rules, boundRule{fullMethod, r})
	}
}

// Before has fn asked about an RPC after Options.Admit and before a byte of the request's body is read, with the Call
// that Admit got: for an RPC without credentials whose secret is in the path or the query.
func (m *Mux) Before(rpc string, fn func(ctx context.Context, call *Call) error) {
	m.mustBeOpen()
	m.before[rpc] = fn
}

// Unknown has fn asked about a field of a JSON body that its message doesn't have, by its path in the request, before
// the request is refused for it: whether it is to be left out, or what else there is to say, such as that the real API
// has it.
func (m *Mux) Unknown(fn func(path string) (skip bool, err error)) {
	m.mustBeOpen()
	m.unknown = fn
}

// Build checks and freezes the routes. It fails when a template does not parse, when a binding names what does not
// exist, and when two bindings match the same method and path.
func (m *Mux) Build() error {
	m.mustBeOpen()
	errs := m.errs
	routes := append([]*route(nil), m.funcs...)
	for _, b := range m.rules {
		r, err := m.bind(b)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		routes = append(routes, r)
	}
	root := &node{}
	for _, r := range routes {
		if err := root.add(r); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rest: routes of %s: %w", m.host, err)
	}
	m.routes, m.trie, m.grpc = routes, root, m.newGRPC()
	return nil
}

func (m *Mux) mustBeOpen() {
	if m.trie != nil {
		panic("rest: the Mux of " + m.host + " is built")
	}
}

func (m *Mux) bind(b boundRule) (*route, error) {
	meth, ok := m.methods[b.rpc]
	if !ok {
		return nil, fmt.Errorf("%s %s: RPC %s is not registered", b.rule.Method, b.rule.Pattern, b.rpc)
	}
	t, err := parseTemplate(b.rule.Pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.rpc, err)
	}
	r := &route{
		http:     b.rule.Method,
		pattern:  b.rule.Pattern,
		template: t,
		rpc:      b.rpc,
		rule:     b.rule,
		method:   meth,
		maxBody:  m.opts.MaxBody,
		errors:   m.opts.Errors,
	}
	for _, v := range t.vars {
		if !hasPath(meth.input.Descriptor(), v.path) {
			return nil, fmt.Errorf("%s: %s has no field %q", b.rpc, meth.input.Descriptor().FullName(), v.path)
		}
	}
	if f := b.rule.Body; f != "" && f != "*" && fieldByName(meth.input.Descriptor(), f) == nil {
		return nil, fmt.Errorf("%s: %s has no body field %q", b.rpc, meth.input.Descriptor().FullName(), f)
	}
	if f := b.rule.ResponseBody; f != "" && fieldByName(meth.output, f) == nil {
		return nil, fmt.Errorf("%s: %s has no response field %q", b.rpc, meth.output.FullName(), f)
	}
	return r, nil
}

// Route is one line of the coverage table: an RPC and one of its REST bindings.
type Route struct {
	RPC     string // full method name, or the name given to HandleFunc
	Method  string // HTTP method; "" for an RPC that only gRPC reaches
	Pattern string // template; "" likewise
	Stream  bool   // the RPC streams in either direction
}

// Routes lists every RPC with each of its bindings, sorted by RPC, pattern and method.
func (m *Mux) Routes() []Route {
	var out []Route
	bound := map[string]bool{}
	for _, r := range m.routes {
		bound[r.rpc] = true
		out = append(out, Route{
			RPC:     r.rpc,
			Method:  r.http,
			Pattern: r.pattern,
			Stream:  r.method != nil && r.method.stream != nil,
		})
	}
	for _, name := range m.names {
		if !bound[name] {
			out = append(out, Route{RPC: name, Stream: m.methods[name].stream != nil})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if a.RPC != b.RPC {
			return a.RPC < b.RPC
		}
		if a.Pattern != b.Pattern {
			return a.Pattern < b.Pattern
		}
		return a.Method < b.Method
	})
	return out
}

// ServeHTTP serves gRPC (by content type, over HTTP/2) and REST.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := m.opts.NewID()
	w.Header().Set("X-Goog-Request-Id", id)
	a := &arrival{id: id, held: claim{bodies: m.opts.Bodies, ctx: r.Context()}}
	defer a.held.end()
	if isGRPC(r) {
		m.serveGRPC(w, r, a)
		return
	}
	r = Paced(w, r)
	m.serveREST(w, r, a)
	Drain(w, r)
}

const (
	drainBytes = 64 << 20
	drainTime  = 5 * time.Second
)

// Drain reads what is left of a body of Paced whose answer is known already, a refusal most often: clients of HTTP/1.1
// that read only when all is sent would else find their connection closed in place of the answer. In HTTP/2 they read
// meanwhile, and are told to stop. A second call does nothing.
func Drain(w http.ResponseWriter, r *http.Request) {
	b, ok := r.Body.(*pacedBody)
	if !ok || b.ended || b.drained || r.ProtoMajor >= 2 {
		return
	}
	b.drained = true
	if b.start.IsZero() && r.Header.Get("Expect") != "" { // nobody has asked for it
		return
	}
	control := http.NewResponseController(w)
	if control.Flush() != nil || control.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, b.ReadCloser, drainBytes)
	_ = control.SetReadDeadline(time.Time{})
}
