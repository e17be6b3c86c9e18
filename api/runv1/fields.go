package runv1

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"giggle/fault"
	"giggle/run"
)

// fieldNames is what a Knative object calls the fields of the model.
var fieldNames = func() fault.FieldNames {
	const (
		template   = "spec.template.metadata"
		scaling    = template + ".annotations[autoscaling.knative.dev/"
		spec       = "spec.template.spec"
		containers = spec + ".containers"
		limits     = containers + "[].resources.limits"
	)
	names := fault.FieldNames{
		run.FieldName:       "metadata.name",
		run.FieldLabels:     "metadata.labels",
		run.FieldMinScale:   "metadata.annotations[run.googleapis.com/minScale]",
		run.FieldMaxScale:   "metadata.annotations[run.googleapis.com/maxScale]",
		run.FieldTraffic:    "spec.traffic",
		run.FieldTarget:     "spec.traffic[]",
		run.FieldTargetName: "spec.traffic[].revisionName",
		run.FieldPercent:    "spec.traffic[].percent",
		run.FieldTag:        "spec.traffic[].tag",

		run.FieldRevision:         template + ".name",
		run.FieldRevisionLabels:   template + ".labels",
		run.FieldRevisionMinScale: scaling + "minScale]",
		run.FieldRevisionMaxScale: scaling + "maxScale]",
		run.FieldConcurrency:      spec + ".containerConcurrency",
		run.FieldTimeout:          spec + ".timeoutSeconds",
		run.FieldEnvironment:      template + ".annotations[run.googleapis.com/execution-environment]",
		run.FieldCPUAlways:        template + ".annotations[run.googleapis.com/cpu-throttling]",
		run.FieldVPCEgress:        template + ".annotations[run.googleapis.com/vpc-access-egress]",
		run.FieldVPCInterfaces:    template + ".annotations[run.googleapis.com/network-interfaces]",
		run.FieldNodeSelector:     spec + ".nodeSelector",
		run.FieldAccelerator:      spec + ".node_selector", // Cloud Run's own spelling where it refuses a GPU

		run.FieldCloudSQL: template + ".annotations[run.googleapis.com/cloudsql-instances]",

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

// serviceFields are the fields of a Service that are read, by path; [] is any element. Those marked refused exist on
// Cloud Run and are not implemented yet. Anything else does not exist: the call fails with its path.
var serviceFields = withProbes(map[string]disposition{
	"apiVersion":                          honoured,
	"kind":                                honoured,
	"metadata":                            honoured,
	"spec":                                honoured,
	"status":                              output,
	"metadata.name":                       honoured,
	"metadata.namespace":                  honoured,
	"metadata.labels":                     informational,
	"metadata.annotations":                informational,
	"metadata.resourceVersion":            honoured,
	"metadata.selfLink":                   output,
	"metadata.uid":                        output,
	"metadata.generation":                 output,
	"metadata.creationTimestamp":          output,
	"metadata.deletionTimestamp":          output,
	"metadata.finalizers":                 output,
	"metadata.ownerReferences":            output,
	"metadata.clusterName":                output,
	"metadata.generateName":               refused,
	"metadata.deletionGracePeriodSeconds": output,

	"spec.template":                            honoured,
	"spec.traffic":                             honoured,
	"spec.traffic[].revisionName":              honoured,
	"spec.traffic[].latestRevision":            honoured,
	"spec.traffic[].percent":                   honoured,
	"spec.traffic[].tag":                       honoured,
	"spec.traffic[].url":                       output,
	"spec.traffic[].configurationName":         output,
	"spec.template.metadata":                   honoured,
	"spec.template.spec":                       honoured,
	"spec.template.metadata.name":              honoured,
	"spec.template.metadata.namespace":         output,
	"spec.template.metadata.labels":            informational,
	"spec.template.metadata.annotations":       informational,
	"spec.template.metadata.creationTimestamp": output,
	"spec.template.metadata.uid":               output,
	"spec.template.metadata.generation":        output,
	"spec.template.metadata.resourceVersion":   output,
	"spec.template.metadata.selfLink":          output,

	"spec.template.spec.containerConcurrency": honoured,
	"spec.template.spec.timeoutSeconds":       honoured,
	"spec.template.spec.serviceAccountName":   honoured,
	"spec.template.spec.containers":           honoured,
	"spec.template.spec.nodeSelector":         informational,
	"spec.template.spec.volumes":              refused,
	"spec.template.spec.runtimeClassName":     refused,
	"spec.template.spec.enableServiceLinks":   output,
	"spec.template.spec.imagePullSecrets":     refused,
	"spec.template.spec.serviceAccount":       refused,

	"spec.template.spec.containers[].name":                     honoured,
	"spec.template.spec.containers[].image":                    honoured,
	"spec.template.spec.containers[].command":                  honoured,
	"spec.template.spec.containers[].args":                     honoured,
	"spec.template.spec.containers[].workingDir":               honoured,
	"spec.template.spec.containers[].env":                      honoured,
	"spec.template.spec.containers[].env[].name":               honoured,
	"spec.template.spec.containers[].env[].value":              honoured,
	"spec.template.spec.containers[].env[].valueFrom":          refused,
	"spec.template.spec.containers[].envFrom":                  refused,
	"spec.template.spec.containers[].ports":                    honoured,
	"spec.template.spec.containers[].ports[].name":             honoured,
	"spec.template.spec.containers[].ports[].containerPort":    honoured,
	"spec.template.spec.containers[].ports[].protocol":         honoured,
	"spec.template.spec.containers[].resources":                honoured,
	"spec.template.spec.containers[].resources.limits":         informational,
	"spec.template.spec.containers[].resources.requests":       refused,
	"spec.template.spec.containers[].volumeMounts":             refused,
	"spec.template.spec.containers[].imagePullPolicy":          output,
	"spec.template.spec.containers[].terminationMessagePath":   output,
	"spec.template.spec.containers[].terminationMessagePolicy": output,
	"spec.template.spec.containers[].securityContext":          refused,
})

// checkFields fails on the first field of a Service that is unknown or not implemented, with its path. Empty values
// pass: gcloud 528 writes "nodeSelector": {}.
func checkFields(body []byte) error {
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil {
		return nil // the decoder says it better
	}
	return walk(v, "", "")
}

func walk(v any, path, shown string) error {
	switch x := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(x)) {
			at, here := join(path, key), join(shown, key)
			d, known := serviceFields[at]
			switch {
			case empty(x[key]):
			case !known:
				return fault.Invalid(here, "unknown field")
			case d == refused:
				return fault.NotImplemented(here, "this field is not implemented yet")
			case d == honoured:
				if err := walk(x[key], at, here); err != nil {
					return err
				}
			}
		}
	case []any:
		for i, e := range x {
			if err := walk(e, path+"[]", fmt.Sprintf("%s[%d]", shown, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func join(path, key string) string {
	return strings.TrimPrefix(path+"."+key, ".")
}

func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(x) == 0
	case []any:
		return len(x) == 0
	case string:
		return x == ""
	}
	return false
}
