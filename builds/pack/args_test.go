package pack

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"giggle/fault"
)

// step is the environment of a step that has a variable and a file.
var step = environment{
	lookup: func(name string) string { return map[string]string{"INHERITED": "from the step"}[name] },
	read: func(file string) (string, error) {
		if file != "vars" {
			return "", refuse("the file %q can't be read.", file)
		}
		return "A=1\n\n  B=x=y  \nINHERITED\n", nil
	},
}

func TestParse(t *testing.T) {
	const image = "europe-north1-docker.pkg.dev/p/r/app"
	for name, tt := range map[string]struct {
		args string
		want func(o *options)
	}{
		"gcloud's": {
			"{image} --network cloudbuild --env GOOGLE_RUNTIME_VERSION=21 --env A=b=c --builder gcr.io/buildpacks/builder:v1",
			func(o *options) {
				o.builder = "gcr.io/buildpacks/builder:v1"
				o.env = map[string]string{"GOOGLE_RUNTIME_VERSION": "21", "A": "b=c"}
			},
		},
		"short": {
			"-B b/b:1 -p sub -eA=1 -e=B=2 -e INHERITED -t {image}:1,{image}:2 {image} -D web -b x/y@1 -q",
			func(o *options) {
				o.builder, o.path, o.process, o.level = "b/b:1", "sub", "web", "warn"
				o.env = map[string]string{"A": "1", "B": "2", "INHERITED": "from the step"}
				o.tags, o.buildpacks = []string{image + ":1", image + ":2"}, []string{"x/y@1"}
			},
		},
		"long with =": {
			"--path=/workspace/a --run-image=r/r --publish --clear-cache=true --trust-builder=false --verbose {image}",
			func(o *options) {
				o.path, o.runImage, o.publish, o.clearCache, o.level = "/workspace/a", "r/r", true, true, "debug"
			},
		},
		"a file of variables": {
			"--env-file vars {image}",
			func(o *options) { o.env = map[string]string{"A": "1", "B": "x=y", "INHERITED": "from the step"} },
		},
		"the later counts": {"--env A=1 --env A=2 --publish --publish=false {image}",
			func(o *options) { o.env = map[string]string{"A": "2"} }},
		"after --": {"--no-color -- {image}", func(*options) {}},
	} {
		want := options{image: image, level: "info", env: map[string]string{}}
		tt.want(&want)
		got, err := parse(strings.Fields(strings.ReplaceAll(tt.args, "{image}", image)), step)
		if d := cmp.Diff(want, got, cmp.AllowUnexported(options{})); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":                       "one name of an image",
		"a/b c/d":                "one name of an image",
		"a/b --volume /:/host":   `the flag "--volume"`,
		"a/b --docker-host=x":    `the flag "--docker-host"`,
		"a/b -z":                 `the flag "-z"`,
		"a/b --network host":     `--network="host"`,
		"a/b --builder":          "--builder needs a value",
		"a/b --publish=perhaps":  "neither true nor false",
		"a/b --env ../../x=1":    "not the name of a variable",
		"a/b --env ..=1":         "not the name of a variable",
		"a/b --env =1":           "not the name of a variable",
		"a/b --env-file missing": "can't be read",
		"a/b --env A=" + strings.Repeat("x", maxVariable+1): "variable A is longer",
	} {
		if _, err := parse(strings.Fields(args), step); !fault.Is(err, fault.InvalidArgument) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", args, err, want)
		}
	}
}

// A variable that is longer than allowed is in no message: it may be a secret.
func TestNoSecretIsSaid(t *testing.T) {
	_, err := parse([]string{"a/b", "--env", "TOKEN=" + strings.Repeat("secret", maxVariable)}, step)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%.200v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a/b\n--env\nA=1", "-eA\n-B", "--", "-", "--=\n-=", "--env-file\nvars\nx/y", "-v=\nx"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := parse(strings.Split(s, "\n"), step)
		if err != nil {
			return
		}
		if o.image == "" {
			t.Error("no image")
		}
		for name, value := range o.env {
			if checkVariable(name, value) != nil {
				t.Errorf("%q is a variable", name)
			}
		}
	})
}
