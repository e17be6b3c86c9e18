package modproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"giggle/fault"
)

// upstream is one entry of GOPROXY.
type upstream struct {
	base string // URL without a slash at its end
	any  bool   // after any error the next one is asked (a bar in GOPROXY); else after 404 and 410 only (a comma)
}

// parseUpstream reads a GOPROXY list (go.dev/ref/mod#goproxy-protocol). Nothing after "direct" or "off" counts: this
// proxy fetches from no version control.
func parseUpstream(list string) []upstream {
	var out []upstream
	for list != "" {
		u := upstream{base: list}
		if i := strings.IndexAny(list, ",|"); i >= 0 {
			u, list = upstream{list[:i], list[i] == '|'}, list[i+1:]
		} else {
			list = ""
		}
		u.base = strings.TrimSuffix(strings.TrimSpace(u.base), "/")
		if u.base == "direct" || u.base == "off" {
			break
		}
		for _, scheme := range []string{"http://", "https://", "file://"} {
			if strings.HasPrefix(u.base, scheme) {
				out = append(out, u)
			}
		}
	}
	return out
}

// fetch asks the upstreams in turn, and keeps the answer.
func (p *Proxy) fetch(ctx context.Context, q request, file string) error {
	err := error(fault.New(fault.NotFound, "not found: no module proxy to ask (GOPROXY has none)"))
	for _, u := range p.upstream() {
		err = p.fetchFrom(ctx, u.base+"/"+(&url.URL{Path: q.path}).EscapedPath(), file)
		if err == nil || !u.any && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return err
}

// fetchFrom keeps what one URL answers. No error names the URL: it may hold a password.
func (p *Proxy) fetchFrom(ctx context.Context, url, file string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fault.New(fault.Unavailable, "the module proxy upstream has no valid URL")
	}
	res, err := p.cfg.Client.Do(req)
	if err != nil {
		return fault.New(fault.Unavailable, "the module proxy upstream can't be reached: is there a network?")
	}
	defer func() { _ = res.Body.Close() }() // what matters was read
	switch res.StatusCode {
	case http.StatusOK:
		return p.keep(res.Body, file)
	case http.StatusNotFound, http.StatusGone:
		return fault.New(fault.NotFound, "not found: %s", reason(res.Body))
	case http.StatusForbidden, http.StatusUnauthorized:
		return fault.New(fault.PermissionDenied, "the module proxy upstream refuses: %s", reason(res.Body))
	}
	return fault.New(fault.Unavailable, "the module proxy upstream answers %d", res.StatusCode)
}

// reason is the upstream's text, which the go command shows to the user.
func reason(body io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(body, 1000)) // as much of it as came
	return strings.TrimPrefix(strings.TrimSpace(string(text)), "not found: ")
}

// keep writes an answer to its file: all of it or nothing.
func (p *Proxy) keep(body io.Reader, file string) (err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(p.cfg.Dir, ".fetch-")
	if err != nil {
		return err
	}
	defer func() {
		if e := os.Remove(tmp.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	n, err := io.Copy(p.cfg.Guard(tmp), io.LimitReader(body, p.cfg.MaxFile+1))
	if err == nil && n > p.cfg.MaxFile {
		err = fmt.Errorf("a file larger than %d bytes", p.cfg.MaxFile)
	}
	if err == nil {
		err = tmp.Sync() // a version is never fetched again: half of one would stay
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		if fault.Is(err, fault.ResourceExhausted) {
			return err
		}
		return fault.New(fault.Unavailable, "the module proxy upstream broke off: %v", err)
	}
	return os.Rename(tmp.Name(), file)
}
