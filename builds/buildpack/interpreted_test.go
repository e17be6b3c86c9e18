package buildpack_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"giggle/fault"
)

// npmRegistry is a registry with one package, "joke", which says one.
func npmRegistry(t *testing.T) string {
	t.Helper()
	var tarball bytes.Buffer
	z := gzip.NewWriter(&tarball)
	w := tar.NewWriter(z)
	for name, text := range map[string]string{
		"package/package.json": `{"name":"joke","version":"1.0.0","main":"index.js"}`,
		"package/index.js":     `module.exports = () => "a joke out of a package"`,
	} {
		_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
		_, _ = w.Write([]byte(text))
	}
	_, _ = w.Close(), z.Close()
	sum := sha512.Sum512(tarball.Bytes())
	m := http.NewServeMux()
	m.HandleFunc("GET /joke", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"name":"joke","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"joke","version":"1.0.0","dist":{"tarball":"https://registry.npmjs.org/joke/-/joke-1.0.0.tgz","integrity":"sha512-%s"}}}}`,
			base64.StdEncoding.EncodeToString(sum[:]))
	})
	m.HandleFunc("GET /joke/-/joke-1.0.0.tgz",
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(tarball.Bytes()) })
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	return s.URL
}

// One builder for all: its caches are made once.
func TestLanguages(t *testing.T) {
	f := setup(t, "off")
	for name, test := range map[string]func(*testing.T, *fixture){
		"node": testNode, "hostile node": testHostileNode, "python": testPython, "python server": testPythonServer, "static site": testStaticSite,
		"go with a procfile": testGoWithProcfile,
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			test(t, f)
		})
	}
	f.t = t
}

const nodeServer = `require("http").createServer((req, res) => res.end(TEXT)).listen(process.env.PORT)`

func testNode(t *testing.T, f *fixture) {
	src := files{
		"package.json": `{"name":"app","version":"1.2.3","dependencies":{"joke":"^1.0.0"},"scripts":{"start":"node server.js","build":"node -e \"require('fs').writeFileSync('built.txt', 'built')\""}}`,
		"server.js": strings.Replace(nodeServer, "TEXT",
			`require("joke")() + ", " + require("fs").readFileSync("built.txt") + ", " + process.env.NODE_ENV + ", " + process.env.npm_package_version`, 1),
	}
	digest, _ := f.mustBuild(src, nil)
	if got := f.answer(digest); got != "a joke out of a package, built, production, 1.2.3" {
		t.Errorf("the service answers %q", got)
	}
	// The build makes the program, which package.json names as node finds it.
	made := files{
		"package.json": `{"name":"app","main":"dist/app","scripts":{"build":"mkdir dist && cp src.txt dist/app.js"}}`,
		"src.txt":      strings.Replace(nodeServer, "TEXT", `"made"`, 1),
	}
	digest, _ = f.mustBuild(made, nil)
	if got := f.answer(digest); got != "made" {
		t.Errorf("the service that its build has made answers %q", got)
	}
	made["package.json"] = `{"name":"app","main":"dist/app","scripts":{"build":"exit 3"}}`
	if _, log, err := f.build(made, map[string]string{"GOOGLE_NODE_RUN_SCRIPTS": ""}); !fault.Is(err, fault.InvalidArgument) ||
		strings.Contains(log, "npm run") {
		t.Errorf("with no script to run: %v", err)
	}
	if _, _, err := f.build(made, nil); !fault.Is(err, fault.FailedPrecondition) ||
		!strings.Contains(err.Error(), "GOOGLE_NODE_RUN_SCRIPTS= leaves it out") {
		t.Errorf("a build script that fails: %v", err)
	}
	// Another package is nowhere to be had: the log says which.
	src["package.json"] = `{"name":"app","dependencies":{"no-such":"1"}}`
	if _, log, err := f.build(src, nil); !fault.Is(err, fault.FailedPrecondition) ||
		!strings.Contains(log+err.Error(), "no-such") {
		t.Errorf("a missing package: %v", err)
	}
	src = files{"package.json": `{"name":"app"`}
	if _, _, err := f.build(src, nil); !fault.Is(err, fault.InvalidArgument) ||
		!strings.Contains(err.Error(), "package.json is not valid") {
		t.Errorf("a package.json that is none: %v", err)
	}
	src = files{"package.json": `{"name":"app"}`, "bun.lockb": "", "index.js": ""}
	if _, _, err := f.build(src, nil); !fault.Is(err, fault.Unimplemented) ||
		!strings.Contains(err.Error(), "Bun") {
		t.Errorf("Bun: %v", err)
	}
}

