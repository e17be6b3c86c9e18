package arch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The README lists every room at the top of the tree, and none that isn't there.
func TestReadmeHasTheTree(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(b), "## The tree")
	_, after, ok2 := strings.Cut(after, "```\n")
	listing, _, ok3 := strings.Cut(after, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatal("README.md has no tree")
	}
	listed := make(map[string]bool)
	for _, word := range strings.Fields(listing) {
		if top, _, dir := strings.Cut(word, "/"); dir {
			listed[top] = true
		}
	}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") || e.Name() == "bin" {
			continue
		}
		if !listed[e.Name()] {
			t.Errorf("README.md's tree has no line for %s/", e.Name())
		}
		delete(listed, e.Name())
	}
	for name := range listed {
		if _, err := os.Stat(filepath.Join("../..", name)); err != nil {
			t.Errorf("README.md's tree lists %s/, which isn't there", name)
		}
	}
}
