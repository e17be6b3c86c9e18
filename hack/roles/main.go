// Command roles writes iam/roles.txt, the predefined roles that Giggle knows, from the facts that a maintainer has:
//
//	go run ./hack/roles FACTS/roles.json >iam/roles.txt
//
// It serves maintainers who take a newer data set. Nothing needs it to build or test, and it fetches nothing.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"giggle/catalog"
)

// basic are the roles that reach over every API.
var basic = []string{"editor", "owner", "viewer"}

// implied are permissions that roles have beside their own. The permission of Cloud Run v2's SubmitBuild,
// run.builds.create, is in no role of the data set: here the roles that may update a service have it.
var implied = map[string][]string{
	"editor":              {"run.builds.create"},
	"owner":               {"run.builds.create"},
	"run.admin":           {"run.builds.create"},
	"run.developer":       {"run.builds.create"},
	"run.editor":          {"run.builds.create"},
	"run.sourceDeveloper": {"run.builds.create"},
}

// legacy are roles that the basic roles have in Google Cloud through the default policy of each new bucket
// ("projectEditor:PROJECT has roles/storage.legacyBucketOwner"). Giggle's buckets begin without a policy, so the basic
// roles have their permissions themselves (https://cloud.google.com/storage/docs/access-control/iam-roles).
var legacy = map[string][]string{
	"editor": {"storage.legacyBucketOwner", "storage.legacyObjectOwner"},
	"owner":  {"storage.legacyBucketOwner", "storage.legacyObjectOwner"},
	"viewer": {"storage.legacyBucketReader", "storage.legacyObjectReader"},
}

type role struct {
	Name, Title, Description, Stage string
	IncludedPermissions             []string
}

const header = `# The predefined and basic roles of the APIs that Giggle has, with their permissions.
#
# Facts as published by Google in its APIs and reference pages, collected in the public data set iann0036/iam-dataset
# (MIT licence, snapshot of 2026-08-22, commit 2073fa52; of Cloud SQL single files of other commits), cut and put into
# this form by hack/roles.
#
# A role is a line "roles/NAME STAGE TITLE"; the lines below it are its description behind a ">", and its permissions:
# a resource type followed by the verbs on it, so "run.services get list" is run.services.get and run.services.list.
`

func main() {
	if err := write(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "roles:", err)
		os.Exit(1)
	}
}

func write(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: roles FACTS/roles.json")
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var roles []role
	if err := json.Unmarshal(b, &roles); err != nil {
		return err
	}
	slices.SortFunc(roles, func(a, b role) int { return cmp.Compare(a.Name, b.Name) })
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprint(out, header)
	for _, r := range roles {
		name := strings.TrimPrefix(r.Name, "roles/")
		if !slices.Contains(basic, name) && !catalog.KnowsRole(r.Name) {
			continue
		}
		fmt.Fprintf(out, "\n%s %s %s\n", r.Name, cmp.Or(r.Stage, "GA"), strings.Join(strings.Fields(r.Title), " "))
		if d := strings.Join(strings.Fields(r.Description), " "); d != "" {
			fmt.Fprintf(out, "> %s\n", d)
		}
		verbs := make(map[string][]string)
		all := append(r.IncludedPermissions, implied[name]...)
		for _, other := range roles {
			if slices.Contains(legacy[name], strings.TrimPrefix(other.Name, "roles/")) {
				all = append(all, other.IncludedPermissions...)
			}
		}
		for _, p := range all {
			i := strings.LastIndexByte(p, '.')
			verbs[p[:i]] = append(verbs[p[:i]], p[i+1:])
		}
		types := make([]string, 0, len(verbs))
		for t := range verbs {
			types = append(types, t)
		}
		slices.Sort(types)
		for _, t := range types {
			slices.Sort(verbs[t])
			fmt.Fprintf(out, "%s %s\n", t, strings.Join(slices.Compact(verbs[t]), " "))
		}
	}
	return out.Flush()
}
