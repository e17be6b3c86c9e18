// Package modproxy is a Go module proxy that fetches what it has not from another one and keeps it: builds are
// repeatable, need no open network, and fetch a module once.
//
// It serves the containers of source builds. The protocol is https://go.dev/ref/mod#goproxy-protocol; the checksum
// database is passed through. It never fetches from version control.
package modproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/sync/singleflight"

	"giggle/fault"
)

// Config is what New needs.
type Config struct {
	Dir      string // of what was fetched
	Upstream string // GOPROXY's list: URLs with commas or bars between them; direct and off are left out
	Now      func() time.Time
	Log      *slog.Logger
	Client   *http.Client // nil is one with sane limits
}

// maxFile bounds one fetched file: the go command refuses module zips over 500 MiB (go.dev/ref/mod#zip-path-size-constraints).
const maxFile = 500 << 20

// listAge is how long a list of versions is used before it is asked for again: versions never change, lists grow.
const listAge = 5 * time.Minute

// Proxy is the module proxy. It serves http.
type Proxy struct {
	cfg      Config
	upstream []string
	fetches  singleflight.Group
}

// New returns a proxy over the directory.
func New(cfg Config) (*Proxy, error) {
	p := &Proxy{cfg: cfg}
	for _, u := range strings.FieldsFunc(cfg.Upstream, func(r rune) bool { return r == ',' || r == '|' }) {
		if u = strings.TrimSuffix(strings.TrimSpace(u), "/"); strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "file://") {
			p.upstream = append(p.upstream, u)
		}
	}
	if p.cfg.Client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
		p.cfg.Client = &http.Client{Transport: t, Timeout: 5 * time.Minute}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	half, err := filepath.Glob(filepath.Join(cfg.Dir, ".fetch-*")) // of a crash
	for _, f := range half {
		err = errors.Join(err, os.Remove(f))
	}
	return p, err
}

// request is a path of the protocol, taken apart.
type request struct {
	path    string // escaped, without the leading slash: what upstream is asked for, and the file's place
	mutable bool   // the answer may change: a list of versions
	sumdb   bool
}

// parse reads a path of the module proxy protocol. It fails with NotFound on anything else.
func parse(p string) (request, error) {
	none := fault.New(fault.NotFound, "not found: this is not a path of the module proxy protocol")
	p = strings.TrimPrefix(p, "/")
	if len(p) > 2048 || p != path.Clean(p) || strings.ContainsAny(p, "\\\x00") {
		return request{}, none
	}
	if rest, ok := strings.CutPrefix(p, "sumdb/"); ok {
		name, tail, ok := strings.Cut(rest, "/")
		fine := tail == "supported" || tail == "latest" || strings.HasPrefix(tail, "lookup/") || strings.HasPrefix(tail, "tile/")
		if !ok || !fine || name == "" || strings.ContainsAny(name, "@:%") {
			return request{}, none
		}
		return request{path: p, sumdb: true, mutable: tail == "latest" || tail == "supported"}, nil
	}
	escaped, rest, ok := strings.Cut(p, "/@")
	if !ok {
		return request{}, none
	}
	if name, err := module.UnescapePath(escaped); err != nil || module.CheckPath(name) != nil {
		return request{}, none
	}
	if rest == "latest" || rest == "v/list" {
		return request{path: p, mutable: true}, nil
	}
	file, ok := strings.CutPrefix(rest, "v/")
	ext := path.Ext(file)
	if !ok || ext != ".info" && ext != ".mod" && ext != ".zip" {
		return request{}, none
	}
	version, err := module.UnescapeVersion(strings.TrimSuffix(file, ext))
	if err != nil || strings.Contains(version, "/") {
		return request{}, none
	}
	// A branch or commit in place of a version may mean another one tomorrow.
	return request{path: p, mutable: !semver.IsValid(version)}, nil
}

// ServeHTTP answers one request of the go command.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "only GET is allowed", http.StatusMethodNotAllowed)
		return
	}
	q, err := parse(r.URL.Path)
	if err != nil {
		http.Error(w, fault.From(err).Message, http.StatusNotFound)
		return
	}
	file, err := p.get(r.Context(), q)
	if err != nil {
		f := fault.From(err)
		status := http.StatusBadGateway
		switch f.Code {
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.Internal:
			p.cfg.Log.Error("module proxy", "path", q.path, "err", err)
		}
		http.Error(w, f.Message, status)
		return
	}
	http.ServeFile(w, r, file)
}

// SumDB reports whether the checksum database can be reached through the upstream.
func (p *Proxy) SumDB(ctx context.Context) bool {
	_, err := p.get(ctx, request{path: "sumdb/sum.golang.org/supported", sumdb: true, mutable: true})
	return err == nil
}

// get returns the file with the answer: a kept one if it may be used, else fetched.
func (p *Proxy) get(ctx context.Context, q request) (string, error) {
	file := filepath.Join(p.cfg.Dir, filepath.FromSlash(q.path))
	if !filepath.IsLocal(filepath.FromSlash(q.path)) {
		return "", fault.New(fault.NotFound, "not found")
	}
	st, err := os.Stat(file)
	if err == nil && (!q.mutable || p.cfg.Now().Sub(st.ModTime()) < listAge) {
		return file, nil
	}
	kept := err == nil
	// All who ask for the same file share one fetch, which no one of them can cancel.
	_, err, _ = p.fetches.Do(q.path, func() (any, error) {
		return nil, p.fetch(context.WithoutCancel(ctx), q, file)
	})
	if err != nil && kept && !fault.Is(err, fault.NotFound) {
		return file, nil // upstream is away: an older list is better than none
	}
	return file, err
}

// fetch asks the upstreams in turn, and keeps the answer.
func (p *Proxy) fetch(ctx context.Context, q request, file string) error {
	last := error(fault.New(fault.NotFound, "not found: no module proxy to ask (GOPROXY has none)"))
	for _, base := range p.upstream {
		err := p.fetchFrom(ctx, base+"/"+q.path, file)
		if err == nil {
			return nil
		}
		last = err
	}
	return last
}

func (p *Proxy) fetchFrom(ctx context.Context, url, file string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := p.cfg.Client.Do(req)
	if err != nil {
		return fault.New(fault.Unavailable, "the module proxy upstream can't be reached: is there a network?")
	}
	defer func() { _ = res.Body.Close() }() // what matters was read
	switch {
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone || res.StatusCode == http.StatusForbidden:
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fault.New(fault.NotFound, "not found: %s", strings.TrimSpace(string(text)))
	case res.StatusCode != http.StatusOK:
		return fault.New(fault.Unavailable, "the module proxy upstream answers %d", res.StatusCode)
	}
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
	n, err := io.Copy(tmp, io.LimitReader(res.Body, maxFile+1))
	if n > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fault.New(fault.Unavailable, "the module proxy upstream broke off: %v", err)
	}
	return os.Rename(tmp.Name(), file)
}
