// Package local makes instances on this machine: it turns a revision into what the engine runs, with the environment,
// the files and the sockets of Cloud Run's container contract, and keeps what the container writes.
//
// It is the scale.Backend of a single machine. How many instances there are is package scale's business, how a
// container is made package engine's.
package local

import (
	"context"
	"fmt"
	"strings"
	"time"

	"giggle/engine"
	"giggle/fault"
	"giggle/oci"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
)

// Engine prepares containers: *engine.Engine.
type Engine interface {
	Prepare(ctx context.Context, s engine.Spec) (*engine.Instance, error)
}

// Unpacker unpacks images: *oci.Images.
type Unpacker interface {
	Unpack(ctx context.Context, digest string) (oci.Image, error)
}

// Caller is an instance as the platform's sockets inside it see it.
type Caller struct {
	Project    resource.Project
	Region     string
	InstanceID string
	Account    string // e-mail address of the service account
	// Warn writes a line of the platform's own into the instance's log.
	Warn func(text string)
}

// Config is what a Backend needs.
type Config struct {
	Engine  Engine
	Images  Unpacker
	Project resource.FindProject
	// Account returns the e-mail address of the account that a revision runs as; "" means the project's default.
	Account func(p resource.Project, email string) string
	// Sockets returns what answers inside an instance.
	Sockets func(c Caller) engine.Sockets
	// Databases opens the sockets of databases for an instance. It returns the directory that they are in, which is the
	// host's, and what ends them. Nil is for none.
	Databases func(ctx context.Context, c Caller, names []string) (dir string, end func(), err error)
	// Trust is the PEM bundle of certificates that instances trust: the system's and the platform's own CA.
	Trust []byte
	Log   Log // nil for none
	NewID func() string
	Now   func() time.Time // the time of the platform's own lines; nil means time.Now
}

// Backend is the engine with what a revision needs around it.
type Backend struct{ Config }

// New returns a Backend.
func New(cfg Config) *Backend { return &Backend{cfg} }

var _ scale.Backend = (*Backend)(nil)

// bundles are the places where programs look for the system's certificates, by distribution (crypto/x509 in Go has
// the same list).
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/cert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
}

// trustVariables point programs that bring certificates of their own to the bundle.
var trustVariables = []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
	"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}

// Files returns the files that are laid over the image of every container.
func Files(trust []byte) []engine.File {
	files := []engine.File{
		{Path: "/etc/resolv.conf", Data: []byte("nameserver 169.254.169.254\noptions ndots:1\n")},
		{
			Path: "/etc/hosts",
			Data: []byte("127.0.0.1 localhost\n::1 localhost\n169.254.169.254 metadata.google.internal metadata\n"),
		},
	}
	for _, path := range bundles {
		files = append(files, engine.File{Path: path, Data: trust})
	}
	return files
}

// TrustEnv returns the variables that make programs trust the bundle.
func TrustEnv() []string {
	var out []string
	for _, name := range trustVariables {
		out = append(out, name+"="+bundles[0])
	}
	return out
}

