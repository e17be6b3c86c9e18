package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"giggle/fault"
)

// Func serves a route of a dialect without protos. Its result is written as follows: nil is {}, a proto.Message is
// proto JSON, Raw and Reply say how, Write writes for itself, anything else goes through encoding/json.
type Func func(ctx context.Context, r *Request) (any, error)

// Request is what a Func is called with. The HTTP body is limited to the route's size, but not read.
type Request struct {
	*http.Request
	Params map[string]string // variables of the path
	Query  url.Values        // without the system parameters
	System url.Values        // the system parameters, without their "$"
	Media  bool              // alt=media was asked for

	held  *claim
	limit int64
}

// Raw is an answer in bytes. Status 0 means 200. Body is closed if it is an io.Closer; nil is empty.
type Raw struct {
	Status int
	Header http.Header
	Body   io.Reader
}

// Reply is an answer in JSON with a status or headers of its own. Status 0 means 200. A nil Body is no body.
type Reply struct {
	Status int
	Header http.Header
	Body   any
}

// Write is an answer that writes itself, for what must hold the ResponseWriter (ranges, long streams).
type Write func(w http.ResponseWriter)

// RouteOption sets what is special about a route of HandleFunc.
type RouteOption func(*route)

// MaxBody sets the largest body in bytes; a negative n takes the limit away (for uploads that the handler streams).
func MaxBody(n int64) RouteOption { return func(r *route) { r.maxBody = n } }

// Unescaped has a variable of several path segments be the plain text, whose escaped slashes are slashes like others:
// for names that may hold any.
func Unescaped() RouteOption { return func(r *route) { r.template.plain = true } }

// Errors sets the dialect of the route's errors.
func Errors(ew ErrorWriter) RouteOption { return func(r *route) { r.errors = ew } }

// Query names the parameters that the route takes beside the system parameters; any other is a 400. A route without
// this option takes any.
func Query(names ...string) RouteOption {
	return func(r *route) { r.query = append([]string{}, names...) }
}

// HandleFunc adds a route. pattern has the google.api.http template syntax, such as "/v1/{name=projects/*}:undelete";
// rpc is the name that interceptors authorise by, such as "/google.iam.v1.IAMPolicy/GetIamPolicy" or
// "run.v1.services.get". Mistakes are reported by Build.
func (m *Mux) HandleFunc(method, pattern, rpc string, fn Func, options ...RouteOption) {
	m.mustBeOpen()
	t, err := parseTemplate(pattern)
	if err != nil || fn == nil || rpc == "" || method == "" {
		m.errs = append(m.errs,
			fmt.Errorf("%s %s: a route needs a method, a template, a name and a function: %w", method, pattern,
				errors.Join(err)))
		return
	}
	r := &route{
		http:     method,
		pattern:  pattern,
		template: t,
		rpc:      rpc,
		fn:       fn,
		maxBody:  m.opts.MaxBody,
		errors:   m.opts.Errors,
	}
	for _, o := range options {
		o(r)
	}
	m.funcs = append(m.funcs, r)
}

func (x *exchange) serveFunc(ctx context.Context) error {
	if x.route.query != nil {
		for _, name := range slices.Sorted(maps.Keys(x.query)) {
			if !slices.Contains(x.route.query, name) {
				return unknownParameter(clip(name))
			}
		}
	}
	call := newCall(ctx, x.route.rpc, nil)
	req := call.Message.(*Request)
	result, err := x.mux.run(ctx, call, func(ctx context.Context, c *Call) (any, error) {
		req.Request = x.r.WithContext(ctx)
		if req.limit >= 0 {
			req.Request.Body = http.MaxBytesReader(x.w, x.r.Body, req.limit)
		}
		return x.route.fn(ctx, req)
	})
	if err != nil {
		return err
	}
	return x.writeResult(result)
}

// request is the call as a Func gets it.
func (x *exchange) request() *Request {
	return &Request{
		Request: x.r,
		Params:  x.params,
		Query:   x.query,
		System:  x.system,
		Media:   x.format.media,
		held:    x.held,
		limit:   x.route.maxBody,
	}
}