// What a script of the source leaves behind can't reach the host: links stay links, pipes stay out.
func testHostileNode(t *testing.T, f *fixture) {
	src := files{
		"package.json": `{"name":"app","scripts":{"build":"mkfifo pipe; ln -s /etc/shadow stolen; ln -s / root; chmod u+s server.js","start":"node server.js"}}`,
		"server.js": strings.Replace(nodeServer, "TEXT",
			`require("fs").readlinkSync("stolen") + " " + require("fs").existsSync("pipe")`, 1),
	}
	digest, _ := f.mustBuild(src, nil)
	if got := f.answer(digest); got != "/etc/shadow false" {
		t.Errorf("the service answers %q", got)
	}
}

// wheel is a package of Python, built.
func wheel(name, text string) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for path, content := range map[string]string{
		name + "/__init__.py":                    text,
		name + "-1.0.dist-info/METADATA":         "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n",
		name + "-1.0.dist-info/WHEEL":            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		name + "-1.0.dist-info/entry_points.txt": "[console_scripts]\n" + name + " = " + name + ":main\n",
		name + "-1.0.dist-info/RECORD":           name + "/__init__.py,,\n",
	} {
		w, _ := z.Create(path)
		_, _ = w.Write([]byte(content))
	}
	_ = z.Close()
	return b.String()
}

const pythonServer = `import http.server, os
TEXT
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text().encode())
http.server.HTTPServer(("", int(os.environ["PORT"])), H).serve_forever()
`

func testPython(t *testing.T, f *fixture) {
	main := strings.Replace(pythonServer, "TEXT", "from joke import text", 1)
	src := files{"main.py": main, "requirements.txt": "joke==1.0 # a comment\n", "vendor/joke-1.0-py3-none-any.whl": wheel("joke", "def text(): return 'a joke out of a wheel'")}
	digest, _ := f.mustBuild(src, nil)
	if got := f.answer(digest); got != "a joke out of a wheel" {
		t.Errorf("the service answers %q", got)
	}
	src["Procfile"] = "web: TOLD=by-procfile exec python3 other.py"
	src["other.py"] = strings.Replace(pythonServer, "TEXT", "text = lambda: os.environ['TOLD']", 1)
	digest, _ = f.mustBuild(src, nil)
	if got := f.answer(digest); got != "by-procfile" {
		t.Errorf("by its Procfile the service answers %q", got)
	}
	src["requirements.txt"] = "joke==2.0"
	if _, _, err := f.build(src, nil); !fault.Is(err, fault.FailedPrecondition) ||
		!strings.Contains(err.Error(), "Packages come out of the source only") {
		t.Errorf("a missing package: %v", err)
	}
	delete(src, "vendor/joke-1.0-py3-none-any.whl")
	if _, _, err := f.build(src, nil); !fault.Is(err, fault.Unimplemented) ||
		!strings.Contains(err.Error(), "pip download") {
		t.Errorf("no vendored packages: %v", err)
	}
}

// A source that requires a web server is run by it.
func testPythonServer(t *testing.T, f *fixture) {
	const stub = `import http.server, importlib, sys
def main():
    app, port = sys.argv[1], sys.argv[3]
    class H(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            module, name = app.split(":")
            sys.path.insert(0, "")
            self.wfile.write(getattr(importlib.import_module(module), name).encode())
    http.server.HTTPServer(("", int(port)), H).serve_forever()
`
	src := files{"main.py": "app = 'an application'\n", "requirements.txt": "uvicorn\n",
		"vendor/uvicorn-1.0-py3-none-any.whl": wheel("uvicorn", stub)}
	digest, _ := f.mustBuild(src, nil)
	if got := f.answer(digest); got != "an application" {
		t.Errorf("the service answers %q", got)
	}
	if _, _, err := f.build(src, map[string]string{"GOOGLE_RUNTIME_VERSION": "3.12"}); !fault.Is(err, fault.InvalidArgument) ||
		!strings.Contains(err.Error(), "Nothing would serve") {
		t.Errorf("before Python 3.13: %v", err)
	}
}

func testStaticSite(t *testing.T, f *fixture) {
	digest, _ := f.mustBuild(files{"index.html": "<h1>A site</h1>", "img/x.svg": "<svg/>"}, nil)
	if got := f.answer(digest); got != "<h1>A site</h1>" {
		t.Errorf("the site answers %q", got)
	}
}

// A Go program with a command of its own gets a shell to read it.
func testGoWithProcfile(t *testing.T, f *fixture) {
	digest, _ := f.mustBuild(files{"main.go": server(`os.Getenv("TOLD")`), "Procfile": "web: TOLD=by-procfile exec main"}, nil)
	if got := f.answer(digest); got != "by-procfile" {
		t.Errorf("the service answers %q", got)
	}
}
