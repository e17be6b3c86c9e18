// Package cloud puts a platform together: it is the one place that knows every part, and it decides nothing.
//
// cmd/giggle and the tests start platforms with it. What a part does is the part's own package; here is only what is
// given to which constructor, and in which order things start and stop.
package cloud

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"giggle/api/giggle"
	"giggle/artifacts"
	"giggle/artifacts/mirror"
	"giggle/blob"
	"giggle/builds"
	"giggle/builds/dockerfile"
	"giggle/builds/pack"
	"giggle/builds/steps"
	"giggle/builds/trigger"
	"giggle/cloud/asbuild"
	"giggle/cloud/datadir"
	"giggle/cloud/dataplane"
	"giggle/cloud/garbage"
	"giggle/cloud/limits"
	"giggle/disk"
	"giggle/edge"
	"giggle/engine"
	"giggle/engine/egress"
	"giggle/fault"
	"giggle/gateway"
	"giggle/gateway/upstream"
	"giggle/git"
	"giggle/hostports"
	"giggle/iam"
	"giggle/logging"
	"giggle/logging/audit"
	"giggle/oci"
	"giggle/operation"
	"giggle/projects"
	"giggle/quota"
	"giggle/resource"
	"giggle/run"
	"giggle/run/scale"
	"giggle/run/scale/local"
	"giggle/secrets"
	"giggle/shell"
	"giggle/sql"
	"giggle/storage"
	"giggle/store"
	"giggle/vertex/serving"
)

// Config says what platform to run.
type Config struct {
	Data   string // directory of everything that is kept
	Mirror string // directory of foreign images, shared by platforms
	// Pulls says whether foreign images that are not there are fetched; never, where it is zero.
	Pulls   mirror.Policy
	Project string // id of the first project, made when there is none
	Owner   string // e-mail address of the owner
	// ProjectCreators are the members, as policies write them, who may make projects besides the owner.
	ProjectCreators []string
	OwnerUIDs       []int  // local users who are the owner; root always is
	Address         string // loopback address of the platform
	HTTPSPort       int    // of Address; 0 for any
	HTTPPort        int
	DNSPort         int
	Console         string           // HOST:PORT of the console
	Edge            string           // HOST:PORT of the plain edge and the CONNECT proxy
	HostPorts       []hostports.Port // of this machine that instances reach
	Runtime         string           // OCI runtime, "" for the first that works
	// giggle's own program: language models' processes and the runtime of RUN steps are started from it; "" for this
	// one, which then builds no Dockerfiles
	Binary string
	// services that want a GPU of which there is none run on the CPU, with a condition that says so
	EmulateGPUs bool
	GPUAliases  []run.GPUAlias
	Devices     string   // directory in whose proc/ the GPU driver's list lies; "" for the machine's own
	CDI         []string // directories of CDI specs; nil for the usual ones
	// ModelRequests is how many requests a project may make of one language model in a minute; 0 for any number.
	ModelRequests int
	Quotas        map[string]int // of package quota, in place of the usual ones
	Idle          time.Duration  // how long an instance without requests stays
	// prepared instances for services at zero; negative for one for each 128 MiB of the machine's memory, 128 at most
	Prepared int
	Memory   int64         // bytes that all instances may use together; 0 for four fifths of the machine's
	Modules  func() string // GOPROXY list that builds' modules are fetched from; nil for none
	// PythonIndex is the URL of the index that builds' Python packages are fetched from; "" for pip's own.
	PythonIndex string
	Packages    func() string // URL of the npm registry that builds' packages are fetched from, or "off"; nil for none
	// Proxies are the variables by which builds find the machine's proxies, NAME=VALUE.
	Proxies []string
	// Egress is what containers reach of the outside; nil for nothing.
	Egress  *egress.Config
	Version string
	Log     *slog.Logger
	Now     func() time.Time
	// Discovery is a directory with Google's discovery documents, the Go module google.golang.org/api: the log says
	// where an answer is not as they say. "" is none: it is for tests.
	Discovery string
	// Step is told of each step of every write to the store and to the blobs, for tests that end the process there; it
	// may be nil.
	Step func(step string)
}

