// Command buildkit-solve is a client of BuildKit for one build. It reads what to build as JSON from its standard input,
// so that build arguments and credentials stand in nobody's list of processes and may be of any length; prints
// BuildKit's plain progress to its standard error, with a last line "error: …" if it fails; and prints what the
// exporter answers as JSON to its standard output.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/docker/cli/cli/config/types"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sync/errgroup"
)

// job is the input. Package builds/dockerfile of the platform writes it.
type job struct {
	Address  string            // of BuildKit, "unix:///…"
	Context  string            // directory with the Dockerfile and what it copies
	Options  map[string]string // of the Dockerfile frontend
	Image    string            // where to push the image, REGISTRY/NAME
	Accounts map[string]account
	Secrets  map[string][]byte // of RUN --mount=type=secret, by their ids
	Keys     map[string][]byte // private keys that an SSH agent has in RUN --mount=type=ssh, by the agents' ids
}

// account is what a registry is asked with, by its host.
type account struct {
	User, Password string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, in io.Reader, out io.Writer, log *os.File) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return fmt.Errorf("the input: %w", err)
	}
	c, err := client.New(ctx, j.Address)
	if err != nil {
		return err
	}
	files, err := fsutil.NewFS(j.Context)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	display, err := progressui.NewDisplay(log, progressui.PlainMode)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	accounts := authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: func(
			_ context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck,
		) (types.AuthConfig, error) {
			a := j.Accounts[host]
			return types.AuthConfig{ServerAddress: host, Username: a.User, Password: a.Password}, nil
		},
	})
	attached := []session.Attachable{accounts, secretsprovider.FromMap(j.Secrets)}
	if len(j.Keys) > 0 {
		agents, err := agents(j.Keys)
		if err != nil {
			return errors.Join(err, c.Close())
		}
		attached = append(attached, agents)
	}
	status := make(chan *client.SolveStatus)
	var g errgroup.Group
	g.Go(func() error {
		_, err := display.UpdateFrom(context.Background(), status) // to the end: it says why a build failed
		return err
	})
	var answer map[string]string
	g.Go(func() error {
		resp, err := c.Solve(ctx, nil, client.SolveOpt{
			Frontend:      "dockerfile.v0",
			FrontendAttrs: j.Options,
			LocalMounts:   map[string]fsutil.FS{"context": files, "dockerfile": files},
			Session:       attached,
			Exports: []client.ExportEntry{{Type: client.ExporterImage, Attrs: map[string]string{"name": j.Image,
				"push": "true", "compression": "gzip"}}},
		}, status)
		if err == nil {
			answer = resp.ExporterResponse
		}
		return err
	})
	if err := errors.Join(g.Wait(), c.Close()); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}

// agents are SSH agents with a key each. The library reads keys from files, which are gone when it has.
func agents(keys map[string][]byte) (_ session.Attachable, err error) {
	dir, err := os.MkdirTemp("", "keys-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var all []sshprovider.AgentConfig
	for id, key := range keys {
		file := filepath.Join(dir, strconv.Itoa(len(all)))
		if err := os.WriteFile(file, key, 0o600); err != nil {
			return nil, err
		}
		all = append(all, sshprovider.AgentConfig{ID: id, Paths: []string{file}})
	}
	return sshprovider.NewSSHAgentProvider(all)
}
