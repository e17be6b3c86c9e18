package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	artifactregistry "cloud.google.com/go/artifactregistry/apiv1"
	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/genproto/googleapis/api/httpbody"
	mlpb "google.golang.org/genproto/googleapis/cloud/ml/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	watcherpb "google.golang.org/genproto/googleapis/watcher/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/fault"
	"giggle/rest"
)

// registry is a real service with a few methods; the rest are the generated UNIMPLEMENTED ones.
type registry struct {
	artifactregistrypb.UnimplementedArtifactRegistryServer
	mu     sync.Mutex
	update *artifactregistrypb.UpdateRepositoryRequest
	list   *artifactregistrypb.ListRepositoriesRequest
	create *artifactregistrypb.CreateRepositoryRequest
}

func (s *registry) GetRepository(
	ctx context.Context, r *artifactregistrypb.GetRepositoryRequest,
) (*artifactregistrypb.Repository, error) {
	switch r.GetName() {
	case "projects/p/locations/l/repositories/gone":
		e := fault.New(fault.NotFound, "Repository %q was not found.", r.GetName())
		e.Reason, e.Metadata = "REPOSITORY_NOT_FOUND", map[string]string{"name": "gone"}
		e.Help = []fault.Link{{Description: "Make one", URL: "https://giggle.test/docs"}}
		return nil, fmt.Errorf("artifacts.Get: %w", e)
	case "projects/p/locations/l/repositories/broken":
		return nil, errors.New("secret: disk /dev/sda is on fire")
	case "projects/p/locations/l/repositories/panic":
		panic("boom")
	}
	return &artifactregistrypb.Repository{
		Name:      r.GetName(),
		SizeBytes: 1 << 60,
		Format:    artifactregistrypb.Repository_DOCKER,
	}, nil
}

func (s *registry) GetPackage(
	_ context.Context, r *artifactregistrypb.GetPackageRequest,
) (*artifactregistrypb.Package, error) {
	return &artifactregistrypb.Package{Name: r.GetName()}, nil
}

func (s *registry) GetVersion(
	_ context.Context, r *artifactregistrypb.GetVersionRequest,
) (*artifactregistrypb.Version, error) {
	return &artifactregistrypb.Version{Name: r.GetName()}, nil
}

func (s *registry) GetFile(_ context.Context, r *artifactregistrypb.GetFileRequest) (*artifactregistrypb.File, error) {
	return &artifactregistrypb.File{Name: r.GetName()}, nil
}

func (s *registry) ListRepositories(
	_ context.Context, r *artifactregistrypb.ListRepositoriesRequest,
) (*artifactregistrypb.ListRepositoriesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = r
	return &artifactregistrypb.ListRepositoriesResponse{Repositories: []*artifactregistrypb.Repository{
		{Name: "a", Description: "x", Format: artifactregistrypb.Repository_DOCKER}, {Name: "b", Description: "y"},
	}, NextPageToken: ""}, nil
}

func (s *registry) UpdateRepository(
	_ context.Context, r *artifactregistrypb.UpdateRepositoryRequest,
) (*artifactregistrypb.Repository, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.update = r
	return r.GetRepository(), nil
}

func (s *registry) CreateRepository(
	_ context.Context, r *artifactregistrypb.CreateRepositoryRequest,
) (*longrunningpb.Operation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create = r
	return &longrunningpb.Operation{Name: r.GetParent() + "/operations/1"}, nil
}

type operations struct {
	longrunningpb.UnimplementedOperationsServer
}

func (operations) GetOperation(
	_ context.Context, r *longrunningpb.GetOperationRequest,
) (*longrunningpb.Operation, error) {
	return &longrunningpb.Operation{Name: r.GetName(), Done: true}, nil
}