// Cloud is one platform. Its parts, and who calls whom:
//
//	       gcloud, docker, browsers, instances
//	                    │ TLS, DNS, CONNECT
//	             ┌──────▼──────┐
//	             │    edge     │  by host
//	             └┬────┬─────┬─┘
//	 *.googleapis │    │     │ *.run.app
//	     ┌────────▼─┐  │  ┌──▼──────┐   Acquire   ┌───────┐  Prepare  ┌───────┐   ┌────────┐
//	     │ rest     │  │  │ gateway ├────────────►│ scale ├──────────►│ local ├──►│ engine │
//	     │ + guard  │  │  └──▲──────┘             └───▲───┘           └───┬───┘   └───▲────┘
//	     └────┬─────┘  │     │ Publish                │ EnsureInstance    │           │
//	     ┌────▼─────┐  │  ┌──┴──────────┐  intent  ┌──┴──────┐        ┌───▼───┐   ┌───┴───┐
//	     │ api/…    ├──┼─►│ run         ├─────────►│ run     │        │ oci   │◄──┤ build │
//	     └────┬─────┘  │  │ .Services   │          │.Reconc. │        └───┬───┘   └───▲───┘
//	          │        │  └──┬──────────┘          └──┬──────┘            │           │
//	storage, artifacts,│     │                        │               ┌───▼──┐        │
//	iam, projects, …   └─────┼──►artifacts/registry───┼──────────────►│ blob │◄── storage
//	                         └────────► store ◄───────┘               └──────┘
type Cloud struct {
	cfg Config

	quotas *quota.Limits
	// incoming is what projects are sending.
	incoming *quota.Bytes
	disk     *disk.Disk
	ballast  *disk.Ballast // of the store
	// auditBallast is that of the audit log.
	auditBallast *disk.Ballast
	auditMost    int64 // bytes that its entries of what was done may take
	released     *garbage.Released
	garbage      *garbage.Collector
	store        *store.Store
	audit        *audit.Log
	blobs        *blob.Dir
	identity     *iam.IAM
	projects     *projects.Projects
	operations   *operation.Operations
	pages        *resource.Pages
	storage      *storage.Storage
	artifacts    *artifacts.Artifacts
	foreign      *mirror.Mirror
	puller       *mirror.Puller // of foreign images that nobody added
	images       *oci.Images
	engine       *engine.Engine
	limits       limits.Limits
	models       *serving.Serving
	api          *giggle.Server // the platform's own
	owners       giggle.Owners
	sessions     shell.Sessions
	entries      *logging.Ring // of requests, containers and builds
	scaler       *scale.Scaler
	gateway      *gateway.Gateway
	services     *run.Services
	reconciler   *run.Reconciler
	repos        *git.Repos
	builds       *builds.Builds
	// dockerfiles builds what has a Dockerfile.
	dockerfiles *dockerfile.Builder
	// lifecycle builds sources with Cloud Native Buildpacks.
	lifecycle *pack.Lifecycle
	asBuild   *asbuild.Access
	secrets   *secrets.Secrets
	steps     *steps.Runner
	scheduler *builds.Scheduler
	triggers  *trigger.Triggers

	ca          *edge.CA
	systemTrust []byte // the system's certificates, PEM
	trust       []byte // those and ours
	router      *edge.Router
	server      *edge.Server
	inner       *edge.DNS // answers inside instances
	innerHost   *edge.DNS // and inside those that reach ports of this machine
	hostPorts   hostports.Ports
	databases   *sql.Instances
	databaseCA  *sql.CA
	proxy       *sql.Proxy // of the databases
	// databaseHost is where connectors outside containers find them.
	databaseHost *sql.Host

	listeners
	background sync.WaitGroup // work that nobody waits for until the end
	closers    []func() error // what to undo, last first
}

// New opens a platform's data directory and puts its parts together. Nothing listens and nothing runs yet.
func New(ctx context.Context, cfg Config) (_ *Cloud, err error) {
	c := &Cloud{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.undo())
		}
	}()
	release, err := datadir.Lock(cfg.Data)
	if err != nil {
		return nil, err
	}
	c.onClose(release)
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"state", c.openState},
		{"trust", c.openTrust},
		{"projects", c.openProjects},
		{"images", c.openImages},
		{"engine", c.openEngine},
		{"databases", c.openDatabases},
		{"services", c.openServices},
		{"git", c.openGit},
		{"names", c.openNames},
		{"builds", c.openBuilds},
		{"triggers", c.openTriggers},
		{"models", c.openModels},
		{"socket", c.openSocket},
		{"edge", c.openEdge},
	} {
		start := time.Now()
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		cfg.Log.Debug("opened", "part", step.name, "in", time.Since(start).Round(time.Millisecond))
	}
	return c, nil
}

// onClose remembers how to undo a step.
func (c *Cloud) onClose(undo func() error) { c.closers = append(c.closers, undo) }

func (c *Cloud) undo() error {
	var errs []error
	for i := len(c.closers) - 1; i >= 0; i-- {
		errs = append(errs, c.closers[i]())
	}
	c.closers = nil
	return errors.Join(errs...)
}

