package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"giggle/builds/npmproxy"
	"giggle/cloud"
	"giggle/engine"
	"giggle/engine/egress"
	"giggle/fault"
	"giggle/hostports"
	"giggle/quota"
	cloudrun "giggle/run"
	"giggle/run/scale/local"
)

// defaultMirror is where foreign images are kept, for all platforms of the machine.
const defaultMirror = "/var/cache/giggle/mirror"

// cloudFlags are the flags of a command that runs a platform.
type cloudFlags struct {
	cloud.Config
	memory       string
	gpuEmulation string
	gpuTypes     []string
	hostPorts    []string
	quotas       map[string]string
	registry     string // of npm packages
	egress       string
	egressPath   string
	allow        []string
	pulls        pullFlags
	verbose      bool
}

func (p *program) cloudFlags(c *cobra.Command, f *cloudFlags) {
	p.dataFlag(c, &f.Data)
	mirror := p.getenv("GIGGLE_MIRROR")
	if mirror == "" {
		mirror = defaultMirror
	}
	fl := c.Flags()
	fl.StringVar(&f.Project, "project", "giggle", "id of the project that is made at the first start")
	fl.StringVar(&f.Owner, "owner", "you@giggle.test", "e-mail address of the owner")
	fl.StringSliceVar(&f.ProjectCreators, "project-creators", nil,
		"who may make projects besides the owner: user:EMAIL, serviceAccount:EMAIL, domain:NAME, …")
	fl.StringVar(&f.Address, "address", "127.71.71.1",
		"loopback address of the platform; another one for a second platform")
	fl.IntVar(&f.HTTPSPort, "https-port", 443, "port for HTTPS; 0 for any (then `giggle shell` can't be used)")
	fl.IntVar(&f.HTTPPort, "http-port", 80, "port for HTTP, which only redirects; 0 for any")
	fl.IntVar(&f.DNSPort, "dns-port", 53, "port for DNS; 0 for any (then `giggle shell` can't be used)")
	fl.StringVar(&f.Console, "console", "127.0.0.1:7171", "address of the console; port 0 for any")
	fl.StringVar(&f.Edge, "edge", "127.0.0.1:7180", "address of plain HTTP and of the CONNECT proxy; port 0 for any")
	fl.StringArrayVar(&f.hostPorts, "host-port", nil,
		"PORT or PROJECT:PORT: a port of this machine's loopback that instances (of that project) reach as "+
			"host.giggle.internal:PORT; may be given several times")
	fl.StringVar(&f.Mirror, "mirror", mirror, "directory of foreign images (GIGGLE_MIRROR)")
	fl.StringVar(&f.egress, "egress", cmp.Or(p.getenv("GIGGLE_EGRESS"), "auto"),
		"what containers and builds reach of the outside: off, public (addresses of the internet), all (private ones and\n"+
			"this machine's, too); auto is public while this machine has a default route (GIGGLE_EGRESS)")
	fl.StringVar(&f.egressPath, "egress-path", string(egress.Auto),
		"by which means: kernel (veth devices and nftables rules), userspace (TCP and UDP by the platform's own\n"+
			"sockets, slower); auto is kernel where this machine lets the platform make such")
	fl.StringSliceVar(&f.allow, "egress-allow", nil,
		"CIDR[:PORT] that containers reach besides, such as 192.168.1.7:5432 or 10.1.0.0/16; may be repeated")
	fl.StringVar(&f.pulls.pull, "pull", cmp.Or(p.getenv("GIGGLE_PULL"), "auto"),
		"foreign images that are not on this machine: never, always (from their registries), or auto, which is always\n"+
			"where this machine has a default route when it starts (GIGGLE_PULL)")
	f.pulls.limitFlag(c)
	f.pulls.registriesFlag(c)
	fl.StringVar(&f.registry, "npm-registry", "",
		"npm registry that builds get packages from, through a cache; \"off\" for none; empty for this machine's, by its npm")
	fl.StringVar(&f.Runtime, "runtime", "", "OCI runtime: crun, runc or a path; empty for the first that works")
	fl.DurationVar(&f.Idle, "idle", 15*time.Minute, "how long an instance without requests stays while memory lasts")
	fl.IntVar(&f.Prepared, "prepared", -1,
		"prepared instances kept for services at zero; -1 for one for each 128 MiB of memory, 128 at most")
	fl.StringVar(&f.memory, "memory-budget", "",
		"memory that all instances may use together, such as 6Gi; empty for four fifths of the machine's")
	fl.StringVar(&f.gpuEmulation, "gpu-emulation", "",
		"\"cpu\": services that want a GPU of which there is none run on the CPU, with a condition that says so")
	fl.StringArrayVar(&f.gpuTypes, "gpu-type", nil,
		"KIND=MODEL: GPUs of another model stand for one of Cloud Run's kinds, as in nvidia-l4=\"NVIDIA H100*\" or nvidia-l4=any")
	fl.StringSliceVar(&f.CDI, "cdi-dir", engine.CDIDirs(),
		"directories of CDI specs, which say what a container needs to use a GPU")
	fl.StringVar(&f.Devices, "devices", "/", "directory in whose proc/ the GPU driver's list lies, for tests")
	_ = fl.MarkHidden("devices") // it is there
	fl.IntVar(&f.ModelRequests, "model-requests-per-minute", 600,
		"requests that a project may make of one language model in a minute; 0 for any number")
	fl.StringToStringVar(&f.quotas, "quota", nil,
		"NAME=N: how many there may be instead of the usual number, of "+strings.Join(quota.Names(), ", ")+
			"; bytes as in stored-bytes=50Gi")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log more")
}

