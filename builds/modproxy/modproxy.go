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
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/sync/singleflight"

	"giggle/fault"
)

// Config is what New needs.
type Config struct {
	Dir string // of what was fetched
	// Upstream returns GOPROXY's list: URLs with commas or bars between them; it ends at direct or off. It is asked for
	// the first time that something is fetched: another program may have to say it.
	Upstream func() string
	Now      func() time.Time
	Log      *slog.Logger
	Client   *http.Client // nil is one with sane limits
	// stands before the files that are written, for the disk reserve; nil lets all through
	Guard   func(io.Writer) io.Writer
	MaxFile int64 // bytes of one fetched file; 0 for what the go command takes
}

// maxZip is the largest module that the go command takes (go.dev/ref/mod#zip-path-size-constraints).
const maxZip = 500 << 20

// listAge is how long a list of versions is used before it is asked for again: versions never change, lists grow.
const listAge = 5 * time.Minute

// sumDBWait is how long a build waits to learn whether the checksum database is there, and sumDBAge how long the
// answer that it is not is believed: without a network not every build should wait.
const (
	sumDBWait = 3 * time.Second
	sumDBAge  = time.Minute
)

// Proxy is the module proxy. It serves http.
type Proxy struct {
	cfg      Config
	upstream func() []upstream
	fetches  singleflight.Group

	mu        sync.Mutex
	sumDBAway time.Time // when the checksum database could last not be reached
}

// onlyHTTP is an http.Client's CheckRedirect: a list of proxies may name a directory, but what a proxy answers may not
// lead to one, which would be read as root.
func onlyHTTP(r *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("modproxy: too many redirects")
	}
	if s := r.URL.Scheme; s != "https" && (s != "http" || via[0].URL.Scheme != "http") {
		return fmt.Errorf("modproxy: a redirect to %.10q", s)
	}
	return nil
}

// New returns a proxy over the directory.
func New(cfg Config) (*Proxy, error) {
	if cfg.MaxFile == 0 {
		cfg.MaxFile = maxZip
	}
	if cfg.Guard == nil {
		cfg.Guard = func(w io.Writer) io.Writer { return w }
	}
	p := &Proxy{cfg: cfg, upstream: sync.OnceValue(func() []upstream { return parseUpstream(cfg.Upstream()) })}
	if p.cfg.Client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = time.Minute
		t.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
		p.cfg.Client = &http.Client{Transport: t, Timeout: 5 * time.Minute, CheckRedirect: onlyHTTP}
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
		fine := tail == "supported" || tail == "latest" || strings.HasPrefix(tail, "lookup/") ||
			strings.HasPrefix(tail, "tile/")
		if !ok || !fine || name == "" || strings.ContainsAny(name, "@:%") {
			return request{}, none
		}
		return request{path: p, mutable: tail == "latest" || tail == "supported"}, nil
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
	// A branch, or v1 in place of a whole version, may mean another one tomorrow.
	return request{path: p, mutable: module.CanonicalVersion(version) != version}, nil
}

// ServeHTTP answers one request of the go command.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "only GET is allowed", http.StatusMethodNotAllowed)
		return
	}
	f, err := p.open(r.Context(), r.URL.Path)
	if err != nil {
		f := fault.From(err)
		status := http.StatusBadGateway // 404 would mean: there is no such version
		switch f.Code {
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.PermissionDenied:
			status = http.StatusForbidden
		case fault.Internal:
			p.cfg.Log.Error("module proxy", "path", r.URL.Path, "err", err)
		}
		http.Error(w, f.Message, status)
		return
	}
	defer func() { _ = f.Close() }() // it was only read
	kind := "text/plain; charset=utf-8"
	switch path.Ext(r.URL.Path) {
	case ".zip":
		kind = "application/zip"
	case ".info":
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (p *Proxy) open(ctx context.Context, path string) (*os.File, error) {
	q, err := parse(path)
	if err != nil {
		return nil, err
	}
	file, err := p.get(ctx, q)
	if err != nil {
		return nil, err
	}
	return os.Open(file)
}

// SumDB reports whether the checksum database can be reached through the upstream. It answers within seconds.
func (p *Proxy) SumDB(ctx context.Context) bool {
	p.mu.Lock()
	away := p.cfg.Now().Sub(p.sumDBAway) < sumDBAge
	p.mu.Unlock()
	if away {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, sumDBWait)
	defer cancel()
	_, err := p.get(ctx, request{path: "sumdb/sum.golang.org/supported", mutable: true})
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sumDBAway = p.cfg.Now()
	}
	return err == nil
}

// get returns the file with the answer: a kept one if it may be used, else fetched.
func (p *Proxy) get(ctx context.Context, q request) (string, error) {
	file := filepath.Join(p.cfg.Dir, filepath.FromSlash(q.path))
	if !filepath.IsLocal(filepath.FromSlash(q.path)) {
		return "", fault.New(fault.NotFound, "not found")
	}
	st, err := os.Stat(file)
	kept := err == nil && st.Mode().IsRegular()
	if kept && (!q.mutable || p.cfg.Now().Sub(st.ModTime()) < listAge) {
		return file, nil
	}
	// All who ask for the same file share one fetch, which no one of them can cancel.
	shared := p.fetches.DoChan(q.path, func() (any, error) {
		return nil, p.fetch(context.WithoutCancel(ctx), q, file)
	})
	select {
	case res := <-shared:
		err = res.Err
	case <-ctx.Done():
		err = fault.New(fault.Unavailable, "the module proxy upstream did not answer in time")
	}
	if err != nil && kept && !fault.Is(err, fault.NotFound) {
		return file, nil // upstream is away: an older list is better than none
	}
	return file, err
}
