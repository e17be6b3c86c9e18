// Package quota is how many of each thing there may be: Google's own numbers where it says them, and what `giggle up`
// was told instead.
//
// It serves the products, which count in the transaction that adds. It counts nothing itself but the bytes that come
// in, of which there is no row yet.
package quota

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"giggle/fault"
)

// Name is a quota, as `giggle up --quota NAME=N` calls it.
type Name string

// The quotas.
const (
	Projects        Name = "projects"
	Services        Name = "services"
	Revisions       Name = "revisions"
	Builds          Name = "builds"
	Triggers        Name = "triggers"
	Repositories    Name = "repositories"
	GitRepositories Name = "git-repositories"
	Buckets         Name = "buckets"
	Accounts        Name = "service-accounts"
	Keys            Name = "service-account-keys"
	Roles           Name = "custom-roles"
	StoredBytes     Name = "stored-bytes"
)

// table has each quota's usual number and what it counts.
var table = map[Name]struct {
	usual int
	what  string
}{
	Projects:        {100, "projects on this platform"},
	Services:        {1000, "Cloud Run services in a region of a project"}, // https://cloud.google.com/run/quotas
	Revisions:       {1000, "revisions of a Cloud Run service that serve or are kept by a tag; older ones that do neither are removed"},
	Builds:          {500, "builds of a project that wait"},
	Triggers:        {300, "build triggers of a project"},
	Repositories:    {1000, "Artifact Registry repositories in a location of a project"},
	GitRepositories: {1000, "Git repositories of a project"},
	Buckets:         {1000, "Cloud Storage buckets of a project"},
	Accounts:        {100, "service accounts of a project"}, // https://cloud.google.com/iam/quotas
	Keys:            {10, "keys of a service account"},
	Roles:           {300, "custom roles of a project"},
	StoredBytes:     {math.MaxInt, "bytes of objects and images of a project"}, // but see SizeStored
}

// Limits are a platform's quotas. A nil one has the usual numbers.
type Limits struct{ said map[Name]int }

// New returns the usual numbers with others in their place. It fails with InvalidArgument on a name that there is not
// and on a number below 1.
func New(said map[string]int) (*Limits, error) {
	l := &Limits{said: make(map[Name]int, len(said))}
	for name, n := range said {
		if _, ok := table[Name(name)]; !ok {
			return nil, fault.New(fault.InvalidArgument, "There is no quota %.60q; there are %s.", name,
				strings.Join(Names(), ", "))
		}
		if n < 1 {
			return nil, fault.New(fault.InvalidArgument, "The quota %s must be at least 1, not %d.", name, n)
		}
		l.said[Name(name)] = n
	}
	return l, nil
}

// LeastStored is the fewest bytes that a project may store where nobody has said how many.
const LeastStored = 1 << 30

// SizeStored sets how many bytes a project may store where nobody has said how many: half of a disk, so that no project
// fills it for all.
func (l *Limits) SizeStored(disk int64) {
	if l.said[StoredBytes] == 0 {
		l.said[StoredBytes] = int(max(disk/2, LeastStored))
	}
}

// Names returns the names of all quotas, in order.
func Names() (names []string) {
	for name := range table {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// Describe says what each quota counts and its usual number, a line each.
func Describe() string {
	var b strings.Builder
	for _, name := range Names() {
		q := table[Name(name)]
		usual := fmt.Sprint(q.usual)
		if Name(name) == StoredBytes {
			usual = "half of the disk"
		}
		fmt.Fprintf(&b, "%s=%s: %s\n", name, usual, q.what)
	}
	return b.String()
}

// Of returns how many there may be.
func (l *Limits) Of(name Name) int {
	if l == nil {
		return table[name].usual
	}
	return cmp.Or(l.said[name], table[name].usual)
}

// Admit fails with ResourceExhausted when there may be no more than there are. Whose they are is for the text, such as
// "project giggle".
func (l *Limits) Admit(name Name, whose string, have int) error {
	most := l.Of(name)
	if have < most {
		return nil
	}
	return exceeded(name, int64(most),
		"Quota exceeded for %s: the quota %q allows %d %s. Delete some, or have the platform started with `giggle up --quota %s=%d`.",
		whose, name, most, table[name].what, name, 2*most)
}

func exceeded(name Name, most int64, format string, args ...any) error {
	e := fault.New(fault.ResourceExhausted, format, args...)
	e.Reason, e.Domain = fault.ReasonQuota, "giggle.dev"
	e.Metadata = map[string]string{"quota_metric": string(name), "quota_limit_value": fmt.Sprint(most)}
	return e
}
