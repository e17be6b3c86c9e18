package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/artifactregistry/apiv1/artifactregistrypb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/wrapperspb"

	_ "google.golang.org/genproto/googleapis/cloud/ml/v1"
)

func TestTemplates(t *testing.T) {
	rows := []struct {
		template, path string
		want           map[string]string // nil: no match
	}{
		{"/v1/{name=projects/*}", "/v1/projects/p", map[string]string{"name": "projects/p"}},
		{"/v1/{name=projects/*}", "/v1/projects/", nil},
		{"/v1/{name=projects/*}", "/v1/projects/p/", nil},
		{"/v1/{name=projects/*}:go", "/v1/projects/p:go", map[string]string{"name": "projects/p"}},
		{"/v1/{name=projects/*}:go", "/v1/projects/p:x:go", map[string]string{"name": "projects/p:x"}},
		{"/v1/{name=projects/*}:go", "/v1/projects/p%3Ago", nil},
		{"/v1/{a}/x/{b}", "/v1/a%2Fb/x/%7B", map[string]string{"a": "a/b", "b": "{"}},
		{"/v1/{name=**}", "/v1/a/b//c", map[string]string{"name": "a/b//c"}},
		{"/v1/{name=a/**}/end/{x}", "/v1/a/1/end/2/end/3", map[string]string{"name": "a/1/end/2", "x": "3"}},
		{"/v1/{name=a/**}:go", "/v1/a:go", map[string]string{"name": "a"}},
		{"/", "/", map[string]string{}},
		{"/v1/{r.name=a/*}", "/v1/a/b%252Fc", map[string]string{"r.name": "a/b%2Fc"}},
	}
	for _, row := range rows {
		tm, err := parseTemplate(row.template)
		if err != nil {
			t.Errorf("%s: %v", row.template, err)
			continue
		}
		n := &node{}
		if err := n.add(&route{http: "GET", template: tm}); err != nil {
			t.Fatal(err)
		}
		r, segs, _ := n.match("GET", row.path)
		if r == nil {
			if row.want != nil {
				t.Errorf("%s does not match %s", row.template, row.path)
			}
			continue
		}
		got, err := r.template.params(segs)
		if err != nil || row.want == nil || len(got) != len(row.want) ||
			len(got) > 0 && !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s on %s = %v %v, want %v", row.template, row.path, got, err, row.want)
		}
	}
	for _, bad := range []string{"", "v1", "/{", "/{}", "/{a", "/{a=}", "/a//b", "/{a}x", "/**/**", "/a:", "/a:b/c",
		"/{a=b:c}", "/*a"} {
		if tm, err := parseTemplate(bad); err == nil {
			t.Errorf("%q parsed as %+v", bad, tm)
		}
	}
}

