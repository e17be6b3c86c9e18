// Package projects keeps the platform's projects: id and number, life cycle, and which services (APIs) are enabled.
//
// Resource Manager and Service Usage are its wire forms, and every API asks it whether it is enabled. It knows no
// policies: those are in package iam.
package projects

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
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
	Labels  map[string]string
	Enabled []string // services such as "run.googleapis.com", sorted
	Created time.Time
}

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
// It fails with InvalidArgument on a bad id and with AlreadyExists.
func (p *Projects) Create(
	ctx context.Context, id, name string, labels map[string]string, owner string,
) (_ Project, err error) {
	defer fault.Wrap(&err, "projects.Create(%s)", id)
	if !resource.ProjectID(id) {
		return Project{}, fault.Invalid("project.projectId",
			"%q is not 6 to 30 lower-case letters, digits and hyphens that start with a letter", id)
	}
	if name == "" {
		name = id
	}
	x := Project{
		ID:      id,
		Number:  numberOf(id),
		Name:    name,
		Labels:  labels,
		Created: p.now().UTC(),
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
}

func serviceOf(x Project, api catalog.API) Service {
	return Service{
		Project: x,
		Name:    api.Host,
		Title:   api.Title,
		Enabled: api.Always || slices.Contains(x.Enabled, api.Host),
	}
}

// Service returns the state of a service in a project. It fails with NotFound for a service that Giggle does not have.
func (p *Projects) Service(project, name string) (Service, error) {
	x, err := p.Get(project)
	if err != nil {
		return Service{}, err
	}
	api, ok := catalog.Find(name)
	if !ok {
		return Service{}, fault.New(fault.NotFound,
			"Service %q is not one that Giggle has. `gcloud services list --available` shows those that it has.", name)
	}
	return serviceOf(x, api), nil
}

// Services returns every service that Giggle has, by name, as it is in the project.
func (p *Projects) Services(project string) ([]Service, error) {
	x, err := p.Get(project)
	if err != nil {
		return nil, err
	}
	var out []Service
	for _, api := range catalog.All() {
		out = append(out, serviceOf(x, api))
	}
	return out, nil
}

// SetEnabled enables or disables services in a project, all of them or none. It fails with NotFound for one that
// Giggle does not have and with FailedPrecondition on disabling what a project can't be without.
func (p *Projects) SetEnabled(
	ctx context.Context, project string, enabled bool, names ...string,
) (_ Project, err error) {
	defer fault.Wrap(&err, "projects.SetEnabled(%s)", project)
	p.write.Lock()
	defer p.write.Unlock()
	x, err := p.Get(project)
	if err != nil {
		return Project{}, err
	}
	for _, n := range names {
		if _, err := p.Service(project, n); err != nil {
			return Project{}, err
		}
		if api, _ := catalog.Find(n); api.Always && !enabled {
			return Project{}, fault.New(fault.FailedPrecondition,
				"Service %q can't be disabled: a project could not be managed without it.", n)
		}
	}
	err = p.store.Update(ctx, func(tx *store.Tx) error {
		row, err := table.Get(tx, x.ID)
		if err != nil {
			return err
		}
		on := make(map[string]bool)
		for _, n := range row.Value.Enabled {
			on[n] = true
		}
		for _, n := range names {
			on[n] = enabled
		}
		row.Value.Enabled = nil
		for _, n := range slices.Sorted(maps.Keys(on)) {
			if on[n] {
				row.Value.Enabled = append(row.Value.Enabled, n)
			}
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

// CheckEnabled fails with PermissionDenied and reason SERVICE_DISABLED, in Service Usage's words, when the service is
// not enabled in the project.
func (p *Projects) CheckEnabled(project, service string) error {
	x, err := p.Get(project)
	if err != nil {
		return err
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
