package buildpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"giggle/builds"
	"giggle/fault"
)

// tree writes files below a new directory, by path.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDetect(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
		code  fault.Code
	}{
		"module":        {map[string]string{"go.mod": "", "package.json": ""}, "Go", 0},
		"loose file":    {map[string]string{"main.go": ""}, "Go", 0},
		"command below": {map[string]string{"cmd/a/main.go": "package main"}, "Go", 0},
		"node":          {map[string]string{"package.json": "{}"}, "Node.js", 0},
		"python":        {map[string]string{"main.py": ""}, "Python", 0},
		"java":          {map[string]string{"pom.xml": ""}, "Java", 0},
		"gradle":        {map[string]string{"build.gradle.kts": "", "index.html": ""}, "Java", 0},
		"ruby":          {map[string]string{"app.rb": ""}, "Ruby", 0},
		"php":           {map[string]string{"index.php": "", "index.html": ""}, "PHP", 0},
		"f sharp":       {map[string]string{"app.fsproj": ""}, ".NET", 0},
		"static":        {map[string]string{"index.html": ""}, "Static", 0},
		"go in python":  {map[string]string{"main.py": "", "main.go": ""}, "Go", 0},
		"nothing":       {map[string]string{"README": ""}, "", fault.InvalidArgument},
		"empty":         {nil, "", fault.InvalidArgument},
	} {
		got, err := detect(tree(t, tc.files), "")
		if got != tc.want || tc.code == 0 && err != nil || tc.code != 0 && !fault.Is(err, tc.code) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestDetectAsAsked(t *testing.T) {
	for want, lang := range map[string]string{"go": "Go", "nodejs20": "Node.js", "python3.11": "Python",
		"python": "Python", "cobol": "", "static": "Static"} {
		got, err := detect(tree(t, map[string]string{"main.go": ""}), want)
		if got != lang || (err != nil) != (lang == "") {
			t.Errorf("GOOGLE_RUNTIME=%s: %q, %v; want %q", want, got, err, lang)
		}
	}
}

func TestEntrypoint(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		env   string
		want  string
		fails bool
	}{
		"none":            {nil, "", "", false},
		"variable":        {map[string]string{"Procfile": "web: other"}, "run me", "run me", false},
		"procfile":        {map[string]string{"Procfile": "# comment\nworker: x\nweb:   gunicorn main:app -w 2  \n"}, "", "gunicorn main:app -w 2", false},
		"no web":          {map[string]string{"Procfile": "worker: x"}, "", "", true},
		"not a procfile":  {map[string]string{"Procfile/x": ""}, "", "", false},
		"empty procfile":  {map[string]string{"Procfile": ""}, "", "", false},
		"longer than all": {map[string]string{"Procfile": "web: " + strings.Repeat("x", maxProcfile)}, "", "", true},
	} {
		got, err := entrypoint(tree(t, tc.files), map[string]string{"GOOGLE_ENTRYPOINT": tc.env})
		if got != tc.want || (err != nil) != tc.fails {
			t.Errorf("%s: %q, %v; want %q, failure %v", name, got, err, tc.want, tc.fails)
		}
	}
}

