package builds

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"giggle/fault"
)

// maxValue is the most bytes of a substitution's value ("Substituting variable values" in the documentation).
const maxValue = 4000

// settable are the built-in substitutions that a caller may give; a trigger would.
var settable = []string{
	"TRIGGER_NAME", "TRIGGER_BUILD_CONFIG_PATH", "COMMIT_SHA", "REVISION_ID", "SHORT_SHA", "REPO_NAME",
	"REPO_FULL_NAME", "BRANCH_NAME", "TAG_NAME", "REF_NAME",
}

// fixed are the built-in substitutions that only the platform knows.
var fixed = []string{"PROJECT_ID", "PROJECT_NUMBER", "BUILD_ID", "LOCATION", "SERVICE_ACCOUNT_EMAIL", "SERVICE_ACCOUNT"}

// expander replaces substitutions in the texts of one build.
type expander struct {
	values  map[string]string
	loose   bool            // substitutions may be missing or unused
	dynamic bool            // values may be made of others, and ${NAME} may have a parameter expansion of bash
	used    map[string]bool // by what was expanded
	size    int             // bytes of what was expanded
}

// expand returns the spec with all substitutions in place, and the tags. own are the platform's built-in values, used
// the substitutions that something else needed. The spec's substitutions are checked.
func (s *Spec) expand(own map[string]string, tags []string, used map[string]bool) (Spec, []string, error) {
	x := &expander{
		values:  maps.Clone(own),
		loose:   s.Options.Substitution == AllowLoose,
		dynamic: s.Options.Dynamic,
		used:    used,
	}
	for _, k := range settable {
		x.values[k] = ""
	}
	keys := slices.Sorted(maps.Keys(s.Substitutions))
	maps.Copy(x.values, s.Substitutions)
	if x.dynamic {
		if err := x.evaluate(keys); err != nil {
			return Spec{}, nil, err
		}
	}
	out, tags, err := x.spec(s, tags)
	if err != nil {
		return Spec{}, nil, err
	}
	for _, k := range keys {
		if !x.used[k] && !x.loose {
			return Spec{}, nil,
				fault.Invalid("substitutions", "key %q in the substitution data is not matched in the template", k)
		}
	}
	out.Substitutions = maps.Clone(s.Substitutions)
	for _, k := range keys {
		out.Substitutions[k] = x.values[k]
	}
	return out, tags, nil
}

// checkSubstitutions refuses substitutions that can't be given, before anything is made of them.
func (s *Spec) checkSubstitutions() error {
	if len(s.Substitutions) > maxSubstitutions {
		return fault.Invalid("substitutions", "%d are too many; %d are the most", len(s.Substitutions), maxSubstitutions)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Substitutions)) {
		v := s.Substitutions[k]
		switch {
		case slices.Contains(fixed, k):
			return fault.Invalid("substitutions", "key %q is set by Cloud Build and can't be given", k)
		case !slices.Contains(settable, k) && !substitutionKey().MatchString(k):
			return fault.Invalid("substitutions",
				"key %.100q must start with '_' and consist of upper-case letters, digits and '_'", k)
		case len(v) > maxValue || !utf8.ValidString(v) || strings.Contains(v, "\x00"):
			return fault.Invalid("substitutions", "the value of %q must be text of at most %d bytes", k, maxValue)
		}
	}
	return nil
}

// Literal is a substitution's value that stands for itself where values are made of others: a text from outside, say.
func Literal(text string) string { return strings.ReplaceAll(text, "$", "$$") }

