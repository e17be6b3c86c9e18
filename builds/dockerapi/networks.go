package dockerapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"giggle/builds"
	"giggle/engine/lan"
	"giggle/fault"
)

// The networks that a build has. Its steps and who asks for it are on cloudbuild, and find each other by name there
// (https://cloud.google.com/build/docs/build-config-file-schema#network); containers of docker run are on bridge, where
// nobody has a name (https://docs.docker.com/engine/network/drivers/bridge/).
const (
	stepNetwork    = "cloudbuild"
	defaultNetwork = "bridge"
	noNetwork      = "none"
)

// stepRange is that of Cloud Build's own network, defaultRange that of Docker's.
var (
	stepRange    = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 10, 0}), 24)
	defaultRange = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 17, 0, 0}), 16)
)

// ranges are those of further networks, as Docker chooses them.
func ranges() (all []netip.Prefix) {
	for i := byte(18); i < 32; i++ {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i, 0, 0}), 16))
	}
	for i := byte(16); i < 240; i += 16 {
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, i, 0}), 20))
	}
	return all
}

// network is one of a build's.
type network struct {
	id, name string
	labels   map[string]string
	created  time.Time
	own      bool         // it was there from the start
	lan      *lan.Network // nil is no network
}

// joining is how a container is on a network.
type joining struct {
	network string // name or id
	aliases []string
}

// endpoint is what the API calls an EndpointSettings, as far as it can be asked for.
type endpoint struct {
	Aliases, Links []string
	MacAddress     string
	IPAMConfig     *struct{ IPv4Address, IPv6Address string }
}