// What is started, in the order of Google's Node.js buildpack (DefaultStartCommand in pkg/nodejs/npm.go of
// github.com/GoogleCloudPlatform/buildpacks), once everything is built.
func TestNodeEntry(t *testing.T) {
	for name, tc := range map[string]struct {
		packageJSON string
		files       string
		env         map[string]string
		want        string // the command, or "!" and part of the refusal
		npm         string // the script that it stands for
	}{
		"start":            {packageJSON: `{"scripts":{"start":"next start"}}`, want: "npm run start"},
		"start is node":    {packageJSON: `{"scripts":{"start":"node src/main.js"}}`, want: "node src/main.js", npm: "node src/main.js"},
		"start is more":    {packageJSON: `{"scripts":{"start":"node main.js && x"}}`, want: "npm run start"},
		"start has a pre":  {packageJSON: `{"scripts":{"start":"node main.js","prestart":"x"}}`, want: "npm run start"},
		"start has a post": {packageJSON: `{"scripts":{"start":"node main.js","poststart":"x"}}`, want: "npm run start"},
		"start before server.js": {packageJSON: `{"main":"main.js","scripts":{"start":"node main.js"}}`,
			files: "server.js main.js", want: "node main.js", npm: "node main.js"},
		"start is empty":                {packageJSON: `{"scripts":{"start":""}}`, files: "index.js", want: `!"start" of package.json is empty`},
		"start is empty, and server.js": {packageJSON: `{"scripts":{"start":" "}}`, files: "server.js", want: "node server.js", npm: "node server.js"},
		"server.js before main":         {packageJSON: `{"main":"index.js"}`, files: "index.js server.js", want: "node server.js", npm: "node server.js"},
		"server.js with a pre":          {packageJSON: `{"scripts":{"prestart":"x"}}`, files: "server.js", want: "npm run start"},
		"main":                          {packageJSON: `{"main":"lib.js"}`, files: "lib.js index.js", want: "node lib.js"},
		"main by ./":                    {packageJSON: `{"main":"./lib.js"}`, files: "lib.js", want: "node ./lib.js"},
		"main without .js":              {packageJSON: `{"main":"lib/app"}`, files: "lib/app.js", want: "node lib/app"},
		"main is a directory":           {packageJSON: `{"main":"./dist"}`, files: "dist/index.js", want: "node ./dist"},
		"main is a directory/":          {packageJSON: `{"main":"dist/"}`, files: "dist/index.js", want: "node dist/"},
		"main is a package":             {packageJSON: `{"main":"dist"}`, files: "dist/package.json dist/x.js", want: "node dist"},
		"main is a module":              {packageJSON: `{"main":"src/main.mjs","type":"module"}`, files: "src/main.mjs", want: "node src/main.mjs"},
		"main is away":                  {packageJSON: `{"main":"dist/lib.js"}`, files: "index.js", want: `!"main" of package.json is "dist/lib.js"`},
		"main leads out":                {packageJSON: `{"main":"../../etc/passwd"}`, want: `!"main" of package.json`},
		"index":                         {packageJSON: `{"scripts":{"build":"tsc"}}`, files: "index.js", want: "node index.js"},
		"nothing":                       {packageJSON: `{}`, files: "app.js", want: "!Nothing says how the program is started"},
		"procfile":                      {packageJSON: `{"main":"lib.js","scripts":{"start":"x"}}`, files: "Procfile", want: "/bin/sh -c a b"},
		"variable": {packageJSON: `{"scripts":{"start":"x"}}`, files: "Procfile",
			env: map[string]string{"GOOGLE_ENTRYPOINT": "c d"}, want: "/bin/sh -c c d"},
		"function": {packageJSON: `{"main":"lib.js"}`, files: nodeFramework, env: map[string]string{"GOOGLE_FUNCTION_TARGET": "hello"},
			want: "node " + nodeFramework},
		"function without": {packageJSON: `{"main":"lib.js"}`, files: "lib.js", env: map[string]string{"GOOGLE_FUNCTION_TARGET": "hello"},
			want: "!add @google-cloud/functions-framework"},
		"angular": {packageJSON: `{"scripts":{"start":"ng serve","serve:ssr:app":"node dist/app/server/server.mjs"}}`,
			want: "node dist/app/server/server.mjs"},
		"nuxt":            {packageJSON: `{}`, files: "nuxt.config.ts .output/server/index.mjs", want: "node .output/server/index.mjs"},
		"nuxt, unbuilt":   {packageJSON: `{"main":"x.js"}`, files: "nuxt.config.ts x.js", want: "node x.js"},
		"svelte":          {packageJSON: `{}`, files: "svelte.config.js build/index.js server.js", want: "node build/index.js"},
		"nuxt, but start": {packageJSON: `{"scripts":{"start":"node x.js"}}`, files: "nuxt.config.ts .output/server/index.mjs", want: "node x.js", npm: "node x.js"},
	} {
		files := map[string]string{"package.json": tc.packageJSON}
		for f := range strings.FieldsSeq(tc.files) {
			files[f] = "web: a b"
		}
		src := tree(t, files)
		m, _, err := readManifest(src)
		if err != nil {
			t.Fatal(err)
		}
		command, npm, err := nodeEntry(src, m, tc.env)
		got := strings.Join(command, " ")
		if refusal, refused := strings.CutPrefix(tc.want, "!"); refused {
			if !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%s: %q, %v; want %q", name, got, err, refusal)
			}
			continue
		}
		if got != tc.want || npm != tc.npm || err != nil {
			t.Errorf("%s: %q as %q, %v; want %q as %q", name, got, npm, err, tc.want, tc.npm)
		}
	}
}

