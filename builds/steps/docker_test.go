package steps

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The wrapper passes on what the CLI can do here, as it was said, and does or refuses by name what the CLI would leave
// away (https://docs.docker.com/reference/cli/docker/buildx/build/).
func TestDockerWrapper(t *testing.T) {
	dir := t.TempDir()
	cli := filepath.Join(dir, "cli")
	fake := `#!/bin/sh
if [ "$1" = --config ]; then cat "$2/config.json" >> ` + dir + `/calls; shift 2; fi
printf '%s' "$DOCKER_BUILDKIT" >> ` + dir + `/calls
for a; do printf '|%s' "$a" >> ` + dir + `/calls; done
echo >> ` + dir + `/calls
case "$*" in *fail) echo no such build >&2; exit 3;; esac
case "$1" in create) echo made;; build) while [ "$1" != --iidfile ] && [ $# -gt 0 ]; do shift; done; [ $# = 0 ] || echo id > "$2";; esac
`
	script := filepath.Join(dir, "docker")
	secret := filepath.Join(dir, "secret")
	sent := func(secrets, keys string) string {
		return `{"HttpHeaders":{"X-Giggle-Secrets":"` + secrets + `","X-Giggle-Keys":"` + keys + `"}}`
	}
	for name, text := range map[string]string{secret: "hush\n", cli: fake, script: strings.ReplaceAll(wrapper, realCLI, cli)} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "out dir")
	for name, c := range map[string]struct {
		args    []string
		calls   string // of the CLI, one a line
		refused string
	}{
		"another command":      {[]string{"run", "--rm", "a b", "-o", "x"}, "0|run|--rm|a b|-o|x\n", ""},
		"none":                 {nil, "0\n", ""},
		"a build":              {[]string{"build", "-t", "x", "."}, "0|build|-t|x|.\n", ""},
		"words with spaces":    {[]string{"build", "--build-arg", "A=b  c", "."}, "0|build|--build-arg|A=b  c|.\n", ""},
		"an argument like one": {[]string{"build", "--build-arg", "--secret", "-t", "-o", "."}, "0|build|--build-arg|--secret|-t|-o|.\n", ""},
		"image build":          {[]string{"image", "build", "."}, "0|image|build|.\n", ""},
		"a secret":             {[]string{"build", "--secret", "id=x,src=" + secret, "."}, sent("x=aHVzaAo=", "") + "0|build|.\n", ""},
		"a secret in one": {[]string{"build", "--secret=type=file,source=" + secret + ",id=x", "-t", "a", "."},
			sent("x=aHVzaAo=", "") + "0|build|-t|a|.\n", ""},
		"a secret of a variable":        {[]string{"build", "--secret", "id=x,env=HUSH", "."}, sent("x=YSBiLGMiJw==", "") + "0|build|.\n", ""},
		"a secret by its id":            {[]string{"build", "--secret", "id=HUSH", "."}, sent("HUSH=YSBiLGMiJw==", "") + "0|build|.\n", ""},
		"two secrets":                   {[]string{"build", "--secret", "id=HUSH", "--secret=id=x,src=" + secret, "."}, sent("HUSH=YSBiLGMiJw==,x=aHVzaAo=", "") + "0|build|.\n", ""},
		"a secret without an id":        {[]string{"build", "--secret", "src=x", "."}, "", "needs an id"},
		"a secret with a bad id":        {[]string{"build", "--secret", `id=x",src=` + secret, "."}, "", "needs an id"},
		"a secret that is not there":    {[]string{"build", "--secret", "id=x,src=/nowhere", "."}, "", "no file /nowhere"},
		"a variable that is not there":  {[]string{"build", "--secret", "id=x,env=NOWHERE", "."}, "", "no variable NOWHERE"},
		"a secret of another kind":      {[]string{"build", "--secret", "id=x,uid=5", "."}, "", `"uid=5" is none of id, src and env`},
		"a key":                         {[]string{"build", "--ssh", "default=" + secret, "."}, sent("", "default=aHVzaAo=") + "0|build|.\n", ""},
		"an agent":                      {[]string{"build", "--ssh", "default", "."}, "", "no agent runs here"},
		"a key that is not there":       {[]string{"build", "--ssh=default=/nowhere", "."}, "", "no file with a private key"},
		"two keys of one agent":         {[]string{"build", "--ssh=a=/x,/y", "."}, "", "one key"},
		"a key with a bad id":           {[]string{"build", "--ssh", `a"b=` + secret, "."}, "", "needs an id"},
		"a secret, and a failing build": {[]string{"build", "--secret", "id=HUSH", "fail"}, sent("HUSH=YSBiLGMiJw==", "") + "0|build|fail\n", "no such build"},
		"buildx":                        {[]string{"buildx", "version"}, "", "buildx is not in this builder"},
		"compose":                       {[]string{"compose", "up", "-d"}, "", "compose is not in this builder"},
		"an archive as output":          {[]string{"build", "-o", "type=tar,dest=x", "."}, "", "only a directory"},
		"output to the console":         {[]string{"build", "-o", "-", "."}, "", "only a directory"},
		"output": {[]string{"build", "-o", out, "-q", "."},
			"0|build|-q|.|--iidfile|ID\n0|create|id|none\n0|cp|made:/.|" + out + "\n0|rm|made\n", ""},
		"output of a type": {[]string{"build", "--output=type=local,dest=" + out, "."},
			"0|build|.|--iidfile|ID\n0|create|id|none\n0|cp|made:/.|" + out + "\n0|rm|made\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "calls"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", append([]string{script}, c.args...)...)
			cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1", "TMPDIR="+dir, `HUSH=a b,c"'`)
			said, err := cmd.CombinedOutput()
			if (err != nil) != (c.refused != "") || !strings.Contains(string(said), c.refused) {
				t.Errorf("%v: %s", err, said)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "tmp.*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			calls, err := os.ReadFile(filepath.Join(dir, "calls"))
			if err != nil {
				t.Fatal(err)
			}
			got := string(calls)
			if _, id, ok := strings.Cut(got, "--iidfile|"); ok {
				id, _, _ = strings.Cut(id, "\n")
				got = strings.Replace(got, id, "ID", 1)
			}
			if got != c.calls {
				t.Errorf("called %q, want %q", got, c.calls)
			}
		})
	}
}
