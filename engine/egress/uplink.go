package egress

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
	"giggle/fault"
)

// uplink is the veth pair between the router's namespace and the machine.
type uplink struct {
	here, there   netip.Addr // its ends: the router's and the machine's
	here6, there6 netip.Addr
	mtu           int
	v6            bool // the machine has a way to the outside for IPv6
}

// uplinkDevice is the uplink in the router's namespace.
const uplinkDevice = "up0"

// hostDevice is the uplink on the machine.
func (r *Router) hostDevice() string { return "gg-" + r.cfg.Key }

// uniqueLocal is the platform's own prefix of IPv6, /48 (RFC 4193).
func uniqueLocal(key string) netip.Addr {
	sum := sha256.Sum256([]byte(key))
	a := [16]byte{0xfd}
	copy(a[1:6], sum[:])
	return netip.AddrFrom16(a)
}

// uplinkAddresses is the k-th choice for the ends of the uplink: in the link-local range, where nobody's routes lead.
func (r *Router) uplinkAddresses(k int) (here, there netip.Addr) {
	h := fnv.New32a()
	h.Write([]byte(r.cfg.Key))
	n := (int(h.Sum32()) + k) & (1<<13 - 1) // networks of four addresses between 169.254.0.0 and 169.254.127.255
	n = max(n, 64)                          // machines use the first ones themselves
	base := n * 4
	at := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{169, 254, byte((base + i) >> 8), byte(base + i)})
	}
	return at(2), at(1)
}

// DefaultRoute returns the device that the calling thread's default route goes through, "" if there is none.
func DefaultRoute(v6 bool) (string, error) {
	family := netlink.FAMILY_V4
	if v6 {
		family = netlink.FAMILY_V6
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
	for _, route := range routes {
		if len(route.MultiPath) > 0 {
			route.LinkIndex = route.MultiPath[0].LinkIndex
		}
		link, err := netlink.LinkByIndex(route.LinkIndex)
		if err == nil && link.Attrs().Flags&net.FlagLoopback == 0 {
			return link.Attrs().Name, nil
		}
	}
	return "", nil
}

// defaultRoutes returns the devices of the calling thread's default routes, for IPv4 and for IPv6 (true).
func defaultRoutes() (map[bool]string, error) {
	ways := make(map[bool]string)
	for _, v6 := range []bool{false, true} {
		way, err := DefaultRoute(v6)
		if err != nil {
			return nil, err
		}
		if way != "" {
			ways[v6] = way
		}
	}
	return ways, nil
}

// Online reports whether the machine has a default route: to either kind of address.
func (r *Router) Online() bool {
	var ways map[bool]string
	err := r.host.Do(func() (err error) { ways, err = defaultRoutes(); return err })
	return err == nil && len(ways) > 0
}

// watchRoutes has the machine pass packets on by whichever ways it comes to have, until ctx ends: a cable is pulled, a
// radio network joined.
func (r *Router) watchRoutes(ctx context.Context) error {
	updates := make(chan netlink.RouteUpdate, 64)
	at := vnetns.NsHandle(r.host.Fd())
	err := netlink.RouteSubscribeWithOptions(updates, ctx.Done(), netlink.RouteSubscribeOptions{
		Namespace: &at,
		ErrorCallback: func(err error) {
			if ctx.Err() == nil {
				r.cfg.Log.Error("the machine's routes are no longer watched", "err", err)
			}
		},
	})
	if err != nil {
		return err
	}
	go func() {
		for u := range updates {
			if u.Dst != nil && u.Dst.IP != nil && !u.Dst.IP.IsUnspecified() || u.Type != unix.RTM_NEWROUTE {
				continue
			}
			err := r.host.Do(func() error {
				ways, err := defaultRoutes()
				if err != nil {
					return err
				}
				if !r.up.v6 {
					delete(ways, true) // instances have no address of it
				}
				return forward(r.hostDevice(), ways)
			})
			if err != nil && ctx.Err() == nil {
				r.cfg.Log.Error("follow the machine's routes", "err", err)
			}
		}
	}()
	return nil
}

// connectMachine makes the uplink, and has the machine pass on what comes through it.
func (r *Router) connectMachine(ns *netns.Namespace) (*uplink, error) {
	up := &uplink{mtu: 1500}
	err := r.host.Do(func() error {
		ways, err := defaultRoutes()
		if err != nil {
			return err
		}
		for _, way := range ways {
			if link, err := netlink.LinkByName(way); err == nil {
				up.mtu = min(up.mtu, link.Attrs().MTU)
			}
		}
		up.v6 = ways[true] != ""
		up.mtu = max(up.mtu, idleMTU)
		if err := r.addUplink(ns, up); err != nil {
			return err
		}
		if err := forward(r.hostDevice(), ways); err != nil {
			return err
		}
		return errors.Join(r.addHostRules(up), r.passDocker())
	})
	return up, err
}

// addUplink makes the pair and gives its end on the machine addresses that are free there.
func (r *Router) addUplink(ns *netns.Namespace, up *uplink) error {
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: r.hostDevice(), MTU: up.mtu, TxQLen: 1000},
		PeerName:      uplinkDevice,
		PeerNamespace: netlink.NsFd(ns.Fd()),
		PeerMTU:       uint32(up.mtu),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("uplink %s: %w", r.hostDevice(), err)
	}
	link, err := netlink.LinkByName(r.hostDevice())
	if err != nil {
		return err
	}
	if err := quiet(r.hostDevice()); err != nil {
		return err
	}
	taken, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for k := 0; ; k++ {
		up.here, up.there = r.uplinkAddresses(k)
		if !slices.ContainsFunc(taken, func(a netlink.Addr) bool { return a.IPNet.Contains(up.there.AsSlice()) }) {
			break
		}
		if k == 100 {
			return fault.New(fault.ResourceExhausted, "No link-local addresses are free for the way out of containers.")
		}
	}
	a := r.prefix.As16()
	a[15] = 1
	up.there6 = netip.AddrFrom16(a)
	a[15] = 2
	up.here6 = netip.AddrFrom16(a)
	if err := addAddress(link, up.there, 30); err != nil {
		return err
	}
	if up.v6 {
		if err := addAddress(link, up.there6, 126); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

func addAddress(link netlink.Link, a netip.Addr, bits int) error {
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())},
		Flags: 0x02, // IFA_F_NODAD: at once
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("address %s: %w", a, err)
	}
	return nil
}