// Prepare makes everything ready for an instance of the revision, short of starting its process. Gpu is the one that it
// has to itself, or nil.
func (b *Backend) Prepare(ctx context.Context, rev run.Revision, gpu *run.GPU) (_ scale.Instance, err error) {
	defer fault.Wrap(&err, "local.Prepare(%s)", rev.Name.ID)
	_, digest, ok := strings.Cut(rev.Status.ImageDigest, "@")
	if !ok {
		return nil, fault.New(fault.Internal, "The revision's image has no digest.")
	}
	img, err := b.Images.Unpack(ctx, digest)
	if err != nil {
		return nil, err
	}
	p, err := b.Project(rev.Name.Service.Project)
	if err != nil {
		return nil, err
	}
	c := rev.Template.Containers[0]
	memory, err := run.Bytes(c.Memory)
	if err != nil {
		return nil, err
	}
	cpu, err := run.MilliCPU(c.CPU)
	if err != nil {
		return nil, err
	}
	args := command(c, img)
	if len(args) == 0 {
		return nil, failure("ContainerMissing",
			"The image %s has neither an entrypoint nor a command; set one with --command.", c.Image)
	}
	var gpus []engine.GPU
	if gpu != nil {
		gpus = []engine.GPU{gpu.GPU}
	}
	inst := &instance{id: b.NewID(), memory: memory, now: b.Now}
	if inst.now == nil {
		inst.now = time.Now
	}
	inst.log = b.log(rev.Name, inst.id)
	caller := Caller{
		Project: p, Region: rev.Name.Service.Location.Location,
		InstanceID: inst.id, Account: b.Account(p, rev.Template.ServiceAccount), Warn: inst.Warn,
	}
	var mounts []engine.Mount
	if names := rev.Template.CloudSQL.Instances; len(names) > 0 && b.Databases != nil {
		dir, end, err := b.Databases(ctx, caller, names)
		if err != nil {
			return nil, err
		}
		inst.end = end
		mounts = append(mounts, engine.Mount{Source: dir, Target: run.CloudSQLPath, ReadOnly: true})
	}
	inst.inner, err = b.Engine.Prepare(ctx, engine.Spec{
		ID:      inst.id,
		Layers:  img.Layers,
		Args:    args,
		Env:     environment(rev, img),
		Dir:     orElse(c.WorkingDir, img.Config.WorkingDir),
		User:    img.Config.User,
		Memory:  memory,
		CPU:     cpu,
		GPUs:    gpus,
		Mounts:  mounts,
		Files:   Files(b.Trust),
		Output:  func(l engine.Line) { inst.tail.add(l); inst.log(l) },
		Sockets: b.Sockets(caller),
	})
	if err != nil {
		if inst.end != nil {
			inst.end()
		}
		return nil, refine(err, c.Image, args[0])
	}
	if rev.Template.VPC != nil {
		inst.Say(run.VPCNote)
	}
	if kind := rev.Template.GPU(); kind != "" && gpu == nil {
		inst.Say("Warning: " + run.EmulationWarning(kind))
	}
	go inst.sayEnd()
	return inst, nil
}

// failure is a fault that becomes a revision's condition.
func failure(reason, format string, args ...any) error {
	e := fault.New(fault.FailedPrecondition, format, args...)
	e.Reason = reason
	return e
}

// refine says in the user's words what the runtime refused.
func refine(err error, image, arg string) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file") && strings.Contains(text, "not found"),
		strings.Contains(text, "no such file or directory") && strings.Contains(text, arg):
		return failure("ContainerMissing", "The command %q was not found in the image %s.", arg, image)
	case strings.Contains(text, "exec format error"):
		return failure("ContainerMissing", "The command %q of the image %s is not a Linux x86_64 program.", arg, image)
	case strings.Contains(text, "not an executable file"):
		return failure("ContainerMissing", "The command %q of the image %s is not an executable file.", arg, image)
	case strings.Contains(text, "permission denied") && strings.Contains(text, arg):
		return failure("ContainerMissing", "The command %q of the image %s may not be executed (permission denied).",
			arg, image)
	}
	return err
}

// command is the container's process: what the revision says, else what the image says.
func command(c run.Container, img oci.Image) []string {
	if len(c.Command) > 0 {
		return append(append([]string(nil), c.Command...), c.Args...)
	}
	args := append([]string(nil), img.Config.Entrypoint...)
	if len(c.Args) > 0 {
		return append(args, c.Args...)
	}
	return append(args, img.Config.Cmd...)
}

// environment is the container contract's variables over the image's, and the revision's over both.
func environment(rev run.Revision, img oci.Image) []string {
	c := rev.Template.Containers[0]
	env := append([]string(nil), img.Config.Env...)
	env = append(env, TrustEnv()...)
	for _, e := range c.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	return append(env,
		fmt.Sprintf("PORT=%d", c.Port), "K_SERVICE="+rev.Name.Service.ID, "K_REVISION="+rev.Name.ID,
		"K_CONFIGURATION="+rev.Name.Service.ID)
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}
