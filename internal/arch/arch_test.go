package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// layers are the rooms of the tree, lowest first. A package imports from lower layers only, and from its own room.
// Products (layer "product") know nothing of each other: what one needs of another is an interface that cloud fills.
var layers = []struct {
	name  string
	rooms []string
}{
	{"error", []string{"fault"}},
	{"leaf", []string{"resource", "filter", "peer", "quota", "catalog", "relay"}},
	{"mechanism", []string{"blob", "disk", "store", "oci", "engine", "builds/source", "operation", "logging",
		"logging/audit", "vertex/llama", "vertex/embedded", "hostports"}},
	{"product", []string{"run", "builds", "artifacts", "git", "iam", "projects", "storage", "metadata", "vertex",
		"secrets", "sql"}},
	{"data plane", []string{"run/scale", "gateway", "vertex/serving"}},
	{"API layer", []string{"rest"}},
	{"wire", []string{"edge", "shell", "api", "artifacts/registry", "vertex/registry", "builds/modproxy",
		"builds/npmproxy", "git/githttp"}},
	{"composition", []string{"cloud", "bench/demo", "bench"}},
	{"command", []string{"cmd/giggle", "hack/builder", "hack/configs", "hack/images", "hack/roles", "test/llama", "test/ocilayout"}},
}

// sideways are the imports inside a layer that are meant, each with its reason.
var sideways = map[string]string{
	"oci → blob":                     "images are made of blobs",
	"operation → store":              "operations are rows",
	"logging/audit → store":          "an entry goes into the transaction that it is about",
	"logging/audit → logging":        "its entries are log entries",
	"vertex/embedded → vertex/llama": "the runner runs a Llama",
	"gateway → run/scale":            "a request needs a lease",
	"api → shell":                    "the session that shells are given",
	"bench → bench/demo":             "the benchmarks deploy as the demo does",
	"bench → cloud":                  "what is measured",
}

// only says which packages may import a library: nobody else may.
var only = []struct{ library, who string }{
	{"modernc.org/sqlite", `^giggle/(store|shell)$`}, // shell writes gcloud's own database
	{"github.com/pressly/goose", `^giggle/store$`},
	{"google.golang.org/grpc", `^giggle/(rest|api(/.*)?)$`},
	{"cloud.google.com/go", `^giggle/(rest|api(/.*)?)$`},
	{"github.com/opencontainers/runtime-spec", `^giggle/engine(/.*)?$`},
	{"github.com/vishvananda/netlink", `^giggle/engine(/.*)?$`},
	{"gvisor.dev/gvisor", `^giggle/engine/egress$`},
	{"tags.cncf.io/container-device-interface", `^giggle/engine$`},
	{"github.com/miekg/dns", `^giggle/edge$`},
	{"github.com/spf13/cobra", `^giggle/cmd/giggle$`},
	{"github.com/go-jose/go-jose", `^giggle/(iam|api/oauth)$`},
	{"net/http", `^giggle/(rest|api(/.*)?|gateway(/.*)?|metadata|artifacts/mirror|artifacts/registry|git/githttp|edge(/.*)?|shell|cloud|cmd/giggle|bench(/demo)?|builds/modproxy|builds/npmproxy|builds/dockerfile|builds/dockerapi|vertex/ollama|vertex/openai|vertex/serving|vertex/registry|builds/buildpack(/staticsite)?|hack/images/failing)$`},
}

// maxDirect is the budget of direct dependencies, counted in families.
const maxDirect = 30

// families are the modules that count as one.
var families = []string{"cloud.google.com/go", "google.golang.org", "golang.org/x",
	"github.com/google/go-containerregistry", "github.com/opencontainers", "github.com/containerd", "github.com/moby"}

func load(t *testing.T) []*packages.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedImports | packages.NeedFiles | packages.NeedSyntax,
		Dir:  "../..",
	}, "./...")
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 20 {
		t.Fatalf("only %d packages were found: the rules would hold for nothing", len(pkgs))
	}
	return pkgs
}

