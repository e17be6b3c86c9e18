package logging_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"giggle/fault"
	"giggle/logging"
)

func entry(n int) logging.Entry {
	return logging.Entry{
		Project:  "giggle",
		Log:      logging.Stdout,
		Time:     at.Add(time.Duration(n) * time.Second),
		Resource: res,
		Text:     fmt.Sprint(n),
	}
}

func texts(all []logging.Entry) string {
	var out []string
	for _, e := range all {
		out = append(out, e.Text)
	}
	return strings.Join(out, " ")
}

func read(t *testing.T, l logging.Log, f logging.Filter) string {
	t.Helper()
	f.Project = "giggle"
	all, err := logging.Collect(l.Read(t.Context(), f))
	if err != nil {
		t.Fatal(err)
	}
	return texts(all)
}

func TestRead(t *testing.T) {
	l := logging.NewRing(100, 1<<20)
	add := func(n int, change func(*logging.Entry)) {
		e := entry(n)
		change(&e)
		l.Append(e)
	}
	add(1, func(e *logging.Entry) {})
	add(5, func(e *logging.Entry) { e.Severity = logging.Error })
	add(3, func(e *logging.Entry) {
		e.Resource, e.Trace = revision("europe-north1", "jokes", "jokes-00002-abc"), "abc"
	})
	add(4, func(e *logging.Entry) { e.Resource, e.ID = revision("europe-north1", "other", "other-1"), "of-4" })
	add(2, func(e *logging.Entry) { e.Resource = revision("us-central1", "jokes", "jokes-00001-abc") })
	add(9, func(e *logging.Entry) { e.Project = "another" })
	for _, tt := range []struct {
		filter logging.Filter
		want   string
	}{
		{logging.Filter{}, "1 2 3 4 5"},
		{logging.Filter{Limit: 2}, "4 5"},
		{labelled("service_name", "jokes"), "1 2 3 5"},
		{labelled("service_name", "jokes", "location", "europe-north1"), "1 3 5"},
		{labelled("revision_name", "jokes-00002-abc"), "3"},
		{labelled("service_name", "nobody"), ""},
		{logging.Filter{Severity: logging.Warning}, "5"},
		{logging.Filter{Trace: "abc"}, "3"},
		{logging.Filter{Log: logging.Stdout}, "1 2 3 4 5"},
		{logging.Filter{Log: logging.Stderr}, ""},
		{logging.Filter{Resource: logging.Resource{Type: logging.RevisionType}}, "1 2 3 4 5"},
		{logging.Filter{Resource: logging.Resource{Type: logging.BuildType}}, ""},
		{logging.Filter{Match: func(e *logging.Entry) bool { return e.Text > "3" }, Limit: 1}, "5"},
		{logging.Filter{ID: "of-4"}, "4"},
	} {
		if got := read(t, l, tt.filter); got != tt.want {
			t.Errorf("%+v = %q, want %q", tt.filter, got, tt.want)
		}
	}
	all, _ := logging.Collect(l.Read(t.Context(), logging.Filter{Project: "giggle"}))
	ids := make(map[string]bool)
	for _, e := range all {
		ids[e.ID] = true
	}
	if len(ids) != len(all) || ids[""] {
		t.Errorf("the ids repeat: %v", ids)
	}
}

func labelled(labels ...string) logging.Filter {
	f := logging.Filter{Resource: logging.Resource{Labels: make(map[string]string)}}
	for i := 0; i < len(labels); i += 2 {
		f.Resource.Labels[labels[i]] = labels[i+1]
	}
	return f
}

// What one type of resource has to say pushes out nothing of another's, nor of another project's.
func TestRingIsShared(t *testing.T) {
	l := logging.NewRing(10, 1<<20)
	build := logging.Build("giggle", "b1", "")
	l.Append(entry(0))
	for n := range 1000 {
		e := entry(n + 1)
		e.Resource = build
		l.Append(e)
		e.Project = "another"
		l.Append(e)
	}
	if got := read(t, l, logging.Filter{Resource: logging.Resource{Type: logging.RevisionType}}); got != "0" {
		t.Errorf("of what services say is left %q", got)
	}
	if got := read(t, l, logging.Filter{}); got != "0 991 992 993 994 995 996 997 998 999 1000" {
		t.Errorf("of all is left %q", got)
	}
	if all, err := logging.Collect(l.Read(t.Context(), logging.Filter{})); err != nil || len(all) != 21 {
		t.Errorf("of all projects are left %d entries, %v", len(all), err)
	}
}

