package cloudbuild_test

import (
	"context"
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
	{name: "numbers as text", yaml: "steps: [{name: u, args: [1, 2.50, true, 010]}]", want: "u [1 2.50 true 010]"},
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
- {name: u, id: one, args: [x], env: [A=b], dir: sub/dir, entrypoint: sh, timeout: 90s, allowFailure: true, volumes: [{name: v, path: /v}]}
- {name: u, id: two, script: 'echo $_X', waitFor: [one], automapSubstitutions: true, allowExitCodes: [1, 2], volumes: [{name: v, path: /w}]}
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
	{name: "waits forwards", yaml: "steps: [{name: u, waitFor: [b]}, {name: u, id: b}]", refused: "no earlier"},
	{name: "waits for itself", yaml: "steps: [{name: u, id: a, waitFor: [a]}]", refused: "steps[0].waitFor[0]"},
	{name: "script and args", yaml: "steps: [{name: u, script: x, args: [y]}]", refused: "steps[0].script"},
	{name: "env", yaml: "steps: [{name: u, env: [x]}]", refused: "steps[0].env[0]"},
	{name: "dir leads out", yaml: "steps: [{name: u, dir: ../x}]", refused: "steps[0].dir"},
	{name: "volume used once", yaml: "steps: [{name: u, volumes: [{name: v, path: /v}]}]", refused: "one step only"},
	{
		name:    "volume over the workspace",
		yaml:    "steps: [{name: u, volumes: [{name: v, path: /workspace/x}]}]",
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
	{name: "bad image", yaml: "steps: [{name: u}]\nimages: ['a b']", refused: "images[0]"},
	{name: "bad tag", yaml: "steps: [{name: u}]\ntags: ['a b']", refused: "tags[0]"},
	{name: "empty tags", yaml: "steps: [{name: u}]\ntags: ['$TAG_NAME', '$BRANCH_NAME', a, a, _x]", want: "u []"},
	{
		name:    "an account without a place for logs",
		yaml:    "steps: [{name: u}]\nserviceAccount: projects/giggle/serviceAccounts/a@b",
		refused: "logs_bucket",
	},
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
		return "00000000-0000-0000-0000-0000000000" + string(rune('a'+n/26)) + string(rune('a'+n%26))
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
			if fault.From(err).Code != fault.InvalidArgument {
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
