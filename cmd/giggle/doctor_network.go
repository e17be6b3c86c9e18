package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"giggle/engine/egress"
	"giggle/fault"
)

// surroundings are the hosts of the outside that doctor asks, and for how long.
type surroundings struct {
	clock   string        // URL of a server whose clock is right
	token   string        // URL of Docker Hub's token service, with the query for an image that is there to be asked about
	limit   string        // URL of that image's manifest
	timeout time.Duration // of each
	now     func() time.Time
}

// realSurroundings are those of the internet (https://docs.docker.com/docker-hub/usage/pulls/).
var realSurroundings = surroundings{
	clock:   "https://www.googleapis.com/",
	token:   "https://auth.docker.io/token?service=registry.docker.io&scope=repository:ratelimitpreview/test:pull",
	limit:   "https://registry-1.docker.io/v2/ratelimitpreview/test/manifests/latest",
	timeout: 3 * time.Second,
	now:     time.Now,
}

// examineNetwork says whether the machine has a network, what containers and builds reach of it, and what stands in
// between. It asks hosts of the outside only where there is a default route and egress is not off.
func examineNetwork(ctx context.Context, getenv func(string) string, s surroundings) []finding {
	v4, err4 := egress.DefaultRoute(false)
	v6, err6 := egress.DefaultRoute(true)
	online := v4 != "" || v6 != ""
	network := finding{Check: "network", State: "ok"}
	switch {
	case err4 != nil && err6 != nil:
		network.State, network.Detail = "warn", err4.Error()
		network.Fix = "without the machine's routes nobody can tell"
	case !online:
		network.Detail = "no default route: containers and builds have what is on this machine"
	default:
		var ways []string
		for _, w := range []struct{ kind, device string }{{"IPv4", v4}, {"IPv6", v6}} {
			if w.device == "" {
				ways = append(ways, "no "+w.kind)
			} else {
				ways = append(ways, w.kind+" by "+w.device)
			}
		}
		network.Detail = strings.Join(ways, ", ")
	}
	mode := getenv("GIGGLE_EGRESS")
	out := []finding{network, egressFinding(mode, online, egress.Available(), egress.Possible())}
	if chains, err := egress.Blocking(); err == nil && len(chains) > 0 && online {
		out = append(out, finding{
			Check:  "firewall",
			State:  "ok",
			Detail: "forwarded packets are dropped by " + strings.Join(chains, ", ") + "; exceptions are made in DOCKER-USER, where there is one",
		})
	}
	out = append(out, proxyFinding(getenv))
	if !online || mode == "off" {
		return out
	}
	var wg sync.WaitGroup
	asked := make([]finding, 2)
	for i, ask := range []func(context.Context) finding{s.askClock, s.askLimit} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, s.timeout)
			defer cancel()
			asked[i] = ask(ctx)
		})
	}
	wg.Wait()
	return append(out, asked...)
}

// egressFinding says which egress applies to a platform that is started without --egress, and by which means.
func egressFinding(mode string, online bool, missing, impossible error) finding {
	f := finding{Check: "egress", State: "ok"}
	switch {
	case mode == "off":
		f.Detail = "off (GIGGLE_EGRESS)"
	case missing != nil:
		f.State, f.Detail = "warn", "none: there is no TUN device"
		f.Fix = "`modprobe tun`; in a container, give it /dev/net/tun"
	case mode == "all":
		f.Detail = "all addresses but link-local and loopback ones (GIGGLE_EGRESS)"
	case !online:
		f.Detail = "none until there is a default route; then public addresses, and what --egress-allow names"
	default:
		f.Detail = "public addresses, and what --egress-allow names"
	}
	switch {
	case mode == "off" || missing != nil:
	case impossible == nil:
		f.Detail += "; by the kernel"
	default:
		f.Detail += "; in userspace, TCP and UDP only, which is slower. " + fault.From(impossible).Message
	}
	return f
}

// proxyFinding says which proxies the environment names, without their passwords.
func proxyFinding(getenv func(string) string) finding {
	var set []string
	for _, name := range proxyVariables {
		v := getenv(name)
		if v == "" {
			continue
		}
		if u, err := url.Parse(v); err == nil && u.User != nil {
			v = u.Redacted()
		}
		set = append(set, name+"="+v)
	}
	if set == nil {
		return finding{Check: "proxy", State: "ok", Detail: "none"}
	}
	return finding{
		Check:  "proxy",
		State:  "ok",
		Detail: strings.Join(set, " ") + ": for pulls of images, and passed on to builds",
	}
}

// proxyVariables are what curl, Go and others go by.
var proxyVariables = []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"}

// maxAnswer bounds what a host of the outside may answer, in bytes.
const maxAnswer = 64 << 10

func get(ctx context.Context, method, address, token string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: http.DefaultTransport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return res, b, err
}

// mostSkew is how wrong a clock may be: tokens hold for an hour, and their beginnings are checked.
const mostSkew = 30 * time.Second

// askClock compares the clock with a server's, to a second.
func (s surroundings) askClock(ctx context.Context) finding {
	f := finding{Check: "clock skew", State: "ok"}
	res, _, err := get(ctx, http.MethodHead, s.clock, "")
	if err != nil {
		f.State, f.Detail = "warn", "not known: "+err.Error()
		f.Fix = "there is a default route, but no answer: check the network, or start with --egress=off"
		return f
	}
	server, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		f.Detail = "not known: the server said no time"
		return f
	}
	skew := s.now().Sub(server).Round(time.Second)
	f.Detail = fmt.Sprintf("%s to %s", skew, res.Request.URL.Host)
	if skew.Abs() > mostSkew {
		f.State, f.Fix = "warn", "set the clock, such as by `timedatectl set-ntp true`: certificates and tokens depend on it"
	}
	return f
}

// askLimit asks Docker Hub how many images may still be pulled from this address.
func (s surroundings) askLimit(ctx context.Context) finding {
	f := finding{Check: "Docker Hub", State: "ok"}
	fail := func(err error) finding {
		f.State, f.Detail = "warn", "can't be asked: "+err.Error()
		f.Fix = "images come out of the mirror until it can: giggle images ls"
		return f
	}
	_, b, err := get(ctx, http.MethodGet, s.token, "")
	if err != nil {
		return fail(err)
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return fail(fmt.Errorf("its token service answers no JSON: %w", err))
	}
	res, _, err := get(ctx, http.MethodHead, s.limit, answer.Token) // a HEAD counts for nothing
	if err != nil {
		return fail(err)
	}
	left, _, _ := strings.Cut(res.Header.Get("RateLimit-Remaining"), ";")
	limit, window, _ := strings.Cut(res.Header.Get("RateLimit-Limit"), ";")
	switch {
	case res.StatusCode == http.StatusTooManyRequests, left == "0":
		f.State, f.Detail = "warn", "no pull is left to this address"
		f.Fix = "wait, or `sudo giggle images login docker.io -u USER --password-stdin`"
	case left == "":
		f.Detail = "no limit was named"
	default:
		f.Detail = fmt.Sprintf("%s of %s pulls are left to this address", left, limit)
		if seconds, ok := strings.CutPrefix(window, "w="); ok {
			if d, err := time.ParseDuration(seconds + "s"); err == nil {
				f.Detail += " in " + d.String()
			}
		}
	}
	return f
}