func (c *Cloud) path(elem ...string) string {
	return filepath.Join(append([]string{c.cfg.Data}, elem...)...)
}

func (c *Cloud) openState(ctx context.Context) (err error) {
	if c.quotas, err = quota.New(c.cfg.Quotas); err != nil {
		return err
	}
	if err := c.openDisk(); err != nil {
		return err
	}
	c.store, err = store.New(ctx, store.Config{
		File:  c.path("state", "giggle.db"),
		Now:   c.cfg.Now,
		Admit: c.disk.AdmitRows,
		Grown: c.quotas.AdmitSum,
		Full:  c.ballast.Drop,
		Step:  c.cfg.Step,
	})
	if err != nil {
		return err
	}
	c.onClose(c.store.Close)
	if c.audit, err = audit.Open(audit.Config{
		Dir:     c.path("audit"),
		Now:     c.cfg.Now,
		Most:    c.auditMost,
		Journal: c.store,
		Full:    c.auditBallast.Drop,
	}); err != nil {
		return err
	}
	c.onClose(c.audit.Close)
	if c.blobs, err = blob.Open(c.path("blobs")); err != nil {
		return err
	}
	c.blobs.Guard(c.disk.Admit)
	if c.cfg.Step != nil {
		c.blobs.Steps(c.cfg.Step)
	}
	c.incoming = quota.NewBytes(c.quotas, c.stored, c.blobs.HasUpload)
	if c.identity, err = iam.New(ctx, iam.Config{
		Store:           c.store,
		Owner:           c.cfg.Owner,
		ProjectCreators: c.cfg.ProjectCreators,
		Governed: []iam.Governed{
			{Collection: "services", Kind: run.ServiceKind},
			{Collection: "repositories", Kind: artifacts.RepositoryKind},
			{Collection: "repos", Kind: git.RepoKind},
			{Collection: "buckets", Kind: storage.BucketKind, Row: path.Base, Name: storage.BucketName},
		},
		Now:    c.cfg.Now,
		Random: rand.Reader,
		Quotas: c.quotas,
	}); err != nil {
		return err
	}
	c.operations = operation.New(c.store)
	c.pages = resource.NewPages(c.identity.PageKey(), c.cfg.Now)
	return nil
}

// stored is how many bytes a project has in its buckets and repositories.
func (c *Cloud) stored(ctx context.Context, project string) (n int64, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		n, err = store.Sum(tx, quota.Stored(project))
		return err
	})
	return n, err
}

// openProjects opens the projects and makes the first one where there is none.
func (c *Cloud) openProjects(ctx context.Context) (err error) {
	if c.projects, err = projects.New(ctx, projects.Config{
		Store:   c.store,
		Now:     c.cfg.Now,
		Quotas:  c.quotas,
		Created: c.identity.CreateDefaults,
	}); err != nil {
		return err
	}
	if _, err := c.projects.Get(c.cfg.Project); !fault.Is(err, fault.NotFound) {
		return err
	}
	_, err = c.projects.Create(ctx, projects.Project{ID: c.cfg.Project}, c.identity.Owner().Member)
	return err
}

func (c *Cloud) openEngine(ctx context.Context) (err error) {
	_, whole, err := local.Memory()
	if err != nil {
		return err
	}
	c.limits = limits.Of(c.cfg.Memory, whole)
	c.engine, err = engine.Open(ctx, engine.Config{
		Dir:     c.path("engine"),
		Runtime: c.cfg.Runtime,
		Log:     c.cfg.Log,
		Now:     c.cfg.Now,
		CDI:     c.cfg.CDI,
		Memory:  c.limits.All,
		Egress:  c.cfg.Egress,
	})
	if err != nil {
		return err
	}
	c.onClose(c.engine.Close)
	return nil
}

// startsPerCore is how many instances start at once on each core. More does not bring the last of a hundred forward,
// but makes the first ones late (docs/measurements/0007-instances.md).
const startsPerCore = 1

// What is kept in memory of the log entries of a project's services, and as much of those of its builds.
const (
	logEntries = 20_000
	logBytes   = 16 << 20
)

