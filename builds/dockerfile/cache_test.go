package dockerfile_test

import (
	"archive/tar"
	"strings"
	"testing"

	"giggle/builds/dockerfile"
)

// RUN steps of a project share caches, also those without BuildKit's, whatever users they run as. Nothing of it is in a
// layer, and another project has its own.
func TestStepsShareCaches(t *testing.T) {
	first := `FROM debian:12
RUN for dir in $GOCACHE $npm_config_cache $PIP_CACHE_DIR; do mkdir $dir/sub && echo kept >$dir/sub/file; done
`
	img, log, err := text(t, builder, "cache-a", first)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	layers(t, img, func(h *tar.Header) {
		if strings.Contains(h.Name, "giggle") || strings.HasPrefix(h.Name, "dev/") && h.Name != "dev/" {
			t.Errorf("a layer holds %s", h.Name)
		}
	})
	_, got := content(t, img, "etc/os-release")
	if env := strings.Join(got.Config.Env, " "); strings.Contains(env, "CACHE") || strings.Contains(env, "npm_config") {
		t.Errorf("the image has %s", env)
	}
	if _, log, err = text(t, builder, "cache-a", `FROM debian:12
USER nobody
RUN for dir in $GOCACHE $npm_config_cache $PIP_CACHE_DIR; do test "$(cat $dir/sub/file)" = kept && echo more >>$dir/sub/file && touch $dir/sub/new || exit 1; done
`); err != nil {
		t.Errorf("another user of the same project: %v\n%s", err, log)
	}
	if _, log, err = text(t, builder, "cache-b",
		"FROM debian:12\nRUN test -d $GOCACHE && test ! -e $GOCACHE/sub\n"); err != nil {
		t.Errorf("another project: %v\n%s", err, log)
	}
	if _, log, err = text(t, builder, "cache-a", `FROM debian:12
ENV GOCACHE=/mine
RUN test $GOCACHE = /mine && test $PIP_CACHE_DIR != ""
RUN --mount=type=cache,target=/root/.cache test -z "$PIP_CACHE_DIR"
`); err != nil {
		t.Errorf("what the Dockerfile says: %v\n%s", err, log)
	}
}

// The offline golang image brings the standard library compiled, with cgo and without, and what a step has compiled the
// next build need not, though it runs the step again.
func TestGoCompilesNothingTwice(t *testing.T) {
	context := func(dockerfile string) string {
		return files(t, map[string]string{
			"go.mod":     "module app\n\ngo 1.22\n",
			"main.go":    "package main\n\nimport \"net/http\"\n\nfunc main() { panic(http.ListenAndServe(\":8080\", nil)) }\n",
			"Dockerfile": "FROM golang:1.22\nWORKDIR /app\nCOPY . .\n" + dockerfile,
		})
	}
	const library, any = `grep -E 'compile .* -std'`, `grep -E 'tool/.*/compile '`
	const build = `rm -f /server && go build -x -o /server . 2>/log && test -x /server`
	img, log, err := try(t, dockerfile.Request{Context: context(
		"RUN GOCACHE=/cold go build -x unicode/utf8 2>&1 | " + library + "\n" + // it would be seen
			"RUN export CGO_ENABLED=0 && " + build + " && ! " + library + " /log\n" +
			"RUN " + build + " && ! " + library + " /log\n" +
			"RUN --mount=type=cache,target=/root/.cache/go-build " + build + " && ! " + library + " /log && " + any +
			" /log\n")})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	layers(t, img, func(h *tar.Header) {
		// BuildKit leaves the place of the Dockerfile's own mount
		if strings.HasPrefix(h.Name, "root/.cache/") && h.Name != "root/.cache/go-build/" {
			t.Errorf("a layer holds %s", h.Name)
		}
	})
	again := dockerfile.Request{Context: context("RUN " + build + " && ! " + any + " /log\n"), NoCache: true}
	if _, log, err := try(t, again); err != nil {
		t.Errorf("the second time: %v\n%s", err, log)
	}
}
