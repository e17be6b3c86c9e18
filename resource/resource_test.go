package resource_test

import (
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/resource"
)

func TestNamesRoundTrip(t *testing.T) {
	for _, s := range []string{
		"projects/p/locations/europe-north1/services/jokes", "projects/123456789012/locations/l/services/a-b",
	} {
		n, err := resource.ParseChild("services", s)
		if err != nil || n.String() != s {
			t.Errorf("ParseChild(%q) = %q, %v", s, n, err)
		}
	}
	r, err := resource.ParseRevision("projects/p/locations/l/services/s/revisions/s-00001-abc")
	if err != nil || r.ID != "s-00001-abc" || r.Service != resource.Service("p", "l", "s") {
		t.Errorf("ParseRevision = %+v, %v", r, err)
	}
	for _, s := range []string{
		"", "projects/p", "projects/p/locations/l/services/", "projects/p/locations/l/jobs/x",
		"projects//locations/l/services/s",
		"projects/p/locations/../services/s", "projects/p/locations/l/services/a b",
		"projects/p/locations/l/services/s/x",
		"projects/p/locations/l/services/" + strings.Repeat("x", 2000),
	} {
		if _, err := resource.ParseChild("services", s); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("ParseChild(%.60q) = %v, want INVALID_ARGUMENT", s, err)
		}
	}
}

func FuzzParseRevision(f *testing.F) {
	f.Add("projects/p/locations/l/services/s/revisions/r")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := resource.ParseRevision(s); err == nil && n.String() != s {
			t.Errorf("%q prints as %q", s, n)
		}
	})
}

func TestLabels(t *testing.T) {
	for s, want := range map[string]bool{
		"jokes": true, "a-1": true, "": false, "1a": false, "a-": false, "A": false, "a_b": false,
		strings.Repeat("a", 64): false,
	} {
		if resource.Label(s, 63) != want {
			t.Errorf("Label(%q) = %v", s, !want)
		}
	}
	if resource.ProjectID("abc") || !resource.ProjectID("giggle") {
		t.Error("project ids have 6 to 30 characters")
	}
}

func TestRegionCodesAreUnique(t *testing.T) {
	seen := map[string]string{}
	for _, r := range resource.Regions() {
		c := resource.RegionCode(r)
		if len(c) != 2 || seen[c] != "" {
			t.Errorf("region %s has code %q, taken by %q", r, c, seen[c])
		}
		seen[c] = r
	}
	if resource.RegionCode("europe-north1") != "lz" || resource.RegionCode("europe-west4") != "ez" ||
		resource.RegionCode("us-central1") != "uc" {
		t.Error("the codes of the usual regions are not in the table")
	}
}

func TestPageTokens(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := resource.NewPages([]byte(strings.Repeat("k", 32)), func() time.Time { return now })
	tok := p.Token("q", "projects/p/x")
	if last, err := p.Last("q", tok); err != nil || last != "projects/p/x" {
		t.Fatalf("Last = %q, %v", last, err)
	}
	if _, err := p.Last("other", tok); !fault.Is(err, fault.InvalidArgument) {
		t.Error("a token of another query was taken")
	}
	if _, err := p.Last("q", tok[:len(tok)-2]+"AA"); err == nil {
		t.Error("a changed token was taken")
	}
	now = now.Add(25 * time.Hour)
	if _, err := p.Last("q", tok); err == nil {
		t.Error("an old token was taken")
	}
	if v, ok := resource.EtagVersion(resource.Etag(42)); v != 42 || !ok {
		t.Error("an etag does not round-trip")
	}
}

func TestSelector(t *testing.T) {
	labels := map[string]string{"serving.knative.dev/service": "jokes", "a": "1"}
	for s, want := range map[string]bool{
		"": true, "serving.knative.dev/service = jokes": true, "a==1,a!=2": true, "a in (1, 2)": true,
		"a notin (1)": false,
		"b":           false, "!b": true, "a": true, "a=2": false, "b!=1": true,
	} {
		sel, err := resource.ParseSelector(s)
		if err != nil || sel.Matches(labels) != want {
			t.Errorf("%q matches = %v (%v), want %v", s, !want, err, want)
		}
	}
	for _, s := range []string{"=", "a in 1", "a b", "a = b = c", "!"} {
		if _, err := resource.ParseSelector(s); err == nil {
			t.Errorf("ParseSelector(%q) took it", s)
		}
	}
}

func FuzzParseSelector(f *testing.F) {
	f.Add("a in (b, c), !d, e != f")
	f.Fuzz(func(t *testing.T, s string) {
		if sel, err := resource.ParseSelector(s); err == nil {
			sel.Matches(map[string]string{"a": "b"})
		}
	})
}
