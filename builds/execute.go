package builds

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"

	"giggle/fault"
	"giggle/store"
)

// Steps runs the steps of builds: builds/steps.
type Steps interface {
	// Open makes what a build's steps share, with its source; source is nil for a build without one. It is read until
	// Close, which must follow.
	Open(ctx context.Context, b Build, source io.ReadSeeker, size int64) (Workspace, error)
}

// Workspace is what the steps of one build share.
type Workspace interface {
	// Run runs the steps. report hears of each change of a step's state. A fault's message is the build's failure for
	// people. A step that ran out of its time is a DeadlineExceeded.
	Run(ctx context.Context, log io.Writer, report func(step int, s StepStatus)) error
	// Image returns the digest of an image that the build's steps made, which the platform's blobs hold; NotFound when
	// they made none of that name.
	Image(ctx context.Context, name string) (digest string, err error)
	// Files calls fn for each file of the workspace that a pattern means.
	Files(ctx context.Context, pattern string, fn func(name string, size int64, r io.Reader) error) error
	Close() error
}

// ObjectStore takes the files that builds make.
type ObjectStore interface {
	// Put writes an object as the build's account, and returns its generation.
	Put(ctx context.Context, b Build, bucket, object string, r io.Reader) (generation int64, err error)
}

// execute runs a build: source, steps, images, objects.
func (s *Scheduler) execute(ctx context.Context, b Build, log io.Writer, say func(string, ...any)) (err error) {
	var source io.ReadSeekCloser
	var size int64
	say("starting build %q\n\nFETCHSOURCE", b.Name.ID)
	if b.Source.given() {
		if r := b.Source.Repo; r != nil {
			say("Fetching commit %s of the repository %s", r.Commit, r.Name)
		} else {
			say("Fetching storage object: gs://%s/%s#%d", b.Source.Bucket, b.Source.Object, b.Source.Generation)
		}
		if source, size, err = s.Sources.Open(ctx, b); err != nil {
			return err
		}
		defer func() { _ = source.Close() }() // it was only read
		if err := s.hash(ctx, b, source); err != nil {
			return err
		}
	}
	w, err := s.Steps.Open(ctx, b, source, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	say("BUILD")
	if err := w.Run(ctx, log, func(i int, st StepStatus) {
		s.note(ctx, b, func(b *Build) { b.Steps[i] = st })
	}); err != nil {
		return err
	}
	say("PUSH")
	if err := s.push(ctx, b, w, say); err != nil {
		return err
	}
	return s.upload(ctx, b, w, say)
}

// hashes are those that a build's provenance may have.
var hashes = map[string]func() hash.Hash{
	"SHA256": sha256.New,
	"SHA512": sha512.New,
	"MD5":    md5.New,
}

// hash notes the hashes of an uploaded archive that the build asks for.
func (s *Scheduler) hash(ctx context.Context, b Build, source io.ReadSeeker) error {
	if len(b.Spec.Options.Hashes) == 0 || b.Source.Bucket == "" {
		return nil
	}
	var to []io.Writer
	for _, kind := range b.Spec.Options.Hashes {
		to = append(to, hashes[kind]())
	}
	if _, err := io.Copy(io.MultiWriter(to...), source); err != nil {
		return err
	}
	var sums []Hash
	for i, w := range to {
		sums = append(sums, Hash{Kind: b.Spec.Options.Hashes[i], Value: w.(hash.Hash).Sum(nil)})
	}
	s.note(ctx, b, func(b *Build) { b.Hashes = sums })
	_, err := source.Seek(0, io.SeekStart)
	return err
}

// push pushes the images that the build names.
func (s *Scheduler) push(ctx context.Context, b Build, w Workspace, say func(string, ...any)) error {
	var missing []string
	digests := make([]string, len(b.Spec.Images))
	for i, name := range b.Spec.Images {
		var err error
		if digests[i], err = w.Image(ctx, name); fault.Is(err, fault.NotFound) {
			missing = append(missing, fmt.Sprintf("%q", name))
		} else if err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return fault.New(fault.FailedPrecondition,
			"failed to find one or more images after execution of build steps: [%s]", strings.Join(missing, " "))
	}
	for i, name := range b.Spec.Images {
		say("Pushing %s", name)
		start := s.Store.Now()
		if err := s.Images.Push(ctx, b, name, digests[i]); err != nil {
			return err
		}
		say("%s: digest: %s", name, digests[i])
		pushed := Pushed{Name: name, Digest: digests[i], Started: start, Finished: s.Store.Now()}
		s.note(ctx, b, func(b *Build) { b.Images = append(b.Images, pushed) })
	}
	return nil
}

// upload uploads the files that the build names.
func (s *Scheduler) upload(ctx context.Context, b Build, w Workspace, say func(string, ...any)) error {
	o := b.Spec.Objects
	if o.Location == "" {
		return nil
	}
	bucket, dir, _ := SplitGS(o.Location)
	if dir != "" && !strings.HasSuffix(dir, "/") {
		dir += "/"
	}
	say("Artifacts will be uploaded to gs://%s using gsutil cp", strings.TrimSuffix(bucket+"/"+dir, "/"))
	start := s.Store.Now()
	var manifest bytes.Buffer
	lines := json.NewEncoder(&manifest)
	n := 0
	for _, p := range o.Paths {
		before := n
		say("%s: Uploading path....", p)
		err := w.Files(ctx, strings.TrimPrefix(p, "/workspace/"), func(name string, _ int64, r io.Reader) error {
			object := dir + name[strings.LastIndexByte(name, '/')+1:]
			sum := md5.New()
			generation, err := s.Objects.Put(ctx, b, bucket, object, io.TeeReader(r, sum))
			if err != nil {
				return err
			}
			n++
			return lines.Encode(artifact{
				Location: fmt.Sprintf("gs://%s/%s#%d", bucket, object, generation),
				Hashes: []artifactHashes{{[]artifactHash{{
					Type:  md5Type,
					Value: []byte(base64.StdEncoding.EncodeToString(sum.Sum(nil))),
				}}}},
			})
		})
		if err != nil {
			return err
		}
		if n == before {
			return fault.New(fault.FailedPrecondition,
				"failed to upload artifacts: no file of the workspace matches %q", p)
		}
		say("%s: %d matching files uploaded", p, n-before)
	}
	say("%d total artifacts uploaded to gs://%s", n, strings.TrimSuffix(bucket+"/"+dir, "/"))
	list := dir + "artifacts-" + b.Name.ID + ".json"
	say("Uploading manifest %s", list[strings.LastIndexByte(list, '/')+1:])
	if _, err := s.Objects.Put(ctx, b, bucket, list, &manifest); err != nil {
		return err
	}
	url := "gs://" + bucket + "/" + list
	say("Artifact manifest located at %s", url)
	s.note(ctx, b, func(b *Build) {
		b.Objects, b.Manifest, b.Uploaded = n, url, Span{start, s.Store.Now()}
	})
	return nil
}

// artifact is one line of a manifest, in the form of cloud-build-local's UploadArtifactsManifest: an ArtifactResult as
// Go's own encoding of JSON writes it, its hash in base64 (as gsutil prints it) once more.
type artifact struct {
	Location string           `json:"location"`
	Hashes   []artifactHashes `json:"file_hash"`
}

type artifactHashes struct {
	Hashes []artifactHash `json:"file_hash"`
}

type artifactHash struct {
	Type  int    `json:"type"`
	Value []byte `json:"value"`
}

// md5Type is google.devtools.cloudbuild.v1.Hash.HashType.MD5.
const md5Type = 2

// note writes what a running build has come to.
func (s *Scheduler) note(ctx context.Context, b Build, change func(*Build)) {
	err := s.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		row, err := builds.Get(tx, b.Name.String())
		if err != nil {
			return err
		}
		change(&row.Value)
		_, err = builds.SetStatus(tx, row)
		return err
	})
	if err != nil {
		s.Log.Error("note a build's progress", "build", b.Name, "err", err)
	}
}

