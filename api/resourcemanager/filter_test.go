package resourcemanager

import (
	"strings"
	"testing"

	"giggle/fault"
	"giggle/projects"
)

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "id:giggle labels.a=b", `name:"*" :`, "labels.:", "lifecycleState:ACTIVE"} {
		f.Add(s)
	}
	p := projects.Project{ID: "giggle", Name: "giggle"}
	f.Fuzz(func(t *testing.T, filter string) {
		match, err := parseFilter(filter)
		if err != nil {
			if !fault.Is(err, fault.InvalidArgument) {
				t.Errorf("%q: %v", filter, err)
			}
			return
		}
		if all := match(p); !all && strings.TrimSpace(filter) == "" {
			t.Error("an empty filter leaves projects out")
		}
	})
}