// forward has the machine pass packets between the uplink and its ways out.
func forward(uplink string, ways map[bool]string) error {
	// The uplink forwards without a way, too: who tries then hears that there is none, and does not wait.
	for _, dev := range []string{uplink, ways[false]} {
		if dev == "" {
			continue
		}
		if err := set("ipv4/conf/"+dev+"/forwarding", "1"); err != nil {
			return err
		}
	}
	if ways[true] == "" || get("ipv6/conf/all/forwarding") == "1" {
		return nil
	}
	// IPv6 has one switch for all devices, and a machine that forwards no longer heeds router advertisements, which is
	// how it got its own default route; unless accept_ra is 2.
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		name := "ipv6/conf/" + l.Attrs().Name + "/accept_ra"
		if get(name) == "1" {
			if err := set(name, "2"); err != nil {
				return err
			}
		}
	}
	return set("ipv6/conf/all/forwarding", "1")
}

func get(name string) string {
	b, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// set writes a setting of the calling thread's network.
func set(name, value string) error {
	if get(name) == value {
		return nil // also where /proc/sys can only be read
	}
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
}

// furnish sets up the router's namespace. It runs on a thread in it.
func (r *Router) furnish(ns *netns.Namespace, up *uplink) error {
	for _, name := range []string{"lo", uplinkDevice} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name == uplinkDevice {
			if err := quiet(name); err != nil {
				return err
			}
			if err := addAddress(link, up.here, 30); err != nil {
				return err
			}
			if up.v6 {
				if err := addAddress(link, up.here6, 126); err != nil {
					return err
				}
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if name != uplinkDevice {
			continue
		}
		for _, gateway := range []netip.Addr{up.there, up.there6} {
			if gateway.Is6() && !up.v6 {
				continue
			}
			all := &net.IPNet{IP: make(net.IP, gateway.BitLen()/8), Mask: net.CIDRMask(0, gateway.BitLen())}
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Gw: gateway.AsSlice()}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("route to %s: %w", gateway, err)
			}
		}
	}
	for _, s := range [][2]string{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/all/rp_filter", "0"}, // the filter's own check holds for both kinds of address
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv6/conf/default/addr_gen_mode", "1"}, // devices that come speak for nobody
	} {
		if err := set(s[0], s[1]); err != nil && !(errors.Is(err, os.ErrNotExist) && !up.v6) {
			return err
		}
	}
	return r.addRules(ns)
}
