package run

import (
	"strings"

	"giggle/fault"
)

// VPCAccess is the network that a service asks for (google.cloud.run.v2.VpcAccess). The machine's own network stands
// for every VPC: what of it is reached is said when the platform is started, for all services alike. So both kinds of
// egress lead the same ways.
type VPCAccess struct {
	Egress     string             // VPCPrivateRanges, VPCAllTraffic or ""
	Interfaces []NetworkInterface // one at most; gcloud sends one
}

// The values of VPCAccess.Egress, as annotations write them.
const (
	VPCPrivateRanges = "private-ranges-only"
	VPCAllTraffic    = "all-traffic"
)

// NetworkInterface is a place in a VPC, kept and shown.
type NetworkInterface struct {
	Network    string   `json:"network,omitempty"`
	Subnetwork string   `json:"subnetwork,omitempty"`
	Tags       []string `json:"tags,omitempty"`
}

// VPCNote is what a service that asks for a network is told in its log.
const VPCNote = "This service asks for a VPC network; the machine's own network stands for it. " +
	"Which private addresses it reaches is said by `giggle up --egress-allow`."

func (v *VPCAccess) validate() error {
	if v == nil {
		return nil
	}
	if v.Egress != "" && v.Egress != VPCPrivateRanges && v.Egress != VPCAllTraffic {
		return invalid(FieldVPCEgress, "%.40q is not %s or %s", v.Egress, VPCPrivateRanges, VPCAllTraffic)
	}
	if len(v.Interfaces) > 1 {
		return invalid(FieldVPCInterfaces, "at most one network interface is allowed")
	}
	for _, i := range v.Interfaces {
		if i.Network == "" && i.Subnetwork == "" {
			return invalid(FieldVPCInterfaces, "a network or a subnetwork is needed")
		}
		for _, text := range append([]string{i.Network, i.Subnetwork}, i.Tags...) {
			if len(text) > 256 || strings.ContainsAny(text, " \t\r\n") {
				return invalid(FieldVPCInterfaces, "%.60q is no name of a network, a subnetwork or a tag", text)
			}
		}
	}
	return nil
}

// NoConnector is why a Serverless VPC Access connector is refused, at the field that names it.
func NoConnector(path string) error {
	return fault.NotImplemented(path, "connectors are not implemented, and none is needed: "+
		"services reach the private addresses that `giggle up --egress-allow CIDR` names; use --network, or leave it out")
}
