package rest_test

import (
	"strings"
	"testing"

	pb "cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"google.golang.org/protobuf/proto"

	"giggle/fault"
	"giggle/rest"
)

// A mask means the fields that it names and no others, at any depth
// (https://google.aip.dev/161, google.protobuf.FieldMask).
func TestOverlay(t *testing.T) {
	type trigger = pb.BuildTrigger
	push := func(branch, tag string, invert bool) *pb.GitHubEventsConfig {
		p := &pb.PushFilter{InvertRegex: invert}
		if branch != "" {
			p.GitRef = &pb.PushFilter_Branch{Branch: branch}
		}
		if tag != "" {
			p.GitRef = &pb.PushFilter_Tag{Tag: tag}
		}
		return &pb.GitHubEventsConfig{Event: &pb.GitHubEventsConfig_Push{Push: p}}
	}
	pull := func(branch string) *pb.GitHubEventsConfig {
		p := &pb.PullRequestFilter{GitRef: &pb.PullRequestFilter_Branch{Branch: branch}}
		return &pb.GitHubEventsConfig{Event: &pb.GitHubEventsConfig_PullRequest{PullRequest: p}}
	}
	dev := &pb.RepoSource_BranchName{BranchName: "^dev$"}
	tags := &pb.RepoSource_TagName{TagName: "v.*"}
	file := &pb.BuildTrigger_GitFileSource{GitFileSource: &pb.GitFileSource{Path: "p"}}
	have := func() *trigger {
		w := &trigger{
			Name:        "t",
			Description: "d",
			Tags:        []string{"a", "b"},
			TriggerTemplate: &pb.RepoSource{
				RepoName: "app",
				Dir:      "sub",
				Revision: &pb.RepoSource_BranchName{BranchName: "^main$"},
			},
			Github:         push("^main$", "", true),
			ApprovalConfig: &pb.ApprovalConfig{ApprovalRequired: true},
			BuildTemplate:  &pb.BuildTrigger_Filename{Filename: "c.yaml"},
			Substitutions:  map[string]string{"_A": "a", "_B": "b"},
			SourceToBuild:  &pb.GitRepoSource{Ref: "refs/heads/main", Uri: "u"},
		}
		w.Github.Owner, w.Github.Name = "o", "n"
		return w
	}
	for mask, c := range map[string]struct {
		from   *trigger
		change func(*trigger)
	}{
		"description": {&trigger{Description: "e"}, func(t *trigger) { t.Description = "e" }},
		"name":        {&trigger{}, func(t *trigger) { t.Name = "" }},
		"trigger_template.branch_name": {
			&trigger{TriggerTemplate: &pb.RepoSource{Revision: dev}},
			func(t *trigger) { t.TriggerTemplate.Revision = dev },
		},
		"triggerTemplate.tagName": { // in place of the branch
			&trigger{TriggerTemplate: &pb.RepoSource{Revision: tags}},
			func(t *trigger) { t.TriggerTemplate.Revision = tags },
		},
		"github.push.branch": {
			&trigger{Github: push("^dev$", "", false)},
			func(t *trigger) { t.Github.Event = push("^dev$", "", true).Event },
		},
		"github.push.tag": {
			&trigger{Github: push("", "v1", false)},
			func(t *trigger) { t.Github.Event = push("", "v1", true).Event },
		},
		"github.pull_request.branch": {
			&trigger{Github: pull("x")},
			func(t *trigger) { t.Github.Event = pull("x").Event },
		},
		"github.push.invert_regex": {
			&trigger{},
			func(t *trigger) { t.Github.Event = push("^main$", "", false).Event },
		},
		"github": {&trigger{}, func(t *trigger) { t.Github = nil }},
		"tags":   {&trigger{Tags: []string{"c"}}, func(t *trigger) { t.Tags = []string{"c"} }},
		"substitutions": {
			&trigger{Substitutions: map[string]string{"_C": "c"}},
			func(t *trigger) { t.Substitutions = map[string]string{"_C": "c"} },
		},
		"substitutions._A": {
			&trigger{Substitutions: map[string]string{"_A": "x"}},
			func(t *trigger) { t.Substitutions["_A"] = "x" },
		},
		"substitutions._B":      {&trigger{}, func(t *trigger) { delete(t.Substitutions, "_B") }},
		"git_file_source.path":  {&trigger{BuildTemplate: file}, func(t *trigger) { t.BuildTemplate = file }},
		"webhook_config.secret": {&trigger{}, func(*trigger) {}}, // there is none on either side
		"approval_config.approval_required,source_to_build.ref": {
			&trigger{SourceToBuild: &pb.GitRepoSource{Ref: "r"}},
			func(t *trigger) { t.ApprovalConfig.ApprovalRequired, t.SourceToBuild.Ref = false, "r" },
		},
		"*":                  {&trigger{Name: "n"}, func(t *trigger) { proto.Reset(t); t.Name = "n" }},
		"colour":             {&trigger{}, nil},
		"github.push.colour": {&trigger{}, nil},
		"description.x":      {&trigger{}, nil}, // a text has no fields
		"tags.x":             {&trigger{}, nil},
		"substitutions._A.x": {&trigger{}, nil},
		"":                   {&trigger{}, nil},
	} {
		t.Run(mask, func(t *testing.T) {
			got, want := have(), have()
			err := rest.Overlay(got, c.from, strings.Split(mask, ","))
			if c.change == nil {
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
