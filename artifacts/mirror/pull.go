package mirror

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/sys/unix"

	"giggle/blob"
	"giggle/fault"
	"giggle/oci"
)

// Policy says whether, and how, foreign images are fetched from their registries when they are asked for. The zero
// value is never.
type Policy struct {
	Allowed    bool
	Limit      int64      // bytes of the cache; 0 for DefaultLimit
	Registries []Registry // that there is something to say of
	// Proxy returns the proxy of this machine for an address, nil for none; it may be nil.
	Proxy func(*url.URL) (*url.URL, error)
}

// DefaultLimit is how many bytes of foreign images are cached.
const DefaultLimit = 20 << 30

// PullerConfig is what a Puller needs.
type PullerConfig struct {
	Mirror *Mirror
	Policy Policy
	// Own reports whether an image of a name can only be the platform's own: it is never asked for elsewhere.
	Own func(familiar string) bool
	// Inside says that a registry may be anywhere, since root has named it.
	Inside bool
	Now    func() time.Time
	Log    *slog.Logger
	Stalls time.Duration // after which a connection on which nothing comes is given up; 0 for 30 s
	Pause  time.Duration // before a broken download goes on; 0 for half a second
}

// Puller finds foreign images: those that were added by hand, else those of their registries, kept in a cache beside
// them, else what was made here in their place.
type Puller struct {
	cfg       PullerConfig
	downloads *downloads // into the cache

	mu      sync.Mutex
	flights map[string]*flight // by familiar name
	later   map[string]rest    // by host or familiar name: what was asked for in vain
	coming  int64              // bytes of the images that are being pulled
}

// rest is until when a registry is not asked again where there is something else to take, and why.
type rest struct {
	until  time.Time
	length time.Duration
	err    error
}

const (
	restTime  = time.Minute
	restCount = 1000
	// impatience bounds how long a registry is waited for where there is something else to take.
	impatience = 5 * time.Second
	patience   = time.Minute // else
)

// NewPuller returns a Puller over a mirror.
func NewPuller(cfg PullerConfig) (*Puller, error) {
	if cfg.Policy.Limit == 0 {
		cfg.Policy.Limit = DefaultLimit
	}
	if cfg.Stalls == 0 {
		cfg.Stalls = 30 * time.Second
	}
	if cfg.Pause == 0 {
		cfg.Pause = 500 * time.Millisecond
	}
	return &Puller{cfg: cfg, flights: map[string]*flight{}, later: map[string]rest{}}, nil
}

// Found is a foreign image on this machine.
type Found struct {
	Digest string // of the manifest
	Index  string // digest of the index that it was chosen from, "" for none
	Kind   Kind
	Size   int64 // compressed bytes
	name   string
}

// Find finds an image by its familiar name, and pulls it where that is allowed. Say is told, a line at a time, what
// goes on; it may be nil. It fails with NotFound where pulls are not allowed; else the fault says why the image can't
// be pulled.
func (p *Puller) Find(ctx context.Context, familiar string, say func(line string)) (Found, error) {
	if say == nil {
		say = func(string) {}
	}
	local, missing := p.cfg.Mirror.find(familiar)
	if missing != nil && !fault.Is(missing, fault.NotFound) {
		return Found{}, missing
	}
	if missing == nil && local.Kind == Added {
		return Found{Digest: local.Digest, Index: local.Index, Kind: Added, Size: local.Size, name: local.Name}, nil
	}
	have, ok, err := p.cfg.Mirror.findCached(familiar)
	if err != nil {
		return Found{}, err
	}
	now := p.cfg.Now()
	pinned := strings.Contains(familiar, "@")
	mayPull := p.cfg.Policy.Allowed && !p.cfg.Own(familiar)
	if ok && (pinned || !mayPull || now.Sub(have.Checked).Abs() < fresh) {
		return p.use(ctx, have)
	}
	standIn := Found{Digest: local.Digest, Index: local.Index, Kind: MadeStand, Size: local.Size, name: local.Name}
	fallback := func() (Found, error) {
		if ok {
			return p.use(ctx, have)
		}
		return standIn, missing
	}
	if !mayPull {
		return fallback()
	}
	something := ok || missing == nil
	ref, err := name.ParseReference(familiar)
	if err != nil {
		return Found{}, fault.New(fault.InvalidArgument, "%.200q is not the name of an image.", familiar)
	}
	host := ref.Context().RegistryStr()
	if err := p.resting(host, familiar); err != nil && something {
		return fallback()
	}
	found, err := p.join(ctx, familiar, say, func(ctx context.Context, say func(string)) (Found, error) {
		return p.pull(ctx, ref, familiar, have, something, say)
	})
	if err == nil {
		p.answered(host)
	}
	if err == nil || ctx.Err() != nil {
		return found, err
	}
	if something && (passing(err) || !ok) { // what was made here has names that no registry knows
		p.rest(host, familiar, err)
		if passing(err) {
			what := "what was pulled before"
			if !ok {
				what = "what was made here in its place"
			}
			say(fmt.Sprintf("warning: %s: %s Using %s.", familiar, fault.From(err).Message, what))
			p.cfg.Log.Warn("a foreign image can't be pulled", "image", familiar, "err", err, "using", what)
		}
		return fallback()
	}
	return Found{}, unpulled(familiar, err)
}

