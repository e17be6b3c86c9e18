package run_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"giggle/fault"
	"giggle/quota"
	"giggle/run"
)

// A service keeps so many revisions: the oldest go that get no traffic and have no tag. When all are needed, no more
// are made. What goes is told to those who want to know what it ran.
func TestRevisionsAreBounded(t *testing.T) {
	w := newWorld(t)
	quotas, err := quota.New(map[string]int{"revisions": 4})
	if err != nil {
		t.Fatal(err)
	}
	w.restart(t, func(c *run.Config) { c.Quotas = quotas })
	next, stop, err := w.Gone(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	svc, err := w.Create(t.Context(), jokes("img:1"), who)
	first := w.settle(t, svc, err).Status.LatestReady
	keep := []run.Target{{Revision: first, Percent: 0, Tag: "old"}, {Latest: true, Percent: 100}}
	for i := 2; i <= 7; i++ {
		svc, err = w.Replace(t.Context(), jokes(fmt.Sprintf("img:%d", i), keep...), who)
		w.settle(t, svc, err)
	}
	all, _, err := w.ListRevisions(t.Context(), svc.Name.Location)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, r := range all {
		left = append(left, short(r.Name.ID))
	}
	slices.Sort(left)
	if want := []string{"00001", "00005", "00006", "00007"}; !slices.Equal(left, want) {
		t.Errorf("the revisions that are left are %v, want %v", left, want)
	}
	var gone []string
	for len(gone) < 3 {
		images, err := next()
		if err != nil {
			t.Fatal(err)
		}
		gone = append(gone, images...)
	}
	for i, image := range gone {
		if !strings.HasPrefix(image, fmt.Sprintf("img:%d@sha256:", i+2)) {
			t.Errorf("%s is gone, as number %d", image, i)
		}
	}

	var tags []run.Target
	for i, r := range all {
		tags = append(tags, run.Target{
			Revision: r.Name.ID,
			Percent:  map[bool]int{true: 100}[i == 0],
			Tag:      fmt.Sprintf("tag%d", i),
		})
	}
	svc, err = w.Replace(t.Context(), jokes("img:7", tags...), who)
	w.settle(t, svc, err)
	if _, err = w.Replace(t.Context(), jokes("img:8", tags...), who); !fault.Is(err, fault.ResourceExhausted) ||
		!strings.Contains(err.Error(), "--quota revisions=") {
		t.Errorf("one more, when every one has a tag: %v", err)
	}
}
