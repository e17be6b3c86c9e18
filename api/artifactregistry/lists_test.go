package artifactregistry

import "testing"

func TestWildcard(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"*b", "ab", true}, {"*a*", "bab", true},
		{"a*a", "a", false},
		{"a*b*c", "a-b-c", true}, {"a*b*c", "a-c-b", false}, {"*", "", true}, {"", "", true}, {"**", "x", true},
	} {
		if got := wildcard(tt.pattern, tt.s); got != tt.want {
			t.Errorf("wildcard(%q, %q) = %v", tt.pattern, tt.s, got)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{`name="a"`, `name="a*" AND owner:b`, `name=`, `name="a" OR b`, "\x00",
		`owner="a" owner="b"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseFilter(s, "name", "owner")
		if err != nil {
			return
		}
		for _, term := range got {
			if term.field != "name" && term.field != "owner" {
				t.Errorf("%q has a term of %q", s, term.field)
			}
		}
		got.matches(columns{"name": "a", "owner": "b"})
	})
}
