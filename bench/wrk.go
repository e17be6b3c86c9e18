package bench

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// wrkRun is what one run of wrk says.
type wrkRun struct {
	requests int
	rate     float64 // requests/s
	p50, p99 time.Duration
	failed   string // what went wrong, in wrk's words
}

// wrk loads a URL over 50 connections. Prefix is a command that it is run by.
func wrk(ctx context.Context, prefix []string, length time.Duration, url, host string) (wrkRun, error) {
	args := append(append([]string(nil), prefix...), "wrk", "-t2", "-c50", "--latency",
		fmt.Sprintf("-d%ds", max(1, int(length.Seconds()))))
	if host != "" {
		args = append(args, "-H", "Host: "+host)
	}
	out, err := exec.CommandContext(ctx, args[0], append(args[1:], url)...).CombinedOutput()
	if err != nil {
		return wrkRun{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(string(out))
}

var (
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec: +([0-9.]+)$`)
	wrkRequests = regexp.MustCompile(`(?m)^ +([0-9]+) requests in `)
	wrkQuantile = regexp.MustCompile(`(?m)^ +(50|99)% +([0-9.]+(?:us|ms|s|m))$`)
	wrkFailed   = regexp.MustCompile(`(?m)^ *(?:Non-2xx or 3xx responses|Socket errors): .*$`)
)

// parseWrk reads what wrk 4 prints.
func parseWrk(text string) (out wrkRun, err error) {
	out.failed = strings.TrimSpace(wrkFailed.FindString(text))
	rate, requests := wrkRate.FindStringSubmatch(text), wrkRequests.FindStringSubmatch(text)
	if rate == nil || requests == nil {
		return out, fmt.Errorf("wrk says %.300q", text)
	}
	if out.rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return out, err
	}
	if out.requests, err = strconv.Atoi(requests[1]); err != nil {
		return out, err
	}
	for _, q := range wrkQuantile.FindAllStringSubmatch(text, -1) {
		d, err := time.ParseDuration(q[2])
		if err != nil {
			return out, err
		}
		if q[1] == "50" {
			out.p50 = d
		} else {
			out.p99 = d
		}
	}
	return out, nil
}
