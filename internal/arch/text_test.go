package arch

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxColumns is the longest line of code and comment. What holds a string that is one text may be longer.
const maxColumns = 120

func TestLinesAreShort(t *testing.T) {
	lines := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel("../..", path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" || rel == "samples") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it was only read
		s := bufio.NewScanner(f)
		for n := 1; s.Scan(); n++ {
			lines++
			if text := s.Text(); utf8.RuneCountInString(text) > maxColumns && !strings.ContainsAny(text, "\"`") {
				t.Errorf("%s:%d has more than %d columns", rel, n, maxColumns)
			}
		}
		return s.Err()
	})
	if err != nil || lines < 10_000 {
		t.Fatalf("only %d lines were read: %v", lines, err)
	}
}
