// Package runtime is the OCI runtime that BuildKit is told to start for RUN steps. It has the step's programs trust the
// platform's certificates and then becomes the real runtime, under the same process id.
//
// RUN steps see the platform under Google's names, and others such as registry.ollama.ai, with certificates of its own CA. What
// makes programs trust them must not be left in an image, and must not change what BuildKit takes a step for in its
// cache: so it is added here, where the step's container is already described. The bundle is mounted into the
// container's /dev, which is never a part of a layer.
package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Name is the file name by which a program is started as the runtime.
const Name = "giggle-build-runtime"

// Bundle is where a step finds the certificates.
const Bundle = "/dev/giggle-trust.pem"

// Plan is what the runtime does, kept in a file beside it.
type Plan struct {
	Runtime string   // the real one, an absolute path
	Trust   string   // PEM file of the certificates, an absolute path
	Env     []string // names of the variables that are set to Bundle where a step has not set them
}

// Install makes binary the runtime of a plan, in a directory. It returns the path to start.
func Install(dir, binary string, p Plan) (string, error) {
	program := filepath.Join(dir, Name)
	b, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(program+".json", b, 0o600); err != nil {
		return "", err
	}
	if err := os.Remove(program); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	return program, os.Symlink(binary, program)
}

// Run becomes the real runtime. It returns only when that fails.
func Run(args, environ []string) error {
	b, err := os.ReadFile(args[0] + ".json")
	if err != nil {
		return err
	}
	var p Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if bundle := bundleOf(args[1:]); bundle != "" {
		if err := p.change(filepath.Join(bundle, "config.json")); err != nil {
			return fmt.Errorf("%s: %w", bundle, err)
		}
	}
	return syscall.Exec(p.Runtime, append([]string{p.Runtime}, args[1:]...), environ)
}

// bundleOf is the directory of the container that the arguments create, or "" where they create none (runc's command line).
func bundleOf(args []string) string {
	if !slices.Contains(args, "run") && !slices.Contains(args, "create") {
		return ""
	}
	for i, a := range args {
		switch {
		case (a == "--bundle" || a == "-b") && i+1 < len(args):
			return args[i+1]
		case strings.HasPrefix(a, "--bundle="):
			return strings.TrimPrefix(a, "--bundle=")
		}
	}
	return "."
}

// change edits a container's description, in place: BuildKit has made it for this one start.
func (p Plan) change(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if b, err = p.edit(b); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

type mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

// edit adds to a description in the form of the OCI runtime specification, and leaves all else in it as it is.
func (p Plan) edit(config []byte) ([]byte, error) {
	var whole, process map[string]json.RawMessage
	if err := json.Unmarshal(config, &whole); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(whole["process"], &process); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	var env []string
	var mounts []json.RawMessage
	for _, field := range []struct {
		of   map[string]json.RawMessage
		name string
		into any
	}{{process, "env", &env}, {whole, "mounts", &mounts}} {
		if raw := field.of[field.name]; raw != nil {
			if err := json.Unmarshal(raw, field.into); err != nil {
				return nil, fmt.Errorf("%s: %w", field.name, err)
			}
		}
	}
	for _, name := range p.Env {
		if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") }) {
			env = append(env, name+"="+Bundle)
		}
	}
	var err error
	put := func(v any) json.RawMessage {
		b, e := json.Marshal(v)
		if e != nil && err == nil {
			err = e
		}
		return b
	}
	mounts = append(mounts, put(mount{Bundle, "bind", p.Trust, []string{"bind", "ro", "nosuid", "nodev", "noexec"}}))
	process["env"], whole["mounts"] = put(env), put(mounts)
	whole["process"] = put(process)
	out := put(whole)
	return out, err
}
