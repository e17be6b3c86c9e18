package quota

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
)

// storedPrefix begins the names of the sums of what projects store.
const storedPrefix = string(StoredBytes) + "/"

// Stored is the name of the sum (store.Table.Sum) of the bytes that a project stores.
func Stored(project string) string { return storedPrefix + project }

// AdmitSum fails with ResourceExhausted when a sum that is bounded has grown too much: a store.Config.Grown.
func (l *Limits) AdmitSum(sum string, had, more int64) error {
	project, ok := strings.CutPrefix(sum, storedPrefix)
	if !ok {
		return nil
	}
	return l.admitBytes(project, had, more)
}

func (l *Limits) admitBytes(project string, had, more int64) error {
	most := int64(l.Of(StoredBytes))
	if had+more <= most {
		return nil
	}
	return exceeded(StoredBytes, most,
		"Quota exceeded for project %s: the quota %q allows %d %s; it has %d, those that are coming in included, and was to get %d more. "+
			"Delete objects or images (what a bucket keeps soft-deleted counts), or have the platform started with `giggle up --quota %s=%s`.",
		project, StoredBytes, most, table[StoredBytes].what, had, more, StoredBytes, size(2*max(most, had+more)))
}

// size is a number of bytes as --quota takes it, rounded up.
func size(n int64) string {
	if n > 1<<30 {
		return fmt.Sprintf("%dGi", (n+1<<30-1)>>30)
	}
	return fmt.Sprintf("%dMi", (n+1<<20-1)>>20)
}

// Bytes bounds what comes in for projects before any row says that they have it: uploads that have begun, whether
// a client is sending or not. The rows' own sums are admitted where they are kept. It is safe for concurrent use; a nil
// one admits all.
type Bytes struct {
	limits *Limits
	stored func(ctx context.Context, project string) (int64, error)
	alive  func(upload string) bool

	mu      sync.Mutex
	coming  map[string]int64   // by project
	uploads map[string]*Coming // those that last longer than a request, by id
}

// NewBytes returns the bound of what comes in. Stored is what the rows of a project add up to, and alive reports
// whether an upload of that id is still there, which may have expired.
func NewBytes(
	limits *Limits, stored func(ctx context.Context, project string) (int64, error), alive func(upload string) bool,
) *Bytes {
	return &Bytes{
		limits:  limits,
		stored:  stored,
		alive:   alive,
		coming:  make(map[string]int64),
		uploads: make(map[string]*Coming),
	}
}

// Admit fails when the project may not have n more bytes than it stores and has coming.
func (b *Bytes) Admit(ctx context.Context, project string, n int64) error {
	if b == nil {
		return nil
	}
	_, err := b.left(ctx, project, n)
	return err
}

// left is how many bytes a project may have besides those that it stores and has coming. It fails as Admit does.
func (b *Bytes) left(ctx context.Context, project string, n int64) (int64, error) {
	stored, err := b.stored(ctx, project)
	if err != nil {
		return 0, err
	}
	had := stored + b.sum(project)
	err = b.limits.admitBytes(project, had, n)
	if err != nil {
		b.sweep(project)
		had = stored + b.sum(project)
		err = b.limits.admitBytes(project, had, n)
	}
	return int64(b.limits.Of(StoredBytes)) - had, err
}

func (b *Bytes) sum(project string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.coming[project]
}

// sweep forgets the uploads of a project that are gone.
func (b *Bytes) sweep(project string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, c := range b.uploads {
		if c.project == project && !b.alive(id) {
			b.end(c)
		}
	}
}

// Begin returns a body of a project, of which no byte has come.
func (b *Bytes) Begin(project string) *Coming { return &Coming{b: b, project: project} }

// Upload returns the upload of an id, which has n bytes, whether it was known or not.
func (b *Bytes) Upload(project, id string, n int64) *Coming {
	if b == nil {
		return &Coming{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.uploads[id]
	if c == nil {
		c = &Coming{b: b, project: project, id: id}
		b.uploads[id] = c
	}
	b.coming[c.project] += n - c.n
	c.n = n
	return c
}

// Coming is bytes that come in for a project.
type Coming struct {
	b           *Bytes
	project, id string
	n           int64 // under b.mu, as ended is
	ended       bool
}

// EndUpload is End for the upload of an id, if it is known.
func (b *Bytes) EndUpload(id string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.uploads[id]; c != nil {
		b.end(c)
	}
}

// End says that they are gone, or about to be kept: it comes before the row is written, whose own sum is admitted then.
// After it they would count twice for a moment, and refuse what there is room for.
func (c *Coming) End() {
	if c.b == nil {
		return
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.b.end(c)
}

func (b *Bytes) end(c *Coming) {
	if b.coming[c.project] -= c.n; b.coming[c.project] == 0 {
		delete(b.coming, c.project)
	}
	c.n, c.ended = 0, true
	if b.uploads[c.id] == c {
		delete(b.uploads, c.id)
	}
}

// Reader returns r, which counts what it yields and fails when the project may not have it. What it is to replace,
// which has so many bytes, does not count.
func (c *Coming) Reader(ctx context.Context, r io.Reader, replaced int64) io.Reader {
	if c.b == nil {
		return r
	}
	return &reader{c: c, ctx: ctx, r: r, replaced: replaced}
}

// stride is the most bytes that a reader yields before it asks again how many may come.
const stride = 1 << 20

type reader struct {
	c        *Coming
	ctx      context.Context
	r        io.Reader
	replaced int64
	left     int64 // bytes that may come without asking again
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if more := int64(n); more > r.left {
		left, e := r.c.b.left(r.ctx, r.c.project, more-r.replaced)
		if e != nil {
			return 0, e
		}
		r.left = min(left+r.replaced, max(stride, more))
	}
	r.left -= int64(n)
	r.c.add(int64(n))
	return n, err
}

func (c *Coming) add(n int64) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.ended { // the upload was dropped meanwhile
		return
	}
	c.n += n
	c.b.coming[c.project] += n
}