// What is run to build, as Google's buildpack decides it (DetermineBuildCommands in pkg/nodejs/npm.go, BuildFn in
// cmd/nodejs/npm; https://cloud.google.com/docs/buildpacks/nodejs#executing_custom_build_steps_during_deployment).
func TestNPMScript(t *testing.T) {
	scripts := func(list ...string) map[string]string {
		out := make(map[string]string)
		for _, s := range list {
			name, text, _ := strings.Cut(s, "=")
			out[name] = text
		}
		return out
	}
	dev := map[string]any{"typescript": "5"}
	const clean = "rm -rf node_modules;"
	for name, tc := range map[string]struct {
		m      manifest
		locked bool
		env    map[string]string
		want   string // commands in order
	}{
		"plain":  {want: clean + "npm install --omit=dev"},
		"locked": {locked: true, want: clean + "npm ci --omit=dev"},
		"build": {m: manifest{Scripts: scripts("build=tsc"), DevDependencies: dev}, locked: true,
			want: clean + "npm ci;npm run build;npm prune --omit=dev"},
		"build, nothing to prune": {m: manifest{Scripts: scripts("build=tsc")}, locked: true, want: clean + "npm ci;npm run build"},
		"build is empty":          {m: manifest{Scripts: scripts("build= "), DevDependencies: dev}, want: clean + "npm install --omit=dev"},
		"gcp-build":               {m: manifest{Scripts: scripts("build=tsc", "gcp-build=x")}, want: clean + "npm install;npm run gcp-build"},
		"gcp-build is empty":      {m: manifest{Scripts: scripts("build=tsc", "gcp-build=")}, want: clean + "npm install --omit=dev"},
		"asked": {m: manifest{Scripts: scripts("build=tsc"), DevDependencies: dev}, env: scripts("GOOGLE_NODE_RUN_SCRIPTS=lint, a:b"),
			want: clean + "npm install;npm run lint;npm run a:b;npm prune --omit=dev"},
		"asked over gcp-build": {m: manifest{Scripts: scripts("gcp-build=x")}, env: scripts("GOOGLE_NODE_RUN_SCRIPTS=lint"),
			want: clean + "npm install;npm run lint"},
		"asked for nothing": {m: manifest{Scripts: scripts("build=false", "gcp-build=false"), DevDependencies: dev},
			env: scripts("GOOGLE_NODE_RUN_SCRIPTS="), want: clean + "npm install --omit=dev"},
		"asked for blanks": {m: manifest{Scripts: scripts("build=false")}, env: scripts("GOOGLE_NODE_RUN_SCRIPTS=  "), want: clean + "npm install --omit=dev"},
		"asked for what a shell reads": {env: scripts("GOOGLE_NODE_RUN_SCRIPTS=$(rm -r /),it's"),
			want: clean + `npm install;npm run '$(rm' -r '/)';npm run 'it'\''s'`},
		"NODE_ENV":             {m: manifest{DevDependencies: dev}, env: scripts("NODE_ENV=staging"), want: clean + "npm install"},
		"NODE_ENV production":  {m: manifest{Scripts: scripts("build=x"), DevDependencies: dev}, env: scripts("NODE_ENV=production"), want: clean + "npm install --omit=dev;npm run build"},
		"NODE_ENV and a build": {m: manifest{Scripts: scripts("build=x"), DevDependencies: dev}, env: scripts("NODE_ENV=staging"), want: clean + "npm install;npm run build"},
		"vendored": {m: manifest{Scripts: scripts("build=x"), DevDependencies: dev}, locked: true,
			env: scripts("GOOGLE_VENDOR_NPM_DEPENDENCIES=true"), want: "npm rebuild;npm run build"},
		"not vendored": {env: scripts("GOOGLE_VENDOR_NPM_DEPENDENCIES=false"), want: clean + "npm install --omit=dev"},
	} {
		var got []string
		for line := range strings.Lines(npmManager(tc.locked).script(tc.m, tc.env)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "echo ") {
				got = append(got, line)
			}
		}
		if strings.Join(got, ";") != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// The environment of npm's scripts (https://docs.npmjs.com/cli/v10/using-npm/scripts#environment).
func TestNPMEnv(t *testing.T) {
	got := npmEnv("node server.js", `{"name":"@a/app","version":"1.2.3","private":true,"engines":{"node":">=20"},
		"config":{"port":8080,"debug":false,"list":["x","y"],"none":null,"ba d":"x","n=":"x"},"bin":"cli.js"}`)
	for _, want := range []string{"npm_lifecycle_event=start", "npm_lifecycle_script=node server.js", "npm_command=run-script",
		"npm_package_json=/workspace/package.json", "npm_package_name=@a/app", "npm_package_version=1.2.3",
		"npm_package_engines_node=>=20", "npm_package_config_port=8080", "npm_package_config_debug=",
		"npm_package_config_list_0=x", "npm_package_config_list_1=y", "npm_package_config_none=", "npm_package_bin=cli.js",
		"INIT_CWD=/workspace"} {
		if !slices.Contains(got, want) {
			t.Errorf("it lacks %q: %q", want, got)
		}
	}
	for _, v := range got {
		if strings.Contains(v, "private") || strings.Contains(v, "ba d") || strings.Contains(v, "config_n=") {
			t.Errorf("it has %q", v)
		}
	}
	if got := npmEnv("", `{"name":"x"}`); got != nil {
		t.Errorf("without a script: %q", got)
	}
	many := `{"config":{"a":1`
	for i := range 1000 {
		many += fmt.Sprintf(`,"c%d":1`, i)
	}
	if got := npmEnv("x", many+"}}"); len(got) > 200 {
		t.Errorf("a long package.json makes %d variables", len(got))
	}
	const depth = 5000
	deep := strings.Repeat(`{"`+strings.Repeat("n", 100)+`":`, depth) + `"here"` + strings.Repeat("}", depth)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got = npmEnv("x", `{"version":"1","config":`+deep+`}`)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
		t.Errorf("a deep package.json takes %d MiB", took>>20)
	}
	if !slices.Contains(got, "npm_package_version=1") || strings.Contains(strings.Join(got, " "), "here") {
		t.Errorf("a deep package.json makes %.500q", got)
	}
}

// The package manager is the one whose lock file the source has, in the version that package.json names.
func TestNodeManager(t *testing.T) {
	for _, row := range []struct {
		files  string
		wanted string // packageManager
		want   string // its prefix and how it installs; "" is refused
	}{
		{"", "", "npm install"},
		{"package-lock.json", "", "npm ci"},
		{"package-lock.json yarn.lock", "", "npm ci"},
		{"yarn.lock", "", "npm exec --yes --package=yarn@1.22.22 -- yarn install --non-interactive --no-progress --frozen-lockfile"},
		{"", "yarn@1.22.19", "npm exec --yes --package=yarn@1.22.19 -- yarn install --non-interactive --no-progress"},
		{"yarn.lock", "yarn@4.9.1+sha512.abc", "npm exec --yes --package=@yarnpkg/cli-dist@4.9.1 -- yarn install"},
		{"yarn.lock .yarnrc.yml", "", "npm exec --yes --package=@yarnpkg/cli-dist@4.5.0 -- yarn install"},
		{"pnpm-lock.yaml", "", "npm exec --yes --package=pnpm@9.8.0 -- pnpm install --frozen-lockfile"},
		{"pnpm-lock.yaml", "pnpm@10.1.0", "npm exec --yes --package=pnpm@10.1.0 -- pnpm install --frozen-lockfile"},
		{"", "pnpm@10.1.0", "npm exec --yes --package=pnpm@10.1.0 -- pnpm install"},
		{"pnpm-lock.yaml", "npm@10.1.0", "npm exec --yes --package=pnpm@9.8.0 -- pnpm install --frozen-lockfile"},
		{"", "yarn@1.22.19; reboot", ""},
		{"", "pnpm@latest", ""},
		{"bun.lockb", "", ""},
	} {
		files := make(map[string]string)
		for _, name := range strings.Fields(row.files) {
			files[name] = ""
		}
		got, err := nodeManager(tree(t, files), manifest{PackageManager: row.wanted})
		if text := got.prefix + got.install; text != row.want || (err != nil) != (row.want == "") {
			t.Errorf("%s, %q: %q, %v; want %q", row.files, row.wanted, text, err, row.want)
		}
	}
}

