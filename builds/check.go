package builds

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

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
	maxDir    = 1000
	maxPaths  = 100 // of artifacts
)

var (
	substitutionKey = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^_[A-Z0-9_]{1,99}$`) })
	tagForm         = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}$`) })
	volumeName      = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$`) })
	envForm         = regexp.MustCompile(`^[^=\x00]+=[^\x00]*$`)
)

// imageForm is the form of a reference to an image, with its tag and its digest in groups of their own
// (github.com/distribution/reference, the grammar in its documentation).
var imageForm = sync.OnceValue(func() *regexp.Regexp {
	const (
		label  = `[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]`
		domain = `(?:` + label + `)(?:\.(?:` + label + `))*(?::[0-9]+)?`
		part   = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
	)
	return regexp.MustCompile(`^(?:` + domain + `/)?` + part + `(?:/` + part + `)*` +
		`(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)
})

// Limits of a reference to an image: of all of it, and of it without tag and digest, in bytes.
const (
	maxImage      = 1000
	maxRepository = 255
)

// checkImage refuses what is no reference to an image: an upper-case letter, an empty tag.
func checkImage(field, what, name string) error {
	m := imageForm().FindStringSubmatch(name)
	switch {
	case len(name) > maxImage:
		return fault.Invalid(field, "%s too long (max: %d)", what, maxImage)
	case m != nil && len(name)-len(m[1])-len(m[2]) <= maxRepository:
		return nil
	case m == nil && imageForm().MatchString(strings.ToLower(name)):
		return fault.Invalid(field, "invalid %s %q contains uppercase letters", what, name)
	}
	return fault.Invalid(field, "invalid %s %.200q", what, name)
}

// check refuses a spec that can't run, with the path of the field. The spec has been expanded; the paths of its volumes
// are cleaned. timeout is the build's, 0 for none given.
//
// The rules, and the texts as far as they are known, are those of the API's reference (projects.builds) and of package
// validate of https://github.com/GoogleCloudPlatform/cloud-build-local.
func (s *Spec) check(timeout time.Duration) error {
	if len(s.Steps) == 0 {
		return fault.Invalid("steps", "no build steps are specified")
	}
	if len(s.Steps) > maxSteps {
		return fault.Invalid("steps", "cannot specify more than %d build steps", maxSteps)
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
	for i, kind := range s.Options.Hashes {
		if field := fmt.Sprintf("options.sourceProvenanceHash[%d]", i); hashes[kind] == nil {
			return fault.NotImplemented(field, "%.50q is not a hash that is made here", kind)
		} else if slices.Contains(s.Options.Hashes[:i], kind) {
			return fault.Invalid(field, "%q is there twice", kind)
		}
	}
	if err := s.checkBuiltin(); err != nil {
		return err
	}
	ids := make(map[string]int)
	for i := range s.Steps {
		if err := s.checkStep(i, ids, timeout); err != nil {
			return err
		}
	}
	if err := s.checkVolumes(); err != nil {
		return err
	}
	if len(s.Images) > maxImages {
		return fault.Invalid("images", "cannot specify more than %d images to build", maxImages)
	}
	for i, name := range s.Images {
		field := fmt.Sprintf("images[%d]", i)
		if err := checkImage(field, "image name", name); err != nil {
			return err
		}
		if strings.Contains(name, "@") {
			return fault.Invalid(field, "invalid image name %.200q: what is pushed has no digest yet", name)
		}
	}
	return s.checkObjects()
}

func (s *Spec) checkStep(i int, ids map[string]int, timeout time.Duration) error {
	t := &s.Steps[i]
	at := func(field string) string { return fmt.Sprintf("steps[%d].%s", i, field) }
	if t.Name == "" {
		return fault.Invalid(at("name"), "build step %d must specify name", i)
	}
	if err := checkImage(at("name"), "build step name", t.Name); err != nil {
		return err
	}
	switch {
	case t.ID == Immediately:
		return fault.Invalid(at("id"),
			"the ID cannot be %q which is reserved as a dependency for build steps that should run first", t.ID)
	case strings.ContainsAny(t.ID, "\x00\n") || len(t.ID) > 500:
		return fault.Invalid(at("id"), "%.100q is not an id", t.ID)
	case t.Script != "" && (len(t.Args) > 0 || t.Entrypoint != ""):
		return fault.Invalid(at("script"), "script can't be set together with args or entrypoint")
	case len(t.Script) > maxScript:
		return fault.Invalid(at("script"), "is longer than %d bytes", maxScript)
	case len(t.Args) > maxArgs:
		return fault.Invalid(at("args"), "%d are too many; %d are the most", len(t.Args), maxArgs)
	case t.Timeout < 0 || t.Timeout > MaxTimeout:
		return fault.Invalid(at("timeout"), "must be between 0s and 24 hours")
	case timeout > 0 && t.Timeout > timeout:
		return fault.Invalid(at("timeout"), "build step timeout %s must be <= build timeout %s", t.Timeout, timeout)
	case len(t.Dir) > maxDir:
		return fault.Invalid(at("dir"), "build step %d dir too long (max: %d)", i, maxDir)
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
		if _, ok := ids[w]; ok || w == Immediately {
			continue
		}
		return fault.Invalid(field, "build step #%d depends on %.200q, which has not been defined before it", i, w)
	}
	if t.ID != "" {
		if k, taken := ids[t.ID]; taken {
			return fault.Invalid(at("id"), "build step #%d - %q: the ID is not unique; step #%d has it, too", i, t.ID, k)
		}
		ids[t.ID] = i
	}
	return nil
}

// IsImageName reports whether a build may push an image by a name: anything but a digest, as far as can be told
// beforehand.
func IsImageName(name string) bool {
	return checkImage("", "", name) == nil && !strings.Contains(name, "@")
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
			return fault.Invalid(fmt.Sprintf("%s[%d]", at, i), `the Env entry must be of the form "KEY=VALUE"`)
		}
	}
	return nil
}

