package runv2_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	runapi "cloud.google.com/go/run/apiv2"
	"cloud.google.com/go/run/apiv2/runpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"giggle/api/runv1"
	"giggle/api/runv2"
	"giggle/fault"
	"giggle/iam"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
	"giggle/run"
	"giggle/store"
)

// cloud is both versions of the API over a real store and reconciler. Images are fakes that work; containers of the
// image "broken" do not start.
type cloud struct {
	server *httptest.Server
	denied string // service account that nobody may act as
}

func (c *cloud) Resolve(_ context.Context, _, ref string) (string, error) {
	name, _, _ := strings.Cut(ref, ":")
	return name + "@sha256:" + strings.Repeat("0", 64), nil
}

func (c *cloud) EnsureInstance(_ context.Context, r run.Revision) error {
	if r.Template.Containers[0].Image != "broken" {
		return nil
	}
	e := fault.New(fault.FailedPrecondition, "The user-provided container failed to start.")
	e.Reason = "HealthCheckContainerError"
	return e
}
func (c *cloud) Drop(resource.Revision) {}
func (c *cloud) Publish(run.Route)      {}
func (c *cloud) Remove(resource.Child)  {}

func (c *cloud) CheckActAs(_ context.Context, _ iam.Principal, _ resource.Project, email string) error {
	if email != "" && email == c.denied {
		return fault.New(fault.PermissionDenied,
			"Permission 'iam.serviceaccounts.actAs' denied on service account %s (or it may not exist).", email)
	}
	return nil
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := iam.New(t.Context(), iam.Config{
		Store: st, Owner: "you@giggle.test", Now: time.Now,
		Governed: []iam.Governed{{Collection: "services", Kind: run.ServiceKind}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	services := run.NewServices(run.Config{
		Store:   st,
		NewID:   func() string { n++; return fmt.Sprintf("uid-%d", n) },
		Letters: func(k int) string { return strings.Repeat("x", k) },

		DefaultAccount: computeAccount,
	})
	project := func(ref string) (resource.Project, error) {
		if ref != "giggle" && ref != "123456789012" {
			return resource.Project{}, fault.New(fault.NotFound, "Project %q was not found.", ref)
		}
		return resource.Project{ID: "giggle", Number: "123456789012"}, nil
	}
	c := &cloud{denied: "denied@giggle.iam.gserviceaccount.com"}
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run.NewReconciler(run.ReconcilerConfig{
			Services:  services,
			Images:    c,
			Instances: c,
			Routes:    c,
			Project:   project,
			Log:       log,
		}).Run(ctx)
	}()
	m := rest.NewMux("run.googleapis.com", rest.Options{Log: log, NewID: func() string { return "request-1" }})
	operations, pages := operation.New(st), resource.NewPages(ids.PageKey(), time.Now)
	runv1.New(runv1.Config{
		Services:   services,
		Operations: operations,
		Project:    project,
		ActAs:      c.CheckActAs,
		Policies:   ids,
		Pages:      pages,
	}).Register(m)
	runv2.New(runv2.Config{
		Services:   services,
		Operations: operations,
		Project:    project,
		ActAs:      c.CheckActAs,
		Policies:   ids,
		Pages:      pages,
	}).Register(m)
	if err := m.Build(); err != nil {
		t.Fatal(err)
	}
	c.server = httptest.NewUnstartedServer(m)
	c.server.Config.Protocols = new(http.Protocols)
	c.server.Config.Protocols.SetHTTP1(true)
	c.server.Config.Protocols.SetUnencryptedHTTP2(true) // for gRPC
	c.server.Start()
	t.Cleanup(func() {
		c.server.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = st.Close()
	})
	return c
}

// clients are Google's own, over one of the two protocols.
type clients struct {
	services  *runapi.ServicesClient
	revisions *runapi.RevisionsClient
}

func (c *cloud) clients(t *testing.T, overGRPC bool) clients {
	t.Helper()
	opts := []option.ClientOption{option.WithoutAuthentication(), option.WithEndpoint(c.server.URL)}
	newServices, newRevisions := runapi.NewServicesRESTClient, runapi.NewRevisionsRESTClient
	if overGRPC {
		newServices, newRevisions = runapi.NewServicesClient, runapi.NewRevisionsClient
		opts = []option.ClientOption{
			option.WithoutAuthentication(), option.WithEndpoint(strings.TrimPrefix(c.server.URL, "http://")),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		}
	}
	services, err := newServices(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	revisions, err := newRevisions(t.Context(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = services.Close(), revisions.Close()
	})
	return clients{services, revisions}
}

const (
	location = "projects/giggle/locations/europe-north1"
	hello    = location + "/services/hello"
)

// full is a service with every field that is implemented.
func full() *runpb.Service {
	return &runpb.Service{
		Labels:          map[string]string{"team": "a"},
		Annotations:     map[string]string{"example.com/note": "x"},
		Description:     "says hello",
		Client:          "test",
		ClientVersion:   "1",
		CustomAudiences: []string{"https://hello.example.com"},
		Scaling:         &runpb.ServiceScaling{MinInstanceCount: 1, MaxInstanceCount: 7},
		Template: &runpb.RevisionTemplate{
			Labels:                        map[string]string{"of": "template"},
			Annotations:                   map[string]string{"example.com/note": "y"},
			Timeout:                       durationpb.New(time.Minute),
			ServiceAccount:                "app@giggle.iam.gserviceaccount.com",
			MaxInstanceRequestConcurrency: 5,
			Scaling:                       &runpb.RevisionScaling{MaxInstanceCount: 3},
			ExecutionEnvironment:          runpb.ExecutionEnvironment_EXECUTION_ENVIRONMENT_GEN2,
			Containers: []*runpb.Container{{
				Name:       "main",
				Image:      "image:v1",
				Command:    []string{"/app"},
				Args:       []string{"-v"},
				WorkingDir: "/srv",
				Env:        []*runpb.EnvVar{{Name: "A", Values: &runpb.EnvVar_Value{Value: "1"}}},
				Ports:      []*runpb.ContainerPort{{Name: "h2c", ContainerPort: 9000}},
				Resources: &runpb.ResourceRequirements{Limits: map[string]string{"cpu": "2",
					"memory": "1Gi"}, CpuIdle: true, StartupCpuBoost: true},
				StartupProbe: &runpb.Probe{
					TimeoutSeconds:   2,
					PeriodSeconds:    3,
					FailureThreshold: 4,
					ProbeType: &runpb.Probe_HttpGet{HttpGet: &runpb.HTTPGetAction{
						Path: "/ready", Port: 9000, HttpHeaders: []*runpb.HTTPHeader{{Name: "X", Value: "y"}},
					}},
				},
				LivenessProbe: &runpb.Probe{
					TimeoutSeconds:   2,
					PeriodSeconds:    11,
					FailureThreshold: 4,
					ProbeType:        &runpb.Probe_Grpc{Grpc: &runpb.GRPCAction{Port: 9000, Service: "s"}},
				},
			}},
		},
		Traffic: []*runpb.TrafficTarget{
			{Type: runpb.TrafficTargetAllocationType_TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST, Percent: 100},
			{Type: runpb.TrafficTargetAllocationType_TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST, Tag: "next"},
		},
	}
}

// plain is the least that makes a service.
func plain(image string) *runpb.Service {
	return &runpb.Service{Template: &runpb.RevisionTemplate{Containers: []*runpb.Container{{Image: image}}}}
}

// wanted is what of a service its user wrote.
func wanted(s *runpb.Service) *runpb.Service {
	out := &runpb.Service{
		Labels:          s.GetLabels(),
		Annotations:     s.GetAnnotations(),
		Description:     s.GetDescription(),
		Client:          s.GetClient(),
		ClientVersion:   s.GetClientVersion(),
		CustomAudiences: s.GetCustomAudiences(),
		Scaling:         s.GetScaling(),
		Template:        s.GetTemplate(),
		Traffic:         s.GetTraffic(),
	}
	return proto.CloneOf(out)
}

// The life of a service with Google's own client, over REST and over gRPC.
func TestLifeOfAService(t *testing.T) {
	for name, overGRPC := range map[string]bool{"REST": false, "gRPC": true} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t).clients(t, overGRPC)
			ctx := t.Context()
			op, err := c.services.CreateService(ctx,
				&runpb.CreateServiceRequest{Parent: location, ServiceId: "hello", Service: full()})
			if err != nil {
				t.Fatal(err)
			}
			made, err := op.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(full(), wanted(made), protocmp.Transform()); diff != "" {
				t.Errorf("what was made is not what was wanted (-want +got):\n%s", diff)
			}
			if made.GetName() != hello || made.GetReconciling() ||
				made.GetTerminalCondition().GetState() != runpb.Condition_CONDITION_SUCCEEDED ||
				made.GetLatestReadyRevision() != hello+"/revisions/hello-00001-xxx" ||
				!strings.HasPrefix(made.GetUri(), "https://hello-") || len(made.GetUrls()) != 2 ||
				len(made.GetTrafficStatuses()) != 2 || made.GetUid() == "" || made.GetEtag() == "" {
				t.Errorf("made: %v", made)
			}

			// Written as it was read, it stays as it is, with the revision that it has.
			up, err := c.services.UpdateService(ctx, &runpb.UpdateServiceRequest{Service: made})
			if err != nil {
				t.Fatal(err)
			}
			same, err := up.Wait(ctx)
			if err != nil || same.GetGeneration() != 1 ||
				same.GetLatestCreatedRevision() != made.GetLatestCreatedRevision() {
				t.Errorf("the same written again: %v, %v", same, err)
			}

			// Fields of a mask only, under the etag's lock.
			change := &runpb.Service{
				Name:        hello,
				Etag:        same.GetEtag(),
				Description: "not in the mask",
				Labels:      map[string]string{"team": "b"},
				Template: &runpb.RevisionTemplate{
					Timeout: durationpb.New(2 * time.Minute),
				},
			}
			up, err = c.services.UpdateService(ctx, &runpb.UpdateServiceRequest{
				Service:    change,
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels", "template.timeout"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			changed, err := up.Wait(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if changed.GetDescription() != "says hello" || changed.GetLabels()["team"] != "b" ||
				changed.GetTemplate().GetTimeout().GetSeconds() != 120 ||
				len(changed.GetTemplate().GetContainers()) != 1 ||
				changed.GetLatestReadyRevision() != hello+"/revisions/hello-00002-xxx" {
				t.Errorf("changed: %v", changed)
			}
			if _, err := c.services.UpdateService(ctx, &runpb.UpdateServiceRequest{Service: change}); err == nil {
				t.Error("a write under an old etag succeeded")
			}

			var names []string
			revs := c.revisions.ListRevisions(ctx, &runpb.ListRevisionsRequest{Parent: hello, PageSize: 1})
			for {
				r, err := revs.Next()
				if errors.Is(err, iterator.Done) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, r.GetName())
			}
			if diff := cmp.Diff([]string{hello + "/revisions/hello-00002-xxx", hello + "/revisions/hello-00001-xxx"},
				names); diff != "" {
				t.Error(diff)
			}
			rev, err := c.revisions.GetRevision(ctx, &runpb.GetRevisionRequest{Name: names[1]})
			if err != nil || rev.GetService() != "hello" || rev.GetTimeout().GetSeconds() != 60 ||
				!strings.Contains(rev.GetContainers()[0].GetImage(), "@sha256:") {
				t.Errorf("revision: %v, %v", rev, err)
			}
			gone, err := c.revisions.DeleteRevision(ctx, &runpb.DeleteRevisionRequest{Name: names[1]})
			if err != nil {
				t.Fatal(err)
			}
			if was, err := gone.Wait(ctx); err != nil || was.GetName() != names[1] || was.GetDeleteTime() == nil {
				t.Errorf("deleted: %v, %v", was, err)
			}
			if _, err := c.revisions.DeleteRevision(ctx, &runpb.DeleteRevisionRequest{Name: names[0]}); err == nil {
				t.Error("the revision that has the traffic was deleted")
			}

			policy, err := c.services.SetIamPolicy(ctx, &iampb.SetIamPolicyRequest{
				Resource: hello,
				Policy: &iampb.Policy{
					Bindings: []*iampb.Binding{{Role: "roles/run.invoker", Members: []string{"allUsers"}}},
				},
			})
			if err != nil || len(policy.GetBindings()) != 1 {
				t.Errorf("policy: %v, %v", policy, err)
			}
			del, err := c.services.DeleteService(ctx, &runpb.DeleteServiceRequest{Name: hello})
			if err != nil {
				t.Fatal(err)
			}
			if was, err := del.Wait(ctx); err != nil || was.GetName() != hello || was.GetDeleteTime() == nil {
				t.Errorf("deleted: %v, %v", was, err)
			}
			if again := c.services.DeleteServiceOperation(del.Name()); again == nil {
				t.Error("the operation of a deletion has no name")
			} else if was, err := again.Wait(ctx); err != nil || was.GetName() != hello {
				t.Errorf("the operation, asked for: %v, %v", was, err)
			}
			if _, err := c.services.GetService(ctx, &runpb.GetServiceRequest{Name: hello}); err == nil {
				t.Error("it is still there")
			}
		})
	}
}

