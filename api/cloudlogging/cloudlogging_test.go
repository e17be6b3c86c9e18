package cloudlogging_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"giggle/api/cloudlogging"
	"giggle/api/guard/guardtest"
	"giggle/iam"
	"giggle/logging"
	"giggle/resource"
)

type world struct {
	*guardtest.World
	log *logging.Ring
	now time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		World: guardtest.New(t),
		log:   logging.NewRing(10_000, 10<<20),
		now:   time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC),
	}
	s := cloudlogging.New(cloudlogging.Config{
		Log:      w.log,
		Entries:  logging.Readers{w.log, w.Audit},
		Identity: w.IAM,
		Projects: w.Projects,
		Pages:    w.Pages,
		Now:      func() time.Time { return w.now },
	})
	const host = "logging.googleapis.com"
	w.Serve(t, host, host, cloudlogging.Rules, s.Register)
	return w
}

// request is an entry of a request that a service answered.
func request(minute, status int) logging.Entry {
	e := logging.Entry{
		Project:  "giggle",
		Log:      logging.Requests,
		Time:     time.Date(2026, 11, 30, 11, minute, 0, 0, time.UTC),
		Severity: logging.Info,
		Resource: logging.Revision(resource.Revision{
			Service: resource.Service("giggle", "europe-north1", "jokes"),
			ID:      "jokes-00001-abc",
		}),
		ID:      fmt.Sprintf("r%02d", minute),
		Request: &logging.Request{Method: "GET", URL: "https://jokes/", Status: status, Latency: time.Second},
	}
	if status >= 500 {
		e.Severity = logging.Error
	}
	return e
}

// ids are those of the entries in an answer.
func ids(answer map[string]any) string {
	var out []string
	all, _ := answer["entries"].([]any)
	for _, e := range all {
		out = append(out, e.(map[string]any)["insertId"].(string))
	}
	return strings.Join(out, " ")
}

func body(v any) string { b, _ := json.Marshal(v); return string(b) }

