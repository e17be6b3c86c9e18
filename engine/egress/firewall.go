package egress

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// dockerUser is the chain that Docker leaves to others, ahead of its own rules
// (https://docs.docker.com/engine/network/packet-filtering-firewalls/).
const dockerUser = "DOCKER-USER"

// Blocking lists the chains of the calling thread's network that drop what a machine would pass on unless a rule of
// theirs lets it through, as "FAMILY TABLE CHAIN". Docker makes one, with a chain for exceptions, which a Router uses;
// others have to be told.
func Blocking() (chains []string, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	found, err := blocking(c)
	for _, chain := range found {
		chains = append(chains, fmt.Sprintf("%s %s %s", familyName(chain.Table.Family), chain.Table.Name, chain.Name))
	}
	return chains, err
}

func blocking(c *nftables.Conn) (found []*nftables.Chain, err error) {
	chains, err := c.ListChains()
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		if chain.Hooknum != nil && *chain.Hooknum == *nftables.ChainHookForward &&
			chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
			found = append(found, chain)
		}
	}
	return found, nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return "table"
}

// passDocker has the machine's Docker, if it has one, let the uplink's packets through, and warns of other firewalls
// that drop them. It runs on a thread in the machine's network.
func (r *Router) passDocker() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	chains, err := blocking(c)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		exceptions, err := c.ListChain(chain.Table, dockerUser)
		if err != nil {
			r.cfg.Log.Warn("a firewall of this machine drops forwarded packets: containers may not reach the outside",
				"chain", fmt.Sprintf("%s %s %s", familyName(chain.Table.Family), chain.Table.Name, chain.Name),
				"fix", fmt.Sprintf("allow forwarding from and to %s", r.hostDevice()))
			continue
		}
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			c.InsertRule(&nftables.Rule{
				Table:    chain.Table,
				Chain:    exceptions,
				Exprs:    append(through(key, expr.CmpOpEq, r.hostDevice()), verdict(expr.VerdictAccept)...),
				UserData: []byte(r.hostTable()),
			})
		}
	}
	return c.Flush()
}

// unpassDocker takes the exceptions away.
func (r *Router) unpassDocker(c *nftables.Conn) error {
	chains, err := blocking(c)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		exceptions, err := c.ListChain(chain.Table, dockerUser)
		if err != nil {
			continue // it has none
		}
		rules, err := c.GetRules(chain.Table, exceptions)
		if err != nil {
			return err
		}
		for _, rule := range rules {
			if string(rule.UserData) == r.hostTable() {
				if err := c.DelRule(rule); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