func (x *exchange) writeResult(result any) error {
	switch v := result.(type) {
	case nil:
		return x.writeJSON(0, nil, struct{}{})
	case Write:
		v(x.w)
		return nil
	case Raw:
		return x.writeRaw(v)
	case Reply:
		if v.Body == nil {
			copyHeader(x.w.Header(), v.Header)
			x.w.WriteHeader(statusOr200(v.Status))
			return nil
		}
		return x.writeJSON(v.Status, v.Header, v.Body)
	case proto.Message:
		return x.writeProto(v)
	default:
		return x.writeJSON(0, nil, v)
	}
}

func (x *exchange) writeRaw(v Raw) error {
	copyHeader(x.w.Header(), v.Header)
	if c, ok := v.Body.(io.Closer); ok {
		defer c.Close()
	}
	x.w.WriteHeader(statusOr200(v.Status))
	if v.Body == nil {
		return nil
	}
	if _, err := io.Copy(x.w, v.Body); err != nil {
		x.mux.opts.Log.Info("an answer was cut off", "request", x.id, "rpc", x.route.rpc, "error", err)
		panic(http.ErrAbortHandler) // the client must not take half for the whole
	}
	return nil
}

func (x *exchange) writeJSON(status int, h http.Header, v any) error {
	var body []byte
	var err error
	if msg, ok := v.(proto.Message); ok {
		body, err = encodeProto(msg, x.format)
	} else if x.format.fields == nil {
		body, err = encode(v, x.format.pretty)
	} else if body, err = encode(v, false); err == nil {
		body, err = x.format.shape(body)
	}
	if err != nil {
		return err
	}
	x.answered(body)
	copyHeader(x.w.Header(), h)
	setJSON(x.w.Header())
	x.w.WriteHeader(statusOr200(status))
	_, _ = x.w.Write(body)
	return nil
}

func (x *exchange) answered(body []byte) {
	if x.mux.opts.Answered != nil {
		x.mux.opts.Answered(x.r, body)
	}
}

func statusOr200(status int) int {
	if status == 0 {
		return http.StatusOK
	}
	return status
}

func copyHeader(to, from http.Header) {
	for k, v := range from {
		to[k] = v
	}
}

// ReadBody reads the whole body, decompressed. A body over the route's limit (DefaultMaxBody where it has none) is
// an InvalidArgument fault.
func (r *Request) ReadBody() ([]byte, error) {
	limit := r.limit
	if limit < 0 {
		limit = DefaultMaxBody
	}
	return readBody(r.Request, r.held, limit)
}

// DecodeJSON reads the body into v, which is a pointer. An empty body leaves v as it is; anything that does not fit, a
// field that v doesn't have among it, is an InvalidArgument fault with the place.
func (r *Request) DecodeJSON(v any) error {
	body, err := r.ReadBody()
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := r.held.decode(countJSON(body)); err != nil {
		return err
	}
	return DecodeStrict(body, v)
}

// DecodeStrict reads a JSON text that is there, as DecodeJSON does a body: for one that is a part of a body.
func DecodeStrict(body []byte, v any) error {
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		return fault.New(fault.InvalidArgument, "Invalid JSON payload received. Root element must be a message.")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err != nil {
		if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			name := strings.Trim(quoted, `"`)
			var tree any
			if json.Unmarshal(body, &tree) == nil {
				name = cmp.Or(pathOf(tree, name), name)
			}
			return unknownFields([]string{strings.ReplaceAll(name, ".[", "[")})
		}
	}
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			return fault.New(fault.InvalidArgument,
				"Invalid JSON payload received. Something follows the body at offset %d.", dec.InputOffset())
		}
		return nil
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &kind):
		return fault.Invalid(kind.Field, "Invalid value: a JSON %s at offset %d does not fit.", kind.Value, kind.Offset)
	case errors.As(err, &syntax):
		return fault.New(fault.InvalidArgument, "Invalid JSON payload received. %s at offset %d.", syntax,
			syntax.Offset)
	}
	return fault.New(fault.InvalidArgument, "Invalid JSON payload received. %s",
		clip(strings.TrimPrefix(err.Error(), "json: ")))
}
