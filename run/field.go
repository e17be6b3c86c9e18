package run

import "giggle/fault"

// The fields of a Service that a fault may name, in the model's own words.
const (
	FieldName       fault.Path = "name"
	FieldLabels     fault.Path = "labels"
	FieldMinScale   fault.Path = "scaling.min"
	FieldMaxScale   fault.Path = "scaling.max"
	FieldTraffic    fault.Path = "traffic"
	FieldTarget     fault.Path = "traffic[]"
	FieldTargetName fault.Path = "traffic[].revision"
	FieldPercent    fault.Path = "traffic[].percent"
	FieldTag        fault.Path = "traffic[].tag"

	FieldRevision         fault.Path = "template.revision"
	FieldRevisionLabels   fault.Path = "template.labels"
	FieldRevisionMinScale fault.Path = "template.scaling.min"
	FieldRevisionMaxScale fault.Path = "template.scaling.max"
	FieldConcurrency      fault.Path = "template.concurrency"
	FieldTimeout          fault.Path = "template.timeout"
	FieldEnvironment      fault.Path = "template.executionEnvironment"
	FieldCPUAlways        fault.Path = "template.cpuAlways"
	FieldNodeSelector     fault.Path = "template.nodeSelector"
	FieldVPCEgress        fault.Path = "template.vpc.egress"
	FieldVPCInterfaces    fault.Path = "template.vpc.interfaces"
	FieldAccelerator      fault.Path = "template.accelerator" // the kind of GPU that the node selector asks for
	FieldCloudSQL         fault.Path = "template.cloudSQL"
	FieldContainers       fault.Path = "template.containers"

	FieldContainer fault.Path = "template.containers[]"
	FieldImage     fault.Path = "template.containers[].image"
	FieldPort      fault.Path = "template.containers[].port"
	FieldPortName  fault.Path = "template.containers[].portName"
	FieldEnv       fault.Path = "template.containers[].env"
	FieldEnvName   fault.Path = "template.containers[].env[].name"
	FieldEnvValue  fault.Path = "template.containers[].env[].value"
	FieldLimits    fault.Path = "template.containers[].limits" // of resources that there are not
	FieldCPU       fault.Path = "template.containers[].cpu"
	FieldMemory    fault.Path = "template.containers[].memory"
	FieldGPU       fault.Path = "template.containers[].gpu"
	FieldStartup   fault.Path = "template.containers[].startup"
	FieldLiveness  fault.Path = "template.containers[].liveness"
	FieldReadiness fault.Path = "template.containers[].readiness"
)

// The fields of a probe, which go behind FieldStartup, FieldLiveness or FieldReadiness.
const (
	ProbeInitialDelay     fault.Path = ".initialDelay"
	ProbeTimeout          fault.Path = ".timeout"
	ProbePeriod           fault.Path = ".period"
	ProbeFailureThreshold fault.Path = ".failureThreshold"
	ProbeSuccessThreshold fault.Path = ".successThreshold"
	ProbeTCP              fault.Path = ".tcp"
	ProbeTCPPort          fault.Path = ".tcp.port"
	ProbeHTTPPort         fault.Path = ".http.port"
	ProbeHTTPPath         fault.Path = ".http.path"
	ProbeHTTPHeaders      fault.Path = ".http.headers"
	ProbeGRPCPort         fault.Path = ".grpc.port"
	ProbeGRPCService      fault.Path = ".grpc.service"
)

// Fields returns all fields that a fault may name, for an API to hold its table of names against.
func Fields() []fault.Path {
	out := []fault.Path{
		FieldName, FieldLabels, FieldMinScale, FieldMaxScale,
		FieldTraffic, FieldTarget, FieldTargetName, FieldPercent, FieldTag,
		FieldRevision, FieldRevisionLabels, FieldRevisionMinScale, FieldRevisionMaxScale, FieldConcurrency,
		FieldTimeout,
		FieldEnvironment, FieldCPUAlways, FieldNodeSelector, FieldAccelerator, FieldVPCEgress,
		FieldVPCInterfaces, FieldCloudSQL, FieldContainers,
		FieldContainer, FieldImage, FieldPort, FieldPortName, FieldEnv, FieldEnvName, FieldEnvValue, FieldLimits,
		FieldCPU,
		FieldMemory, FieldGPU,
	}
	for _, probe := range []fault.Path{FieldStartup, FieldLiveness, FieldReadiness} {
		out = append(out, probe,
			probe+ProbeInitialDelay, probe+ProbeTimeout, probe+ProbePeriod, probe+ProbeFailureThreshold,
			probe+ProbeSuccessThreshold, probe+ProbeTCP, probe+ProbeTCPPort, probe+ProbeHTTPPort, probe+ProbeHTTPPath,
			probe+ProbeHTTPHeaders, probe+ProbeGRPCPort, probe+ProbeGRPCService)
	}
	return out
}

// invalid is the fault of a field whose value can't be.
func invalid(f fault.Path, format string, args ...any) error {
	return fault.Invalid(string(f), format, args...)
}
