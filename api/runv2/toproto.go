package runv2

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/genproto/googleapis/api"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/resource"
	"giggle/run"
)

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// toProto writes a service.
func toProto(s *run.Service, p resource.Project) *runpb.Service {
	hashed, numbered := run.URLs(p, s.Name)
	of := func(revision string) string {
		if revision == "" {
			return ""
		}
		return resource.Revision{Service: s.Name, ID: revision}.String()
	}
	w := &runpb.Service{
		Name:                  s.Name.String(),
		Description:           s.Description,
		Uid:                   s.UID,
		Generation:            s.Generation,
		Labels:                s.Labels,
		Annotations:           userKeys(s.Annotations),
		CreateTime:            stamp(s.Created),
		UpdateTime:            stamp(s.Updated),
		Creator:               s.Creator,
		LastModifier:          s.LastModifier,
		Client:                s.Client,
		ClientVersion:         s.ClientVersion,
		LaunchStage:           api.LaunchStage_GA,
		Template:              templateToProto(&s.Template),
		InvokerIamDisabled:    s.InvokerIAMDisabled,
		CustomAudiences:       s.CustomAudiences,
		Urls:                  []string{numbered, hashed},
		Uri:                   hashed,
		ObservedGeneration:    s.Status.ObservedGeneration,
		Reconciling:           !s.Settled(),
		LatestReadyRevision:   of(s.Status.LatestReady),
		LatestCreatedRevision: of(s.Status.LatestCreated),
		Etag:                  `"` + resource.Etag(s.Version) + `"`,
	}
	if stage, ok := api.LaunchStage_value[s.LaunchStage]; ok && s.LaunchStage != "" {
		w.LaunchStage = api.LaunchStage(stage)
	}
	switch s.Ingress {
	case run.IngressInternal:
		w.Ingress = runpb.IngressTraffic_INGRESS_TRAFFIC_INTERNAL_ONLY
	case run.IngressInternalLoad:
		w.Ingress = runpb.IngressTraffic_INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER
	default:
		w.Ingress = runpb.IngressTraffic_INGRESS_TRAFFIC_ALL
	}
	if s.Scaling != (run.Scaling{}) {
		w.Scaling = &runpb.ServiceScaling{
			MinInstanceCount: int32(s.Scaling.Min),
			MaxInstanceCount: int32(s.Scaling.Max),
		}
	}
	for _, t := range s.Traffic {
		w.Traffic = append(w.Traffic, &runpb.TrafficTarget{
			Type:     allocation(t),
			Revision: t.Revision,
			Percent:  int32(t.Percent),
			Tag:      t.Tag,
		})
	}
	for _, t := range s.Status.Traffic {
		target := t.Target
		if target.Latest {
			target.Revision = "" // v2 does not say which one that is
		}
		w.TrafficStatuses = append(w.TrafficStatuses, &runpb.TrafficTargetStatus{
			Type:     allocation(target),
			Revision: target.Revision,
			Percent:  int32(t.Percent),
			Tag:      t.Tag,
			Uri:      t.URL,
		})
	}
	for _, c := range conditionsToProto(s.Status.Conditions, false) {
		if c.GetType() == run.Ready {
			w.TerminalCondition = c
		} else {
			w.Conditions = append(w.Conditions, c)
		}
	}
	return w
}

func allocation(t run.Target) runpb.TrafficTargetAllocationType {
	if t.Latest {
		return runpb.TrafficTargetAllocationType_TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
	}
	return runpb.TrafficTargetAllocationType_TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
}

// templateToProto writes a template, which has Cloud Run's defaults in it.
func templateToProto(t *run.Template) *runpb.RevisionTemplate {
	w := &runpb.RevisionTemplate{
		Revision:                      t.Revision,
		Labels:                        t.Labels,
		Annotations:                   userKeys(t.Annotations),
		ServiceAccount:                t.ServiceAccount,
		Timeout:                       durationpb.New(time.Duration(t.Timeout) * time.Second),
		MaxInstanceRequestConcurrency: int32(t.Concurrency),
		Scaling: &runpb.RevisionScaling{
			MinInstanceCount: int32(t.Scaling.Min),
			MaxInstanceCount: int32(t.Scaling.Max),
		},
	}
	switch t.ExecutionEnvironment {
	case "gen1":
		w.ExecutionEnvironment = runpb.ExecutionEnvironment_EXECUTION_ENVIRONMENT_GEN1
	case "gen2":
		w.ExecutionEnvironment = runpb.ExecutionEnvironment_EXECUTION_ENVIRONMENT_GEN2
	}
	if a := t.NodeSelector[run.Accelerator]; a != "" {
		w.NodeSelector = &runpb.NodeSelector{Accelerator: a}
	}
	if t.GPUZonalRedundancyDisabled {
		w.GpuZonalRedundancyDisabled = &t.GPUZonalRedundancyDisabled
	}
	w.VpcAccess = vpcToProto(t.VPC)
	volume := t.CloudSQL.Volume
	if volume == "" {
		volume = defaultVolume
	}
	if len(t.CloudSQL.Instances) > 0 {
		w.Volumes = []*runpb.Volume{{
			Name: volume,
			VolumeType: &runpb.Volume_CloudSqlInstance{
				CloudSqlInstance: &runpb.CloudSqlInstance{Instances: t.CloudSQL.Instances},
			},
		}}
	}
	for i := range t.Containers {
		c := containerToProto(&t.Containers[i])
		if len(w.Volumes) > 0 {
			c.VolumeMounts = []*runpb.VolumeMount{{Name: volume, MountPath: run.CloudSQLPath}}
		}
		c.Resources.CpuIdle, c.Resources.StartupCpuBoost = !t.CPUAlways, t.StartupCPUBoost
		w.Containers = append(w.Containers, c)
	}
	return w
}

