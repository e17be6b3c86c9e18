package runv1

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	"giggle/fault"
	"giggle/resource"
	"giggle/run"
)

// The labels that the platform sets.
const (
	labelLocation      = "cloud.googleapis.com/location"
	labelService       = "serving.knative.dev/service"
	labelServiceUID    = "serving.knative.dev/serviceUid"
	labelConfiguration = "serving.knative.dev/configuration"
	labelGeneration    = "serving.knative.dev/configurationGeneration"
	labelRoute         = "serving.knative.dev/route"
)

// fromWire reads a service of a location from a Knative object. It fails with the path of the field.
func fromWire(in resource.Location, w *service) (run.Service, error) {
	s := run.Service{Name: resource.Service(in.Project, in.Location, w.Metadata.Name)}
	if w.APIVersion != apiVersion || w.Kind != "Service" {
		return s, fault.Invalid("apiVersion", "an object of apiVersion %s and kind Service is needed", apiVersion)
	}
	if w.Metadata.ResourceVersion != "" {
		v, err := strconv.ParseInt(w.Metadata.ResourceVersion, 10, 64)
		if err != nil || v <= 0 {
			return s, fault.Invalid("metadata.resourceVersion", "%.40q is not one that this API gave",
				w.Metadata.ResourceVersion)
		}
		s.Version = v
	}
	s.Labels = without(w.Metadata.Labels, labelLocation)
	if err := readServiceAnnotations(&s, w.Metadata.Annotations); err != nil {
		return s, err
	}
	for _, t := range w.Spec.Traffic {
		s.Traffic = append(s.Traffic, run.Target{
			Revision: t.RevisionName,
			Latest:   t.LatestRevision,
			Percent:  int(t.Percent),
			Tag:      t.Tag,
		})
	}
	t := &w.Spec.Template
	s.Template = run.Template{
		Revision:       t.Metadata.Name,
		Labels:         without(t.Metadata.Labels, labelLocation),
		ServiceAccount: t.Spec.ServiceAccountName,
		Timeout:        int(t.Spec.TimeoutSeconds),
		Concurrency:    int(t.Spec.ContainerConcurrency),
		NodeSelector:   t.Spec.NodeSelector,
	}
	if err := readTemplateAnnotations(&s.Template, t.Metadata.Annotations); err != nil {
		return s, err
	}
	for i := range t.Spec.Containers {
		c, err := containerFromWire(&t.Spec.Containers[i], i)
		if err != nil {
			return s, err
		}
		s.Template.Containers = append(s.Template.Containers, c)
	}
	return s, nil
}

func containerFromWire(w *container, i int) (run.Container, error) {
	path := fmt.Sprintf("spec.template.spec.containers[%d]", i)
	c := run.Container{
		Name:       w.Name,
		Image:      w.Image,
		Command:    w.Command,
		Args:       w.Args,
		WorkingDir: w.WorkingDir,
	}
	for _, e := range w.Env {
		c.Env = append(c.Env, run.EnvVar{Name: e.Name, Value: e.Value})
	}
	for key, v := range w.Resources.Limits {
		if err := c.SetLimit(i, key, v); err != nil {
			return c, fieldNames.Translate(err)
		}
	}
	if len(w.Ports) > 1 {
		return c, fault.Invalid(path+".ports", "at most one port is allowed")
	}
	if len(w.Ports) == 1 {
		c.Port, c.PortName = int(w.Ports[0].ContainerPort), w.Ports[0].Name
		if p := w.Ports[0].Protocol; p != "" && p != "TCP" {
			return c, fault.Invalid(path+".ports[0].protocol", "must be TCP")
		}
	}
	var err error
	for _, x := range []struct {
		field string
		from  *probe
		to    **run.Probe
	}{{"startupProbe", w.StartupProbe, &c.Startup}, {"livenessProbe", w.LivenessProbe, &c.Liveness},
		{"readinessProbe", w.ReadinessProbe, &c.Readiness}} {
		if *x.to, err = probeFromWire(x.from, path+"."+x.field); err != nil {
			return c, err
		}
	}
	return c, nil
}