// config completes the flags to a platform's configuration.
func (p *program) config(ctx context.Context, f *cloudFlags, log io.Writer) (cloud.Config, error) {
	if os.Geteuid() != 0 {
		return cloud.Config{}, fault.New(fault.PermissionDenied, "Containers need root: run `sudo giggle up`.")
	}
	data, err := filepath.Abs(f.Data)
	if err != nil {
		return cloud.Config{}, err
	}
	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	cfg := f.Config
	if cfg.Memory, err = cloudrun.Bytes(f.memory); err != nil {
		return cloud.Config{}, fault.New(fault.InvalidArgument,
			"--memory-budget %q is not a size such as 512Mi or 6Gi.", f.memory)
	}
	switch f.gpuEmulation {
	case "", "none":
	case "cpu":
		cfg.EmulateGPUs = true
	default:
		return cloud.Config{}, fault.New(fault.InvalidArgument, "--gpu-emulation %q is not cpu or none.",
			f.gpuEmulation)
	}
	for _, text := range f.gpuTypes {
		a, err := cloudrun.ParseGPUAlias(text)
		if err != nil {
			return cloud.Config{}, fault.New(fault.InvalidArgument, "--gpu-type: %s", fault.From(err).Message)
		}
		cfg.GPUAliases = append(cfg.GPUAliases, a)
	}
	if cfg.Egress, err = egressOf(f.egress, f.egressPath, f.allow); err != nil {
		return cloud.Config{}, err
	}
	for _, text := range f.hostPorts {
		port, err := hostports.Parse(text)
		if err != nil {
			return cloud.Config{}, fault.New(fault.InvalidArgument, "--host-port: %s", fault.From(err).Message)
		}
		cfg.HostPorts = append(cfg.HostPorts, port)
	}
	cfg.Quotas = make(map[string]int, len(f.quotas))
	for name, text := range f.quotas {
		n, err := strconv.Atoi(text)
		if err != nil && quota.Name(name) == quota.StoredBytes {
			var size int64
			size, err = cloudrun.Bytes(text)
			n = int(size)
		}
		if err != nil {
			return cloud.Config{}, fault.New(fault.InvalidArgument, "--quota %s=%q is not a number.", name, text)
		}
		cfg.Quotas[name] = n
	}
	if cfg.Pulls, err = p.policy(f.pulls, cfg.Mirror); err != nil {
		return cloud.Config{}, err
	}
	if cfg.Binary, err = os.Executable(); err != nil {
		return cloud.Config{}, err
	}
	cfg.Data, cfg.Version, cfg.Now = data, buildVersion(), time.Now
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	cfg.PythonIndex = p.getenv("PIP_INDEX_URL")
	cfg.Discovery = p.getenv("GIGGLE_DISCOVERY")
	if cfg.Egress != nil {
		var at []egress.Allow
		cfg.Proxies, at = p.proxies(ctx, cfg.Log, net.DefaultResolver.LookupNetIP)
		cfg.Egress.Allow = append(cfg.Egress.Allow, at...)
	}
	// Each takes the start of another program, so it waits for the first build that asks.
	later := context.WithoutCancel(ctx)
	cfg.Modules = func() string { return p.setting(later, cfg.Log, "GOPROXY", "go", "env", "GOPROXY") }
	cfg.Packages = func() string {
		return p.setting(later, cfg.Log, "npm_config_registry", "npm", "config", "get", "registry")
	}
	if f.registry != "" {
		if err := npmproxy.CheckUpstream(f.registry); err != nil {
			return cloud.Config{}, err
		}
		cfg.Packages = func() string { return f.registry }
	}
	if uid, err := strconv.Atoi(p.getenv("SUDO_UID")); err == nil {
		cfg.OwnerUIDs = []int{uid}
	}
	return cfg, nil
}