func TestList(t *testing.T) {
	w := newWorld(t)
	for minute := range 6 {
		w.log.Append(request(minute, 200+300*(minute%2)))
	}
	other := request(7, 200)
	other.Project, other.ID = "another-project", "other"
	w.log.Append(other)
	list := func(t *testing.T, token string, change map[string]any, status int) map[string]any {
		t.Helper()
		ask := map[string]any{"resourceNames": []string{"projects/giggle"}, "filter": `resource.type=cloud_run_revision`}
		for k, v := range change {
			ask[k] = v
		}
		return w.CallAs(t, token, "POST", "/v2/entries:list", body(ask), status)
	}
	for name, c := range map[string]struct {
		ask  map[string]any
		want string
	}{
		"all, oldest first":  {nil, "r00 r01 r02 r03 r04 r05"},
		"newest first":       {map[string]any{"orderBy": "timestamp desc"}, "r05 r04 r03 r02 r01 r00"},
		"a filter":           {map[string]any{"filter": "severity>=ERROR AND httpRequest.status=500"}, "r01 r03 r05"},
		"the newest few":     {map[string]any{"orderBy": "timestamp desc", "pageSize": 2}, "r05 r04"},
		"the oldest few":     {map[string]any{"pageSize": 2}, "r00 r01"},
		"by number":          {map[string]any{"resourceNames": []string{"projects/" + w.Project.Number}, "pageSize": 1}, "r00"},
		"of a view":          {map[string]any{"resourceNames": []string{"projects/giggle/locations/global/buckets/_Default/views/_AllLogs"}, "pageSize": 1}, "r00"},
		"of two projects":    {map[string]any{"resourceNames": []string{"projects/giggle", "projects/another-project"}, "filter": `timestamp>="2026-11-30T11:05:00Z" AND resource.type=cloud_run_revision`}, "r05 other"},
		"a project twice":    {map[string]any{"resourceNames": []string{"projects/giggle", "projects/giggle"}, "filter": "insertId=r03"}, "r03"},
		"none":               {map[string]any{"filter": "severity=EMERGENCY"}, ""},
		"as gcloud sends it": {map[string]any{"filter": `timestamp>="2026-11-29T12:00:00Z" AND severity=ERROR`, "orderBy": "timestamp desc", "pageSize": 2}, "r05 r03"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ids(list(t, w.Owner, c.ask, 200)); got != c.want {
				t.Errorf("entries %q, want %q", got, c.want)
			}
		})
	}
	for _, orderBy := range []string{"timestamp asc", "timestamp desc"} {
		var paged []string
		ask := map[string]any{"orderBy": orderBy, "pageSize": 4}
		for pages := 0; ; pages++ {
			if pages == 5 {
				t.Fatal("pages without an end")
			}
			answer := list(t, w.Owner, ask, 200)
			paged = append(paged, strings.Fields(ids(answer))...)
			token, _ := answer["nextPageToken"].(string)
			if token == "" {
				break
			}
			ask["pageToken"] = token
			w.log.Append(request(30+pages, 200)) // what comes meanwhile is no reason to say one twice
		}
		want := []string{"r00", "r01", "r02", "r03", "r04", "r05"}
		if orderBy == "timestamp desc" {
			slices.Reverse(want)
		}
		paged = slices.DeleteFunc(paged, func(id string) bool { return id >= "r3" })
		if !slices.Equal(paged, want) {
			t.Errorf("%s: pages have %v, want %v", orderBy, paged, want)
		}
	}
	for name, c := range map[string]struct {
		token  string
		ask    map[string]any
		status int
	}{
		"a stranger":       {w.Stranger, nil, 403},
		"nobody":           {"", nil, 401},
		"no project":       {w.Owner, map[string]any{"resourceNames": []string{}}, 400},
		"an unknown one":   {w.Owner, map[string]any{"resourceNames": []string{"projects/nowhere"}}, 403},
		"one of two":       {w.Owner, map[string]any{"resourceNames": []string{"projects/giggle", "projects/nowhere"}}, 403},
		"a folder":         {w.Owner, map[string]any{"resourceNames": []string{"folders/1"}}, 405},
		"no name":          {w.Owner, map[string]any{"resourceNames": []string{"giggle"}}, 400},
		"another bucket":   {w.Owner, map[string]any{"resourceNames": []string{"projects/giggle/locations/global/buckets/mine"}}, 404},
		"a bad filter":     {w.Owner, map[string]any{"filter": "severity="}, 400},
		"a bad order":      {w.Owner, map[string]any{"orderBy": "severity"}, 400},
		"a bad token":      {w.Owner, map[string]any{"pageToken": "x"}, 400},
		"a negative size":  {w.Owner, map[string]any{"pageSize": -1}, 400},
		"an unknown field": {w.Owner, map[string]any{"colour": "red"}, 400},
	} {
		t.Run(name, func(t *testing.T) { list(t, c.token, c.ask, c.status) })
	}
}