func without(m map[string]string, keys ...string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := maps.Clone(m)
	for _, k := range keys {
		delete(out, k)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func with(m map[string]string, more map[string]string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = make(map[string]string)
	}
	maps.Copy(out, more)
	return out
}

// toWire writes a service as the Knative object that Cloud Run shows.
func toWire(s *run.Service, p resource.Project) *service {
	hashed, numbered := run.URLs(p, s.Name)
	urls, err := json.Marshal([]string{numbered, hashed})
	if err != nil {
		urls = nil // two strings always encode
	}
	w := &service{
		APIVersion: apiVersion,
		Kind:       "Service",
		Metadata: meta{
			Name:      s.Name.ID,
			Namespace: p.Number,
			UID:       s.UID,
			ResourceVersion: strconv.FormatInt(s.Version,
				10),
			Generation:        flexInt(s.Generation),
			SelfLink:          "/apis/" + apiVersion + "/namespaces/" + p.Number + "/services/" + s.Name.ID,
			CreationTimestamp: formatTime(s.Created),
			Labels: with(s.Labels,
				map[string]string{labelLocation: s.Name.Location.Location}),
			Annotations: writeServiceAnnotations(s, string(urls)),
		},
		Spec:   serviceSpec{Template: templateToWire(&s.Template), Traffic: trafficToWire(wanted(s.Traffic))},
		Status: statusToWire(s, hashed),
	}
	return w
}

// wanted is what a service asks for in the form of what it gets.
func wanted(ts []run.Target) []run.TargetStatus {
	out := make([]run.TargetStatus, len(ts))
	for i, t := range ts {
		out[i].Target = t
	}
	return out
}

func trafficToWire(ts []run.TargetStatus) []traffic {
	var out []traffic
	for _, t := range ts {
		out = append(out, traffic{
			RevisionName:   t.Revision,
			LatestRevision: t.Latest,
			Percent:        flexInt(t.Percent),
			Tag:            t.Tag,
			URL:            t.URL,
		})
	}
	return out
}

func statusToWire(s *run.Service, url string) serviceStatus {
	return serviceStatus{
		ObservedGeneration:        flexInt(s.Status.ObservedGeneration),
		Conditions:                conditionsToWire(s.Status.Conditions),
		LatestReadyRevisionName:   s.Status.LatestReady,
		LatestCreatedRevisionName: s.Status.LatestCreated,
		Traffic:                   trafficToWire(s.Status.Traffic),
		URL:                       url,
		Address:                   &address{URL: url},
	}
}

func conditionsToWire(cs []run.Condition) []condition {
	var out []condition
	for _, c := range cs {
		w := condition{
			Type:               c.Type,
			Status:             string(c.State),
			Reason:             c.Reason,
			Message:            c.Message,
			LastTransitionTime: formatTime(c.Since),
		}
		if c.Type == run.EmulatedGPU {
			w.Severity = "Warning"
		}
		out = append(out, w)
	}
	return out
}

func templateToWire(t *run.Template) template {
	return template{
		Metadata: meta{Name: t.Revision, Labels: t.Labels, Annotations: writeTemplateAnnotations(t)},
		Spec:     specToWire(t),
	}
}

func specToWire(t *run.Template) revisionSpec {
	out := revisionSpec{
		ContainerConcurrency: flexInt(t.Concurrency),
		TimeoutSeconds:       flexInt(t.Timeout),
		ServiceAccountName:   t.ServiceAccount,
		NodeSelector:         t.NodeSelector,
	}
	for _, c := range t.Containers {
		w := container{
			Name:       c.Name,
			Image:      c.Image,
			Command:    c.Command,
			Args:       c.Args,
			WorkingDir: c.WorkingDir,
		}
		for _, e := range c.Env {
			w.Env = append(w.Env, envVar{e.Name, e.Value})
		}
		limits := make(putter)
		limits.text("cpu", c.CPU)
		limits.text("memory", c.Memory)
		limits.number("nvidia.com/gpu", c.GPU)
		if len(limits) > 0 {
			w.Resources.Limits = limits
		}
		if c.Port != 0 || c.PortName != "" {
			w.Ports = []port{{Name: c.PortName, ContainerPort: flexInt(c.Port)}}
		}
		w.StartupProbe = probeToWire(c.Startup)
		w.LivenessProbe = probeToWire(c.Liveness)
		w.ReadinessProbe = probeToWire(c.Readiness)
		out.Containers = append(out.Containers, w)
	}
	return out
}

// revisionToWire writes a revision. Active says whether a route leads to it.
func revisionToWire(r *run.Revision, p resource.Project, active bool) *revision {
	t := r.Template
	status := run.False
	if active {
		status = run.True
	}
	conds := append([]condition(nil), conditionsToWire(r.Status.Conditions)...)
	conds = append(conds, condition{
		Type:               run.Active,
		Status:             string(status),
		Severity:           "Info",
		LastTransitionTime: formatTime(r.Updated),
	})
	annotations := with(writeTemplateAnnotations(&t), map[string]string{"serving.knative.dev/creator": r.Creator})
	return &revision{
		APIVersion: apiVersion,
		Kind:       "Revision",
		Metadata: meta{
			Name:      r.Name.ID,
			Namespace: p.Number,
			UID:       r.UID,
			ResourceVersion: strconv.FormatInt(r.Cursor,
				10),
			Generation:        1,
			SelfLink:          "/apis/" + apiVersion + "/namespaces/" + p.Number + "/revisions/" + r.Name.ID,
			CreationTimestamp: formatTime(r.Created),
			Annotations:       annotations,
			Labels: with(t.Labels, map[string]string{
				labelLocation: r.Name.Service.Location.Location, labelService: r.Name.Service.ID,
				labelConfiguration: r.Name.Service.ID,
				labelGeneration:    strconv.FormatInt(r.Generation, 10), labelRoute: r.Name.Service.ID,
			}),
			OwnerReferences: []ownerReference{{
				APIVersion:         apiVersion,
				Kind:               "Configuration",
				Name:               r.Name.Service.ID,
				Controller:         true,
				BlockOwnerDeletion: true,
			}},
		},
		Spec: specToWire(&t),
		Status: revisionStatus{
			ObservedGeneration: 1,
			Conditions:         conds,
			ImageDigest:        r.Status.ImageDigest,
			LogURL:             logURL(r, p),
		},
	}
}

func logURL(r *run.Revision, p resource.Project) string {
	return "https://console.cloud.google.com/logs/viewer?project=" + p.ID +
		"&resource=cloud_run_revision/service_name/" + r.Name.Service.ID + "/revision_name/" + r.Name.ID
}

// owned is the metadata of a Configuration or Route, which a service owns and which have its name.
func owned(s *service, kind string) meta {
	m := s.Metadata
	m.Annotations = nil
	m.SelfLink = "/apis/" + apiVersion + "/namespaces/" + m.Namespace + "/" + kind + "/" + m.Name
	m.Labels = with(m.Labels, map[string]string{labelService: m.Name, labelServiceUID: m.UID})
	m.OwnerReferences = []ownerReference{{
		APIVersion:         apiVersion,
		Kind:               "Service",
		Name:               m.Name,
		UID:                m.UID,
		Controller:         true,
		BlockOwnerDeletion: true,
	}}
	return m
}

// pickConditions returns the conditions of a type under the name Ready.
func pickConditions(cs []condition, kind string) []condition {
	for _, c := range cs {
		if c.Type == kind {
			c.Type = run.Ready
			return []condition{c}
		}
	}
	return nil
}

func configurationOf(s *service) *configuration {
	return &configuration{
		APIVersion: apiVersion,
		Kind:       "Configuration",
		Metadata:   owned(s, "configurations"),
		Spec:       serviceSpec{Template: s.Spec.Template},
		Status: configurationStatus{
			ObservedGeneration: s.Status.ObservedGeneration,
			Conditions: pickConditions(s.Status.Conditions,
				run.ConfigurationsReady),
			LatestReadyRevisionName:   s.Status.LatestReadyRevisionName,
			LatestCreatedRevisionName: s.Status.LatestCreatedRevisionName,
		},
	}
}

func routeOf(s *service) *route {
	return &route{
		APIVersion: apiVersion,
		Kind:       "Route",
		Metadata:   owned(s, "routes"),
		Spec:       routeSpec{Traffic: s.Spec.Traffic},
		Status: serviceStatus{
			ObservedGeneration: s.Status.ObservedGeneration,
			Conditions: pickConditions(s.Status.Conditions,
				run.RoutesReady),
			Traffic: s.Status.Traffic,
			URL:     s.Status.URL,
			Address: s.Status.Address,
		},
	}
}
