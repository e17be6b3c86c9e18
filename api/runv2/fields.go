package runv2

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
	"giggle/run"
)

// output are the fields of a Service that the platform writes; what a client sends in them is ignored.
var output = []string{
	"uid", "generation", "createTime", "updateTime", "deleteTime", "expireTime", "creator", "lastModifier", "urls",
	"observedGeneration",
	"terminalCondition", "conditions", "latestReadyRevision", "latestCreatedRevision", "trafficStatuses", "uri",
	"satisfiesPzs", "reconciling", "threatDetectionEnabled",
}

// overlay copies the fields that a mask names from one message to another of its kind
// (https://google.aip.dev/134: a field that is named and not set is cleared).
func overlay(to, from proto.Message, paths []string) error {
	for _, path := range paths {
		if path == "*" {
			name := to.ProtoReflect().Descriptor().Fields().ByName("name")
			kept := to.ProtoReflect().Get(name)
			proto.Reset(to)
			proto.Merge(to, from)
			to.ProtoReflect().Set(name, kept)
			continue
		}
		if err := copyField(to.ProtoReflect(), from.ProtoReflect(), strings.Split(path, ".")); err != nil {
			return fault.Invalid("updateMask", "%.100q: %v", path, err)
		}
	}
	return nil
}

func copyField(to, from protoreflect.Message, path []string) error {
	f := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	if f == nil {
		f = to.Descriptor().Fields().ByJSONName(path[0])
	}
	switch {
	case f == nil:
		return errors.New("there is no such field")
	case len(path) == 1 && !from.Has(f):
		to.Clear(f)
		return nil
	case len(path) == 1:
		to.Set(f, from.Get(f))
		return nil
	case f.Message() == nil || f.IsList() || f.IsMap():
		return errors.New("what is below a list, a map or a value can't be named")
	}
	return copyField(to.Mutable(f).Message(), from.Get(f).Message(), path[1:])
}

// fieldNames is what google.cloud.run.v2 calls the fields of the model.
var fieldNames = func() fault.FieldNames {
	const (
		containers = "template.containers"
		limits     = containers + "[].resources.limits"
	)
	names := fault.FieldNames{
		run.FieldName:       "serviceId",
		run.FieldLabels:     "labels",
		run.FieldMinScale:   "scaling.minInstanceCount",
		run.FieldMaxScale:   "scaling.maxInstanceCount",
		run.FieldTraffic:    "traffic",
		run.FieldTarget:     "traffic[]",
		run.FieldTargetName: "traffic[].revision",
		run.FieldPercent:    "traffic[].percent",
		run.FieldTag:        "traffic[].tag",

		run.FieldRevision:         "template.revision",
		run.FieldRevisionLabels:   "template.labels",
		run.FieldRevisionMinScale: "template.scaling.minInstanceCount",
		run.FieldRevisionMaxScale: "template.scaling.maxInstanceCount",
		run.FieldConcurrency:      "template.maxInstanceRequestConcurrency",
		run.FieldTimeout:          "template.timeout",
		run.FieldEnvironment:      "template.executionEnvironment",
		run.FieldCPUAlways:        containers + "[0].resources.cpuIdle",
		run.FieldNodeSelector:     "template.nodeSelector.accelerator",
		run.FieldVPCEgress:        "template.vpcAccess.egress",
		run.FieldVPCInterfaces:    "template.vpcAccess.networkInterfaces",
		run.FieldAccelerator:      "template.nodeSelector.accelerator",

		run.FieldCloudSQL: "template.volumes[0].cloudSqlInstance.instances",

		run.FieldContainers: containers,
		run.FieldContainer:  containers + "[]",
		run.FieldImage:      containers + "[].image",
		run.FieldPort:       containers + "[].ports[0].containerPort",
		run.FieldPortName:   containers + "[].ports[0].name",
		run.FieldEnv:        containers + "[].env",
		run.FieldEnvName:    containers + "[].env[].name",
		run.FieldEnvValue:   containers + "[].env[].value",
		run.FieldLimits:     limits,
		run.FieldCPU:        limits + ".cpu",
		run.FieldMemory:     limits + ".memory",
		run.FieldGPU:        limits + "[nvidia.com/gpu]",
	}
	probe := fault.FieldNames{
		run.ProbeInitialDelay:     ".initialDelaySeconds",
		run.ProbeTimeout:          ".timeoutSeconds",
		run.ProbePeriod:           ".periodSeconds",
		run.ProbeFailureThreshold: ".failureThreshold",
		run.ProbeSuccessThreshold: ".successThreshold",
		run.ProbeTCP:              ".tcpSocket",
		run.ProbeTCPPort:          ".tcpSocket.port",
		run.ProbeHTTPPort:         ".httpGet.port",
		run.ProbeHTTPPath:         ".httpGet.path",
		run.ProbeHTTPHeaders:      ".httpGet.httpHeaders",
		run.ProbeGRPCPort:         ".grpc.port",
		run.ProbeGRPCService:      ".grpc.service",
	}
	names.Nest(run.FieldStartup, containers+"[].startupProbe", probe)
	names.Nest(run.FieldLiveness, containers+"[].livenessProbe", probe)
	names.Nest(run.FieldReadiness, containers+"[].readinessProbe", probe)
	return names
}()
