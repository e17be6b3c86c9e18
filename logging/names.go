package logging

import "giggle/resource"

// The logs that Cloud Run writes (https://cloud.google.com/run/docs/logging).
const (
	Requests = "run.googleapis.com/requests"      // one entry a request
	Stdout   = "run.googleapis.com/stdout"        // what containers write
	Stderr   = "run.googleapis.com/stderr"        // what containers write to standard error
	System   = "run.googleapis.com/varlog/system" // what the platform says about an instance
)

// Builds is the log that Cloud Build writes: one entry a line of a build's log.
const Builds = "cloudbuild"

// The types of monitored resources (https://cloud.google.com/logging/docs/api/v2/resource-list).
const (
	RevisionType = "cloud_run_revision"
	BuildType    = "build"
)

// InstanceLabel is the label of an entry that says which instance of a revision it is about.
const InstanceLabel = "instanceId"

// Revision is a revision of a service as a monitored resource. It is made once and shared by the entries.
func Revision(rev resource.Revision) *Resource {
	s := rev.Service
	return &Resource{RevisionType, map[string]string{
		"project_id":         s.Project,
		"location":           s.Location.Location,
		"service_name":       s.ID,
		"configuration_name": s.ID,
		"revision_name":      rev.ID,
	}}
}

// Build is a build as a monitored resource. Trigger is "" for one that none asked for.
func Build(project, id, trigger string) *Resource {
	return &Resource{BuildType, map[string]string{"project_id": project, "build_id": id, "build_trigger_id": trigger}}
}
