package runv2

import (
	"fmt"
	"strings"

	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/genproto/googleapis/api"
	"google.golang.org/protobuf/types/known/durationpb"

	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/run"
)

// fromEtag returns the version that an etag locks, 0 for none.
func fromEtag(etag string) (int64, error) {
	if etag == "" {
		return 0, nil
	}
	v, ok := resource.EtagVersion(strings.Trim(etag, `"`))
	if !ok {
		return 0, fault.Invalid("etag", "%.60q is not one that this API gave", etag)
	}
	return v, nil
}

// fromProto reads a service. It fails with the path of a field that can't be, or that is not implemented.
func fromProto(n resource.Child, w *runpb.Service) (run.Service, error) {
	s := run.Service{
		Name:               n,
		Labels:             w.GetLabels(),
		Annotations:        w.GetAnnotations(),
		Description:        w.GetDescription(),
		Client:             w.GetClient(),
		ClientVersion:      w.GetClientVersion(),
		InvokerIAMDisabled: w.GetInvokerIamDisabled(),
		CustomAudiences:    w.GetCustomAudiences(),
	}
	err := rest.Only(w, "", append([]string{
		"name", "description", "labels", "annotations", "client", "clientVersion", "ingress", "launchStage", "template",
		"traffic", "scaling",
		"invokerIamDisabled", "customAudiences", "etag",
	}, output...)...)
	if err != nil {
		return s, err
	}
	if s.Version, err = fromEtag(w.GetEtag()); err != nil {
		return s, err
	}
	if err := checkMaps(w.GetLabels(), w.GetAnnotations(), ""); err != nil {
		return s, err
	}
	if w.GetLaunchStage() != api.LaunchStage_LAUNCH_STAGE_UNSPECIFIED {
		s.LaunchStage = w.GetLaunchStage().String()
	}
	switch w.GetIngress() {
	case runpb.IngressTraffic_INGRESS_TRAFFIC_UNSPECIFIED, runpb.IngressTraffic_INGRESS_TRAFFIC_ALL:
		s.Ingress = run.IngressAll
	case runpb.IngressTraffic_INGRESS_TRAFFIC_INTERNAL_ONLY:
		s.Ingress = run.IngressInternal
	case runpb.IngressTraffic_INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER:
		s.Ingress = run.IngressInternalLoad
	default:
		return s, fault.NotImplemented("ingress", "%s is not implemented", w.GetIngress())
	}
	if err := rest.Only(w.GetScaling(), "scaling", "minInstanceCount", "maxInstanceCount", "scalingMode"); err != nil {
		return s, err
	}
	if m := w.GetScaling().GetScalingMode(); m == runpb.ServiceScaling_MANUAL {
		return s, fault.NotImplemented("scaling.scalingMode", "MANUAL is not implemented")
	}
	s.Scaling = run.Scaling{
		Min: int(w.GetScaling().GetMinInstanceCount()),
		Max: int(w.GetScaling().GetMaxInstanceCount()),
	}
	if s.Traffic, err = trafficFromProto(w.GetTraffic()); err != nil {
		return s, err
	}
	s.Template, err = templateFromProto(w.GetTemplate())
	s.Template.Client, s.Template.ClientVersion = s.Client, s.ClientVersion
	return s, err
}

// system reports whether a key of a label or an annotation belongs to the platform. v2 refuses those: "All system
// labels in v1 now have a corresponding field in v2".
func system(key string) bool {
	for _, domain := range []string{"run.googleapis.com", "cloud.googleapis.com", "serving.knative.dev",
		"autoscaling.knative.dev", "client.knative.dev"} {
		if strings.HasPrefix(key, domain+"/") {
			return true
		}
	}
	return false
}

