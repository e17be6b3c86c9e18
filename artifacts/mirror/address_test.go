package mirror

import (
	"net/netip"
	"testing"
)

func TestReachOf(t *testing.T) {
	for address, want := range map[string]reach{
		"203.0.113.7": public, "192.0.2.1": public, "2001:db8::1": public, "8.8.8.8": public,
		"127.0.0.1": loopback, "::1": loopback, "::ffff:127.0.0.1": loopback, "64:ff9b::7f00:1": loopback,
		"10.1.2.3": private, "172.16.0.1": private, "192.168.1.1": private, "fd00::1": private, "100.64.0.1": private,
		"::ffff:10.0.0.1": private, "2002:a00:1::": private, "64:ff9b::c0a8:101": private,
		"169.254.169.254": link, "fe80::1": link, "0.0.0.0": link, "::": link, "0.1.2.3": link, "224.0.0.1": link,
		"ff02::1": link, "255.255.255.255": link, "240.0.0.1": link, "198.18.0.1": link, "192.0.0.8": link,
	} {
		if got := reachOf(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
}

// Where a name leads is judged by the address that is dialled: a registry's redirects may go where the registry is, and
// to the public.
func TestGuard(t *testing.T) {
	type step struct {
		to, address string
		ok          bool
	}
	for name, c := range map[string]struct {
		inside bool
		steps  []step
	}{
		"public registry": {false, []step{
			{"hub.example:443", "203.0.113.7", true}, {"cdn.example:443", "198.51.100.1", true},
			{"cdn.example:443", "10.0.0.1", false}, {"cdn.example:443", "127.0.0.1", false},
			{"hub.example:443", "10.0.0.1", false}, // its name leads elsewhere now
			{"hub.example:8080", "127.0.0.1", false},
		}},
		"named public registry": {true, []step{
			{"hub.example:443", "203.0.113.7", true}, {"cdn.example:443", "169.254.169.254", false},
			{"cdn.example:443", "10.0.0.1", false},
		}},
		"named registry inside": {true, []step{
			{"hub.example:443", "10.0.0.9", true}, {"cdn.example:443", "10.0.0.1", true},
			{"cdn.example:443", "169.254.169.254", false}, {"cdn.example:443", "127.0.0.1", false},
		}},
		"registry inside": {false, []step{{"hub.example:443", "192.168.0.9", false}}},
		"proxy":           {false, []step{{"proxy:3128", "10.0.0.3", true}, {"other:3128", "10.0.0.3", false}}},
	} {
		g := &guard{host: "hub.example", inside: c.inside}
		g.through("proxy:3128")
		for _, s := range c.steps {
			if err := g.admit(s.to, netip.MustParseAddr(s.address)); (err == nil) != s.ok {
				t.Errorf("%s: %s at %s: %v", name, s.to, s.address, err)
			}
		}
	}
}
