// Package discoverytest finds the discovery documents that Google's Go module carries, for tests that hold what is
// served here against them.
package discoverytest

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"

	"giggle/api/discovery"
)

// Dir is where the Go module of the discovery documents is.
var Dir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "google.golang.org/api").Output()
	if err != nil {
		return "", fmt.Errorf("find google.golang.org/api: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// Read returns the document of an API, "run" and "v1".
func Read(api, version string) (*discovery.Document, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	return discovery.Read(dir, api, version)
}
