package builds_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"giggle/builds"
	"giggle/resource"
	"giggle/store"
)

// Rows as schema 4 had them: a deploy from source had no Spec, but an Image, Env and Docker of its own.
var oldRows = map[string]string{
	"done": `"Status":"SUCCESS","Image":"h/p/r/done","Env":null,"Docker":false,"Tags":["service_jokes"],
		"Account":"42@cloudbuild.gserviceaccount.com","Digest":"sha256:old","Started":"2026-11-30T11:55:01.006912487Z",
		"Finished":"2026-11-30T11:55:04.523796413Z","Pushed":5391526,"Spec":null,"Given":null,"Steps":null,"Images":null`,
	"failed": `"Status":"FAILURE","Detail":"go build failed","Image":"h/p/r/failed","Env":null,"Docker":true,"Tags":null,
		"Account":"me@p1.iam.gserviceaccount.com","Digest":"","Started":"2026-11-30T11:55:01.006912487Z",
		"Finished":"2026-11-30T11:55:04.523796413Z","Pushed":0,"Spec":null,"Given":null,"Steps":null,"Images":null`,
	"queued": `"Status":"QUEUED","Image":"h/p/r/queued","Env":{"GOOGLE_BUILDABLE":"./cmd","GOFLAGS":"-tags=a,b"},"Docker":false,
		"Tags":null,"Account":"42@cloudbuild.gserviceaccount.com","Digest":"","Started":"0001-01-01T00:00:00Z",
		"Finished":"0001-01-01T00:00:00Z","Pushed":0,"Spec":null,"Given":null,"Steps":null,"Images":null`,
	"working": `"Status":"WORKING","Image":"h/p/r/working","Env":null,"Docker":false,"Tags":null,
		"Account":"42@cloudbuild.gserviceaccount.com","Digest":"","Started":"2026-11-30T11:55:01.006912487Z",
		"Finished":"0001-01-01T00:00:00Z","Pushed":0,"Spec":null,"Given":null,"Steps":null,"Images":null`,
	"steps": `"Status":"WORKING","Image":"","Env":null,"Docker":false,"Tags":null,"Account":"builder@x","Digest":"",
		"Started":"2026-11-30T11:55:01.006912487Z","Finished":"0001-01-01T00:00:00Z","Pushed":0,
		"Spec":{"Steps":[{"Name":"ubuntu"}]},"Given":{"Steps":[{"Name":"$_I"}]},"Steps":[{"Status":"WORKING"}],"Images":null`,
}

// old is a store that schema 4 has, with those rows.
func old(t *testing.T, file string) {
	t.Helper()
	st, err := store.Open(t.Context(), file, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	rows := store.NewTable[json.RawMessage]("build.build", "Build")
	for id, fields := range oldRows {
		name := resource.Build(here.Project, here.Location, id)
		err := st.Update(t.Context(), func(tx *store.Tx) error {
			_, err := rows.Create(tx, name.String(),
				json.RawMessage(`{"Name":{"Project":"p1","Location":"europe-north1",
				"Collection":"builds","ID":"`+id+
					`"},"Project":"p1","Source":{"Bucket":"src","Object":"a.zip","Generation":7,"Repo":null},
				"Creator":"you@x","Timeout":3600000000000,"LogsIn":"42.logs","LogsDir":"",`+fields+`}`))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("DELETE FROM goose_db_version WHERE version_id > 4"); err != nil {
		t.Fatal(err)
	}
}

// What the version before wrote is read as what it means: what has ended stays as it was and can be retried, what was
// queued is built, and what was being built when the platform was killed is built again.
func TestUpgrade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "giggle.db")
	old(t, file)
	p := openPlatform(t, file)
	get := func(id string) builds.Build {
		t.Helper()
		b, err := p.builds.Get(t.Context(), resource.Build(here.Project, here.Location, id))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, tt := range []struct {
		id      string
		by      builds.Builtin
		account string // that was asked for
		env     []string
		digest  string
		step    builds.Status
	}{
		{"done", builds.Buildpack, "", nil, "sha256:old", builds.Success},
		{"failed", builds.Dockerfile, "me@p1.iam.gserviceaccount.com", nil, "", builds.Failure},
		{"queued", builds.Buildpack, "", []string{"GOFLAGS=-tags=a,b", "GOOGLE_BUILDABLE=./cmd"}, "", ""},
		{"working", builds.Buildpack, "", nil, "", builds.Working},
	} {
		b := get(tt.id)
		want := builds.ImageOf(tt.by, "h/p/r/"+tt.id, nil).Steps[0]
		s := b.Spec.Steps[0]
		slices.Sort(s.Env)
		if s.Name != want.Name || s.Builtin != tt.by || s.Image != want.Image || !slices.Equal(s.Env, tt.env) {
			t.Errorf("%s: the step is %+v", tt.id, s)
		}
		if !slices.Equal(b.Spec.Images, []string{want.Image}) || digest(b) != tt.digest ||
			b.Steps[0].Status != tt.step {
			t.Errorf("%s: images %v, pushed %v, %s", tt.id, b.Spec.Images, b.Images, b.Steps[0].Status)
		}
		if b.Spec.Account != tt.account || b.Spec.LogsBucket != "gs://42.logs" || len(b.Given.Steps) != 1 {
			t.Errorf("%s: asked for as %+v", tt.id, b.Given)
		}
	}
	for _, id := range []string{"done", "failed"} {
		b := get(id)
		r, err := b.Again()
		if err != nil {
			t.Fatal(err)
		}
		r.Account = func(_ context.Context, given string) (string, error) { return given, nil }
		again, err := p.builds.Submit(t.Context(), here, r)
		if err != nil || again.Spec.Steps[0].Builtin != b.Spec.Steps[0].Builtin || again.LogsIn != b.LogsIn ||
			again.Account != b.Spec.Account {
			t.Errorf("%s again: %+v, %v", id, again, err)
		}
		if _, err := p.builds.Cancel(t.Context(), again.Name); err != nil {
			t.Error(err)
		}
	}
	got := make(chan map[string]string, 10)
	p.Build = func(_ context.Context, b builds.Build, _ io.Writer) (string, error) {
		if b.Name.ID == "queued" {
			got <- b.Spec.Steps[0].Variables()
		}
		return "sha256:" + b.Name.ID, nil
	}
	p.run(1)
	for _, id := range []string{"queued", "working"} {
		if b := p.end(get(id)); b.Status != builds.Success || digest(b) != "sha256:"+id ||
			p.pushed["h/p/r/"+id] != "sha256:"+id {
			t.Errorf("%s ended as %s %q", id, b.Status, b.Detail)
		}
	}
	if v := <-got; v["GOOGLE_BUILDABLE"] != "./cmd" || v["GOFLAGS"] != "-tags=a,b" {
		t.Errorf("the variables are %v", v)
	}
	if b := p.end(get("steps")); b.Status != builds.InternalError {
		t.Errorf("the build of steps ended as %s", b.Status)
	}
}
