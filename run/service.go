// Package run is Cloud Run's domain: services, revisions, traffic, and the reconciler that makes what is wanted true.
//
// The APIs v1 (Knative) and v2 are two wire forms of its one model, whose vocabulary is that of google.cloud.run.v2.
// It knows no wire format, starts no container itself, and serves no request: instances and routing are interfaces
// that the data plane fills.
package run

import (
	"time"

	"giggle/resource"
	"giggle/store"
)

// Service is a Cloud Run service: what its owner wants, and in Status how far it has come.
type Service struct {
	Name       resource.Child
	UID        string
	Generation int64 // counts changes of Template, Traffic and the other settings; labels don't count
	Since      int64 // the version that Generation began with; 0 is not known

	Labels      map[string]string
	Annotations map[string]string // those that no field stands for; kept as they came

	Creator, LastModifier string // e-mail addresses
	Client, ClientVersion string // what wrote it last, as it says itself
	Description           string
	LaunchStage           string // "GA", "BETA", "ALPHA" or ""
	Ingress               Ingress
	InvokerIAMDisabled    bool
	CustomAudiences       []string // of ID tokens, besides the service's URLs
	Scaling               Scaling  // of the whole service
	Template              Template
	Traffic               []Target // of one that is being made, empty means 100 percent to the latest ready revision

	Status Status

	// Counters of the stored row; set when it is read.
	Version int64     `json:"-"` // the lock of a read-modify-write
	Cursor  int64     `json:"-"` // store-wide: the cursor of a watch
	Created time.Time `json:"-"`
	Updated time.Time `json:"-"`
	Deleted bool      `json:"-"` // only in a watch
}

// Ingress says from where a service may be called.
type Ingress string

// The values of google.cloud.run.v2.IngressTraffic.
const (
	IngressAll          Ingress = "all"
	IngressInternal     Ingress = "internal"
	IngressInternalLoad Ingress = "internal-and-cloud-load-balancing"
)

// Scaling bounds the number of instances. Zero means the default: no minimum, and the platform's maximum.
type Scaling struct{ Min, Max int }

// Template is what a revision is made from. It never changes once a revision has it.
type Template struct {
	Revision              string // name wanted for the revision, "" for one that is made up
	Labels                map[string]string
	Annotations           map[string]string // those that no field stands for
	Client, ClientVersion string
	ServiceAccount        string // e-mail address, "" for the project's default account
	Timeout               int    // seconds of one request, 1–3600; 0 for the default
	Concurrency           int    // requests at once in one instance, 1–1000; 0 for the default
	Scaling               Scaling
	Containers            []Container
	ExecutionEnvironment  string // "gen1", "gen2" or ""; kept and shown, nothing acts on it
	CPUAlways             bool   // CPU between requests too (cpu-throttling off)
	StartupCPUBoost       bool   // more CPU while an instance starts
	NodeSelector          map[string]string
	CloudSQL              CloudSQL `json:",omitzero"`
	// GPUZonalRedundancyDisabled is which of two quotas a GPU is of; kept and shown.
	GPUZonalRedundancyDisabled bool       `json:",omitempty"`
	VPC                        *VPCAccess `json:",omitempty"` // nil for none
}

// CloudSQL is the databases whose sockets containers have in CloudSQLPath.
type CloudSQL struct {
	Instances []string `json:",omitempty"` // PROJECT:REGION:INSTANCE
	Volume    string   `json:",omitempty"` // its name in API v2, "" for the default; kept and shown
}

// CloudSQLPath is where containers have the sockets of databases. Nowhere else may they be mounted.
const CloudSQLPath = "/cloudsql"

