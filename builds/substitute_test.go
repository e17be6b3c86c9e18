package builds

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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

// No text of a request, which has a megabyte, costs more than a multiple of its length.
func TestExpansionIsBounded(t *testing.T) {
	const mega = 1 << 20
	value := strings.Repeat("a", maxValue)
	for name, c := range map[string]struct {
		text    string
		dynamic bool
		want    string // of the error, "" for none
	}{
		"open braces":            {strings.Repeat("${A", mega/3), false, ""},
		"nested open braces":     {strings.Repeat("${A", mega/3), true, "too deep"},
		"many that are closed":   {"${A" + strings.Repeat("${B}", mega/5), true, ""},
		"operations that nest":   {strings.Repeat("${A-", mega/5) + strings.Repeat("}", mega/5), false, ""},
		"a text for each letter": {"${_A//?/" + strings.Repeat("x", mega/2) + "}", true, "longer than 1 MiB"},
		"a long pattern":         {"${_A%" + strings.Repeat("?", mega/2) + "}", true, "the pattern can't be used"},
		"a pattern of stars":     {"${_A%%" + strings.Repeat("*?", maxValue/2) + "b}", true, "the pattern can't be used"},
		"patterns of patterns":   {strings.Repeat("${_A%", 17) + strings.Repeat("}", 17), true, ""},
		"the longest pattern":    {"${_A##" + strings.Repeat("?*", maxValue/2) + "}", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begun := time.Now()
			calls := 0
			_, err := expandText(c.text, c.dynamic, func(name, _ string) (string, bool) {
				calls++
				return value, name == "_A"
			})
			runtime.ReadMemStats(&after)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
			if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 256 {
				t.Errorf("it used %d MiB", used)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if calls > len(c.text)/4 {
				t.Errorf("it asked for %d values", calls)
			}
		})
	}
}

// A small request makes no large build.
func TestExpandedBuildIsBounded(t *testing.T) {
	s := &Spec{
		Steps:         []Step{{Name: "u", Args: slices.Repeat([]string{strings.Repeat("$_A", 250)}, 20)}},
		Substitutions: map[string]string{"_A": strings.Repeat("a", maxValue)},
	}
	_, _, err := s.expand(map[string]string{}, nil, map[string]bool{})
	if err == nil || !strings.Contains(err.Error(), "the expanded build is longer than 8 MiB") {
		t.Errorf("err = %v", err)
	}
	automap := &Spec{
		Steps:         slices.Repeat([]Step{{Name: "u"}}, maxSteps),
		Substitutions: make(map[string]string),
		Options:       Options{Automap: true},
	}
	for i := range 30 {
		automap.Substitutions[fmt.Sprint("_", i)] = strings.Repeat("a", maxValue)
	}
	if _, _, err := automap.expand(map[string]string{}, nil, map[string]bool{}); err == nil {
		t.Error("variables of all steps are unbounded")
	}
	s.Steps[0].Args = s.Steps[0].Args[:8]
	if _, _, err := s.expand(map[string]string{}, nil, map[string]bool{}); err != nil {
		t.Error(err)
	}
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