func (operations) DeleteOperation(context.Context, *longrunningpb.DeleteOperationRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

// predictor is served through Describe; it answers HttpBody.
type predictor struct{}

func (predictor) Predict(_ context.Context, r *mlpb.PredictRequest) (*httpbody.HttpBody, error) {
	return &httpbody.HttpBody{
		ContentType: "text/x-echo",
		Data:        append([]byte(r.GetName()+" "), r.GetHttpBody().GetData()...),
	}, nil
}

type watcher struct{}

var watcherDesc = &grpc.ServiceDesc{
	ServiceName: "google.watcher.v1.Watcher",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName:    "Watch",
		ServerStreams: true,
		Handler: func(_ any, ss grpc.ServerStream) error {
			in := new(watcherpb.Request)
			if err := ss.RecvMsg(in); err != nil {
				return err
			}
			if in.GetTarget() == "none" {
				return nil
			}
			if in.GetTarget() == "early" {
				return fault.New(fault.PermissionDenied, "No.")
			}
			for _, e := range []string{"one", "two"} {
				if err := ss.SendMsg(&watcherpb.ChangeBatch{Changes: []*watcherpb.Change{{Element: in.GetTarget() +
					"/" +
					e}}}); err != nil {
					return err
				}
			}
			if in.GetTarget() == "late" {
				return fault.New(fault.Aborted, "Cut.")
			}
			return nil
		},
	}},
}

type seen struct {
	mu    sync.Mutex
	calls []string
}

func (s *seen) intercept(ctx context.Context, c *rest.Call, next rest.Handler) (any, error) {
	s.mu.Lock()
	s.calls = append(s.calls, fmt.Sprintf("%s %T %v", c.Method, c.Message, c.HTTP != nil))
	s.mu.Unlock()
	if c.HTTP.Header.Get("Authorization") == "none" {
		return nil, fault.New(fault.Unauthenticated, "Who are you?")
	}
	c.Caller = "me"
	return next(ctx, c)
}

type host struct {
	*httptest.Server
	registry *registry
	seen     *seen
	log      *bytes.Buffer
	mux      *rest.Mux
}

