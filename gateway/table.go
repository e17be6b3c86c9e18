package gateway

import (
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"

	"giggle/iam"
	"giggle/resource"
	"giggle/run"
)

// tableShards is how many parts a table has: a change copies those that it touches, not the whole.
const tableShards = 256

// table says where the requests for a host go. It never changes: a change makes a new one, which shares what is the
// same.
type table struct {
	seed  maphash.Seed
	parts [tableShards]map[string]*destination // by host, in lower case
}

func (t *table) part(host string) int { return int(maphash.String(t.seed, host) % tableShards) }

func (t *table) get(host string) *destination { return t.parts[t.part(host)][host] }

// with returns the table with other destinations; those that are nil are taken out.
func (t *table) with(changes map[string]*destination) *table {
	next := *t
	var copied [tableShards]bool
	for host, d := range changes {
		i := t.part(host)
		if !copied[i] {
			if next.parts[i] = maps.Clone(t.parts[i]); next.parts[i] == nil {
				next.parts[i] = make(map[string]*destination)
			}
			copied[i] = true
		}
		if d == nil {
			delete(next.parts[i], host)
		} else {
			next.parts[i][host] = d
		}
	}
	return &next
}

// destination is where the requests for one host go.
type destination struct {
	service   resource.Child
	tag       string   // "" for the service's own hosts
	name      string   // the service's full name, for its policy
	audiences []string // of ID tokens
	hosts     []string // whose URLs are audiences, too
	ingress   run.Ingress
	open      bool     // the policy isn't asked
	targets   []target // by share of the traffic; of a tag: one
}

// target is one revision that a host leads to.
type target struct {
	rev   run.Revision
	upTo  int // of 100: a number below it, and not below the one before, falls here
	stats *series
}

// pick chooses the revision of one request by its share of the traffic, independently of all others.
func (d *destination) pick() *target {
	if len(d.targets) == 1 && d.targets[0].upTo == 100 {
		return &d.targets[0]
	}
	n := rand.IntN(100)
	for i := range d.targets {
		if n < d.targets[i].upTo {
			return &d.targets[i]
		}
	}
	return nil
}

// Publish makes a service's route effective for the next request, with one swap. Requests in flight stay on their
// revision.
func (g *Gateway) Publish(r run.Route) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.known[r.Service.ID]
	if of == nil {
		of = make(map[string]map[string]*destination)
		g.known[r.Service.ID] = of
	}
	to := g.destinationsLocked(r)
	of[r.Service.String()] = to
	g.swapLocked(r.Service.ID)
	g.stats.prune(r.Service.String(), to)
}

// Remove takes a service out of the table.
func (g *Gateway) Remove(service resource.Child) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.known[service.ID], service.String())
	g.swapLocked(service.ID)
	if len(g.known[service.ID]) == 0 {
		delete(g.known, service.ID)
		delete(g.hosts, service.ID)
	}
	g.stats.drop(service.String())
}

// destinationsLocked are a route's, by host.
func (g *Gateway) destinationsLocked(r run.Route) map[string]*destination {
	audiences := append([]string{iam.GcloudClientID}, r.CustomAudiences...)
	for _, h := range r.Hosts {
		audiences = append(audiences, "https://"+h)
	}
	name := r.Service.String()
	to := destination{
		service:   r.Service,
		name:      name,
		audiences: audiences,
		hosts:     r.Hosts,
		ingress:   r.Ingress,
		open:      r.InvokerIAMDisabled,
	}
	sum := 0
	for _, t := range r.Targets {
		sum += t.Percent
		to.targets = append(to.targets, target{t.Revision, sum, g.stats.of(name, t.Revision)})
	}
	out := make(map[string]*destination)
	for _, h := range r.Hosts {
		out[h] = &to
		for tag, rev := range r.Tags {
			tagged := to
			tagged.tag = tag
			tagged.targets = []target{{rev, 100, g.stats.of(name, rev)}}
			tagged.audiences = append(slices.Clone(audiences), "https://"+run.TagHost(tag, h))
			tagged.hosts = append(slices.Clone(r.Hosts), run.TagHost(tag, h))
			out[run.TagHost(tag, h)] = &tagged
		}
	}
	return out
}

// swapLocked puts what is known of the services of one id into the table.
//
// Beside its own hosts a service has SERVICE.localhost and SERVICE.REGION.localhost, for browsers on this machine,
// where it is the only one of that name; so have its tags.
func (g *Gateway) swapLocked(id string) {
	changes := make(map[string]*destination)
	for _, host := range g.hosts[id] {
		changes[host] = nil
	}
	locals := make(map[string]*destination) // nil where several services have the name
	for _, of := range g.known[id] {
		mine := make(map[string]*destination)
		for host, d := range of {
			changes[host] = d
			label := id
			if d.tag != "" {
				label = d.tag + run.TagMark + id
			}
			// of before such names were refused: it may be a tag's of another's service
			if strings.Contains(id, run.TagMark) {
				continue
			}
			mine[label+".localhost"], mine[label+"."+d.service.Location.Location+".localhost"] = d, d
		}
		for name, d := range mine {
			if _, taken := locals[name]; taken {
				d = nil
			}
			locals[name] = d
		}
	}
	maps.Copy(changes, locals)
	hosts := make([]string, 0, len(changes))
	for host, d := range changes {
		if d != nil {
			hosts = append(hosts, host)
		}
	}
	g.hosts[id] = hosts
	g.table.Store(g.table.Load().with(changes))
}

// lookup returns the destination of a Host header, or nil.
func (g *Gateway) lookup(host string) *destination {
	t := g.table.Load()
	if d := t.get(host); d != nil {
		return d
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return t.get(strings.TrimSuffix(strings.ToLower(host), "."))
}
