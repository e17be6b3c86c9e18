package buildpack

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"giggle/fault"
)

// A small document can't take all of the platform's memory, nor all of a stack.
func TestHostileTOML(t *testing.T) {
	r := strings.Repeat
	long := r("a", 500)
	for name, text := range map[string]string{
		"arrays":               "a = " + r("[", 1<<18),
		"tables":               "a = " + r("{a=", 1<<16),
		"tables in arrays":     "a = " + r("[\n{a=", 1<<16),
		"parts of a name":      r("a.", 1<<16) + "a = 1",
		"parts of a table's":   "[" + r("a.", 1<<16) + "a]",
		"after a mark":         "\ufeff[" + r("a.", 1<<16) + "a]",
		"a long table's names": "[" + r("a", 1<<16) + "]\n" + r("a=1\n", 1<<16),
		"quoted names":         `["` + r("a", 1<<16) + "\"]\n" + r("a=1\n", 1<<16),
		"long names":           "a = " + r("{"+long+"=", 1000),
		// What ends in a string or a comment ends nothing.
		"behind a string":         "a = " + r(`{"}"=`, 1<<16),
		"behind a literal":        "a = " + r("{'}'=", 1<<16),
		"behind an escape":        "a = " + r(`{"\"}"=`, 1<<16),
		"behind a comment":        "a = " + r("[ # ]\"\n", 1<<16),
		"behind a long string":    "a = " + r("[\"\"\"]\\\"\"\"\n]\"\"\"\"\",", 1<<15),
		"behind four quotes":      `a = ["""a"""", ` + r("[", 1<<18) + `"`,
		"behind a long literal":   "a = " + r("['''\\'''''']''',", 1<<15),
		"behind an empty literal": "a = ['''''', " + r("[", 1<<18) + "''",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := decodeTOML("x.toml", text, new(pyproject))
		runtime.ReadMemStats(&after)
		if !fault.Is(err, fault.InvalidArgument) || !strings.Contains(fmt.Sprint(err), "nests too deeply") {
			t.Errorf("%s: %.200v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 128<<20 {
			t.Errorf("%s took %d MiB", name, n>>20)
		}
	}
	// Nor much of a processor: an end that is missing is looked for once.
	for _, text := range []string{r("\\\"\"\"\n", 1<<17), `"` + r(`\"`, 1<<18), "a = " + r("'''\n\\\"\"\"\n", 1<<16)} {
		start := time.Now()
		if err := decodeTOML("x.toml", text, new(pyproject)); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%.20q: %v", text, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%.20q took %s", text, took)
		}
	}
	if err := decodeTOML("x.toml", "\xff\xfe[a]", new(pyproject)); !fault.Is(err, fault.InvalidArgument) {
		t.Errorf("another encoding: %v", err)
	}
}

// What projects really have is well within the bounds.
func TestLargeTOML(t *testing.T) {
	var text strings.Builder
	text.WriteString("\ufeff[project] # \"[[[[\ndescription = '''\n" + strings.Repeat("[{\n", 100) + "'''\ndependencies = [")
	for i := range 1000 {
		fmt.Fprintf(&text, "\"p%d[extra]>=1.%d.0; python_version < '3.13'\",\n", i, i)
	}
	text.WriteString("]\n[tool.poetry.dependencies]\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "p%d = {version = \"^1.%d.0\", extras = [\"a\", \"b\"], optional = true}\n", i, i)
	}
	for i := range 1000 {
		fmt.Fprintf(&text, "[tool.other.section-%d]\nlist = [%s]\n", i, strings.Repeat(`"[",`, 20))
	}
	var p pyproject
	if err := decodeTOML("x.toml", text.String(), &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Project.Dependencies) != 1000 || len(p.Tool.Poetry.Dependencies) != 1000 {
		t.Errorf("%d and %d dependencies", len(p.Project.Dependencies), len(p.Tool.Poetry.Dependencies))
	}
}
