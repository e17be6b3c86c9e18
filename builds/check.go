package builds

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"giggle/fault"
)

// Limits of a build, from Cloud Build's documentation ("Quotas and limits", Build.steps).
const (
	maxSteps  = 300
	maxArgs   = 1000
	maxArg    = 10_000
	maxEnv    = 1000
	maxImages = 100
	maxTags   = 64
	maxScript = 1 << 20
)

var (
	substitutionKey = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^_[A-Z0-9_]{1,99}$`) })
	tagForm         = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$`) })
	volumeName      = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`) })
	envForm         = regexp.MustCompile(`^[^=\x00]+=[^\x00]*$`)
)

// check refuses a spec that can't run, with the path of the field. The spec has been expanded.
func (s *Spec) check() error {
	if len(s.Steps) == 0 {
		return fault.Invalid("steps", "a build needs at least one step")
	}
	if len(s.Steps) > maxSteps {
		return fault.Invalid("steps", "%d are too many; %d are the most", len(s.Steps), maxSteps)
	}
	if err := checkEnv("options.env", s.Options.Env); err != nil {
		return err
	}
	if s.QueueTTL < 0 || s.QueueTTL > MaxTimeout {
		return fault.Invalid("queueTtl", "must be between 0s and 24 hours")
	}
	if s.Options.DiskGB < 0 || s.Options.DiskGB > 4000 {
		return fault.Invalid("options.diskSizeGb", "must be at most 4000")
	}
	if err := s.checkBuiltin(); err != nil {
		return err
	}
	ids := make(map[string]int)
	uses := make(map[string]int) // of volumes
	for i := range s.Steps {
		if err := s.checkStep(i, ids, uses); err != nil {
			return err
		}
	}
	if err := checkVolumes("options.volumes", s.Options.Volumes, nil); err != nil {
		return err
	}
	for i := range s.Steps {
		for j, v := range s.Steps[i].Volumes {
			if uses[v.Name] < 2 {
				return fault.Invalid(fmt.Sprintf("steps[%d].volumes[%d]", i, j),
					"the volume %q is used by one step only", v.Name)
			}
		}
	}
	if len(s.Images) > maxImages {
		return fault.Invalid("images", "%d are too many; %d are the most", len(s.Images), maxImages)
	}
	for i, name := range s.Images {
		if !IsImageName(name) {
			return fault.Invalid(fmt.Sprintf("images[%d]", i), "%.100q is not a place for an image", name)
		}
	}
	return s.checkObjects()
}

func (s *Spec) checkStep(i int, ids, uses map[string]int) error {
	t := &s.Steps[i]
	at := func(field string) string { return fmt.Sprintf("steps[%d].%s", i, field) }
	switch {
	case t.Name == "":
		return fault.Invalid(at("name"), "the step needs the name of an image")
	case len(t.Name) > 1000 || strings.ContainsAny(t.Name, " \t\n\x00"):
		return fault.Invalid(at("name"), "%.100q is not the name of an image", t.Name)
	case strings.ContainsAny(t.ID, "\x00\n") || len(t.ID) > 500 || t.ID == Immediately:
		return fault.Invalid(at("id"), "%.100q is not an id", t.ID)
	case t.Script != "" && (len(t.Args) > 0 || t.Entrypoint != ""):
		return fault.Invalid(at("script"), "script can't be set together with args or entrypoint")
	case len(t.Script) > maxScript:
		return fault.Invalid(at("script"), "is longer than %d bytes", maxScript)
	case len(t.Args) > maxArgs:
		return fault.Invalid(at("args"), "%d are too many; %d are the most", len(t.Args), maxArgs)
	case t.Timeout < 0 || t.Timeout > MaxTimeout:
		return fault.Invalid(at("timeout"), "must be between 0s and 24 hours")
	case strings.Contains(t.Dir, "\x00") || !path.IsAbs(t.Dir) && t.Dir != "" && escapes(t.Dir):
		return fault.Invalid(at("dir"), "%.100q leads out of the workspace", t.Dir)
	case strings.Contains(t.Entrypoint, "\x00"):
		return fault.Invalid(at("entrypoint"), "has a zero byte")
	}
	for j, a := range t.Args {
		if len(a) > maxArg || strings.Contains(a, "\x00") {
			return fault.Invalid(fmt.Sprintf("steps[%d].args[%d]", i, j), "is longer than %d bytes or has a zero byte",
				maxArg)
		}
	}
	if err := checkEnv(at("env"), t.Env); err != nil {
		return err
	}
	for j, c := range t.AllowExitCodes {
		if c < 0 || c > 255 {
			return fault.Invalid(fmt.Sprintf("steps[%d].allowExitCodes[%d]", i, j), "%d is not an exit status", c)
		}
	}
	for j, w := range t.WaitFor {
		field := fmt.Sprintf("steps[%d].waitFor[%d]", i, j)
		if w == Immediately {
			if len(t.WaitFor) > 1 {
				return fault.Invalid(field, "%q stands alone or not at all", Immediately)
			}
			continue
		}
		if _, ok := ids[w]; ok {
			continue
		}
		if slices.ContainsFunc(s.Steps[i:], func(o Step) bool { return o.ID == w }) {
			return fault.Invalid(field, "the step %q comes no earlier than the step that waits for it", w)
		}
		return fault.Invalid(field, "no step has the id %q", w)
	}
	if t.ID != "" {
		if k, taken := ids[t.ID]; taken {
			return fault.Invalid(at("id"), "%q is the id of step %d, too", t.ID, k)
		}
		ids[t.ID] = i
	}
	return checkVolumes(at("volumes"), t.Volumes, uses)
}

// IsImageName reports whether a build may push an image by a name: anything but a digest, as far as can be told
// beforehand.
func IsImageName(name string) bool {
	return name != "" && !strings.ContainsAny(name, " \t\n@\x00") && len(name) <= 1000
}

func escapes(dir string) bool {
	clean := path.Clean(dir)
	return clean == ".." || strings.HasPrefix(clean, "../")
}

func checkEnv(at string, env []string) error {
	if len(env) > maxEnv {
		return fault.Invalid(at, "%d are too many; %d are the most", len(env), maxEnv)
	}
	for i, e := range env {
		if !envForm.MatchString(e) || len(e) > 1<<16 { // the text may be a secret
			return fault.Invalid(fmt.Sprintf("%s[%d]", at, i), "is not KEY=value")
		}
	}
	return nil
}

func checkVolumes(at string, vs []Volume, uses map[string]int) error {
	seen := make(map[string]bool)
	for i, v := range vs {
		field := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case !volumeName().MatchString(v.Name) || strings.Trim(v.Name, ".") == "":
			return fault.Invalid(field+".name", "%.100q is not the name of a volume", v.Name)
		case !path.IsAbs(v.Path) || path.Clean(v.Path) != v.Path || v.Path == "/" || strings.Contains(v.Path, "\x00"):
			return fault.Invalid(field+".path", "%.100q is not a clean absolute path", v.Path)
		case reserved(v.Path):
			return fault.Invalid(field+".path", "%q belongs to the build", v.Path)
		case seen[v.Name] || seen[v.Path]:
			return fault.Invalid(field, "the volume or its path is there twice")
		}
		seen[v.Name], seen[v.Path] = true, true
		if uses != nil {
			uses[v.Name]++
		}
	}
	return nil
}

// reserved reports whether a path is one that the build itself mounts.
func reserved(p string) bool {
	for _, r := range []string{"/workspace", "/builder", "/proc", "/sys", "/dev"} {
		if p == r || strings.HasPrefix(p, r+"/") {
			return true
		}
	}
	return false
}

func (s *Spec) checkObjects() error {
	o := s.Objects
	if o.Location == "" && len(o.Paths) == 0 {
		return nil
	}
	if bucket, _, ok := SplitGS(o.Location); !ok || bucket == "" {
		return fault.Invalid("artifacts.objects.location", "%.100q is not gs://BUCKET/DIRECTORY/", o.Location)
	}
	if len(o.Paths) == 0 {
		return fault.Invalid("artifacts.objects.paths", "at least one is needed")
	}
	for i, p := range o.Paths {
		if _, err := path.Match(p, ""); err != nil || p == "" ||
			path.IsAbs(p) && !strings.HasPrefix(p, "/workspace/") || escapes(p) {
			return fault.Invalid(fmt.Sprintf("artifacts.objects.paths[%d]", i),
				"%.100q is not a pattern of files in the workspace", p)
		}
	}
	return nil
}

// SplitGS reads "gs://BUCKET/PREFIX".
func SplitGS(url string) (bucket, prefix string, ok bool) {
	rest, ok := strings.CutPrefix(url, "gs://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	return bucket, prefix, ok && bucket != ""
}

// cleanTags drops tags that are empty, because a substitution in them had no value, and those that are there already.
func cleanTags(tags []string) (out []string) {
	for _, t := range tags {
		if t != "" && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

func checkTags(tags []string) error {
	if len(tags) > maxTags {
		return fault.Invalid("tags", "%d are too many; %d are the most", len(tags), maxTags)
	}
	for i, t := range tags {
		if !tagForm().MatchString(t) {
			return fault.Invalid(fmt.Sprintf("tags[%d]", i), "%.100q is not a tag: letters, digits, '_', '.' and '-'",
				t)
		}
	}
	return nil
}
