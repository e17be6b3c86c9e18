package buildpack

import (
	"cmp"
	"path"
	"regexp"
	"strconv"
	"strings"

	"giggle/fault"
)

// pythonServer is how a Python program is started.
type pythonServer struct {
	command []string
	env     []string
	// needs is the package that the command is of, where the source does not require it: Google's buildpacks install
	// it.
	needs string
	// install is whether needs is of use: there is an application for it.
	install bool
	// script is what is run where needs is not to be had: a file that serves by itself; "" for none.
	script string
}

// gunicorn is the web server of sources that name none, in the version that Google's buildpacks install.
const gunicorn = "gunicorn"

// What Google's buildpacks install where the source does not require it (cmd/python/webserver/lib/requirements.txt and
// cmd/python/functions_framework/converter/requirements.txt of github.com/GoogleCloudPlatform/buildpacks).
var pythonRequirement = map[string]string{gunicorn: "gunicorn==22.0.0", "functions-framework": "functions-framework"}

// pythonServers are the servers that are looked for in the requirements, in this order, since Python 3.13
// (https://cloud.google.com/docs/buildpacks/python#entrypoint). In their commands, MODULE is "main:app" and FILE
// "main.py", or those of app.py.
var pythonServers = []struct {
	requires, command string
	env               []string
}{
	{requires: gunicorn, command: "gunicorn -b :8080 MODULE"},
	{requires: "uvicorn", command: "uvicorn MODULE --port 8080 --host 0.0.0.0"},
	{requires: "fastapi[standard]", command: "uvicorn MODULE --port 8080 --host 0.0.0.0"},
	{
		requires: "gradio",
		command:  "python3 FILE",
		env:      []string{"GRADIO_SERVER_NAME=0.0.0.0", "GRADIO_SERVER_PORT=8080"},
	},
	{requires: "streamlit", command: "streamlit run FILE --server.address 0.0.0.0 --server.port 8080"},
	{requires: "google-adk", command: "adk api_server --port 8080 --host 0.0.0.0"},
}

// serverOf decides how a source is started: by what it asks for, as a function, by a script of its pyproject.toml, or
// by the web server that it requires, as Google's buildpacks do in that order.
func serverOf(src string, env map[string]string) (pythonServer, error) {
	own, err := entrypoint(src, env)
	if err != nil {
		return pythonServer{}, err
	}
	if own != "" {
		return pythonServer{command: shell(own)}, nil
	}
	project, err := readPyproject(src)
	if err != nil {
		return pythonServer{}, err
	}
	required, err := project.requirements(src)
	if err != nil {
		return pythonServer{}, err
	}
	if env["GOOGLE_FUNCTION_TARGET"] != "" {
		return functionsFramework(env, required), nil
	}
	if script := project.script(); script != nil {
		return pythonServer{command: script}, nil
	}
	smart, err := smartDefault(src, env)
	if err != nil {
		return pythonServer{}, err
	}
	adk := smart && required["google-adk"]
	file := "main.py"
	switch {
	case has(src, "main.py"):
	case has(src, "app.py"):
		file = "app.py"
	case !adk:
		return pythonServer{}, fault.New(fault.InvalidArgument,
			"Nothing says how the program is started: there is no main.py and no app.py. Add a Procfile, or "+
				"set GOOGLE_ENTRYPOINT.")
	}
	module := strings.TrimSuffix(file, ".py") + ":app"
	for _, s := range pythonServers {
		if required[s.requires] && (smart || s.requires == gunicorn) {
			command := strings.NewReplacer("MODULE", module, "FILE", file).Replace(s.command)
			return pythonServer{command: strings.Fields(command), env: s.env}, nil
		}
	}
	out := pythonServer{command: []string{gunicorn, "-b", ":8080", module}, needs: gunicorn}
	text, err := readSource(src, file, maxManifest)
	if out.install = hasApp.MatchString(text); err == nil && (!out.install || runsItself.MatchString(text)) {
		out.script = file
	}
	return out, err
}

// An application object for a web server, and a program that starts one by itself, as lines of a Python file.
var (
	hasApp = regexp.MustCompile(
		`(?m)^(app\b\s*(:[^=\n]*)?=|(async\s+)?def\s+app\b|class\s+app\b|from\s+\S+\s+import\s.*\bapp\b)`)
	runsItself = regexp.MustCompile(
		`(?m)^if\s*\(?\s*(__name__\s*==\s*['"]__main__['"]|['"]__main__['"]\s*==\s*__name__)`)
)

// functionsFramework is the server of a function (https://github.com/GoogleCloudPlatform/functions-framework-python).
func functionsFramework(env map[string]string, required map[string]bool) pythonServer {
	out := pythonServer{command: []string{"functions-framework"}, env: functionEnv(env)}
	if !required["functions-framework"] {
		out.needs, out.install = "functions-framework", true
	}
	return out
}