// unpulled is the fault of an image that can't be pulled.
func unpulled(name string, err error) error {
	f := *fault.From(err)
	f.Message, f.Cause = fmt.Sprintf("The image %.200s can't be pulled: %s", name, f.Message), err
	return &f
}

// use notes that a cached image was asked for.
func (p *Puller) use(ctx context.Context, c cached) (Found, error) {
	now := p.cfg.Now()
	if now.Sub(c.Used) > useful {
		// The times order what is collected. One that can't be noted, on a disk that is full, is no reason to fail.
		if err := p.cfg.Mirror.touch(ctx, c.Name, func(c *cached) { c.Used = now.UTC() }); err != nil {
			p.cfg.Log.Warn("note the use of a cached image", "image", c.Name, "err", err)
		}
	}
	return Found{Digest: c.Digest, Index: c.Index, Kind: Cached, Size: c.Size, name: c.Name}, nil
}

// resting returns why a registry is not to be asked now.
func (p *Puller) resting(keys ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range keys {
		if r, ok := p.later[key]; ok && p.cfg.Now().Before(r.until) {
			return r.err
		}
	}
	return nil
}

// rest has a registry left alone for a while, twice as long each time that it is asked in vain, or one image of it.
func (p *Puller) rest(host, familiar string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key, length := familiar, fresh
	if passing(err) {
		key = host
		length = min(max(fault.From(err).RetryAfter, restTime, 2*p.later[host].length), fresh)
	}
	if len(p.later) >= restCount {
		clear(p.later)
	}
	p.later[key] = rest{p.cfg.Now().Add(length), length, err}
}

// answered forgets that a registry was asked in vain.
func (p *Puller) answered(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.later, host)
}

// pull asks the registry for an image, mirrors of it first, and brings what is not here.
func (p *Puller) pull(
	ctx context.Context, ref name.Reference, familiar string, have cached, hurry bool, say func(string),
) (Found, error) {
	d, err := p.cacheDownloads()
	if err != nil {
		return Found{}, err
	}
	now := p.cfg.Now().UTC()
	if have.Digest != "" {
		same, err := p.unchanged(ctx, ref, have)
		if err != nil {
			return Found{}, err
		}
		if same {
			have.Checked, have.Used = now, now
			err := p.cfg.Mirror.touch(ctx, have.Name, func(c *cached) { c.Checked, c.Used = now, now })
			return Found{Digest: have.Digest, Index: have.Index, Kind: Cached, Size: have.Size, name: have.Name}, err
		}
	}
	var expected int64
	img, origin, err := p.bring(ctx, ref, d, hurry, func(size int64) error {
		p.expect(-expected) // of a mirror that has failed
		expected = 0
		if err := p.room(size); err != nil {
			return err
		}
		if size > p.cfg.Policy.Limit {
			return fault.New(fault.ResourceExhausted,
				"%s has %s; the cache of foreign images may have %s (--pull-limit).", familiar, bytesText(size),
				bytesText(p.cfg.Policy.Limit))
		}
		expected = size
		_, err := p.cfg.Mirror.Collect(ctx, p.cfg.Policy.Limit, p.expect(size), now)
		return err
	}, say)
	p.expect(-expected)
	if err != nil {
		return Found{}, err
	}
	c := cached{
		Entry: Entry{
			Name:   familiar,
			Digest: img.manifest.digest,
			Origin: origin,
			Added:  now,
			Size:   img.size,
			Kind:   Cached,
		},
		Checked: p.cfg.Now().UTC(),
		Used:    p.cfg.Now().UTC(),
		Parts:   img.blobs(),
	}
	if img.index != nil {
		c.Index = img.index.digest
	}
	if err := p.cfg.Mirror.remember(ctx, c); err != nil {
		return Found{}, err
	}
	return Found{Digest: c.Digest, Index: c.Index, Kind: Cached, Size: c.Size, name: c.Name}, nil
}

