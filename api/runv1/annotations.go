package runv1

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"giggle/fault"
	"giggle/run"
)

// disposition says what Giggle does with an annotation of Google's or Knative's.
type disposition int

const (
	honoured      disposition = iota // a field of the domain stands for it; package run says what acts on it
	informational                    // kept and shown; nothing depends on it
	output                           // written by the platform; what a client sends is ignored
	refused                          // not implemented yet: the call fails with the path
)

// annotation is one of Google's or Knative's: on which kinds of resources Cloud Run takes it, as its reference writes
// them, and what Giggle does with it.
type annotation struct {
	kinds string
	does  disposition
}

// annotations are those of the reference (ObjectMeta.annotations of the Admin API v1's discovery document), and those
// that gcloud 528 and older clients write beside them.
var annotations = map[string]annotation{
	"autoscaling.knative.dev/maxScale":                   {"Revision", honoured},
	"autoscaling.knative.dev/minScale":                   {"Revision", honoured},
	"run.googleapis.com/base-images":                     {"Service, Revision", informational},
	"run.googleapis.com/binary-authorization":            {"Service, Job, Execution", refused},
	"run.googleapis.com/binary-authorization-breakglass": {"Service, Job", refused},
	"run.googleapis.com/build-base-image":                {"Service", informational},
	"run.googleapis.com/build-enable-automatic-updates":  {"Service", informational},
	"run.googleapis.com/build-environment-variables":     {"Service", informational},
	"run.googleapis.com/build-function-target":           {"Service, Revision", informational},
	"run.googleapis.com/build-id":                        {"Service, Revision", informational},
	"run.googleapis.com/build-image-uri":                 {"Service", informational},
	"run.googleapis.com/build-name":                      {"Service", informational},
	"run.googleapis.com/build-service-account":           {"Service", informational},
	"run.googleapis.com/build-source-location":           {"Service, Revision", informational},
	"run.googleapis.com/build-worker-pool":               {"Service", informational},
	"run.googleapis.com/client-name":                     {all, honoured},
	"run.googleapis.com/client-version":                  {all, honoured},
	"run.googleapis.com/cloudsql-instances":              {"Revision, Execution, Instance", honoured},
	"run.googleapis.com/container-dependencies":          {"Revision, Instance", refused},
	"run.googleapis.com/cpu-throttling":                  {"Revision", honoured},
	"run.googleapis.com/custom-audiences":                {"Service", honoured},
	"run.googleapis.com/default-url-disabled":            {"Service", refused},
	"run.googleapis.com/description":                     {"Service", honoured},
	"run.googleapis.com/encryption-key":                  {"Revision, Execution, Instance", refused},
	"run.googleapis.com/encryption-key-shutdown-hours":   {"Revision", refused},
	"run.googleapis.com/execution-environment":           {"Revision, Execution", honoured},
	"run.googleapis.com/gc-traffic-tags":                 {"Service", refused},
	"run.googleapis.com/gpu-zonal-redundancy-disabled":   {"Revision", honoured},
	"run.googleapis.com/health-check-disabled":           {"Revision", refused},
	"run.googleapis.com/iap-enabled":                     {"Service", refused},
	"run.googleapis.com/ingress":                         {"Service, Instance", honoured},
	"run.googleapis.com/ingress-status":                  {"Service, Instance", output},
	"run.googleapis.com/invoker-iam-disabled":            {"Service, Instance", honoured},
	"run.googleapis.com/launch-stage":                    {"Service, Job", honoured},
	"run.googleapis.com/manualInstanceCount":             {"Service", refused},
	"run.googleapis.com/maxScale":                        {"Service", honoured},
	"run.googleapis.com/minScale":                        {"Service", honoured},
	"run.googleapis.com/network-interfaces":              {"Revision, Execution, Instance", honoured},
	"run.googleapis.com/operation-id":                    {all, output},
	"run.googleapis.com/post-key-revocation-action-type": {"Revision", refused},
	"run.googleapis.com/scalingMode":                     {"Service", refused},
	"run.googleapis.com/secrets":                         {"Revision, Execution", refused},
	"run.googleapis.com/secure-session-agent":            {"Revision", refused},
	"run.googleapis.com/sessionAffinity":                 {"Revision", refused},
	"run.googleapis.com/startup-cpu-boost":               {"Revision", honoured},
	"run.googleapis.com/urls":                            {"Service", output},
	connector:                                            {"Revision, Execution", refused},
	"run.googleapis.com/vpc-access-egress":               {"Revision, Execution, Instance", honoured},
	"serving.knative.dev/creator":                        {all, output},
	"serving.knative.dev/lastModifier":                   {all, output},
}

const (
	// all is the kinds of an annotation that every resource may have.
	all = "All resources"
	// connector names a Serverless VPC Access connector.
	connector = "run.googleapis.com/vpc-access-connector"
)

// restricted reports whether a key means something: "annotations with 'run.googleapis.com/' and
// 'autoscaling.knative.dev' are restricted". Others are kept as they came.
func restricted(key string) bool {
	prefix, _, _ := strings.Cut(key, "/")
	return prefix == "run.googleapis.com" || prefix == "autoscaling.knative.dev"
}

