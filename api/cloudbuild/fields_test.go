package cloudbuild

import (
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
)

// What comes of each field is said, and of none that there is not.
func TestEveryFieldIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		fields *fields
		of     proto.Message
		but    []string // refused for want of an entry
	}{
		"build":   {&buildFields, &cloudbuildpb.Build{}, []string{"options.enableStructuredLogging"}},
		"trigger": {&triggerFields, &cloudbuildpb.BuildTrigger{}, nil},
		"run":     {&firingFields, &cloudbuildpb.RepoSource{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(map[string]bool)
			var walk func(path string, d protoreflect.MessageDescriptor)
			walk = func(path string, d protoreflect.MessageDescriptor) {
				for i := range d.Fields().Len() {
					f := d.Fields().Get(i)
					at := joined(path, f.JSONName())
					_, known := c.fields.of(at)
					inner := f.Message() != nil && !f.IsMap() && f.Message().ParentFile().Package() != "google.protobuf"
					switch {
					case known:
						seen[at] = true
					case inner:
						walk(at, f.Message())
					case !slices.Contains(c.but, at):
						t.Errorf("nothing is said of %s", at)
					}
				}
			}
			walk("", c.of.ProtoReflect().Descriptor())
			all := slices.Concat(c.fields.real, c.fields.own)
			for path := range c.fields.refused {
				all = append(all, path)
			}
			for _, path := range all {
				if !seen[path] {
					t.Errorf("there is no field %s, or it is listed twice", path)
				}
			}
		})
	}
}

