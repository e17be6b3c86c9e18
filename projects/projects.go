// Package projects keeps the platform's projects: id and number, life cycle, and which services (APIs) are enabled.
//
// Resource Manager and Service Usage are its wire forms, and every API asks it whether it is enabled. It knows no
// policies: those are in package iam.
package projects

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"giggle/catalog"
	"giggle/fault"
	"giggle/quota"
	"giggle/resource"
	"giggle/store"
)

// Project is one project.
type Project struct {
	ID      string // 6 to 30 characters, chosen by its maker
	Number  string // 12 digits
	Name    string // for people
	Parent  string // what its maker says that it is below: "folders/1", "organizations/2"; Giggle has neither
	Labels  map[string]string
	Enabled []string // services such as "run.googleapis.com", sorted
	Created time.Time
	Deleted time.Time // when its deletion was asked for; zero for one that is active
}

var projectName = regexp.MustCompile(`^[\p{L}\p{N}'" !-]{4,30}$`)

var parentName = regexp.MustCompile(`^(folders|organizations)/[0-9]{1,25}$`)

// Validate checks what people may choose of a project: its name ("4 to 30 characters. Allowed characters are: lowercase
// and uppercase letters, numbers, hyphen, single-quote, double-quote, space, and exclamation point") and its labels.
func (p Project) Validate() error {
	if !projectName.MatchString(p.Name) {
		return fault.Invalid("project.name",
			"%.60q is not 4 to 30 letters, digits, hyphens, quotes, spaces and exclamation points", p.Name)
	}
	if p.Parent != "" && !parentName.MatchString(p.Parent) {
		return fault.Invalid("project.parent", "%.60q is not a folder or an organization by its number", p.Parent)
	}
	return resource.CheckLabels(p.Labels, "project.labels")
}

// Active reports whether the project is not marked for deletion.
func (p Project) Active() bool { return p.Deleted.IsZero() }

var table = store.NewTable[Project]("projects.project", "Project")

// Projects is all projects of a platform. Look-ups read memory only.
type Projects struct {
	quotas *quota.Limits
	store  *store.Store
	now    func() time.Time
	write  sync.Mutex
	all    atomic.Pointer[map[string]Project] // by id and by number
	// created runs in the transaction that makes a project: the accounts that Google manages in one, and its first
	// policy.
	created func(tx *store.Tx, project, number, owner string) error
}

// Config is what New needs.
type Config struct {
	Store  *store.Store
	Now    func() time.Time
	Quotas *quota.Limits // nil is the usual ones
	// Created is called in the transaction that makes a project: the accounts that Google manages in one, and its first
	// policy.
	Created func(tx *store.Tx, project, number, owner string) error
}

// New reads the projects in the store.
func New(ctx context.Context, cfg Config) (_ *Projects, err error) {
	defer fault.Wrap(&err, "projects.New")
	p := &Projects{quotas: cfg.Quotas, store: cfg.Store, now: cfg.Now, created: cfg.Created}
	all := make(map[string]Project)
	err = cfg.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := table.List(tx, "", "", 0)
		for _, r := range rows {
			all[r.Value.ID], all[r.Value.Number] = r.Value, r.Value
		}
		return err
	})
	p.all.Store(&all)
	return p, err
}

// Get returns the project with that id or number, or NotFound.
func (p *Projects) Get(ref string) (Project, error) {
	if x, ok := (*p.all.Load())[ref]; ok {
		return x, nil
	}
	e := fault.New(fault.NotFound, "Project %q was not found. `gcloud projects list` shows those that there are.", ref)
	return Project{}, e
}

// Find is Get for those who need to know no more than the names of a project.
func (p *Projects) Find(ref string) (resource.Project, error) {
	x, err := p.Get(ref)
	return resource.Project{ID: x.ID, Number: x.Number}, err
}

// List returns all projects by id.
func (p *Projects) List() []Project {
	seen := make(map[string]Project)
	for _, x := range *p.all.Load() {
		seen[x.ID] = x
	}
	return slices.SortedFunc(maps.Values(seen), func(a, b Project) int { return strings.Compare(a.ID, b.ID) })
}

// IDs returns the ids of all projects, sorted.
func (p *Projects) IDs() []string {
	var out []string
	for _, x := range p.List() {
		out = append(out, x.ID)
	}
	return out
}