// Container is one container of a revision. Giggle runs one for each instance so far.
type Container struct {
	Name       string
	Image      string   // as written: a tag or a digest
	Command    []string // replaces the image's entrypoint
	Args       []string // replaces the image's command
	WorkingDir string
	Env        []EnvVar
	CPU        string // cores as a Kubernetes quantity, "1", "500m"; "" for the default
	Memory     string // bytes as a Kubernetes quantity, "512Mi"; "" for the default
	GPU        int    `json:",omitempty"` // 0 or 1
	Port       int    // 1–65535; 0 for the default
	PortName   string // "http1", "h2c" or ""
	Startup    *Probe // nil for the default: TCP on the port, 240 s
	Liveness   *Probe `json:",omitempty"` // an instance that fails it is shut down; nil for none
	Readiness  *Probe `json:",omitempty"` // an instance that fails it gets no new requests; nil for none
}

// EnvVar is one environment variable.
type EnvVar struct{ Name, Value string }

// Target is one entry of a service's traffic.
type Target struct {
	Revision string // name, or "" with Latest
	Latest   bool   // whatever revision became ready last
	Percent  int    // 0–100; all of a service add up to 100
	Tag      string // a URL of its own, https://TAG---HOST
}

// Status is how far a service has come.
type Status struct {
	ObservedGeneration int64
	LatestCreated      string // revision name
	LatestReady        string // revision name, "" before the first
	Traffic            []TargetStatus
	Conditions         []Condition
	Operation          string // full name of the operation of the last change
}

// TargetStatus is one entry of the traffic that is served: the tagged ones first, so that gcloud's
// value(status.traffic[0].url) has a URL.
type TargetStatus struct {
	Target
	URL string // of the tag
}

// Condition is one aspect of readiness.
type Condition struct {
	Type    string // "Ready", "ConfigurationsReady", "RoutesReady", …
	State   State
	Reason  string // CamelCase, "" when True
	Message string // for people: resource, cause, fix
	Since   time.Time
}

// State is the state of a condition.
type State string

// The states of a Knative condition.
const (
	True    State = "True"
	False   State = "False"
	Unknown State = "Unknown"
)

// The condition types of services and revisions that the v1 API shows.
const (
	Ready               = "Ready"
	ConfigurationsReady = "ConfigurationsReady"
	RoutesReady         = "RoutesReady"
	ContainerHealthy    = "ContainerHealthy"
	ResourcesAvailable  = "ResourcesAvailable"
	ContainerReady      = "ContainerReady"
	Active              = "Active"
)

// Revision is an immutable version of a service's template, and in Status whether it can serve.
type Revision struct {
	Name       resource.Revision
	UID        string
	Generation int64 // of the service when it was made
	Creator    string
	Template   Template
	Status     RevisionStatus

	Version int64     `json:"-"`
	Cursor  int64     `json:"-"`
	Created time.Time `json:"-"`
	Updated time.Time `json:"-"`
	Deleted bool      `json:"-"`
}

// RevisionStatus is whether a revision can serve.
type RevisionStatus struct {
	ImageDigest string // "HOST/REPO@sha256:…", "" until it is resolved
	Conditions  []Condition
}

// ServiceKind is the kind of services' rows.
const ServiceKind = "run.service"

var (
	services  = store.NewTable[Service](ServiceKind, "Service")
	revisions = store.NewTable[Revision]("run.revision", "Revision")
)

// condition returns the condition of a type, or one that is Unknown.
func condition(all []Condition, kind string) Condition {
	for _, c := range all {
		if c.Type == kind {
			return c
		}
	}
	return Condition{Type: kind, State: Unknown}
}

// Ready is the service's Ready condition.
func (s *Service) Ready() Condition { return condition(s.Status.Conditions, Ready) }

// Settled reports whether the last change has ended, well or badly.
func (s *Service) Settled() bool {
	return s.Status.ObservedGeneration == s.Generation && s.Ready().State != Unknown
}

// Ready is the revision's Ready condition.
func (r *Revision) Ready() Condition { return condition(r.Status.Conditions, Ready) }

// setCondition replaces the condition of c's type. Since moves only when the state does.
func setCondition(all []Condition, c Condition, now time.Time) []Condition {
	c.Since = now
	for i := range all {
		if all[i].Type == c.Type {
			if all[i].State == c.State {
				c.Since = all[i].Since
			}
			all[i] = c
			return all
		}
	}
	return append(all, c)
}
