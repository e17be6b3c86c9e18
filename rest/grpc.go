package rest

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress; the codec exists only when linked in
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
)

// maxFrames is what a gRPC request may have beside its one message, in bytes: the frame's head.
const maxFrames = 1 << 10

// newGRPC makes the gRPC half. It never listens: it serves requests that net/http has read.
func (m *Mux) newGRPC() *grpc.Server {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(
			ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler,
		) (any, error) {
			out, err := m.unary(ctx, req, info, h)
			return out, m.statusError(ctx, info.FullMethod, err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return m.statusError(ss.Context(), info.FullMethod, m.stream(srv, ss, info, h))
		}),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)}),
		grpc.MaxRecvMsgSize(int(min(m.opts.MaxBody, math.MaxInt32))),
		grpc.MaxSendMsgSize(math.MaxInt32),
	)
	for _, r := range m.descs {
		desc := *r.desc
		desc.Methods = nil
		for _, meth := range r.desc.Methods {
			meth.Handler = m.bounded(meth.Handler, "/"+desc.ServiceName+"/"+meth.MethodName)
			desc.Methods = append(desc.Methods, meth)
		}
		s.RegisterService(&desc, r.impl)
	}
	return s
}

// serveGRPC asks whether the caller may call at all, then has grpc read and serve.
func (m *Mux) serveGRPC(w http.ResponseWriter, r *http.Request, a *arrival) {
	meth := m.methods[r.URL.Path]
	if meth == nil { // grpc says so, and reads nothing
		m.grpc.ServeHTTP(w, r)
		return
	}
	a.call = Call{Method: r.URL.Path, ID: a.id, HTTP: r}
	ctx := withArrival(r.Context(), a)
	if err := m.admit(ctx, a); err != nil {
		writeStatus(w, m.failure(r.URL.Path, a.id, err))
		return
	}
	if meth.stream == nil || !meth.stream.ClientStreams {
		r = Paced(w, r)
		r.Body = &claimedBody{ReadCloser: http.MaxBytesReader(nil, r.Body, m.opts.MaxBody+maxFrames), held: &a.held}
	}
	m.grpc.ServeHTTP(w, r.WithContext(ctx))
}

// writeStatus answers a gRPC request whose messages nobody has read: a response of trailers only
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func writeStatus(w http.ResponseWriter, f *Failure) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", fmt.Sprint(uint32(f.Code)))
	h.Set("Grpc-Message", percentEncoded(f.Message))
	if raw, err := proto.Marshal(f.status()); err == nil {
		h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(raw))
	}
	w.WriteHeader(http.StatusOK)
}

// isGRPC reports whether a request speaks gRPC, whose errors are a status in the trailers of a 200.
func isGRPC(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// percentEncoded is a text as the header grpc-message has it.
func percentEncoded(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// claimedBody counts what grpc reads, which is as much as there is, to the caller.
type claimedBody struct {
	io.ReadCloser
	held *claim
}

func (b *claimedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		if e := b.held.grow(int64(n)); e != nil {
			return 0, e
		}
	}
	return n, err
}

// frame is a message that has been read and not decoded yet.
type frame struct{ bytes []byte }

// codec is the codec of protos, which leaves a frame as it is.
type codec struct{ encoding.CodecV2 }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		f.bytes = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// decodeFrame decodes a message when its memory is claimed.
func decodeFrame(ctx context.Context, f *frame, msg proto.Message) error {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		if err := a.held.decode(countProto(f.bytes, msg.ProtoReflect().Descriptor(), maxElements)); err != nil {
			return err
		}
	}
	if err := proto.Unmarshal(f.bytes, msg); err != nil {
		return fault.New(fault.InvalidArgument, "The request is not a valid %s.",
			msg.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

// bounded is a method's handler whose message is decoded when its memory is claimed.
func (m *Mux) bounded(h grpc.MethodHandler, rpc string) grpc.MethodHandler {
	return func(srv any, ctx context.Context, dec func(any) error, icpt grpc.UnaryServerInterceptor) (any, error) {
		return h(srv, ctx, func(v any) error {
			var f frame
			err := dec(&f)
			if err == nil {
				err = decodeFrame(ctx, &f, v.(proto.Message))
			}
			return m.statusError(ctx, rpc, err) // no interceptor sees it
		}, icpt)
	}
}

// countProto returns how many fields an encoded message has, those of the messages in it included, and at most one more
// than limit. What isn't well-formed ends the count: to decode it will fail.
func countProto(b []byte, d protoreflect.MessageDescriptor, limit int) int {
	n := 0
	for len(b) > 0 && n <= limit {
		num, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return n
		}
		b = b[size:]
		n++
		if size = protowire.ConsumeFieldValue(num, kind, b); size < 0 {
			return n
		}
		if kind == protowire.BytesType {
			if fd := d.Fields().ByNumber(num); fd != nil && fd.Message() != nil {
				if value, k := protowire.ConsumeBytes(b); k >= 0 {
					n += countProto(value, fd.Message(), limit-n)
				}
			}
		}
		b = b[size:]
	}
	return n
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
		if err := receive(ss, first); err != nil {
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

// receive reads the one request of a stream: as a frame from grpc, decoded from REST.
func receive(ss grpc.ServerStream, msg proto.Message) error {
	if _, ok := ss.(*restStream); ok {
		return ss.RecvMsg(msg)
	}
	var f frame
	if err := ss.RecvMsg(&f); err != nil {
		return err
	}
	return decodeFrame(ss.Context(), &f, msg)
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
