package main

import (
	"testing"
	"testing/fstest"
)

// Whether there is a network is read in the kernel's tables.
func TestDefaultRoute(t *testing.T) {
	const (
		head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
		near = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
		zero = "00000000000000000000000000000000"
	)
	v6 := func(destination, length, device string) string {
		return destination + " " + length + " " + zero + " 00 " + zero + " 00000400 00000001 00000000 00000001 " + device + "\n"
	}
	for name, c := range map[string]struct {
		v4, v6 string
		want   bool
	}{
		"nothing":              {"", "", false},
		"the network only":     {head + near, v6("fe800000000000000000000000000000", "40", "eth0"), false},
		"IPv4":                 {head + near + "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", "", true},
		"half of IPv4":         {head + "tun0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0\n", "", false},
		"IPv6":                 {head, v6(zero, "00", "eth0"), true},
		"the kernel's refusal": {head, v6(zero, "00", "lo"), false},
	} {
		root := fstest.MapFS{
			"proc/net/route":      &fstest.MapFile{Data: []byte(c.v4)},
			"proc/net/ipv6_route": &fstest.MapFile{Data: []byte(c.v6)},
		}
		if got := defaultRoute(root); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if defaultRoute(fstest.MapFS{}) {
		t.Error("without the kernel's tables")
	}
}

// Pulls happen where they are asked for, and a wrong word for it is refused.
func TestPullPolicy(t *testing.T) {
	p := &program{}
	for _, c := range []struct {
		pull, limit string
		allowed     bool
		fails       bool
	}{
		{"never", "20Gi", false, false},
		{"always", "1Gi", true, false},
		{"sometimes", "20Gi", false, true},
		{"never", "much", false, true},
	} {
		got, err := p.policy(pullFlags{pull: c.pull, limit: c.limit}, t.TempDir())
		if (err != nil) != c.fails || got.Allowed != c.allowed {
			t.Errorf("%q %q: %+v, %v", c.pull, c.limit, got, err)
		}
	}
}