// Where Python's packages come from: the source, an index where builds reach one, or a lock file's own program.
func TestPipInstall(t *testing.T) {
	for _, row := range []struct {
		files  string
		online bool
		vendor string
		want   string // part of the last command; "" for none, "!" for a refusal
		server pythonServer
	}{
		{"", false, "", "", pythonServer{}},
		{"requirements.txt", false, "", "!giggle up --egress=public", pythonServer{}},
		{"requirements.txt", true, "", "--target=/out/pip --requirement=requirements.txt", pythonServer{}},
		{"requirements.txt vendor/x", false, "", "--no-index --no-build-isolation --find-links='/workspace/vendor' --requirement=requirements.txt", pythonServer{}},
		{"requirements.txt vendor/x", true, "", "--no-index", pythonServer{}},
		{"requirements.txt it's/x", false, "it's", `--find-links='/workspace/it'\''s'`, pythonServer{}},
		{"requirements.txt", true, "../x", "!is no directory of the source", pythonServer{}},
		{"pyproject.toml", false, "", "!pyproject.toml", pythonServer{}},
		{"pyproject.toml", true, "", "--target=/out/pip /tmp/project", pythonServer{}},
		{"pyproject.toml uv.lock", true, "", "--requirement=/tmp/locked.txt", pythonServer{}},
		{"pyproject.toml poetry.lock", true, "", "--requirement=/tmp/locked.txt", pythonServer{}},
		{"pyproject.toml requirements.txt", true, "", "--requirement=requirements.txt", pythonServer{}},
		{"", false, "", "", pythonServer{needs: gunicorn, install: true}},
		{"", true, "", "--target=/out/pip gunicorn==22.0.0", pythonServer{needs: gunicorn, install: true}},
		{"", true, "", "", pythonServer{needs: gunicorn, script: "main.py"}},
		{"requirements.txt", true, "", "--requirement=requirements.txt gunicorn==22.0.0", pythonServer{needs: gunicorn, install: true}},
		{"requirements.txt", true, "", "requirements.txt functions-framework", pythonServer{needs: "functions-framework", install: true}},
	} {
		files := make(map[string]string)
		for name := range strings.SplitSeq(row.files, " ") {
			if name != "" {
				files[name] = "flask\n"
			}
		}
		b := &Builder{cfg: Config{Online: func() bool { return row.online }}}
		got, err := b.pipInstall(task{Env: map[string]string{"GOOGLE_VENDOR_PIP_DEPENDENCIES": row.vendor}},
			tree(t, files), row.server)
		refusal, refused := strings.CutPrefix(row.want, "!")
		switch {
		case refused:
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%+v: %q, %v", row, got, err)
			}
		case err != nil || row.want == "" && got != nil ||
			row.want != "" && (len(got) == 0 || !strings.Contains(got[len(got)-1], row.want)):
			t.Errorf("%+v: %q, %v", row, got, err)
		}
	}
}

