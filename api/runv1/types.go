package runv1

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// The objects of serving.knative.dev/v1 as gcloud 528 reads and writes them. The structs of google.golang.org/api are
// not used: their omitempty hides "percent": 0 (docs/decisions/0004-knative-structs.md).

const (
	apiVersion = "serving.knative.dev/v1"
	timeFormat = "2006-01-02T15:04:05.999999Z"
)

type meta struct {
	Name              string            `json:"name,omitempty"`
	Namespace         string            `json:"namespace,omitempty"`
	SelfLink          string            `json:"selfLink,omitempty"`
	UID               string            `json:"uid,omitempty"`
	ResourceVersion   string            `json:"resourceVersion,omitempty"`
	Generation        flexInt           `json:"generation,omitempty"`
	CreationTimestamp string            `json:"creationTimestamp,omitempty"`
	DeletionTimestamp string            `json:"deletionTimestamp,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	OwnerReferences   []ownerReference  `json:"ownerReferences,omitempty"`
}

type ownerReference struct {
	APIVersion         string `json:"apiVersion"`
	Kind               string `json:"kind"`
	Name               string `json:"name"`
	UID                string `json:"uid"`
	Controller         bool   `json:"controller"`
	BlockOwnerDeletion bool   `json:"blockOwnerDeletion"`
}

type service struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Metadata   meta          `json:"metadata"`
	Spec       serviceSpec   `json:"spec"`
	Status     serviceStatus `json:"status"`
}

type serviceSpec struct {
	Template template  `json:"template"`
	Traffic  []traffic `json:"traffic,omitempty"`
}

type template struct {
	Metadata meta         `json:"metadata"`
	Spec     revisionSpec `json:"spec"`
}

type revisionSpec struct {
	ContainerConcurrency flexInt           `json:"containerConcurrency,omitempty"`
	TimeoutSeconds       flexInt           `json:"timeoutSeconds,omitempty"`
	ServiceAccountName   string            `json:"serviceAccountName,omitempty"`
	Containers           []container       `json:"containers"`
	NodeSelector         map[string]string `json:"nodeSelector,omitempty"`
}

type container struct {
	Name           string    `json:"name,omitempty"`
	Image          string    `json:"image"`
	Command        []string  `json:"command,omitempty"`
	Args           []string  `json:"args,omitempty"`
	WorkingDir     string    `json:"workingDir,omitempty"`
	Env            []envVar  `json:"env,omitempty"`
	Ports          []port    `json:"ports,omitempty"`
	Resources      resources `json:"resources,omitzero"`
	StartupProbe   *probe    `json:"startupProbe,omitempty"`
	LivenessProbe  *probe    `json:"livenessProbe,omitempty"`
	ReadinessProbe *probe    `json:"readinessProbe,omitempty"`
}

type envVar struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

type port struct {
	Name          string  `json:"name,omitempty"`
	ContainerPort flexInt `json:"containerPort,omitempty"`
	Protocol      string  `json:"protocol,omitempty"`
}

type resources struct {
	Limits map[string]string `json:"limits,omitempty"`
}

type probe struct {
	InitialDelaySeconds flexInt     `json:"initialDelaySeconds,omitempty"`
	TimeoutSeconds      flexInt     `json:"timeoutSeconds,omitempty"`
	PeriodSeconds       flexInt     `json:"periodSeconds,omitempty"`
	FailureThreshold    flexInt     `json:"failureThreshold,omitempty"`
	SuccessThreshold    flexInt     `json:"successThreshold,omitempty"`
	TCPSocket           *portAction `json:"tcpSocket,omitempty"`
	HTTPGet             *portAction `json:"httpGet,omitempty"`
	GRPC                *portAction `json:"grpc,omitempty"`
}

// portAction is what one of a probe's three ways needs; which fields it may have is in serviceFields.
type portAction struct {
	Port        flexInt  `json:"port,omitempty"`
	Path        string   `json:"path,omitempty"`
	HTTPHeaders []header `json:"httpHeaders,omitempty"`
	Service     string   `json:"service,omitempty"`
}

type header struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

type traffic struct {
	RevisionName      string  `json:"revisionName,omitempty"`
	ConfigurationName string  `json:"configurationName,omitempty"`
	Percent           flexInt `json:"percent,omitempty"`
	LatestRevision    bool    `json:"latestRevision,omitempty"`
	Tag               string  `json:"tag,omitempty"`
	URL               string  `json:"url,omitempty"`
}

type serviceStatus struct {
	ObservedGeneration        flexInt     `json:"observedGeneration,omitempty"`
	Conditions                []condition `json:"conditions,omitempty"`
	LatestReadyRevisionName   string      `json:"latestReadyRevisionName,omitempty"`
	LatestCreatedRevisionName string      `json:"latestCreatedRevisionName,omitempty"`
	Traffic                   []traffic   `json:"traffic,omitempty"`
	URL                       string      `json:"url,omitempty"`
	Address                   *address    `json:"address,omitempty"`
}

type address struct {
	URL string `json:"url,omitempty"`
}

type condition struct {
	Type               string `json:"type"`
	Status             string `json:"status"`
	Reason             string `json:"reason,omitempty"`
	Message            string `json:"message,omitempty"`
	LastTransitionTime string `json:"lastTransitionTime,omitempty"`
	Severity           string `json:"severity,omitempty"`
}

type revision struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   meta           `json:"metadata"`
	Spec       revisionSpec   `json:"spec"`
	Status     revisionStatus `json:"status"`
}

type revisionStatus struct {
	ObservedGeneration flexInt     `json:"observedGeneration,omitempty"`
	Conditions         []condition `json:"conditions,omitempty"`
	LogURL             string      `json:"logUrl,omitempty"`
	ImageDigest        string      `json:"imageDigest,omitempty"`
}

type configuration struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Metadata   meta                `json:"metadata"`
	Spec       serviceSpec         `json:"spec"`
	Status     configurationStatus `json:"status"`
}

type configurationStatus struct {
	ObservedGeneration        flexInt     `json:"observedGeneration,omitempty"`
	Conditions                []condition `json:"conditions,omitempty"`
	LatestReadyRevisionName   string      `json:"latestReadyRevisionName,omitempty"`
	LatestCreatedRevisionName string      `json:"latestCreatedRevisionName,omitempty"`
}

type route struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Metadata   meta          `json:"metadata"`
	Spec       routeSpec     `json:"spec"`
	Status     serviceStatus `json:"status"`
}

type routeSpec struct {
	Traffic []traffic `json:"traffic,omitempty"`
}

type list[T any] struct {
	APIVersion  string   `json:"apiVersion"`
	Kind        string   `json:"kind"`
	Metadata    listMeta `json:"metadata"`
	Items       []T      `json:"items"`
	Unreachable []string `json:"unreachable,omitempty"`
}

type listMeta struct {
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Continue        string `json:"continue,omitempty"`
}

// watchEvent is one line of a watch (https://kubernetes.io/docs/reference/using-api/api-concepts).
type watchEvent struct {
	Type   string `json:"type"` // ADDED, MODIFIED, DELETED, ERROR
	Object any    `json:"object"`
}

// flexInt is an integer that may come as a JSON string: apitools writes int64 either way.
type flexInt int64

func (n *flexInt) UnmarshalJSON(b []byte) error {
	if len(b) > 1 && b[0] == '"' {
		b = b[1 : len(b)-1]
	}
	if string(b) == "null" {
		return nil
	}
	v, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return &json.UnmarshalTypeError{Value: fmt.Sprintf("number %.40s", b)}
	}
	*n = flexInt(v)
	return nil
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}