// room returns the layer of a package and the room that it is in: the longest that fits.
func room(path string) (layer int, name string) {
	rel := strings.TrimPrefix(path, "giggle/")
	layer = -1
	for i, l := range layers {
		for _, r := range l.rooms {
			if (rel == r || strings.HasPrefix(rel, r+"/")) && len(r) > len(name) {
				layer, name = i, r
			}
		}
	}
	return layer, name
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range load(t) {
		if p.PkgPath == "giggle/internal/arch" || isTestHelper(p.PkgPath) {
			continue
		}
		from, here := room(p.PkgPath)
		if from < 0 {
			t.Errorf("%s is in no room of the tree: add it to the layers, in the place where it belongs", p.PkgPath)
			continue
		}
		for path := range p.Imports {
			if !strings.HasPrefix(path, "giggle/") {
				continue
			}
			to, there := room(path)
			if to < from || here == there || sideways[here+" → "+there] != "" {
				continue
			}
			t.Errorf("%s (%s) imports %s (%s): imports point from a higher layer to a lower one", p.PkgPath,
				layers[from].name, path, layers[to].name)
		}
	}
}

// isTestHelper reports whether a package is only there for tests: contract suites and fakes.
func isTestHelper(path string) bool { return strings.HasSuffix(path, "test") }

func TestLibrariesStayInTheirPackage(t *testing.T) {
	for _, p := range load(t) {
		if isTestHelper(p.PkgPath) {
			continue
		}
		for path := range p.Imports {
			for _, rule := range only {
				if (path == rule.library || strings.HasPrefix(path, rule.library+"/")) &&
					!regexp.MustCompile(rule.who).MatchString(p.PkgPath) {
					t.Errorf("%s imports %s, which only %s may", p.PkgPath, path, rule.who)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range load(t) {
		var text string
		for _, f := range p.Syntax {
			if f.Doc != nil {
				text += f.Doc.Text()
			}
		}
		if len(strings.Fields(text)) < 12 {
			t.Errorf("%s has no package comment that says what it is, whom it serves and what it does not do",
				p.PkgPath)
		}
	}
}

func TestDirectDependenciesAreABudget(t *testing.T) {
	b, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasPrefix(f[1], "v") || strings.Contains(line, "//") {
			continue
		}
		name := f[0]
		for _, family := range families {
			if strings.HasPrefix(name, family) {
				name = family
			}
		}
		seen[name] = true
	}
	if len(seen) == 0 {
		t.Fatal("no direct dependency was found in go.mod: the count can't be right")
	}
	if len(seen) > maxDirect {
		t.Errorf("%d direct dependencies, %d are allowed", len(seen), maxDirect)
	}
	decisions, err := os.ReadFile("../../docs/decisions/0002-dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range seen {
		if !strings.Contains(string(decisions), "`"+name) {
			t.Errorf("docs/decisions/0002-dependencies.md has no line on what %s saves", name)
		}
	}
}

// Only the command sees the environment: everything else is told.
func TestOnlyTheCommandReadsTheEnvironment(t *testing.T) {
	// the last is a program in images
	allowed := []string{"cmd/giggle", "hack", "samples", "test", "builds/buildpack/staticsite"}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel("../..", path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || slices.Contains(allowed, rel) ||
			d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if regexp.MustCompile(`os\.(Getenv|LookupEnv|Environ)\(`).Match(b) {
			t.Errorf("%s reads the environment; only cmd/giggle does", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// urlReaders are who has a reason.
var urlReaders = map[string]string{
	"api/storagejson/signed.go": "what was signed is the query as it was sent, and says who calls",
	"api/storagejson/batch.go":  "the requests in a batch have not been read by anybody",
}

// What the guard has looked at is what a handler uses: of the query, the parameters that the API layer parsed, never
// its own reading of the URL, which another parser reads otherwise. Api/giggle and api/oauth stand before no guard.
func TestHandlersReadNoURL(t *testing.T) {
	reads := regexp.MustCompile(`\bURL\.(Query\(\)|RawQuery)`)
	files := 0
	err := filepath.WalkDir("../../api", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && (d.Name() == "giggle" || d.Name() == "oauth") {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		text, err := os.ReadFile(path)
		if at := reads.Find(text); at != nil && urlReaders[strings.TrimPrefix(filepath.ToSlash(path), "../../")] == "" {
			t.Errorf("%s reads %s: take rest.Request.Query or System", path, at)
		}
		return err
	})
	if err != nil || files < 30 {
		t.Errorf("%d files were read (%v)", files, err)
	}
}
