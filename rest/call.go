package rest

import (
	"context"
	"net/http"
	"net/url"
	"runtime/debug"

	"giggle/fault"
)

// Call is one request on its way through the chain, whatever its wire.
type Call struct {
	Method  string            // full RPC name: "/google.iam.v1.IAMPolicy/GetIamPolicy", or the one given to HandleFunc
	ID      string            // the request id, as in the response header X-Goog-Request-Id
	HTTP    *http.Request     // the request that brought it, also for gRPC; its body belongs to the mux
	Message any               // the decoded proto.Message; a *Request for HandleFunc; nil for client and bidi streams
	Params  map[string]string // variables of the REST path; nil for gRPC
	Query   url.Values        // of a REST request, without the system parameters; nil for gRPC

	// What Options.Admit and the interceptors find out.
	Caller   any    // who calls
	Account  string // the caller's name, which the memory of the request is counted to; "" for an unauthenticated one
	Resource string // what the caller was authorised on, by its canonical name; "" where nothing was asked
	Admitted bool   // Admit has asked all that there is to ask
}

// Handler is the rest of the chain.
type Handler func(ctx context.Context, call *Call) (any, error)

// Interceptor stands around a Handler. It answers itself or calls next, once. For a stream the result of next is nil
// and arrives when the stream has ended.
type Interceptor func(ctx context.Context, call *Call, next Handler) (any, error)

type (
	callKey    struct{}
	arrivalKey struct{}
)

// arrival is what is known of a request before its message is decoded.
type arrival struct {
	id   string
	call Call
	held claim
}

func withArrival(ctx context.Context, a *arrival) context.Context {
	return context.WithValue(ctx, arrivalKey{}, a)
}

// newCall makes the Call of an RPC from what ServeHTTP put into the context.
func newCall(ctx context.Context, rpc string, message any) *Call {
	c := new(Call)
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		*c = a.call
	}
	c.Method = rpc
	if message != nil {
		c.Message = message
	}
	return c
}

// CallFrom returns the Call that ctx belongs to, or nil outside one.
func CallFrom(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// WithCall returns a context that belongs to call. The mux does this itself; tests of handlers need it.
func WithCall(ctx context.Context, call *Call) context.Context {
	return context.WithValue(ctx, callKey{}, call)
}

// run sends call through the interceptors to last. A panic anywhere in it becomes an Internal fault.
func (m *Mux) run(ctx context.Context, call *Call, last Handler) (result any, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		m.opts.Log.Error("panic in a handler", "request", call.ID, "rpc", call.Method, "panic", p, "stack",
			string(debug.Stack()))
		result, err = nil, fault.New(fault.Internal, "Internal error encountered.")
	}()
	h := last
	for i := len(m.opts.Interceptors) - 1; i >= 0; i-- {
		icpt, next := m.opts.Interceptors[i], h
		h = func(ctx context.Context, call *Call) (any, error) { return icpt(ctx, call, next) }
	}
	return h(WithCall(ctx, call), call)
}
