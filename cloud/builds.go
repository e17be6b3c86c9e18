package cloud

import (
	"cmp"
	"context"
	"io"
	"net/http"

	"github.com/google/uuid"

	giggleapi "giggle/api/giggle"
	"giggle/api/storagejson"
	"giggle/artifacts"
	"giggle/artifacts/mirror"
	"giggle/builds"
	"giggle/builds/buildpack"
	"giggle/builds/dockerfile"
	"giggle/builds/modproxy"
	"giggle/builds/npmproxy"
	"giggle/builds/source"
	"giggle/builds/steps"
	"giggle/edge"
	"giggle/engine"
	"giggle/fault"
	"giggle/iam"
	"giggle/metadata"
	"giggle/oci"
	"giggle/operation"
	"giggle/resource"
	"giggle/rest"
	"giggle/run/scale/local"
	"giggle/storage"
)

// What builds may take of this machine: builds and steps at once, and what each step and each build may use.
const (
	buildSlots = 2
	stepSlots  = 4
	stepMemory = 4 << 30 // bytes
	stepPids   = 2048
	buildDisk  = 20 << 30 // bytes
)

// openBuilds puts the builders together: sources and logs in storage, images in artifacts, modules through the
// platform's own proxy.
func (c *Cloud) openBuilds(ctx context.Context) error {
	c.builds = builds.New(c.store, uuid.NewString)
	c.builds.Quotas = c.quotas
	modules, err := modproxy.New(modproxy.Config{Dir: c.path("cache", "modules"), Upstream: c.cfg.Modules, Now: c.cfg.Now, Log: c.cfg.Log, Guard: c.disk.Writer})
	if err != nil {
		return err
	}
	packages, err := npmproxy.New(npmproxy.Config{Dir: c.path("cache", "npm"), Upstream: cmp.Or(c.cfg.Packages, "off"), Now: c.cfg.Now, Log: c.cfg.Log, Guard: c.disk.Writer})
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
	packs, err := buildpack.New(buildpack.Config{
		Engine: c.engine, Images: c.images, Mirror: c.foreign, Blobs: c.blobs, Dir: c.path("build"), SystemTrust: c.systemTrust, Files: local.Files(c.trust),
		SumDB: modules.SumDB, Unpacker: c.unpacker(), NewID: instanceID, Log: c.cfg.Log,
		Sockets: sockets, Groups: c.limits.buildGroups,
	})
	if err != nil {
		return err
	}
	own := make(map[string]func(context.Context, builds.Build) (steps.Builder, error))
	steps.AddSDK(own, c.foreign.Get)
	docker, err := c.openDocker(proxies(http.HandlerFunc(dockerfile.NoIdentity)), sockets)
	if err != nil {
		return err
	}
	own[dockerImage] = docker.builder(c.foreign)
	c.steps, err = steps.New(steps.Config{
		Engine: c.engine, Images: docker.stepImages(c.images, stepImages{c, c.foreign}), Builders: own, Dir: c.path("build", "steps"), Files: local.Files(c.trust), Env: local.TrustEnv(),
		Sockets: sockets, Groups: c.limits.buildGroups, Store: docker.api, Unpacker: c.unpacker(),
		Memory: stepMemory, Pids: stepPids, Disk: buildDisk, Admit: c.disk.Admit, Parallel: stepSlots, NewID: instanceID, Now: c.cfg.Now, Log: c.cfg.Log,
	})
	if err != nil {
		return err
	}
	c.scheduler = &builds.Scheduler{
		Store:   c.store,
		Sources: sources{c},
		Logs:    logs{c},
		Images:  pusher{c},
		Builder: sourceBuilder{docker.files, packs, c.disk},
		Steps:   c.steps,
		Objects: objects{c},
		Slots:   buildSlots,
		Begin:   operation.NewAttempts(c.store).Begin,
		Log:     c.cfg.Log,
	}
	return nil
}