// A revision that does not start makes the operation fail, with the reason.
func TestAFailedDeploy(t *testing.T) {
	c := newCloud(t).clients(t, false)
	op, err := c.services.CreateService(t.Context(),
		&runpb.CreateServiceRequest{Parent: location, ServiceId: "hello", Service: plain("broken")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := op.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "failed to start") {
		t.Errorf("the operation ended with %v", err)
	}
	have, err := c.services.GetService(t.Context(), &runpb.GetServiceRequest{Name: hello})
	if err != nil || have.GetTerminalCondition().GetState() != runpb.Condition_CONDITION_FAILED {
		t.Fatalf("%v, %v", have, err)
	}
	rev, err := c.revisions.GetRevision(t.Context(), &runpb.GetRevisionRequest{Name: have.GetLatestCreatedRevision()})
	if err != nil || rev.GetConditions()[0].GetRevisionReason() != runpb.Condition_HEALTH_CHECK_CONTAINER_ERROR {
		t.Errorf("%v, %v", rev, err)
	}
}

// AllowMissing makes what is not there; ValidateOnly writes nothing.
func TestAllowMissingAndValidateOnly(t *testing.T) {
	c := newCloud(t).clients(t, true)
	ctx := t.Context()
	want := plain("image")
	want.Name = hello
	if _, err := c.services.UpdateService(ctx, &runpb.UpdateServiceRequest{Service: want}); err == nil {
		t.Error("a service that is not there was updated")
	}
	if _, err := c.services.UpdateService(ctx,
		&runpb.UpdateServiceRequest{Service: want, AllowMissing: true, ValidateOnly: true}); err != nil {
		t.Error(err)
	}
	if _, err := c.services.GetService(ctx, &runpb.GetServiceRequest{Name: hello}); err == nil {
		t.Error("a validation made the service")
	}
	op, err := c.services.UpdateService(ctx, &runpb.UpdateServiceRequest{Service: want, AllowMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	if made, err := op.Wait(ctx); err != nil || made.GetTemplate().GetMaxInstanceRequestConcurrency() != 80 {
		t.Errorf("%v, %v", made, err)
	}
}

// What is not implemented or can't be is refused by its path, and nothing is made.
func TestRefusedFields(t *testing.T) {
	w := newCloud(t)
	c := w.clients(t, false)
	container := func(change func(*runpb.Container)) func(*runpb.Service) {
		return func(s *runpb.Service) { change(s.Template.Containers[0]) }
	}
	for path, change := range map[string]func(*runpb.Service){
		"binaryAuthorization":          func(s *runpb.Service) { s.BinaryAuthorization = &runpb.BinaryAuthorization{} },
		"defaultUriDisabled":           func(s *runpb.Service) { s.DefaultUriDisabled = true },
		"iapEnabled":                   func(s *runpb.Service) { s.IapEnabled = true },
		"scaling.scalingMode":          func(s *runpb.Service) { s.Scaling = &runpb.ServiceScaling{ScalingMode: runpb.ServiceScaling_MANUAL} },
		"scaling.manualInstanceCount":  func(s *runpb.Service) { s.Scaling = &runpb.ServiceScaling{ManualInstanceCount: proto.Int32(1)} },
		"template.vpcAccess.connector": func(s *runpb.Service) { s.Template.VpcAccess = &runpb.VpcAccess{Connector: "c"} },
		"template.vpcAccess.networkInterfaces": func(s *runpb.Service) {
			s.Template.VpcAccess = &runpb.VpcAccess{NetworkInterfaces: []*runpb.VpcAccess_NetworkInterface{{}}}
		},
		"template.volumes":         func(s *runpb.Service) { s.Template.Volumes = []*runpb.Volume{{Name: "v"}} },
		"template.sessionAffinity": func(s *runpb.Service) { s.Template.SessionAffinity = true },
		"template.encryptionKey":   func(s *runpb.Service) { s.Template.EncryptionKey = "k" },
		"template.timeout":         func(s *runpb.Service) { s.Template.Timeout = durationpb.New(1500 * time.Millisecond) },
		"template.revision":        func(s *runpb.Service) { s.Template.Revision = "other-1" },
		"template.scaling.maxInstanceCount": func(s *runpb.Service) {
			s.Template.Scaling = &runpb.RevisionScaling{MaxInstanceCount: 5000}
		},
		"template.maxInstanceRequestConcurrency": func(s *runpb.Service) { s.Template.MaxInstanceRequestConcurrency = 1001 },
		"template.containers[1]": func(s *runpb.Service) {
			s.Template.Containers = append(s.Template.Containers, &runpb.Container{Image: "x"})
		},
		"template.containers[0].volumeMounts": container(func(c *runpb.Container) {
			c.VolumeMounts = []*runpb.VolumeMount{{
				Name: "v",
			}}
		}),
		"template.containers[0].dependsOn": container(func(c *runpb.Container) { c.DependsOn = []string{"x"} }),
		"template.containers[0].env[0].valueSource": container(func(c *runpb.Container) {
			c.Env = []*runpb.EnvVar{{Name: "A", Values: &runpb.EnvVar_ValueSource{ValueSource: &runpb.EnvVarSource{}}}}
		}),
		"template.containers[0].resources.limits[nvidia.com/gpu]": container(func(c *runpb.Container) {
			c.Resources = &runpb.ResourceRequirements{Limits: map[string]string{"nvidia.com/gpu": "2"}}
		}),
		"template.containers[0].resources.limits.memory": container(func(c *runpb.Container) {
			c.Resources = &runpb.ResourceRequirements{Limits: map[string]string{"memory": "1Ti"}}
		}),
		"template.containers[0].resources.cpuIdle: ": func(s *runpb.Service) {
			s.Template.Containers[0].Resources = &runpb.ResourceRequirements{
				Limits: map[string]string{"nvidia.com/gpu": "1", "cpu": "4", "memory": "16Gi"}, CpuIdle: true,
			}
		},
		"template.nodeSelector.accelerator: ": func(s *runpb.Service) { s.Template.NodeSelector = &runpb.NodeSelector{Accelerator: "x"} },
		"template.containers[0].env[1].name: ": container(func(c *runpb.Container) {
			c.Env = []*runpb.EnvVar{{Name: "A"}, {Name: "PORT"}}
		}),
		"template.containers[0].startupProbe.failureThreshold: ": container(func(c *runpb.Container) {
			c.StartupProbe = &runpb.Probe{PeriodSeconds: 120, FailureThreshold: 3}
		}),
		"scaling.minInstanceCount: ": func(s *runpb.Service) { s.Scaling = &runpb.ServiceScaling{MinInstanceCount: -1} },
		"traffic[1].percent: ": func(s *runpb.Service) {
			s.Traffic = []*runpb.TrafficTarget{{
				Percent: 50,
			}, {Percent: 101}}
		},
		"template.labels: ": func(s *runpb.Service) {
			s.Template.Labels = map[string]string{"a": strings.Repeat("b", 64)}
		},
		"template.containers[0].image": container(func(c *runpb.Container) { c.Image = "" }),
		"traffic[0].revision": func(s *runpb.Service) {
			s.Traffic = []*runpb.TrafficTarget{{
				Type:     runpb.TrafficTargetAllocationType_TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST,
				Revision: "x",
				Percent:  100,
			}}
		},
		"traffic":     func(s *runpb.Service) { s.Traffic = []*runpb.TrafficTarget{{Percent: 50}} },
		"labels":      func(s *runpb.Service) { s.Labels = map[string]string{"run.googleapis.com/x": "y"} },
		"annotations": func(s *runpb.Service) { s.Annotations = map[string]string{"run.googleapis.com/ingress": "all"} },
		"etag":        func(s *runpb.Service) { s.Etag = "mine" },
		"actAs":       func(s *runpb.Service) { s.Template.ServiceAccount = w.denied },
	} {
		s := plain("image")
		change(s)
		if _, err := c.services.CreateService(t.Context(),
			&runpb.CreateServiceRequest{Parent: location, ServiceId: "hello", Service: s}); err == nil ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, id := range []string{"", "UPPER", strings.Repeat("a", 64)} {
		if _, err := c.services.CreateService(t.Context(),
			&runpb.CreateServiceRequest{Parent: location, ServiceId: id, Service: plain("image")}); err == nil ||
			!strings.Contains(err.Error(), "serviceId") {
			t.Errorf("%q: %v", id, err)
		}
	}
	if s, err := c.services.ListServices(t.Context(),
		&runpb.ListServicesRequest{Parent: location}).Next(); !errors.Is(err, iterator.Done) {
		t.Errorf("a refused service was made: %v, %v", s, err)
	}
}

// Both versions show one service: what v1 wrote comes back through v2's read and write with nothing lost and no new
// revision.
func TestV1ThroughV2(t *testing.T) {
	w := newCloud(t)
	c := w.clients(t, false)
	const path = "/v1/" + hello
	call := func(method, path, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, w.server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text := readAll(t, res)
		if res.StatusCode != 200 {
			t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, text)
		}
		return text
	}
	call("POST", "/v1/"+location+"/services",
		`{"apiVersion":"serving.knative.dev/v1","kind":"Service","metadata":{"name":"hello","annotations":{
		"run.googleapis.com/build-id":"b-1","run.googleapis.com/client-name":"gcloud","run.googleapis.com/minScale":"1","example.com/a":"b"}},
		"spec":{"template":{"metadata":{"labels":{"client.knative.dev/nonce":"n0nce"},"annotations":{"autoscaling.knative.dev/maxScale":"4","run.googleapis.com/startup-cpu-boost":"true","run.googleapis.com/vpc-access-egress":"private-ranges-only","run.googleapis.com/network-interfaces":"[{\"network\":\"default\",\"tags\":[\"t\"]}]","client.knative.dev/user-image":"image:v1"}},
		"spec":{"containers":[{"image":"image:v1","env":[{"name":"A","value":"1"}],"livenessProbe":{"httpGet":{"path":"/live"}}}]}}}}`)
	have, err := c.services.UpdateServiceOperation(latest(t, call, "/v1/"+location+"/operations")).Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := call("GET", path, "")
	have.Description = "changed by v2"
	op, err := c.services.UpdateService(t.Context(), &runpb.UpdateServiceRequest{Service: have})
	if err != nil {
		t.Fatal(err)
	}
	now, err := op.Wait(t.Context())
	if err != nil || now.GetLatestCreatedRevision() != have.GetLatestCreatedRevision() {
		t.Errorf("a new description made a new revision: %v, %v", now, err)
	}
	after := call("GET", path, "")
	for _, kept := range []string{
		`"run.googleapis.com/build-id":"b-1"`, `"run.googleapis.com/minScale":"1"`,
		`"autoscaling.knative.dev/maxScale":"4"`,
		`"run.googleapis.com/vpc-access-egress":"private-ranges-only"`,
		`"run.googleapis.com/network-interfaces":"[{\"network\":\"default\",\"tags\":[\"t\"]}]"`, `"client.knative.dev/user-image":"image:v1"`,
		`"run.googleapis.com/startup-cpu-boost":"true"`, `"example.com/a":"b"`, `"livenessProbe"`,
		`"client.knative.dev/nonce":"n0nce"`,
	} {
		if !strings.Contains(flat(before), kept) || !strings.Contains(flat(after), kept) {
			t.Errorf("%s: before %s\nafter %s", kept, before, after)
		}
	}
	if !strings.Contains(after, "changed by v2") {
		t.Errorf("v1 does not show the change: %s", after)
	}
}

// computeAccount is the default service account of every project.
func computeAccount(string) (string, error) {
	return "123456789012-compute@developer.gserviceaccount.com", nil
}
