package buildpack

import (
	"context"
	"io/fs"
	"os"
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
// Packages come out of a directory of the source: a package index is not implemented.
func (b *Builder) buildPython(
	ctx context.Context, job task, src, out string, say func(string, ...any),
) (string, error) {
	requirements, err := readSource(src, "requirements.txt", maxManifest)
	if err != nil {
		return "", err
	}
	base, err := b.foreign(PythonImage)
	if err != nil {
		return "", err
	}
	if want := job.Env["GOOGLE_RUNTIME_VERSION"] + job.Env["GOOGLE_PYTHON_VERSION"]; want != "" {
		say("The version %.20q that is asked for has no effect: the builder has Debian's.", want)
	}
	if !has(src, "requirements.txt") && has(src, "pyproject.toml") {
		return "", fault.New(fault.Unimplemented,
			"A source with pyproject.toml and no requirements.txt is not implemented. Write the requirements into requirements.txt.")
	}
	trees := map[string]string{workspace: src}
	if wants(requirements) {
		vendor, err := vendored(src, job.Env["GOOGLE_VENDOR_PIP_DEPENDENCIES"])
		if err != nil {
			return "", err
		}
		start := time.Now()
		args := []string{"python3", "-m", "pip", "install", "--no-index", "--no-build-isolation",
			"--disable-pip-version-check", "--root-user-action=ignore",
			"--no-compile", "--find-links=" + path.Join(workspace, vendor), "--target=/out/pip",
			"--requirement=requirements.txt"}
		say("Running %q", strings.Join(args, " "))
		exit, tail, err := b.contain(ctx, job, engine.Spec{
			Layers: base.Layers,
			Args:   args,
			Env:    merged(base.Config.Env, []string{"HOME=/tmp", "PYTHONDONTWRITEBYTECODE=1"}),
			Mounts: []engine.Mount{{Source: src, Target: workspace, ReadOnly: true}, {Source: out, Target: "/out"}},
		}, say)
		if err != nil {
			return "", err
		}
		if err := succeeded("pip install", exit, tail, pipHint(tail, vendor)); err != nil {
			return "", err
		}
		if err := realDir(filepath.Join(out, "pip")); err != nil {
			return "", err
		}
		trees[pipLayer] = filepath.Join(out, "pip")
		say("Installed in %s", time.Since(start).Round(10*time.Millisecond))
	}
	entry, err := pythonEntry(src, trees[pipLayer], job.Env)
	if err != nil {
		return "", err
	}
	return b.onBase(ctx, app{
		base:  PythonImage,
		entry: entry,
		pack:  "python",
		trees: trees,
		env: []string{"PYTHONPATH=" + pipLayer, "PYTHONUNBUFFERED=1",
			"PATH=" + pipLayer + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	})
}

// wants reports whether requirements name anything.
func wants(requirements string) bool {
	for line := range strings.Lines(requirements) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) != "" {
			return true
		}
	}
	return false
}

// vendored is the directory of the source that holds the packages.
func vendored(src, dir string) (string, error) {
	if dir == "" {
		for _, d := range []string{"vendor", "wheels"} {
			if info, err := os.Lstat(filepath.Join(src, d)); err == nil && info.IsDir() {
				return d, nil
			}
		}
		return "", fault.New(fault.Unimplemented,
			"requirements.txt names packages, and a Python package index is not implemented. Put them into the source with "+
				"`pip download -r requirements.txt -d vendor` and deploy with --set-build-env-vars GOOGLE_VENDOR_PIP_DEPENDENCIES=vendor.")
	}
	if clean := path.Clean(dir); fs.ValidPath(clean) {
		if info, err := os.Lstat(filepath.Join(src, clean)); err == nil && info.IsDir() {
			return clean, nil
		}
	}
	return "", fault.New(fault.InvalidArgument, "GOOGLE_VENDOR_PIP_DEPENDENCIES=%.100q is no directory of the source.",
		dir)
}

// pythonEntry is the command of the image.
func pythonEntry(src, packages string, env map[string]string) ([]string, error) {
	command, err := entrypoint(src, env)
	if err != nil {
		return nil, err
	}
	if command != "" {
		return shell(command), nil
	}
	if packages != "" && has(packages, "gunicorn") && has(src, "main.py") {
		return shell("exec gunicorn --bind :${PORT:-8080} main:app"), nil
	}
	for _, file := range []string{"main.py", "app.py"} {
		if has(src, file) {
			return []string{"python3", file}, nil
		}
	}
	return nil, fault.New(fault.InvalidArgument,
		"Nothing says how the program is started: there is no main.py and no app.py. Add a Procfile, or set GOOGLE_ENTRYPOINT.")
}

func pipHint(tail []string, vendor string) string {
	if all := strings.Join(tail, "\n"); strings.Contains(all, "No matching distribution") ||
		strings.Contains(all, "Could not find a version") {
		return "\nPackages come out of " + vendor + " only: `pip download -r requirements.txt -d " + vendor +
			"` puts all of them there."
	}
	return ""
}
