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
	values map[string]string
	loose  bool
	used   map[string]bool
}

// expand returns the spec with all substitutions in place, and the tags. own are the platform's built-in values, used
// the substitutions that something else needed.
func (s *Spec) expand(own map[string]string, tags []string, used map[string]bool) (Spec, []string, error) {
	x := &expander{values: maps.Clone(own), loose: s.Options.Substitution == AllowLoose, used: used}
	if len(s.Substitutions) > maxSubstitutions {
		return Spec{}, nil, fault.Invalid("substitutions", "%d are too many; %d are the most", len(s.Substitutions),
			maxSubstitutions)
	}
	for _, k := range settable {
		x.values[k] = ""
	}
	keys := slices.Sorted(maps.Keys(s.Substitutions))
	for _, k := range keys {
		v := s.Substitutions[k]
		switch {
		case slices.Contains(fixed, k):
			return Spec{}, nil, fault.Invalid("substitutions", "key %q is set by Cloud Build and can't be given", k)
		case !slices.Contains(settable, k) && !substitutionKey().MatchString(k):
			return Spec{}, nil,
				fault.Invalid("substitutions",
					"key %.100q must start with '_' and consist of upper-case letters, digits and '_'", k)
		case len(v) > maxValue || !utf8.ValidString(v) || strings.Contains(v, "\x00"):
			return Spec{}, nil,
				fault.Invalid("substitutions", "the value of %q must be text of at most %d bytes", k, maxValue)
		}
		x.values[k] = v
	}
	if s.Options.Dynamic {
		if err := x.dynamic(keys); err != nil {
			return Spec{}, nil, err
		}
	}
	out, tags, err := x.spec(s, tags)
	if err != nil {
		return Spec{}, nil, err
	}
	for _, k := range keys {
		if !x.used[k] && !x.loose && strings.HasPrefix(k, "_") {
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

// dynamic expands the values of substitutions that are made of others.
func (x *expander) dynamic(keys []string) error {
	const visiting, done = 1, 2
	state := make(map[string]int)
	var visit func(k string) error
	visit = func(k string) error {
		switch state[k] {
		case visiting:
			return fault.Invalid("substitutions", "key %q is made of itself", k)
		case done:
			return nil
		}
		state[k] = visiting
		var inner error
		_, err := expandText(x.values[k], func(name string) (string, bool) {
			if slices.Contains(keys, name) && inner == nil {
				inner = visit(name)
			}
			return x.values[name], true
		})
		if err := errors.Join(inner, wrapText("substitutions", err)); err != nil {
			return first(inner, err)
		}
		v, err := x.text("substitutions", x.values[k])
		if err != nil {
			return err
		}
		if len(v) > maxValue {
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

func wrapText(field string, err error) error {
	if err == nil {
		return nil
	}
	return fault.Invalid(field, "%v", err)
}

// text expands one text of the build.
func (x *expander) text(field, s string) (string, error) {
	var missing error
	out, err := expandText(s, func(name string) (string, bool) {
		v, ok := x.values[name]
		x.used[name] = true
		if ok || missing != nil {
			return v, ok
		}
		switch {
		case x.loose && strings.HasPrefix(name, "_"):
			return "", true
		case x.loose:
			return "", false // stays as it is: a shell's variable, say
		case strings.HasPrefix(name, "_"):
			missing = fault.Invalid(field, "key in the template %q is not matched in the substitution data", name)
		default:
			missing = fault.Invalid(field,
				"key in the template %q is not a valid built-in substitution; write $$%s for a variable of the shell",
				name, name)
		}
		return "", true
	})
	return out, first(missing, wrapText(field, err))
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
			}
		}
	}
	errs = append(errs, x.list("images", s.Images), x.list("artifacts.objects.paths", s.Objects.Paths),
		x.list("tags", tags))
	one("artifacts.objects.location", &s.Objects.Location)
	one("logsBucket", &s.LogsBucket)
	return s, tags, first(errs...)
}

// reference finds the next substitution: "$$", "$NAME" or "${NAME" with what follows.
var reference = regexp.MustCompile(`\$(?:\$|\{?[A-Z_][A-Z0-9_]*)`)

// expandText replaces $NAME and ${NAME…} in s. value returns a name's value, or false where the text stays as it is.
func expandText(s string, value func(name string) (string, bool)) (string, error) {
	if !strings.Contains(s, "$") {
		return s, nil
	}
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
			end, err := closing(s)
			if err != nil {
				return "", fmt.Errorf("${%s is not closed", name)
			}
			operation, s = s[:end], s[end+1:]
			found += operation + "}"
		}
		v, ok := value(name)
		if !ok {
			out.WriteString(found)
			continue
		}
		v, err := operate(v, operation, value)
		if err != nil {
			return "", fmt.Errorf("%.100q: %w", found, err)
		}
		if out.WriteString(v); out.Len() > 1<<20 {
			return "", errors.New("the expanded text is longer than 1 MiB")
		}
	}
}

// closing returns where the brace that was opened before s is closed.
func closing(s string) (int, error) {
	depth := 1
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case strings.HasPrefix(s[i:], "${"):
			depth++
			i++
		case s[i] == '}':
			if depth--; depth == 0 {
				return i, nil
			}
		}
	}
	return 0, errors.New("no end")
}