// A mask means the fields that it names and no others, at any depth
// (https://google.aip.dev/161, google.protobuf.FieldMask).
func TestUpdateMask(t *testing.T) {
	push := func(branch, tag string, invert bool) *cloudbuildpb.GitHubEventsConfig_Push {
		p := &cloudbuildpb.PushFilter{InvertRegex: invert}
		if branch != "" {
			p.GitRef = &cloudbuildpb.PushFilter_Branch{Branch: branch}
		}
		if tag != "" {
			p.GitRef = &cloudbuildpb.PushFilter_Tag{Tag: tag}
		}
		return &cloudbuildpb.GitHubEventsConfig_Push{Push: p}
	}
	have := func() *cloudbuildpb.BuildTrigger {
		return &cloudbuildpb.BuildTrigger{
			Name:        "t",
			Description: "d",
			Tags:        []string{"a", "b"},
			TriggerTemplate: &cloudbuildpb.RepoSource{
				RepoName: "app",
				Dir:      "sub",
				Revision: &cloudbuildpb.RepoSource_BranchName{BranchName: "^main$"},
			},
			Github:         &cloudbuildpb.GitHubEventsConfig{Owner: "o", Name: "n", Event: push("^main$", "", true)},
			ApprovalConfig: &cloudbuildpb.ApprovalConfig{ApprovalRequired: true},
			BuildTemplate:  &cloudbuildpb.BuildTrigger_Filename{Filename: "c.yaml"},
			Substitutions:  map[string]string{"_A": "a", "_B": "b"},
			SourceToBuild:  &cloudbuildpb.GitRepoSource{Ref: "refs/heads/main", Uri: "u"},
		}
	}
	for name, c := range map[string]struct {
		mask   string
		from   *cloudbuildpb.BuildTrigger
		change func(*cloudbuildpb.BuildTrigger)
		fails  bool
	}{
		"a field":                 {"description", &cloudbuildpb.BuildTrigger{Description: "e"}, func(t *cloudbuildpb.BuildTrigger) { t.Description = "e" }, false},
		"a field that is cleared": {"description", &cloudbuildpb.BuildTrigger{}, func(t *cloudbuildpb.BuildTrigger) { t.Description = "" }, false},
		"a branch": {"trigger_template.branch_name", &cloudbuildpb.BuildTrigger{
			TriggerTemplate: &cloudbuildpb.RepoSource{Revision: &cloudbuildpb.RepoSource_BranchName{BranchName: "^dev$"}},
		}, func(t *cloudbuildpb.BuildTrigger) {
			t.TriggerTemplate.Revision = &cloudbuildpb.RepoSource_BranchName{BranchName: "^dev$"}
		}, false},
		"a tag in place of a branch": {"triggerTemplate.tagName", &cloudbuildpb.BuildTrigger{
			TriggerTemplate: &cloudbuildpb.RepoSource{Revision: &cloudbuildpb.RepoSource_TagName{TagName: "v.*"}},
		}, func(t *cloudbuildpb.BuildTrigger) {
			t.TriggerTemplate.Revision = &cloudbuildpb.RepoSource_TagName{TagName: "v.*"}
		}, false},
		"three levels": {"github.push.branch", &cloudbuildpb.BuildTrigger{
			Github: &cloudbuildpb.GitHubEventsConfig{Event: push("^dev$", "", false)},
		}, func(t *cloudbuildpb.BuildTrigger) { t.Github.Event = push("^dev$", "", true) }, false},
		"a tag of three levels": {"github.push.tag", &cloudbuildpb.BuildTrigger{
			Github: &cloudbuildpb.GitHubEventsConfig{Event: push("", "v1", false)},
		}, func(t *cloudbuildpb.BuildTrigger) { t.Github.Event = push("", "v1", true) }, false},
		"another event": {"github.pull_request.branch", &cloudbuildpb.BuildTrigger{
			Github: &cloudbuildpb.GitHubEventsConfig{Event: &cloudbuildpb.GitHubEventsConfig_PullRequest{
				PullRequest: &cloudbuildpb.PullRequestFilter{GitRef: &cloudbuildpb.PullRequestFilter_Branch{Branch: "x"}},
			}},
		}, func(t *cloudbuildpb.BuildTrigger) {
			t.Github.Event = &cloudbuildpb.GitHubEventsConfig_PullRequest{
				PullRequest: &cloudbuildpb.PullRequestFilter{GitRef: &cloudbuildpb.PullRequestFilter_Branch{Branch: "x"}},
			}
		}, false},
		"a flag that is cleared": {"github.push.invert_regex", &cloudbuildpb.BuildTrigger{}, func(t *cloudbuildpb.BuildTrigger) { t.Github.Event = push("^main$", "", false) }, false},
		"a whole message":        {"github", &cloudbuildpb.BuildTrigger{}, func(t *cloudbuildpb.BuildTrigger) { t.Github = nil }, false},
		"a list":                 {"tags", &cloudbuildpb.BuildTrigger{Tags: []string{"c"}}, func(t *cloudbuildpb.BuildTrigger) { t.Tags = []string{"c"} }, false},
		"a map":                  {"substitutions", &cloudbuildpb.BuildTrigger{Substitutions: map[string]string{"_C": "c"}}, func(t *cloudbuildpb.BuildTrigger) { t.Substitutions = map[string]string{"_C": "c"} }, false},
		"an entry of a map":      {"substitutions._A", &cloudbuildpb.BuildTrigger{Substitutions: map[string]string{"_A": "x"}}, func(t *cloudbuildpb.BuildTrigger) { t.Substitutions["_A"] = "x" }, false},
		"an entry that goes":     {"substitutions._A", &cloudbuildpb.BuildTrigger{}, func(t *cloudbuildpb.BuildTrigger) { delete(t.Substitutions, "_A") }, false},
		"another template": {"git_file_source.path", &cloudbuildpb.BuildTrigger{
			BuildTemplate: &cloudbuildpb.BuildTrigger_GitFileSource{GitFileSource: &cloudbuildpb.GitFileSource{Path: "p"}},
		}, func(t *cloudbuildpb.BuildTrigger) {
			t.BuildTemplate = &cloudbuildpb.BuildTrigger_GitFileSource{GitFileSource: &cloudbuildpb.GitFileSource{Path: "p"}}
		}, false},
		"nothing of nothing": {"webhook_config.secret", &cloudbuildpb.BuildTrigger{}, func(*cloudbuildpb.BuildTrigger) {}, false},
		"two fields": {"approval_config.approval_required,source_to_build.ref", &cloudbuildpb.BuildTrigger{
			SourceToBuild: &cloudbuildpb.GitRepoSource{Ref: "r"},
		}, func(t *cloudbuildpb.BuildTrigger) {
			t.ApprovalConfig.ApprovalRequired, t.SourceToBuild.Ref = false, "r"
		}, false},
		"all":                   {"*", &cloudbuildpb.BuildTrigger{Name: "n"}, func(t *cloudbuildpb.BuildTrigger) { proto.Reset(t); t.Name = "n" }, false},
		"no field":              {"colour", &cloudbuildpb.BuildTrigger{}, nil, true},
		"no field of a message": {"github.push.colour", &cloudbuildpb.BuildTrigger{}, nil, true},
		"a field of a text":     {"description.x", &cloudbuildpb.BuildTrigger{}, nil, true},
		"a field of a list":     {"tags.x", &cloudbuildpb.BuildTrigger{}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := have(), have()
			err := applyMask(got, c.from, strings.Split(c.mask, ","))
			if c.fails {
				if !fault.Is(err, fault.InvalidArgument) {
					t.Errorf("err = %v", err)
				}
				return
			}
			if c.change(want); err != nil || !proto.Equal(got, want) {
				t.Errorf("%v, %v\nwant %v", got, err, want)
			}
		})
	}
}