// Which programs there are is what `go list ./...` says for Linux (https://pkg.go.dev/cmd/go#hdr-Build_constraints,
// #hdr-Package_lists_and_patterns), and GOOGLE_BUILDABLE is an argument of go build
// (https://cloud.google.com/docs/buildpacks/service-specific-configs).
func TestTarget(t *testing.T) {
	const main, lib = "package main", "package lib"
	mod := "module example.com/shop\n\ngo 1.26\n"
	two := map[string]string{"go.mod": mod, "cmd/a/main.go": main, "cmd/b/main.go": main, "lib/lib.go": lib}
	for name, tc := range map[string]struct {
		files     map[string]string
		buildable string
		goflags   string
		want      string
		message   string
	}{
		"root":               {files: map[string]string{"main.go": main, "cmd/x/main.go": main}, want: "."},
		"only one":           {files: map[string]string{"lib.go": lib, "cmd/x/main.go": main}, want: "./cmd/x"},
		"several":            {files: two, message: "several programs: cmd/a, cmd/b"},
		"chosen":             {files: two, buildable: "./cmd/b", want: "./cmd/b"},
		"chosen without dot": {files: two, buildable: "cmd/a/", want: "./cmd/a"},
		"chosen file":        {files: two, buildable: "cmd/a/main.go", want: "./cmd/a/main.go"},
		"in the workspace":   {files: two, buildable: "/workspace/cmd/a", want: "./cmd/a"},
		"the workspace":      {files: two, buildable: "/workspace", want: "."},
		"import path":        {files: two, buildable: "example.com/shop/cmd/b", want: "./cmd/b"},
		"the module":         {files: two, buildable: "example.com/shop", want: "."},
		"of a module below":  {files: two, buildable: "example.com/shop/v2/cmd/c", want: "example.com/shop/v2/cmd/c"},
		"of another module":  {files: two, buildable: "github.com/a/b/cmd/c", want: "github.com/a/b/cmd/c"},
		"module without dot": {files: map[string]string{"go.mod": "module shop", "cmd/a/main.go": main}, buildable: "shop/cmd/a", want: "./cmd/a"},
		"pattern":            {files: two, buildable: "./cmd/a/...", want: "./cmd/a/..."},
		"all":                {files: two, buildable: "./...", want: "./..."},
		"not there":          {files: two, buildable: "./cmd/c", message: "not in the source"},
		"not there, a dot":   {files: two, buildable: "./x.y/c", message: "not in the source"},
		"no go file":         {files: map[string]string{"x/x.txt": ""}, buildable: "x/x.txt", message: "not in the source"},
		"out":                {files: two, buildable: "../x", message: "leads out"},
		"out by a detour":    {files: two, buildable: "cmd/../../x", message: "leads out"},
		"absolute":           {files: two, buildable: "/etc", message: "leads out"},
		"a flag":             {files: two, buildable: "-toolexec=x", message: "not in the source"},
		"a flag with a dot":  {files: two, buildable: "-o=a.b/c", message: "not in the source"},
		"library":            {files: map[string]string{"lib.go": lib}, message: "No package main"},
		"tests and tools": {files: map[string]string{
			"main.go": main, "gen.go": "//go:build ignore\n\npackage main", "vendor/x/main.go": main,
			"testdata/main.go": main, "_x/main.go": main, ".x/main.go": main,
		}, want: "."},
		"only ignored":    {files: map[string]string{"gen.go": "//go:build ignore\n\npackage main"}, message: "No package main"},
		"does not parse":  {files: map[string]string{"main.go": main, "bad.go": "packag"}, want: "."},
		"test main":       {files: map[string]string{"x_test.go": main}, message: "No package main"},
		"directory .go":   {files: map[string]string{"main.go": main, "d.go/x": ""}, want: "."},
		"root over below": {files: map[string]string{"main.go": main}, buildable: ".", want: "."},
		"a tool with a tag": {files: map[string]string{"go.mod": mod, "magefile.go": "//go:build mage\n\npackage main",
			"cmd/server/main.go": main}, want: "./cmd/server"},
		"the tag is asked for": {files: map[string]string{"magefile.go": "//go:build mage\n\npackage main", "cmd/s/main.go": main},
			goflags: "-v -tags=x,mage", want: "."},
		"its library has the tag": {files: map[string]string{"magefile.go": "//go:build mage\n\npackage main", "shop.go": lib,
			"cmd/server/main.go": main}, want: "./cmd/server"},
		"for Windows by name":   {files: map[string]string{"go.mod": mod, "cmd/tray/tray_windows.go": main, "cmd/server/main.go": main}, want: "./cmd/server"},
		"for another processor": {files: map[string]string{"cmd/a/a_s390x.go": main, "cmd/b/main.go": main}, want: "./cmd/b"},
		"for Linux by name":     {files: map[string]string{"cmd/a/a_linux.go": main}, want: "./cmd/a"},
		"by !windows":           {files: map[string]string{"cmd/a/a.go": "//go:build !windows && go1.21\n\npackage main"}, want: "./cmd/a"},
		"by unix":               {files: map[string]string{"cmd/a/a.go": "//go:build unix\n\npackage main"}, want: "./cmd/a"},
		"by the old form":       {files: map[string]string{"cmd/a/a.go": "// +build darwin\n\npackage main", "cmd/b/b.go": main}, want: "./cmd/b"},
		"the constraint is late": {files: map[string]string{"a/a.go": "// Copyright\n\n/* long\n text */\n\n//go:build tools\n\npackage main", "b/b.go": main},
			want: "./b"},
		"a comment is none":       {files: map[string]string{"a/a.go": "// See //go:build ignore\n\npackage main"}, want: "./a"},
		"in the text, it is none": {files: map[string]string{"a/a.go": "package main\n\n//go:build ignore\n"}, want: "./a"},
		"a module of its own": {files: map[string]string{"go.mod": mod, "cmd/server/main.go": main,
			"tools/go.mod": "module example.com/tools", "tools/gen/main.go": main}, want: "./cmd/server"},
		"a module that go.work uses": {files: map[string]string{"go.work": "go 1.26\n\nuse (\n\t.\n\t./svc\n)\n", "go.mod": mod,
			"lib.go": lib, "svc/go.mod": "module example.com/svc", "svc/main.go": main}, want: "./svc"},
		"ignored by go.mod": {files: map[string]string{"go.mod": mod + "\nignore (\n\t./web\n\tnode_modules\n)\n",
			"web/main.go": main, "a/node_modules/x/main.go": main, "cmd/s/main.go": main}, want: "./cmd/s"},
		"cgo":           {files: map[string]string{"cmd/a/a.go": "package main\n\nimport \"C\"\n"}, want: "./cmd/a"},
		"without cgo":   {files: map[string]string{"cmd/a/a.go": "//go:build !cgo\n\npackage main", "cmd/b/b.go": main}, want: "./cmd/b"},
		"documentation": {files: map[string]string{"a/doc.go": "package documentation", "a/a.go": main}, want: "./a"},
	} {
		src := tree(t, tc.files)
		have, err := listGo(src, buildTags(tc.goflags))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := target(src, tc.buildable, have)
		if got != tc.want || tc.message == "" && err != nil ||
			tc.message != "" && (err == nil || !strings.Contains(err.Error(), tc.message)) {
			t.Errorf("%s: %q, %v; want %q %s", name, got, err, tc.want, tc.message)
		}
	}
}

