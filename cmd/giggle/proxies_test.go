package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestProxies(t *testing.T) {
	lookup := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if host != "proxy.corp.test" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("::ffff:10.0.0.4")}, nil
	}
	for _, row := range []struct {
		env  map[string]string
		want string // variables but NO_PROXY
		at   string
	}{
		{nil, "[]", "[]"},
		{map[string]string{"NO_PROXY": "corp.test"}, "[]", "[]"},
		{map[string]string{"HTTPS_PROXY": "http://proxy.corp.test:3128", "https_proxy": "http://[fd12::3]"},
			"[HTTPS_PROXY=http://proxy.corp.test:3128 https_proxy=http://[fd12::3]]",
			"[10.0.0.3:3128 10.0.0.4:3128 [fd12::3]:80]"},
		{map[string]string{"HTTP_PROXY": "192.168.1.1:8080"}, "[HTTP_PROXY=192.168.1.1:8080]", "[192.168.1.1:8080]"},
		{map[string]string{"HTTP_PROXY": "https://192.168.1.1"}, "[HTTP_PROXY=https://192.168.1.1]", "[192.168.1.1:443]"},
		{map[string]string{"HTTPS_PROXY": "http://127.0.0.1:3128"}, "[]", "[]"},
		{map[string]string{"HTTPS_PROXY": "http://away.test:3128"}, "[]", "[]"},
		{map[string]string{"HTTPS_PROXY": "http://192.168.1.1:99999"}, "[]", "[]"},
	} {
		p := &program{environ: nil}
		for k, v := range row.env {
			p.environ = append(p.environ, k+"="+v)
		}
		env, at := p.proxies(t.Context(), slog.New(slog.DiscardHandler), lookup)
		var direct []string
		env = slices.DeleteFunc(env, func(v string) bool {
			is := strings.HasPrefix(strings.ToUpper(v), "NO_PROXY=")
			if is {
				direct = append(direct, v)
			}
			return is
		})
		if fmt.Sprint(env) != row.want || fmt.Sprint(at) != row.at {
			t.Errorf("%v: %v at %v, want %s at %s", row.env, env, at, row.want, row.at)
		}
		if len(env) > 0 && (len(direct) != 2 || !strings.Contains(direct[0], "169.254.169.254") ||
			!strings.Contains(direct[0], "googleapis.com")) {
			t.Errorf("%v: asked directly are %q", row.env, direct)
		}
	}
}
