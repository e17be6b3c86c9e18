package dockerfile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"giggle/builds/dockerfile"
)

const benched = `FROM golang:1.22-bookworm AS builder
WORKDIR /app
COPY main.go ./
RUN --mount=type=cache,target=/root/.cache/go-build CGO_ENABLED=0 GO111MODULE=off go build -o server main.go
FROM gcr.io/distroless/static-debian11
COPY --from=builder /app/server /server
`

const program = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(%d) }\n"

// BenchmarkCached is a multi-stage build in which nothing has changed, image delivered.
func BenchmarkCached(b *testing.B) { bench(b, func(string, int) error { return nil }) }

// BenchmarkOneLine is the same with one line of Go changed.
func BenchmarkOneLine(b *testing.B) {
	bench(b, func(dir string, i int) error {
		return os.WriteFile(filepath.Join(dir, "main.go"), fmt.Appendf(nil, program, i), 0o644)
	})
}

func bench(b *testing.B, change func(dir string, i int) error) {
	dir := b.TempDir()
	for name, text := range map[string]string{"Dockerfile": benched, "main.go": fmt.Sprintf(program, -1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	one := func() {
		if _, err := builder.Build(b.Context(), dockerfile.Request{Build: job, Context: dir}, b.Output()); err != nil {
			b.Fatal(err)
		}
	}
	one()
	for i := 0; b.Loop(); i++ {
		if err := change(dir, i); err != nil {
			b.Fatal(err)
		}
		one()
	}
}
