package cloudbuild_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"giggle/api/cloudbuild"
	"giggle/builds"
	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// configs are files of the documentation's features: what the first step looks like when they are accepted, or why
// they are refused.
var configs = []struct{ name, yaml, want, refused string }{
	{name: "echo", yaml: "steps:\n- name: ubuntu\n  args: [echo, hi there]\n", want: "ubuntu [echo hi there]"},
	{name: "json", yaml: `{"steps":[{"name":"ubuntu","args":["a"]}],"timeout":"60s"}`, want: "ubuntu [a]"},
	{name: "snake case", yaml: "steps: [{name: u, wait_for: ['-']}]\nlogs_bucket: gs://b", want: "u []"},
	// Numbers and booleans of YAML 1.1 are no text, as package config of cloud-build-local and gcloud's own reader have it.
	{name: "a number for text", yaml: "steps: [{name: u, args: [sleep, 1]}]", refused: "steps[0].args[1]: line 1: json: cannot unmarshal number into Go value of type string"},
	{name: "a version for text", yaml: "steps: [{name: u}]\nsubstitutions: {_V: 1.20}", refused: "substitutions._V: line 2: json: cannot unmarshal number"},
	{name: "a boolean for text", yaml: "steps: [{name: u, args: [true]}]", refused: "json: cannot unmarshal bool"},
	{name: "yes for text", yaml: "steps: [{name: u, args: [yes]}]", refused: "json: cannot unmarshal bool"},
	{name: "nothing for text", yaml: "steps: [{name: u, args: [null]}]", refused: "steps[0].args[0]"},
	{name: "octal for text", yaml: "steps: [{name: u, args: [0755]}]", refused: "json: cannot unmarshal number"},
	{name: "quoted", yaml: `steps: [{name: u, args: ['1', "true", 'yes', !!str 1, v1.2, 1.2.3, 2020-01-01, -y]}]`, want: "u [1 true yes 1 v1.2 1.2.3 2020-01-01 -y]"},
	{name: "a bare timeout", yaml: "steps: [{name: u}]\ntimeout: 60", refused: "timeout: line 2: json: cannot unmarshal number"},
	{name: "a text for a list", yaml: "steps: [{name: u, args: foo}]", refused: "['foo'], not 'foo'"},
	{name: "yes for a boolean", yaml: "steps: [{name: u, allowFailure: yes}]", want: "u []"},
	{name: "text for a boolean", yaml: "steps: [{name: u, allowFailure: 'true'}]", refused: "steps[0].allowFailure"},
	{name: "text for a number", yaml: "steps: [{name: u}]\noptions: {diskSizeGb: '100'}", want: "u []"},
	{name: "half a number", yaml: "steps: [{name: u}]\noptions: {diskSizeGb: 1.5}", refused: "options.diskSizeGb"},
	{name: "a key twice", yaml: "timeout: 5s\nsteps: [{name: u, args: [a], args: [b]}]\ntimeout: 60s", want: "u [b]"},
	{name: "a substitution twice", yaml: "steps: [{name: u, args: [$_A]}]\nsubstitutions: {_A: a, _A: b}", want: "u [b]"},
	{name: "a merge", yaml: "steps: [&s {name: u, args: [a]}, {<<: *s, id: x}]", want: "u [a]"},
	{name: "a merge that is overridden", yaml: "steps: [{args: [b], <<: &s {name: u, args: [a]}}, *s]", want: "u [b]"},
	{name: "a merge of several", yaml: "steps: [{<<: [{name: u}, {name: v, args: [a]}]}]", want: "u [a]"},
	{name: "a merge of a text", yaml: "steps: [{<<: x, name: u}]", refused: "to merge"},
	{name: "a merge of substitutions", yaml: "steps: [{name: u, args: [$_A]}]\nsubstitutions: {<<: {_A: a}}", want: "u [a]"},
	{name: "a substitution without a value", yaml: "steps: [{name: u, args: [b$_A]}]\nsubstitutions:\n  _A:\n", want: "u [b]"},
	{name: "merges of merges", yaml: bomb(), refused: "build configuration"},
	{name: "an anchor of its own", yaml: "x-args: &a [x]\nsteps: [{name: u, args: *a}]", refused: "x-args"},
	// The fields of https://cloudbuild.googleapis.com/$discovery/rest?version=v1 that the message has not.
	{name: "archives to be pushed", yaml: "steps: [{name: u}]\nartifacts: {oci: [{file: a.tar, registryPath: gcr.io/p/x}]}", refused: "artifacts.oci: Cloud Build has this field"},
	{name: "generic artifacts", yaml: "steps: [{name: u}]\nartifacts: {genericArtifacts: []}", refused: "artifacts.genericArtifacts: Cloud Build has this field"},
	{name: "a topic", yaml: "steps: [{name: u}]\noptions: {pubsub_topic: t}", refused: "options.pubsub_topic: Cloud Build has this field"},
	{name: "machines", yaml: "steps: [{name: u}]\noptions: {rankedMachineSeries: []}", refused: "options.rankedMachineSeries: Cloud Build has"},
	{name: "results of a step", yaml: "steps: [{name: u, results: []}]", refused: "steps[0].results: Cloud Build has"},
	{name: "structured logs", yaml: "steps: [{name: u}]\noptions: {enableStructuredLogging: true}", refused: "options.enableStructuredLogging: Cloud Build has"},
	{name: "hashes", yaml: "steps: [{name: u}]\noptions: {sourceProvenanceHash: [SHA256, MD5], logStreamingOption: STREAM_OFF}", want: "u []"},
	{name: "hashes that are not made", yaml: "steps: [{name: u}]\noptions: {sourceProvenanceHash: [GO_MODULE_H1]}", refused: "options.sourceProvenanceHash[0]"},
	{name: "aliases", yaml: "steps: [{name: u, args: &a [x]}, {name: u, args: *a}]", want: "u [x]"},
	{
		name: "substitution",
		yaml: "steps: [{name: 'gcr.io/$PROJECT_ID/x', args: ['$_A', '${_A}b', '$$HOME', '$(pwd)']}]\nsubstitutions: {_A: v}",
		want: "gcr.io/giggle/x [v vb $HOME $(pwd)]",
	},
	{
		name: "suffix and prefix",
		yaml: "steps: [{name: u, args: ['${_A%.*}', '${_A%%.*}', '${_A#*.}', '${_A##*.}']}]\nsubstitutions: {_A: a.b.c}\noptions: {dynamicSubstitutions: true}",
		want: "u [a.b a b.c c]",
	},
	{
		name: "replace",
		yaml: "steps: [{name: u, args: ['${_A/a/x}', '${_A//a/x}', '${_A/#a/x}', '${_A/%a/x}', '${_A//a}']}]\nsubstitutions: {_A: aba}\noptions: {dynamicSubstitutions: true}",
		want: "u [xba xbx xba abx b]",
	},
	{
		name: "slices and case",
		yaml: "steps: [{name: u, args: ['${_A:1:2}', '${_A:1}', '${_A: -2}', '${_A^^}', '${_A^}', '${_B,,}', '${_C:-d$_A}', '${_A:+y}']}]\nsubstitutions: {_A: abcd, _B: XY, _C: ''}\noptions: {dynamicSubstitutions: true}",
		want: "u [bc bcd cd ABCD Abcd xy dabcd y]",
	},
	{
		name: "dynamic",
		yaml: "steps: [{name: u, args: ['$_B']}]\nsubstitutions: {_A: x, _B: '${_A}-$PROJECT_ID'}\noptions: {dynamicSubstitutions: true}",
		want: "u [x-giggle]",
	},
	{
		name: "not dynamic",
		yaml: "steps: [{name: u, args: ['$_B$_A']}]\nsubstitutions: {_A: x, _B: '${_A}'}",
		want: "u [${_A}x]",
	},
	{
		name: "loose",
		yaml: "steps: [{name: u, args: ['a${_NO}b', '$$HOME']}]\nsubstitutions: {_U: x}\noptions: {substitutionOption: ALLOW_LOOSE}",
		want: "u [ab $HOME]",
	},
	{
		name: "git's built-ins are empty",
		yaml: "steps: [{name: u, args: ['x$SHORT_SHA', '$LOCATION', '$PROJECT_NUMBER']}]",
		want: "u [x global 42]",
	},
	{
		name: "everything",
		want: "u [x]",
		yaml: `
steps:
- {name: u, id: one, args: [x], env: [A=b], dir: sub/dir, entrypoint: sh, timeout: 90s, allowFailure: true, volumes: [{name: vol, path: /v}]}
- {name: u, id: two, script: 'echo $_X', waitFor: [one], automapSubstitutions: true, allowExitCodes: [1, 2], volumes: [{name: vol, path: /w/}]}
timeout: 1h
queueTtl: 600s
logsBucket: gs://logs/dir
tags: [a, b-c]
substitutions: {_X: y}
images: ['europe-north1-docker.pkg.dev/$PROJECT_ID/r/i:$BUILD_ID']
artifacts: {objects: {location: gs://b/d/, paths: ['*.txt', 'a/**']}}
options: {machineType: E2_HIGHCPU_8, logging: GCS_ONLY, env: [B=c], requestedVerifyOption: VERIFIED, diskSizeGb: 200}
`,
	},
	{name: "unknown field", yaml: "steps: [{name: u, arg: [x]}]", refused: "steps[0].arg"},
	{name: "field twice", yaml: "steps: [{name: u, wait_for: [], waitFor: []}]", refused: "steps[0].waitFor"},
	{name: "a list in place of text", yaml: "steps: [{name: [u]}]", refused: "steps[0].name"},
	{name: "a map in place of a list", yaml: "steps: {name: u}", refused: "steps"},
	{name: "bad enum", yaml: "steps: [{name: u}]\noptions: {logging: LOUD}", refused: "options.logging"},
	{name: "bad duration", yaml: "steps: [{name: u}]\ntimeout: soon", refused: "timeout"},
	{name: "too long", yaml: "steps: [{name: u}]\ntimeout: 25h", refused: "timeout"},
	{name: "empty", yaml: "", refused: "empty"},
	{name: "not yaml", yaml: "steps: [", refused: "not valid YAML"},
	{name: "no steps", yaml: "tags: [a]", refused: "steps"},
	{name: "no name", yaml: "steps: [{args: [x]}]", refused: "steps[0].name"},
	{name: "id twice", yaml: "steps: [{name: u, id: a}, {name: u, id: a}]", refused: "steps[1].id"},
	{name: "waits for what is not there", yaml: "steps: [{name: u, waitFor: [x]}]", refused: "steps[0].waitFor[0]"},
	{name: "waits forwards", yaml: "steps: [{name: u, waitFor: [b]}, {name: u, id: b}]", refused: "has not been defined before it"},
	{name: "waits for itself", yaml: "steps: [{name: u, id: a, waitFor: [a]}]", refused: "steps[0].waitFor[0]"},
	{name: "script and args", yaml: "steps: [{name: u, script: x, args: [y]}]", refused: "steps[0].script"},
	{name: "env", yaml: "steps: [{name: u, env: [x]}]", refused: "steps[0].env[0]"},
	{name: "dir leads out", yaml: "steps: [{name: u, dir: ../x}]", refused: "steps[0].dir"},
	{name: "volume used once", yaml: "steps: [{name: u, volumes: [{name: vol, path: /v}]}]", refused: "only used by one step"},
	{
		name:    "volume over the workspace",
		yaml:    "steps: [{name: u, volumes: [{name: vol, path: /workspace/}]}]",
		refused: "steps[0].volumes[0].path",
	},
	{name: "unmatched", yaml: "steps: [{name: u, args: ['$_NO']}]", refused: `key in the template "_NO"`},
	{name: "not built in", yaml: "steps: [{name: u, args: ['$HOME']}]", refused: "not a valid built-in substitution"},
	{name: "unused", yaml: "steps: [{name: u}]\nsubstitutions: {_A: b}", refused: `key "_A"`},
	{name: "lower-case key", yaml: "steps: [{name: u}]\nsubstitutions: {_a: b}", refused: "_a"},
	{name: "the platform's own", yaml: "steps: [{name: u}]\nsubstitutions: {BUILD_ID: b}", refused: "BUILD_ID"},
	{
		name:    "made of itself",
		yaml:    "steps: [{name: u, args: [$_A]}]\nsubstitutions: {_A: '$_B', _B: '$_A'}\noptions: {dynamicSubstitutions: true}",
		refused: "cycle in evaluating substitutions",
	},
	{
		name: "grows",
		yaml: "steps: [{name: u, args: [$_D]}]\nsubstitutions: {_A: '" + strings.Repeat("x", 2000) +
			"', _B: '$_A$_A', _C: '$_B$_B', _D: '$_C$_C'}\noptions: {dynamicSubstitutions: true}",
		refused: "grows over",
	},
	// "Substituting variable values" and "Use payload bindings and bash parameter expansions in substitutions" of Cloud
	// Build's documentation; subst.FindTemplateParameters and validate.CheckSubstitutionTemplate of cloud-build-local.
	{
		name: "expansions are the shell's unless asked for",
		yaml: "steps: [{name: u, args: ['${HOME:-/root}', '${V#v}', '${V%%.*}', '${A[@]}', '${#A}', '${BUILD_ID:10}', '${!A}', '${X', '${lower}']}]",
		want: "u [${HOME:-/root} ${V#v} ${V%%.*} ${A[@]} ${#A} ${BUILD_ID:10} ${!A} ${X ${lower}]",
	},
	{
		name:    "an expansion does not use its name unless asked for",
		yaml:    "steps: [{name: u, args: ['${_A:-x}']}]\nsubstitutions: {_A: '1'}",
		refused: `key "_A" in the substitution data is not matched in the template`,
	},
	{
		name: "the shell's beside those that are asked for",
		yaml: "steps: [{name: u, args: ['${HOME:-/root}', '${_A:-x}', '${_A[@]}', '${_B:-y}', '${#_A}', '${_A:?no}']}]\nsubstitutions: {_A: abc}\noptions: {dynamicSubstitutions: true}",
		want: "u [${HOME:-/root} abc ${_A[@]} y 3 ${_A:?no}]",
	},
	{
		name: "escapes",
		yaml: "steps: [{name: u, args: ['$$_A', '$${_A}', '$$$_A', '$$$$_A', '$_Ab', '$_A$_A', '$1 $ $%']}]\nsubstitutions: {_A: v}",
		want: "u [$_A ${_A} $v $$_A vb vv $1 $ $%]",
	},
	{
		name:    "loose lets no name be that is not built in",
		yaml:    "steps: [{name: u, args: ['$HOME']}]\noptions: {substitutionOption: ALLOW_LOOSE}",
		refused: `key in the template "HOME" is not a valid built-in substitution`,
	},
	{
		name: "what nothing has set is empty in values",
		yaml: "steps: [{name: u, args: ['x$_A', '$_B', '$_C']}]\nsubstitutions: {_A: '${_NO}', _B: '${UNSET:-d}', _C: '${UNSET=e}'}\noptions: {dynamicSubstitutions: true}",
		want: "u [x d e]",
	},
	{
		name: "values of values",
		yaml: "steps: [{name: u, args: ['$_MOON', '$_IMAGE', '$_KEEP']}]\nsubstitutions: {_MOON: '${UNSET:-${_EARTH}}', _EARTH: '${_VENUS,}', _VENUS: '${BRANCH_NAME^^}', BRANCH_NAME: feature/x, _IMAGE: 'my-${BRANCH_NAME//\\//-}', _KEEP: '$${HOME}'}\noptions: {dynamicSubstitutions: true}",
		want: "u [fEATURE/X my-feature-x ${HOME}]",
	},
	{
		name:    "bad expansion of a value",
		yaml:    "steps: [{name: u, args: [$_A]}]\nsubstitutions: {_A: '${_B!x}'}\noptions: {dynamicSubstitutions: true}",
		refused: "[_A -> ${_B!x}]: bad substitution",
	},
	{
		name:    "a built-in one that is not used",
		yaml:    "steps: [{name: u}]\nsubstitutions: {TAG_NAME: b}",
		refused: `key "TAG_NAME" in the substitution data is not matched`,
	},
	{
		name: "a built-in value is no template",
		yaml: "steps: [{name: u, args: [$BRANCH_NAME, $_A]}]\nsubstitutions: {BRANCH_NAME: '${PROJECT_ID}', _A: '${BRANCH_NAME}'}\noptions: {dynamicSubstitutions: true}",
		want: "u [${PROJECT_ID} ${PROJECT_ID}]",
	},
	{
		name: "used in a tag, a volume and an image",
		yaml: "steps: [{name: u}]\nsubstitutions: {_A: x, _B: y}\ntags: [$_A]\nimages: ['gcr.io/giggle/$_B']",
		want: "u []",
	},
	{
		name:    "secrets",
		yaml:    "steps: [{name: u, secretEnv: [X]}]\navailableSecrets: {secretManager: [{versionName: v, env: X}]}",
		refused: "steps[0].secretEnv",
	},
	{
		name:    "pool",
		yaml:    "steps: [{name: u}]\noptions: {pool: {name: projects/p/locations/l/workerPools/w}}",
		refused: "options.pool",
	},
	{
		name:    "packages",
		yaml:    "steps: [{name: u}]\nartifacts: {npmPackages: [{repository: r, packagePath: p}]}",
		refused: "artifacts.npmPackages",
	},
	{
		name:    "objects without paths",
		yaml:    "steps: [{name: u}]\nartifacts: {objects: {location: gs://b}}",
		refused: "artifacts.objects.paths",
	},
	// Package validate of https://github.com/GoogleCloudPlatform/cloud-build-local, whose texts are Cloud Build's.
	{name: "waits for nothing and a step", yaml: "steps: [{name: u, id: a}, {name: u, waitFor: ['-', a]}]", want: "u []"},
	{name: "waits for nothing twice", yaml: "steps: [{name: u}, {name: u, waitFor: ['-', '-']}]", want: "u []"},
	{name: "an id that is taken", yaml: "steps: [{name: u, id: '-'}]", refused: "reserved as a dependency"},
	{name: "an upper-case image", yaml: "steps: [{name: Ubuntu}]", refused: `invalid build step name "Ubuntu" contains uppercase letters`},
	{name: "an image with an empty tag", yaml: "steps: [{name: 'u:$TAG_NAME'}]", refused: `steps[0].name: invalid build step name "u:"`},
	{name: "an image with a space", yaml: "steps: [{name: 'u '}]", refused: `invalid build step name "u "`},
	{name: "an image with a protocol", yaml: "steps: [{name: 'https://gcr.io/p/x'}]", refused: "invalid build step name"},
	{name: "an image with a short digest", yaml: "steps: [{name: 'u@sha256:12'}]", refused: "invalid build step name"},
	{name: "an image with two slashes", yaml: "steps: [{name: 'gcr.io//x'}]", refused: "invalid build step name"},
	{
		name: "tag and digest",
		yaml: "steps: [{name: 'localhost:5000/a/b-c__d.e:v1@sha256:" + strings.Repeat("0a", 32) + "'}]",
		want: "localhost:5000/a/b-c__d.e:v1@sha256:" + strings.Repeat("0a", 32) + " []",
	},
	{name: "a name that is too long", yaml: "steps: [{name: " + strings.Repeat("a", 256) + "}]", refused: "invalid build step name"},
	{name: "an image to push with an empty tag", yaml: "steps: [{name: u}]\nimages: ['gcr.io/p/x:$SHORT_SHA']", refused: `images[0]: invalid image name "gcr.io/p/x:"`},
	{name: "an image to push with a digest", yaml: "steps: [{name: u}]\nimages: ['gcr.io/p/x@sha256:" + strings.Repeat("0a", 32) + "']", refused: "images[0]"},
	{name: "an upper-case image to push", yaml: "steps: [{name: u}]\nimages: ['gcr.io/p/X']", refused: `"gcr.io/p/X" contains uppercase letters`},
	{name: "two lists of images", yaml: "steps: [{name: u}]\nimages: [gcr.io/p/x]\nartifacts: {images: [gcr.io/p/y]}", refused: "cannot specify different .images and .artifacts.images"},
	{name: "the same list twice", yaml: "steps: [{name: u}]\nimages: [gcr.io/p/x]\nartifacts: {images: [gcr.io/p/x]}", want: "u []"},
	{name: "a step longer than its build", yaml: "steps: [{name: u, timeout: 61s}]\ntimeout: 60s", refused: "build step timeout 1m1s must be <= build timeout 1m0s"},
	{name: "a step as long as its build", yaml: "steps: [{name: u, timeout: 60s}]\ntimeout: 60s", want: "u []"},
	{name: "a step of a build without a time", yaml: "steps: [{name: u, timeout: 7200s}]", want: "u []"},
	{name: "a variable without a name", yaml: "steps: [{name: u, env: ['=x']}]", refused: `must be of the form "KEY=VALUE"`},
	{name: "a variable of all steps", yaml: "steps: [{name: u}]\noptions: {env: [x]}", refused: "options.env[0]"},
	{name: "an empty variable", yaml: "steps: [{name: u, env: ['A=$TAG_NAME']}]", want: "u []"},
	{name: "a path of two words", yaml: "steps: [{name: u}]\nartifacts: {objects: {location: 'gs://b/', paths: ['a b']}}", refused: `.artifacts.paths "a b" contains whitespace`},
	{name: "a path twice", yaml: "steps: [{name: u}]\nartifacts: {objects: {location: 'gs://b/', paths: [c, d, c]}}", refused: "duplicate paths; remove duplicates [c]"},
	{name: "a path twice after substitution", yaml: "steps: [{name: u}]\nartifacts: {objects: {location: 'gs://b/', paths: [giggle, $PROJECT_ID]}}", refused: "duplicate paths"},
	{name: "a place that is no bucket", yaml: "steps: [{name: u}]\nartifacts: {objects: {location: 'b/', paths: [c]}}", refused: "must begin with 'gs://'"},
	{name: "no place", yaml: "steps: [{name: u}]\nartifacts: {objects: {paths: [c]}}", refused: "field is empty"},
	{name: "too many tags", yaml: "steps: [{name: u}]\ntags: [" + numbered("t", 65) + "]", refused: "number of tags 65 exceeded (max: 64)"},
	{name: "a tag that begins with a dash", yaml: "steps: [{name: u}]\ntags: [-a]", refused: `invalid build tag "-a"`},
	{name: "volumes of all steps", yaml: "steps: [{name: u}, {name: u}]\noptions: {volumes: [{name: vol, path: /v}]}", want: "u []"},
	{name: "volumes of all steps for one", yaml: "steps: [{name: u}]\noptions: {volumes: [{name: vol, path: /v}]}", refused: "fewer than two steps"},
	{name: "a volume of the name of another", yaml: volumes("one", "/w", "one", "/v"), refused: `volume name "one" conflicts with global volume`},
	{name: "a volume at the path of another", yaml: volumes("two", "/v/", "one", "/v"), refused: `volume path "/v" conflicts with global volume`},
	{name: "a volume beside another", yaml: volumes("two", "/w/../x//y/", "one", "/v"), want: "u []"},
	{name: "a volume over docker's socket", yaml: volumes("two", "/var/run/docker.sock", "one", "/v"), refused: "is reserved"},
	{name: "a volume over the workspace by dots", yaml: volumes("two", "/x/../workspace", "one", "/v"), refused: "is reserved"},
	{name: "a volume of one letter", yaml: volumes("v", "/w", "one", "/v"), refused: `volume name "v" does not match`},
	{name: "a volume with a slash", yaml: volumes("a/b", "/w", "one", "/v"), refused: "does not match"},
	{name: "a volume at no absolute path", yaml: volumes("two", "w", "one", "/v"), refused: "must be absolute"},
	{name: "a volume at Cloud Build's own path", yaml: volumes("two", "/cloudbuild/x", "one", "/v"), refused: "cannot start with /cloudbuild/"},
	{name: "a volume twice", yaml: "steps: [{name: u, volumes: [{name: vol, path: /a}, {name: vol, path: /b}]}]", refused: "defined in more than one volume entry"},
	{name: "a path of volumes twice", yaml: "steps: [{name: u, volumes: [{name: one, path: /a}, {name: two, path: /a/}]}]", refused: "defined in more than one volume entry"},
	{name: "bad image", yaml: "steps: [{name: u}]\nimages: ['a b']", refused: "images[0]"},
	{name: "bad tag", yaml: "steps: [{name: u}]\ntags: ['a b']", refused: "tags[0]"},
	{name: "empty tags", yaml: "steps: [{name: u}]\ntags: ['$TAG_NAME', '$BRANCH_NAME', a, a, _x]", want: "u []"},
	{
		name:    "an account without a place for logs",
		yaml:    "steps: [{name: u}]\nserviceAccount: projects/giggle/serviceAccounts/a@b",
		refused: "logs_bucket",
	},
}

