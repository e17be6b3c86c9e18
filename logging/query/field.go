package query

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"giggle/logging"
)

// entry is an entry whose payload is decoded once, when it is asked for.
type entry struct {
	*logging.Entry
	json, proto any
	decoded     bool
}

func (e *entry) decode() {
	if e.decoded {
		return
	}
	e.decoded = true
	_ = json.Unmarshal(e.JSON, &e.json) // none is none
	_ = json.Unmarshal(e.Proto, &e.proto)
}

// kind is what the values of a field are.
type kind int

const (
	dynamic kind = iota // whatever JSON has
	text
	integer
	boolean
	instant
	duration
	severity
	message // fields
)

// field is a field of LogEntry, or of what is inside one.
type field struct {
	name string
	kind kind
	// get returns the value, nil for none: a string, float64, bool, time.Time, time.Duration, logging.Severity, or what
	// encoding/json makes.
	get func(e *entry) any
	// missing means that the field can be missing, which fails every comparison: those of payloads and labels. Others
	// have their default values
	// (https://cloud.google.com/logging/docs/view/logging-query-language#missing-fields).
	missing bool
	inside  []string // the path below what get returns
}

// known are the fields of LogEntry
// (https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry), in lower case without underscores.
var known = map[string]field{
	"insertid": {kind: text, get: func(e *entry) any { return e.ID }},
	"logname": {kind: text, get: func(e *entry) any {
		return "projects/" + e.Project + "/logs/" + url.QueryEscape(e.Log)
	}},
	"timestamp":        {kind: instant, get: func(e *entry) any { return e.Time }},
	"receivetimestamp": {kind: instant, get: func(e *entry) any { return e.Time }},
	"severity":         {kind: severity, get: func(e *entry) any { return e.Severity }},
	"textpayload":      {kind: text, get: func(e *entry) any { return e.Text }},
	"jsonpayload":      {kind: dynamic, missing: true, get: func(e *entry) any { e.decode(); return e.json }},
	"protopayload":     {kind: dynamic, missing: true, get: func(e *entry) any { e.decode(); return e.proto }},
	"labels":           {kind: dynamic, missing: true, get: func(e *entry) any { return textMap(e.Labels) }},
	"resource": {kind: message, get: func(e *entry) any {
		return map[string]any{"type": e.Resource.Type, "labels": textMap(e.Resource.Labels)}
	}},
	"resource.type":   {kind: text, get: func(e *entry) any { return e.Resource.Type }},
	"resource.labels": {kind: dynamic, missing: true, get: func(e *entry) any { return textMap(e.Resource.Labels) }},
	"trace": {kind: text, get: func(e *entry) any {
		return logging.TraceName(e.Project, e.Trace)
	}},
	"spanid":       {kind: text, get: func(e *entry) any { return e.Span }},
	"tracesampled": {kind: boolean, get: func(e *entry) any { return e.Sampled }},
	"httprequest": {kind: message, get: func(e *entry) any {
		if e.Request == nil {
			return nil
		}
		return requestMap(e.Request)
	}},
	"httprequest.requestmethod": ofRequest(text, func(r *logging.Request) any { return r.Method }),
	"httprequest.requesturl":    ofRequest(text, func(r *logging.Request) any { return r.URL }),
	"httprequest.requestsize":   ofRequest(integer, func(r *logging.Request) any { return float64(r.RequestSize) }),
	"httprequest.status":        ofRequest(integer, func(r *logging.Request) any { return float64(r.Status) }),
	"httprequest.responsesize":  ofRequest(integer, func(r *logging.Request) any { return float64(r.ResponseSize) }),
	"httprequest.useragent":     ofRequest(text, func(r *logging.Request) any { return r.UserAgent }),
	"httprequest.remoteip":      ofRequest(text, func(r *logging.Request) any { return r.RemoteIP }),
	"httprequest.serverip":      ofRequest(text, func(r *logging.Request) any { return r.ServerIP }),
	"httprequest.referer":       ofRequest(text, func(r *logging.Request) any { return r.Referer }),
	"httprequest.latency":       ofRequest(duration, func(r *logging.Request) any { return r.Latency }),
	"httprequest.cachelookup":   ofRequest(boolean, func(r *logging.Request) any { return r.CacheLookup }),
	"httprequest.cachehit":      ofRequest(boolean, func(r *logging.Request) any { return r.CacheHit }),
	"httprequest.protocol":      ofRequest(text, func(r *logging.Request) any { return r.Protocol }),

	// What Giggle writes has none of these.
	"httprequest.cachevalidatedwithoriginserver": ofRequest(boolean, func(*logging.Request) any { return false }),
	"httprequest.cachefillbytes":                 ofRequest(integer, func(*logging.Request) any { return 0.0 }),

	"sourcelocation":          {kind: message, get: func(e *entry) any { return decoded(e.Source) }},
	"sourcelocation.file":     ofObject(text, source, "file"),
	"sourcelocation.line":     ofObject(integer, source, "line"),
	"sourcelocation.function": ofObject(text, source, "function"),
	"operation":               {kind: message, get: func(e *entry) any { return decoded(e.Operation) }},
	"operation.id":            ofObject(text, operation, "id"),
	"operation.producer":      ofObject(text, operation, "producer"),
	"operation.first":         ofObject(boolean, operation, "first"),
	"operation.last":          ofObject(boolean, operation, "last"),
	"split":                   {kind: message, get: func(e *entry) any { return decoded(e.Split) }},
	"split.uid":               ofObject(text, split, "uid"),
	"split.index":             ofObject(integer, split, "index"),
	"split.totalsplits":       ofObject(integer, split, "totalSplits"),
	// What Giggle writes has none of these.
	"errorgroups":    {kind: message, get: func(*entry) any { return nil }},
	"errorgroups.id": {kind: text, missing: true, get: func(*entry) any { return nil }},
	"metadata":       {kind: dynamic, missing: true, get: func(*entry) any { return nil }},
}