// A source's links, pipes and endless files keep nobody from finding its programs.
func TestListGoHostile(t *testing.T) {
	elsewhere := tree(t, map[string]string{"main.go": "package main"})
	src := tree(t, map[string]string{"cmd/a/main.go": "package main", "real.go.txt": "package main",
		"long/main.go": "/*" + strings.Repeat("x", 2*maxHeader) + "*/\npackage main"})
	if err := errors.Join(os.Symlink(elsewhere, filepath.Join(src, "out")), os.Mkdir(filepath.Join(src, "l"), 0o755),
		os.Symlink(filepath.Join(elsewhere, "main.go"), filepath.Join(src, "l", "main.go")),
		os.Symlink("..", filepath.Join(src, "l", "loop")), os.Symlink("/dev/zero", filepath.Join(src, "l", "zero.go")),
		syscall.Mkfifo(filepath.Join(src, "l", "pipe.go"), 0o644), os.Symlink(elsewhere, filepath.Join(src, "vendor")),
		os.Symlink(filepath.Join(elsewhere, "go.work"), filepath.Join(src, "go.work"))); err != nil {
		t.Fatal(err)
	}
	have, err := listGo(src, nil)
	if err != nil || strings.Join(have.mains, " ") != "cmd/a" {
		t.Errorf("programs in %q, %v", have.mains, err)
	}
}