// interrupted is why a build ended that the platform did not see to its end.
const interrupted = "The platform stopped while the build ran. Its steps may have done things that a second run would do twice: submit it again, or use `gcloud builds retry`."

// sweep ends what no run will end: builds that were working when the platform was killed, unless they run again, and
// builds that have waited too long. It returns when it is due next.
func (s *Scheduler) sweep(ctx context.Context) (next time.Time, err error) {
	type ending struct {
		name   string
		status Status
		detail string
	}
	var over []ending
	err = s.Store.View(ctx, func(tx *store.Tx) error {
		rows, err := builds.List(tx, "", "", 0)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, r := range rows {
			b := fromRow(r)
			_, runs := s.running[r.Name]
			switch {
			case b.Status.Terminal() || runs || b.Status == Working && b.Spec.repeatable():
			case b.Status == Working:
				over = append(over, ending{r.Name, InternalError, interrupted})
			case b.Status == Queued:
				ttl := b.Spec.QueueTTL
				if ttl == 0 {
					ttl = DefaultQueueTTL
				}
				if at := b.Created.Add(ttl); !at.After(s.Store.Now()) {
					over = append(over,
						ending{r.Name, Expired, fmt.Sprintf("The build waited longer than its queueTtl of %s.", ttl)})
				} else if next.IsZero() || at.Before(next) {
					next = at
				}
			}
		}
		return nil
	})
	for _, e := range over {
		if err != nil {
			return next, err
		}
		err = s.Store.Update(ctx, func(tx *store.Tx) error {
			row, err := builds.Get(tx, e.name)
			if err != nil || row.Value.Status.Terminal() {
				return err
			}
			_, err = end(tx, row, e.status, e.detail)
			return err
		})
	}
	return next, err
}
