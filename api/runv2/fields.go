package runv2

import (
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