// Create makes a project with everything enabled that a new one has, and with an owner, a member as policies write it.
// Of x, the id, the name ("" is the id), the parent and the labels count. It fails with InvalidArgument on a bad id and
// with AlreadyExists.
func (p *Projects) Create(ctx context.Context, x Project, owner string) (_ Project, err error) {
	defer fault.Wrap(&err, "projects.Create(%s)", x.ID)
	id := x.ID
	if !resource.ProjectID(id) {
		return Project{}, fault.Invalid("project.projectId",
			"%q is not 6 to 30 lower-case letters, digits and hyphens that start with a letter", id)
	}
	x = Project{
		ID:      id,
		Number:  numberOf(id),
		Name:    cmp.Or(x.Name, id),
		Parent:  x.Parent,
		Labels:  x.Labels,
		Created: p.now().UTC(),
	}
	if err := x.Validate(); err != nil {
		return Project{}, err
	}
	x.Enabled = catalog.Hosts() // sorted
	p.write.Lock()
	defer p.write.Unlock()
	for n := x.Number; ; {
		if _, taken := (*p.all.Load())[n]; !taken {
			x.Number = n
			break
		}
		i, _ := strconv.ParseInt(n, 10, 64) // digits by construction
		n = fmt.Sprintf("%012d", i%900_000_000_000+100_000_000_001)
	}
	err = p.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := table.Create(tx, id, x); err != nil {
			return err
		}
		have, err := table.Count(tx, "")
		if err != nil {
			return err
		}
		if err := p.quotas.Admit(quota.Projects, "this platform", have-1); err != nil {
			return err
		}
		return p.created(tx, x.ID, x.Number, owner)
	})
	if err != nil {
		return Project{}, err
	}
	p.publish(x)
	return x, nil
}

// Update changes a project. It fails with NotFound and with what change fails with.
func (p *Projects) Update(ctx context.Context, ref string, change func(*Project) error) (_ Project, err error) {
	defer fault.Wrap(&err, "projects.Update(%s)", ref)
	p.write.Lock()
	defer p.write.Unlock()
	x, err := p.Get(ref)
	if err != nil {
		return Project{}, err
	}
	err = p.store.Update(ctx, func(tx *store.Tx) error {
		row, err := table.Get(tx, x.ID)
		if err != nil {
			return err
		}
		if err := change(&row.Value); err != nil {
			return err
		}
		row, err = table.Update(tx, row)
		x = row.Value
		return err
	})
	if err != nil {
		return Project{}, err
	}
	p.publish(x)
	return x, nil
}

// Delete marks a project for deletion. Nothing of it can be used any more, and nothing of it is lost: Undelete brings
// it back. It fails with NotFound, and with FailedPrecondition for one that is marked already.
func (p *Projects) Delete(ctx context.Context, ref string) (Project, error) {
	return p.Update(ctx, ref, func(x *Project) error {
		if !x.Active() {
			return fault.New(fault.FailedPrecondition, "Project %q is marked for deletion already.", x.ID)
		}
		x.Deleted = p.now().UTC()
		return nil
	})
}

// Undelete makes a project active again that is marked for deletion. It fails with NotFound, and with
// FailedPrecondition for one that is active.
func (p *Projects) Undelete(ctx context.Context, ref string) (Project, error) {
	return p.Update(ctx, ref, func(x *Project) error {
		if x.Active() {
			return fault.New(fault.FailedPrecondition, "Project %q is not marked for deletion.", x.ID)
		}
		x.Deleted = time.Time{}
		return nil
	})
}

// Active reports whether there is a project that is not marked for deletion.
func (p *Projects) Active(ref string) bool {
	x, ok := (*p.all.Load())[ref]
	return ok && x.Active()
}

// numberOf derives a project's 12-digit number from its id, so that a platform that is made again for the same id has
// the same service URLs.
func numberOf(id string) string {
	h := sha256.Sum256([]byte("giggle project number\x00" + id))
	return strconv.FormatUint(100_000_000_000+binary.BigEndian.Uint64(h[:8])%900_000_000_000, 10)
}

func (p *Projects) publish(x Project) {
	next := maps.Clone(*p.all.Load())
	next[x.ID], next[x.Number] = x, x
	p.all.Store(&next)
}

// Service is one API in one project.
type Service struct {
	Project Project
	Name    string // "run.googleapis.com"
	Title   string
	Enabled bool
	Served  bool // by this platform; one that isn't can be enabled, so that scripts for Google Cloud go on
}

func serviceOf(x Project, name string) Service {
	api, served := catalog.Switch(name)
	s := Service{
		Project: x,
		Name:    name,
		Title:   api.Title,
		Enabled: api.Always || slices.Contains(x.Enabled, cmp.Or(api.Host, name)),
		Served:  served,
	}
	if !served {
		s.Title = name + " (not served by Giggle)"
	}
	return s
}

// Service returns the state of a service in a project. It fails with NotFound for a name that no API of Google's has.
func (p *Projects) Service(project, name string) (Service, error) {
	x, err := p.Get(project)
	if err != nil {
		return Service{}, err
	}
	if err := checkService(name); err != nil {
		return Service{}, err
	}
	return serviceOf(x, name), nil
}

