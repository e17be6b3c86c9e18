package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"giggle/engine/egress/testnet"
	"giggle/engine/netns"
	"giggle/fault"
)

// What a machine's network is like, told from the inside; nobody is asked who wasn't made here.
func TestDoctorOnNetworks(t *testing.T) {
	net, err := testnet.New(1400)
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	cut, err := netns.Bare()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	for _, row := range []struct {
		name string
		at   *netns.Namespace
		env  map[string]string
		want []string // "CHECK STATE: part of the detail"
	}{
		{"cut off", cut, nil, []string{
			"network ok: no default route", "egress ok: none until there is a default route", "proxy ok: none",
		}},
		{"off", net.Machine, map[string]string{"GIGGLE_EGRESS": "off"}, []string{
			"network ok: IPv4 by eth0, IPv6 by eth0", "egress ok: off", "proxy ok: none",
		}},
		{"proxy", cut, map[string]string{"HTTPS_PROXY": "http://me:secret@proxy.test:3128"}, []string{
			"network ok:", "egress ok:", "proxy ok: HTTPS_PROXY=http://me:xxxxx@proxy.test:3128",
		}},
		{"nobody answers", net.Machine, nil, []string{
			"network ok:", "egress ok: public", "proxy ok:", "clock skew warn: not known", "Docker Hub warn: can't be asked",
		}},
	} {
		var got []finding
		nobody := surroundings{clock: "https://127.0.0.1:1/", token: "https://127.0.0.1:1/", timeout: time.Minute}
		if err := row.at.Do(func() error {
			// Those that ask do so on threads of their own, which are in the network of the tests.
			got = examineNetwork(t.Context(), func(name string) string { return row.env[name] }, nobody)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(row.want) {
			t.Errorf("%s: %+v", row.name, got)
			continue
		}
		for i, want := range row.want {
			if text := got[i].Check + " " + got[i].State + ": " + got[i].Detail; !strings.HasPrefix(text, want) {
				t.Errorf("%s: %q, want %q", row.name, text, want)
			}
		}
	}
}

// A machine without a TUN device has no egress, and that is no failure where it is off anyway.
func TestDoctorOnEgress(t *testing.T) {
	missing, denied := errors.New("no such device"), fault.New(fault.Unavailable, "No veth pair.")
	for _, row := range []struct {
		mode       string
		online     bool
		missing    error
		impossible error
		want       string
	}{
		{"", true, nil, nil, "ok public addresses, and what --egress-allow names; by the kernel"},
		{"", false, nil, nil,
			"ok none until there is a default route; then public addresses, and what --egress-allow names; by the kernel"},
		{"all", true, nil, nil, "ok all addresses but link-local and loopback ones (GIGGLE_EGRESS); by the kernel"},
		{"", true, missing, nil, "warn none: there is no TUN device"},
		{"off", true, missing, nil, "ok off (GIGGLE_EGRESS)"},
		{"off", true, nil, denied, "ok off (GIGGLE_EGRESS)"},
		{"", true, nil, denied, "ok public addresses, and what --egress-allow names; in userspace, TCP and UDP only, " +
			"which is slower. No veth pair."},
	} {
		f := egressFinding(row.mode, row.online, row.missing, row.impossible)
		if got := f.State + " " + f.Detail; got != row.want || (f.State == "warn") != (f.Fix != "") {
			t.Errorf("%+v: %+v", row, f)
		}
	}
}

// The clock, and what Docker Hub says of its limit.
func TestDoctorAsks(t *testing.T) {
	clock := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	var limit http.Header
	status := http.StatusOK
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"token":"t0ken"}`)) })
	mux.HandleFunc("HEAD /manifest", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t0ken" {
			t.Error("the token is not sent")
		}
		for k, v := range limit {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
	})
	mux.HandleFunc("HEAD /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", clock.Format(http.TimeFormat))
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, row := range []struct {
		skew        time.Duration
		limit       http.Header
		status      int
		clock, pull string
	}{
		{time.Second, http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"76;w=21600"}}, 200,
			"ok 1s to", "ok 76 of 100 pulls are left to this address in 6h0m0s"},
		{-time.Hour, http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"0;w=21600"}}, 200,
			"warn -1h0m0s to", "warn no pull is left"},
		{0, nil, 200, "ok 0s to", "ok no limit was named"},
		{0, nil, 429, "ok 0s to", "warn no pull is left"},
	} {
		limit, status = row.limit, row.status
		s := surroundings{
			clock: server.URL + "/",
			token: server.URL + "/token",
			limit: server.URL + "/manifest",
			now:   func() time.Time { return clock.Add(row.skew) },
		}
		if f := s.askClock(t.Context()); !strings.HasPrefix(f.State+" "+f.Detail, row.clock) {
			t.Errorf("clock: %+v, want %s", f, row.clock)
		}
		if f := s.askLimit(t.Context()); f.State+" "+f.Detail != row.pull &&
			!strings.HasPrefix(f.State+" "+f.Detail, row.pull+" ") {
			t.Errorf("limit: %+v, want %s", f, row.pull)
		}
	}
}
