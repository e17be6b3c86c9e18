package buildpack

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"giggle/engine"
	"giggle/fault"
)

// NodeImage is the mirror's image that Node.js sources are built in and run on.
const NodeImage = "node:latest"

// manifest is the part of package.json that decides.
type manifest struct {
	Main    string            `json:"main"`
	Scripts map[string]string `json:"scripts"`
	Engines map[string]string `json:"engines"`
	// PackageManager is "NAME@VERSION", with a hash or without (https://nodejs.org/api/packages.html#packagemanager).
	PackageManager string `json:"packageManager"`
}

// buildNode installs the dependencies with npm, runs the source's build script, and makes the image
// (https://cloud.google.com/docs/buildpacks/nodejs).
func (b *Builder) buildNode(ctx context.Context, job task, src string, say func(string, ...any)) (string, error) {
	text, err := readSource(src, "package.json", maxManifest)
	if err != nil {
		return "", err
	}
	var m manifest
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return "", fault.New(fault.InvalidArgument, "package.json is not valid: %v.", err)
	}
	manager, err := nodeManager(src, m)
	if err != nil {
		return "", err
	}
	entry, err := nodeEntry(src, m, job.Env)
	if err != nil {
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
	if err := succeeded(manager.name, exit, tail, npmHint(tail)); err != nil {
		return "", err
	}
	say("Installed in %s", time.Since(start).Round(10*time.Millisecond))
	// The base names the builds' registry; npm takes an empty variable for none.
	return b.onBase(ctx, app{
		base:  NodeImage,
		entry: entry,
		pack:  "nodejs",
		trees: map[string]string{workspace: src},
		env: []string{"NODE_ENV=production", "npm_config_registry=",
			"PATH=/workspace/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	})
}

// script is what is run in the builder. A script that builds needs the development dependencies, and they go after.
func (p packageManager) script(m manifest, env map[string]string) string {
	var scripts []string
	switch {
	case env["GOOGLE_NODE_RUN_SCRIPTS"] != "":
		scripts = strings.Split(env["GOOGLE_NODE_RUN_SCRIPTS"], ",")
	case m.Scripts["gcp-build"] != "":
		scripts = []string{"gcp-build"}
	case m.Scripts["build"] != "":
		scripts = []string{"build"}
	}
	lines := slices.Clone(p.before)
	say := func(cmd string) { lines = append(lines, "echo 'Running \""+cmd+"\"'", p.prefix+cmd) }
	if len(scripts) == 0 {
		say(p.production)
		return strings.Join(append(lines, p.after...), "\n")
	}
	say(p.install)
	for _, s := range scripts {
		if s = strings.TrimSpace(s); scriptName.MatchString(s) {
			say(p.name + " run " + s)
		}
	}
	say(p.prune)
	return strings.Join(append(lines, p.after...), "\n")
}

var (
	scriptName = regexp.MustCompile(`^[A-Za-z0-9:_.-]+$`)
	plainNode  = regexp.MustCompile(`^node [A-Za-z0-9_./-]+$`)
)

// nodeEntry is the command of the image: what the source asks for, its start script, or its main program.
func nodeEntry(src string, m manifest, env map[string]string) ([]string, error) {
	command, err := entrypoint(src, env)
	if err != nil {
		return nil, err
	}
	switch start := strings.TrimSpace(m.Scripts["start"]); {
	case command != "":
		return shell(command), nil
	case plainNode.MatchString(start): // without npm around it: it starts half a second earlier
		return strings.Fields(start), nil
	case start != "":
		return []string{"npm", "start"}, nil
	}
	for _, file := range []string{m.Main, "server.js", "index.js", "app.js"} {
		if file != "" && has(src, file) {
			return []string{"node", file}, nil
		}
	}
	return nil, fault.New(fault.InvalidArgument,
		"Nothing says how the program is started: add a script \"start\" to package.json, or a Procfile, or set GOOGLE_ENTRYPOINT.")
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
