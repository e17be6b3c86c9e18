// Command configs checks every cloudbuild.yaml and cloudbuild.json below directories as a build of them is checked
// before anything runs:
//
//	go run ./hack/configs DIRECTORY…
//
// It fails when one is not taken that known.txt does not name. hack/configs/samples runs it over Google's public
// repositories of samples.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"giggle/api/cloudbuild"
	"giggle/fault"
	"giggle/resource"
)

var (
	configName = regexp.MustCompile(`(?i)cloudbuild[^/]*\.(yaml|yml|json)$`)
	// ofTriggers are substitutions that a trigger or whoever starts the build gives.
	ofTriggers = regexp.MustCompile(`\$\{?(_[A-Z0-9_]+|COMMIT_SHA|SHORT_SHA|REVISION_ID|REPO_NAME|REPO_FULL_NAME|` +
		`BRANCH_NAME|TAG_NAME|REF_NAME|TRIGGER_NAME|TRIGGER_BUILD_CONFIG_PATH)\b`)
)

//go:embed known.txt
var known string

// isKnown reports whether known.txt has what is said of a file.
func isKnown(path, said string) bool {
	for line := range strings.Lines(known) {
		end, words, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && strings.HasSuffix(filepath.ToSlash(path), "/"+end) && strings.Contains(said, words) {
			return true
		}
	}
	return false
}

func main() {
	good, left, bad := 0, 0, 0
	for _, dir := range os.Args[1:] {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !configName.MatchString(path) {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			switch err := check(text); {
			case err == nil:
				good++
			case isKnown(path, fault.From(err).Message):
				left++
			default:
				bad++
				fmt.Printf("%s: %s\n", path, fault.From(err).Message)
			}
			return nil
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Printf("%d are taken, %d are known not to be, %d are not\n", good, left, bad)
	if good == 0 || bad > 0 {
		os.Exit(1)
	}
}

// check is what `gcloud builds submit` with the configuration would be told, from a source that is there.
func check(text []byte) error {
	w, err := cloudbuild.ParseConfig(text)
	if err != nil {
		return err
	}
	r, err := cloudbuild.ToRequest(w)
	if err != nil {
		return err
	}
	given := map[string]string{}
	for _, m := range ofTriggers.FindAllSubmatch(text, -1) {
		given[string(m[1])] = "given"
	}
	for name, value := range r.Spec.Substitutions {
		if value != "" || given[name] == "" {
			given[name] = value
		}
	}
	r.ID, r.Spec.Substitutions = "b", given
	r.Account = func(_ context.Context, account string) (string, error) { return account, nil }
	return r.Check(context.Background(), resource.Location{Project: "samples", Location: "global"})
}