// evaluate puts the values of substitutions in place of others' names in them. What nothing has set is empty there, as
// bash has it. Built-in ones are what the platform or a repository says, and no templates.
func (x *expander) evaluate(keys []string) error {
	const visiting, done = 1, 2
	state := make(map[string]int)
	var visit func(k string) error
	visit = func(k string) error {
		switch {
		case state[k] == visiting:
			return fault.Invalid("substitutions", "[%s -> %.200s]: cycle in evaluating substitutions", k, x.values[k])
		case state[k] == done || !strings.HasPrefix(k, "_"):
			return nil
		}
		state[k] = visiting
		var inner error
		v, err := expandText(x.values[k], true, func(name, _ string) (string, bool) {
			if slices.Contains(keys, name) && inner == nil {
				inner = visit(name)
			}
			x.used[name] = true
			return x.values[name], true
		})
		switch {
		case inner != nil:
			return inner
		case err != nil:
			return fault.Invalid("substitutions", "[%s -> %.200s]: %v", k, x.values[k], err)
		case len(v) > maxValue:
			return fault.Invalid("substitutions", "the value of %q grows over %d bytes", k, maxValue)
		}
		x.values[k], state[k] = v, done
		return nil
	}
	for _, k := range keys {
		if err := visit(k); err != nil {
			return err
		}
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// text expands one text of the build.
//
// A name without "_" that is not built in is refused however loose the build is, by itself; with an expansion of bash
// behind it, it is the shell's (Cloud Build's reference, "Substituting variable values").
func (x *expander) text(field, s string) (string, error) {
	if x.size > maxExpanded {
		return "", fault.Invalid(field, "the expanded build is longer than %d MiB", maxExpanded>>20)
	}
	var missing error
	out, err := expandText(s, x.dynamic, func(name, operation string) (string, bool) {
		v, ok := x.values[name]
		own := strings.HasPrefix(name, "_")
		switch {
		case !isExpansion(operation):
			return "", false
		case ok:
			x.used[name] = true
			return v, true
		case own && (x.loose || operation != ""):
			return "", true
		case operation != "":
			return "", false // the shell's
		case missing != nil:
		case own:
			missing = fault.Invalid(field, "key in the template %q is not matched in the substitution data", name)
		default:
			missing = fault.Invalid("build.substitutions",
				"key in the template %q is not a valid built-in substitution (%s; write $$%s for a variable of the shell)",
				name, field, name)
		}
		return "", true
	})
	if err != nil {
		err = fault.Invalid(field, "%v", err)
	}
	x.size += len(out)
	return out, first(missing, err)
}

func (x *expander) list(field string, in []string) error {
	for i := range in {
		var err error
		if in[i], err = x.text(fmt.Sprintf("%s[%d]", field, i), in[i]); err != nil {
			return err
		}
	}
	return nil
}

// spec expands all fields in which substitutions count. A script is not one of them: it sees them as variables.
func (x *expander) spec(in *Spec, tags []string) (Spec, []string, error) {
	s, tags := in.clone(), slices.Clone(tags)
	var errs []error
	one := func(field string, p *string) {
		v, err := x.text(field, *p)
		*p = v
		errs = append(errs, err)
	}
	volumes := func(field string, vs []Volume) {
		for i := range vs {
			one(fmt.Sprintf("%s[%d].name", field, i), &vs[i].Name)
			one(fmt.Sprintf("%s[%d].path", field, i), &vs[i].Path)
		}
	}
	errs = append(errs, x.list("options.env", s.Options.Env))
	volumes("options.volumes", s.Options.Volumes)
	for i := range s.Steps {
		t := &s.Steps[i]
		at := func(f string) string { return fmt.Sprintf("steps[%d].%s", i, f) }
		for _, f := range []struct {
			name string
			text *string
		}{{"name", &t.Name}, {"id", &t.ID}, {"dir", &t.Dir}, {"entrypoint", &t.Entrypoint}} {
			one(at(f.name), f.text)
		}
		errs = append(errs, x.list(at("args"), t.Args), x.list(at("waitFor"), t.WaitFor))
		if t.Builtin == "" { // the variables of a deploy from source are no templates
			errs = append(errs, x.list(at("env"), t.Env))
		}
		volumes(at("volumes"), t.Volumes)
		if in.automaps(t) {
			for _, k := range slices.Sorted(maps.Keys(x.values)) {
				x.used[k] = true
				t.Env = append([]string{k + "=" + x.values[k]}, t.Env...)
				x.size += len(t.Env[0])
			}
		}
	}
	errs = append(errs, x.list("images", s.Images), x.list("artifacts.objects.paths", s.Objects.Paths),
		x.list("tags", tags))
	one("artifacts.objects.location", &s.Objects.Location)
	one("logsBucket", &s.LogsBucket)
	return s, tags, first(errs...)
}

// reference finds the next substitution: "$$", "$NAME", "${NAME}", or "${NAME" and "${#NAME" with what follows.
var reference = regexp.MustCompile(`\$(?:\$|[A-Z_][A-Z0-9_]*|\{#?[A-Z_][A-Z0-9_]*)`)

// expandText replaces $NAME and ${NAME} in s, and with dynamic also ${NAME…} by what bash would make of it. value
// returns a name's value, or false where the text stays as it is; so does all that is no substitution.
func expandText(s string, dynamic bool, value func(name, operation string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		at := reference.FindStringIndex(s)
		if at == nil {
			out.WriteString(s)
			return out.String(), nil
		}
		out.WriteString(s[:at[0]])
		found := s[at[0]:at[1]]
		s = s[at[1]:]
		name, braced := strings.CutPrefix(found[1:], "{")
		if name == "$" {
			out.WriteByte('$')
			continue
		}
		var operation string
		if braced {
			end := 0
			if dynamic {
				var err error
				if end, err = closing(s); err != nil {
					return "", err
				}
			} else if name[0] == '#' || !strings.HasPrefix(s, "}") {
				end = -1
			}
			if end < 0 {
				out.WriteString(found)
				continue
			}
			operation, s = s[:end], s[end+1:]
			found += operation + "}"
			if length, ok := strings.CutPrefix(name, "#"); ok {
				name, operation = length, lengthOf+operation
			}
		}
		v, ok := value(name, operation)
		if ok {
			var err error
			word := func(s string) (string, error) { return expandText(s, true, value) }
			v, err = operate(v, operation, word)
			if err != nil {
				return "", err
			}
			found = v
		}
		if out.WriteString(found); out.Len() > maxText {
			return "", errLong
		}
	}
}

// Limits of an expanded text, and of all texts of a build together, in bytes.
const (
	maxText     = 1 << 20
	maxExpanded = 8 << 20
)

var (
	errLong = errors.New("the expanded text is longer than 1 MiB")
	errDeep = errors.New("it is nested too deep")
)

// closing returns where the brace that was opened before s is closed, or -1. Looking no deeper than maxNesting keeps a
// text of open braces from being read once for each of them.
func closing(s string) (int, error) {
	depth := 1
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case strings.HasPrefix(s[i:], "${"):
			if depth++; depth > maxNesting+1 {
				return 0, errDeep
			}
			i++
		case s[i] == '}':
			if depth--; depth == 0 {
				return i, nil
			}
		}
	}
	return -1, nil
}