// maxNesting bounds ${_A:-${_B:-…}}.
const maxNesting = 16

// operate applies a parameter expansion of bash, "%b" or ":1:2", to a value.
func operate(v, op string, value func(string) (string, bool)) (string, error) {
	if strings.Count(op, "${") > maxNesting {
		return "", errors.New("it is nested too deep")
	}
	word := func(s string) (string, error) { return expandText(s, value) }
	switch {
	case op == "":
		return v, nil
	case strings.HasPrefix(op, ":-"), strings.HasPrefix(op, ":="):
		if v != "" {
			return v, nil
		}
		return word(op[2:])
	case strings.HasPrefix(op, ":+"):
		if v == "" {
			return "", nil
		}
		return word(op[2:])
	case op[0] == ':':
		return slice(v, op[1:])
	case op[0] == '%' || op[0] == '#':
		longest := strings.HasPrefix(op[1:], op[:1])
		pattern, err := word(strings.TrimPrefix(op[1:], op[:1]))
		if !longest {
			pattern, err = word(op[1:])
		}
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
	return "", fmt.Errorf("%.50q is not a parameter expansion that is known", op)
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

// glob translates a pattern of the shell into a regular expression.
func glob(pattern string) string {
	var out strings.Builder
	out.WriteString("(?s:")
	for i := 0; i < len(pattern); {
		r, n := utf8.DecodeRuneInString(pattern[i:])
		switch r {
		case '*':
			out.WriteString(".*")
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

// trim removes the shortest or longest prefix or suffix of v that a pattern matches.
func trim(v, pattern string, suffix, longest bool) (string, error) {
	re, err := regexp.Compile("^" + glob(pattern) + "$")
	if err != nil || len(v) > maxValue {
		return "", errors.New("the pattern can't be used")
	}
	var cuts []int // where what matches ends or starts
	for i := range v {
		cuts = append(cuts, i)
	}
	cuts = append(cuts, len(v))
	if suffix != longest { // the shortest suffix starts last, the longest prefix ends last
		slices.Reverse(cuts)
	}
	for _, i := range cuts {
		if suffix && re.MatchString(v[i:]) {
			return v[:i], nil
		}
		if !suffix && re.MatchString(v[:i]) {
			return v[i:], nil
		}
	}
	return v, nil
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
	re, err := regexp.Compile(before + glob(pattern) + after)
	if err != nil {
		return "", errors.New("the pattern can't be used")
	}
	re.Longest()
	if all {
		return re.ReplaceAllLiteralString(v, text), nil
	}
	if at := re.FindStringIndex(v); at != nil {
		return v[:at[0]] + text + v[at[1]:], nil
	}
	return v, nil
}
