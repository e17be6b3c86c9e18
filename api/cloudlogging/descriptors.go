package cloudlogging

import (
	"google.golang.org/genproto/googleapis/api/label"
	"google.golang.org/genproto/googleapis/api/monitoredres"
)

func typeOf(d *monitoredres.MonitoredResourceDescriptor) string { return d.GetType() }

// descriptors are the types of resources that entries may be about, by type
// (https://cloud.google.com/logging/docs/api/v2/resource-list): those that the platform writes, and those that Google's
// libraries find for programs that run here or elsewhere.
var descriptors = []*monitoredres.MonitoredResourceDescriptor{
	describe("api", "Consumed API", "service", "method", "version", "location"),
	describe("audited_resource", "Audited Resource", "service", "method"),
	describe("build", "Cloud Build", "build_id", "build_trigger_id"),
	describe("cloud_run_job", "Cloud Run Job", "job_name", "location"),
	describe("cloud_run_revision", "Cloud Run Revision", "service_name", "revision_name", "location",
		"configuration_name"),
	describe("cloud_run_worker_pool", "Cloud Run Worker Pool", "worker_pool_name", "location"),
	describe("cloudsql_database", "Cloud SQL Database", "database_id", "region"),
	describe("gae_app", "GAE Application", "module_id", "version_id", "zone"),
	describe("gce_instance", "VM Instance", "instance_id", "zone"),
	describe("gcs_bucket", "GCS Bucket", "bucket_name", "location"),
	describe("generic_node", "Generic Node", "location", "namespace", "node_id"),
	describe("generic_task", "Generic Task", "location", "namespace", "job", "task_id"),
	describe("global", "Global"),
	describe("k8s_cluster", "Kubernetes Cluster", "location", "cluster_name"),
	describe("k8s_container", "Kubernetes Container", "location", "cluster_name", "namespace_name", "pod_name",
		"container_name"),
	describe("k8s_node", "Kubernetes Node", "location", "cluster_name", "node_name"),
	describe("k8s_pod", "Kubernetes Pod", "location", "cluster_name", "namespace_name", "pod_name"),
	describe("project", "Google Project"),
	describe("service_account", "Service Account", "email_id", "unique_id"),
}

func describe(kind, name string, labels ...string) *monitoredres.MonitoredResourceDescriptor {
	d := &monitoredres.MonitoredResourceDescriptor{
		Type:        kind,
		DisplayName: name,
		Labels:      []*label.LabelDescriptor{{Key: "project_id"}},
	}
	for _, l := range labels {
		d.Labels = append(d.Labels, &label.LabelDescriptor{Key: l})
	}
	return d
}