func (c *Cloud) openServices(context.Context) error {
	if err := os.RemoveAll(c.path("logs")); err != nil { // files of a version before, which nothing reads
		return err
	}
	c.entries = logging.NewRing(logEntries, logBytes)
	backend := local.New(local.Config{
		Engine:  c.engine,
		Images:  c.images,
		Project: c.projects.Find,
		Account: iam.RuntimeAccount,
		Sockets: c.sockets,

		Databases: c.databaseSockets,
		Trust:     c.trust,
		NewID:     instanceID,
		Log:       c.entries,
		Now:       c.cfg.Now,
	})
	gpus := dataplane.GPUs{
		Emulate: c.cfg.EmulateGPUs,
		Aliases: c.cfg.GPUAliases,
		Devices: c.cfg.Devices,
		CDI:     c.cfg.CDI,
		Log:     c.cfg.Log,
	}.Find()
	_, whole, err := local.Memory()
	if err != nil {
		return err
	}
	c.scaler = scale.New(scale.Config{
		Backend:   backend,
		Max:       run.DefaultMaxScale,
		GPUs:      gpus,
		Prepared:  prepared(c.cfg.Prepared, whole),
		Idle:      c.cfg.Idle,
		Starts:    startsPerCore * runtime.NumCPU(),
		Memory:    c.limits.Serving,
		Free:      local.Memory,
		Transport: gateway.Transport,
		Probe:     upstream.Probe,
		Now:       c.cfg.Now,
		Log:       c.cfg.Log,
	})
	c.gateway = gateway.New(gateway.Config{
		Instances: c.scaler,
		Invoker:   c.identity,
		Active:    c.projects.Active,
		Recorder:  c.entries,
		Now:       c.cfg.Now,
		Log:       c.cfg.Log,
	})
	c.services = run.NewServices(run.Config{
		Store:   c.store,
		NewID:   uuid.NewString,
		Letters: letters,
		GPUs:    gpus,
		Quotas:  c.quotas,

		Databases: c.databases,
		DefaultAccount: func(project string) (string, error) {
			p, err := c.projects.Find(project)
			return iam.ComputeAccount(p.Number), err
		},
	})
	c.reconciler = run.NewReconciler(run.ReconcilerConfig{
		Services: c.services,
		Images: dataplane.Images{
			Artifacts: c.artifacts,
			Foreign:   c.puller,
			Blobs:     c.blobs,
			Project:   c.projects.Find,
		},
		Instances: dataplane.Instances{Scaler: c.scaler, Attempts: operation.NewAttempts(c.store)},
		Routes:    dataplane.Routes{Gateway: c.gateway, Scaler: c.scaler},
		Project:   c.projects.Find,
		Log:       c.cfg.Log,
	})
	return nil
}

// prepared is how many prepared instances are kept: as many as was said, else at most 1 % of the machine's memory of
// them, since each takes 1.3 MB.
func prepared(said int, whole int64) int {
	if said >= 0 {
		return said
	}
	return int(min(whole>>27, 128))
}

// instanceID makes ids of instances.
func instanceID() string { return "i" + strings.ReplaceAll(uuid.NewString(), "-", "") }

// letters makes n random lower-case letters, for revision names.
func letters(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand since Go 1.24)
	for i := range b {
		b[i] = 'a' + b[i]%26
	}
	return string(b)
}

// openModels opens the files of models and the table of their backends.
func (c *Cloud) openModels(ctx context.Context) (err error) {
	if c.cfg.Binary == "" {
		if c.cfg.Binary, err = os.Executable(); err != nil {
			return err
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.ca.CertPEM())
	c.models, err = serving.Open(ctx, serving.Config{
		Dir:       c.path("models"),
		Store:     c.store,
		Main:      c.cfg.Project,
		Binary:    c.cfg.Binary,
		PerMinute: c.cfg.ModelRequests,
		Writer:    c.disk.Writer,
		Project:   c.projects.Find,
		Secrets:   c.secrets,
		Identity:  c.identity,
		ServiceURL: func(p resource.Project, service resource.Child) string {
			hashed, _ := run.URLs(p, service)
			return hashed
		},
		Edge:  func() string { return c.https.Addr().String() },
		Roots: roots,
		Now:   c.cfg.Now,
		Log:   c.cfg.Log,
	})
	if err == nil {
		c.onClose(c.models.Close)
	}
	return err
}

// find returns the project of a resource, and its id in policies' names.
func (c *Cloud) find(ctx context.Context, collection, id string) (project, canonical string, err error) {
	switch collection {
	case "serviceAccounts":
		return c.identity.AccountNames(ctx, id)
	case "buckets":
		project, err = c.storage.BucketProject(ctx, id)
		return project, id, err
	}
	return "", "", fault.New(fault.InvalidArgument, "A name of %q needs its project.", collection)
}

// metadataTokens makes the tokens of the metadata server.
type metadataTokens struct{ *iam.IAM }

func (t metadataTokens) AccessToken(_ context.Context, account string, scopes []string) (string, time.Time, error) {
	return t.IAM.AccessToken(iam.ServiceAccount(account), scopes)
}

func (t metadataTokens) IDToken(_ context.Context, account, audience string) (string, error) {
	return t.IAM.IDToken(iam.ServiceAccount(account), audience)
}
