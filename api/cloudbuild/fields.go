package cloudbuild

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/builds/config"
	"giggle/fault"
)

// fields says what comes of each field of a message that a caller gives, by its path without indexes: "steps.name".
// A path stands for all below it. What is in none of them is refused: a field that is new in the message isn't dropped.
type fields struct {
	real    []string // something depends on it, or it is kept and shown
	own     []string // only the server sets it; a caller's counts for nothing, as in Cloud Build
	refused map[string]string
}

const (
	noSecrets   = "secrets are not implemented; pass none, or let a step read them itself"
	noPools     = "worker pools are not implemented"
	noPackages  = "only images and objects are implemented"
	onlyArchive = "a source is an archive in a bucket"
	onlyHere    = "only repositories of this platform and of GitHub, webhooks and runs by hand start builds"
)

// buildFields are those of a build that is asked for.
var buildFields = fields{
	real: []string{
		"source.storageSource.bucket", "source.storageSource.object", "source.storageSource.generation",
		"source.storageSource.sourceFetcher", // how Cloud Build would fetch it
		"steps.name", "steps.env", "steps.args", "steps.dir", "steps.id", "steps.waitFor", "steps.entrypoint",
		"steps.volumes.name", "steps.volumes.path", "steps.timeout", "steps.allowFailure", "steps.allowExitCodes",
		"steps.script", "steps.automapSubstitutions",
		"timeout", "images", "queueTtl", "artifacts.images", "artifacts.objects.location", "artifacts.objects.paths",
		"logsBucket", "substitutions", "tags", "serviceAccount",
		"options.requestedVerifyOption", "options.machineType", "options.diskSizeGb", "options.substitutionOption",
		"options.dynamicSubstitutions", "options.automapSubstitutions", "options.logStreamingOption", "options.logging",
		"options.env", "options.volumes.name", "options.volumes.path", "options.defaultLogsBucketBehavior",
		"options.sourceProvenanceHash",
	},
	own: []string{
		"name", "id", "projectId", "status", "statusDetail", "results", "createTime", "startTime", "finishTime",
		"logUrl", "sourceProvenance", "buildTriggerId", "timing", "approval", "warnings", "failureInfo",
		"steps.timing", "steps.pullTiming", "steps.status", "steps.exitCode", "artifacts.objects.timing",
		"options.resolvedWorkerRelease",
	},
	refused: map[string]string{
		"availableSecrets":             noSecrets,
		"secrets":                      "secrets under a KMS key are not implemented",
		"steps.secretEnv":              noSecrets,
		"options.secretEnv":            noSecrets,
		"options.workerPool":           noPools,
		"options.pool":                 noPools,
		"options.workerRelease":        noPools,
		"artifacts.mavenArtifacts":     noPackages,
		"artifacts.goModules":          noPackages,
		"artifacts.pythonPackages":     noPackages,
		"artifacts.npmPackages":        noPackages,
		"source.repoSource":            onlyArchive,
		"source.gitSource":             onlyArchive,
		"source.connectedRepository":   onlyArchive,
		"source.storageSourceManifest": onlyArchive,
		"gitConfig":                    "git is not configured by builds",
		"dependencies":                 "dependencies of builds are not implemented",
	},
}

// triggerFields are those of a trigger. Its inline build is checked by buildFields when it is run.
var triggerFields = fields{
	real: []string{
		"name", "description", "tags", "disabled", "substitutions", "includedFiles", "ignoredFiles", "serviceAccount",
		"approvalConfig", "autodetect", "filename", "build",
		"triggerTemplate.projectId", "triggerTemplate.repoName", "triggerTemplate.dir", "triggerTemplate.branchName",
		"triggerTemplate.tagName", "triggerTemplate.commitSha", "triggerTemplate.invertRegex",
		"github.owner", "github.name", "github.push", "github.pullRequest",
		"webhookConfig.secret", "gitFileSource.path", "gitFileSource.uri", "gitFileSource.repoType",
		"gitFileSource.revision", "sourceToBuild.uri", "sourceToBuild.ref", "sourceToBuild.repoType",
	},
	own: []string{"resourceName", "id", "createTime", "webhookConfig.state", "github.installationId"},
	refused: map[string]string{
		"pubsubConfig":                         onlyHere,
		"repositoryEventConfig":                onlyHere,
		"filter":                               onlyHere,
		"sourceToBuild.repository":             onlyHere,
		"sourceToBuild.githubEnterpriseConfig": onlyHere,
		"gitFileSource.repository":             onlyHere,
		"gitFileSource.githubEnterpriseConfig": onlyHere,
		"triggerTemplate.substitutions":        "substitutions are the trigger's, or those of a run",
	},
}

// firingFields are those of the source of a run by hand.
var firingFields = fields{
	real: []string{"branchName", "tagName", "commitSha", "substitutions"},
	own:  []string{"projectId", "repoName"}, // the trigger says what they are
	refused: map[string]string{
		"dir":         "a trigger says which directory it builds",
		"invertRegex": "a run is of one branch, tag or commit",
	},
}

// check refuses what a message has and f does not take, with its path below root.
func (f *fields) check(root string, m protoreflect.Message) error { return f.walk(root, "", m) }

func (f *fields) walk(at, path string, m protoreflect.Message) (err error) {
	m.Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		here, named := joined(at, d.JSONName()), joined(path, d.JSONName())
		why, known := f.of(named)
		switch {
		case why != "":
			err = fault.NotImplemented(here, "%s", why)
		case known:
		case d.Message() == nil || d.IsMap():
			err = config.NotServed(here)
		case d.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = f.walk(fmt.Sprintf("%s[%d]", here, i), named, v.List().Get(i).Message())
			}
		default:
			err = f.walk(here, named, v.Message())
		}
		return err == nil
	})
	return err
}

// of says what comes of the field at a path: known is one that is taken, why the reason of one that is not.
func (f *fields) of(path string) (why string, known bool) {
	if why := f.refused[path]; why != "" {
		return why, true
	}
	return "", slices.Contains(f.real, path) || slices.Contains(f.own, path)
}

func joined(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