// numbered is a list of n names.
func numbered(name string, n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint(name, i))
	}
	return strings.Join(out, ",")
}

// bomb is a small file whose merges are many.
func bomb() string {
	out := "x0: &x0 {a: b}\n"
	for i := range 20 {
		out += fmt.Sprintf("x%d: &x%d {<<: [%s]}\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i), 9), ","))
	}
	return "steps: [{<<: {<<: *x20}}]\n" + out
}

// volumes is a configuration of two steps with a volume of their own and one of all steps.
func volumes(name, path, globalName, globalPath string) string {
	step := fmt.Sprintf("{name: u, volumes: [{name: %q, path: %q}]}", name, path)
	return fmt.Sprintf("steps: [%s, %s]\noptions: {volumes: [{name: %q, path: %q}]}", step, step, globalName, globalPath)
}

func TestConfigs(t *testing.T) {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	n := 0
	kept := builds.New(st, func() string {
		n++
		return fmt.Sprintf("00000000-0000-0000-0000-%012d", n)
	})
	for _, tt := range configs {
		t.Run(tt.name, func(t *testing.T) {
			var b builds.Build
			w, err := cloudbuild.ParseConfig([]byte(tt.yaml))
			if err == nil {
				var r builds.Request
				if r, err = cloudbuild.ToRequest(w); err == nil {
					r.LogsIn, r.ProjectNumber = "logs", "42"
					r.Account = func(_ context.Context, given string) (string, error) { return "x@y", nil }
					b, err = kept.Submit(t.Context(), resource.Location{Project: "giggle", Location: "global"}, r)
				}
			}
			if tt.refused != "" {
				if err == nil || !strings.Contains(fault.From(err).Message, tt.refused) {
					t.Fatalf("err = %v, want %q", err, tt.refused)
				}
				if c := fault.From(err).Code; c != fault.InvalidArgument && c != fault.Unimplemented {
					t.Errorf("code = %v", c)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, tag := range b.Tags {
				if tag == "" {
					t.Errorf("an empty tag of %q", b.Tags)
				}
			}
			s := b.Spec.Steps[0]
			if got := s.Name + " [" + strings.Join(s.Args, " ") + "]"; got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// What is read once and written reads the same again, and nothing panics.
func FuzzConfig(f *testing.F) {
	for _, tt := range configs {
		f.Add([]byte(tt.yaml))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := cloudbuild.ParseConfig(data)
		if err != nil {
			if c := fault.From(err).Code; c != fault.InvalidArgument && c != fault.Unimplemented {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		if err := proto.Unmarshal(must(proto.Marshal(b)), b); err != nil {
			t.Fatal(err)
		}
		_, _ = cloudbuild.ToRequest(b)
	})
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
