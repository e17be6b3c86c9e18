package rest

import (
	"context"
	"math"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress; the codec exists only when linked in
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"giggle/fault"
)

// newGRPC makes the gRPC half. It never listens: it serves requests that net/http has read.
func (m *Mux) newGRPC() *grpc.Server {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			out, err := m.unary(ctx, req, info, h)
			return out, m.statusError(ctx, info.FullMethod, err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return m.statusError(ss.Context(), info.FullMethod, m.stream(srv, ss, info, h))
		}),
		grpc.MaxRecvMsgSize(int(min(m.opts.MaxBody, math.MaxInt32))),
		grpc.MaxSendMsgSize(math.MaxInt32),
	)
	for _, r := range m.descs {
		s.RegisterService(r.desc, r.impl)
	}
	return s
}

// unary is the interceptor of both wires: it turns a decoded message into a Call and runs the chain.
func (m *Mux) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	return m.run(ctx, newCall(ctx, info.FullMethod, req), func(ctx context.Context, c *Call) (any, error) {
		return h(ctx, c.Message)
	})
}

// stream is the same for streams. Of a server stream it reads the one request first, so that the chain sees it.
func (m *Mux) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	var first proto.Message
	if !info.IsClientStream {
		meth := m.methods[info.FullMethod]
		if meth == nil {
			return fault.New(fault.Unimplemented, "Method %s is not known.", info.FullMethod)
		}
		first = meth.input.New().Interface()
		if err := ss.RecvMsg(first); err != nil {
			return err
		}
	}
	call := newCall(ss.Context(), info.FullMethod, nil)
	if first != nil {
		call.Message = first
	}
	_, err := m.run(ss.Context(), call, func(ctx context.Context, c *Call) (any, error) {
		return nil, h(srv, &replayStream{ServerStream: ss, ctx: ctx, first: first})
	})
	return err
}

// replayStream gives the message that was read ahead, and carries the context of the chain.
type replayStream struct {
	grpc.ServerStream
	ctx   context.Context
	first proto.Message
}

func (s *replayStream) Context() context.Context { return s.ctx }

func (s *replayStream) RecvMsg(v any) error {
	if s.first == nil {
		return s.ServerStream.RecvMsg(v)
	}
	proto.Merge(v.(proto.Message), s.first)
	s.first = nil
	return nil
}

// statusError turns err into the gRPC status with the details that the JSON body would have.
func (m *Mux) statusError(ctx context.Context, rpc string, err error) error {
	if err == nil {
		return nil
	}
	id := ""
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		id = a.id
	}
	f := m.failure(rpc, id, err)
	return status.ErrorProto(f.status())
}
