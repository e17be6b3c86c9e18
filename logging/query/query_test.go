package query_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"giggle/fault"
	"giggle/logging"
	"giggle/logging/query"
)

// the entries that queries are tried on, by a letter.
var entries = func() map[string]*logging.Entry {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	revision := func(service, revision string) *logging.Resource {
		return &logging.Resource{Type: "cloud_run_revision", Labels: map[string]string{
			"service_name": service, "revision_name": revision, "location": "europe-north1",
		}}
	}
	return map[string]*logging.Entry{
		"r": { // a request
			Project:  "giggle",
			Log:      "run.googleapis.com/requests",
			Time:     at,
			Severity: logging.Error,
			Resource: revision("jokes", "jokes-00002-bad"),
			ID:       "id-r",
			Request: &logging.Request{
				Method:       "GET",
				URL:          "https://jokes.run.app/joke?n=1",
				Status:       503,
				ResponseSize: 120,
				Latency:      1500 * time.Millisecond,
				UserAgent:    "hey/0.0.1",
				RemoteIP:     "10.1.2.3",
				Protocol:     "HTTP/1.1",
			},
			Trace:   "abc",
			Span:    "12",
			Sampled: true,
		},
		"t": { // a line of text
			Project:  "giggle",
			Log:      "run.googleapis.com/stdout",
			Time:     at.Add(time.Minute),
			Resource: revision("jokes", "jokes-00001-abc"),
			Labels:   map[string]string{"instanceId": "i1", "k8s-pod/app": "web"},
			ID:       "id-t",
			Text:     "Why did the Robot cross the road?",
		},
		"j": { // a structured line
			Project:  "giggle",
			Log:      "run.googleapis.com/stderr",
			Time:     at.Add(2 * time.Minute),
			Severity: logging.Warning,
			Resource: revision("teller", "teller-00001-abc"),
			ID:       "id-j",
			JSON: json.RawMessage(`{"message":"out of jokes","count":7,"ok":false,"none":null,"tags":["red","green"],` +
				`"user":{"name":"Ann","age":41,"first.last":"x"},"orders":[{"sku":"a","n":1},{"sku":"b","n":2}],"version":"10"}`),
			Source: json.RawMessage(`{"file":"main.go","line":"12","function":"tell"}`),
		},
		"a": { // an audit entry
			Project:  "giggle",
			Log:      "cloudaudit.googleapis.com/activity",
			Time:     at.Add(3 * time.Minute),
			Severity: logging.Notice,
			Resource: &logging.Resource{Type: "cloud_run_service", Labels: map[string]string{"service_name": "jokes"}},
			ID:       "id-a",
			Proto: json.RawMessage(`{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","methodName":"google.cloud.run.v1.Services.ReplaceService",` +
				`"authenticationInfo":{"principalEmail":"you@giggle.test"},"status":{"code":7}}`),
			Operation: json.RawMessage(`{"id":"op-1","first":true}`),
		},
	}
}()

