package catalog

// apis are all APIs by host. docs/flows/add-an-api.md says what else a new one needs.
var apis = []API{
	{
		Host:   "aiplatform.googleapis.com",
		Title:  "Vertex AI API",
		Roles:  []string{"aiplatform."},
		Agents: []string{"gcp-sa-aiplatform"},
		Resources: []Resource{
			{Name: "locations/*/endpoints/*", Type: "Endpoint"},
			{Name: "locations/*/publishers/*/models/*", Type: "PublisherModel"},
		},
	},
	{
		Host:   "artifactregistry.googleapis.com",
		Title:  "Artifact Registry API",
		Roles:  []string{"artifactregistry."},
		Agents: []string{"gcp-sa-artifactregistry"},
		// Container Registry's objects were in Cloud Storage, and its clients still ask for that.
		Scopes: map[string]Access{
			"devstorage.full_control": Full,
			"devstorage.read_write":   Write,
			"devstorage.read_only":    Read,
		},
		Resources: []Resource{
			{Name: "locations/*/repositories/*", Type: "Repository", Policy: true},
			{Name: "locations/*/repositories/*/dockerImages/**", Type: "DockerImage"},
			{Name: "locations/*/repositories/*/packages/*", Type: "Package"},
			{Name: "locations/*/repositories/*/packages/*/tags/*", Type: "Tag"},
			{Name: "locations/*/repositories/*/packages/*/versions/*", Type: "Version"},
		},
	},
	{
		Host:   "cloudbilling.googleapis.com",
		Title:  "Cloud Billing API",
		Always: true, // Giggle has none to bill
		Scopes: map[string]Access{"cloud-billing": Full, "cloud-billing.readonly": Read},
	},
	{
		Host:   "cloudbuild.googleapis.com",
		Title:  "Cloud Build API",
		Roles:  []string{"cloudbuild."},
		Agents: []string{"gcp-sa-cloudbuild"},
		Resources: []Resource{
			{Name: "builds/*", Type: "Build"},
			{Name: "locations/*/builds/*", Type: "Build"},
			{Name: "triggers/*", Type: "BuildTrigger"},
			{Name: "locations/*/triggers/*", Type: "BuildTrigger"},
		},
	},
	{
		Host:      "cloudresourcemanager.googleapis.com",
		Title:     "Cloud Resource Manager API",
		Always:    true,
		Roles:     []string{"browser", "resourcemanager.project"},
		Scopes:    map[string]Access{"cloudplatformprojects": Full, "cloudplatformprojects.readonly": Read},
		Resources: []Resource{{Name: "", Type: "Project", Policy: true}},
	},
	{
		Host:   "iam.googleapis.com",
		Title:  "Identity and Access Management (IAM) API",
		Always: true,
		Roles:  []string{"iam.role", "iam.security", "iam.serviceAccount"},
		Scopes: map[string]Access{"iam": Full, "iam.test": Read},
		Resources: []Resource{
			{Name: "roles/*", Type: "Role"},
			{Name: "serviceAccounts/*", Type: "ServiceAccount", Policy: true},
			{Name: "serviceAccounts/*/keys/*", Type: "ServiceAccountKey"},
		},
	},
	{
		Host:   "iamcredentials.googleapis.com",
		Title:  "IAM Service Account Credentials API",
		Always: true,
		Scopes: map[string]Access{"iam": Full},
	},
	{
		Host:  "logging.googleapis.com",
		Title: "Cloud Logging API",
		Roles: []string{"logging."},
		Scopes: map[string]Access{
			"logging.admin": Full,
			"logging.write": Write,
			"logging.read":  Read,
		},
		Resources: []Resource{
			{Name: "logs/*", Type: "Log"},
			{Name: "locations/*/buckets/*", Type: "LogBucket"},
		},
	},
	{
		Host:  "policytroubleshooter.googleapis.com",
		Title: "Policy Troubleshooter API",
	},
	{
		Host:   "run.googleapis.com",
		Title:  "Cloud Run Admin API",
		Roles:  []string{"run."},
		Agents: []string{"serverless-robot-prod"},
		Scopes: map[string]Access{"run": Full, "run.readonly": Read},
		Resources: []Resource{
			{Name: "locations/*/services/*", Type: "Service", Policy: true},
			{Name: "locations/*/services/*/revisions/*", Type: "Revision"},
			{Name: "locations/*/jobs/*", Type: "Job"},
			{Name: "locations/*/jobs/*/executions/*", Type: "Execution"},
		},
	},
	{
		Host:      "serviceusage.googleapis.com",
		Title:     "Service Usage API",
		Always:    true,
		Roles:     []string{"serviceusage."},
		Scopes:    map[string]Access{"service.management": Full, "service.management.readonly": Read},
		Resources: []Resource{{Name: "services/*", Type: "Service"}},
	},
	{
		Host:  "sourcerepo.googleapis.com",
		Title: "Cloud Source Repositories API",
		Roles: []string{"source."},
		Scopes: map[string]Access{
			"source.full_control": Full,
			"source.read_write":   Write,
			"source.read_only":    Read,
		},
		Resources: []Resource{{Name: "repos/**", Type: "Repository", Policy: true}},
	},
	{
		Host:      "sqladmin.googleapis.com",
		Title:     "Cloud SQL Admin API",
		Parts:     []string{"sql-component.googleapis.com"},
		Roles:     []string{"cloudsql."},
		Agents:    []string{"gcp-sa-cloud-sql"},
		Scopes:    map[string]Access{"sqlservice.admin": Full, "sqlservice.login": Read},
		Resources: []Resource{{Name: "instances/*", Type: "Instance"}},
	},
	{
		Host:  "storage.googleapis.com",
		Title: "Cloud Storage API",
		Parts: []string{"storage-api.googleapis.com", "storage-component.googleapis.com"},
		Roles: []string{"storage."},
		Scopes: map[string]Access{
			"devstorage.full_control": Full,
			"devstorage.read_write":   Write,
			"devstorage.read_only":    Read,
		},
		Resources: []Resource{
			{Name: "buckets/*", Type: "Bucket", Policy: true, Global: true},
			{Name: "buckets/*/objects/**", Type: "Object", Global: true},
		},
	},
}
