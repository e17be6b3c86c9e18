package builds

import (
	"strings"
	"testing"
)

// Whatever the text, expansion ends, stays in its bounds, and leaves text without "$" alone.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"$_A", "${_A%b*}", "${_A//[!a-c]/x}", "${_A:1:-1}", "${_A:-${_B:-$_A}}", "$$$_A}",
		"${_A/#\\//}", "${_A^^}", "${_A##[}"} {
		f.Add(s, "abcb")
	}
	f.Fuzz(func(t *testing.T, s, v string) {
		if len(v) > 200 || len(s) > 1000 {
			return
		}
		out, err := expandText(s, true, func(name, _ string) (string, bool) { return v, name == "_A" })
		if err == nil && !strings.Contains(s, "$") && out != s {
			t.Fatalf("%q became %q", s, out)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{`status="WORKING" OR status="QUEUED"`, "tags=a AND (NOT build_id=x)",
		"create_time>=2026-01-01T00:00:00+01:00", "-status:x", `substitutions._A!="b c"`, "((("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if filter, err := ParseFilter(s); err == nil {
			filter(&Build{Spec: Spec{}})
		}
	})
}

func TestNeeds(t *testing.T) {
	s := &Spec{
		Steps: []Step{{ID: "a"}, {ID: "b", WaitFor: []string{"-"}}, {}, {WaitFor: []string{"b"}},
			{WaitFor: []string{"a", "b"}}, {WaitFor: []string{"-", "b"}}, {WaitFor: []string{"-", "-"}}, {}},
	}
	for i, want := range [][]int{nil, nil, {0, 1}, {1}, {0, 1}, {1}, nil, {0, 1, 2, 3, 4, 5, 6}} {
		got := s.Needs(i)
		if len(got) != len(want) {
			t.Errorf("step %d needs %v, want %v", i, got, want)
			continue
		}
		for k := range want {
			if got[k] != want[k] {
				t.Errorf("step %d needs %v, want %v", i, got, want)
			}
		}
	}
}