// egressOf reads --egress, --egress-path and --egress-allow; nil is no egress.
func egressOf(mode, path string, allow []string) (*egress.Config, error) {
	cfg := &egress.Config{Required: mode != "auto", Path: egress.Path(path)}
	switch cfg.Path {
	case egress.Auto, egress.Kernel, egress.Userspace:
	default:
		return nil, fault.New(fault.InvalidArgument, "--egress-path %q is not auto, kernel or userspace.", path)
	}
	switch mode {
	case "auto", "public":
	case "all":
		cfg.All = true
	case "off":
		if len(allow) > 0 {
			return nil, fault.New(fault.InvalidArgument, "--egress-allow needs another --egress than off.")
		}
		return nil, nil
	default:
		return nil, fault.New(fault.InvalidArgument, "--egress %q is not auto, off, public or all.", mode)
	}
	for _, text := range allow {
		a, err := egress.ParseAllow(text)
		if err != nil {
			return nil, fault.New(fault.InvalidArgument, "--egress-allow: %s", fault.From(err).Message)
		}
		cfg.Allow = append(cfg.Allow, a)
	}
	return cfg, nil
}

// setting is what a variable says, or else what a program of this machine prints; "off" where there is neither: then
// builds have what is cached and what their source brings. Sudo takes the toolchain's usual place out of the PATH.
func (p *program) setting(ctx context.Context, log *slog.Logger, variable, program string, args ...string) string {
	if v := p.getenv(variable); v != "" {
		return v
	}
	at, err := exec.LookPath(program)
	if err != nil {
		at = filepath.Join("/usr/local/go/bin", program)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, at, args...).Output()
	if v := strings.TrimSpace(string(out)); err == nil && v != "" {
		return v
	}
	log.Info("builds get no packages from outside", "program", program, "err", err, "set", variable)
	return "off"
}

func (p *program) up() *cobra.Command {
	f := &cloudFlags{}
	c := &cobra.Command{
		Use:   "up",
		Short: "Start the cloud in the foreground",
		Long: "Up starts the platform on a data directory and runs until Ctrl-C: then it lets requests end and stops every\n" +
			"container. A second Ctrl-C stops at once.",
		Example: "  sudo giggle up\n  sudo giggle up --data /tmp/two --address 127.71.71.2 --console 127.0.0.1:0 --edge 127.0.0.1:0   # a second one\n" +
			"  sudo giggle up --host-port 5432   # services reach this machine's PostgreSQL at host.giggle.internal:5432",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.config(cmd.Context(), f, p.stderr)
			if err != nil {
				return err
			}
			return p.runCloud(cmd.Context(), cfg, func(c *cloud.Cloud) error { return p.welcome(cmd.Context(), c) })
		},
	}
	p.cloudFlags(c, f)
	return c
}

// runCloud runs a platform until a signal or until ctx ends. Ready is called once everything listens.
func (p *program) runCloud(ctx context.Context, cfg cloud.Config, ready func(*cloud.Cloud) error) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	force := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
			return
		}
		fmt.Fprintln(p.stderr, "Stopping: requests end, containers stop. Once more to stop at once.")
		stop()
		<-signals
		close(force)
	}()
	if _, whole, err := local.Memory(); err == nil {
		limitMemory(p.getenv, whole)
	}
	c, err := cloud.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if e := c.Close(); err == nil {
			err = e
		}
	}()
	if err := c.Listen(); err != nil {
		return err
	}
	if err := ready(c); err != nil {
		return err
	}
	return c.Run(ctx, force)
}

// welcome prints the one screen that a user sees.
func (p *program) welcome(ctx context.Context, c *cloud.Cloud) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	flag := ""
	if st.Data != defaultData {
		flag = " --data " + st.Data
	}
	p.printf("Giggle %s is up: project %s on %s, containers by %s.\n\n", st.Version, st.Project, st.Address, st.Runtime)
	p.printf("  Console   http://%s\n", st.Console)
	p.printf("  Services  https://*.run.app inside the shell, http://SERVICE.localhost:%s in a browser\n",
		st.Edge[strings.LastIndexByte(st.Edge, ':')+1:])
	if st.Egress == string(egress.Userspace) {
		p.printf("  Egress    in userspace, TCP and UDP only, slower than by the kernel; giggle doctor says why\n")
	}
	p.printf("  Data      %s\n\nNext, in another terminal:\n\n  giggle shell%s\n\n", st.Data, flag)
	return nil
}
