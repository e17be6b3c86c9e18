package cloud

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/artifacts"
	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/iam"
	"giggle/projects"
	"giggle/quota"
	"giggle/resource"
	"giggle/run"
	"giggle/storage"
)

// Of everything that a project can make there are so many and no more, however many are made at once; the refusal
// names the quota; one that goes makes room; and every quota is tried.
func TestQuotas(t *testing.T) {
	const most = 4
	said := make(map[string]int)
	for _, name := range quota.Names() {
		said[name] = most
	}
	c := newCloudWith(t, func(cfg *Config) { cfg.Quotas = said })
	ctx := t.Context()
	here := resource.Location{Project: "giggle", Location: "europe-north1"}
	service := func(name, env string) run.Service {
		return run.Service{Name: resource.Service("giggle", here.Location, name), Template: run.Template{
			Containers: []run.Container{{Image: "x", Env: []run.EnvVar{{Name: "N", Value: env}}}},
		}}
	}
	if _, err := c.projects.Create(ctx, projects.Project{ID: "keys-project"}, c.identity.Owner().Member); err != nil {
		t.Fatal(err)
	}
	account, err := c.identity.CreateAccount(ctx, "keeper", iam.Account{Project: "keys-project"})
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(i int) []byte {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)),
			Subject:      pkix.Name{CommonName: "x"},
			NotAfter:     time.Now().Add(time.Hour),
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	tried := map[string]bool{"revisions": true} // TestRevisionsAreBounded in package run
	for _, q := range []struct {
		name   quota.Name
		there  int // already
		make   func(i int) error
		remove func(i int) error
	}{
		{quota.Projects, 2, func(i int) error {
			_, err := c.projects.Create(ctx, projects.Project{ID: fmt.Sprintf("project-%d", i)}, c.identity.Owner().Member)
			return err
		}, nil},
		{quota.Services, 0, func(i int) error {
			_, err := c.services.Create(ctx, service(fmt.Sprintf("s%d", i), "x"), "me")
			return err
		},
			func(i int) error {
				_, err := c.services.Delete(ctx, resource.Service("giggle", here.Location, fmt.Sprintf("s%d", i)), 0)
				return err
			}},
		{quota.Builds, 0, func(i int) error {
			_, err := c.builds.Submit(ctx, here, builds.Request{
				Spec:    builds.ImageOf(builds.Buildpack, "x", nil),
				Source:  builds.Source{Bucket: "b", Object: "o"},
				Account: func(context.Context, string) (string, error) { return "builder@x", nil },
			})
			return err
		}, func(int) error {
			all, err := c.builds.List(ctx, here)
			if err == nil {
				_, err = c.builds.Cancel(ctx, all[0].Name)
			}
			return err
		}},
		{quota.Triggers, 0, func(i int) error {
			_, err := c.triggers.Create(ctx, here, trigger.Trigger{
				Autodetect: true,
				Title:      fmt.Sprintf("t%d", i),
				Webhook:    &trigger.Webhook{Secret: "projects/giggle/secrets/s/versions/1"},
			})
			return err
		}, nil},
		{quota.Repositories, 0, func(i int) error {
			_, err := c.artifacts.CreateRepository(ctx, artifacts.Repository{
				Name:   resource.Repository("giggle", here.Location, fmt.Sprintf("r%d", i)),
				Format: artifacts.Docker,
			})
			return err
		}, func(i int) error {
			_, err := c.artifacts.DeleteRepository(ctx,
				resource.Repository("giggle", here.Location, fmt.Sprintf("r%d", i)))
			return err
		}},
		{quota.GitRepositories, 0,
			func(i int) error { _, err := c.repos.Create(ctx, "giggle", fmt.Sprintf("git-%d", i)); return err },
			func(i int) error { return c.repos.Delete(ctx, "giggle", fmt.Sprintf("git-%d", i)) }},
		{quota.Buckets, 0, func(i int) error {
			_, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: fmt.Sprintf("bucket-%d", i), Project: "giggle"})
			return err
		}, func(i int) error {
			return c.storage.DeleteBucket(ctx, fmt.Sprintf("bucket-%d", i), storage.Conditions{})
		}},
		{quota.StoredBytes, 0, func(i int) error {
			_, err := c.storage.Put(ctx, storage.Insert{Bucket: firstBucket(t, c), Name: fmt.Sprint(i)},
				strings.NewReader("x"))
			return err
		}, func(i int) error {
			return c.storage.Delete(ctx, firstBucket(t, c), fmt.Sprint(i), 0, storage.Conditions{})
		}},
		{quota.Accounts, 2, func(i int) error {
			_, err := c.identity.CreateAccount(ctx, fmt.Sprintf("account-%d", i), iam.Account{Project: "giggle"})
			return err
		}, nil},
		{quota.Keys, 0, func(i int) error {
			_, err := c.identity.UploadKey(ctx, "keys-project", account.Email, certificate(i))
			return err
		}, nil},
		{quota.Roles, 0, func(i int) error {
			_, err := c.identity.CreateRole(ctx, "giggle", fmt.Sprintf("role%d", i),
				iam.Role{Permissions: []string{"run.services.get"}})
			return err
		}, nil},
	} {
		tried[string(q.name)] = true
		var mu sync.Mutex
		var wg sync.WaitGroup
		made, last := -1, 0
		for i := range 3 * most {
			wg.Go(func() {
				err := q.make(i)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					made, last = max(made, 0)+1, i
					return
				}
				if code := fault.CodeOf(err); code != fault.ResourceExhausted &&
					!(q.name == quota.Keys && code == fault.FailedPrecondition) {
					t.Errorf("%s: %v", q.name, err)
				}
				if want := "giggle up --quota " + string(q.name); !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v does not say %q", q.name, err, want)
				}
			})
		}
		wg.Wait()
		if made != most-q.there {
			t.Errorf("%s: %d were made beside %d, want %d in all", q.name, made, q.there, most)
			continue
		}
		if q.remove == nil {
			continue
		}
		if err := q.remove(last); err != nil {
			t.Errorf("%s: remove: %v", q.name, err)
		}
		if err := q.make(100); err != nil {
			t.Errorf("%s: after one went: %v", q.name, err)
		}
		if err := q.make(101); err == nil {
			t.Errorf("%s: after one went, two can be made", q.name)
		}
	}
	for _, name := range quota.Names() {
		if !tried[name] {
			t.Errorf("nothing tries the quota %s", name)
		}
	}
}

// firstBucket is the name of a bucket of the first project.
func firstBucket(t *testing.T, c *Cloud) string {
	t.Helper()
	all, _, err := c.storage.Buckets(t.Context(), "giggle", "", "", 1)
	if err != nil || len(all) == 0 {
		t.Fatalf("there is no bucket: %v", err)
	}
	return all[0].Name
}