func containerToProto(c *run.Container) *runpb.Container {
	w := &runpb.Container{
		Name:           c.Name,
		Image:          c.Image,
		Command:        c.Command,
		Args:           c.Args,
		WorkingDir:     c.WorkingDir,
		Resources:      &runpb.ResourceRequirements{Limits: map[string]string{"cpu": c.CPU, "memory": c.Memory}},
		StartupProbe:   probeToProto(c.Startup),
		LivenessProbe:  probeToProto(c.Liveness),
		ReadinessProbe: probeToProto(c.Readiness),
	}
	if c.GPU > 0 {
		w.Resources.Limits["nvidia.com/gpu"] = strconv.Itoa(c.GPU)
	}
	for _, e := range c.Env {
		w.Env = append(w.Env, &runpb.EnvVar{Name: e.Name, Values: &runpb.EnvVar_Value{Value: e.Value}})
	}
	if c.Port != 0 {
		w.Ports = []*runpb.ContainerPort{{Name: c.PortName, ContainerPort: int32(c.Port)}}
	}
	return w
}

func probeToProto(p *run.Probe) *runpb.Probe {
	if p == nil {
		return nil
	}
	w := &runpb.Probe{
		InitialDelaySeconds: int32(p.InitialDelay),
		TimeoutSeconds:      int32(p.Timeout),
		PeriodSeconds:       int32(p.Period),
		FailureThreshold:    int32(p.FailureThreshold),
	}
	switch {
	case p.HTTPPath != "":
		get := &runpb.HTTPGetAction{Path: p.HTTPPath, Port: int32(p.HTTPPort)}
		for _, h := range p.HTTPHeaders {
			get.HttpHeaders = append(get.HttpHeaders, &runpb.HTTPHeader{Name: h.Name, Value: h.Value})
		}
		w.ProbeType = &runpb.Probe_HttpGet{HttpGet: get}
	case p.GRPC:
		w.ProbeType = &runpb.Probe_Grpc{Grpc: &runpb.GRPCAction{Port: int32(p.GRPCPort), Service: p.GRPCService}}
	default:
		w.ProbeType = &runpb.Probe_TcpSocket{TcpSocket: &runpb.TCPSocketAction{Port: int32(p.TCPPort)}}
	}
	return w
}

// conditionsToProto writes conditions. Those of a revision may have reasons that only revisions have.
func conditionsToProto(cs []run.Condition, revision bool) []*runpb.Condition {
	var out []*runpb.Condition
	for _, c := range cs {
		w := &runpb.Condition{Type: c.Type, Message: c.Message, LastTransitionTime: stamp(c.Since)}
		switch c.State {
		case run.True:
			w.State = runpb.Condition_CONDITION_SUCCEEDED
		case run.False:
			w.State, w.Severity = runpb.Condition_CONDITION_FAILED, runpb.Condition_ERROR
		default:
			w.State = runpb.Condition_CONDITION_RECONCILING
		}
		if c.Type == run.EmulatedGPU {
			w.Severity = runpb.Condition_WARNING
		}
		reason := screaming(c.Reason)
		if n, ok := runpb.Condition_CommonReason_value[reason]; ok && c.Reason != "" {
			w.Reasons = &runpb.Condition_Reason{Reason: runpb.Condition_CommonReason(n)}
		} else if n, ok := runpb.Condition_RevisionReason_value[reason]; ok && revision {
			w.Reasons = &runpb.Condition_RevisionReason_{RevisionReason: runpb.Condition_RevisionReason(n)}
		} else if c.State == run.False {
			w.Reasons = &runpb.Condition_Reason{Reason: runpb.Condition_REVISION_FAILED}
		}
		out = append(out, w)
	}
	return out
}

// screaming writes the CamelCase of v1's reasons as the names of v2's: "ContainerMissing" is CONTAINER_MISSING.
func screaming(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}
