package rest

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"giggle/fault"
)

// serveStream runs a server stream: Server-Sent Events with alt=sse, else one JSON array, each message flushed.
// An error after the first message is the last element, as Google sends it.
func (x *exchange) serveStream(ctx context.Context) error {
	desc := x.route.method.stream
	if desc.ClientStreams {
		return fault.New(fault.Unimplemented, "Method %s streams requests: it is served over gRPC only.", x.route.rpc)
	}
	s := &restStream{x: x, ctx: ctx, control: http.NewResponseController(x.w)}
	info := &grpc.StreamServerInfo{FullMethod: x.route.rpc, IsServerStream: true}
	err := x.mux.stream(x.route.method.impl, s, info, desc.Handler)
	if err != nil && !s.started {
		return err
	}
	if err != nil {
		body, encErr := encode(x.mux.failure(x.route.rpc, x.id, err).envelope(), false)
		if encErr == nil {
			s.write(body)
		}
	}
	s.end()
	return nil
}

// restStream is a grpc.ServerStream over an HTTP response.
type restStream struct {
	x       *exchange
	ctx     context.Context
	control *http.ResponseController
	read    bool
	started bool
	raw     bool // of google.api.HttpBody: bytes as they are
}

var _ grpc.ServerStream = (*restStream)(nil)

func (s *restStream) SetHeader(metadata.MD) error  { return nil }
func (s *restStream) SendHeader(metadata.MD) error { return nil }
func (s *restStream) SetTrailer(metadata.MD)       {}
func (s *restStream) Context() context.Context     { return s.ctx }

func (s *restStream) RecvMsg(v any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	return s.x.decode(v)
}

func (s *restStream) SendMsg(v any) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if raw, ok := v.(*httpbody.HttpBody); ok {
		if !s.started {
			s.started, s.raw = true, true
			s.x.w.Header().Set("Content-Type", raw.GetContentType())
		}
		if _, err := s.x.w.Write(raw.GetData()); err != nil {
			return err
		}
		return s.control.Flush()
	}
	f := s.x.format
	if f.sse {
		f.pretty = false
	}
	body, err := s.x.render(v.(proto.Message), f)
	if err != nil {
		return err
	}
	return s.write(body)
}

func (s *restStream) write(body []byte) error {
	if s.raw {
		return nil
	}
	body = bytes.TrimSuffix(body, []byte("\n"))
	before, after := ",\n", ""
	switch {
	case s.x.format.sse:
		before, after = "data: ", "\r\n\r\n"
	case !s.started:
		before = "["
	}
	s.start()
	_, err := s.x.w.Write(bytes.Join([][]byte{[]byte(before), body, []byte(after)}, nil))
	if err != nil {
		return err
	}
	return s.control.Flush()
}

func (s *restStream) start() {
	if s.started {
		return
	}
	s.started = true
	setJSON(s.x.w.Header())
	if s.x.format.sse {
		s.x.w.Header().Set("Content-Type", "text/event-stream")
		s.x.w.Header().Set("Cache-Control", "no-cache")
	}
}

func (s *restStream) end() {
	if s.raw || s.x.format.sse {
		s.start()
		return
	}
	if !s.started {
		s.start()
		_, _ = s.x.w.Write([]byte("["))
	}
	_, _ = s.x.w.Write([]byte("]\n"))
}
