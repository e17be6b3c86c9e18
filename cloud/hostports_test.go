package cloud

import (
	"testing"

	"github.com/miekg/dns"

	"giggle/hostports"
	"giggle/metadata"
)

// answered is what a DNS responder says to whoever asks.
type answered struct {
	dns.ResponseWriter
	msg *dns.Msg
}

func (a *answered) WriteMsg(m *dns.Msg) error { a.msg = m; return nil }

// A port that one project has is not there in the instances of another: neither a listener nor the name.
func TestHostPortsAreAProjects(t *testing.T) {
	c := newCloudWith(t, func(cfg *Config) { cfg.HostPorts = []hostports.Port{{Project: "giggle", Number: 5432}} })
	for project, reaches := range map[string]bool{"giggle": true, "other-one": false, "": false} {
		s := c.socketsFor(metadata.Identity{ProjectID: project}, nil)
		if got := s.Host[5432] != nil; got != reaches || len(s.Host) > 1 {
			t.Errorf("instances of %q have %d ports of this machine", project, len(s.Host))
		}
		want := dns.RcodeNameError
		if reaches {
			want = dns.RcodeSuccess
		}
		var a answered
		c.namesInside(project).ServeDNS(&a, new(dns.Msg).SetQuestion("host.giggle.internal.", dns.TypeA))
		if a.msg.Rcode != want {
			t.Errorf("host.giggle.internal in %q: %s", project, dns.RcodeToString[a.msg.Rcode])
		}
	}
}
