package artifacts_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/artifacts"
	"giggle/blob"
	"giggle/fault"
	"giggle/resource"
)

// coarse is how much the clock of the file system may be behind.
const coarse = 20 * time.Millisecond

// pusher pushes and deletes images at random, as clients of the protocol do: it asks for each blob, mounts or uploads
// what is not there, and puts the manifest then. It keeps in mind what was acknowledged.
type pusher struct {
	*world
	id   int
	rand *rand.Rand
	have map[artifacts.Image]artifacts.Manifest
}

var collected = []resource.Child{repository("one").Name, repository("two").Name}

// content is one of few layers, so that all pushers have the same.
func content(n int) string { return strings.Repeat(fmt.Sprintf("layer %d ", n), 50) }

func (p *pusher) push(ctx context.Context) error {
	image := artifacts.Image{Repository: collected[p.rand.IntN(2)], Path: fmt.Sprintf("p%d/i%d", p.id, p.rand.IntN(3))}
	other := collected[p.rand.IntN(2)]
	var layers []string
	for range 1 + p.rand.IntN(3) {
		c := content(p.rand.IntN(8))
		d := blob.FromBytes([]byte(c))
		layers = append(layers,
			fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, d, len(c)))
		_, err := p.Blob(ctx, image.Repository, d)
		if fault.Is(err, fault.NotFound) {
			err = p.MountBlob(ctx, image.Repository, other, d)
		}
		if fault.Is(err, fault.NotFound) {
			var info blob.Info
			if info, err = p.blobs.Put(ctx, strings.NewReader(c), d); err == nil {
				err = p.AddBlob(ctx, image.Repository, info)
			}
		}
		if err != nil {
			return err
		}
	}
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}`, layers[0], strings.Join(layers, ","))
	m, err := p.PutManifest(ctx, image, []string{"latest"}, "", "", []byte(body))
	if err == nil {
		p.have[image] = m
	}
	return err
}

// check reads all that was acknowledged.
func (p *pusher) check(t *testing.T) {
	for image, want := range p.have {
		m, _, err := p.ReadManifest(t.Context(), artifacts.Reference{Image: image, Tag: "latest"})
		if err != nil || m.Digest != want.Digest {
			t.Errorf("%s: %s, %v; acknowledged was %s", image, m.Digest, err, want.Digest)
			continue
		}
		for _, d := range m.Blobs {
			r, _, err := p.blobs.Open(t.Context(), d)
			if err != nil {
				t.Errorf("%s: %v", image, err)
				continue
			}
			b, err := io.ReadAll(r)
			r.Close()
			if err != nil || blob.FromBytes(b) != d {
				t.Errorf("%s: blob %s: %v", image, d, err)
			}
		}
	}
}

// Whatever is pushed, mounted and deleted while blobs are collected, all the time and with no grace: what was
// acknowledged can be read. When all is deleted, nothing is left.
func TestCollectBesidePushes(t *testing.T) {
	w := newWorld(t)
	for _, r := range collected {
		w.repository(t, r.ID)
	}
	kept, err := w.blobs.Put(t.Context(), strings.NewReader("of somebody else"), "")
	if err != nil {
		t.Fatal(err)
	}
	others := marker{kept.Digest}

	ctx, stop := context.WithCancel(t.Context())
	var background, pushers sync.WaitGroup
	removed, forgot, rounds := 0, 0, 0
	background.Go(func() {
		for ; ctx.Err() == nil; rounds++ {
			n, err := w.Forget(t.Context(), time.Now().Add(-coarse))
			if err != nil {
				t.Errorf("forget: %v", err)
			}
			c, err := w.blobs.Collect(t.Context(), time.Now().Add(-coarse), w, others)
			if err != nil {
				t.Errorf("collect: %v", err)
			}
			removed, forgot = removed+c.Removed, forgot+n
		}
	})
	var all []*pusher
	for id := range 6 {
		p := &pusher{w, id, rand.New(rand.NewPCG(1, uint64(id))), map[artifacts.Image]artifacts.Manifest{}}
		all = append(all, p)
		pushers.Go(func() {
			for range 60 {
				if p.rand.IntN(3) == 0 {
					for image, m := range p.have {
						delete(p.have, image)
						if err := errors.Join(p.DeleteTag(t.Context(), image, "latest"),
							p.DeleteManifest(t.Context(), image, m.Digest)); err != nil {
							t.Errorf("delete %s: %v", image, err)
						}
						break
					}
					continue
				}
				// What a client was told is there may go away before its manifest comes, here where nothing is young
				// for long: it is told so, and pushes again.
				err := p.push(t.Context())
				if reason := fault.From(err); err != nil && reason.Reason != artifacts.ReasonManifestBlob &&
					reason.Reason != artifacts.ReasonBlob {
					t.Errorf("push: %v", err)
				}
				p.check(t)
			}
		})
	}
	pushers.Wait()
	stop()
	background.Wait()
	for _, p := range all {
		p.check(t)
	}
	for _, r := range collected {
		packages, err := w.Packages(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packages {
			if _, err := w.DeletePackage(t.Context(), p.Image); err != nil {
				t.Error(err)
			}
		}
	}
	future := time.Now().Add(time.Hour)
	if _, err := w.Forget(t.Context(), future); err != nil {
		t.Fatal(err)
	}
	c, err := w.blobs.Collect(t.Context(), future, w, others)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kept != 1 {
		t.Errorf("%d blobs are left when all is deleted, want 1", c.Kept)
	}
	if removed == 0 || forgot == 0 {
		t.Errorf("in %d rounds, %d blobs were removed and %d forgotten beside the pushes: nothing was tried", rounds,
			removed, forgot)
	}
	t.Logf("%d rounds: %d removed, %d forgotten, then %d", rounds, removed, forgot, c.Removed)
}

type marker []blob.Digest

func (m marker) Mark(_ context.Context, keep func(blob.Digest)) error {
	for _, d := range m {
		keep(d)
	}
	return nil
}

// What runs is needed, though its image was deleted.
func TestMarkImage(t *testing.T) {
	w := newWorld(t)
	digest := w.assemble(t, "running")
	future := time.Now().Add(time.Hour)
	running := runs{w, digest}
	c, err := w.blobs.Collect(t.Context(), future, w, running)
	if err != nil || c.Kept != 3 || c.Removed != 0 { // manifest, configuration, layer
		t.Errorf("while it runs: %+v, %v", c, err)
	}
	c, err = w.blobs.Collect(t.Context(), future, w)
	if err != nil || c.Kept != 0 || c.Removed != 3 {
		t.Errorf("when it does not: %+v, %v", c, err)
	}
	if err := running.Mark(t.Context(), func(blob.Digest) { t.Error("marked what is gone") }); err != nil {
		t.Error(err)
	}
}

type runs struct {
	*world
	digest string
}

func (r runs) Mark(ctx context.Context, keep func(blob.Digest)) error {
	return r.MarkImage(ctx, r.digest, keep)
}
