package buildpack

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"giggle/engine"
	"giggle/fault"
)

// NodeImage is the mirror's image that Node.js sources are built in and run on.
const NodeImage = "node:latest"

// manifest is the part of package.json that decides.
type manifest struct {
	Main            string            `json:"main"`
	Scripts         map[string]string `json:"scripts"`
	DevDependencies map[string]any    `json:"devDependencies"`
	// PackageManager is "NAME@VERSION", with a hash or without (https://nodejs.org/api/packages.html#packagemanager).
	PackageManager string `json:"packageManager"`
}

// readManifest reads package.json.
func readManifest(src string) (m manifest, text string, err error) {
	if text, err = readSource(src, "package.json", maxManifest); err != nil {
		return m, text, err
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return m, text, fault.New(fault.InvalidArgument, "package.json is not valid: %v.", err)
	}
	return m, text, nil
}

// buildNode installs the dependencies with npm, runs the source's build script, and makes the image
// (https://cloud.google.com/docs/buildpacks/nodejs).
func (b *Builder) buildNode(ctx context.Context, job task, src string, say func(string, ...any)) (string, error) {
	m, _, err := readManifest(src)
	if err != nil {
		return "", err
	}
	manager, err := nodeManager(src, m)
	if err != nil {
		return "", err
	}
	if _, err := entrypoint(src, job.Env); err != nil { // before minutes of installing
		return "", err
	}
	base, err := b.foreign(NodeImage)
	if err != nil {
		return "", err
	}
	cache, err := b.projectCache(job.Project, "npm")
	if err != nil {
		return "", err
	}
	if want := job.Env["GOOGLE_RUNTIME_VERSION"] + job.Env["GOOGLE_NODEJS_VERSION"]; want != "" {
		say("The version %.20q that is asked for has no effect: the builder has the one of this machine.", want)
	}
	start := time.Now()
	env := merged(base.Config.Env, []string{
		"HOME=/tmp", "CI=true", "npm_config_registry=http://169.254.169.254/npm/", "npm_config_cache=/cache/npm",
		"npm_config_update_notifier=false", "npm_config_fund=false", "npm_config_audit=false",
		"npm_config_progress=false",
	})
	env = append(env, manager.env...)
	for _, name := range sortedKeys(job.Env) {
		env = append(env, name+"="+job.Env[name])
	}
	script := manager.script(m, job.Env)
	exit, tail, err := b.contain(ctx, job, engine.Spec{
		Layers: base.Layers, Args: []string{"/bin/sh", "-ec", script}, Env: env,
		Mounts: []engine.Mount{{Source: src, Target: workspace}, {Source: cache, Target: "/cache/npm"}},
	}, say)
	if err != nil {
		return "", err
	}
	if err := succeeded(manager.name, exit, tail, npmHint(tail)+skipHint(m, job.Env, tail)); err != nil {
		return "", err
	}
	say("Installed in %s", time.Since(start).Round(10*time.Millisecond))
	// Now that everything is built: a build may make the program, and write package.json anew.
	m, text, err := readManifest(src)
	if err != nil {
		return "", err
	}
	entry, byNPM, err := nodeEntry(src, m, job.Env)
	if err != nil {
		return "", err
	}
	// The base names the builds' registry; npm takes an empty variable for none.
	return b.onBase(ctx, app{
		base:  NodeImage,
		entry: entry,
		pack:  "nodejs",
		trees: map[string]string{workspace: src},
		env: slices.Concat([]string{"NODE_ENV=" + nodeEnv(job.Env), "npm_config_registry=",
			"PATH=/workspace/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			npmEnv(byNPM, text), functionEnv(job.Env)),
	})
}

// nodeEnv is NODE_ENV of the program: what the build was told, or production.
func nodeEnv(env map[string]string) string { return cmp.Or(env["NODE_ENV"], "production") }

// buildCommands are the arguments of the package manager that build the source, one list for each command, in the order
// in which Google's buildpack looks for them. What is there and empty means that nothing is run.
func buildCommands(m manifest, env map[string]string) [][]string {
	list, asked := env["GOOGLE_NODE_RUN_SCRIPTS"]
	if !asked {
		for _, name := range []string{"gcp-build", "build"} {
			if text, ok := m.Scripts[name]; ok {
				if strings.TrimSpace(text) == "" {
					return nil
				}
				return [][]string{{name}}
			}
		}
	}
	var out [][]string
	for name := range strings.SplitSeq(list, ",") {
		if words := strings.Fields(name); len(words) > 0 {
			out = append(out, words)
		}
	}
	return out
}

// script is what is run in the builder. A script that builds needs the development dependencies, and they go after;
// NODE_ENV of the build says otherwise.
func (p packageManager) script(m manifest, env map[string]string) string {
	commands := buildCommands(m, env)
	wanted, told := env["NODE_ENV"]
	install := p.install
	if told && wanted == "production" || !told && len(commands) == 0 {
		install = p.production
	}
	vendored := p.vendored != "" && isTrue(env["GOOGLE_VENDOR_NPM_DEPENDENCIES"])
	lines := slices.Clone(p.before)
	say := func(cmd string) { lines = append(lines, "echo "+quoted(`Running "`+cmd+`"`), p.prefix+cmd) }
	switch {
	case vendored:
		say(p.vendored)
	default:
		if p.clean != "" {
			lines = append(lines, p.clean)
		}
		say(install)
	}
	for _, words := range commands {
		cmd := p.name + " run"
		for _, w := range words {
			if !plainWord.MatchString(w) {
				w = quoted(w)
			}
			cmd += " " + w
		}
		say(cmd)
	}
	if len(commands) > 0 && !vendored && install == p.install && len(m.DevDependencies) > 0 &&
		nodeEnv(env) == "production" {
		say(p.prune)
	}
	return strings.Join(append(lines, p.after...), "\n")
}

// isTrue reads a variable of Google's buildpacks that is true or false.
func isTrue(value string) bool {
	yes, err := strconv.ParseBool(value)
	return err == nil && yes
}

var (
	plainWord = regexp.MustCompile(`^[A-Za-z0-9:_./-]+$`)
	plainNode = regexp.MustCompile(`^node [A-Za-z0-9_./-]+$`)
)

// nodeEntry is the command of the image: what the source asks for, its start script, or its main program, in the order
// of Google's buildpack. byNPM is npm's script that the command stands for, "" for none.
func nodeEntry(src string, m manifest, env map[string]string) (command []string, byNPM string, err error) {
	own, err := entrypoint(src, env)
	if err != nil {
		return nil, "", err
	}
	start, hasStart := m.Scripts["start"]
	start = strings.TrimSpace(start)
	server := frameworkServer(src)
	if start == "" && has(src, "server.js") && (hasStart || server == "") {
		start = "node server.js" // npm's own default (https://docs.npmjs.com/cli/v10/commands/npm-start)
	}
	switch {
	case own != "":
		return shell(own), "", nil
	case env["GOOGLE_FUNCTION_TARGET"] != "":
		if !has(src, nodeFramework) {
			return nil, "", fault.New(fault.InvalidArgument,
				"A function is served by the Functions Framework: add @google-cloud/functions-framework to the "+
					"dependencies of package.json.")
		}
		return []string{"node", nodeFramework}, "", nil
	case serveSSR(m) != "":
		return strings.Fields(serveSSR(m)), "", nil
	case m.Scripts["prestart"]+m.Scripts["poststart"] == "" && plainNode.MatchString(start):
		// without npm around it: it starts half a second earlier
		return strings.Fields(start), start, nil
	case start != "":
		return []string{"npm", "run", "start"}, "", nil
	case hasStart:
		return nil, "", fault.New(fault.InvalidArgument,
			"The script \"start\" of package.json is empty, and there is no server.js: nothing would serve.")
	case server != "":
		return []string{"node", server}, "", nil
	case m.Main != "" && resolves(src, m.Main):
		return []string{"node", m.Main}, "", nil
	case m.Main != "":
		return nil, "", fault.New(fault.InvalidArgument,
			"\"main\" of package.json is %.200q, which neither the source has nor its build has made. Is the script "+
				"\"build\" the one that makes it?", m.Main)
	case has(src, "index.js"):
		return []string{"node", "index.js"}, "", nil
	}
	return nil, "", fault.New(fault.InvalidArgument,
		"Nothing says how the program is started, and there is no server.js and no index.js: add a script "+
			"\"start\" to package.json, or a Procfile, or set GOOGLE_ENTRYPOINT.")
}

// nodeFramework is the server of functions (https://github.com/GoogleCloudPlatform/functions-framework-nodejs).
const nodeFramework = "node_modules/@google-cloud/functions-framework/build/src/main.js"

// functionEnv is what the servers of functions read, of what the build was told; nil for no function.
func functionEnv(env map[string]string) (out []string) {
	if env["GOOGLE_FUNCTION_TARGET"] == "" {
		return nil
	}
	for _, name := range []string{"FUNCTION_TARGET", "FUNCTION_SOURCE", "FUNCTION_SIGNATURE_TYPE"} {
		if v := env["GOOGLE_"+name]; v != "" {
			out = append(out, name+"="+v)
		}
	}
	return out
}

// serveSSR is the script by which Angular's server side is started, "" for none.
func serveSSR(m manifest) string {
	for _, name := range sortedKeys(m.Scripts) {
		if strings.HasPrefix(name, "serve:ssr:") {
			return strings.TrimSpace(m.Scripts[name])
		}
	}
	return ""
}

// frameworkServer is the server that Nuxt or SvelteKit has built, "" for none.
func frameworkServer(src string) string {
	for config, server := range map[string]string{"nuxt.config.ts": ".output/server/index.mjs",
		"svelte.config.js": "build/index.js"} {
		if has(src, config) && has(src, server) {
			return server
		}
	}
	return ""
}

// resolves reports whether node finds the program of a name: as it is, with an extension, or as a directory with an
// index or a package.json of its own (https://nodejs.org/api/modules.html#all-together).
func resolves(src, name string) bool {
	name = path.Clean(strings.TrimPrefix(name, workspace+"/"))
	if info := stat(src, name); info != nil && !info.IsDir() {
		return true
	}
	for _, ext := range []string{".js", ".json", ".node", "/index.js", "/index.json", "/index.node", "/package.json"} {
		if info := stat(src, name+ext); info != nil && !info.IsDir() {
			return true
		}
	}
	return false
}

// variable is a name that an environment can hold.
var variable = regexp.MustCompile(`^[A-Za-z0-9_@./-]{1,100}$`)

// maxVariables and maxPrefix bound what of package.json is in an image's environment: how many members, and how long
// the names of those around one are together, each of which is kept as long as what is in it is read.
const (
	maxVariables = 100
	maxPrefix    = 1000
)

// npmEnv is the environment that npm gives a script (https://docs.npmjs.com/cli/v10/using-npm/scripts#environment), for
// a program that is started without npm around it; nil for no script.
func npmEnv(script, packageJSON string) []string {
	if script == "" {
		return nil
	}
	env := []string{"npm_command=run-script", "npm_lifecycle_event=start", "npm_lifecycle_script=" + script,
		"npm_package_json=" + workspace + "/package.json", "npm_config_local_prefix=" + workspace,
		"npm_node_execpath=/usr/local/bin/node", "NODE=/usr/local/bin/node", "INIT_CWD=" + workspace}
	var all map[string]any
	if json.Unmarshal([]byte(packageJSON), &all) != nil {
		return env
	}
	kept := make(map[string]any)
	for _, name := range []string{"name", "version", "config", "engines", "bin"} {
		if v, ok := all[name]; ok {
			kept[name] = v
		}
	}
	return append(env, packageEnv("npm_package_", kept)...)
}

// packageEnv is a part of package.json as npm has it in the environment: the names of nested members joined by "_".
func packageEnv(prefix string, members map[string]any) []string {
	if len(prefix) > maxPrefix {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !variable.MatchString(name) || len(out) >= maxVariables {
			continue
		}
		switch v := members[name].(type) {
		case map[string]any:
			out = append(out, packageEnv(prefix+name+"_", v)...)
		case []any:
			nested := make(map[string]any, len(v))
			for i, of := range v {
				nested[strconv.Itoa(i)] = of
			}
			out = append(out, packageEnv(prefix+name+"_", nested)...)
		case nil:
			out = append(out, prefix+name+"=")
		case bool:
			text := ""
			if v {
				text = "true"
			}
			out = append(out, prefix+name+"="+text)
		case float64:
			out = append(out, prefix+name+"="+strconv.FormatFloat(v, 'f', -1, 64))
		case string:
			if !strings.ContainsRune(v, 0) && len(v) <= maxProcfile {
				out = append(out, prefix+name+"="+v)
			}
		}
	}
	return out[:min(len(out), maxVariables)]
}

// skipHint says how the script that nobody asked for by name is left out.
func skipHint(m manifest, env map[string]string, tail []string) string {
	_, asked := env["GOOGLE_NODE_RUN_SCRIPTS"]
	_, own := m.Scripts["gcp-build"]
	if asked || own || len(buildCommands(m, env)) == 0 || npmHint(tail) != "" {
		return ""
	}
	return "\nWhere it was the script \"build\" that failed: --set-build-env-vars " +
		"GOOGLE_NODE_RUN_SCRIPTS= leaves it out."
}

// npmHint says what to do about failures that are not in the user's code.
func npmHint(tail []string) string {
	all := strings.Join(tail, "\n")
	switch {
	case strings.Contains(all, "package registry can't be reached"), strings.Contains(all, "ECONNREFUSED"):
		return "\nThere is no network for packages that were not fetched before."
	case strings.Contains(all, "EUSAGE") && strings.Contains(all, "in sync"):
		return "\npackage-lock.json does not fit package.json: run `npm install` and deploy again."
	}
	return ""
}