// checkVolumes checks the volumes of the build and of its steps, each for itself and with the others.
func (s *Spec) checkVolumes() error {
	const global = "options.volumes"
	if len(s.Options.Volumes) > 0 && len(s.Steps) < 2 {
		return fault.Invalid(global, "Global volumes defined but there are fewer than two steps")
	}
	if err := cleanVolumes(global, s.Options.Volumes); err != nil {
		return err
	}
	uses := make(map[string]int)
	for i := range s.Steps {
		t := &s.Steps[i]
		at := fmt.Sprintf("steps[%d].volumes", i)
		if err := cleanVolumes(at, t.Volumes); err != nil {
			return err
		}
		for j, v := range t.Volumes {
			field := fmt.Sprintf("%s[%d]", at, j)
			for _, g := range s.Options.Volumes {
				if g.Name == v.Name {
					return fault.Invalid(field, "volume name %q conflicts with global volume", v.Name)
				}
				if g.Path == v.Path {
					return fault.Invalid(field, "volume path %q conflicts with global volume", v.Path)
				}
			}
			uses[v.Name]++
		}
	}
	for i := range s.Steps {
		for j, v := range s.Steps[i].Volumes {
			if uses[v.Name] < 2 {
				return fault.Invalid(fmt.Sprintf("steps[%d].volumes[%d]", i, j), "Volume %q is only used by one step",
					v.Name)
			}
		}
	}
	return nil
}

// cleanVolumes checks the volumes of one list and cleans their paths.
func cleanVolumes(at string, vs []Volume) error {
	names, paths := make(map[string]bool), make(map[string]bool)
	for i := range vs {
		v := &vs[i]
		field := fmt.Sprintf("%s[%d]", at, i)
		if !volumeName().MatchString(v.Name) {
			return fault.Invalid(field+".name", "volume name %.200q does not match %q", v.Name, volumeName())
		}
		given := v.Path
		v.Path = path.Clean(given)
		switch {
		case !path.IsAbs(v.Path) || strings.Contains(given, "\x00"):
			return fault.Invalid(field+".path", "path %.200q is not valid, must be absolute", given)
		case reserved(v.Path):
			return fault.Invalid(field+".path", "path %.200q is reserved", given)
		case strings.HasPrefix(v.Path, "/cloudbuild/"):
			return fault.Invalid(field+".path", "volume path %.200q cannot start with /cloudbuild/", given)
		case names[v.Name]:
			return fault.Invalid(field, "volume name %q is defined in more than one volume entry", v.Name)
		case paths[v.Path]:
			return fault.Invalid(field, "volume path %q is defined in more than one volume entry", v.Path)
		}
		names[v.Name], paths[v.Path] = true, true
	}
	return nil
}

// reserved reports whether a path is one that the build itself, or every container, has something at.
func reserved(p string) bool {
	for _, r := range []string{"/builder/home", "/builder/outputs", "/builder/script", "/proc", "/sys", "/dev"} {
		if p == r || strings.HasPrefix(p, r+"/") {
			return true
		}
	}
	return slices.Contains([]string{"/", "/builder", "/workspace", "/var/run/docker.sock", "/run/docker.sock"}, p)
}

func (s *Spec) checkObjects() error {
	o := &s.Objects
	if o.Location == "" && len(o.Paths) == 0 {
		return nil
	}
	const at = "artifacts.objects.location"
	if o.Location == "" {
		return fault.Invalid(at, ".artifacts.location field is empty")
	}
	if bucket, _, ok := SplitGS(o.Location); !ok || bucket == "" || strings.ContainsAny(o.Location, " \t\n\x00") {
		return fault.Invalid(at,
			"invalid .artifacts.location value %.200q; Google Cloud Storage URLs must begin with 'gs://'", o.Location)
	}
	if !strings.HasSuffix(o.Location, "/") { // it is a directory
		o.Location += "/"
	}
	if len(o.Paths) == 0 {
		return fault.Invalid("artifacts.objects.paths", ".artifacts.paths field empty; at least one is needed")
	}
	if len(o.Paths) > maxPaths {
		return fault.Invalid("artifacts.objects.paths", "cannot specify more than %d", maxPaths)
	}
	for i, p := range o.Paths {
		field := fmt.Sprintf("artifacts.objects.paths[%d]", i)
		switch _, err := path.Match(p, ""); {
		case strings.ContainsFunc(p, unicode.IsSpace):
			return fault.Invalid(field, ".artifacts.paths %.200q contains whitespace", p)
		case slices.Contains(o.Paths[:i], p):
			return fault.Invalid(field, ".artifacts.paths field has duplicate paths; remove duplicates [%.200s]", p)
		case err != nil || p == "" || path.IsAbs(p) && !strings.HasPrefix(p, "/workspace/") || escapes(p):
			return fault.Invalid(field, "%.100q is not a pattern of files in the workspace", p)
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
		return fault.Invalid("tags", "number of tags %d exceeded (max: %d)", len(tags), maxTags)
	}
	for i, t := range tags {
		if !tagForm().MatchString(t) {
			return fault.Invalid(fmt.Sprintf("tags[%d]", i), "invalid build tag %.200q: must match format %q", t, tagForm())
		}
	}
	return nil
}