func TestGoArgs(t *testing.T) {
	src := tree(t, map[string]string{"vendor/modules.txt": ""})
	args, err := goArgs(src, "./cmd/a", "go1.26.8",
		map[string]string{"GOOGLE_GOLDFLAGS": "-X main.v=1", "GOOGLE_GOGCFLAGS": "-N"})
	if err != nil {
		t.Fatal(err)
	}
	want := GoRoot + "/bin/go build -o /out/main -mod=vendor -ldflags=-s -w -X main.v=1 -gcflags=-N ./cmd/a"
	if got := strings.Join(args, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if b, err := os.ReadFile(filepath.Join(src, "go.mod")); err != nil || string(b) != "module app\n\ngo 1.26.8\n" {
		t.Errorf("go.mod = %q, %v", b, err)
	}
}

// What stands where the program should be may have been put there by hostile code.
func TestOpenProgram(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(file string) error{
		"link out":    func(f string) error { return os.Symlink(secret, f) },
		"link beside": func(f string) error { return os.Symlink("other", f) },
		"dangling":    func(f string) error { return os.Symlink("/nowhere", f) },
		"pipe":        func(f string) error { return syscall.Mkfifo(f, 0o644) },
		"directory":   func(f string) error { return os.Mkdir(f, 0o755) },
		"empty":       func(f string) error { return os.WriteFile(f, nil, 0o755) },
		"nothing":     func(string) error { return nil },
		"socket": func(f string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Bind(fd, &syscall.SockaddrUnix{Name: f})
		},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "other"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := put(filepath.Join(dir, "main")); err != nil {
			t.Fatal(err)
		}
		if f, err := openProgram(filepath.Join(dir, "main")); !fault.Is(err, fault.FailedPrecondition) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	file := filepath.Join(t.TempDir(), "main")
	if err := os.WriteFile(file, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := openProgram(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); string(b) != "program" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestHints(t *testing.T) {
	for line, want := range map[string]string{
		"go: go.mod requires go >= 1.99 (running go 1.26; GOTOOLCHAIN=local)": "newer Go",
		"main.go:3:8: missing go.sum entry for module providing package x":    "go mod tidy",
		"reading x: the module proxy upstream can't be reached":               "go mod vendor",
		"main.go:3: syntax error": "",
	} {
		if got := hint([]string{line}); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// others builds any source, or fails.
type others struct {
	err    error
	source string
}

func (o *others) BuildSource(
	_ context.Context, _ builds.Build, step builds.Step, source io.ReadSeeker, _ int64, _ io.Writer,
) (string, error) {
	b, err := io.ReadAll(source)
	o.source = string(b)
	return "sha256:" + step.Image, errors.Join(o.err, err)
}

// A language that is not built in is others' business, with the whole archive; where they can't, the message says why
// and what to do.
func TestOthers(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "Gemfile", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		err  error
		code fault.Code
		want string
	}{
		"there":  {nil, 0, ""},
		"absent": {fault.New(fault.NotFound, "the builder is nowhere."), fault.Unimplemented, "Google's builder, but the builder is nowhere. Where there is a network, `giggle images pull`"},
		"fails":  {fault.New(fault.FailedPrecondition, "gem fell"), fault.FailedPrecondition, "gem fell"},
	} {
		o := &others{err: tt.err}
		builder, err := New(Config{Dir: t.TempDir(), Others: o})
		if err != nil {
			t.Fatal(err)
		}
		digest, err := builder.BuildSource(t.Context(), builds.Build{}, builds.Step{Image: "app"},
			bytes.NewReader(b.Bytes()), int64(b.Len()), io.Discard)
		if o.source != b.String() {
			t.Errorf("%s: they got %d bytes of %d", name, len(o.source), b.Len())
		}
		if tt.err == nil && (err != nil || digest != "sha256:app") ||
			tt.err != nil && (!fault.Is(err, tt.code) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %s, %v", name, digest, err)
		}
	}
}

// A source's links lead anywhere. On this machine they are followed inside the source, and never out of it.
func TestLinksOfASource(t *testing.T) {
	outside := tree(t, map[string]string{"secret": "web: secret", "vendor/x": ""})
	src := tree(t, map[string]string{"real": "web: run", "dir/file": "x"})
	for name, to := range map[string]string{"inside": "real", "absolute": filepath.Join(outside, "secret"),
		"outward": "../" + filepath.Base(outside) + "/secret", "nowhere": "none", "itself": "itself",
		"vendor": filepath.Join(outside, "vendor"), "sub": "dir", "out": outside, "device": "/dev/zero"} {
		if err := os.Symlink(to, filepath.Join(src, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(src, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"real": "web: run", "inside": "web: run", "sub/file": "x", "absolute": "",
		"outward": "", "nowhere": "", "itself": "", "out/secret": "", "device": "", "pipe": "", "dir": ""} {
		if got, err := readSource(src, name, 100); got != want || err != nil {
			t.Errorf("%s reads %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]bool{"real": true, "inside": true, "sub": true, "absolute": false,
		"out/secret": false, "nowhere": false, "itself": false} {
		if has(src, name) != want {
			t.Errorf("has %s is %v", name, !want)
		}
	}
	if hasDir(src, "vendor") || !hasDir(src, "sub") || hasDir(src, "real") {
		t.Error("a directory is one inside the source")
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(src, "Procfile")); err != nil {
		t.Fatal(err)
	}
	if got, err := entrypoint(src, nil); got != "" || err != nil {
		t.Errorf("the command is %q, %v", got, err)
	}
}

// Whoever has written the source, the program may read it.
func TestAppFiles(t *testing.T) {
	src := tree(t, map[string]string{"private": "", "run": "", "dir/x": ""})
	for name, mode := range map[string]os.FileMode{"private": 0o600, "run": 0o700, "dir": 0o700, "dir/x": 0o444} {
		if err := os.Chmod(filepath.Join(src, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	files, err := appFiles(src, "/w")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]os.FileMode)
	for _, f := range files {
		got[f.Path] = f.Mode.Perm()
	}
	for name, want := range map[string]os.FileMode{"/w/private": 0o644, "/w/run": 0o755, "/w/dir": 0o755,
		"/w/dir/x": 0o444} {
		if got[name] != want {
			t.Errorf("%s has %o, want %o", name, got[name], want)
		}
	}
}

// What serves a Python source, as Google's buildpacks decide (cmd/python/missing_entrypoint of
// github.com/GoogleCloudPlatform/buildpacks, whose test has most of these; https://cloud.google.com/docs/buildpacks/python).
func TestPythonServer(t *testing.T) {
	const asgi = "async def app(scope, receive, send):\n    pass\n"
	const byItself = "app = Flask(__name__)\nif __name__ == '__main__':\n    app.run()\n"
	one := func(name, text string) map[string]string { return map[string]string{name: text} }
	main := func(requirements string) map[string]string {
		return map[string]string{"main.py": "", "requirements.txt": requirements}
	}
	app := func(requirements string) map[string]string {
		return map[string]string{"app.py": "", "requirements.txt": requirements}
	}
	project := func(text string) map[string]string {
		return map[string]string{"main.py": "", "pyproject.toml": text}
	}
	old := one("GOOGLE_RUNTIME_VERSION", "3.12.0")
	const uvicorn, streamlit = "uvicorn main:app --port 8080 --host 0.0.0.0", "streamlit run main.py --server.address 0.0.0.0 --server.port 8080"
	for name, tc := range map[string]struct {
		files map[string]string
		env   map[string]string
		has   string // packages that are installed
		want  string // command, after what of the environment decides; "!" and part of a refusal
	}{
		"gunicorn":                    {files: main("gunicorn"), want: "gunicorn -b :8080 main:app"},
		"gunicorn, app.py":            {files: app("flask\ngunicorn==22.0 # fast"), want: "gunicorn -b :8080 app:app"},
		"uvicorn":                     {files: main("uvicorn"), want: uvicorn},
		"uvicorn, app.py":             {files: app("uvicorn"), want: "uvicorn app:app --port 8080 --host 0.0.0.0"},
		"uvicorn with extras":         {files: main("uvicorn[standard]>=0.30; python_version > '3'"), want: uvicorn},
		"uvicorn of a repository":     {files: main("git+https://example.com/uvicorn.git#egg=uvicorn"), want: uvicorn},
		"uvicorn of an address":       {files: main("uvicorn @ https://example.com/u.whl"), want: uvicorn},
		"both":                        {files: main("uvicorn\ngunicorn"), want: "gunicorn -b :8080 main:app"},
		"fastapi[standard]":           {files: main("fastapi[standard]==0.115"), want: uvicorn},
		"fastapi[standard], gunicorn": {files: main("fastapi[standard]\ngunicorn"), want: "gunicorn -b :8080 main:app"},
		"fastapi, uvicorn":            {files: main("fastapi\nuvicorn"), want: uvicorn},
		"fastapi alone":               {files: map[string]string{"main.py": asgi, "requirements.txt": "fastapi"}, want: "!Nothing would serve"},
		"gradio":                      {files: main("gradio"), want: "GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT=8080 python3 main.py"},
		"streamlit":                   {files: main("streamlit"), want: streamlit},
		"streamlit, app.py":           {files: app("streamlit"), want: "streamlit run app.py --server.address 0.0.0.0 --server.port 8080"},
		"google-adk":                  {files: one("requirements.txt", "google-adk"), want: "adk api_server --port 8080 --host 0.0.0.0"},
		"google-adk, 3.12":            {files: one("requirements.txt", "google-adk"), env: old, want: "!no main.py and no app.py"},
		"a name that begins so":       {files: map[string]string{"main.py": asgi, "requirements.txt": "uvicorn-worker\n# uvicorn\ngunicorn_x"}, want: "!Nothing would serve"},
		"uvicorn, 3.12":               {files: map[string]string{"main.py": asgi, "requirements.txt": "uvicorn"}, env: old, want: "!Nothing would serve"},
		"uvicorn, python312":          {files: main("uvicorn"), env: one("GOOGLE_RUNTIME", "python312"), has: "gunicorn", want: "gunicorn -b :8080 main:app"},
		"uvicorn, by its file":        {files: map[string]string{"main.py": "", "requirements.txt": "uvicorn", ".python-version": "3.11\n"}, has: "gunicorn", want: "gunicorn -b :8080 main:app"},
		"uvicorn, 3.13 by its file":   {files: map[string]string{"main.py": "", "requirements.txt": "uvicorn", ".python-version": "3.13"}, want: uvicorn},
		"uvicorn, 3.14":               {files: main("uvicorn"), env: one("GOOGLE_PYTHON_VERSION", "3.14.0rc1"), want: uvicorn},
		"uvicorn, python":             {files: main("uvicorn"), env: one("GOOGLE_RUNTIME", "python"), want: uvicorn},
		"gunicorn, 3.12":              {files: main("gunicorn"), env: old, want: "gunicorn -b :8080 main:app"},
		"streamlit, 3.12":             {files: main("streamlit"), env: one("GOOGLE_RUNTIME_VERSION", "3.12.*"), has: "gunicorn", want: "gunicorn -b :8080 main:app"},
		"gunicorn is there":           {files: one("main.py", asgi), has: "gunicorn", want: "gunicorn -b :8080 main:app"},
		"it serves by itself":         {files: one("main.py", byItself), want: "python3 main.py"},
		"it does not":                 {files: one("main.py", "app = Flask(__name__)\n"), want: "!Nothing would serve"},
		"nothing to serve with":       {files: one("main.py", "print('hello')"), want: "python3 main.py"},
		"both files":                  {files: map[string]string{"main.py": "", "app.py": "", "requirements.txt": "uvicorn"}, want: uvicorn},
		"other file":                  {files: one("other.py", ""), want: "!no main.py and no app.py"},
		"file below":                  {files: one("folder/main.py", ""), want: "!no main.py and no app.py"},
		"variable":                    {files: main("uvicorn"), env: one("GOOGLE_ENTRYPOINT", "run me"), want: "/bin/sh -c run me"},
		"procfile":                    {files: map[string]string{"main.py": "", "requirements.txt": "uvicorn", "Procfile": "web: a b"}, want: "/bin/sh -c a b"},
		"project, uvicorn":            {files: project("[project]\ndependencies = ['fastapi', 'uvicorn']"), want: uvicorn},
		"project, fastapi[standard]":  {files: project("[project]\ndependencies = ['fastapi[standard]']"), want: uvicorn},
		"project, streamlit":          {files: project("[tool.poetry.dependencies]\nstreamlit = '*'"), want: streamlit},
		"project, fastapi of poetry":  {files: project("[tool.poetry.dependencies]\n\"fastapi[standard]\" = '*'"), want: uvicorn},
		"project, requirements":       {files: map[string]string{"main.py": "", "requirements.txt": "streamlit", "pyproject.toml": "[project]\ndependencies = ['uvicorn']\n[project.scripts]\na = 'b:c'"}, want: streamlit},
		"script":                      {files: one("pyproject.toml", "[project.scripts]\nrun = 'shop.server:main'"), want: "python3 -c import sys; sys.path[0:1] = ['', 'src']; import shop.server as m; sys.argv[0] = 'run'; sys.exit(m.main())"},
		"script before server":        {files: project("[project]\ndependencies = ['gunicorn']\n[project.scripts]\nx = 'main:go'"), want: "python3 -c import sys; sys.path[0:1] = ['', 'src']; import main as m; sys.argv[0] = 'x'; sys.exit(m.go())"},
		"start of several":            {files: project("[tool.poetry.scripts]\nother = 'a:b'\nstart = 'main:go'"), want: "python3 -c import sys; sys.path[0:1] = ['', 'src']; import main as m; sys.argv[0] = 'start'; sys.exit(m.go())"},
		"none of several":             {files: project("[project]\ndependencies = ['uvicorn']\n[project.scripts]\na = 'a:b'\nb = 'main:go'"), want: uvicorn},
		"script that is none":         {files: project("[project]\ndependencies = ['uvicorn']\n[project.scripts]\na = 'os; x():y'"), want: uvicorn},
		"not TOML":                    {files: project("[project"), want: "!pyproject.toml is not valid"},
		"function":                    {files: main("functions-framework==3.*"), env: one("GOOGLE_FUNCTION_TARGET", "hello"), want: "FUNCTION_TARGET=hello functions-framework"},
		"event function": {files: main("functions-framework"), env: map[string]string{"GOOGLE_FUNCTION_TARGET": "hello", "GOOGLE_FUNCTION_SIGNATURE_TYPE": "cloudevent",
			"GOOGLE_FUNCTION_SOURCE": "f.py"}, want: "FUNCTION_TARGET=hello FUNCTION_SOURCE=f.py FUNCTION_SIGNATURE_TYPE=cloudevent functions-framework"},
		"function without": {files: main(""), env: one("GOOGLE_FUNCTION_TARGET", "hello"), want: "!functions-framework is in no requirement"},
	} {
		packages := tree(t, map[string]string{tc.has + "/x": ""})
		said := 0
		got, err := serverOf(tree(t, tc.files), tc.env)
		if err == nil {
			got, err = got.installed(packages, func(string, ...any) { said++ })
		}
		text := strings.Join(append(got.env, got.command...), " ")
		if refusal, refused := strings.CutPrefix(tc.want, "!"); refused {
			if !fault.Is(err, fault.InvalidArgument) || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%s: %q, %v; want %q", name, text, err, refusal)
			}
			continue
		}
		if text != tc.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, text, err, tc.want)
		}
		if (said > 0) != (text == "python3 main.py") {
			t.Errorf("%s: %d lines say that Google would do something else", name, said)
		}
	}
}