// Who follows everything sees what is about things that weren't there when he began.
func TestFollowSeesWhatIsNew(t *testing.T) {
	l := logging.NewRing(10, 1<<20)
	l.Append(entry(1))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	for e, err := range l.Follow(ctx, logging.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Project+"/"+e.Resource.Type+"/"+e.Text)
		next := entry(len(got) + 1)
		switch len(got) {
		case 1:
			next.Resource = logging.Build("giggle", "b1", "")
		case 2:
			next.Project = "another"
		case 3:
			cancel()
			continue
		}
		l.Append(next)
	}
	if want := "giggle/cloud_run_revision/1 giggle/build/2 another/cloud_run_revision/3"; strings.Join(got,
		" ") != want {
		t.Errorf("followed %v, want %v", got, want)
	}
}

func TestRingIsBounded(t *testing.T) {
	for name, l := range map[string]*logging.Ring{"by number": logging.NewRing(10, 1<<20),
		"by bytes": logging.NewRing(1000, 2950)} {
		for n := range 1000 {
			l.Append(entry(n))
		}
		all, _ := logging.Collect(l.Read(t.Context(), logging.Filter{Project: "giggle"}))
		if len(all) < 8 || len(all) > 10 || all[len(all)-1].Text != "999" || all[0].Text != fmt.Sprint(1000-len(all)) {
			t.Errorf("%s: %q is left", name, texts(all))
		}
	}
	l := logging.NewRing(10, 1000)
	e := entry(1)
	e.Text = strings.Repeat("x", 5000)
	l.Append(e) // larger than the ring: alone in it
	l.Append(entry(2))
	if got := read(t, l, logging.Filter{}); got != "2" {
		t.Errorf("after an entry of more than all: %.20q", got)
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := logging.NewRing(4, 1<<20)
		l.Append(entry(0))
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan string)
		go func() {
			defer close(got)
			for e, err := range l.Follow(ctx, logging.Filter{Project: "giggle", Limit: 1}) {
				var lost logging.Lost
				if errors.As(err, &lost) {
					got <- fmt.Sprint("lost ", int64(lost))
				} else {
					got <- e.Text
				}
			}
		}()
		want := func(s string) {
			t.Helper()
			if g := <-got; g != s {
				t.Fatalf("got %q, want %q", g, s)
			}
		}
		want("0")
		synctest.Wait()
		l.Append(entry(1))
		want("1")
		synctest.Wait() // it waits for more
		l.Append(entry(2))
		synctest.Wait() // it holds 2, which nobody takes
		for n := 3; n < 13; n++ {
			l.Append(entry(n)) // never waits for it
		}
		want("2")
		want("lost 6")
		for n := 9; n < 13; n++ {
			want(fmt.Sprint(n))
		}
		cancel()
		if e, ok := <-got; ok {
			t.Errorf("after the end comes %q", e)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	l := logging.NewRing(64, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			last := -1
			for e, err := range l.Follow(ctx, logging.Filter{Project: "giggle"}) {
				var n int
				if _, bad := fmt.Sscan(e.Text, &n); err == nil && (bad != nil || n <= last) {
					t.Errorf("%q after %d", e.Text, last)
				}
				if err == nil {
					last = n
				}
			}
		})
	}
	writers.Go(func() {
		for n := range 20000 {
			l.Append(entry(n))
		}
	})
	writers.Go(func() {
		for range 200 {
			if _, err := logging.Collect(l.Read(ctx, logging.Filter{Project: "giggle", Limit: 10})); err != nil {
				t.Error(err)
			}
		}
	})
	writers.Wait()
	cancel()
	readers.Wait()
}

func TestSeverity(t *testing.T) {
	for _, name := range []string{"default", "DEBUG", "Info", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT",
		"EMERGENCY"} {
		s, err := logging.ParseSeverity(name)
		if err != nil || s.String() != strings.ToUpper(name) {
			t.Errorf("%s = %v, %v", name, s, err)
		}
	}
	if _, err := logging.ParseSeverity("loud"); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("loud: %v", err)
	}
}

func BenchmarkAppend(b *testing.B) {
	l := logging.NewRing(20000, 16<<20)
	e := entry(1)
	e.Request = &logging.Request{Method: "GET", URL: "https://jokes-abcdefghij-lz.a.run.app/", Status: 200}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Append(e)
		}
	})
}