var (
	containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$`)
	networkName   = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)
)

// openNetworks makes the networks that every build has.
func (x *session) openNetworks() {
	for name, addresses := range map[string]netip.Prefix{
		stepNetwork: stepRange, defaultNetwork: defaultRange, noNetwork: {},
	} {
		n := &network{id: x.networkID(), name: name, created: x.cfg.Now(), own: true}
		if name != noNetwork {
			n.lan = x.lan.Network(addresses)
		}
		x.networks = append(x.networks, n)
	}
	slices.SortFunc(x.networks, func(a, b *network) int { return strings.Compare(a.name, b.name) })
}

func (x *session) networkID() string {
	sum := sha256.Sum256([]byte("network " + x.cfg.NewID()))
	return hex.EncodeToString(sum[:])
}

// StepNetworks is what a step of a build is on, under the name that its container has on Cloud Build.
func (s *Server) StepNetworks(b builds.Build, step int) ([]lan.Member, error) {
	if _, err := s.Socket(b); err != nil { // which makes the session
		return nil, err
	}
	x := s.session(b)
	n, err := x.findNetwork(stepNetwork)
	if err != nil {
		return nil, err
	}
	return []lan.Member{{Network: n.lan, Names: []string{fmt.Sprint("step_", step)}, Optional: true}}, nil
}

// findNetwork finds a network by its name or id, or what an id begins with.
func (x *session) findNetwork(ref string) (*network, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, n := range x.networks {
		if n.name == ref {
			return n, nil
		}
	}
	var found []*network
	for _, n := range x.networks {
		if len(ref) >= 4 && strings.HasPrefix(n.id, ref) {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		return nil, fault.New(fault.NotFound, "network %.200s not found", ref)
	}
	return found[0], nil
}

// asked notes the networks that docker run or docker create asks for.
func (c *container) asked(req *createRequest) error {
	c.mode = req.HostConfig.NetworkMode
	if c.mode == "" || c.mode == "default" {
		c.mode = defaultNetwork
	}
	c.joins = []joining{{network: c.mode}}
	for name, e := range req.NetworkingConfig.EndpointsConfig {
		if name == "" || name == "default" {
			name = defaultNetwork
		}
		j, err := e.joining(name)
		if err != nil {
			return err
		}
		if name == c.mode {
			c.joins[0] = j
			continue
		}
		c.joins = append(c.joins, j)
	}
	slices.SortFunc(c.joins[1:], func(a, b joining) int { return strings.Compare(a.network, b.network) })
	if c.mode == noNetwork {
		c.joins = nil
	}
	return nil
}

// joining reads what is asked for on one network.
func (e *endpoint) joining(name string) (joining, error) {
	j := joining{network: name}
	if e == nil {
		return j, nil
	}
	what := ""
	switch {
	case e.IPAMConfig != nil && (e.IPAMConfig.IPv4Address != "" || e.IPAMConfig.IPv6Address != ""):
		what = "an address of its own choice (--ip, --ip6)"
	case e.MacAddress != "":
		what = "--mac-address"
	case len(e.Links) > 0:
		what = "--link: give the other one a --name or a --network-alias"
	}
	if what != "" {
		return j, fault.New(fault.Unimplemented, "docker run in a build step can't have %s.", what)
	}
	for _, a := range e.Aliases {
		if !networkName.MatchString(a) {
			return j, fault.New(fault.InvalidArgument, "invalid network alias: %.100q", a)
		}
	}
	if len(e.Aliases) > 0 && (name == defaultNetwork || name == noNetwork) {
		return j, fault.New(fault.InvalidArgument,
			"network-scoped aliases are only supported for user-defined networks, and cloudbuild")
	}
	j.aliases = e.Aliases
	return j, nil
}

// member is a container on a network, with the names that it has there.
func (x *session) member(c *container, j joining) (lan.Member, error) {
	n, err := x.findNetwork(j.network)
	if err != nil {
		return lan.Member{}, err
	}
	if n.lan == nil {
		return lan.Member{}, fault.New(fault.InvalidArgument,
			"container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	m := lan.Member{Network: n.lan, Optional: n.own}
	if n.name != defaultNetwork {
		m.Names = append([]string{c.id[:12]}, j.aliases...)
		if c.name != "" {
			m.Names = append(m.Names, c.name)
		}
	}
	return m, nil
}

// members are the networks that a container is to be on.
func (x *session) members(c *container) (all []lan.Member, err error) {
	c.mu.Lock()
	joins := slices.Clone(c.joins)
	c.mu.Unlock()
	for _, j := range joins {
		m, err := x.member(c, j)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// endpointOf is a container on a network in Docker's form.
func endpointOf(n *network, c *container, aliases []string) map[string]any {
	out := map[string]any{"NetworkID": n.id, "Aliases": aliases, "EndpointID": "", "Gateway": "", "IPAddress": "",
		"IPPrefixLen": 0, "MacAddress": ""}
	if a := c.address(n); a.IsValid() {
		out["EndpointID"], out["IPAddress"], out["IPPrefixLen"] = c.id, a.String(), n.lan.Range.Bits()
	}
	return out
}

// address is where a container that runs is on a network.
func (c *container) address(n *network) netip.Addr {
	i := c.made()
	if i == nil || n.lan == nil || c.state() == "exited" {
		return netip.Addr{}
	}
	return i.LAN().Address(n.lan)
}

// networkSettings is where a container is on its networks.
func (x *session) networkSettings(c *container) map[string]any {
	c.mu.Lock()
	joins := slices.Clone(c.joins)
	c.mu.Unlock()
	all := make(map[string]any)
	out := map[string]any{"Networks": all, "Ports": map[string]any{}, "IPAddress": "", "IPPrefixLen": 0, "Gateway": ""}
	for _, j := range joins {
		n, err := x.findNetwork(j.network)
		if err != nil {
			continue // it was removed before the container was started
		}
		e := endpointOf(n, c, j.aliases)
		all[n.name] = e
		if n.name == defaultNetwork {
			out["IPAddress"], out["IPPrefixLen"] = e["IPAddress"], e["IPPrefixLen"]
		}
	}
	return out
}

func (x *session) describeNetwork(n *network) map[string]any {
	driver, config := "bridge", []map[string]string{}
	if n.lan == nil {
		driver = "null"
	} else {
		config = append(config, map[string]string{"Subnet": n.lan.Range.String()})
	}
	members := make(map[string]any)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.containers {
		if a := c.address(n); a.IsValid() {
			members[c.id] = map[string]string{"Name": first(c.name, c.id[:12]), "EndpointID": c.id,
				"IPv4Address": netip.PrefixFrom(a, n.lan.Range.Bits()).String()}
		}
	}
	labels := n.labels
	if labels == nil {
		labels = map[string]string{}
	}
	return map[string]any{"Name": n.name, "Id": n.id, "Created": n.created.UTC().Format(time.RFC3339Nano),
		"Driver": driver, "Scope": "local", "Internal": false, "Attachable": false, "Ingress": false, "EnableIPv6": false,
		"IPAM":       map[string]any{"Driver": "default", "Config": config, "Options": nil},
		"Containers": members, "Options": map[string]string{}, "Labels": labels}
}

// filters reads the parameter of lists that docker's --filter makes, in either of its forms.
func filters(r *http.Request, known ...string) (map[string][]string, error) {
	text := r.URL.Query().Get("filters")
	out := make(map[string][]string)
	if text == "" {
		return out, nil
	}
	var sets map[string]map[string]bool
	if json.Unmarshal([]byte(text), &sets) == nil {
		for k, set := range sets {
			for v := range set {
				out[k] = append(out[k], v)
			}
		}
	} else if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fault.New(fault.InvalidArgument, "filters can't be read: %v", err)
	}
	for k := range out {
		if !slices.Contains(known, k) {
			return nil, fault.New(fault.InvalidArgument, "invalid filter '%.50s'", k)
		}
	}
	return out, nil
}

// matches reports whether one of the values fits; none that are asked for fit always.
func matches(want []string, fits func(string) bool) bool {
	return len(want) == 0 || slices.ContainsFunc(want, fits)
}

// labelled reports whether labels have each of KEY or KEY=VALUE.
func labelled(labels map[string]string, want []string) bool {
	for _, w := range want {
		k, v, valued := strings.Cut(w, "=")
		if have, ok := labels[k]; !ok || valued && have != v {
			return false
		}
	}
	return true
}

func (x *session) listNetworks(w http.ResponseWriter, r *http.Request) error {
	f, err := filters(r, "name", "id", "driver", "label", "type", "scope", "dangling")
	if err != nil {
		return err
	}
	x.mu.Lock()
	networks := slices.Clone(x.networks)
	x.mu.Unlock()
	all := []map[string]any{}
	for _, n := range networks {
		d := x.describeNetwork(n)
		kind := "custom"
		if n.own {
			kind = "builtin"
		}
		if matches(f["name"], func(s string) bool { return strings.Contains(n.name, s) }) &&
			matches(f["id"], func(s string) bool { return strings.HasPrefix(n.id, s) }) &&
			matches(f["driver"], func(s string) bool { return d["Driver"] == s }) &&
			matches(f["type"], func(s string) bool { return kind == s }) &&
			matches(f["scope"], func(s string) bool { return s == "local" }) && labelled(n.labels, f["label"]) &&
			matches(f["dangling"], func(s string) bool { return (s == "true" || s == "1") == (!n.own && x.unused(n)) }) {
			all = append(all, d)
		}
	}
	reply(w, http.StatusOK, all)
	return nil
}

func (x *session) withNetwork(
	fn func(http.ResponseWriter, *http.Request, *network) error,
) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		n, err := x.findNetwork(r.PathValue("name"))
		if err != nil {
			return err
		}
		return fn(w, r, n)
	}
}

func (x *session) inspectNetwork(w http.ResponseWriter, _ *http.Request, n *network) error {
	reply(w, http.StatusOK, x.describeNetwork(n))
	return nil
}

func (x *session) createNetwork(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		Name, Driver, Scope           string
		Internal, Ingress, EnableIPv6 bool
		ConfigOnly                    bool
		IPAM                          struct{ Config []json.RawMessage }
		Options, Labels               map[string]string
	}
	if err := body(w, r, &req); err != nil {
		return err
	}
	if !networkName.MatchString(req.Name) {
		return fault.New(fault.InvalidArgument, "%.100q is not the name of a network.", req.Name)
	}
	what := ""
	switch {
	case req.Driver != "" && req.Driver != "bridge":
		what = "--driver=" + req.Driver
	case req.Scope != "" && req.Scope != "local":
		what = "--scope"
	case req.Internal:
		what = "--internal"
	case req.Ingress:
		what = "--ingress"
	case req.EnableIPv6:
		what = "--ipv6"
	case req.ConfigOnly:
		what = "--config-only"
	case len(req.IPAM.Config) > 0:
		what = "addresses of its own choice (--subnet, --gateway, --ip-range)"
	case len(req.Options) > 0:
		what = "--opt"
	}
	if what != "" {
		return fault.New(fault.Unimplemented, "docker network create in a build step can't have %.200s.", what)
	}
	n := &network{id: x.networkID(), name: req.Name, labels: req.Labels, created: x.cfg.Now()}
	x.mu.Lock()
	defer x.mu.Unlock()
	free := ranges()
	for _, other := range x.networks {
		if other.name == n.name {
			return fault.New(fault.AlreadyExists, "network with name %s already exists", n.name)
		}
		free = slices.DeleteFunc(free, func(p netip.Prefix) bool { return other.lan != nil && other.lan.Range == p })
	}
	if len(free) == 0 {
		return fault.New(fault.ResourceExhausted, "This build has %d networks; remove some.", len(x.networks))
	}
	n.lan = x.lan.Network(free[0])
	x.networks = append(x.networks, n)
	reply(w, http.StatusCreated, map[string]string{"Id": n.id, "Warning": ""})
	return nil
}

// unused reports whether no container is on a network that runs, or will be when it is started.
func (x *session) unused(n *network) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.containers {
		c.mu.Lock()
		on := slices.ContainsFunc(c.joins,
			func(j joining) bool { return j.network == n.name || strings.HasPrefix(n.id, j.network) })
		c.mu.Unlock()
		if on && c.state() == "running" {
			return false
		}
	}
	return n.lan == nil || n.lan.Members() == 0
}

func (x *session) removeNetwork(w http.ResponseWriter, _ *http.Request, n *network) error {
	if n.own {
		return fault.New(fault.PermissionDenied, "%s is a pre-defined network and cannot be removed", n.name)
	}
	if !x.unused(n) {
		return fault.New(fault.PermissionDenied,
			"error while removing network: network %s id %s has active endpoints", n.name, n.id)
	}
	if err := x.dropNetwork(n); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (x *session) dropNetwork(n *network) error {
	if err := n.lan.Close(); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.networks = slices.DeleteFunc(x.networks, func(o *network) bool { return o == n })
	return nil
}

func (x *session) pruneNetworks(w http.ResponseWriter, r *http.Request) error {
	f, err := filters(r, "label")
	if err != nil {
		return err
	}
	x.mu.Lock()
	networks := slices.Clone(x.networks)
	x.mu.Unlock()
	gone := []string{}
	for _, n := range networks {
		if n.own || !x.unused(n) || !labelled(n.labels, f["label"]) {
			continue
		}
		if err := x.dropNetwork(n); err != nil {
			return err
		}
		gone = append(gone, n.name)
	}
	reply(w, http.StatusOK, map[string]any{"NetworksDeleted": gone})
	return nil
}

// connect is docker network connect.
func (x *session) connect(w http.ResponseWriter, r *http.Request, n *network) error {
	var req struct {
		Container      string
		EndpointConfig *endpoint
	}
	if err := body(w, r, &req); err != nil {
		return err
	}
	c, err := x.findContainer(req.Container)
	if err != nil {
		return err
	}
	j, err := req.EndpointConfig.joining(n.name)
	if err != nil {
		return err
	}
	m, err := x.member(c, j)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == noNetwork {
		return fault.New(fault.InvalidArgument,
			"container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	if slices.ContainsFunc(c.joins, func(j joining) bool { return j.network == n.name || j.network == n.id }) {
		return fault.New(fault.PermissionDenied, "endpoint with name %s already exists in network %s",
			first(c.name, c.id[:12]), n.name)
	}
	if c.instance != nil && c.state() != "exited" {
		if err := c.instance.LAN().Join(m); err != nil {
			return err
		}
	}
	c.joins = append(c.joins, j)
	w.WriteHeader(http.StatusOK)
	return nil
}

// disconnect is docker network disconnect.
func (x *session) disconnect(w http.ResponseWriter, r *http.Request, n *network) error {
	var req struct{ Container string }
	if err := body(w, r, &req); err != nil {
		return err
	}
	c, err := x.findContainer(req.Container)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	on := len(c.joins)
	c.joins = slices.DeleteFunc(c.joins, func(j joining) bool { return j.network == n.name || j.network == n.id })
	if len(c.joins) == on {
		return fault.New(fault.PermissionDenied, "container %s is not connected to network %s", c.id, n.name)
	}
	if c.instance != nil && c.state() != "exited" {
		if err := c.instance.LAN().Leave(n.lan); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
