package storagejson

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"giggle/api/discovery"
	"giggle/api/discoverytest"
)

// What a method doesn't have is refused with its path
// (https://storage.googleapis.com/$discovery/rest?version=v1 has the fields and parameters).
func TestUnknownFieldsAndParametersAreRefused(t *testing.T) {
	h := serve(t)
	h.put(t, "x", "1")
	const buckets, bucket = "/storage/v1/b?project=proj-1", "/storage/v1/b/bucket"
	for _, row := range []struct {
		method, path, body string
		status             int
		names              string // what the message has to name
	}{
		{"GET", bucket + "?foo=1", "", 400, `"foo"`},
		{"GET", buckets + "&maxresults=1", "", 400, `"maxresults"`},
		{"GET", buckets + "&prettyPrint=false&key=k&quotaUser=u&userProject=proj-1&alt=json", "", 200, ""},
		{"POST", buckets + "&location=us", `{"name":"other"}`, 400, `"location"`},
		{"POST", buckets, `{"name":"other","labells":{"a":"b"}}`, 400, `"labells"`},
		{"POST", buckets, `{"name":"other","iamConfiguration":{"uniformBucketLevelAccess":{"on":true}}}`, 400,
			`"on" at 'iamConfiguration.uniformBucketLevelAccess'`},
		{"POST", buckets, `{"name":"other","lifecycle":{"rule":[{"condition":{"ages":1}}]}}`, 400,
			`"ages" at 'lifecycle.rule[0].condition'`},
		{"POST", buckets, `{"name":"other","versioning":{"enabled":"yes"}}`, 400, "versioning.enabled"},
		{"POST", buckets, `{"name":"other","storageClass":"FAST"}`, 400, "FAST"},
		{"PATCH", bucket, `{"softDeletePolicy":{"retentionDurationSeconds":"60"}}`, 400, "retentionDurationSeconds"},
		{"PATCH", bucket, `{"softDeletePolicy":{"seconds":"60"}}`, 400, `"seconds" at 'softDeletePolicy'`},
		{"PUT", bucket, `{"cors":[{"methods":["GET"]}]}`, 400, `"methods" at 'cors[0]'`},
		{"DELETE", o + "/none?prefix=n&versions=true&force=true", "", 404, "No such object"}, // as Node's library does
		{"DELETE", o + "/none?prefixes=n", "", 400, `"prefixes"`},
		{"GET", o + "?softdeleted=true", "", 400, `"softdeleted"`},
		{"GET", o + "?versions=maybe", "", 400, "versions"},
		{"GET", o + "?projection=some", "", 400, "projection"},
		{"GET", o + "?maxResults=-1", "", 400, "maxResults"},
		{"GET", o + "/x?ifGenerationmatch=1", "", 400, `"ifGenerationmatch"`},
		{"PATCH", o + "/x", `{"content_type":"a/b"}`, 400, `"content_type"`},
		{"PATCH", o + "/x", `{"owner":{"name":"me"}}`, 400, `"name" at 'owner'`},
		{"PATCH", o + "/x?predefinedAcl=publicRead", `{}`, 400, "uniform bucket-level access"},
		{"PATCH", o + "/x", `{"metadata":{"anything":"goes"},"id":"i","selfLink":"s","size":"1","etag":"e"}`, 200, ""},
		{"POST", "/upload" + o + "?uploadType=media&name=y&names=z", "y", 400, `"names"`},
		{"POST", "/upload" + o + "?uploadType=resumable&name=y", `{"contentTypes":"a/b"}`, 400, `"contentTypes"`},
		{"POST", o + "/y/compose", `{"sourceObjects":[{"name":"x","gen":"1"}]}`, 400, `"gen" at 'sourceObjects[0]'`},
		{"POST", o + "/y/compose", `{"destination":{"contentTyp":"a/b"},"sourceObjects":[{"name":"x"}]}`, 400,
			`"contentTyp"`},
		{"POST", o + "/x/rewriteTo/b/bucket/o/y?rewriteToken=abc", "", 400, "rewriteToken"},
		{"POST", o + "/x/rewriteTo/b/bucket/o/y?maxBytesRewrittenPerCall=7", "", 400, "maxBytesRewrittenPerCall"},
		{"POST", o + "/x/moveTo/o/y?sourceGeneration=1", "", 400, `"sourceGeneration"`},
		{"GET", "/storage/v1/projects/proj-1/hmacKeys", "", 405, "HMAC"},
	} {
		res, body := h.do(t, row.method, row.path, row.body)
		var e errorBody
		err := json.Unmarshal([]byte(body), &e)
		if res.StatusCode != row.status || err != nil || !strings.Contains(e.Error.Message, row.names) ||
			row.status == 400 && (len(e.Error.Errors) != 1 || e.Error.Errors[0].Reason != "invalid") {
			t.Errorf("%s %s %s = %d %s, want %d with %s", row.method, row.path, row.body, res.StatusCode, body,
				row.status, row.names)
		}
	}
}