func serve(t *testing.T, more func(*rest.Mux)) *host {
	t.Helper()
	h := &host{registry: &registry{}, seen: &seen{}, log: &bytes.Buffer{}}
	ids := 0
	var mu sync.Mutex
	h.mux = rest.NewMux("artifactregistry.googleapis.com", rest.Options{
		Interceptors: []rest.Interceptor{h.seen.intercept},
		Log:          slog.New(slog.NewTextHandler(&lockedWriter{w: h.log}, nil)),
		NewID:        func() string { mu.Lock(); defer mu.Unlock(); ids++; return fmt.Sprintf("id-%d", ids) },
		MaxBody:      1 << 10,
	})
	artifactregistrypb.RegisterArtifactRegistryServer(h.mux, h.registry)
	longrunningpb.RegisterOperationsServer(h.mux, operations{})
	h.mux.RegisterService(rest.Describe("google.cloud.ml.v1.OnlinePredictionService", predictor{}), predictor{})
	h.mux.RegisterService(watcherDesc, watcher{})
	h.mux.Bind("/google.longrunning.Operations/GetOperation", rest.HTTPRule{
		Method:  "GET",
		Pattern: "/v1/{name=projects/*/locations/*/operations/*}",
	})
	if more != nil {
		more(h.mux)
	}
	if err := h.mux.Build(); err != nil {
		t.Fatal(err)
	}
	h.Server = httptest.NewUnstartedServer(h.mux)
	h.Server.Config.Protocols = new(http.Protocols)
	h.Server.Config.Protocols.SetHTTP1(true)
	h.Server.Config.Protocols.SetUnencryptedHTTP2(true)
	h.Server.Start()
	t.Cleanup(h.Server.Close)
	return h
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (h *host) do(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, h.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func compact(s string) string {
	var buf bytes.Buffer
	if json.Compact(&buf, []byte(s)) != nil {
		return s
	}
	return buf.String()
}

func TestTranscoding(t *testing.T) {
	h := serve(t, nil)
	const repo = "/v1/projects/p/locations/l/repositories/"
	rows := []struct {
		name, method, path, body string
		status                   int
		want                     string // of the body, compacted; "…" at its end: only the beginning
	}{
		{"int64 is a string, zero values are absent", "GET", repo + "r?alt=json", "", 200,
			`{"name":"projects/p/locations/l/repositories/r","format":"DOCKER","sizeBytes":"1152921504606846976"}`},
		{"enum numbers on request", "GET", repo + "r?$alt=json;enum-encoding=int&fields=format", "", 200, `{"format":1}`},
		{"an escaped slash stays in the segment", "GET", repo + "r/packages/a%2Fb", "", 200, `{"name":"projects/p/locations/l/repositories/r/packages/a%2Fb"}`},
		{"other escapes are undone", "GET", repo + "r/packages/a%20b", "", 200, `{"name":"projects/p/locations/l/repositories/r/packages/a b"}`},
		{"a colon that is no verb", "GET", repo +
			"r/packages/a/versions/sha256:abc", "", 200,
			`{"name":"projects/p/locations/l/repositories/r/packages/a/versions/sha256:abc"}`},
		{"GET files/** beside PATCH files/*", "GET", repo + "r/files/x", "", 200, `{"name":"projects/p/locations/l/repositories/r/files/x"}`},
		{"bound mixin", "GET", "/v1/projects/p/locations/l/operations/7", "", 200, `{"name":"projects/p/locations/l/operations/7","done":true}`},
		{"annotated mixin", "DELETE", "/v1/operations/7", "", 200, `{}`},
		{"lists and masks", "GET", "/v1/projects/p/locations/l/repositories?fields=repositories(name,format)", "", 200, `{"repositories":[{"format":"DOCKER","name":"a"},{"name":"b"}]}`},
		{"unknown path", "GET", "/v1/nothing", "", 404, `{"error":{"code":404,"message":"The requested URL /v1/nothing was not found on artifactregistry.googleapis.com.","status":"NOT_FOUND"}}`},
		{"wrong method", "PUT", repo + "r", "", 404, `{"error":{"code":404,"message":"Method not found: PUT is not a method of /v1/projects/p/locations/l/repositories/r (allowed: DELETE, GET, PATCH).","status":"NOT_FOUND"}}`},
		{"not implemented", "DELETE", repo + "r", "", 405, `{"error":{"code":405,"message":"Method /google.devtools.artifactregistry.v1.ArtifactRegistry/DeleteRepository is not implemented by Giggle.","status":"UNIMPLEMENTED"}}`},
		{"a fault with details", "GET", repo + "gone", "", 404,
			`{"error":{"code":404,"message":"Repository \"projects/p/locations/l/repositories/gone\" was not found.","status":"NOT_FOUND","details":[` +
				`{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"REPOSITORY_NOT_FOUND","domain":"artifactregistry.googleapis.com","metadata":{"name":"gone"}},` +
				`{"@type":"type.googleapis.com/google.rpc.Help","links":[{"description":"Make one","url":"https://giggle.test/docs"}]}]}}`},
		{"unknown query parameter", "GET", repo +
			"r?colour=red", "", 400,
			`{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \"colour\": Cannot bind query parameter. Field 'colour' could not be found in request message.","status":"INVALID_ARGUMENT"…`},
		{"JSONP", "GET", repo + "r?callback=f", "", 400, `{"error":{"code":400,"message":"callback: JSONP is not supported."…`},
		{"bad mask", "GET", repo + "r?fields=a(b", "", 400, `{"error":{"code":400,"message":"fields: Invalid field selection a(b"…`},
		{"bad number", "GET", "/v1/projects/p/locations/l/repositories?pageSize=many", "", 400, `{"error":{"code":400,"message":"pageSize: invalid value \"many\" (want int32)"…`},
		{"unknown enum value", "POST", "/v1/projects/p/locations/l/repositories?repositoryId=r", `{"format":"dockr"}`, 400, `{"error":{"code":400,"message":"Invalid JSON payload received. (line 1:11): invalid value for enum field format: \"dockr\""…`},
		{"unknown enum value beside an unknown field", "POST", "/v1/projects/p/locations/l/repositories?repositoryId=r", `{"x":1,"format":"dockr"}`, 400, `{"error":{"code":400,"message":"Invalid JSON payload received. invalid value for enum field format: \"dockr\""…`},
		{"not JSON", "POST", "/v1/projects/p/locations/l/repositories?repositoryId=r", `{"format":`, 400, `{"error":{"code":400,"message":"Invalid JSON payload received. unexpected end of JSON input at offset 10."…`},
		{"null", "POST", "/v1/projects/p/locations/l/repositories?repositoryId=r", `null`, 400, `{"error":{"code":400,…`},
		{"too long", "POST", "/v1/projects/p/locations/l/repositories?repositoryId=r", `{"description":"` +
			strings.Repeat("x", 2000) + `"}`, 400,
			`{"error":{"code":400,"message":"Request payload size exceeds the limit: 1024 bytes."…`},
		{"HttpBody out", "POST", "/v1/projects/p/models/m:predict", `{}`, 200, "projects/p/models/m "},
		{"stream as an array", "GET", "/v1/watch?target=t", "", 200, `[{"changes":[{"element":"t/one"}]},{"changes":[{"element":"t/two"}]}]`},
		{"empty stream", "GET", "/v1/watch?target=none", "", 200, `[]`},
		{"stream that fails at once", "GET", "/v1/watch?target=early", "", 403, `{"error":{"code":403,"message":"No.","status":"PERMISSION_DENIED"}}`},
		{"stream that fails late", "GET", "/v1/watch?target=late", "", 200, `[{"changes":[{"element":"late/one"}]},{"changes":[{"element":"late/two"}]},{"error":{"code":409,"message":"Cut.","status":"ABORTED"}}]`},
		{"bad escape in the query", "GET", repo + "r?a=%zz", "", 400, `{"error":{"code":400,"message":"The query is malformed."…`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			res, body := h.do(t, row.method, row.path, row.body)
			got := compact(body)
			if res.StatusCode != row.status {
				t.Errorf("status = %d, want %d (%s)", res.StatusCode, row.status, got)
			}
			if _, ok := res.Header["Allow"]; !ok && row.status == http.StatusMethodNotAllowed {
				t.Error("a 405 without Allow")
			}
			want, prefix := strings.CutSuffix(row.want, "…")
			if prefix && !strings.HasPrefix(got, want) || !prefix && got != want {
				t.Errorf("body:\n got %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestBindings(t *testing.T) {
	h := serve(t, nil)
	_, body := h.do(t, "PATCH",
		"/v1/projects/p/locations/l/repositories/r?updateMask=description,dockerConfig.immutable_tags&repository.kmsKeyName=k&repository.mode=STANDARD_REPOSITORY",
		`{"description":"d","name":"elsewhere"}`)
	u := h.registry.update
	if u == nil {
		t.Fatal(body)
	}
	if got, want := u.GetUpdateMask().GetPaths(), []string{"description",
		"docker_config.immutable_tags"}; !cmp.Equal(got, want) {
		t.Errorf("mask = %v, want %v", got, want)
	}
	r := u.GetRepository()
	if r.GetName() != "projects/p/locations/l/repositories/r" || r.GetKmsKeyName() != "k" ||
		r.GetMode() != artifactregistrypb.Repository_STANDARD_REPOSITORY || r.GetDescription() != "d" {
		t.Errorf("repository = %v", r)
	}
	form := "pageSize=7&filter=x"
	if res, body := h.do(t, "POST", "/v1/projects/p/locations/l/repositories?orderBy=name", form,
		"X-HTTP-Method-Override", "GET", "Content-Type", "application/x-www-form-urlencoded"); res.StatusCode != 200 {
		t.Fatal(body)
	}
	if l := h.registry.list; l.GetPageSize() != 7 || l.GetFilter() != "x" || l.GetOrderBy() != "name" ||
		l.GetParent() != "projects/p/locations/l" {
		t.Errorf("list = %v", l)
	}
}

func TestStreamSSE(t *testing.T) {
	h := serve(t, nil)
	res, body := h.do(t, "GET", "/v1/watch?target=t&alt=sse", "")
	if ct := res.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("content type %q", ct)
	}
	want := "data: {\"changes\":[{\"element\":\"t/one\"}]}\r\n\r\ndata: {\"changes\":[{\"element\":\"t/two\"}]}\r\n\r\n"
	if body != want {
		t.Errorf("got %q, want %q", body, want)
	}
}

func TestInternalErrorsHideAndLead(t *testing.T) {
	h := serve(t, nil)
	for _, name := range []string{"broken", "panic"} {
		res, body := h.do(t, "GET", "/v1/projects/p/locations/l/repositories/"+name, "")
		id := res.Header.Get("X-Goog-Request-Id")
		if res.StatusCode != 500 || !strings.Contains(body, id) || strings.Contains(body, "secret") ||
			strings.Contains(body, "boom") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
		if !strings.Contains(h.log.String(), "request="+id) {
			t.Errorf("%s: the id %s does not lead to a log line", name, id)
		}
	}
	if log := h.log.String(); !strings.Contains(log, "on fire") || !strings.Contains(log, "boom") {
		t.Errorf("the log misses the causes: %s", log)
	}
}

func TestUnauthenticatedChallenge(t *testing.T) {
	h := serve(t, nil)
	res, _ := h.do(t, "GET", "/v1/projects/p/locations/l/repositories/r", "", "Authorization", "none")
	if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") != `Bearer realm="https://accounts.google.com/"` {
		t.Errorf("%d %q", res.StatusCode, res.Header.Get("WWW-Authenticate"))
	}
}

// Who may not call at all makes nobody read a body, on either kind of route, and hears nothing of what is wrong with
// it.
func TestAdmitComesBeforeTheBody(t *testing.T) {
	m := rest.NewMux("things.googleapis.com", rest.Options{
		NewID: func() string { return "id" },
		Admit: func(_ context.Context, c *rest.Call) error {
			if c.Method != "things.create" || c.Message.(*rest.Request).Query.Get("of") != "x" || c.ID != "id" {
				t.Errorf("admit was asked about %+v", c)
			}
			return fault.New(fault.Unauthenticated, "Who are you?")
		},
	})
	m.HandleFunc("POST", "/v1/things", "things.create", func(context.Context, *rest.Request) (any, error) {
		t.Error("the handler was called")
		return nil, nil
	})
	if err := m.Build(); err != nil {
		t.Fatal(err)
	}
	body := &unread{}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("POST", "/v1/things?of=x", body))
	if w.Code != 401 || !strings.Contains(w.Body.String(), "Who are you?") || body.read > 0 {
		t.Errorf("%d %s; %d bytes of the body were read", w.Code, w.Body, body.read)
	}
}

// unread is a body without an end that counts what is read of it.
type unread struct{ read int }

func (u *unread) Read(p []byte) (int, error) {
	u.read += len(p)
	return len(p), nil
}

// TestOfficialClients drives Google's own Go client over both wires.
func TestOfficialClients(t *testing.T) {
	h := serve(t, nil)
	ctx := context.Background()
	overGRPC, err := artifactregistry.NewClient(ctx, option.WithEndpoint(h.Listener.Addr().String()),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	defer overGRPC.Close()
	overREST, err := artifactregistry.NewRESTClient(ctx, option.WithEndpoint(h.URL), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	defer overREST.Close()
	for name, c := range map[string]*artifactregistry.Client{"grpc": overGRPC, "rest": overREST} {
		t.Run(name, func(t *testing.T) {
			r, err := c.GetRepository(ctx,
				&artifactregistrypb.GetRepositoryRequest{Name: "projects/p/locations/l/repositories/r"})
			if err != nil || r.GetSizeBytes() != 1<<60 || r.GetFormat() != artifactregistrypb.Repository_DOCKER {
				t.Errorf("get: %v %v", r, err)
			}
			it := c.ListRepositories(ctx,
				&artifactregistrypb.ListRepositoriesRequest{Parent: "projects/p/locations/l", PageSize: 5})
			n := 0
			for _, err = it.Next(); err == nil; _, err = it.Next() {
				n++
			}
			if n != 2 || !errors.Is(err, iterator.Done) {
				t.Errorf("list: %d %v", n, err)
			}
			_, err = c.GetRepository(ctx,
				&artifactregistrypb.GetRepositoryRequest{Name: "projects/p/locations/l/repositories/gone"})
			var apiErr interface {
				Reason() string
				Domain() string
			}
			if !errors.As(err, &apiErr) || apiErr.Reason() != "REPOSITORY_NOT_FOUND" ||
				apiErr.Domain() != "artifactregistry.googleapis.com" {
				t.Errorf("error: %#v", err)
			}
			if name == "grpc" {
				if s := status.Convert(err); s.Code() != codes.NotFound || len(s.Details()) != 2 {
					t.Errorf("status: %v %v", s, s.Details())
				} else if help, ok := s.Details()[1].(*errdetails.Help); !ok || help.GetLinks()[0].GetUrl() == "" {
					t.Errorf("help: %v", s.Details())
				}
			} else if ge := new(googleapi.Error); errors.As(err, &ge) && ge.Code != 404 {
				t.Errorf("code: %v", ge)
			}
		})
	}
	var kinds []string
	for _, c := range h.seen.calls {
		kinds = append(kinds, strings.Fields(c)[0]+" "+strings.Fields(c)[2])
	}
	if len(kinds) != 6 {
		t.Errorf("the chain saw %v", h.seen.calls)
	}
}

func TestGRPCStream(t *testing.T) {
	h := serve(t, nil)
	conn, err := grpc.NewClient(h.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for target, want := range map[string]struct {
		n    int
		code codes.Code
	}{"t": {2, codes.OK}, "late": {2, codes.Aborted}, "early": {0, codes.PermissionDenied}} {
		stream, err := watcherpb.NewWatcherClient(conn).Watch(context.Background(), &watcherpb.Request{Target: target})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err = stream.Recv(); err == nil; _, err = stream.Recv() {
			n++
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if n != want.n || status.Code(err) != want.code {
			t.Errorf("%s: %d messages, %v", target, n, err)
		}
	}
	if c := h.seen.calls[0]; c != "/google.watcher.v1.Watcher/Watch *watcher.Request true" {
		t.Errorf("the chain saw %q", c)
	}
	out := new(httpbody.HttpBody)
	if err := conn.Invoke(context.Background(), "/google.cloud.ml.v1.OnlinePredictionService/Predict",
		&mlpb.PredictRequest{Name: "n"}, out); err != nil || out.GetContentType() != "text/x-echo" {
		t.Errorf("a described service over gRPC: %v %v", out, err)
	}
	if err := conn.Invoke(context.Background(), "/google.no.Service/Method", &emptypb.Empty{},
		&emptypb.Empty{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown service: %v", err)
	}
}

type thing struct {
	Name string `json:"name,omitempty"`
	Size int64  `json:"size,omitempty,string"`
}

func TestHandleFunc(t *testing.T) {
	h := serve(t, func(m *rest.Mux) {
		m.HandleFunc("POST", "/apis/{group}/things/{name=**}", "things.v1.put",
			func(ctx context.Context, r *rest.Request) (any, error) {
				var v thing
				if err := r.DecodeJSON(&v); err != nil {
					return nil, err
				}
				if v.Name == "" {
					v.Name = r.Params["group"] + ":" + r.Params["name"] + ":" + rest.CallFrom(ctx).Caller.(string)
				}
				return v, nil
			}, rest.Query("dryRun"), rest.MaxBody(100))
		m.HandleFunc("GET", "/apis/raw", "things.v1.raw", func(context.Context, *rest.Request) (any, error) {
			return rest.Raw{
				Status: 206,
				Header: http.Header{"Content-Type": {"text/plain"}},
				Body:   strings.NewReader("bytes"),
			}, nil
		})
		m.HandleFunc("POST", "/apis/reply", "things.v1.reply", func(context.Context, *rest.Request) (any, error) {
			return rest.Reply{Status: 201, Body: map[string]string{"a": "<&>"}}, nil
		})
		m.HandleFunc("GET", "/apis/fail", "things.v1.fail", func(context.Context, *rest.Request) (any, error) {
			return nil, fault.New(fault.NotFound, "nope")
		}, rest.Errors(func(w http.ResponseWriter, _ *http.Request, f *rest.Failure) {
			w.WriteHeader(f.HTTP)
			fmt.Fprintf(w, `{"kind":"Status","reason":%q}`, f.Code)
		}))
	})
	rows := []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/apis/g/things/a/b%2Fc", `{"size":"12"}`, 200, `{"name":"g:a/b%2Fc:me","size":"12"}`},
		{"POST", "/apis/g/things/a?dryRun=1&alt=json", ``, 200, `{"name":"g:a:me"}`},
		{"POST", "/apis/g/things/a?fields=size", `{"size":"12"}`, 200, `{"size":"12"}`},
		{"POST", "/apis/g/things/a", `{"size":"12","more":1}`, 400, `{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \"more\": Cannot find field."…`},
		{"POST", "/apis/g/things/a?x=1", ``, 400, `{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \"x\": Cannot bind query parameter. Field 'x' could not be found in request message."…`},
		{"POST", "/apis/g/things/a", `{"name":1}`, 400, `{"error":{"code":400,"message":"name: Invalid value: a JSON number at offset 9 does not fit."…`},
		{"POST", "/apis/g/things/a", `{"name":"x"}}`, 400, `{"error":{"code":400,"message":"Invalid JSON payload received. Something follows…`},
		{"POST", "/apis/g/things/a", `null`, 400, `{"error":{"code":400…`},
		{"POST", "/apis/g/things/a", strings.Repeat(" ",
			101), 400, `{"error":{"code":400,"message":"Request payload size exceeds the limit: 100 bytes."…`},
		{"GET", "/apis/raw", "", 206, "bytes"},
		{"POST", "/apis/reply", "", 201, `{"a":"<&>"}`},
		{"GET", "/apis/fail", "", 404, `{"kind":"Status","reason":"NOT_FOUND"}`},
	}
	for _, row := range rows {
		res, body := h.do(t, row.method, row.path, row.body)
		got := compact(body)
		want, prefix := strings.CutSuffix(row.want, "…")
		if res.StatusCode != row.status || prefix && !strings.HasPrefix(got, want) || !prefix && got != want {
			t.Errorf("%s %s %s:\n got %d %s\nwant %d %s", row.method, row.path, row.body, res.StatusCode, got,
				row.status, row.want)
		}
	}
}

func TestBuildFindsMistakes(t *testing.T) {
	ok := func(context.Context, *rest.Request) (any, error) { return nil, nil }
	rows := map[string]struct {
		add  func(*rest.Mux)
		want string
	}{
		"two bindings match the same": {func(m *rest.Mux) {
			m.HandleFunc("GET", "/v1/{a=x/*}:go", "one", ok)
			m.HandleFunc("GET", "/v1/x/{b}:go", "two", ok)
		}, "match the same requests"},
		"a bad template": {func(m *rest.Mux) { m.HandleFunc("GET", "/v1/{a=x/*", "one", ok) }, "open brace"},
		"binding without RPC": {func(m *rest.Mux) {
			m.Bind("/a.B/C",
				rest.HTTPRule{Method: "GET", Pattern: "/x"})
		}, "not registered"},
		"no such field": {func(m *rest.Mux) {
			longrunningpb.RegisterOperationsServer(m, operations{})
			m.Bind("/google.longrunning.Operations/GetOperation", rest.HTTPRule{Method: "GET", Pattern: "/v1/{id}"})
		}, `no field "id"`},
		"registered twice": {func(m *rest.Mux) {
			longrunningpb.RegisterOperationsServer(m, operations{})
			longrunningpb.RegisterOperationsServer(m, operations{})
		}, "registered twice"},
		"wrong implementation": {func(m *rest.Mux) {
			m.RegisterService(&longrunningpb.Operations_ServiceDesc,
				3)
		}, "does not implement"},
	}
	for name, row := range rows {
		m := rest.NewMux("h", rest.Options{NewID: func() string { return "" }})
		row.add(m)
		if err := m.Build(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRoutesListEveryRPC(t *testing.T) {
	h := serve(t, nil)
	rpcs := map[string]bool{}
	for _, r := range h.mux.Routes() {
		rpcs[r.RPC] = true
	}
	for _, m := range artifactregistrypb.ArtifactRegistry_ServiceDesc.Methods {
		if !rpcs["/google.devtools.artifactregistry.v1.ArtifactRegistry/"+m.MethodName] {
			t.Errorf("%s is missing", m.MethodName)
		}
	}
	if !rpcs["/google.longrunning.Operations/WaitOperation"] {
		t.Error("an RPC without REST binding is missing")
	}
}
