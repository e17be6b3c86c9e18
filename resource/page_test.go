package resource_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/resource"
)

func same(s string) string { return s }

// Every entry that stays is on just one page, whatever comes and goes meanwhile, the last one of a page included.
func TestPagesWhileEntriesComeAndGo(t *testing.T) {
	pages := resource.NewPages([]byte(strings.Repeat("k", 32)), time.Now)
	for size := 1; size <= 4; size++ {
		all := []string{"l", "b", "d", "j", "f", "h"}
		list := resource.List{Query: "all", Size: size, Most: 10}
		var seen []string
		for n := 0; ; n++ {
			page, next, err := resource.Page(pages, list, resource.Rows(all, same), same)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, page...)
			if len(page) > size || n > 10 {
				t.Fatalf("size %d: page %d is %q", size, n, page)
			}
			if next == "" {
				break
			}
			list.Token = next
			last := page[len(page)-1]
			all = slices.DeleteFunc(all, func(s string) bool { return s == last })
			all = append([]string{"a" + fmt.Sprint(9-n)}, all...) // before everything: on no page any more
		}
		if want := "bdfhjl"; strings.Join(seen, "") != want {
			t.Errorf("size %d: saw %q, want %s", size, seen, want)
		}
	}
}

func TestPageRefuses(t *testing.T) {
	pages := resource.NewPages([]byte(strings.Repeat("k", 32)), time.Now)
	rows := resource.Rows([]string{"a", "b"}, same)
	_, next, err := resource.Page(pages, resource.List{Query: "one", Size: 1, Most: 10}, rows, same)
	if err != nil || next == "" {
		t.Fatal(next, err)
	}
	for name, l := range map[string]resource.List{
		"a negative size":          {Query: "one", Size: -1, Most: 10},
		"the token of another":     {Query: "two", Token: next, Most: 10},
		"a token that was made up": {Query: "one", Token: "abc", Most: 10},
	} {
		if _, _, err := resource.Page(pages, l, rows, same); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if page, next, err := resource.Page(pages, resource.List{Query: "one", Size: 99, Most: 1}, rows,
		same); len(page) != 1 || next == "" || err != nil {
		t.Errorf("more than the most: %q, %q, %v", page, next, err)
	}
}

func TestDescending(t *testing.T) {
	now := time.Now()
	keys := []string{
		resource.Descending(now, "a"), resource.Descending(now, "b"),
		resource.Descending(now.Add(-time.Nanosecond), "a"),
		resource.Descending(time.Unix(0, 0), "z"),
	}
	if !slices.IsSorted(keys) {
		t.Errorf("%q", keys)
	}
}

func TestGlobalsAndAccounts(t *testing.T) {
	n, err := resource.ParseGlobal("repos", "projects/p/repos/app")
	if err != nil || n.String() != "projects/p/repos/app" || n.ID != "app" {
		t.Errorf("%+v, %v", n, err)
	}
	for _, bad := range []string{"projects/p/repos/", "projects/p/things/x", "projects/p/repos/a/b", "repos/a",
		"projects/../repos/a", strings.Repeat("x", 2000)} {
		if _, err := resource.ParseGlobal("repos", bad); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%.50s: %v", bad, err)
		}
	}
	p := resource.Project{ID: "p-1", Number: "123"}
	for _, tt := range []struct {
		name    string
		id      string
		in, bad bool
	}{
		{name: "projects/p-1/serviceAccounts/a@b.test", id: "a@b.test", in: true},
		{name: "projects/123/serviceAccounts/a@b.test", id: "a@b.test", in: true},
		{name: "projects/-/serviceAccounts/a@b.test", id: "a@b.test", in: true},
		{name: "projects/other/serviceAccounts/a@b.test", id: "a@b.test"},
		{name: "a@b.test", id: "a@b.test", in: true},
		{name: "serviceAccounts/a@b.test", bad: true},
		{name: "projects/p-1/serviceAccounts/a@b.test/keys/k", bad: true},
		{name: "projects/p-1/serviceAccounts/${X}", bad: true},
		{name: "", bad: true},
	} {
		a, err := resource.ParseAccountOrEmail(tt.name)
		if tt.bad != fault.Is(err, fault.InvalidArgument) || err == nil && (a.ID != tt.id || a.In(p) != tt.in) {
			t.Errorf("%q: %+v, %v", tt.name, a, err)
		}
	}
}

func FuzzFullName(f *testing.F) {
	for _, s := range []string{"//run.googleapis.com/projects/p", "//x/y", "run.googleapis.com/p",
		"//.googleapis.com/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		service, rest, err := resource.ParseFull("name", name)
		if err == nil && "//"+service+".googleapis.com/"+rest != name {
			t.Errorf("%q is %q and %q", name, service, rest)
		}
	})
}
