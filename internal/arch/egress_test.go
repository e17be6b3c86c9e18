package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// launches is how a platform is started as a program of its own.
var launches = regexp.MustCompile(`"up", ?\n?\s*"--`)

// No test, demo or benchmark sends a packet to what it has not made: whatever starts a platform says that its egress is
// off, or puts it into a network of its own (the script command "online"), and that it pulls no images. A script that
// does has a registry of its own (the command "registry").
func TestPlatformsOfTestsStayIn(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "../.." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil || !launches.Match(b) {
			return err
		}
		found++
		if text := string(b); !strings.Contains(text, `"--egress", "off"`) &&
			!strings.Contains(text, `"GIGGLE_EGRESS", "off"`) {
			t.Errorf("%s starts a platform whose egress is not off", path)
		}
		if text := string(b); !strings.Contains(text, `"--pull", "never"`) &&
			!strings.Contains(text, `"GIGGLE_PULL", "never"`) {
			t.Errorf("%s starts a platform that pulls foreign images", path)
		}
		return nil
	})
	if err != nil || found < 3 {
		t.Errorf("only %d places start a platform: %v", found, err)
	}
}
