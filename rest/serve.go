package rest

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"

	"giggle/fault"
)

// serveREST routes one request and writes its answer or its error.
func (m *Mux) serveREST(w http.ResponseWriter, r *http.Request, a *arrival) {
	id := a.id
	routed, err := overrideMethod(r, &a.held)
	if err != nil {
		m.opts.Errors(w, r, m.failure("", id, err))
		return
	}
	r = routed
	rt, segs, allowed := m.trie.match(r.Method, r.URL.EscapedPath())
	if rt == nil && r.Method == http.MethodHead {
		rt, segs, allowed = m.trie.match(http.MethodGet, r.URL.EscapedPath())
	}
	if rt == nil {
		m.opts.Errors(w, r, m.failure("", id, noRoute(w, r, m.host, allowed)))
		return
	}
	params, err := rt.template.params(segs)
	if err != nil {
		rt.errors(w, r, m.failure(rt.rpc, id, fault.New(fault.InvalidArgument, "%s", err)))
		return
	}
	// "$alt=json;enum-encoding=int" arrives unescaped from some clients, and net/url refuses a bare semicolon.
	query, err := url.ParseQuery(strings.ReplaceAll(r.URL.RawQuery, ";", "%3B"))
	if err != nil {
		rt.errors(w, r, m.failure(rt.rpc, id, fault.New(fault.InvalidArgument, "The query is malformed.")))
		return
	}
	f, query, system, err := splitQuery(query)
	if err != nil {
		rt.errors(w, r, m.failure(rt.rpc, id, err))
		return
	}
	x := &exchange{
		mux:    m,
		route:  rt,
		w:      w,
		r:      r,
		id:     id,
		params: params,
		query:  query,
		system: system,
		format: f,
		held:   &a.held,
	}
	a.call = Call{
		Method: rt.rpc,
		ID:     id,
		HTTP:   r,
		Params: params,
		Query:  query,
	}
	if rt.fn != nil {
		a.call.Message = x.request()
	}
	ctx := withArrival(r.Context(), a)
	err = m.admit(ctx, a)
	switch {
	case err != nil:
	case rt.fn != nil:
		err = x.serveFunc(ctx)
	case rt.method.stream != nil:
		err = x.serveStream(ctx)
	default:
		err = x.serveUnary(ctx)
	}
	if err != nil {
		rt.errors(w, r, m.failure(rt.rpc, id, err))
	}
}

// admit asks whether the call of a, of which only the head is known, may be read.
func (m *Mux) admit(ctx context.Context, a *arrival) error {
	if m.opts.Admit != nil {
		if err := m.opts.Admit(ctx, &a.call); err != nil {
			return err
		}
	}
	a.held.caller = a.call.Account
	if fn := m.before[a.call.Method]; fn != nil {
		return fn(ctx, &a.call)
	}
	return nil
}

func noRoute(w http.ResponseWriter, r *http.Request, host string, allowed []string) error {
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return fault.New(fault.NotFound, "Method not found: %s is not a method of %s (allowed: %s).", clip(r.Method),
			clip(r.URL.Path), strings.Join(allowed, ", "))
	}
	return fault.New(fault.NotFound, "The requested URL %s was not found on %s.", clip(r.URL.Path), host)
}

// exchange is one REST request and its answer. Its serve… methods return an error only while nothing is written.
type exchange struct {
	mux    *Mux
	route  *route
	w      http.ResponseWriter
	r      *http.Request
	id     string
	params map[string]string
	query  url.Values
	system url.Values
	format format
	held   *claim
}

func (x *exchange) serveUnary(ctx context.Context) error {
	out, err := x.route.method.unary.Handler(x.route.method.impl, ctx, x.decode, x.mux.unary)
	if err != nil {
		return err
	}
	msg, ok := out.(proto.Message)
	if !ok {
		return fault.New(fault.Internal, "The handler returned no message.")
	}
	return x.writeProto(msg)
}

// decode fills the request message: body first, then query, then path, so that the path always holds.
func (x *exchange) decode(v any) error {
	msg := v.(proto.Message)
	if field := x.route.rule.Body; field != "" {
		body, err := readBody(x.r, x.held, x.route.maxBody)
		if err != nil {
			return err
		}
		if raw := rawBody(msg, field); raw != nil {
			raw.ContentType, raw.Data = x.r.Header.Get("Content-Type"), body
		} else {
			if err := x.held.decode(countJSON(body)); err != nil {
				return err
			}
			unknown, err := decodeBody(body, msg, field)
			if err != nil {
				return err
			}
			if unknown, err = x.mux.refuse(unknown); err != nil {
				return err
			}
			if len(unknown) > 0 {
				return unknownFields(unknown)
			}
		}
	}
	m := msg.ProtoReflect()
	if err := bindQuery(m, x.query); err != nil {
		return err
	}
	for _, v := range x.route.template.vars {
		if err := setPath(m, v.path, []string{x.params[v.path]}); err != nil {
			return fault.Invalid(v.path, "%s", err)
		}
	}
	return nil
}

// rawBody returns the google.api.HttpBody that a request keeps its body in, if it does.
func rawBody(msg proto.Message, field string) *httpbody.HttpBody {
	if field == "*" {
		b, _ := msg.(*httpbody.HttpBody)
		return b
	}
	fd := fieldByName(msg.ProtoReflect().Descriptor(), field)
	if fd.Message() == nil || fd.IsList() || fd.IsMap() {
		return nil
	}
	if fd.Message().FullName() != "google.api.HttpBody" {
		return nil
	}
	b, _ := msg.ProtoReflect().Mutable(fd).Message().Interface().(*httpbody.HttpBody)
	return b
}

func (x *exchange) writeProto(msg proto.Message) error {
	if raw, ok := msg.(*httpbody.HttpBody); ok {
		if raw.GetContentType() != "" {
			x.w.Header().Set("Content-Type", raw.GetContentType())
		}
		x.w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = x.w.Write(raw.GetData())
		return nil
	}
	body, err := x.render(msg, x.format)
	if err != nil {
		return err
	}
	x.answered(body)
	setJSON(x.w.Header())
	_, _ = x.w.Write(body)
	return nil
}

// render is the JSON of an answer, or of the one field that the rule names as its body.
func (x *exchange) render(msg proto.Message, f format) ([]byte, error) {
	field := x.route.rule.ResponseBody
	if field == "" {
		return encodeProto(msg, f)
	}
	m := msg.ProtoReflect()
	fd := fieldByName(m.Descriptor(), field)
	if fd == nil || fd.Message() == nil || fd.IsList() || fd.IsMap() {
		return nil, errors.New("response_body must be a single message")
	}
	return encodeProto(m.Get(fd).Message().Interface(), f)
}