func FuzzMatch(f *testing.F) {
	n := &node{}
	for _, s := range []string{"/v1/{name=projects/*}", "/v1/{name=projects/*}:go", "/v1/{name=**}:go",
		"/v1/{n=a/**}/b/{c}", "/v1/a/{x}/b/{c}", "/{z}", "/"} {
		tm, err := parseTemplate(s)
		if err != nil {
			f.Fatal(err)
		}
		if err := n.add(&route{http: "GET", template: tm, pattern: s}); err != nil {
			f.Fatal(err)
		}
	}
	for _, s := range []string{"/v1/projects/p:go", "/v1/a/b/b/c", "/%zz", "//", "/v1/a/%2f/b/%2F"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, segs, _ := n.match("GET", path)
		if r == nil {
			return
		}
		params, err := r.template.params(segs)
		if err != nil {
			return
		}
		if len(params) != len(r.template.vars) {
			t.Errorf("%s on %q: %v", r.pattern, path, params)
		}
		for _, v := range r.template.vars {
			if !v.multi && params[v.path] == "" {
				t.Errorf("%s on %q: %s is empty", r.pattern, path, v.path)
			}
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add("/v1/{name=projects/*/**}:go")
	f.Add("/{a.b}/c")
	f.Fuzz(func(t *testing.T, s string) {
		tm, err := parseTemplate(s)
		if err != nil {
			return
		}
		path := "/" + strings.ReplaceAll(strings.Join(tm.segs, "/"), "*", "x")
		if tm.verb != "" {
			path += ":" + tm.verb
		}
		n := &node{}
		if err := n.add(&route{http: "GET", template: tm}); err != nil {
			t.Fatal(err)
		}
		if len(tm.segs) > maxSegments {
			return
		}
		if r, _, _ := n.match("GET", path); r == nil {
			t.Errorf("%q does not match its own example %q", s, path)
		}
	})
}

func TestMask(t *testing.T) {
	const doc = `{"a":1,"b":{"c":2,"d":{"e":3,"f":4}},"items":[{"id":1,"createTime":"t","l":{"x.y":1}},{"id":2}],"n":null}`
	rows := map[string]string{
		"*":                       doc,
		"a":                       `{"a":1}`,
		"a,b/c":                   `{"a":1,"b":{"c":2}}`,
		"b.d.e":                   `{"b":{"d":{"e":3}}}`,
		"b(c,d(e))":               `{"b":{"c":2,"d":{"e":3}}}`,
		"b/d(e,f),b/c":            `{"b":{"c":2,"d":{"e":3,"f":4}}}`,
		"items(id,create_time)":   `{"items":[{"id":1,"createTime":"t"},{"id":2}]}`,
		"items/id":                `{"items":[{"id":1},{"id":2}]}`,
		"b/*/e":                   `{"b":{"c":2,"d":{"e":3}}}`,
		"b,b/c":                   `{"b":{"c":2,"d":{"e":3,"f":4}}}`,
		"b/c,b":                   `{"b":{"c":2,"d":{"e":3,"f":4}}}`,
		"none":                    `{}`,
		"n, a":                    `{"a":1,"n":null}`,
		"items(l),b(d/f)":         `{"b":{"d":{"f":4}},"items":[{"l":{"x.y":1}},{}]}`,
		"kind,items/missing/deep": `{"items":[{},{}]}`,
	}
	for fields, want := range rows {
		m, err := parseMask(fields)
		if err != nil {
			t.Errorf("%s: %v", fields, err)
			continue
		}
		var tree, wanted any
		if json.Unmarshal([]byte(doc), &tree) != nil || json.Unmarshal([]byte(want), &wanted) != nil {
			t.Fatal("bad row")
		}
		if got := m.apply(tree); !reflect.DeepEqual(got, wanted) {
			out, _ := json.Marshal(got)
			t.Errorf("%s = %s, want %s", fields, out, want)
		}
	}
	for _, bad := range []string{"", ",", "a,", "a(", "a()", "a(b))", "(a)", "a/", "a//b", "a(b)c",
		strings.Repeat("a/", 100) + "a"} {
		if m, err := parseMask(bad); err == nil {
			t.Errorf("%q parsed as %v", bad, m)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add("a,b/c,d(e,f)", `{"a":1,"d":[{"e":2}]}`)
	f.Add("*", `[1]`)
	f.Fuzz(func(t *testing.T, fields, doc string) {
		m, err := parseMask(fields)
		var tree any
		if err != nil || json.Unmarshal([]byte(doc), &tree) != nil {
			return
		}
		before, _ := json.Marshal(tree)
		once := m.apply(tree)
		if after, _ := json.Marshal(tree); string(after) != string(before) {
			t.Error("the mask changed its input")
		}
		if twice := m.apply(once); !reflect.DeepEqual(once, twice) {
			t.Errorf("%q is not stable: %v then %v", fields, once, twice)
		}
	})
}

// instance of a message with most kinds of fields, for binding.
func kinds(t testing.TB, name protoreflect.FullName) protoreflect.Message {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return mt.New()
}

func TestBindQuery(t *testing.T) {
	const all = "google.protobuf.FieldDescriptorProto" // enums, int32, bool, a nested options message
	rows := []struct{ message, query, want string }{   // want "" is an error
		{all, "number=5&label=LABEL_REPEATED&proto3Optional=True&jsonName=x", `{"number":5,"label":"LABEL_REPEATED","proto3Optional":true,"jsonName":"x"}`},
		{all, "json_name=x&options.packed=1&type=9", `{"jsonName":"x","type":"TYPE_STRING","options":{"packed":true}}`},
		{all, "options.targets=TARGET_TYPE_FILE&options.targets=2", `{"options":{"targets":["TARGET_TYPE_FILE","TARGET_TYPE_EXTENSION_RANGE"]}}`},
		{all, "number=5&number=6", ""},
		{all, "number=x", ""},
		{all, "label=nope", ""},
		{all, "options=x", ""},
		{all, "name.x=1", ""},
		{"google.devtools.artifactregistry.v1.Repository", "createTime=2026-01-02T03:04:05Z&satisfiesPzs=true&labels=x", ""},
		{"google.devtools.artifactregistry.v1.Repository", "createTime=2026-01-02T03:04:05Z&sizeBytes=9007199254740993", `{"createTime":"2026-01-02T03:04:05Z","sizeBytes":"9007199254740993"}`},
		{"google.devtools.artifactregistry.v1.CleanupPolicyCondition", "olderThan=1.5s", `{"olderThan":"1.500s"}`},
		{"google.devtools.artifactregistry.v1.CleanupPolicyMostRecentVersions", "keepCount=3", `{"keepCount":3}`},
		{"google.devtools.artifactregistry.v1.UpdateTagRequest", "updateMask=a.bC,d_e", `{"updateMask":"a.bC,dE"}`},
	}
	for _, row := range rows {
		q, err := url.ParseQuery(row.query)
		if err != nil {
			t.Fatal(err)
		}
		m := kinds(t, protoreflect.FullName(row.message))
		err = bindQuery(m, q)
		if row.want == "" {
			if err == nil {
				t.Errorf("%s: %v, want an error", row.query, m)
			}
			continue
		}
		want := m.New().Interface()
		if e := protojson.Unmarshal([]byte(row.want), want); e != nil {
			t.Fatal(e)
		}
		if err != nil || !proto.Equal(m.Interface(), want) {
			t.Errorf("%s: %v %v, want %s", row.query, m, err, row.want)
		}
	}
	b := new(wrapperspb.BytesValue).ProtoReflect()
	for _, s := range []string{"-_8=", "-_8", "+/8="} {
		if err := setPath(b, "value", []string{s}); err != nil ||
			b.Interface().(*wrapperspb.BytesValue).Value[0] != 0xfb {
			t.Errorf("base64 %q: %v %v", s, b, err)
		}
	}
}

func FuzzBindQuery(f *testing.F) {
	f.Add("updateMask=a,b&repository.name=x&repository.createTime=2026-01-02T03:04:05Z")
	f.Add("repository.cleanupPolicyDryRun=1&repository.mavenConfig.versionPolicy=2&alt=json")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		_, own, _, err := splitQuery(q)
		if err != nil {
			return
		}
		msg := new(artifactregistrypb.UpdateRepositoryRequest)
		if bindQuery(msg.ProtoReflect(), own) != nil {
			return
		}
		if _, err := proto.Marshal(msg); err != nil {
			t.Errorf("%q made a message that does not marshal: %v", raw, err)
		}
	})
}

func TestDecodeBodyPrunesOnlyUnknownFields(t *testing.T) {
	msg := new(artifactregistrypb.Repository)
	unknown, err := decodeBody([]byte(`{"name":"n","x":1,"dockerConfig":{"y":{}},"labels":{"k":"v"},"cleanupPolicies":{"p":{"z":1}}}`), msg, "*")
	if err != nil || msg.GetName() != "n" || msg.GetLabels()["k"] != "v" {
		t.Errorf("%v %v", msg, err)
	}
	if want := []string{"cleanupPolicies.p.z", "dockerConfig.y", "x"}; !slices.Equal(unknown, want) {
		t.Errorf("unknown = %v, want %v", unknown, want)
	}
}

// A field that a message doesn't have is named as Google's front end names it, wherever it is.
func TestUnknownFields(t *testing.T) {
	type thing struct {
		Policy struct {
			Bindings []struct {
				Role string `json:"role"`
			} `json:"bindings"`
		} `json:"policy"`
	}
	const one = "Invalid JSON payload received. Unknown name %s: Cannot find field."
	for body, want := range map[string]string{
		`{"x":1}`:                                          `"x"`,
		`{"name":"n","x":null}`:                            `"x"`,
		`{"dockerConfig":{"y":{}}}`:                        `"y" at 'dockerConfig'`,
		`{"docker_config":{"y":1}}`:                        `"y" at 'docker_config'`,
		`{"cleanupPolicies":{"p":{"z":1}}}`:                `"z" at 'cleanupPolicies.p'`,
		`{"labels":{"any":"thing"},"X":1}`:                 `"X"`,
		`{"cleanupPolicies":{"p":{"condition":{"q":[]}}}}`: `"q" at 'cleanupPolicies.p.condition'`,
	} {
		unknown, err := decodeBody([]byte(body), new(artifactregistrypb.Repository), "*")
		if got := unknownFields(unknown).Error(); err != nil || got != fmt.Sprintf(one, want) {
			t.Errorf("%s: %q, %v, want %s", body, got, err, want)
		}
	}
	for body, want := range map[string]string{
		`{"x":1}`:             `"x"`,
		`{"policy":{"y":[]}}`: `"y" at 'policy'`,
		`{"policy":{"bindings":[{"rôle":"r"}]}}`:         `"rôle" at 'policy.bindings[0]'`,
		`{"policy":{"bindings":[{"role":"r"},{"z":1}]}}`: `"z" at 'policy.bindings[1]'`,
	} {
		r := &Request{
			Request: httptest.NewRequest("POST", "/", strings.NewReader(body)),
			limit:   1 << 20,
			held:    &claim{bodies: NewBodies(DefaultBodies), ctx: t.Context()},
		}
		if err := r.DecodeJSON(new(thing)); err == nil || err.Error() != fmt.Sprintf(one, want) {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	if got := strings.Count(unknownFields(make([]string, 1000)).Error(), "\n"); got > 20 {
		t.Errorf("a thousand fields are %d lines", got)
	}
}

// gcloud's documentation writes enum values in any case.
func TestDecodeBodySpellsEnums(t *testing.T) {
	msg := new(artifactregistrypb.Repository)
	unknown, err := decodeBody([]byte(`{"format":"docker","cleanupPolicies":{"p":{"id":"p","action":"Delete","condition":{"tagState":"Untagged"}}}}`), msg, "*")
	p := msg.GetCleanupPolicies()["p"]
	if err != nil || len(unknown) > 0 || msg.GetFormat() != artifactregistrypb.Repository_DOCKER ||
		p.GetAction() != artifactregistrypb.CleanupPolicy_DELETE ||
		p.GetCondition().GetTagState() != artifactregistrypb.CleanupPolicyCondition_UNTAGGED {
		t.Errorf("%v, %v, %v", msg, unknown, err)
	}
	if _, err := decodeBody([]byte(`{"format":"dockr"}`), msg, "*"); err == nil {
		t.Error("an enum value that is none is accepted")
	}
}

func FuzzDecodeBody(f *testing.F) {
	f.Add(`{"name":"n","labels":{"a":"b"},"x":[1]}`, "*")
	f.Add(`{"description":"d","y":{}}`, "repository")
	f.Add(`"x"}, {`, "repositoryId")
	f.Fuzz(func(t *testing.T, body, field string) {
		msg := new(artifactregistrypb.CreateRepositoryRequest)
		if field != "*" && fieldByName(msg.ProtoReflect().Descriptor(), field) == nil {
			return
		}
		if _, err := decodeBody([]byte(body), msg, field); err != nil {
			if f := asFault(err); f.Code.HTTPStatus() != http.StatusBadRequest {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		if _, err := encodeProto(msg, format{}); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	})
}