// The parameters and fields here are those of the discovery document that the module has.
func TestFieldsAreThoseOfTheDocument(t *testing.T) {
	dir, err := discoverytest.Dir()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := discovery.Read(dir, "storage", "v1")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, m := range doc.Methods() {
		have, ok := params[m.ID]
		if !ok {
			continue
		}
		seen++
		for name := range m.Parameters {
			inPath := strings.Contains(m.Path, "{"+name+"}")
			if !inPath && name != "userProject" && !slices.Contains(have, name) {
				t.Errorf("%s lacks the parameter %s", m.ID, name)
			}
		}
		for _, name := range have {
			if m.Parameters[name] == nil && m.ID != "storage.objects.delete" {
				t.Errorf("%s has the parameter %s, which the document hasn't", m.ID, name)
			}
		}
	}
	if seen != len(params) {
		t.Errorf("%d of %d methods are in the document", seen, len(params))
	}
	for schema, into := range map[string]func() any{
		"Bucket": func() any { return new(bucketFields) },
		"Object": func() any { return new(objectBody) },
	} {
		for name, s := range doc.Schemas[schema].Properties {
			value := map[string]string{"array": "[]", "boolean": "true", "integer": "1"}[s.Type]
			if s.Type == "object" || s.Ref != "" {
				value = "{}"
			} else if value == "" {
				value = `"2026-01-02T03:04:05Z"`
			}
			if err := strict(fmt.Appendf(nil, `{%q:%s}`, name, value), into()); err != nil {
				t.Errorf("%s.%s: %v", schema, name, err)
			}
		}
	}
}

// https://cloud.google.com/storage/docs/json_api/v1/objects/list#list-objects-and-prefixes-using-glob
func TestGlob(t *testing.T) {
	for _, row := range []struct {
		glob, is, isNot string // names, with spaces between them
	}{
		{"foo*", "foo foobar", "foo/bar xfoo"},
		{"foo*bar", "foobar foo-bar", "foo/bar foobarx"},
		{"foo**bar", "foobar foo/bar foo/x/bar", "foo/barx"},
		{"**/x", "a/x a/b/x /x", "x a/xx"},
		{"fo?bar", "foobar fo-bar", "fo/bar fobar"},
		{"foo[a-c]bar", "fooabar foocbar", "foodbar foobar foo-bar"},
		{"foo[!a-c]bar", "foodbar", "fooabar foobar"},
		{"{foo,bar}-1", "foo-1 bar-1", "baz-1 foo,bar-1"},
		{"f{o,u/*}x", "fox fu/abx", "fux fu/a/bx"},
		{"a.b+c", "a.b+c", "aXb+c a.bbc"},
		{`a\*b`, "a*b", "axb"},
		{"é?", "éa", "é ea"},
		{"**.{txt,md}", "a.txt x/y.md", "a.png txt"},
		{"[]]", "", ""},
		{"[", "", ""}, {"{a", "", ""}, {strings.Repeat("a", 2000), "", ""},
	} {
		match, err := parseGlob(row.glob)
		if err != nil {
			if row.is != "" {
				t.Errorf("%s: %v", row.glob, err)
			}
			continue
		}
		for _, name := range strings.Fields(row.is) {
			if !match(name) {
				t.Errorf("%s does not match %s", row.glob, name)
			}
		}
		for _, name := range strings.Fields(row.isNot) {
			if match(name) {
				t.Errorf("%s matches %s", row.glob, name)
			}
		}
	}
}

func FuzzGlob(f *testing.F) {
	for _, s := range []string{"a*b", "**", "[a-", "{a,{b,c}}", `\`, "[!x]", "[^]", "{", "}", "é[é]"} {
		f.Add(s, "ab")
	}
	f.Fuzz(func(t *testing.T, glob, name string) {
		if match, err := parseGlob(glob); err == nil {
			match(name)
		}
	})
}