// The tables of the reference: https://cloud.google.com/logging/docs/view/logging-query-language, and gcloud 528's own
// queries.
func TestMatch(t *testing.T) {
	for q, want := range map[string]string{
		"":                              "rtja",
		"   \n\t ":                      "rtja",
		"-- only a comment":             "rtja",
		"severity>=DEFAULT":             "rtja",
		`severity >= "ERROR"`:           "r",
		"severity=ERROR":                "r",
		"severity=error":                "r",
		"severity>WARNING":              "r",
		"severity>=400":                 "rj",
		"severity<NOTICE":               "t",
		"severity!=DEFAULT":             "rja",
		"severity:WARNING":              "j",
		"severity<=WARNING":             "tja",
		"severity = (ERROR OR WARNING)": "rj",
		"severity:*":                    "rtja",
		"-severity=ERROR":               "tja",
		"NOT severity=ERROR":            "tja",
		"NOT NOT severity=ERROR":        "r",
		"- severity=ERROR":              "tja",

		// Operators of texts.
		`textPayload:robot`:                               "t",
		`textPayload:"the robot"`:                         "t",
		`textPayload="Why did the Robot cross the road?"`: "t",
		`textPayload="why DID the robot cross the road?"`: "t",
		`textPayload="robot"`:                             "",
		`textPayload!="robot"`:                            "rtja", // the others have "", which is not robot either
		`textPayload:*`:                                   "t",
		`NOT textPayload:*`:                               "rja",
		`textPayload=~"Robot"`:                            "t",
		`textPayload=~"robot"`:                            "", // in that case alone
		`textPayload=~"(?i)robot"`:                        "t",
		`textPayload=~"^Why.*\\?$"`:                       "t",
		`textPayload=~"\d"`:                               "",
		`textPayload!~"Robot"`:                            "rja",
		`textPayload=~("Robot" OR "cat")`:                 "t",
		`textPayload:("robot" AND "road")`:                "t",
		`textPayload:("robot" "road")`:                    "t",
		`textPayload:("robot" AND NOT "road")`:            "",
		`textPayload:("cat" OR ("robot" AND "road"))`:     "t",
		`textPayload>"W"`:                                 "t",
		`textPayload<"A"`:                                 "rja",
		`text_payload:robot`:                              "t",
		`TEXTPAYLOAD:robot`:                               "t",
		`textPayload:""`:                                  "rtja",

		// Names of fields.
		`resource.type=cloud_run_revision`:                             "rtj",
		`resource.type="cloud_run_revision"`:                           "rtj",
		`resource.type = (cloud_run_revision OR cloud_run_service)`:    "rtja",
		`resource.type:run`:                                            "rtja",
		`resource.labels.service_name = jokes`:                         "rta",
		`resource.labels."service_name" = "jokes"`:                     "rta",
		`"resource"."labels"."service_name" = "jokes"`:                 "rta",
		`resource.labels.service_name != jokes`:                        "j",
		`resource.labels.location = europe-north1`:                     "rtj",
		`resource.labels.nothing = ""`:                                 "",
		`resource.labels:jokes`:                                        "rta",
		`resource:jokes`:                                               "rta",
		`labels.instanceId=i1`:                                         "t",
		`labels.k8s-pod/app=web`:                                       "t",
		`labels."k8s-pod/app"="web"`:                                   "t",
		`labels:*`:                                                     "t",
		`logName="projects/giggle/logs/run.googleapis.com%2Frequests"`: "r",
		`logName:requests`:                                             "r",
		`logName=~"stdout$"`:                                           "t",
		`log_name=projects/giggle/logs/run.googleapis.com%2Fstderr`:    "j",
		`insertId="ID-J"`:                                              "j",
		`insertId = ("id-r" OR "id-t")`:                                "rt",
		`trace="projects/giggle/traces/abc"`:                           "r",
		`trace:*`:                                                      "r",
		`spanId=12`:                                                    "r",
		`traceSampled=true`:                                            "r",
		`traceSampled=false`:                                           "tja",
		`trace_sampled:*`:                                              "r",
		`sourceLocation.file="main.go"`:                                "j",
		`sourceLocation.line>5`:                                        "j", // by number, though JSON has it in quotes
		`sourceLocation.line=12`:                                       "j",
		`sourceLocation.function:tell`:                                 "j",
		`operation.id:op`:                                              "a",
		`operation.first=true`:                                         "a",
		`operation.last=false`:                                         "rtja",
		`operation.producer=""`:                                        "rtja", // the default
		`operation:*`:                                                  "a",

		// Requests.
		`httpRequest.status=503`:           "r",
		`httpRequest.status>=500`:          "r",
		`httpRequest.status=(500 OR 503)`:  "r",
		`httpRequest.status<500`:           "tja", // 0, the default
		`httpRequest.status:*`:             "r",
		`httpRequest:*`:                    "r",
		`http_request.status = 503`:        "r",
		`httpRequest.latency>1s`:           "r",
		`httpRequest.latency>="1.5s"`:      "r",
		`httpRequest.latency>1.5`:          "",
		`httpRequest.latency<0.2s`:         "tja",
		`httpRequest.requestUrl:"/joke"`:   "r",
		`httpRequest.requestUrl=~"n=\d+$"`: "r",
		`httpRequest.requestMethod="get"`:  "r",
		`httpRequest.remoteIp=""`:          "tja",
		`httpRequest.responseSize>100`:     "r",
		`httpRequest.cacheHit=false`:       "rtja",
		`httpRequest:hey`:                  "r",

		// Payloads.
		`jsonPayload.message="out of jokes"`:     "j",
		`jsonPayload.message:OUT`:                "j",
		`jsonPayload.count=7`:                    "j",
		`jsonPayload.count>6.5`:                  "j",
		`jsonPayload.count<7`:                    "",
		`jsonPayload.count="7"`:                  "j",
		`jsonPayload.count:7`:                    "j",
		`jsonPayload.count=seven`:                "",
		`jsonPayload.count!=7`:                   "",
		`jsonPayload.count!=8`:                   "j",
		`jsonPayload.missing=1`:                  "",
		`jsonPayload.missing!=1`:                 "", // a missing field fails every comparison
		`NOT jsonPayload.missing=1`:              "rtja",
		`jsonPayload.missing:*`:                  "",
		`jsonPayload:*`:                          "j",
		`jsonPayload:"out of"`:                   "j",
		`jsonPayload.ok=false`:                   "j",
		`jsonPayload.ok=true`:                    "",
		`jsonPayload.none=NULL_VALUE`:            "j",
		`jsonPayload.user.name=ann`:              "j",
		`jsonPayload.user.age>=41`:               "j",
		`jsonPayload.user.first.last=x`:          "j", // a key with a dot
		`jsonPayload.user."first.last"=x`:        "j",
		`jsonPayload.user:ann`:                   "j",
		`jsonPayload.tags=red`:                   "j",
		`jsonPayload.tags:gre`:                   "j",
		`jsonPayload.tags=(red AND green)`:       "j", // some element for each
		`jsonPayload.tags=blue`:                  "",
		`jsonPayload.tags!=red`:                  "",
		`jsonPayload.tags!=blue`:                 "j",
		`jsonPayload.tags=~"^g"`:                 "j",
		`jsonPayload.orders.sku=b`:               "j",
		`jsonPayload.orders.n>1`:                 "j",
		`jsonPayload.version>"1"`:                "j", // a text is compared as one
		`jsonPayload.version=10`:                 "j",
		`jsonPayload.version>9`:                  "",
		`jsonPayload.message.deeper=x`:           "",
		`protoPayload.methodName:ReplaceService`: "a",
		`protoPayload.authenticationInfo.principalEmail="you@giggle.test"`: "a",
		`protoPayload.status.code=7`:                                       "a",
		`protoPayload."@type":AuditLog`:                                    "a",

		// Times.
		`timestamp>="2026-11-30T12:01:00Z"`:        "tja",
		`timestamp>"2026-11-30T12:01:00Z"`:         "ja",
		`timestamp<="2026-11-30T12:00:00Z"`:        "r",
		`timestamp="2026-11-30T13:00:00+01:00"`:    "r",
		`timestamp>="2026-11-30"`:                  "rtja",
		`timestamp<"2026-11-30T12:02"`:             "rt",
		`timestamp>="2026-11-30T12:00:00.5Z"`:      "tja",
		`receiveTimestamp>="2026-11-30T12:03:00Z"`: "a",

		// Values that stand alone.
		`robot`:              "t",
		`"the robot"`:        "t",
		`robot jokes`:        "t", // both, wherever
		`"503"`:              "r",
		`503`:                "r",
		`ann`:                "j",
		`ReplaceService`:     "a",
		`europe-north1`:      "rtj",
		`red OR robot`:       "tj",
		`-robot`:             "rja",
		`NOT robot`:          "rja",
		`("robot" OR "ann")`: "tj",
		`"unicorn"`:          "",
		`'robot'`:            "t",

		// Precedence: NOT, then OR, then AND.
		`severity=ERROR OR severity=WARNING AND resource.labels.service_name=jokes`:    "r",
		`(severity=ERROR OR severity=WARNING) AND resource.labels.service_name=jokes`:  "r",
		`severity=ERROR OR (severity=WARNING AND resource.labels.service_name=teller)`: "rj",
		`severity=ERROR OR severity=WARNING resource.labels.service_name=teller`:       "j",
		`NOT severity=ERROR OR severity=ERROR`:                                         "rtja",
		`NOT (severity=ERROR OR severity=WARNING)`:                                     "ta",
		`"jokes" OR NOT "robot" AND NOT "ann" OR "teller"`:                             "rtja",
		"severity=ERROR\nresource.labels.service_name=jokes":                           "r",
		"severity=ERROR -- the bad one\nAND trace:* -- with a trace":                   "r",
		"resource.type=cloud_run_revision and":                                         "", // a word, looked for everywhere

		// gcloud logging read joins without parentheses.
		`timestamp>="2026-11-30T12:00:00Z" AND severity=ERROR OR severity=WARNING`: "rj",
		"resource.type = cloud_run_revision \nAND resource.labels.service_name = jokes \nAND resource.labels.location = europe-north1 \nAND severity >= DEFAULT \nAND timestamp>=\"2026-11-29T12:00:00Z\"": "rt",

		// Functions.
		`log_id("run.googleapis.com/requests")`:                                      "r",
		`log_id("run.googleapis.com%2Frequests")`:                                    "r",
		`log_id("run.googleapis.com/stdout") OR log_id("run.googleapis.com/stderr")`: "tj",
		`NOT log_id("run.googleapis.com/requests")`:                                  "tja",
		`ip_in_net(httpRequest.remoteIp, "10.0.0.0/8")`:                              "r",
		`ip_in_net(httpRequest.remoteIp, "10.1.2.3")`:                                "r",
		`ip_in_net(httpRequest.remoteIp, "192.168.0.0/16")`:                          "",
		`sample(insertId, 1)`:                                                        "rtja",
		`sample(insertId, 0)`:                                                        "",
		`SEARCH("robot road")`:                                                       "t",
		`SEARCH("ROAD, robot!")`:                                                     "t",
		`SEARCH("rob")`:                                                              "",
		`SEARCH(textPayload, "robot")`:                                               "t",
		`SEARCH(jsonPayload, "jokes")`:                                               "j",
		"SEARCH(\"`cross the road`\")":                                               "t",
		"SEARCH(\"`the cross`\")":                                                    "",
		`search("robot")`:                                                            "t",
		`SEARCH(jsonPayload.message, "out") AND severity=WARNING`:                    "j",
	} {
		t.Run(q, func(t *testing.T) {
			parsed, err := query.Parse(q)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, letter := range strings.Split("rtja", "") {
				if parsed.Match(entries[letter]) {
					got += letter
				}
			}
			if got != want {
				t.Errorf("matches %q, want %q", got, want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for q, want := range map[string]string{
		`severity=`:                            "line 1, column 10: the end is unexpected",
		`=ERROR`:                               "column 1",
		`severity=loud`:                        `"loud" is not DEFAULT`,
		`thud=1`:                               `"thud" is not a field of a log entry`,
		`operation.thud=1`:                     "operation has no field thud",
		`textPayload.thud=1`:                   "textPayload has no field thud",
		`jsonPayload..x=1`:                     "a part of the field's name is missing",
		`(severity=ERROR`:                      `the end is unexpected; ")" is`,
		`severity=ERROR)`:                      `')' is unexpected`,
		`severity=(ERROR`:                      `")" is`,
		`()`:                                   `')' is unexpected`,
		`severity=ERROR AND`:                   "a comparison after AND",
		`severity=ERROR OR`:                    "the end is unexpected",
		`OR severity=ERROR`:                    "column 1",
		`severity=ERROR AND OR a`:              "unexpected",
		`NOT`:                                  "the end is unexpected",
		`textPayload="abc`:                     "has no end of this quote",
		`insertId=abc:def`:                     "quotes around a value",
		`textPayload=~"("`:                     "not a regular expression",
		`severity=~"E"`:                        "is no text",
		`httpRequest.status=~"5.."`:            "is no text",
		`httpRequest.status=many`:              "is a number",
		`traceSampled=perhaps`:                 "is true or false",
		`timestamp>yesterday`:                  "is not a time",
		`httpRequest.latency>long`:             "is not a duration",
		`httpRequest=x`:                        "has fields",
		`log_id()`:                             "takes the id of a log",
		`sample(insertId, 2)`:                  "0 to 1",
		`sample(nothing, 0.5)`:                 "is not a field",
		`ip_in_net(httpRequest.remoteIp, "x")`: "is not an address",
		`SEARCH("")`:                           "needs a word",
		`frobnicate(1)`:                        "there is no function",
		`log_id("a"`:                           `")" is`,
		`log_id("a" "b")`:                      `"," or ")"`,
		"severity=ERROR\n  AND x=1":            "line 2, column 7",
		strings.Repeat("(", 200) + "a":         "nested more than 100 deep",
		strings.Repeat("NOT ", 200) + "a":      "nested more than 100 deep",
		strings.Repeat("a", 20_001):            "at most 20000",
	} {
		if _, err := query.Parse(q); !fault.Is(err, fault.InvalidArgument) || !strings.Contains(fault.From(err).Message, want) {
			t.Errorf("%.40q: %v, want %q", q, err, want)
		}
	}
	for _, q := range []string{`source("projects/giggle")`, `cast(jsonPayload.x, INT64)`, `regexp_extract(textPayload, "a")`} {
		if _, err := query.Parse(q); !fault.Is(err, fault.Unimplemented) {
			t.Errorf("%s: %v, want UNIMPLEMENTED", q, err)
		}
	}
}

// A refusal shows the place with a caret below it.
func TestCaret(t *testing.T) {
	_, err := query.Parse("severity=ERROR AND\n\ttextPayload=abc:def")
	const want = "Unparseable filter: line 2, column 17: ':' is unexpected; quotes around a value with such characters is\n" +
		" textPayload=abc:def\n                ^"
	if got := fault.From(err).Message; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestBounds(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 11, 30, 12, minute, 0, 0, time.UTC) }
	for q, want := range map[string]query.Bounds{
		"": {},
		`timestamp>="2026-11-30T12:01:00Z" AND timestamp<"2026-11-30T12:05:00Z"`: {From: at(1), To: at(5)},
		`timestamp>"2026-11-30T12:01:00Z" timestamp>="2026-11-30T12:02:00Z"`:     {From: at(2)},
		`timestamp="2026-11-30T12:01:00Z"`:                                       {From: at(1), To: at(1)},
		`timestamp>"2026-11-30T12:01:00Z" OR severity=ERROR`:                     {},
		`NOT timestamp>"2026-11-30T12:01:00Z"`:                                   {},
		`severity>=ERROR`:                                                        {Severity: logging.Error},
		`severity<ERROR`:                                                         {},
		`resource.type=cloud_run_revision resource.labels.service_name=jokes log_id("run.googleapis.com/requests")`: {
			ResourceType: "cloud_run_revision", Log: "run.googleapis.com/requests",
		},
		`resource.type=(a OR b)`:               {},
		`insertId="x" AND NOT resource.type=b`: {},
	} {
		p, err := query.Parse(q)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Bounds(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", q, got, want)
		}
	}
}

// parts are what random queries are made of.
var parts = []string{
	"severity>=WARNING", "severity=ERROR", "severity<NOTICE", `timestamp>="2026-11-30T12:01:00Z"`, "robot",
	`timestamp<"2026-11-30T12:02:00Z"`, "resource.type=cloud_run_revision", "resource.labels.service_name=jokes",
	`insertId="id-j"`, `log_id("run.googleapis.com/stdout")`, "jsonPayload.count>1", "textPayload:*", "trace:*",
}

// No entry that a random query wants is outside of its bounds, and De Morgan's laws hold.
func TestRandomQueries(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var random func(depth int) string
	random = func(depth int) string {
		switch n := r.IntN(6); {
		case depth == 0 || n < 2:
			return parts[r.IntN(len(parts))]
		case n == 2:
			return "NOT (" + random(depth-1) + ")"
		case n == 3:
			return "(" + random(depth-1) + " OR " + random(depth-1) + ")"
		default:
			return "(" + random(depth-1) + " AND " + random(depth-1) + ")"
		}
	}
	parse := func(s string) query.Query {
		q, err := query.Parse(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return q
	}
	for range 3000 {
		a, b := random(3), random(3)
		and, or := parse("("+a+") "+b), parse("("+a+") OR ("+b+")")
		notAnd, notOr := parse("NOT ("+a+") OR NOT ("+b+")"), parse("NOT ("+a+") AND NOT ("+b+")")
		bounds := and.Bounds()
		for name, e := range entries {
			if and.Match(e) == notAnd.Match(e) || or.Match(e) == notOr.Match(e) {
				t.Fatalf("%s and %s of %s: De Morgan's laws don't hold", a, b, name)
			}
			if !and.Match(e) {
				continue
			}
			if e.Severity < bounds.Severity || e.Time.Before(bounds.From) || !bounds.To.IsZero() && e.Time.After(bounds.To) ||
				bounds.ResourceType != "" && e.Resource.Type != bounds.ResourceType ||
				bounds.Log != "" && e.Log != bounds.Log {
				t.Fatalf("(%s) %s wants %s, which is outside of %+v", a, b, name, bounds)
			}
		}
	}
}

// Whatever the text: no panic, no query that can't be matched.
func FuzzParse(f *testing.F) {
	for _, s := range append(parts, `a."b".c=~"\x41" -(x OR 'y') -- z`, "SEARCH(`a`) sample(insertId,0.1)") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := query.Parse(s)
		if err != nil {
			return
		}
		for _, e := range entries {
			q.Match(e)
		}
		q.Bounds()
	})
}

func BenchmarkMatch(b *testing.B) {
	q, err := query.Parse(`resource.type=cloud_run_revision AND resource.labels.service_name=jokes AND severity>=ERROR`)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		q.Match(entries["r"])
	}
}