// openShell opens a shell in a step of a build that failed. Whoever is in it has the build's identity, so it takes what
// it takes to run a build as that account.
func (c *Cloud) openShell(ctx context.Context, who iam.Principal, id, step string) (giggleapi.Shell, error) {
	sh, err := c.steps.OpenShell(id, step)
	if err != nil {
		return nil, err
	}
	err = c.identity.Authorize(ctx, who, "cloudbuild.builds.create", "projects/"+sh.Build.Project)
	if err == nil {
		var a iam.Account
		if a, err = c.identity.Account(ctx, "-", sh.Build.Account); err == nil {
			err = c.identity.Authorize(ctx, who, "iam.serviceAccounts.actAs", a.Name())
		}
	}
	if err != nil {
		sh.Close()
		return nil, err
	}
	return sh, nil
}

// buildIdentity is whom a build's container is told that it is.
func (c *Cloud) buildIdentity(b builds.Build) metadata.Identity {
	p, err := c.project(b.Project)
	if err != nil {
		p = resource.Project{ID: b.Project} // the project of a running build is not deleted
	}
	return metadata.Identity{
		ProjectID: p.ID, ProjectNumber: p.Number, Region: b.Name.Location.Location, InstanceID: b.Name.ID, Account: b.Account, Scopes: []string{iam.ScopeCloudPlatform},
	}
}

// buildAccount is the account that a project's builds run as.
func buildAccount(p resource.Project) string { return iam.BuildAccount(p.Number) }

// logsSuffix ends the names of the platform's own buckets of logs, after the project's number.
const logsSuffix = ".cloudbuild-logs.googleusercontent.com"

// logsBucket makes sure that the bucket of a project's build logs is there.
func (c *Cloud) logsBucket(ctx context.Context, p resource.Project) (string, error) {
	name := p.Number + logsSuffix
	_, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: name, Project: p.ID, Reserved: true})
	if fault.Is(err, fault.AlreadyExists) {
		var project string
		if project, err = c.storage.BucketProject(ctx, name); err == nil && project != p.ID {
			err = fault.New(fault.FailedPrecondition, "The bucket %s, which the project's build logs go to, is another project's. Name one with --gcs-log-dir.", name)
		}
	}
	return name, err
}

// unpacker unpacks the sources of builds.
func (c *Cloud) unpacker() source.Unpacker { return source.Unpacker{Binary: c.cfg.Binary} }

// sources opens the archives that gcloud uploaded, and commits of repositories, as the build's account.
type sources struct{ c *Cloud }

func (s sources) Open(ctx context.Context, b builds.Build) (io.ReadSeekCloser, int64, error) {
	if b.Source.Repo != nil {
		return s.c.openCommit(ctx, b)
	}
	project, err := s.c.storage.BucketProject(ctx, b.Source.Bucket)
	if err != nil {
		return nil, 0, err
	}
	err = s.c.identity.Authorize(ctx, iam.ServiceAccount(b.Account), "storage.objects.get", "projects/"+project+"/buckets/"+b.Source.Bucket+"/objects/"+b.Source.Object)
	if err != nil {
		return nil, 0, err
	}
	o, r, err := s.c.storage.Open(ctx, b.Source.Bucket, b.Source.Object, b.Source.Generation, storage.Conditions{})
	return r, o.Size, err
}

// pusher names the images that builds make, as the build's account.
type pusher struct{ c *Cloud }

func (p pusher) Push(ctx context.Context, b builds.Build, digest string) error {
	ref, err := artifacts.ParseReference(b.Image)
	if err != nil {
		return err
	}
	if ref.Repository.Project, err = p.c.projectID(ref.Repository.Project); err != nil {
		return err
	}
	account := iam.ServiceAccount(b.Account)
	err = p.c.identity.Authorize(ctx, account, "artifactregistry.repositories.uploadArtifacts", ref.Repository.String())
	if err != nil {
		return err
	}
	// gcr.io has no repositories to be made beforehand: the first push makes it.
	if artifacts.IsLegacy(ref.Repository) && p.c.identity.Allowed(account, "artifactregistry.repositories.createOnPush", "projects/"+ref.Repository.Project) {
		if err := p.c.artifacts.CreateOnPush(ctx, ref.Repository); err != nil {
			return err
		}
	}
	if err := p.c.artifacts.Push(ctx, b.Image, digest); err != nil {
		return err
	}
	// What was built is about to be deployed: its layers are unpacked by the time that the client asks for it.
	p.c.background.Go(func() {
		if _, err := p.c.images.Unpack(context.WithoutCancel(ctx), digest); err != nil {
			p.c.cfg.Log.Warn("unpack a new image", "image", b.Image, "err", err)
		}
	})
	return nil
}

