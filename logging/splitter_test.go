package logging_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"giggle/logging"
)

func TestSplitter(t *testing.T) {
	const most = 256 << 10
	x := func(n int) string { return strings.Repeat("x", n) }
	for name, tt := range map[string]struct{ writes, want []string }{
		"nothing":              {nil, nil},
		"lines":                {[]string{"a\nb\r\n\nc\n"}, []string{"a", "b", "", "c"}},
		"pieces":               {[]string{"a", "b\nc", "", "d\r", "\n"}, []string{"ab", "cd"}},
		"no end":               {[]string{"a\nb"}, []string{"a", "b"}},
		"as long as may be":    {[]string{x(most), "\n", x(most) + "\n"}, []string{x(most), x(most)}},
		"too long":             {[]string{x(2*most+1) + "\ny\n"}, []string{x(most), x(most), "x", "y"}},
		"too long in pieces":   {[]string{x(most - 1), "xx", "x\n"}, []string{x(most), "xx"}},
		"too long, and no end": {[]string{x(most), x(1)}, []string{x(most), "x"}},
	} {
		var got []string
		s := logging.NewSplitter(func(line string) { got = append(got, line) })
		for _, w := range tt.writes {
			if n, err := io.WriteString(s, w); n != len(w) || err != nil {
				t.Errorf("%s: wrote %d of %d, %v", name, n, len(w), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %.60q, want %.60q", name, got, tt.want)
		}
	}
}
