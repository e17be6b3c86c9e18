package jokes

import "testing"

func TestHitMe(t *testing.T) {
	if HitMe() == "" {
		t.Error("that was not funny")
	}
}
