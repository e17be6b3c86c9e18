package main

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"giggle/edge"
	"giggle/engine/egress"
)

// proxies returns the machine's proxies as builds get them, by the variables that programs go by, and where they are:
// addresses that builds must reach. The platform's own names are never asked of a proxy. A proxy that builds can't
// reach is left out, and said.
func (p *program) proxies(
	ctx context.Context, log *slog.Logger, lookup func(ctx context.Context, network, host string) ([]netip.Addr, error),
) (env []string, at []egress.Allow) {
	for _, name := range proxyVariables {
		v := p.getenv(name)
		if v == "" || strings.EqualFold(name, "NO_PROXY") {
			continue
		}
		where, err := proxyAddress(ctx, v, lookup)
		if err != nil || len(where) == 0 {
			log.Warn("builds can't use a proxy of this machine", "variable", name, "err", err,
				"fix", "name one that is not on this machine's loopback")
			continue
		}
		env, at = append(env, name+"="+v), append(at, where...)
	}
	if env == nil {
		return nil, nil
	}
	direct := append([]string{"localhost", "127.0.0.1", "169.254.169.254"}, edge.Zones()...)
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if v := p.getenv(name); v != "" {
			env = append(env, name+"="+v+","+strings.Join(direct, ","))
		} else {
			env = append(env, name+"="+strings.Join(direct, ","))
		}
	}
	return env, at
}

// proxyAddress returns where a proxy is; nothing for one on the loopback device, which no container reaches.
func proxyAddress(
	ctx context.Context, proxy string, lookup func(ctx context.Context, network, host string) ([]netip.Addr, error),
) (out []egress.Allow, err error) {
	u, err := url.Parse(proxy)
	if err != nil || u.Host == "" {
		if u, err = url.Parse("http://" + proxy); err != nil { // as curl and Go read "proxy:3128"
			return nil, err
		}
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	addresses := []netip.Addr{}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		addresses = append(addresses, a)
	} else {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if addresses, err = lookup(ctx, "ip", u.Hostname()); err != nil {
			return nil, err
		}
	}
	for _, a := range addresses {
		if a = a.Unmap().WithZone(""); !a.IsLoopback() && !a.IsUnspecified() {
			out = append(out, egress.Allow{To: netip.PrefixFrom(a, a.BitLen()), Port: uint16(n)})
		}
	}
	return out, nil
}