// withSystem adds the platform's keys of before, which v2 does not show, to annotations.
func withSystem(now, before map[string]string) map[string]string {
	out := make(map[string]string)
	for k, v := range now {
		out[k] = v
	}
	for k, v := range before {
		if system(k) {
			out[k] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// userKeys are the keys that v2 shows.
func userKeys(m map[string]string) map[string]string {
	var out map[string]string
	for k, v := range m {
		if !system(k) {
			if out == nil {
				out = make(map[string]string)
			}
			out[k] = v
		}
	}
	return out
}

func checkMaps(labels, annotations map[string]string, path string) error {
	for field, m := range map[string]map[string]string{"labels": labels, "annotations": annotations} {
		for k := range m {
			// gcloud labels what it deploys with a nonce. v2 shows it, and so takes it back.
			if system(k) && (field != "labels" || !strings.HasPrefix(k, "client.knative.dev/")) {
				return fault.Invalid(path+field, "%.60q is a key of the platform; v2 has a field for it", k)
			}
		}
	}
	if len(annotations) > 64 {
		return fault.Invalid(path+"annotations", "more than 64 annotations")
	}
	for k, v := range annotations {
		if len(k) > 317 || len(v) > 64<<10 {
			return fault.Invalid(path+"annotations", "%.60q or its value is too long", k)
		}
	}
	return nil
}

func trafficFromProto(ts []*runpb.TrafficTarget) ([]run.Target, error) {
	var out []run.Target
	for i, t := range ts {
		to := run.Target{Revision: t.GetRevision(), Percent: int(t.GetPercent()), Tag: t.GetTag()}
		switch t.GetType() {
		case runpb.TrafficTargetAllocationType_TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST:
			to.Latest = true
		case runpb.TrafficTargetAllocationType_TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION:
		default:
			to.Latest = to.Revision == ""
		}
		if to.Latest && to.Revision != "" {
			return nil, fault.Invalid(fmt.Sprintf("traffic[%d].revision", i),
				"a target of the latest revision names none")
		}
		out = append(out, to)
	}
	return out, nil
}

// seconds reads a duration of whole seconds.
func seconds(d *durationpb.Duration, path string) (int, error) {
	if d == nil {
		return 0, nil
	}
	if d.GetNanos() != 0 || d.GetSeconds() < 0 || d.GetSeconds() > 1<<20 {
		return 0, fault.Invalid(path, "must be whole seconds")
	}
	return int(d.GetSeconds()), nil
}

func templateFromProto(w *runpb.RevisionTemplate) (run.Template, error) {
	t := run.Template{
		Revision:       w.GetRevision(),
		Labels:         w.GetLabels(),
		Annotations:    w.GetAnnotations(),
		ServiceAccount: w.GetServiceAccount(),
		Concurrency:    int(w.GetMaxInstanceRequestConcurrency()),

		StartupCPUBoost: run.DefaultCPUBoost,
	}
	err := rest.Only(w, "template", "revision", "labels", "annotations", "scaling", "timeout", "serviceAccount",
		"containers", "executionEnvironment",
		"maxInstanceRequestConcurrency", "nodeSelector", "gpuZonalRedundancyDisabled", "vpcAccess", "volumes")
	if err != nil {
		return t, err
	}
	if err := checkMaps(w.GetLabels(), w.GetAnnotations(), "template."); err != nil {
		return t, err
	}
	if t.Timeout, err = seconds(w.GetTimeout(), "template.timeout"); err != nil {
		return t, err
	}
	if err := rest.Only(w.GetScaling(), "template.scaling", "minInstanceCount", "maxInstanceCount"); err != nil {
		return t, err
	}
	t.Scaling = run.Scaling{
		Min: int(w.GetScaling().GetMinInstanceCount()),
		Max: int(w.GetScaling().GetMaxInstanceCount()),
	}
	switch w.GetExecutionEnvironment() {
	case runpb.ExecutionEnvironment_EXECUTION_ENVIRONMENT_GEN1:
		t.ExecutionEnvironment = "gen1"
	case runpb.ExecutionEnvironment_EXECUTION_ENVIRONMENT_GEN2:
		t.ExecutionEnvironment = "gen2"
	}
	t.GPUZonalRedundancyDisabled = w.GetGpuZonalRedundancyDisabled()
	if t.VPC, err = vpcFromProto(w.GetVpcAccess()); err != nil {
		return t, err
	}
	if a := w.GetNodeSelector().GetAccelerator(); a != "" {
		t.NodeSelector = map[string]string{run.Accelerator: a}
	}
	if t.CloudSQL, err = cloudSQLFromProto(w); err != nil {
		return t, err
	}
	for i, c := range w.GetContainers() {
		to, err := containerFromProto(c, i)
		if err != nil {
			return t, err
		}
		t.Containers = append(t.Containers, to)
		if r := c.GetResources(); r != nil && i == 0 {
			// "If ResourceRequirements is set, the caller must explicitly set this field to true to preserve the
			// default."
			t.CPUAlways, t.StartupCPUBoost = !r.GetCpuIdle(), r.GetStartupCpuBoost()
		}
	}
	return t, nil
}

func vpcFromProto(w *runpb.VpcAccess) (*run.VPCAccess, error) {
	if w == nil {
		return nil, nil
	}
	if w.GetConnector() != "" {
		return nil, run.NoConnector("template.vpcAccess.connector")
	}
	v := &run.VPCAccess{Egress: vpcEgress[w.GetEgress()]}
	for _, i := range w.GetNetworkInterfaces() {
		v.Interfaces = append(v.Interfaces, run.NetworkInterface{
			Network:    i.GetNetwork(),
			Subnetwork: i.GetSubnetwork(),
			Tags:       i.GetTags(),
		})
	}
	return v, nil
}

// vpcEgress is how v1 writes v2's values.
var vpcEgress = map[runpb.VpcAccess_VpcEgress]string{
	runpb.VpcAccess_ALL_TRAFFIC:         run.VPCAllTraffic,
	runpb.VpcAccess_PRIVATE_RANGES_ONLY: run.VPCPrivateRanges,
}

func vpcToProto(v *run.VPCAccess) *runpb.VpcAccess {
	if v == nil {
		return nil
	}
	w := &runpb.VpcAccess{}
	for value, text := range vpcEgress {
		if text == v.Egress {
			w.Egress = value
		}
	}
	for _, i := range v.Interfaces {
		w.NetworkInterfaces = append(w.NetworkInterfaces, &runpb.VpcAccess_NetworkInterface{
			Network:    i.Network,
			Subnetwork: i.Subnetwork,
			Tags:       i.Tags,
		})
	}
	return w
}

// cloudSQLFromProto reads the volume of databases' sockets, which is mounted in its one place, and there is no other
// kind of volume.
func cloudSQLFromProto(w *runpb.RevisionTemplate) (c run.CloudSQL, err error) {
	for i, v := range w.GetVolumes() {
		at := fmt.Sprintf("template.volumes[%d]", i)
		if err := rest.Only(v, at, "name", "cloudSqlInstance"); err != nil {
			return c, err
		}
		switch {
		case v.GetCloudSqlInstance() == nil:
			return c, fault.Invalid(at, "a volume needs a source")
		case i > 0:
			return c, fault.NotImplemented(at, "more than one volume is not implemented; name all databases in one")
		case v.GetName() == "":
			return c, fault.Invalid(at+".name", "is missing")
		case len(v.GetCloudSqlInstance().GetInstances()) == 0:
			return c, fault.Invalid(at+".cloudSqlInstance.instances", "names no database")
		}
		c = run.CloudSQL{Volume: v.GetName(), Instances: v.GetCloudSqlInstance().GetInstances()}
	}
	for i, container := range w.GetContainers() {
		for j, m := range container.GetVolumeMounts() {
			at := fmt.Sprintf("template.containers[%d].volumeMounts[%d]", i, j)
			if err := rest.Only(m, at, "name", "mountPath"); err != nil {
				return c, err
			}
			if m.GetName() != c.Volume || c.Volume == "" {
				return c, fault.Invalid(at+".name", "there is no volume %.80q", m.GetName())
			}
			if m.GetMountPath() != run.CloudSQLPath {
				return c, fault.Invalid(at+".mountPath", "databases are mounted at %s only", run.CloudSQLPath)
			}
			if j > 0 {
				return c, fault.Invalid(at, "%s is mounted twice", m.GetName())
			}
		}
		if c.Volume != "" && len(container.GetVolumeMounts()) == 0 {
			return c, fault.NotImplemented(fmt.Sprintf("template.containers[%d].volumeMounts", i),
				"a volume that is not mounted is not implemented; mount %s at %s", c.Volume, run.CloudSQLPath)
		}
	}
	if c.Volume == defaultVolume { // as the API v1 writes it, which knows no name
		c.Volume = ""
	}
	return c, nil
}

// defaultVolume is the name of the volume of databases that the API v1 has written.
const defaultVolume = "cloudsql"

func containerFromProto(w *runpb.Container, i int) (run.Container, error) {
	path := fmt.Sprintf("template.containers[%d]", i)
	c := run.Container{
		Name:       w.GetName(),
		Image:      w.GetImage(),
		Command:    w.GetCommand(),
		Args:       w.GetArgs(),
		WorkingDir: w.GetWorkingDir(),
	}
	err := rest.Only(w, path, "name", "image", "command", "args", "env", "resources", "ports", "workingDir",
		"livenessProbe", "startupProbe", "readinessProbe", "volumeMounts")
	if err != nil {
		return c, err
	}
	for j, e := range w.GetEnv() {
		if err := rest.Only(e, fmt.Sprintf("%s.env[%d]", path, j), "name", "value"); err != nil {
			return c, err
		}
		c.Env = append(c.Env, run.EnvVar{Name: e.GetName(), Value: e.GetValue()})
	}
	for key, v := range w.GetResources().GetLimits() {
		if err := c.SetLimit(i, key, v); err != nil {
			return c, fieldNames.Translate(err)
		}
	}
	if len(w.GetPorts()) > 1 {
		return c, fault.Invalid(path+".ports", "at most one port is allowed")
	}
	if len(w.GetPorts()) == 1 {
		c.Port, c.PortName = int(w.GetPorts()[0].GetContainerPort()), w.GetPorts()[0].GetName()
	}
	for _, x := range []struct {
		field string
		from  *runpb.Probe
		to    **run.Probe
	}{{"startupProbe", w.GetStartupProbe(), &c.Startup}, {"livenessProbe", w.GetLivenessProbe(), &c.Liveness},
		{"readinessProbe", w.GetReadinessProbe(), &c.Readiness}} {
		if *x.to, err = probeFromProto(x.from, path+"."+x.field); err != nil {
			return c, err
		}
	}
	return c, nil
}

func probeFromProto(w *runpb.Probe, path string) (*run.Probe, error) {
	if w == nil {
		return nil, nil
	}
	p := &run.Probe{
		InitialDelay:     int(w.GetInitialDelaySeconds()),
		Timeout:          int(w.GetTimeoutSeconds()),
		Period:           int(w.GetPeriodSeconds()),
		FailureThreshold: int(w.GetFailureThreshold()),
	}
	switch t := w.GetProbeType().(type) {
	case *runpb.Probe_HttpGet:
		p.HTTPPath, p.HTTPPort = t.HttpGet.GetPath(), int(t.HttpGet.GetPort())
		if p.HTTPPath == "" {
			p.HTTPPath = "/"
		}
		for _, h := range t.HttpGet.GetHttpHeaders() {
			p.HTTPHeaders = append(p.HTTPHeaders, run.Header{Name: h.GetName(), Value: h.GetValue()})
		}
	case *runpb.Probe_TcpSocket:
		p.TCPPort = int(t.TcpSocket.GetPort())
	case *runpb.Probe_Grpc:
		p.GRPC, p.GRPCPort, p.GRPCService = true, int(t.Grpc.GetPort()), t.Grpc.GetService()
	}
	return p, rest.Only(w, path, "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "failureThreshold",
		"httpGet", "tcpSocket", "grpc")
}
