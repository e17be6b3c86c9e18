// Package sql is Cloud SQL as far as applications see it: instances that are databases somewhere else, on this machine
// or near it, under the names that Google's clients know, and the ways that lead there: a socket in a service's
// containers, and the TLS that Google's connectors speak.
//
// It serves the data plane and the API. It makes no databases and knows nothing of what goes over a connection.
package sql

import (
	"context"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/store"
)

// Name is the connection name of an instance. An instance's id is unique in its project.
type Name struct{ Project, Region, ID string }

// ParseName reads PROJECT:REGION:INSTANCE. It fails with InvalidArgument.
func ParseName(s string) (Name, error) {
	part := strings.Split(s, ":")
	if len(part) != 3 || !resource.ProjectID(part[0]) || !resource.IsRegion(part[1]) || !resource.Label(part[2], 97) {
		return Name{}, fault.New(fault.InvalidArgument,
			"%.200q is not PROJECT:REGION:INSTANCE, such as giggle:europe-north1:jokes.", s)
	}
	return Name{part[0], part[1], part[2]}, nil
}

// String returns PROJECT:REGION:INSTANCE.
func (n Name) String() string { return n.Project + ":" + n.Region + ":" + n.ID }

// Resource is the name that policies have for the instance.
func (n Name) Resource() string { return "projects/" + n.Project + "/instances/" + n.ID }

// Instance is a database that an instance's name leads to.
type Instance struct {
	Name
	Address string // HOST:PORT, as this machine dials it
	Version string // Cloud SQL's name of the database and its version, "POSTGRES_15"
	// Number tells the instances of a platform apart, from 1: instances of services know them by addresses that end so.
	Number int

	Created time.Time `json:"-"`
}

// Engine is a kind of database.
type Engine string

// The kinds of Cloud SQL.
const (
	Postgres  Engine = "POSTGRES"
	MySQL     Engine = "MYSQL"
	SQLServer Engine = "SQLSERVER"
)

// Engine is what kind of database the instance is.
func (i Instance) Engine() Engine {
	kind, _, _ := strings.Cut(i.Version, "_")
	return Engine(kind)
}