// stepImages finds the images of steps: in the platform's repositories, as the build's account, or in the mirror.
type stepImages struct {
	c       *Cloud
	foreign *mirror.Mirror
}

func (s stepImages) Image(ctx context.Context, b builds.Build, name string) (oci.Image, error) {
	ref, err := artifacts.ParseReference(name)
	if err != nil || artifacts.IsLegacy(ref.Repository) && ref.Repository.Project != b.Project { // another project's gcr.io is foreign
		return s.mirrored(name)
	}
	if ref.Repository.Project, err = s.c.projectID(ref.Repository.Project); err != nil {
		return oci.Image{}, err
	}
	err = s.c.identity.Authorize(ctx, iam.ServiceAccount(b.Account), "artifactregistry.repositories.downloadArtifacts", ref.Repository.String())
	if err != nil {
		return oci.Image{}, err
	}
	m, err := s.c.artifacts.Manifest(ctx, ref)
	if err != nil {
		return oci.Image{}, err
	}
	return s.c.images.Unpack(ctx, string(m.Digest))
}

// mirrored finds a foreign image by any of the names that Docker has for it.
func (s stepImages) mirrored(name string) (oci.Image, error) {
	familiar, err := mirror.Familiar(name)
	if err != nil {
		return oci.Image{}, err
	}
	img, err := s.foreign.Get(familiar)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "the image %s is not on this machine: the mirror of foreign images has none of that name (`giggle images add`)", familiar)
	}
	return img, err
}

// objects takes the files that builds make, as the build's account.
type objects struct{ c *Cloud }

func (o objects) Put(ctx context.Context, b builds.Build, bucket, object string, r io.Reader) (int64, error) {
	replace, err := o.c.mayWrite(ctx, b, bucket, object)
	if err != nil {
		return 0, err
	}
	made, err := o.c.storage.Put(ctx, storage.Insert{Bucket: bucket, Name: object, MayReplace: replace}, r)
	return made.Generation, err
}

// mayWrite fails when a build's account may not create an object. What it returns asks whether it may replace one.
func (c *Cloud) mayWrite(ctx context.Context, b builds.Build, bucket, object string) (replace func() error, err error) {
	project, err := c.storage.BucketProject(ctx, bucket)
	if err != nil {
		return nil, err
	}
	on := "projects/" + project + "/buckets/" + bucket + "/objects/" + object
	who := iam.ServiceAccount(b.Account)
	replace = func() error { return c.identity.Authorize(ctx, who, "storage.objects.delete", on) }
	return replace, c.identity.Authorize(ctx, who, "storage.objects.create", on)
}

// logs keeps build logs as objects that grow.
type logs struct{ c *Cloud }

type logObject struct {
	*storage.Log
	ctx context.Context
}

func (l logObject) Close() error { return l.Log.Close(l.ctx) }

// noLog is the log of a build that keeps none.
type noLog struct{ io.Writer }

func (noLog) Close() error { return nil }

func (l logs) Create(ctx context.Context, b builds.Build) (io.WriteCloser, error) {
	if b.LogsIn == "" {
		return noLog{io.Discard}, nil
	}
	p, err := l.c.project(b.Project)
	if err != nil {
		return nil, err
	}
	in := storage.Insert{Bucket: b.LogsIn, Name: b.LogObject(), Attrs: storage.Attrs{ContentType: "text/plain; charset=utf-8"}}
	if b.LogsIn != p.Number+logsSuffix { // a bucket that the user named
		if in.MayReplace, err = l.c.mayWrite(ctx, b, b.LogsIn, b.LogObject()); err != nil {
			return nil, err
		}
	}
	log, err := l.c.storage.CreateLog(ctx, in)
	if err != nil {
		return nil, err
	}
	return logObject{log, context.WithoutCancel(ctx)}, nil
}

// registerStorage adds the storage API's routes.
func (c *Cloud) registerStorage(m *rest.Mux) {
	storagejson.New(storagejson.Config{
		Storage: c.storage, Pages: c.pages, Allow: c.allowOnObject, Policies: c.identity, Base: edge.Base,
		Project: c.projects.Find,
	}).Register(m)
}