// expect counts an image that is about to come, and returns what is to come in all.
func (p *Puller) expect(size int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.coming += size
	return p.coming
}

// clients calls fn with a client of each place that has a registry's images, until one has not failed.
func (p *Puller) clients(ctx context.Context, ref name.Reference, say func(string), fn func(*client) error) error {
	logins, err := p.cfg.Mirror.logins()
	if err != nil {
		return err
	}
	all := endpoints(ref.Context().RegistryStr(), p.cfg.Policy.Registries, logins, p.cfg.Inside)
	for i, e := range all {
		c, err := newClient(e, ref.Context().RepositoryStr(), p.cfg.Policy.Proxy, p.cfg.Stalls)
		if err == nil {
			err = fn(c)
			c.close()
		}
		if err == nil || ctx.Err() != nil || i == len(all)-1 {
			return err
		}
		say(fmt.Sprintf("warning: the mirror %s: %s", e.host, fault.From(err).Message))
	}
	return nil
}

// unchanged asks whether a tag is still what it was.
func (p *Puller) unchanged(ctx context.Context, ref name.Reference, have cached) (same bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, impatience)
	defer cancel()
	err = p.clients(ctx, ref, func(string) {}, func(c *client) error {
		if err := c.connect(ctx); err != nil {
			return err
		}
		digest, err := c.current(ctx, ref.Identifier())
		if err == nil && digest == "" {
			var m document
			m, err = c.manifest(ctx, ref.Identifier())
			digest = m.digest
		}
		same = digest == have.Digest || digest == have.Index
		return err
	})
	return same, err
}

// bring downloads an image. Admit is asked with its size before any layer is.
func (p *Puller) bring(
	ctx context.Context, ref name.Reference, d *downloads, hurry bool, admit func(size int64) error, say func(string),
) (img picture, origin string, err error) {
	err = p.clients(ctx, ref, say, func(c *client) (err error) {
		wait := patience
		if hurry {
			wait = impatience
		}
		looking, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		if err := c.connect(looking); err != nil {
			return err
		}
		if img, err = c.look(looking, ref.Identifier()); err != nil {
			return err
		}
		cancel()
		if err := admit(img.size); err != nil {
			return err
		}
		say(fmt.Sprintf("%s from %s: %s in %d parts", ref.Context().RepositoryStr(), c.host, bytesText(img.size),
			len(img.parts)))
		origin = "pulled from " + c.host
		return d.fetch(ctx, c, img, say)
	})
	return img, origin, err
}

// room fails when the disk has none for so many bytes and a reserve.
func (p *Puller) room(size int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(p.cfg.Mirror.dir, &st); err != nil {
		return err
	}
	free, reserve := int64(st.Bavail)*st.Bsize, min(int64(st.Blocks)*st.Bsize/50, 1<<30)
	if free-reserve < size {
		return fault.New(fault.ResourceExhausted, "The disk of %s has %s left, the image has %s.", p.cfg.Mirror.dir,
			bytesText(max(free-reserve, 0)), bytesText(size))
	}
	return nil
}