var version = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(POSTGRES_(9_6|[1-9][0-9])|MYSQL_(5_[1-9]|[89]_[0-9])|` +
		`SQLSERVER_20[0-9]{2}_(STANDARD|ENTERPRISE|EXPRESS|WEB))$`)
})

// DefaultVersion is what most likely listens on a port.
func DefaultVersion(address string) string {
	switch _, port, _ := net.SplitHostPort(address); port {
	case "3306":
		return "MYSQL_8_0"
	case "1433":
		return "SQLSERVER_2022_STANDARD"
	}
	return "POSTGRES_15"
}

// MaxInstances is how many a platform has at most: each has an address of its own inside instances of services.
const MaxInstances = 250

var instances = store.NewTable[Instance]("sql.instance", "Cloud SQL instance")

// Instances are the instances of a platform.
type Instances struct {
	store   *store.Store
	project resource.FindProject
}

// New returns the instances in the store.
func New(s *store.Store, project resource.FindProject) *Instances { return &Instances{s, project} }

func fromRow(r store.Row[Instance]) Instance {
	i := r.Value
	i.Created = r.Created
	return i
}

// Map has an instance's name lead to an address; one that is there leads there from then on. It fails with
// InvalidArgument, NotFound without the project, and AlreadyExists where an instance of that id is in another region.
func (s *Instances) Map(ctx context.Context, want Instance) (out Instance, err error) {
	defer fault.Wrap(&err, "sql.Map(%s)", want.Name)
	if want.Version == "" {
		want.Version = DefaultVersion(want.Address)
	}
	if err := want.validate(); err != nil {
		return Instance{}, err
	}
	if _, err := s.project(want.Project); err != nil {
		return Instance{}, err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		rows, err := instances.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		taken := make(map[int]bool)
		for _, r := range rows {
			if r.Name == want.Resource() {
				if r.Value.Region != want.Region {
					return fault.New(fault.AlreadyExists, "%s is in %s: an instance's id is unique in its project.",
						want.Resource(), r.Value.Region)
				}
				want.Number = r.Value.Number
			}
			taken[r.Value.Number] = true
		}
		for n := 1; want.Number == 0; n++ {
			if n > MaxInstances {
				return fault.New(fault.ResourceExhausted, "%d Cloud SQL instances are the most of a platform.",
					MaxInstances)
			}
			if !taken[n] {
				want.Number = n
			}
		}
		row, err := instances.Put(tx, want.Resource(), want)
		out = fromRow(row)
		return err
	})
	return out, err
}

func (i *Instance) validate() error {
	host, port, err := net.SplitHostPort(i.Address)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" || len(host) > 253 ||
		strings.ContainsAny(host, "%/ \t\n") {
		return fault.New(fault.InvalidArgument, "%.200q is not HOST:PORT, such as 127.0.0.1:5432.", i.Address)
	}
	if !version().MatchString(i.Version) {
		return fault.New(fault.InvalidArgument,
			"%.80q is not a database version of Cloud SQL, such as POSTGRES_15, MYSQL_8_0 or SQLSERVER_2022_STANDARD.",
			i.Version)
	}
	return nil
}

// Unmap forgets an instance. Connections that are open stay. It fails with NotFound.
func (s *Instances) Unmap(ctx context.Context, n Name) (err error) {
	defer fault.Wrap(&err, "sql.Unmap(%s)", n)
	if _, err := s.Find(ctx, n); err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx *store.Tx) error { return instances.Delete(tx, n.Resource()) })
}

// Get returns the instance of an id, or NotFound.
func (s *Instances) Get(ctx context.Context, project, id string) (out Instance, err error) {
	defer fault.Wrap(&err, "sql.Get(%s, %s)", project, id)
	err = s.store.View(ctx, func(tx *store.Tx) error {
		row, err := instances.Get(tx, Name{Project: project, ID: id}.Resource())
		out = fromRow(row)
		return err
	})
	return out, err
}

// Find returns the instance of a connection name. It fails with FailedPrecondition, and says how to map one.
func (s *Instances) Find(ctx context.Context, n Name) (Instance, error) {
	i, err := s.Get(ctx, n.Project, n.ID)
	if err == nil && i.Region == n.Region {
		return i, nil
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Instance{}, err
	}
	return Instance{}, Unmapped(n)
}

// Check fails when the name of an instance leads to no database, or to one that containers can have no socket of.
func (s *Instances) Check(tx *store.Tx, name string) error {
	n, err := ParseName(name)
	if err != nil {
		return err
	}
	row, err := instances.Get(tx, n.Resource())
	if fault.Is(err, fault.NotFound) || err == nil && row.Value.Region != n.Region {
		return Unmapped(n)
	}
	if err == nil && SocketOf(row.Value) == "" {
		return noSocket(row.Value)
	}
	return err
}

func noSocket(i Instance) error {
	return fault.New(fault.FailedPrecondition,
		"%s is a %s, which has no socket: connect with Google's connectors, or by TCP with `giggle up --host-port`.",
		i.Name, i.Version)
}

// Unmapped is the fault of a name that leads nowhere.
func Unmapped(n Name) error {
	return fault.New(fault.FailedPrecondition,
		"The Cloud SQL instance %s leads to no database. Say which: giggle sql map %s HOST:PORT", n, n)
}

// List returns the instances of a project ("" for all) by id, after the one called last, at most limit of them.
func (s *Instances) List(ctx context.Context, project, last string, limit int) (out []Instance, err error) {
	defer fault.Wrap(&err, "sql.List(%s)", project)
	prefix := "projects/"
	if project != "" {
		prefix += project + "/instances/"
	}
	if last != "" {
		last = prefix + last
	}
	err = s.store.View(ctx, func(tx *store.Tx) error {
		rows, err := instances.List(tx, prefix, last, limit)
		for _, r := range rows {
			out = append(out, fromRow(r))
		}
		return err
	})
	return out, err
}

// numbered returns the instance of a number, or NotFound.
func (s *Instances) numbered(ctx context.Context, number int) (Instance, error) {
	all, err := s.List(ctx, "", "", 0)
	for _, i := range all {
		if i.Number == number {
			return i, nil
		}
	}
	if err == nil {
		err = fault.New(fault.NotFound, "No Cloud SQL instance has the number %d.", number)
	}
	return Instance{}, err
}