// sift takes the annotations of an object of a kind ("Service", "Revision") apart: what is to be kept as it came, and what
// a field stands for. It fails on an annotation that is refused, or that is not one of the kind's, with its path.
// An empty value is none: gcloud 528 sends one for what --clear-cloudsql-instances takes away.
func sift(in map[string]string, kind, path string) (kept, fields map[string]string, err error) {
	fields = make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(in)) {
		a, known := annotations[key]
		at := fmt.Sprintf("%s[%s]", path, key)
		does := informational
		switch {
		case !known && restricted(key):
			return nil, nil, fault.Invalid(at, "Annotation '%.200s' is not supported on resources of kind '%s'.", key, kind)
		case known && in[key] == "":
			continue
		case known && a.on(kind):
			does = a.does
		case known && key != launchStage: // which public files have on the template, too
			return nil, nil, fault.Invalid(at,
				"Annotation '%s' is not supported on resources of kind '%s'. Supported kinds are: %s", key, kind, a.kinds)
		}
		switch {
		case does == refused && key == connector:
			return nil, nil, run.NoConnector(at)
		case does == refused && !asksForNothing(in[key]):
			return nil, nil, fault.NotImplemented(at, "this feature is not implemented yet")
		case does == output:
		case does == honoured:
			fields[key] = in[key]
		default:
			if kept == nil {
				kept = make(map[string]string)
			}
			kept[key] = in[key]
		}
	}
	return kept, fields, nil
}

const launchStage = "run.googleapis.com/launch-stage"

// on reports whether objects of a kind may have the annotation.
func (a annotation) on(kind string) bool {
	return a.kinds == all || slices.Contains(strings.Split(a.kinds, ", "), kind)
}

// asksForNothing reports whether an annotation's value spells out that a feature is off.
func asksForNothing(value string) bool {
	return strings.EqualFold(value, "false") || value == "automatic" // of scalingMode
}

// spell adds to what is kept the annotations that spell a default out, which no field writes back: who wrote one looks
// for it, as Terraform does.
func spell(kept, fields, written map[string]string) map[string]string {
	for k, v := range fields {
		if _, ok := written[k]; ok || v == "" {
			continue
		}
		if kept == nil {
			kept = make(map[string]string)
		}
		kept[k] = v
	}
	return kept
}

// reader reads typed values out of annotations and remembers the first error.
type reader struct {
	fields map[string]string
	path   string
	err    error
}

func (r *reader) text(key string) string { return r.fields[key] }

func (r *reader) number(key string) int {
	s, ok := r.fields[key]
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(s)
	if (err != nil || n < 0) && r.err == nil {
		r.err = fault.Invalid(fmt.Sprintf("%s[%s]", r.path, key), "%.40q is not a whole number", s)
	}
	return n
}

// flag reads a boolean; gcloud 528 writes "True" and "False".
func (r *reader) flag(key string, def bool) bool {
	s, ok := r.fields[key]
	if !ok {
		return def
	}
	switch strings.ToLower(s) {
	case "true":
		return true
	case "false":
		return false
	}
	if r.err == nil {
		r.err = fault.Invalid(fmt.Sprintf("%s[%s]", r.path, key), "%.40q is not true or false", s)
	}
	return def
}

// texts reads a list that is written as JSON.
func (r *reader) texts(key string) (out []string) {
	r.json(key, &out)
	return out
}

// json reads a list that is written as JSON.
func (r *reader) json(key string, out any) {
	s, ok := r.fields[key]
	if !ok {
		return
	}
	if err := json.Unmarshal([]byte(s), out); err != nil && r.err == nil {
		r.err = fault.Invalid(fmt.Sprintf("%s[%s]", r.path, key), "%.40q is not a JSON list of what belongs here", s)
	}
}

// put writes annotations; empty values are left out.
type putter map[string]string

func (p putter) text(key, v string) {
	if v != "" {
		p[key] = v
	}
}

func (p putter) number(key string, n int) {
	if n != 0 {
		p[key] = strconv.Itoa(n)
	}
}

func (p putter) flag(key string, on bool) {
	if on {
		p[key] = "true"
	}
}

func (p putter) texts(key string, v []string) { p.json(key, v, len(v)) }

// json writes a list of n.
func (p putter) json(key string, list any, n int) {
	if n == 0 {
		return
	}
	b, err := json.Marshal(list)
	if err == nil { // texts always encode
		p[key] = string(b)
	}
}

func (p putter) all(m map[string]string) {
	for k, v := range m {
		p[k] = v
	}
}

