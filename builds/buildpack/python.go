package buildpack

import (
	"context"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"time"

	"giggle/engine"
	"giggle/fault"
)

// PythonImage is the mirror's image that Python sources are built in and run on.
const PythonImage = "python:latest"

// pipLayer is where an image has the installed packages, as Google's buildpacks have them.
const pipLayer = "/layers/google.python.pip/pip"

// buildPython installs the requirements with pip and makes the image (https://cloud.google.com/docs/buildpacks/python).
// Packages come out of a directory of the source, or from a package index where builds reach the outside.
func (b *Builder) buildPython(
	ctx context.Context, job task, src, out string, say func(string, ...any),
) (string, error) {
	base, err := b.foreign(PythonImage)
	if err != nil {
		return "", err
	}
	if want := job.Env["GOOGLE_RUNTIME_VERSION"] + job.Env["GOOGLE_PYTHON_VERSION"]; want != "" {
		say("The version %.20q that is asked for has no effect: the builder has Debian's.", want)
	}
	server, err := serverOf(src, job.Env)
	if err != nil {
		return "", err
	}
	install, err := b.pipInstall(job, src, server)
	if err != nil {
		return "", err
	}
	trees := map[string]string{workspace: src}
	if install != nil {
		start := time.Now()
		cache, err := b.projectCache(job.Project, "pip")
		if err != nil {
			return "", err
		}
		env := merged(base.Config.Env, []string{
			"HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1", "PIP_CACHE_DIR=/cache/pip", "UV_CACHE_DIR=/cache/pip/uv",
			"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_ROOT_USER_ACTION=ignore", "PIP_NO_INPUT=1",
		})
		if b.cfg.PythonIndex != "" {
			env = append(env, "PIP_INDEX_URL="+b.cfg.PythonIndex, "UV_DEFAULT_INDEX="+b.cfg.PythonIndex)
		}
		for _, name := range sortedKeys(job.Env) {
			if strings.HasPrefix(name, "PIP_") || strings.HasPrefix(name, "UV_") {
				env = append(env, name+"="+job.Env[name])
			}
		}
		var lines []string
		for _, cmd := range install {
			lines = append(lines, "echo "+quoted(`Running "`+cmd+`"`), cmd)
		}
		exit, tail, err := b.contain(ctx, job, engine.Spec{
			Layers: base.Layers,
			Args:   []string{"/bin/sh", "-ec", strings.Join(lines, "\n")},
			Env:    env,
			Mounts: []engine.Mount{
				{Source: src, Target: workspace, ReadOnly: true},
				{Source: out, Target: "/out"},
				{Source: cache, Target: "/cache/pip"},
			},
		}, say)
		if err != nil {
			return "", err
		}
		if err := succeeded("pip install", exit, tail, b.pipHint(tail)); err != nil {
			return "", err
		}
		if err := realDir(filepath.Join(out, "pip")); err != nil {
			return "", err
		}
		trees[pipLayer] = filepath.Join(out, "pip")
		say("Installed in %s", time.Since(start).Round(10*time.Millisecond))
	}
	if server, err = server.installed(trees[pipLayer], say); err != nil {
		return "", err
	}
	return b.onBase(ctx, app{
		base:  PythonImage,
		entry: server.command,
		pack:  "python",
		trees: trees,
		env: append(server.env, "PYTHONPATH="+pipLayer, "PYTHONUNBUFFERED=1",
			"PATH="+pipLayer+"/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
	})
}

// pipInstall is the commands that install what a source requires; nil for a source that requires nothing. What a lock
// file of uv or Poetry holds is written out as requirements, with their hashes, by uv or Poetry itself.
// The server's package is installed beside, where it can be had.
func (b *Builder) pipInstall(job task, src string, server pythonServer) ([]string, error) {
	const into = "python3 -m pip install --no-compile --target=/out/pip "
	online := b.cfg.Online != nil && b.cfg.Online()
	requirements, err := readSource(src, "requirements.txt", maxManifest)
	if err != nil {
		return nil, err
	}
	project := has(src, "pyproject.toml") && !has(src, "requirements.txt")
	more := ""
	if server.install && server.needs != "" && !project {
		more = " " + pythonRequirement[server.needs]
	}
	if !project && !wants(requirements) {
		if more != "" && online {
			return []string{into + strings.TrimSpace(more)}, nil
		}
		return nil, nil
	}
	vendor, err := vendored(src, job.Env["GOOGLE_VENDOR_PIP_DEPENDENCIES"])
	if err != nil {
		return nil, err
	}
	switch {
	case vendor != "" && !project:
		return []string{into + "--no-index --no-build-isolation --find-links=" +
			quoted(path.Join(workspace, vendor)) + " --requirement=requirements.txt"}, nil
	case !online && project:
		return nil, fault.New(fault.Unimplemented,
			"A source with pyproject.toml and no requirements.txt needs a Python package index, and builds reach nothing outside. "+
				"Start the platform with egress (`giggle up --egress=public`), or write a requirements.txt and put the packages into "+
				"the source with `pip download -r requirements.txt -d vendor`.")
	case !online:
		return nil, fault.New(fault.Unimplemented,
			"requirements.txt names packages, and builds reach no Python package index. Start the platform with egress "+
				"(`giggle up --egress=public`), or put the packages into the source with "+
				"`pip download -r requirements.txt -d vendor` and deploy with --set-build-env-vars GOOGLE_VENDOR_PIP_DEPENDENCIES=vendor.")
	case project && has(src, "uv.lock"):
		return []string{
			"python3 -m pip install --quiet --target=/tmp/tools uv",
			"PYTHONPATH=/tmp/tools python3 -m uv export --quiet --frozen --no-dev --no-emit-project --output-file=/tmp/locked.txt",
			into + "--requirement=/tmp/locked.txt",
		}, nil
	case project && has(src, "poetry.lock"):
		return []string{
			"python3 -m pip install --quiet --target=/tmp/tools poetry poetry-plugin-export",
			"PYTHONPATH=/tmp/tools python3 -m poetry export --quiet --only=main --output=/tmp/locked.txt",
			into + "--requirement=/tmp/locked.txt",
		}, nil
	case project: // pip writes beside what it builds
		return []string{"cp -r " + workspace + " /tmp/project", into + "/tmp/project"}, nil
	}
	return []string{into + "--requirement=requirements.txt" + more}, nil
}

// quoted is a text as one word of a shell's.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// wants reports whether requirements name anything.
func wants(requirements string) bool {
	for line := range strings.Lines(requirements) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) != "" {
			return true
		}
	}
	return false
}

// vendored is the directory of the source that holds the packages, "" for none.
func vendored(src, dir string) (string, error) {
	if dir == "" {
		for _, d := range []string{"vendor", "wheels"} {
			if hasDir(src, d) {
				return d, nil
			}
		}
		return "", nil
	}
	if clean := path.Clean(dir); fs.ValidPath(clean) && hasDir(src, clean) {
		return clean, nil
	}
	return "", fault.New(fault.InvalidArgument, "GOOGLE_VENDOR_PIP_DEPENDENCIES=%.100q is no directory of the source.",
		dir)
}

// pipHint says what to do about failures that are not in the user's code.
func (b *Builder) pipHint(tail []string) string {
	all := strings.Join(tail, "\n")
	if !strings.Contains(all, "No matching distribution") && !strings.Contains(all, "Could not find a version") {
		return ""
	}
	if b.cfg.Online != nil && b.cfg.Online() {
		return "\nThe package index has no such package for Python on this machine, or could not be reached."
	}
	return "\nPackages come out of the source only: `pip download -r requirements.txt -d vendor` puts them there, with what they need."
}
