package cloud

import (
	"context"
	"errors"
	"net/http"

	"github.com/google/uuid"

	"giggle/builds"
	"giggle/builds/buildpack"
	"giggle/builds/dockerfile"
	"giggle/builds/modproxy"
	"giggle/builds/npmproxy"
	"giggle/builds/pack"
	"giggle/builds/source"
	"giggle/builds/steps"
	"giggle/cloud/asbuild"
	"giggle/cloud/garbage"
	"giggle/cloud/limits"
	"giggle/engine"
	"giggle/git"
	"giggle/iam"
	"giggle/metadata"
	"giggle/operation"
	"giggle/resource"
	"giggle/run/scale/local"
)

// What builds may take of this machine, beside their limits.
const (
	buildSlots = 2        // builds at once
	buildDisk  = 20 << 30 // bytes
)

// openBuilds puts the builders together: sources and logs in storage, images in artifacts, modules through the
// platform's own proxy.
func (c *Cloud) openBuilds(ctx context.Context) error {
	c.builds = builds.New(c.store, uuid.NewString)
	c.asBuild = asbuild.New(asbuild.Config{
		Project:    c.projects.Find,
		Identity:   c.identity,
		Storage:    c.storage,
		Artifacts:  c.artifacts,
		Foreign:    c.puller,
		Images:     c.images,
		Repos:      c.repos,
		Blobs:      c.blobs,
		Dir:        c.path("build"), // where sources are unpacked, too
		Writer:     c.disk.Writer,
		Background: c.background.Go,
		Entries:    c.entries,
		Now:        c.cfg.Now,
		Log:        c.cfg.Log,
	})
	c.builds.Quotas = c.quotas
	modules, err := modproxy.New(modproxy.Config{
		Dir:      c.path("cache", "modules"),
		Upstream: orOff(c.cfg.Modules),
		Now:      c.cfg.Now,
		Log:      c.cfg.Log,
		Guard:    c.disk.Writer,
	})
	if err != nil {
		return err
	}
	packages, err := npmproxy.New(npmproxy.Config{
		Dir:      c.path("cache", "npm"),
		Upstream: orOff(c.cfg.Packages),
		Now:      c.cfg.Now,
		Log:      c.cfg.Log,
		Guard:    c.disk.Writer,
	})
	if err != nil {
		return err
	}
	// A build's container finds the proxies beside its metadata server.
	proxies := func(meta http.Handler) http.Handler {
		m := http.NewServeMux()
		m.Handle("/goproxy/", http.StripPrefix("/goproxy", modules))
		m.Handle("/npm/", http.StripPrefix("/npm", packages))
		m.Handle("/", meta)
		return m
	}
	sockets := func(b builds.Build) engine.Sockets { return c.socketsFor(c.buildIdentity(b), proxies) }
	shared := func(b builds.Build) string { return c.path("build", "steps", b.Name.ID) }
	c.lifecycle = pack.New(pack.Config{
		Engine:    c.engine,
		Images:    c.asBuild,
		Manifests: c.images,
		Blobs:     c.blobs,
		Scratch:   shared,
		Caches:    c.path("cache", "buildpacks"),
		Sockets:   sockets,
		Groups:    c.limits.BuildGroups,
		Files:     local.Files(c.trust),
		Env:       append(local.TrustEnv(), c.cfg.Proxies...),
		Memory:    limits.StepMemory,
		Pids:      limits.StepPids,
		Unpacker:  c.unpacker(),
		NewID:     instanceID,
		Now:       c.cfg.Now,
		Log:       c.cfg.Log,
	})
	packs, err := buildpack.New(buildpack.Config{
		Engine:      c.engine,
		Images:      c.images,
		Mirror:      c.foreign,
		Blobs:       c.blobs,
		Dir:         c.path("build"),
		SystemTrust: c.systemTrust,
		Files:       local.Files(c.trust),
		SumDB:       modules.SumDB,
		Online:      c.engine.Online,
		PythonIndex: c.cfg.PythonIndex,
		Unpacker:    c.unpacker(),
		Others:      c.lifecycle,
		NewID:       instanceID,
		Log:         c.cfg.Log,
		Sockets:     sockets,
		Groups:      c.limits.BuildGroups,
	})
	if err != nil {
		return err
	}
	own := make(map[string]func(context.Context, builds.Build) (steps.OwnImage, error))
	steps.AddSDK(own, c.foreign.Get)
	docker, err := c.openDocker(proxies(http.HandlerFunc(dockerfile.NoIdentity)), sockets, shared)
	if err != nil {
		return err
	}
	steps.AddDocker(own, c.foreign.Get)
	steps.AddGit(own, c.foreign.Get, git.CredentialConfig)
	programs := make(map[string]steps.Program)
	for _, name := range pack.Images {
		programs[name] = &pack.CLI{Lifecycle: c.lifecycle, BuiltIn: packs, Push: c.asBuild.Push, Shared: shared}
	}
	c.steps, err = steps.New(steps.Config{
		Engine:   c.engine,
		Images:   c.asBuild,
		Builders: own,
		Programs: programs,
		BuiltIn:  map[builds.Builtin]steps.SourceBuilder{builds.Buildpack: packs, builds.Dockerfile: docker.files},
		Store:    docker.api,
		Docker:   docker.api.Socket,
		Networks: docker.api.StepNetworks,
		Token:    c.buildToken,
		Hosts:    registryHosts(),
		Dir:      c.path("build", "steps"),
		Sockets:  sockets,
		Groups:   c.limits.BuildGroups,
		Files: append(local.Files(c.trust),
			engine.File{Path: git.Helper, Data: []byte(git.HelperScript), Mode: 0o555}),
		Env:      append(local.TrustEnv(), c.cfg.Proxies...),
		Memory:   limits.StepMemory,
		Pids:     limits.StepPids,
		Disk:     buildDisk,
		Admit:    c.disk.Admit,
		Parallel: limits.Steps,
		Unpacker: c.unpacker(),
		NewID:    instanceID,
		Now:      c.cfg.Now,
		Log:      c.cfg.Log,
	})
	if err != nil {
		return err
	}
	c.scheduler = &builds.Scheduler{
		Store:   c.store,
		Sources: c.asBuild,
		Logs:    c.asBuild,
		Images:  c.asBuild,
		Steps:   c.steps,
		Objects: c.asBuild,
		Slots:   buildSlots,
		Begin:   operation.NewAttempts(c.store).Begin,
		Log:     c.cfg.Log,
	}
	c.garbage = garbage.New(garbage.Config{
		Released:    c.released,
		Blobs:       c.blobs,
		Artifacts:   c.artifacts,
		Storage:     c.storage,
		Services:    c.services,
		Images:      c.images,
		Running:     c.engine.Layers,
		OldestBuild: c.builds.Oldest,
		Low:         c.disk.Low,
		Restore:     func() error { return errors.Join(c.ballast.Restore(), c.auditBallast.Restore()) },
		Now:         c.cfg.Now,
		Log:         c.cfg.Log,
	})
	return nil
}

// buildIdentity is whom a build's container is told that it is.
func (c *Cloud) buildIdentity(b builds.Build) metadata.Identity {
	p, err := c.projects.Find(b.Project)
	if err != nil {
		p = resource.Project{ID: b.Project} // the project of a running build is not deleted
	}
	return metadata.Identity{
		ProjectID:     p.ID,
		ProjectNumber: p.Number,
		Region:        b.Name.Location.Location,
		InstanceID:    b.Name.ID,
		Account:       b.Account,
		Scopes:        []string{iam.ScopeCloudPlatform},
	}
}

// unpacker unpacks the sources of builds.
func (c *Cloud) unpacker() source.Unpacker { return source.Unpacker{Binary: c.cfg.Binary} }

// orOff is where packages are fetched from, or "off" where none is said.
func orOff(from func() string) func() string {
	if from == nil {
		return func() string { return "off" }
	}
	return from
}
