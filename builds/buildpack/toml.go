package buildpack

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"giggle/fault"
)

// Package toml keeps the whole path of every name, and calls itself for what nests: a document of a megabyte could take
// all of the platform's memory, or all of a stack, which nothing recovers. These bound a document before it is decoded.
const (
	maxNesting = 50       // brackets in brackets
	maxPaths   = 16 << 20 // bytes of all names' paths together, at most
)

var (
	// tomlText is what has no structure in a document: strings of its four kinds, and comments
	// (https://toml.io/en/v1.0.0#string). A string without an end is an error, and nothing after it counts.
	tomlText = regexp.MustCompile(
		`(?s)"""(?:\\.|[^\\])*?(?:"{3,5}|\\?\z)|'''.*?(?:'{3,5}|\z)|` +
			`"(?:\\[^\r\n]|[^"\\\r\n])*"?|'[^'\r\n]*'?|#[^\r\n]*`)
	// tomlName is what comes before a value, or the line of a table's name.
	tomlName = regexp.MustCompile(`(?m)[^\n,={}]*=|^[ \t]*\[.*`)
)

// decodeTOML decodes a document of the source, which has that name. It fails with InvalidArgument.
func decodeTOML(name, text string, into any) error {
	if !utf8.ValidString(text) {
		return fault.New(fault.InvalidArgument, "%s is not UTF-8.", name)
	}
	if !isModest(strings.TrimPrefix(text, "\ufeff")) {
		return fault.New(fault.InvalidArgument, "%s nests too deeply, or its names are too long.", name)
	}
	if _, err := toml.Decode(text, into); err != nil {
		return fault.New(fault.InvalidArgument, "%s is not valid: %v.", name, err)
	}
	return nil
}

// isModest reports whether a document keeps to the bounds. Each part of a name has a sign of its own, and its path is
// no longer than the names of its table, of all that it is in, and its own.
func isModest(text string) bool {
	text = tomlText.ReplaceAllStringFunc(text, func(s string) string {
		if s[0] == '#' || strings.HasPrefix(s, `"""`) || strings.HasPrefix(s, `'''`) {
			return "" // no name is one
		}
		return strings.Repeat("x", len(s))
	})
	parts, depth, deepest, longest := 0, 0, 0, 0
	for _, c := range text {
		switch c {
		case '[', '{':
			parts++
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth--
		case '.', '=':
			parts++
		}
	}
	for _, at := range tomlName.FindAllStringIndex(text, -1) {
		longest = max(longest, at[1]-at[0])
	}
	return deepest <= maxNesting && parts*longest*(deepest+2) <= maxPaths
}
