package run

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"giggle/fault"
)

// Field names a field of a Service in the model's own words, by the steps that lead to it and the places in lists on
// the way: template.containers[0].image. Faults of this package name fields so; an API calls them otherwise, by its
// FieldNames.
type Field string

// The fields that a fault may name. A pair of brackets stands for a place in a list.
const (
	FieldName       Field = "name"
	FieldLabels     Field = "labels"
	FieldMinScale   Field = "scaling.min"
	FieldMaxScale   Field = "scaling.max"
	FieldTraffic    Field = "traffic"
	FieldTarget     Field = "traffic[]"
	FieldTargetName Field = "traffic[].revision"
	FieldPercent    Field = "traffic[].percent"
	FieldTag        Field = "traffic[].tag"

	FieldRevision         Field = "template.revision"
	FieldRevisionLabels   Field = "template.labels"
	FieldRevisionMinScale Field = "template.scaling.min"
	FieldRevisionMaxScale Field = "template.scaling.max"
	FieldConcurrency      Field = "template.concurrency"
	FieldTimeout          Field = "template.timeout"
	FieldEnvironment      Field = "template.executionEnvironment"
	FieldCPUAlways        Field = "template.cpuAlways"
	FieldNodeSelector     Field = "template.nodeSelector"
	FieldAccelerator      Field = "template.accelerator" // the kind of GPU that the node selector asks for
	FieldContainers       Field = "template.containers"

	FieldContainer Field = "template.containers[]"
	FieldImage     Field = "template.containers[].image"
	FieldPort      Field = "template.containers[].port"
	FieldPortName  Field = "template.containers[].portName"
	FieldEnv       Field = "template.containers[].env"
	FieldEnvName   Field = "template.containers[].env[].name"
	FieldEnvValue  Field = "template.containers[].env[].value"
	FieldLimits    Field = "template.containers[].limits" // of resources that there are not
	FieldCPU       Field = "template.containers[].cpu"
	FieldMemory    Field = "template.containers[].memory"
	FieldGPU       Field = "template.containers[].gpu"
	FieldStartup   Field = "template.containers[].startup"
	FieldLiveness  Field = "template.containers[].liveness"
	FieldReadiness Field = "template.containers[].readiness"
)

// The fields of a probe, which go behind FieldStartup, FieldLiveness or FieldReadiness.
const (
	ProbeInitialDelay     Field = ".initialDelay"
	ProbeTimeout          Field = ".timeout"
	ProbePeriod           Field = ".period"
	ProbeFailureThreshold Field = ".failureThreshold"
	ProbeSuccessThreshold Field = ".successThreshold"
	ProbeTCP              Field = ".tcp"
	ProbeTCPPort          Field = ".tcp.port"
	ProbeHTTPPort         Field = ".http.port"
	ProbeHTTPPath         Field = ".http.path"
	ProbeHTTPHeaders      Field = ".http.headers"
	ProbeGRPCPort         Field = ".grpc.port"
	ProbeGRPCService      Field = ".grpc.service"
)

// Fields returns all fields that a fault may name, for an API to hold its FieldNames against.
func Fields() []Field {
	out := []Field{
		FieldName, FieldLabels, FieldMinScale, FieldMaxScale, FieldTraffic, FieldTarget, FieldTargetName, FieldPercent, FieldTag,
		FieldRevision, FieldRevisionLabels, FieldRevisionMinScale, FieldRevisionMaxScale, FieldConcurrency, FieldTimeout,
		FieldEnvironment, FieldCPUAlways, FieldNodeSelector, FieldAccelerator, FieldContainers,
		FieldContainer, FieldImage, FieldPort, FieldPortName, FieldEnv, FieldEnvName, FieldEnvValue, FieldLimits, FieldCPU,
		FieldMemory, FieldGPU,
	}
	for _, probe := range []Field{FieldStartup, FieldLiveness, FieldReadiness} {
		out = append(out, probe,
			probe+ProbeInitialDelay, probe+ProbeTimeout, probe+ProbePeriod, probe+ProbeFailureThreshold,
			probe+ProbeSuccessThreshold, probe+ProbeTCP, probe+ProbeTCPPort, probe+ProbeHTTPPort, probe+ProbeHTTPPath,
			probe+ProbeHTTPHeaders, probe+ProbeGRPCPort, probe+ProbeGRPCService)
	}
	return out
}

// at puts places in lists into the first pairs of brackets.
func (f Field) at(places ...int) Field {
	for _, i := range places {
		f = Field(strings.Replace(string(f), "[]", fmt.Sprintf("[%d]", i), 1))
	}
	return f
}

// invalid is the fault of a field whose value can't be.
func invalid(f Field, format string, args ...any) error {
	return fault.Invalid(string(f), format, args...)
}

// FieldNames is what an API calls the fields of a Service. In both, a pair of brackets stands for a place in a list.
type FieldNames map[Field]string

// AddProbe adds the names of a probe's fields, each that of the probe with that of the field behind it.
func (n FieldNames) AddProbe(probe Field, name string, fields FieldNames) {
	n[probe] = name
	for field, last := range fields {
		n[probe+field] = name + last
	}
}

// Translate has a fault of this package name its fields as the API does. A field that the API has no name for keeps
// the model's.
func (n FieldNames) Translate(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) || len(f.Fields) == 0 {
		return err
	}
	return f.Renamed(func(path string) string {
		field, places := patternOf(path)
		name, known := n[field]
		if !known {
			return path
		}
		return string(Field(name).at(places...))
	})
}

// patternOf takes the places out of a field: traffic[3].tag is traffic[].tag and 3.
func patternOf(path string) (pattern Field, places []int) {
	var b strings.Builder
	for rest := path; ; {
		before, after, found := strings.Cut(rest, "[")
		b.WriteString(before)
		if !found {
			return Field(b.String()), places
		}
		place, tail, _ := strings.Cut(after, "]")
		i, err := strconv.Atoi(place)
		if err != nil {
			return Field(path), nil
		}
		places = append(places, i)
		b.WriteString("[]")
		rest = tail
	}
}