// cacheDownloads are the downloads into the cache. It is opened when something is pulled: a machine without a network
// has none.
func (p *Puller) cacheDownloads() (*downloads, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.downloads != nil {
		return p.downloads, nil
	}
	blobs, err := p.cfg.Mirror.cacheBlobs()
	if err == nil {
		p.downloads, err = newDownloads(blobs, p.cfg.Mirror.partialDir(), p.cfg.Pause, p.cfg.Now)
	}
	if err == nil {
		err = p.downloads.expire(context.Background(), p.cfg.Now().Add(-halfLife))
	}
	return p.downloads, err
}

// flight is one pull that any number of callers wait for. It ends when none does any more.
type flight struct {
	cancel  context.CancelFunc
	done    chan struct{}
	found   Found
	err     error
	waiting map[*func(string)]struct{}
}

// join waits for the pull of an image, and begins it where none is under way.
func (p *Puller) join(
	ctx context.Context, key string, say func(string), fn func(context.Context, func(string)) (Found, error),
) (Found, error) {
	p.mu.Lock()
	f := p.flights[key]
	if f == nil {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{cancel: cancel, done: make(chan struct{}), waiting: map[*func(string)]struct{}{}}
		p.flights[key] = f
		go func() {
			defer cancel()
			f.found, f.err = fn(own, func(line string) {
				p.mu.Lock()
				defer p.mu.Unlock()
				for s := range f.waiting {
					(*s)(line)
				}
			})
			p.mu.Lock()
			if p.flights[key] == f {
				delete(p.flights, key)
			}
			p.mu.Unlock()
			close(f.done)
		}()
	}
	f.waiting[&say] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if delete(f.waiting, &say); len(f.waiting) == 0 {
			f.cancel()
			if p.flights[key] == f { // who comes now begins anew
				delete(p.flights, key)
			}
		}
	}()
	select {
	case <-f.done:
		return f.found, f.err
	case <-ctx.Done():
		return Found{}, context.Cause(ctx)
	}
}

// blobsOf are where the bytes of a kind of image are.
func (p *Puller) blobsOf(k Kind) (*blob.Dir, error) {
	if k == Cached {
		return p.cfg.Mirror.cacheBlobs()
	}
	return p.cfg.Mirror.Blobs()
}

// Copy finds an image as Find does and puts all that it is made of among other blobs, as Mirror.Copy does.
func (p *Puller) Copy(
	ctx context.Context, familiar string, into *blob.Dir, say func(line string),
) (_ oci.Manifest, err error) {
	defer fault.Wrap(&err, "mirror.Puller.Copy(%s)", familiar)
	found, err := p.Find(ctx, familiar, say)
	if err != nil {
		return oci.Manifest{}, err
	}
	blobs, err := p.blobsOf(found.Kind)
	if err != nil {
		return oci.Manifest{}, err
	}
	m, err := copyImage(ctx, blobs, into, found.Digest)
	if found.Kind != Cached || !fault.Is(err, fault.NotFound) {
		return m, err
	}
	// Somebody removed its bytes by hand, or took it out of the cache just now.
	if _, err := p.cfg.Mirror.forgetCached(ctx, found.name); err != nil {
		return oci.Manifest{}, err
	}
	if found, err = p.Find(ctx, familiar, say); err != nil {
		return oci.Manifest{}, err
	}
	if blobs, err = p.blobsOf(found.Kind); err != nil {
		return oci.Manifest{}, err
	}
	return copyImage(ctx, blobs, into, found.Digest)
}

// Image finds an image as Find does and returns it ready to be mounted. One of the cache is copied among other blobs,
// and unpacked there.
func (p *Puller) Image(
	ctx context.Context, familiar string, into *blob.Dir,
	unpack func(ctx context.Context, digest string) (oci.Image, error), say func(line string),
) (oci.Image, error) {
	found, err := p.Find(ctx, familiar, say)
	if err != nil {
		return oci.Image{}, err
	}
	if found.Kind != Cached {
		return p.cfg.Mirror.Get(found.name)
	}
	m, err := p.Copy(ctx, familiar, into, say)
	if err != nil {
		return oci.Image{}, err
	}
	return unpack(ctx, m.Digest)
}

