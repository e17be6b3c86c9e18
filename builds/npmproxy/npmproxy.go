// Package npmproxy is an npm registry that fetches what it has not from another one and keeps it: builds need no open
// network, and fetch a package once.
//
// It serves the containers of source builds. It reads only: packages' documents and tarballs, by the paths of
// https://github.com/npm/registry/blob/main/docs/REGISTRY-API.md. npm itself checks tarballs against the digests of the
// lock file or of the document; what is kept was checked against nothing else.
package npmproxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"giggle/fault"
)

// Config is what New needs.
type Config struct {
	Dir string // of what was fetched
	// Upstream returns the URL of the registry, "https://registry.npmjs.org/", or "off" for none. It is asked for the
	// first time that something is fetched: another program may have to say it.
	Upstream func() string
	Now      func() time.Time
	Log      *slog.Logger
	Client   *http.Client // nil is one with sane limits
	// stands before the files that are written, for the disk reserve; nil lets all through
	Guard func(io.Writer) io.Writer
}

const (
	// documentAge is how long a package's document is used before it is asked for again: tarballs never change,
	// documents grow.
	documentAge = 5 * time.Minute
	maxDocument = 128 << 20
	maxTarball  = 512 << 20
)

// Proxy is the registry. It serves http.
type Proxy struct {
	cfg     Config
	fetches singleflight.Group
}

// New returns a proxy over a directory.
func New(cfg Config) (*Proxy, error) {
	if cfg.Guard == nil {
		cfg.Guard = func(w io.Writer) io.Writer { return w }
	}
	if cfg.Client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout = time.Minute
		cfg.Client = &http.Client{Transport: t, Timeout: 5 * time.Minute}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	half, err := filepath.Glob(filepath.Join(cfg.Dir, ".fetch-*")) // of a crash
	for _, f := range half {
		err = errors.Join(err, os.Remove(f))
	}
	cfg.Upstream = sync.OnceValue(cfg.Upstream)
	return &Proxy{cfg: cfg}, err
}

// CheckUpstream fails with InvalidArgument on what is no URL of a registry, nor "off".
func CheckUpstream(s string) error {
	u, err := url.Parse(s)
	if s == "off" || err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
		return nil
	}
	return fault.New(fault.InvalidArgument, "%.100q is no URL of an npm registry.", s)
}

// The names that npm packages can have (https://docs.npmjs.com/cli/configuring-npm/package-json#name), and what comes
// behind: nothing, a version or tag, or a tarball.
var (
	document = regexp.MustCompile(`^(@[A-Za-z0-9~._-]+/)?[A-Za-z0-9~._-]+(/[A-Za-z0-9~.+_-]+)?$`)
	tarball  = regexp.MustCompile(`^(@[A-Za-z0-9~._-]+/)?[A-Za-z0-9~._-]+/-/[A-Za-z0-9~.+@_-]+\.tgz$`)
)

// ServeHTTP answers with a document or a tarball.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.Trim(r.URL.Path, "/")
	isTarball := tarball.MatchString(name)
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		refuse(w, http.StatusMethodNotAllowed, "This registry is for reading only.")
		return
	case strings.Contains(name, "..") || !isTarball && !document.MatchString(name):
		refuse(w, http.StatusNotFound, "Not found.")
		return
	}
	accept := "application/json"
	if !isTarball && strings.Contains(r.Header.Get("Accept"), "application/vnd.npm.install-v1+json") {
		accept = "application/vnd.npm.install-v1+json"
	}
	file, err := p.get(r.Context(), name, accept, isTarball)
	if err != nil {
		status := http.StatusBadGateway
		if fault.Is(err, fault.NotFound) {
			status = http.StatusNotFound
		} else if r.Context().Err() == nil {
			p.cfg.Log.Warn("npm package", "name", name, "err", err)
		}
		refuse(w, status, fault.From(err).Message)
		return
	}
	defer func() { _ = file.Close() }() // it is only read
	if isTarball {
		accept = "application/octet-stream"
	}
	w.Header().Set("Content-Type", accept)
	http.ServeContent(w, r, "", time.Time{}, file)
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "{\"error\":%q}\n", why)
}

// get returns a file of the cache, fetched if it is missing or, for a document, old. Where the registry can't be
// reached an old document is better than none.
func (p *Proxy) get(ctx context.Context, name, accept string, isTarball bool) (*os.File, error) {
	sum := sha256.Sum256([]byte(accept + " " + name))
	path := filepath.Join(p.cfg.Dir, hex.EncodeToString(sum[:]))
	have, err := os.Stat(path)
	if err == nil && (isTarball || p.cfg.Now().Sub(have.ModTime()) < documentAge) {
		return os.Open(path)
	}
	// Who waits for another's fetch does not end with that one's request.
	_, ferr, _ := p.fetches.Do(path, func() (any, error) {
		return nil, p.fetch(context.WithoutCancel(ctx), name, accept, path, isTarball)
	})
	if ferr != nil && (err != nil || fault.Is(ferr, fault.NotFound)) {
		return nil, ferr
	}
	return os.Open(path)
}

// fetch gets a file from upstream.
func (p *Proxy) fetch(ctx context.Context, name, accept, path string, isTarball bool) (err error) {
	away := func(cause error) error {
		return &fault.Error{
			Code:    fault.Unavailable,
			Message: "The package registry can't be reached, and " + name + " was not fetched before.",
			Cause:   cause,
		}
	}
	upstream := p.cfg.Upstream()
	if err := CheckUpstream(upstream); upstream == "off" || err != nil {
		return away(err)
	}
	limit := int64(maxDocument)
	if isTarball {
		limit = maxTarball
	}
	if !isTarball {
		name = strings.Replace(name, "/", "%2f", strings.Count(name, "@")) // a scope is part of the name
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(upstream, "/")+"/"+name, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", accept)
	res, err := p.cfg.Client.Do(req)
	if err != nil {
		return away(err)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusGone:
		return fault.New(fault.NotFound, "There is no package %s.", name)
	case res.StatusCode != http.StatusOK:
		return away(fmt.Errorf("the registry answers %s", res.Status))
	}
	f, err := os.CreateTemp(p.cfg.Dir, ".fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already after the rename
	n, err := io.Copy(p.cfg.Guard(f), io.LimitReader(res.Body, limit+1))
	if err == nil && n > limit {
		err = fault.New(fault.ResourceExhausted, "%s is larger than %d MB.", name, limit>>20)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	now := p.cfg.Now()
	return errors.Join(os.Chtimes(f.Name(), now, now), os.Rename(f.Name(), path))
}
