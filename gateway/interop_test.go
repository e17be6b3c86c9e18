package gateway_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// gRPC's own interoperability tests, with and without TLS, through the gateway and HTTP/2 to the app. A test of theirs
// that fails ends the process with its reason.
func TestGRPCInterop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	w := roadTo(t, true, l.Addr().String(), 60)
	for address, creds := range map[string]credentials.TransportCredentials{w.address: credentials.NewClientTLSFromCert(w.pool, host), w.plain: insecure.NewCredentials()} {
		callAll(t, address, creds)
	}
	if n := len(w.records); n < 20 {
		t.Errorf("%d records", n)
	}
}

// callAll makes every call of the interoperability tests over one connection.
func callAll(t *testing.T, address string, creds credentials.TransportCredentials) {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tc := testgrpc.NewTestServiceClient(cc)
	for _, do := range []func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
		interop.DoEmptyUnaryCall, interop.DoLargeUnaryCall, interop.DoClientStreaming, interop.DoServerStreaming,
		interop.DoPingPong, interop.DoEmptyStream,
		interop.DoTimeoutOnSleepingServer, interop.DoCancelAfterBegin, interop.DoCancelAfterFirstResponse,
		interop.DoCustomMetadata,
		interop.DoStatusCodeAndMessage, interop.DoSpecialStatusMessage,
	} {
		do(ctx, tc)
	}
	interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
	interop.DoUnimplementedMethod(ctx, cc)
}