// installed is the server once the packages are: where one that was not required is missing, the script that serves by
// itself, or a failure that says that nothing would serve.
func (s pythonServer) installed(packages string, say func(string, ...any)) (pythonServer, error) {
	if s.needs == "" || packages != "" && has(packages, strings.ReplaceAll(s.needs, "-", "_")) {
		return s, nil
	}
	command := strings.Join(s.command, " ")
	if s.script == "" {
		return s, fault.New(fault.InvalidArgument,
			"Nothing would serve: the source is run by %q, and %s is in no requirement of its own nor to be had "+
				"here. Add %[2]s, or another server (uvicorn, streamlit), to requirements.txt, or say in a Procfile or by "+
				"GOOGLE_ENTRYPOINT what serves.",
			command, s.needs)
	}
	say("Running %q by itself: at Google it would be %q, and %s is not installed here.", s.script, command, s.needs)
	s.command = []string{"python3", s.script}
	return s, nil
}

// pythonVersion is a version of Python that a source may ask for.
var pythonVersion = regexp.MustCompile(`^(?:python)?3\.?(\d{1,2}|\*)`)

// smartDefault reports whether the web server is looked for in the requirements: since Python 3.13, which a source that
// names no version gets.
func smartDefault(src string, env map[string]string) (bool, error) {
	file, err := readSource(src, ".python-version", maxProcfile)
	if err != nil {
		return false, err
	}
	runtime := env["GOOGLE_RUNTIME"]
	if strings.TrimRight(runtime, "0123456789.") == runtime {
		runtime = ""
	}
	want := strings.TrimSpace(cmp.Or(env["GOOGLE_PYTHON_VERSION"], env["GOOGLE_RUNTIME_VERSION"], runtime,
		strings.TrimSpace(file)))
	m := pythonVersion.FindStringSubmatch(want)
	if m == nil {
		return true, nil
	}
	minor, err := strconv.Atoi(m[1])
	return err == nil && minor >= 13, nil // "3.*" is taken for 3.0, as there
}

// pyproject is the part of pyproject.toml that decides.
type pyproject struct {
	Project struct {
		Dependencies []string          `toml:"dependencies"`
		Scripts      map[string]string `toml:"scripts"`
	} `toml:"project"`
	Tool struct {
		Poetry struct {
			Dependencies map[string]any    `toml:"dependencies"`
			Scripts      map[string]string `toml:"scripts"`
		} `toml:"poetry"`
	} `toml:"tool"`
}

// readPyproject reads pyproject.toml, which counts where there is no requirements.txt; empty for none.
func readPyproject(src string) (p pyproject, err error) {
	if has(src, "requirements.txt") {
		return p, nil
	}
	text, err := readSource(src, "pyproject.toml", maxManifest)
	if err != nil {
		return p, err
	}
	return p, decodeTOML("pyproject.toml", text, &p)
}

// script is the command of the only script, or of the one that is called "start"; nil for none. It is called as its
// wrapper would (https://packaging.python.org/en/latest/specifications/entry-points/), which is there only where the
// project itself is installed.
func (p pyproject) script() []string {
	for _, scripts := range []map[string]string{p.Tool.Poetry.Scripts, p.Project.Scripts} {
		name := "start"
		if len(scripts) == 1 {
			name = sortedKeys(scripts)[0]
		}
		m := entryPoint.FindStringSubmatch(scripts[name])
		if m == nil {
			continue
		}
		return []string{"python3", "-c", "import sys; sys.path[0:1] = ['', 'src']; import " + m[1] +
			" as m; sys.argv[0] = '" + path.Base(strings.ReplaceAll(name, "'", "")) + "'; sys.exit(m." + m[2] + "())"}
	}
	return nil
}

// entryPoint is what a script of pyproject.toml names: "package.module:function".
var entryPoint = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_.]*)\s*:\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(?:\[.*\])?$`)

// requirements are the packages that a source names, of those that decide, with their extras.
func (p pyproject) requirements(src string) (map[string]bool, error) {
	text, err := readSource(src, "requirements.txt", maxManifest)
	if err != nil {
		return nil, err
	}
	out := make(map[string]bool)
	for line := range strings.Lines(text + "\n" + strings.Join(p.Project.Dependencies, "\n")) {
		if _, egg, ok := strings.Cut(line, "#egg="); ok {
			line = egg
		}
		if m := requirement.FindStringSubmatch(line); m != nil {
			name := strings.ToLower(m[1])
			out[name] = true
			out[name+strings.ToLower(strings.ReplaceAll(m[2], " ", ""))] = true
		}
	}
	for name := range p.Tool.Poetry.Dependencies {
		out[strings.ToLower(name)] = true
	}
	return out, nil
}

// requirement is the name and the extras at the beginning of a requirement
// (https://packaging.python.org/en/latest/specifications/dependency-specifiers/).
var requirement = regexp.MustCompile(`^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?`)
