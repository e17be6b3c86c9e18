package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"giggle/artifacts/mirror"
	"giggle/fault"
	"giggle/oci"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) *mirror.Mirror {
	t.Helper()
	m, err := mirror.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// put puts an image with one file, whose content is text.
func put(ctx context.Context, m *mirror.Mirror, name, text string) error {
	return m.Put(ctx, name, "a test", noon, func(images *oci.Images) (string, error) {
		l, err := images.AddLayer(ctx, []oci.File{{Path: "/file", Mode: 0o644, Data: []byte(text)}})
		if err != nil {
			return "", err
		}
		digest, _, err := images.Assemble(ctx, []oci.Layer{l}, v1.ConfigFile{
			OS:           "linux",
			Architecture: "amd64",
			Config:       v1.Config{Labels: map[string]string{mirror.StandInLabel: "true", "text": text}},
		})
		return digest, err
	})
}

// content is what the image's file holds, read as the engine would.
func content(m *mirror.Mirror, name string) (string, error) {
	img, err := m.Get(name)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(img.Layers[0], "file"))
	return string(b), err
}

func TestPutGetList(t *testing.T) {
	dir := t.TempDir()
	m := open(t, dir)
	if all, err := m.List(); err != nil || len(all) != 0 {
		t.Fatalf("a new mirror has %v, %v", all, err)
	}
	if _, err := m.Get("ubuntu:24.04"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an image that is not there: %v", err)
	}
	for _, name := range []string{"ubuntu:24.04", "golang:1.26", "ubuntu:24.04"} {
		if err := put(t.Context(), m, name, "of "+name); err != nil {
			t.Fatal(err)
		}
	}
	// What a later process finds.
	m = open(t, dir)
	all, err := m.List()
	if err != nil || len(all) != 2 || all[0].Name != "golang:1.26" || all[1].Name != "ubuntu:24.04" {
		t.Fatalf("list = %+v, %v: want both, once each, by name", all, err)
	}
	if e := all[0]; !e.StandIn() || e.Origin != "a test" || !e.Added.Equal(noon) || e.Size == 0 {
		t.Errorf("entry = %+v", e)
	}
	for _, name := range []string{"golang:1.26", "ubuntu:24.04"} {
		if got, err := content(m, name); err != nil || got != "of "+name {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	// A writer sweeps what is not known to be on disk: the older images must be.
	if err := put(t.Context(), m, "debian:12", "d"); err != nil {
		t.Fatal(err)
	}
	if got, err := content(m, "golang:1.26"); err != nil || got != "of golang:1.26" {
		t.Errorf("after another writer golang:1.26 holds %q, %v", got, err)
	}
}

func TestPutReplaces(t *testing.T) {
	m := open(t, t.TempDir())
	for _, text := range []string{"one", "two"} {
		if err := put(t.Context(), m, "x", text); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := content(m, "x"); err != nil || got != "two" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPutFails(t *testing.T) {
	m := open(t, t.TempDir())
	broken := errors.New("broken")
	err := m.Put(t.Context(), "x", "", noon, func(*oci.Images) (string, error) { return "", broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if err := put(t.Context(), m, "", "x"); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("no name: %v", err)
	}
	if all, err := m.List(); err != nil || len(all) != 0 {
		t.Errorf("list = %v, %v after failures", all, err)
	}
}

// Readers in other processes have no lock: whenever they look, what the index names is whole.
func TestReadWhileWriting(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	if err := put(t.Context(), w, "x", "0"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			r := open(t, dir)
			for {
				if _, err := content(r, "x"); err != nil {
					t.Errorf("read: %v", err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	var writers sync.WaitGroup
	for k := range 2 {
		writers.Go(func() {
			for n := range 5 {
				if err := put(t.Context(), open(t, dir), []string{"x", "y"}[k], fmt.Sprint(k, n)); err != nil {
					t.Errorf("write: %v", err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if all, err := w.List(); err != nil || len(all) != 2 {
		t.Errorf("list = %v, %v", all, err)
	}
}

func TestDamagedIndex(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte("[{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir).Get("x"); !fault.Is(err, fault.DataLoss) {
		t.Errorf("got %v", err)
	}
}