// maxNesting bounds ${_A:-${_B:-…}}.
const maxNesting = 16

// lengthOf is the operation of ${#NAME}.
const lengthOf = "\x00#"

// isExpansion reports whether what stands between a name and its brace is a parameter expansion that operate knows.
func isExpansion(op string) bool {
	switch op {
	case "", "^", "^^", ",", ",,", lengthOf:
		return true
	}
	return strings.ContainsRune(":-=+%#/", rune(op[0])) && !strings.HasPrefix(op, ":?")
}

// operate applies a parameter expansion of bash, "%b" or ":1:2", to a value. word expands what is in it.
func operate(v, op string, word func(string) (string, error)) (string, error) {
	if !isExpansion(op) {
		return "", errors.New("bad substitution")
	}
	if strings.Count(op, "${") > maxNesting {
		return "", errDeep
	}
	if op == "" {
		return v, nil
	}
	// What nothing has set is empty here, so that a colon makes no difference.
	plain := strings.TrimPrefix(op, ":")
	switch {
	case op == lengthOf:
		return strconv.Itoa(utf8.RuneCountInString(v)), nil
	case plain != "" && (plain[0] == '-' || plain[0] == '='):
		if v != "" {
			return v, nil
		}
		return word(plain[1:])
	case strings.HasPrefix(plain, "+"):
		if v == "" {
			return "", nil
		}
		return word(plain[1:])
	case op[0] == ':':
		return slice(v, op[1:])
	case op[0] == '%' || op[0] == '#':
		rest, longest := strings.CutPrefix(op[1:], op[:1])
		pattern, err := word(rest)
		if err != nil {
			return "", err
		}
		return trim(v, pattern, op[0] == '%', longest)
	case op[0] == '/':
		return replace(v, op[1:], word)
	case op == "^^":
		return strings.ToUpper(v), nil
	case op == ",,":
		return strings.ToLower(v), nil
	case op == "^" || op == ",":
		_, n := utf8.DecodeRuneInString(v)
		if op == "^" {
			return strings.ToUpper(v[:n]) + v[n:], nil
		}
		return strings.ToLower(v[:n]) + v[n:], nil
	}
	return "", errors.New("bad substitution")
}

