package cloud

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"giggle/iam"
	"giggle/rest"
)

// flood is a body without an end that counts what is read of it.
type flood struct{ read int64 }

func (f *flood) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '['
	}
	f.read += int64(len(p))
	return len(p), nil
}

// Without a credential nobody makes the platform read: of a body without an end, sent to every route, not a byte is
// taken where the route needs a caller, and a bounded number where a secret or a signature stands in for one. What was
// read isn't kept.
func TestNothingIsReadWithoutACredential(t *testing.T) {
	c := newCloud(t)
	all := muxes(t, c)
	routes, open := 0, 0
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, a := range c.apis() {
		for _, r := range all[a.host].Routes() {
			rule, ok := a.rules[r.RPC]
			if r.Method == "GET" || r.Method == "DELETE" {
				continue
			}
			for _, token := range []string{"", "ya29.garbage"} {
				body := &flood{}
				var req *http.Request
				if r.Method == "" { // only gRPC reaches it
					if r.Stream {
						continue
					}
					req = httptest.NewRequest("POST", "https://"+a.host+r.RPC, body)
					req.ProtoMajor, req.ProtoMinor = 2, 0
					req.Header.Set("Content-Type", "application/grpc")
				} else {
					x := example{project: "giggle", bucket: "a-bucket", account: "a@giggle.iam.gserviceaccount.com"}
					req = httptest.NewRequest(r.Method, "https://"+a.host+x.path(r.Pattern, rule.On), body)
				}
				req.Host = "europe-north1-" + a.host
				if token != "" {
					req.Header.Set("Authorization", "Bearer "+token)
				}
				w := httptest.NewRecorder()
				all[a.host].ServeHTTP(w, req)
				routes++
				switch {
				case !ok:
					t.Errorf("%s has no rule", r.RPC)
				case rule.Open:
					open++
					if body.read > 0 {
						t.Errorf("%s %s read %d bytes of a caller who knows no secret", r.Method, r.Pattern, body.read)
					}
				case body.read > 0:
					t.Errorf("%s %s %s read %d bytes of nobody's", a.host, r.Method, r.Pattern, body.read)
				}
				if w.Code < 400 && w.Header().Get("Grpc-Status") == "" {
					t.Errorf("%s %s answers nobody with %d", r.Method, r.Pattern, w.Code)
				}
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 20<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if routes < 150 || open < 4 {
		t.Errorf("only %d routes were tried, %d of them open", routes, open)
	}
}

// A caller without permission makes nobody decode: where the path or the query says what the call is about, it is
// refused before a byte of the body is read, and else after a megabyte at most.
func TestLittleIsReadWithoutPermission(t *testing.T) {
	c := newCloud(t)
	all := muxes(t, c)
	token, _, err := c.identity.AccessTokenFor(iam.User("stranger@giggle.test"), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	early := 0
	for _, a := range c.apis() {
		for _, r := range all[a.host].Routes() {
			rule := a.rules[r.RPC]
			if r.Method == "" || r.Method == "GET" || r.Method == "DELETE" || rule.Permission == "" {
				continue
			}
			x := example{project: "giggle", bucket: "a-bucket", account: "a@giggle.iam.gserviceaccount.com"}
			body := &flood{}
			req := httptest.NewRequest(r.Method, "https://"+a.host+x.path(r.Pattern, rule.On), body)
			req.Host = "europe-north1-" + a.host
			req.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			all[a.host].ServeHTTP(w, req)
			if w.Code < 400 || body.read > rest.DefaultMaxBody+64<<10 {
				t.Errorf("%s %s: %d after %d bytes", r.Method, r.Pattern, w.Code, body.read)
			}
			if body.read == 0 {
				early++
			}
		}
	}
	if early < 60 {
		t.Errorf("only %d routes refused before the body", early)
	}
}

// A body of many small parts is refused before it is decoded, whoever sends it and over either wire.
func TestManyPartsAreNotDecoded(t *testing.T) {
	c := newCloud(t)
	m := muxes(t, c)["cloudbuild.googleapis.com"]
	token, _, err := c.identity.AccessTokenFor(c.identity.Owner(), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	const parts = 200_000
	text := `{"steps":[` + strings.Repeat("{},", parts) + `{}]}`
	raw := []byte(strings.Repeat("\x5a\x00", parts)) // Build.steps is field 11
	build := append([]byte{0x12}, binary.AppendUvarint(nil, uint64(len(raw)))...)
	raw = append(build, raw...) // CreateBuildRequest.build is field 2
	frame := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(raw)))...)
	for name, req := range map[string]*http.Request{
		"REST": httptest.NewRequest("POST", "https://cloudbuild.googleapis.com/v1/projects/giggle/builds",
			strings.NewReader(text)),
		"gRPC": httptest.NewRequest("POST",
			"https://cloudbuild.googleapis.com/google.devtools.cloudbuild.v1.CloudBuild/CreateBuild",
			strings.NewReader(string(append(frame, raw...)))),
	} {
		t.Run(name, func(t *testing.T) {
			req.Header.Set("Authorization", "Bearer "+token)
			if name == "gRPC" {
				req.Header.Set("Content-Type", "application/grpc")
				req.Header.Set("Te", "trailers")
				req.ProtoMajor, req.ProtoMinor = 2, 0
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			w := httptest.NewRecorder()
			m.ServeHTTP(w, req)
			runtime.ReadMemStats(&after)
			res := w.Result()
			said := w.Body.String() + res.Header.Get("Grpc-Message") + res.Trailer.Get("Grpc-Message")
			if !strings.Contains(said, fmt.Sprintf("more than %d values", 100_000)) {
				t.Errorf("%d: %.300s", w.Code, said)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
				t.Errorf("the refusal took %d bytes", took)
			}
		})
	}
}