// Resolve finds an image as Find does and returns the digest of its manifest.
func (p *Puller) Resolve(ctx context.Context, familiar string, say func(line string)) (digest string, err error) {
	found, err := p.Find(ctx, familiar, say)
	return found.Digest, err
}

// Open opens a manifest, a configuration or a layer of the images that are here, or fails with NotFound.
func (p *Puller) Open(ctx context.Context, dg blob.Digest) (io.ReadSeekCloser, blob.Info, error) {
	var missing error
	for _, k := range []Kind{Added, Cached} {
		blobs, err := p.blobsOf(k)
		if err != nil {
			return nil, blob.Info{}, err
		}
		r, info, err := blobs.Open(ctx, dg)
		if !fault.Is(err, fault.NotFound) {
			return r, info, err
		}
		missing = err
	}
	return nil, blob.Info{}, missing
}

// Fetch pulls an image as FAMILIAR and adds it to the mirror, whatever is there: as Add does.
func (p *Puller) Fetch(ctx context.Context, reference, familiar string, say func(line string)) (err error) {
	defer fault.Wrap(&err, "mirror.Puller.Fetch(%.200s)", reference)
	ref, err := name.ParseReference(reference)
	if err != nil {
		return fault.New(fault.InvalidArgument, "%.200q is not the name of an image.", reference)
	}
	m := p.cfg.Mirror
	blobs, err := m.Blobs()
	if err != nil {
		return err
	}
	d, err := newDownloads(blobs, filepath.Join(m.dir, "partial"), p.cfg.Pause, p.cfg.Now)
	if err != nil {
		return err
	}
	img, origin, err := p.bring(ctx, ref, d, false, p.room, say)
	if err != nil {
		return unpulled(reference, err)
	}
	e := Entry{Origin: origin}
	if img.index != nil {
		e.Index = img.index.digest
	}
	return m.putAll(ctx, []string{familiar}, e, p.cfg.Now(),
		func(*oci.Images, *blob.Dir) (string, error) { return img.manifest.digest, nil })
}

// Login verifies credentials at a registry and keeps them for this machine. It fails with PermissionDenied where the
// registry doesn't take them.
func (p *Puller) Login(ctx context.Context, host, user, password string) (err error) {
	defer fault.Wrap(&err, "mirror.Puller.Login(%.200s)", host)
	if host, err = canonical(host); err != nil {
		return err
	}
	c := newCredential(user, password)
	all := endpoints(host, p.cfg.Policy.Registries, nil, p.cfg.Inside)
	e := all[len(all)-1] // the registry itself
	e.inside = true      // as one that this machine is logged in to
	if e.auth, err = c.config(); err != nil {
		return err
	}
	client, err := newClient(e, "library/login", p.cfg.Policy.Proxy, p.cfg.Stalls)
	if err != nil {
		return err
	}
	defer client.close()
	client.login = true
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := client.verify(ctx); err != nil {
		return err
	}
	return p.cfg.Mirror.changeCredentials(func(all credentials) error {
		all.Auths[host] = c
		return nil
	})
}

// Logout forgets the credentials of a registry, or fails with NotFound.
func (m *Mirror) Logout(host string) error {
	host, err := canonical(host)
	if err != nil {
		return err
	}
	return m.changeCredentials(func(all credentials) error {
		if _, ok := all.Auths[host]; !ok {
			return fault.New(fault.NotFound, "This machine is not logged in to %s.", host)
		}
		delete(all.Auths, host)
		return nil
	})
}

// Forget takes an image out of the cache, or fails with NotFound. Its bytes go where no other has them, and nobody has
// just asked for them.
func (m *Mirror) Forget(ctx context.Context, familiar string, now time.Time) error {
	had, err := m.forgetCached(ctx, familiar)
	if err == nil && !had {
		err = fault.New(fault.NotFound, "The cache has no image %q.", familiar)
	}
	if err != nil {
		return err
	}
	_, err = m.Collect(ctx, math.MaxInt64, 0, now)
	return err
}