// readServiceAnnotations fills the service from its annotations.
func readServiceAnnotations(s *run.Service, in map[string]string) error {
	const path = "metadata.annotations"
	kept, fields, err := sift(in, "Service", path)
	if err != nil {
		return err
	}
	r := &reader{fields: fields, path: path}
	s.Annotations = kept
	s.Client, s.ClientVersion = r.text("run.googleapis.com/client-name"), r.text("run.googleapis.com/client-version")
	s.Description, s.LaunchStage = r.text("run.googleapis.com/description"), r.text(launchStage)
	s.InvokerIAMDisabled = r.flag("run.googleapis.com/invoker-iam-disabled", false)
	s.CustomAudiences = r.texts("run.googleapis.com/custom-audiences")
	s.Scaling = run.Scaling{Min: r.number("run.googleapis.com/minScale"), Max: r.number("run.googleapis.com/maxScale")}
	switch in := run.Ingress(r.text("run.googleapis.com/ingress")); in {
	case "", run.IngressAll:
		s.Ingress = run.IngressAll
	case run.IngressInternal, run.IngressInternalLoad:
		s.Ingress = in
	default:
		return fault.Invalid(path+"[run.googleapis.com/ingress]",
			"%.40q is not all, internal or internal-and-cloud-load-balancing", in)
	}
	s.Annotations = spell(kept, fields, writeServiceAnnotations(s, ""))
	return r.err
}

func writeServiceAnnotations(s *run.Service, urls string) map[string]string {
	p := make(putter)
	p.all(s.Annotations)
	p.text("run.googleapis.com/client-name", s.Client)
	p.text("run.googleapis.com/client-version", s.ClientVersion)
	p.text("run.googleapis.com/description", s.Description)
	p.text("run.googleapis.com/launch-stage", s.LaunchStage)
	p.text("run.googleapis.com/ingress", string(s.Ingress))
	p.text("run.googleapis.com/ingress-status", string(s.Ingress))
	p.flag("run.googleapis.com/invoker-iam-disabled", s.InvokerIAMDisabled)
	p.texts("run.googleapis.com/custom-audiences", s.CustomAudiences)
	p.number("run.googleapis.com/minScale", s.Scaling.Min)
	p.number("run.googleapis.com/maxScale", s.Scaling.Max)
	p.text("serving.knative.dev/creator", s.Creator)
	p.text("serving.knative.dev/lastModifier", s.LastModifier)
	p.text("run.googleapis.com/operation-id", s.Status.Operation[strings.LastIndexByte(s.Status.Operation, '/')+1:])
	p.text("run.googleapis.com/urls", urls)
	return p
}

// readTemplateAnnotations fills the template from its annotations.
func readTemplateAnnotations(t *run.Template, in map[string]string) error {
	const path = "spec.template.metadata.annotations"
	kept, fields, err := sift(in, "Revision", path)
	if err != nil {
		return err
	}
	r := &reader{fields: fields, path: path}
	t.Annotations = kept
	t.Client, t.ClientVersion = r.text("run.googleapis.com/client-name"), r.text("run.googleapis.com/client-version")
	t.Scaling = run.Scaling{
		Min: r.number("autoscaling.knative.dev/minScale"),
		Max: r.number("autoscaling.knative.dev/maxScale"),
	}
	t.CPUAlways = !r.flag("run.googleapis.com/cpu-throttling", true)
	t.StartupCPUBoost = r.flag("run.googleapis.com/startup-cpu-boost", run.DefaultCPUBoost)
	t.ExecutionEnvironment = r.text("run.googleapis.com/execution-environment")
	t.GPUZonalRedundancyDisabled = r.flag("run.googleapis.com/gpu-zonal-redundancy-disabled", false)
	var interfaces []run.NetworkInterface
	r.json("run.googleapis.com/network-interfaces", &interfaces)
	if egress := r.text("run.googleapis.com/vpc-access-egress"); egress != "" || len(interfaces) > 0 {
		t.VPC = &run.VPCAccess{Egress: egress, Interfaces: interfaces}
	}
	if names := r.text("run.googleapis.com/cloudsql-instances"); names != "" {
		t.CloudSQL.Instances = strings.Split(names, ",")
	}
	t.Annotations = spell(kept, fields, writeTemplateAnnotations(t))
	return r.err
}

func writeTemplateAnnotations(t *run.Template) map[string]string {
	p := make(putter)
	p.all(t.Annotations)
	p.text("run.googleapis.com/client-name", t.Client)
	p.text("run.googleapis.com/client-version", t.ClientVersion)
	p.number("autoscaling.knative.dev/minScale", t.Scaling.Min)
	p.number("autoscaling.knative.dev/maxScale", t.Scaling.Max)
	if t.CPUAlways {
		p["run.googleapis.com/cpu-throttling"] = "false"
	}
	p["run.googleapis.com/startup-cpu-boost"] = strconv.FormatBool(t.StartupCPUBoost) // what is left out is true
	p.text("run.googleapis.com/execution-environment", t.ExecutionEnvironment)
	p.text("run.googleapis.com/cloudsql-instances", strings.Join(t.CloudSQL.Instances, ","))
	p.flag("run.googleapis.com/gpu-zonal-redundancy-disabled", t.GPUZonalRedundancyDisabled)
	if t.VPC != nil {
		p.text("run.googleapis.com/vpc-access-egress", t.VPC.Egress)
		p.json("run.googleapis.com/network-interfaces", t.VPC.Interfaces, len(t.VPC.Interfaces))
	}
	return p
}
