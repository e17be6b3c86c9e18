package builds

import (
	"strings"
	"testing"
	"time"
)

// Every field that gcloud sends chooses the builds that it means
// (https://cloud.google.com/build/docs/view-build-results#filter_build_results_using_queries, filter_rewrite.py).
func TestFilters(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	plain := &Build{Status: Success, Created: at, Started: at.Add(time.Minute), Finished: at.Add(time.Hour)}
	plain.Name.ID, plain.Project, plain.Account = "one", "p", "a@b"
	plain.Source = Source{Bucket: "bucket", Object: "object"}
	plain.Tags = []string{"x", "y"}
	plain.Spec.Images, plain.Images = []string{"gcr.io/p/i"}, []Pushed{{Name: "gcr.io/p/i", Digest: "sha256:d"}}
	plain.Spec.Options.Verify = "VERIFIED"
	repo := &Build{Status: Working, Created: at.Add(24 * time.Hour), Trigger: "t", Project: "p"}
	repo.Name.ID = "two"
	repo.Source.Repo = &Repo{Name: "r", Commit: "c", Branch: "main", Tag: "v1"}
	repo.Spec.Substitutions = map[string]string{"BRANCH_NAME": "main", "_A": "b c"}
	for filter, want := range map[string]string{
		"":                 "one two",
		`status="SUCCESS"`: "one", "status=WORKING OR status=QUEUED": "two", "status!=SUCCESS": "two", "NOT status=SUCCESS": "two",
		`build_id="one"`: "one", "id=two": "two", "buildId:two": "two", "project_id=p": "one two",
		`tags="x"`: "one", "tags=z": "", "tags=x AND tags=y": "one", "-tags=x": "two",
		`trigger_id="t"`: "two", "build_trigger_id=t": "two", "buildTriggerId=t": "two",
		"images=gcr.io/p/i": "one", "results.images.name=gcr.io/p/i": "one", `results.images.digest="sha256:d"`: "one",
		"options.requested_verify_option=VERIFIED": "one", "options.requestedVerifyOption=NOT_VERIFIED": "two",
		`source.storage_source.bucket="bucket"`: "one", "source.storageSource.object=object": "one",
		`source.repo_source.repo_name="r"`: "two", "source.repoSource.branchName=main": "two", "source.repo_source.tag_name=v1": "two",
		"source.repo_source.commit_sha=c": "two", `source_provenance.resolved_repo_source.commit_sha="c"`: "two",
		"service_account=a@b": "one", "serviceAccount=projects/p/serviceAccounts/a@b": "one",
		`substitutions._A="b c"`: "two", "substitutions.BRANCH_NAME=main": "two",
		`create_time>"2026-03-01T13:00:00.000+00:00"`: "two", `createTime<=2026-03-01T12:00:00Z`: "one", "create_time>=2026-03-02": "two",
		`start_time<"2026-03-02"`: "one", "finish_time>2026-03-01": "one", "finishTime<2030-01-01": "one",
		`(tags="x") AND (status="WORKING" OR status="QUEUED")`: "", "(status=SUCCESS OR status=WORKING) AND NOT tags=x": "two",
		`build_id>"one"`: "two", "id<=one": "one",
		"status=(SUCCESS OR CANCELLED)": "one", "tags:(x AND y)": "one",
		"colour=red": "!", "status": "!", `"status"`: "!", "create_time=soon": "!", "tags=x AND one": "!",
		strings.Repeat("NOT ", 40) + "tags=x": "!", strings.Repeat("tags=x ", 2000): "!",
	} {
		f, err := ParseFilter(filter)
		var got []string
		if err != nil {
			got = []string{"!"}
		} else {
			for _, b := range []*Build{plain, repo} {
				if f(b) {
					got = append(got, b.Name.ID)
				}
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s chooses %q, %v; want %q", filter, got, err, want)
		}
	}
}
