package cloudbuild

import (
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/builds/trigger"
)

// toTrigger reads a trigger. What is not implemented is refused with its path.
func toTrigger(w *cloudbuildpb.BuildTrigger) (trigger.Trigger, error) {
	t := trigger.Trigger{
		Title:         w.GetName(),
		Description:   w.GetDescription(),
		Tags:          w.GetTags(),
		Disabled:      w.GetDisabled(),
		Substitutions: w.GetSubstitutions(),
		Included:      w.GetIncludedFiles(),
		Ignored:       w.GetIgnoredFiles(),
		Account:       w.GetServiceAccount(),
		Approval:      w.GetApprovalConfig().GetApprovalRequired(),
		Autodetect:    w.GetAutodetect(),
		File:          w.GetFilename(),
	}
	if err := triggerFields.check("trigger", w.ProtoReflect()); err != nil {
		return t, err
	}
	if r := w.GetTriggerTemplate(); r != nil {
		t.Repo = &trigger.RepoEvent{Name: r.GetRepoName(), Dir: r.GetDir(), Pattern: trigger.Pattern{
			Branch: r.GetBranchName(), Tag: r.GetTagName(), Commit: r.GetCommitSha(), Invert: r.GetInvertRegex(),
		}}
	}
	if g := w.GetGithub(); g != nil {
		t.GitHub = &trigger.GitHubEvent{Owner: g.GetOwner(), Name: g.GetName()}
		if p := g.GetPush(); p != nil {
			t.GitHub.Push = &trigger.Pattern{Branch: p.GetBranch(), Tag: p.GetTag(), Invert: p.GetInvertRegex()}
		}
		if p := g.GetPullRequest(); p != nil {
			t.GitHub.Pull = &trigger.Pattern{Branch: p.GetBranch(), Invert: p.GetInvertRegex()}
			t.GitHub.Comments = p.GetCommentControl().String()
		}
	}
	if h := w.GetWebhookConfig(); h != nil {
		t.Webhook = &trigger.Webhook{Secret: h.GetSecret()}
	}
	if b := w.GetBuild(); b != nil {
		text, err := protojson.Marshal(b)
		if err != nil {
			return t, err
		}
		t.Inline = text
	}
	if f := w.GetGitFileSource(); f != nil {
		t.GitFile = &trigger.GitFile{
			Path:     f.GetPath(),
			URI:      f.GetUri(),
			Type:     f.GetRepoType().String(),
			Revision: f.GetRevision(),
		}
	}
	if s := w.GetSourceToBuild(); s != nil {
		t.Source = &trigger.GitSource{URI: s.GetUri(), Type: s.GetRepoType().String(), Ref: s.GetRef()}
	}
	return t, nil
}

// fromTrigger writes a trigger.
func fromTrigger(t *trigger.Trigger) (*cloudbuildpb.BuildTrigger, error) {
	w := &cloudbuildpb.BuildTrigger{
		ResourceName:   t.Name.String(),
		Id:             t.Name.ID,
		Name:           t.Title,
		Description:    t.Description,
		Tags:           t.Tags,
		Disabled:       t.Disabled,
		CreateTime:     timestamppb.New(t.Created),
		Substitutions:  t.Substitutions,
		IncludedFiles:  t.Included,
		IgnoredFiles:   t.Ignored,
		ServiceAccount: t.Account,
	}
	if t.Approval {
		w.ApprovalConfig = &cloudbuildpb.ApprovalConfig{ApprovalRequired: true}
	}
	if r := t.Repo; r != nil {
		s := &cloudbuildpb.RepoSource{ProjectId: t.Name.Project, RepoName: r.Name, Dir: r.Dir, InvertRegex: r.Invert}
		switch {
		case r.Tag != "":
			s.Revision = &cloudbuildpb.RepoSource_TagName{TagName: r.Tag}
		case r.Commit != "":
			s.Revision = &cloudbuildpb.RepoSource_CommitSha{CommitSha: r.Commit}
		default:
			s.Revision = &cloudbuildpb.RepoSource_BranchName{BranchName: r.Branch}
		}
		w.TriggerTemplate = s
	}
	if g := t.GitHub; g != nil {
		w.Github = &cloudbuildpb.GitHubEventsConfig{Owner: g.Owner, Name: g.Name}
		switch p := g.Push; {
		case p != nil && p.Tag != "":
			w.Github.Event = &cloudbuildpb.GitHubEventsConfig_Push{
				Push: &cloudbuildpb.PushFilter{InvertRegex: p.Invert, GitRef: &cloudbuildpb.PushFilter_Tag{Tag: p.Tag}},
			}
		case p != nil:
			w.Github.Event = &cloudbuildpb.GitHubEventsConfig_Push{
				Push: &cloudbuildpb.PushFilter{
					InvertRegex: p.Invert,
					GitRef:      &cloudbuildpb.PushFilter_Branch{Branch: p.Branch},
				},
			}
		case g.Pull != nil:
			w.Github.Event = &cloudbuildpb.GitHubEventsConfig_PullRequest{PullRequest: &cloudbuildpb.PullRequestFilter{
				InvertRegex: g.Pull.Invert,
				GitRef:      &cloudbuildpb.PullRequestFilter_Branch{Branch: g.Pull.Branch},
				CommentControl: cloudbuildpb.PullRequestFilter_CommentControl(
					cloudbuildpb.PullRequestFilter_CommentControl_value[g.Comments]),
			}}
		}
	}
	if t.Webhook != nil {
		w.WebhookConfig = &cloudbuildpb.WebhookConfig{
			AuthMethod: &cloudbuildpb.WebhookConfig_Secret{Secret: t.Webhook.Secret},
			State:      cloudbuildpb.WebhookConfig_OK,
		}
	}
	switch {
	case t.File != "":
		w.BuildTemplate = &cloudbuildpb.BuildTrigger_Filename{Filename: t.File}
	case len(t.Inline) > 0:
		b := &cloudbuildpb.Build{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(t.Inline, b); err != nil {
			return nil, err
		}
		w.BuildTemplate = &cloudbuildpb.BuildTrigger_Build{Build: b}
	case t.GitFile != nil:
		w.BuildTemplate = &cloudbuildpb.BuildTrigger_GitFileSource{GitFileSource: &cloudbuildpb.GitFileSource{
			Path: t.GitFile.Path, Uri: t.GitFile.URI, Revision: t.GitFile.Revision, RepoType: repoType(t.GitFile.Type),
		}}
	case t.Autodetect:
		w.BuildTemplate = &cloudbuildpb.BuildTrigger_Autodetect{Autodetect: true}
	}
	if s := t.Source; s != nil {
		w.SourceToBuild = &cloudbuildpb.GitRepoSource{Uri: s.URI, Ref: s.Ref, RepoType: repoType(s.Type)}
	}
	return w, nil
}

func repoType(s string) cloudbuildpb.GitFileSource_RepoType {
	return cloudbuildpb.GitFileSource_RepoType(cloudbuildpb.GitFileSource_RepoType_value[strings.TrimSpace(s)])
}
