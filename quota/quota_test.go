package quota_test

import (
	"strings"
	"testing"

	"giggle/fault"
	"giggle/quota"
)

func TestAdmit(t *testing.T) {
	said, err := quota.New(map[string]int{"services": 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		limits *quota.Limits
		name   quota.Name
		most   int
	}{
		{said, quota.Services, 2}, {said, quota.Keys, 10}, {nil, quota.Services, 1000}, {nil, quota.Roles, 300},
	} {
		if got := c.limits.Of(c.name); got != c.most {
			t.Errorf("%s = %d, want %d", c.name, got, c.most)
		}
		if err := c.limits.Admit(c.name, "project p", c.most-1); err != nil {
			t.Errorf("the last of %s: %v", c.name, err)
		}
		err := c.limits.Admit(c.name, "project p", c.most)
		if !fault.Is(err, fault.ResourceExhausted) ||
			!strings.Contains(err.Error(), "giggle up --quota "+string(c.name)+"=") ||
			!strings.Contains(err.Error(), "project p") {
			t.Errorf("one more of %s: %v", c.name, err)
		}
	}
	for _, bad := range []map[string]int{{"service": 1}, {"services": 0}, {"services": -1}} {
		if _, err := quota.New(bad); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%v = %v", bad, err)
		}
	}
}
