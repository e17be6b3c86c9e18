package main

import (
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/http/httpproxy"

	"giggle/artifacts/mirror"
	"giggle/engine/egress"
	"giggle/fault"
	cloudrun "giggle/run"
)

// pullFlags are what says whether and how foreign images are pulled.
type pullFlags struct {
	pull       string // auto, never or always
	limit      string // of the cache
	registries string
}

// limitFlag adds --pull-limit.
func (f *pullFlags) limitFlag(c *cobra.Command) {
	c.Flags().StringVar(&f.limit, "pull-limit", "20Gi",
		"size of the cache of foreign images that were pulled when they were asked for; the least recently used go")
}

// registriesFlag adds --registries.
func (f *pullFlags) registriesFlag(c *cobra.Command) {
	c.Flags().StringVar(&f.registries, "registries", "",
		"file that says of registries where else and how they are asked, "+
			`{"registries": [{"host": "docker.io", "mirrors": ["mirror.example.com/hub"]}, {"host": "lan:5000", "insecure": true}]}; `+
			`"ca" is a file of certificates; empty for registries.json in the mirror`)
}

// policy is what the flags say. No packet tells: there is a network where the machine has a default route.
func (p *program) policy(f pullFlags, dir string) (out mirror.Policy, err error) {
	switch f.pull {
	case "auto":
		out.Allowed = online()
	case "always":
		out.Allowed = true
	case "never", "":
	default:
		return out, fault.New(fault.InvalidArgument, "--pull %q is not auto, never or always.", f.pull)
	}
	if out.Limit, err = cloudrun.Bytes(f.limit); err != nil || out.Limit < 0 {
		return out, fault.New(fault.InvalidArgument, "--pull-limit %q is not a size such as 20Gi.", f.limit)
	}
	if out.Registries, err = registries(f.registries, dir); err != nil {
		return out, err
	}
	out.Proxy = p.proxy()
	return out, nil
}

// registries reads the list of registries of a flag, or else the one beside the mirror.
func registries(file, dir string) ([]mirror.Registry, error) {
	if file == "" {
		file = filepath.Join(dir, "registries.json")
		if _, err := os.Stat(file); err != nil {
			return nil, nil
		}
	}
	return mirror.ReadRegistries(file)
}

// proxy is this machine's, as its variables say.
func (p *program) proxy() func(*url.URL) (*url.URL, error) {
	either := func(upper string) string {
		if v := p.getenv(upper); v != "" {
			return v
		}
		return p.getenv(strings.ToLower(upper))
	}
	cfg := httpproxy.Config{
		HTTPProxy:  either("HTTP_PROXY"),
		HTTPSProxy: either("HTTPS_PROXY"),
		NoProxy:    either("NO_PROXY"),
	}
	return cfg.ProxyFunc()
}

// online reports whether the machine has a default route, over IPv4 or IPv6.
func online() bool {
	for _, v6 := range []bool{false, true} {
		if device, err := egress.DefaultRoute(v6); err == nil && device != "" {
			return true
		}
	}
	return false
}

// pullerFlags adds the flags of a command that asks registries, and returns what opens the mirror.
func (p *program) pullerFlags(c *cobra.Command) func() (*mirror.Mirror, *mirror.Puller, error) {
	var f pullFlags
	open := p.mirrorFlag(c)
	f.registriesFlag(c)
	return func() (*mirror.Mirror, *mirror.Puller, error) {
		m, err := open()
		if err != nil {
			return nil, nil, err
		}
		list, err := registries(f.registries, c.Flag("mirror").Value.String())
		if err != nil {
			return nil, nil, err
		}
		puller, err := mirror.NewPuller(mirror.PullerConfig{
			Mirror: m,
			Policy: mirror.Policy{Registries: list, Proxy: p.proxy()},
			Inside: true,
			Now:    time.Now,
			Log:    slog.New(slog.NewTextHandler(p.stderr, nil)),
		})
		return m, puller, err
	}
}

func (p *program) imagesCollect() *cobra.Command {
	var f pullFlags
	c := &cobra.Command{
		Use:   "gc",
		Short: "Make the cache of pulled images as small as its limit",
		Long: "Gc removes cached images that have not been used for longest until the cache is as small as the limit. What was\n" +
			"used within the last hour stays; what services run is theirs, and stays, too.",
		Args:    cobra.NoArgs,
		Example: "  sudo giggle images gc\n  sudo giggle images gc --pull-limit 0",
	}
	open := p.mirrorFlag(c)
	f.limitFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		limit, err := cloudrun.Bytes(f.limit)
		if err != nil || limit < 0 {
			return fault.New(fault.InvalidArgument, "--pull-limit %q is not a size such as 20Gi.", f.limit)
		}
		m, err := open()
		if err != nil {
			return err
		}
		done, err := m.Collect(cmd.Context(), limit, 0, time.Now())
		for _, name := range done.Images {
			p.printf("Removed %s from the cache.\n", name)
		}
		p.printf("%d MB freed; the cache has %d MB.\n", (done.Freed+1<<19)>>20, (done.Size+1<<19)>>20)
		return err
	}
	return c
}

func (p *program) imagesLogin() *cobra.Command {
	var user, from string
	var stdin bool
	c := &cobra.Command{
		Use:   "login HOST",
		Short: "Log in to a registry: its private images can be pulled then",
		Long: "Login tries the credentials at the registry and keeps them for all platforms of this machine, in a file of the\n" +
			"mirror that only root can read. All who may deploy or build on them can use what the credentials give access to.",
		Args:    cobra.ExactArgs(1),
		Example: "  sudo giggle images login ghcr.io -u me --password-stdin < token\n  sudo giggle images login docker.io --from ~/.docker/config.json",
	}
	open := p.pullerFlags(c)
	c.Flags().StringVarP(&user, "username", "u", "", "user name")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	c.Flags().StringVar(&from, "from", "", "take the credentials from this file of docker's or podman's")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var password string
		switch {
		case from != "" && (user != "" || stdin) || from == "" && (user == "" || !stdin):
			return fault.New(fault.InvalidArgument, "Either -u USER with --password-stdin, or --from FILE.")
		case from != "":
			var err error
			if user, password, err = mirror.FromDocker(from, args[0]); err != nil {
				return err
			}
		default:
			b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64<<10))
			if err != nil {
				return err
			}
			if password = strings.TrimRight(string(b), "\r\n"); password == "" {
				return fault.New(fault.InvalidArgument, "Standard input has no password.")
			}
		}
		_, puller, err := open()
		if err == nil {
			err = puller.Login(cmd.Context(), args[0], user, password)
		}
		if err != nil {
			return err
		}
		p.printf("Logged in to %s.\n", args[0])
		return nil
	}
	return c
}

func (p *program) imagesLogout() *cobra.Command {
	c := &cobra.Command{
		Use:     "logout HOST",
		Short:   "Forget the credentials of a registry",
		Args:    cobra.ExactArgs(1),
		Example: "  sudo giggle images logout ghcr.io",
	}
	open := p.mirrorFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		m, err := open()
		if err == nil {
			err = m.Logout(args[0])
		}
		if err != nil {
			return err
		}
		p.printf("Logged out of %s.\n", args[0])
		return nil
	}
	return c
}
