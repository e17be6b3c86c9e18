package cloud

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"giggle/artifacts"
	"giggle/artifacts/mirror"
	"giggle/builds"
	"giggle/builds/dockerapi"
	"giggle/builds/dockerfile"
	"giggle/cloud/limits"
	"giggle/engine"
	"giggle/fault"
	"giggle/iam"
	"giggle/metadata"
	"giggle/resource"
	"giggle/run/scale/local"
)

const (
	dockerDaemons = 4        // BuildKits at once
	dockerCache   = 10 << 30 // bytes of BuildKit's cache, of each project
)

// docker is what builds Dockerfiles, for steps and for deploys of a source.
type docker struct {
	files *dockerfile.Builder
	api   *dockerapi.Server
}

// openDocker puts BuildKit and the Docker API together. Proxies is what RUN steps find on port 80 beside the registry
// of base images.
func (c *Cloud) openDocker(
	proxies http.Handler, sockets func(builds.Build) engine.Sockets, shared func(builds.Build) string,
) (*docker, error) {
	var trustEnv []string
	for _, v := range local.TrustEnv() {
		name, _, _ := strings.Cut(v, "=")
		trustEnv = append(trustEnv, name)
	}
	l := c.limits.Dockerfiles
	files, err := dockerfile.New(dockerfile.Config{
		Engine:   c.engine,
		Foreign:  c.puller,
		Familiar: mirror.Familiar,
		Blobs:    c.blobs,
		Dir:      c.path("buildkit"),
		Path:     c.programs(),
		Trust:    c.trust,
		Binary:   c.cfg.Binary,
		Unpacker: c.unpacker(),
		TrustEnv: trustEnv,
		Files:    local.Files(c.trust),
		Sockets:  c.socketsFor(metadata.Identity{}, nil),
		Others:   proxies,
		Online:   c.engine.Online,
		Proxies:  c.cfg.Proxies,
		Hosts:    registryHosts(),
		All:      l.All,
		Project:  l.Project,
		Steps:    l.Steps,
		Step:     l.Step,
		Daemons:  dockerDaemons,
		Cache:    dockerCache,
		Log:      c.cfg.Log,
		Token:    c.buildToken,
	})
	if err != nil {
		return nil, err
	}
	c.onClose(files.Close)
	c.dockerfiles = files
	if err := c.keepCaches(); err != nil {
		return nil, err
	}
	api, err := dockerapi.New(dockerapi.Config{
		Builder:  files,
		Images:   c.images,
		Registry: c.asBuild,
		Blobs:    c.blobs,
		Engine:   c.engine,
		Familiar: mirror.Familiar,
		Dir:      c.path("docker"),
		Unpacker: c.unpacker(),
		Shared:   shared,
		Sockets:  sockets,
		Groups:   c.limits.BuildGroups,
		Files:    local.Files(c.trust),
		Env:      append(local.TrustEnv(), c.cfg.Proxies...),
		Memory:   limits.StepMemory,
		Pids:     limits.StepPids,
		NewID:    instanceID,
		Now:      c.cfg.Now,
		Log:      c.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	c.onClose(api.Close)
	return &docker{files, api}, nil
}

// registryHosts are the platform's registries.
func registryHosts() (hosts []string) {
	for _, location := range append(resource.Regions(), resource.MultiRegions()...) {
		hosts = append(hosts, artifacts.Host(location))
	}
	return append(hosts, "gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io")
}

// buildToken makes an access token of a build's account.
func (c *Cloud) buildToken(_ context.Context, b builds.Build) (string, error) {
	token, _, err := c.identity.AccessToken(iam.ServiceAccount(b.Account), []string{iam.ScopeCloudPlatform})
	return token, err
}

// keepCaches removes the caches of builds of projects that are gone, and unused ones.
func (c *Cloud) keepCaches() error {
	exists := func(project string) bool {
		_, err := c.projects.Find(project)
		return !fault.Is(err, fault.NotFound) // the store may have another trouble
	}
	return errors.Join(c.dockerfiles.Keep(c.cfg.Now(), exists), c.lifecycle.Keep(c.cfg.Now(), exists))
}

// programs is where BuildKit's programs are looked for when the PATH has none: `make setup` builds them beside the
// mirror.
func (c *Cloud) programs() []string {
	return []string{filepath.Join(filepath.Dir(c.cfg.Mirror), "tools"), "/usr/local/sbin", "/usr/local/bin",
		"/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}