func source(e *entry) json.RawMessage    { return e.Source }
func operation(e *entry) json.RawMessage { return e.Operation }
func split(e *entry) json.RawMessage     { return e.Split }

// ofRequest is a field of httpRequest, which has the default of its kind where there is no request.
func ofRequest(k kind, get func(r *logging.Request) any) field {
	var none logging.Request
	return field{kind: k, get: func(e *entry) any {
		if e.Request == nil {
			return get(&none)
		}
		return get(e.Request)
	}}
}

// ofObject is a field of a message that is kept as JSON.
func ofObject(k kind, of func(e *entry) json.RawMessage, name string) field {
	zero := map[kind]any{text: "", integer: 0.0, boolean: false}[k]
	return field{kind: k, get: func(e *entry) any {
		x, _ := decoded(of(e)).(map[string]any)
		v, ok := x[name]
		if !ok {
			return zero
		}
		if s, quoted := v.(string); quoted && k == integer { // as JSON has an int64
			n, _ := strconv.ParseFloat(s, 64)
			return n
		}
		return v
	}}
}

func decoded(b json.RawMessage) any {
	var v any
	if len(b) > 0 {
		_ = json.Unmarshal(b, &v)
	}
	return v
}

// textMap is a map, and nil without a type where it has nothing.
func textMap(m map[string]string) any {
	if len(m) == 0 {
		return nil
	}
	return m
}

// requestMap is what a value that stands alone is looked for in.
func requestMap(r *logging.Request) any {
	return map[string]any{
		"requestMethod": r.Method,
		"requestUrl":    r.URL,
		"status":        float64(r.Status),
		"userAgent":     r.UserAgent,
		"remoteIp":      r.RemoteIP,
		"serverIp":      r.ServerIP,
		"referer":       r.Referer,
		"protocol":      r.Protocol,
	}
}

// resolve finds the field that a path names, in camel or snake case.
func resolve(path []string) (field, error) {
	for n := len(path); n > 0; n-- {
		name := strings.ToLower(strings.ReplaceAll(strings.Join(path[:n], "."), "_", ""))
		f, ok := known[name]
		if !ok {
			continue
		}
		f.name = strings.Join(path, ".")
		if f.inside = path[n:]; len(f.inside) == 0 {
			return f, nil
		}
		if f.kind != dynamic {
			return field{}, fmt.Errorf("%s has no field %s", strings.Join(path[:n], "."), path[n])
		}
		if slices.Contains(f.inside, "") {
			return field{}, fmt.Errorf("a part of the field's name is missing")
		}
		return f, nil
	}
	return field{}, fmt.Errorf("%q is not a field of a log entry; a field of the payload is jsonPayload.%s", path[0],
		strings.Join(path, "."))
}

// values calls yield with each value of the field in an entry, those of lists one by one, until it returns true. It
// reports whether one did.
func (f *field) values(e *entry, yield func(v any) bool) bool {
	return below(f.get(e), f.inside, yield)
}

func below(v any, path []string, yield func(v any) bool) bool {
	switch x := v.(type) {
	case nil:
		return false
	case []any:
		for _, one := range x {
			if below(one, path, yield) {
				return true
			}
		}
		return false
	case map[string]any:
		if len(path) == 0 {
			return yield(x)
		}
		// A key may have dots in it.
		for n := 1; n <= len(path); n++ {
			if one, ok := x[key(path[:n])]; ok {
				if one == nil && n == len(path) {
					return yield(nil)
				}
				return below(one, path[n:], yield)
			}
		}
		return false
	case map[string]string:
		if len(path) == 0 {
			return yield(x)
		}
		one, ok := x[key(path)]
		return ok && yield(one)
	}
	return len(path) == 0 && yield(v)
}

func key(path []string) string {
	if len(path) == 1 {
		return path[0]
	}
	return strings.Join(path, ".")
}

// leaves calls yield with every value inside one that holds no others.
func leaves(v any, yield func(v any) bool) bool {
	switch x := v.(type) {
	case nil:
		return false
	case []any:
		return slices.ContainsFunc(x, func(one any) bool { return leaves(one, yield) })
	case map[string]any:
		for _, one := range x {
			if leaves(one, yield) {
				return true
			}
		}
		return false
	case map[string]string:
		for _, one := range x {
			if yield(one) {
				return true
			}
		}
		return false
	}
	return yield(v)
}

// everything are the fields that a value that stands alone is looked for in.
var everything = []string{
	"textpayload", "jsonpayload", "protopayload", "httprequest", "labels", "resource", "logname", "insertid", "severity",
	"trace", "spanid", "sourcelocation", "operation",
}

// written is a value as text, as the API writes it.
func written(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	case fmt.Stringer:
		return x.String()
	case float64:
		b, _ := json.Marshal(x)
		return string(b)
	}
	return fmt.Sprint(v)
}
