package dockerfile_test

import (
	"archive/tar"
	"strings"
	"testing"

	"giggle/builds/dockerfile"
)

// RUN steps of a project share caches, also those without BuildKit's, whatever users they run as. Nothing of it is in a layer,
// and another project has its own.
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
	if _, log, err = text(t, builder, "cache-b", "FROM debian:12\nRUN test -d $GOCACHE && test ! -e $GOCACHE/sub\n"); err != nil {
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

// The offline golang image brings the standard library compiled, and what a step compiles the next build need not.
func TestGoCompilesTheStandardLibraryNever(t *testing.T) {
	const compiles = `! go build -x -o /server . 2>&1 | grep -E 'compile .* -std'`
	dir := files(t, map[string]string{
		"go.mod": "module app\n\ngo 1.22\n", "main.go": "package main\n\nimport \"net/http\"\n\nfunc main() { panic(http.ListenAndServe(\":8080\", nil)) }\n",
		"Dockerfile": "FROM golang:1.22\nWORKDIR /app\nCOPY . .\n" +
			"RUN CGO_ENABLED=0 && export CGO_ENABLED && " + compiles + "\nRUN " + compiles + "\n" +
			"RUN --mount=type=cache,target=/root/.cache/go-build " + compiles + " && rm /server\n",
	})
	img, log, err := try(t, dockerfile.Request{Context: dir})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	layers(t, img, func(h *tar.Header) {
		if strings.Contains(h.Name, "go-build") && strings.Contains(h.Name, "root/") {
			t.Errorf("a layer holds %s", h.Name)
		}
	})
	again := `! go build -x -o /server . 2>&1 | grep -E 'bin/compile|tool/.*/compile|compile -o'`
	dir2 := files(t, map[string]string{
		"go.mod": "module app\n\ngo 1.22\n", "main.go": "package main\n\nimport \"net/http\"\n\nfunc main() { panic(http.ListenAndServe(\":8080\", nil)) }\n",
		"Dockerfile": "FROM golang:1.22\nWORKDIR /app\nCOPY . .\nRUN " + again + "\n",
	})
	if _, log, err := try(t, dockerfile.Request{Context: dir2, NoCache: true}); err != nil {
		t.Errorf("the second time: %v\n%s", err, log)
	}
}