// Entries about access to data are for who may read those, and the audit log is read like any other.
func TestAuditLog(t *testing.T) {
	w := newWorld(t)
	w.Call(t, "POST", "/v2/entries:write", body(map[string]any{
		"logName": "projects/giggle/logs/mine", "resource": map[string]any{"type": "global"},
		"entries": []any{map[string]any{"textPayload": "hello"}},
	}), 200)
	reader := iam.User("reader@giggle.test")
	if _, err := w.IAM.SetPolicy(t.Context(), "projects/giggle", iam.Policy{Bindings: []iam.Binding{
		{Role: "roles/owner", Members: []string{w.IAM.Owner().Member}},
		{Role: "roles/logging.viewer", Members: []string{reader.Member}},
	}}); err != nil {
		t.Fatal(err)
	}
	w.Call(t, "DELETE", "/v2/projects/giggle/logs/mine", "", 200) // an activity
	ask := body(map[string]any{"resourceNames": []string{"projects/giggle"}, "filter": "protoPayload.methodName:*"})
	logs := func(token string) (out []string) {
		answer := w.CallAs(t, token, "POST", "/v2/entries:list", ask, 200)
		all, _ := answer["entries"].([]any)
		for _, e := range all {
			e := e.(map[string]any)
			_, id, _ := strings.Cut(e["logName"].(string), "/logs/")
			id, _ = url.QueryUnescape(id)
			out = append(out, id)
			if p := e["protoPayload"].(map[string]any); p["@type"] != "type.googleapis.com/google.cloud.audit.AuditLog" {
				t.Errorf("protoPayload %v", p)
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	if got := logs(w.Token(t, reader)); !slices.Equal(got, []string{"cloudaudit.googleapis.com/activity"}) {
		t.Errorf("a viewer of logs reads %v", got)
	}
	if got := logs(w.Owner); !slices.Contains(got, "cloudaudit.googleapis.com/activity") {
		t.Errorf("the owner reads %v", got)
	}
}

func TestWrite(t *testing.T) {
	w := newWorld(t)
	const log = "projects/giggle/logs/my-log"
	entry := func(change map[string]any) map[string]any {
		e := map[string]any{"logName": log, "resource": map[string]any{"type": "global"}, "textPayload": "hello"}
		for k, v := range change {
			if e[k] = v; v == nil {
				delete(e, k)
			}
		}
		return e
	}
	write := func(t *testing.T, token string, ask map[string]any, status int) map[string]any {
		t.Helper()
		return w.CallAs(t, token, "POST", "/v2/entries:write", body(ask), status)
	}
	one := func(t *testing.T, id string) map[string]any {
		t.Helper()
		answer := w.Call(t, "POST", "/v2/entries:list", body(map[string]any{
			"resourceNames": []string{"projects/giggle"}, "filter": `insertId="` + id + `"`,
		}), 200)
		all, _ := answer["entries"].([]any)
		if len(all) != 1 {
			t.Fatalf("%d entries with the id %s", len(all), id)
		}
		return all[0].(map[string]any)
	}
	t.Run("what is written is read", func(t *testing.T) {
		want := map[string]any{
			"logName":        log,
			"insertId":       "one",
			"severity":       "ERROR",
			"timestamp":      "2026-11-30T11:30:00.123456789Z",
			"labels":         map[string]any{"a": "b"},
			"jsonPayload":    map[string]any{"message": "out of jokes", "n": 1.5, "list": []any{true, nil}},
			"resource":       map[string]any{"type": "generic_task", "labels": map[string]any{"job": "j", "project_id": "giggle"}},
			"trace":          "projects/giggle/traces/abc",
			"spanId":         "12",
			"traceSampled":   true,
			"httpRequest":    map[string]any{"requestMethod": "GET", "status": 500.0, "latency": "0.250s", "responseSize": "12"},
			"sourceLocation": map[string]any{"file": "a.go", "line": "3", "function": "f"},
			"operation":      map[string]any{"id": "op", "first": true},
			"split":          map[string]any{"uid": "u", "index": 1.0, "totalSplits": 3.0},
		}
		ask := entry(want)
		ask["textPayload"] = nil
		delete(ask, "textPayload")
		write(t, w.Owner, map[string]any{"entries": []any{ask}}, 200)
		got := one(t, "one")
		delete(got, "receiveTimestamp")
		if body(got) != body(want) {
			t.Errorf("read\n%s\nwant\n%s", body(got), body(want))
		}
	})
	t.Run("what the request says holds for all", func(t *testing.T) {
		write(t, w.Owner, map[string]any{
			"logName":  "projects/giggle/logs/run.googleapis.com%2Fcustom",
			"resource": map[string]any{"type": "global", "labels": map[string]any{"zone": "z"}},
			"labels":   map[string]any{"a": "request", "b": "request"},
			"entries":  []any{map[string]any{"insertId": "two", "textPayload": "x", "labels": map[string]any{"a": "entry"}}},
		}, 200)
		got := one(t, "two")
		if got["logName"] != "projects/giggle/logs/run.googleapis.com%2Fcustom" || got["timestamp"] != "2026-11-30T12:00:00Z" ||
			body(got["labels"]) != `{"a":"entry","b":"request"}` {
			t.Errorf("read %v", got)
		}
	})
	t.Run("one has an id without being given it", func(t *testing.T) {
		write(t, w.Owner, map[string]any{"entries": []any{entry(map[string]any{"textPayload": "nameless"})}}, 200)
		answer := w.Call(t, "POST", "/v2/entries:list", body(map[string]any{
			"resourceNames": []string{"projects/giggle"}, "filter": "textPayload=nameless",
		}), 200)
		if id := ids(answer); id == "" || strings.Contains(id, " ") {
			t.Errorf("ids %q", id)
		}
	})
	for name, c := range map[string]struct {
		token  string
		change map[string]any
		status int
		want   string
	}{
		"a stranger":            {w.Stranger, nil, 403, "logging.logEntries.create"},
		"nobody":                {"", nil, 401, ""},
		"another's project":     {w.Owner, map[string]any{"logName": "projects/nowhere/logs/x"}, 403, ""},
		"no log":                {w.Owner, map[string]any{"logName": nil}, 400, "logName"},
		"a bad log":             {w.Owner, map[string]any{"logName": "projects/giggle/logs/a b"}, 400, "logName"},
		"a long log":            {w.Owner, map[string]any{"logName": log + strings.Repeat("x", 512)}, 400, "logName"},
		"the audit log":         {w.Owner, map[string]any{"logName": "projects/giggle/logs/cloudaudit.googleapis.com%2Factivity"}, 403, "audit log"},
		"no resource":           {w.Owner, map[string]any{"resource": nil}, 400, "resource"},
		"an unknown resource":   {w.Owner, map[string]any{"resource": map[string]any{"type": "teapot"}}, 400, "teapot"},
		"an old entry":          {w.Owner, map[string]any{"timestamp": "2026-10-01T00:00:00Z"}, 400, "30 days"},
		"one of the future":     {w.Owner, map[string]any{"timestamp": "2026-12-02T00:00:00Z"}, 400, "a day ahead"},
		"a long id":             {w.Owner, map[string]any{"insertId": strings.Repeat("x", 513)}, 400, "insertId"},
		"a long text":           {w.Owner, map[string]any{"textPayload": strings.Repeat("x", 256<<10+1)}, 400, "exceeds maximum size"},
		"many labels":           {w.Owner, map[string]any{"labels": many(65)}, 400, "labels"},
		"a long label":          {w.Owner, map[string]any{"labels": map[string]any{strings.Repeat("k", 513): "v"}}, 400, "labels"},
		"two payloads":          {w.Owner, map[string]any{"jsonPayload": map[string]any{}}, 400, ""},
		"an unknown field":      {w.Owner, map[string]any{"colour": "red"}, 400, "colour"},
		"a severity of no kind": {w.Owner, map[string]any{"severity": "LOUD"}, 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			id := "refused-" + strings.ReplaceAll(name, " ", "-")
			e := entry(c.change)
			if e["insertId"] == nil {
				e["insertId"] = id
			}
			answer := write(t, c.token, map[string]any{"entries": []any{entry(map[string]any{"insertId": id}), e}}, c.status)
			if !strings.Contains(body(answer), c.want) {
				t.Errorf("%s, want %q", body(answer), c.want)
			}
			left := w.Call(t, "POST", "/v2/entries:list", body(map[string]any{
				"resourceNames": []string{"projects/giggle"}, "filter": `insertId:"refused-"`,
			}), 200)
			if got := ids(left); got != "" {
				t.Errorf("%s was written", got)
			}
		})
	}
	t.Run("some of them", func(t *testing.T) {
		answer := write(t, w.Owner, map[string]any{"partialSuccess": true, "entries": []any{
			entry(map[string]any{"insertId": "good"}), entry(map[string]any{"insertId": "bad", "resource": nil}),
		}}, 400)
		if !strings.Contains(body(answer), "1 of 2 entries were not written: entries[1]: resource") {
			t.Errorf("%s", body(answer))
		}
		one(t, "good")
	})
	t.Run("a dry run", func(t *testing.T) {
		write(t, w.Owner, map[string]any{"dryRun": true, "entries": []any{entry(map[string]any{"insertId": "dry"})}}, 200)
		if got := ids(w.Call(t, "POST", "/v2/entries:list", body(map[string]any{
			"resourceNames": []string{"projects/giggle"}, "filter": "insertId=dry",
		}), 200)); got != "" {
			t.Errorf("%s was written", got)
		}
	})
}

func many(n int) map[string]any {
	out := map[string]any{}
	for i := range n {
		out[fmt.Sprint("k", i)] = "v"
	}
	return out
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	w.log.Append(request(1, 200))
	for i := range 3 {
		w.Call(t, "POST", "/v2/entries:write", body(map[string]any{
			"logName": fmt.Sprint("projects/giggle/logs/mine-", i), "resource": map[string]any{"type": "global"},
			"entries": []any{map[string]any{"textPayload": "hello"}},
		}), 200)
	}
	const in = "projects/giggle/logs/"
	all := w.Call(t, "GET", "/v2/projects/giggle/logs", "", 200)["logNames"]
	for _, want := range []string{in + "mine-0", in + "mine-2", in + "run.googleapis.com%2Frequests"} {
		if !strings.Contains(body(all), want) {
			t.Errorf("logs %v, want %s", all, want)
		}
	}
	w.Call(t, "DELETE", "/v2/projects/giggle/logs/mine-1", "", 200)
	if all := body(w.Call(t, "GET", "/v2/projects/giggle/logs", "", 200)["logNames"]); strings.Contains(all, "mine-1") ||
		!strings.Contains(all, "mine-2") {
		t.Errorf("after one was deleted: %s", all)
	}
	for _, c := range []struct {
		token, method, path string
		status              int
	}{
		{w.Stranger, "GET", "/v2/projects/giggle/logs", 403},
		{w.Stranger, "DELETE", "/v2/projects/giggle/logs/mine-0", 403},
		{w.Owner, "DELETE", "/v2/projects/giggle/logs/cloudaudit.googleapis.com%2Factivity", 400},
		{w.Owner, "GET", "/v2/projects/giggle/logs?pageToken=x", 400},
		{w.Owner, "GET", "/v2/projects/giggle/sinks", 405},
		{w.Owner, "GET", "/v2/projects/giggle/metrics", 405},
		{w.Owner, "GET", "/v2/projects/giggle/locations/global/buckets/none", 404},
	} {
		w.CallAs(t, c.token, c.method, c.path, "", c.status)
	}
	if b := w.Call(t, "GET", "/v2/projects/giggle/locations/-/buckets", "", 200); !strings.Contains(body(b), "_Required") {
		t.Errorf("buckets %v", b)
	}
	if b := w.Call(t, "GET", "/v2/projects/giggle/locations/global/buckets/_Default", "", 200); b["retentionDays"] != nil ||
		!strings.Contains(body(b), "in memory") {
		t.Errorf("bucket %v", b)
	}
	if d := w.Call(t, "GET", "/v2/monitoredResourceDescriptors", "", 200); !strings.Contains(body(d), "cloud_run_revision") {
		t.Errorf("descriptors %v", d)
	}
}