// resourceManager is the API that projects are deleted and brought back with.
const resourceManager = "cloudresourcemanager.googleapis.com"

var serviceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,60}\.googleapis\.com$`)

// checkService fails with NotFound for a name that can't be one of an API of Google's, and for one that is likely a
// mistyped one of an API that is served here.
func checkService(name string) error {
	if _, ok := catalog.Switch(name); ok {
		return nil
	}
	if !serviceName.MatchString(name) {
		return fault.New(fault.NotFound,
			"Service %.100q is not one of Google Cloud. `gcloud services list --available` shows those that Giggle serves.", name)
	}
	for _, host := range catalog.Hosts() {
		if oneLetterAway(name, host) {
			return fault.New(fault.NotFound, "Service %q is not one of Google Cloud. Did you mean %s?", name, host)
		}
	}
	return nil
}

// oneLetterAway reports whether one letter more, less, or another one makes a of b.
func oneLetterAway(a, b string) bool {
	if len(a) < len(b) {
		a, b = b, a
	}
	i := 0
	for i < len(b) && a[i] == b[i] {
		i++
	}
	switch len(a) - len(b) {
	case 0:
		return i < len(b) && a[i+1:] == b[i+1:]
	case 1:
		return a[i+1:] == b[i:]
	}
	return false
}

// Services returns every service that Giggle has, and those that were enabled beside them, by name, as they are in the
// project.
func (p *Projects) Services(project string) ([]Service, error) {
	x, err := p.Get(project)
	if err != nil {
		return nil, err
	}
	names := append(catalog.Hosts(), x.Enabled...)
	for _, api := range catalog.All() {
		names = append(names, api.Parts...)
	}
	slices.Sort(names)
	var out []Service
	for _, name := range slices.Compact(names) {
		out = append(out, serviceOf(x, name))
	}
	return out, nil
}

// maxForeign is how many services a project may have enabled that are not served here.
const maxForeign = 500

// SetEnabled enables or disables services in a project, all of them or none. It fails with NotFound for a name that is
// no API's and with FailedPrecondition on disabling what a project can't be without.
func (p *Projects) SetEnabled(ctx context.Context, project string, enabled bool, names ...string) (Project, error) {
	names = slices.Clone(names)
	for i, n := range names {
		if err := checkService(n); err != nil {
			return Project{}, err
		}
		api, _ := catalog.Switch(n)
		names[i] = cmp.Or(api.Host, n)
		if api.Always && !enabled {
			return Project{}, fault.New(fault.FailedPrecondition,
				"Service %q can't be disabled: a project could not be managed without it.", n)
		}
	}
	return p.Update(ctx, project, func(x *Project) error {
		on := make(map[string]bool)
		for _, n := range x.Enabled {
			on[n] = true
		}
		for _, n := range names {
			on[n] = enabled
		}
		x.Enabled = nil
		for _, n := range slices.Sorted(maps.Keys(on)) {
			if on[n] {
				x.Enabled = append(x.Enabled, n)
			}
		}
		if len(x.Enabled) > len(catalog.Hosts())+maxForeign {
			return fault.New(fault.ResourceExhausted, "Project %q has too many services enabled that Giggle doesn't serve.", x.ID)
		}
		return nil
	})
}

// CheckEnabled fails with PermissionDenied and reason SERVICE_DISABLED, in Service Usage's words, when the service is
// not enabled in the project, and with reason CONSUMER_INVALID when the project is marked for deletion.
func (p *Projects) CheckEnabled(project, service string) error {
	x, err := p.Get(project)
	if err != nil {
		return err
	}
	if !x.Active() && service != resourceManager { // which brings it back
		e := fault.New(fault.PermissionDenied, "Project %s has been deleted. `gcloud projects undelete %s` brings it back.", x.ID, x.ID)
		e.Reason, e.Domain = "CONSUMER_INVALID", "googleapis.com"
		e.Metadata = map[string]string{"service": service, "consumer": "projects/" + x.Number}
		return e
	}
	api, _ := catalog.Find(service)
	if api.Always || slices.Contains(x.Enabled, service) {
		return nil
	}
	url := "https://console.developers.google.com/apis/api/" + service + "/overview?project=" + x.ID
	e := fault.New(fault.PermissionDenied,
		"%s has not been used in project %s before or it is disabled. Enable it with `gcloud services enable %s --project %s`, then retry.",
		service, x.ID, service, x.ID)
	e.Reason, e.Domain = "SERVICE_DISABLED", "googleapis.com"
	e.Metadata = map[string]string{"service": service, "consumer": "projects/" + x.Number, "activationUrl": url,
		"containerInfo": x.Number, "serviceTitle": api.Title}
	e.Help = []fault.Link{{Description: "Google developers console API activation", URL: url}}
	return e
}