// slice is ${v:offset} and ${v:offset:length}.
func slice(v, op string) (string, error) {
	r := []rune(v)
	from, length, hasLength := strings.Cut(op, ":")
	number := func(s string) (int, error) {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n > 1<<20 || n < -1<<20 {
			return 0, fmt.Errorf("%.20q is not a number", s)
		}
		return n, nil
	}
	start, err := number(from)
	if err != nil {
		return "", err
	}
	if start < 0 {
		start += len(r)
	}
	if start < 0 || start >= len(r) {
		return "", nil
	}
	end := len(r)
	if hasLength {
		n, err := number(length)
		if err != nil {
			return "", err
		}
		if end = start + n; n < 0 {
			end = len(r) + n
		}
		if end < start {
			return "", errors.New("the end lies before the start")
		}
	}
	return string(r[start:min(end, len(r))]), nil
}

// matcher compiles a pattern of the shell between two regular expressions.
func matcher(before, pattern, after string) (*regexp.Regexp, error) {
	if len(pattern) <= maxValue {
		if re, err := regexp.Compile(before + glob(pattern) + after); err == nil {
			return re, nil
		}
	}
	return nil, errors.New("the pattern can't be used")
}

// glob translates a pattern of the shell into a regular expression, whose first match is the shortest.
func glob(pattern string) string {
	var out strings.Builder
	out.WriteString("(?s:")
	for i := 0; i < len(pattern); {
		r, n := utf8.DecodeRuneInString(pattern[i:])
		switch r {
		case '*':
			out.WriteString(".*?")
		case '?':
			out.WriteString(".")
		case '\\':
			if i+n < len(pattern) {
				i += n
				r, n = utf8.DecodeRuneInString(pattern[i:])
			}
			out.WriteString(regexp.QuoteMeta(string(r)))
		case '[':
			if set, size, ok := bracket(pattern[i:]); ok {
				out.WriteString(set)
				i += size
				continue
			}
			out.WriteString(`\[`)
		default:
			out.WriteString(regexp.QuoteMeta(string(r)))
		}
		i += n
	}
	out.WriteString(")")
	return out.String()
}

// bracket translates "[abc]" or "[!a-z]" at the start of a pattern.
func bracket(p string) (set string, size int, ok bool) {
	end := strings.IndexByte(p[1:], ']') + 1
	if end <= 1 {
		return "", 0, false
	}
	inner := p[1:end]
	not := ""
	if inner[0] == '!' || inner[0] == '^' {
		not, inner = "^", inner[1:]
	}
	set = "[" + not + strings.NewReplacer(`\`, `\\`, "[", `\[`, "^", `\^`).Replace(inner) + "]"
	_, err := regexp.Compile(set)
	return set, end + 1, inner != "" && err == nil
}

// trim removes the shortest or longest prefix or suffix of v that a pattern matches. It reads v once.
func trim(v, pattern string, suffix, longest bool) (string, error) {
	before, after := "^", ""
	switch {
	case suffix && longest:
		before, after = "^(?s:(.*?))", "$"
	case suffix:
		before, after = "^(?s:(.*))", "$"
	}
	re, err := matcher(before, pattern, after)
	if err != nil {
		return "", err
	}
	if suffix {
		if m := re.FindStringSubmatch(v); m != nil {
			return m[1], nil
		}
		return v, nil
	}
	if longest {
		re.Longest()
	}
	return strings.TrimPrefix(v, re.FindString(v)), nil
}

// replace is ${v/pattern/text} with its forms "//", "/#" and "/%".
func replace(v, op string, word func(string) (string, error)) (string, error) {
	all := strings.HasPrefix(op, "/")
	op = strings.TrimPrefix(op, "/")
	before, after := "", ""
	if !all && op != "" && op[0] == '#' {
		before, op = "^", op[1:]
	} else if !all && op != "" && op[0] == '%' {
		after, op = "$", op[1:]
	}
	cut := len(op)
	for i := 0; i < len(op); i++ {
		if op[i] == '\\' {
			i++
		} else if op[i] == '/' {
			cut = i
			break
		}
	}
	pattern, err := word(op[:cut])
	if err != nil {
		return "", err
	}
	text, err := word(strings.TrimPrefix(op[cut:], "/"))
	if err != nil || pattern == "" {
		return v, err
	}
	re, err := matcher(before, pattern, after)
	if err != nil {
		return "", err
	}
	re.Longest()
	if all {
		if len(re.FindAllStringIndex(v, -1))*len(text) > maxText {
			return "", errLong
		}
		return re.ReplaceAllLiteralString(v, text), nil
	}
	if at := re.FindStringIndex(v); at != nil {
		return v[:at[0]] + text + v[at[1]:], nil
	}
	return v, nil
}
