package iam

import (
	"cmp"
	"slices"

	"giggle/logging/audit"
)

// maxDelta is how many changes of one policy the audit log has.
const maxDelta = 100

// delta is what a policy gives that the one before didn't, and the reverse.
func delta(before, after Policy) []audit.BindingDelta {
	type grant struct {
		role, member string
		condition    Condition
	}
	grants := func(p Policy) map[grant]bool {
		out := make(map[grant]bool)
		for _, b := range p.Bindings {
			for _, member := range b.Members {
				out[grant{b.Role, member, Condition{}}] = true
			}
		}
		for _, b := range p.Conditional {
			for _, member := range b.Members {
				out[grant{b.Role, member, b.Condition}] = true
			}
		}
		return out
	}
	had, has := grants(before), grants(after)
	var out []audit.BindingDelta
	add := func(action string, of, not map[grant]bool) {
		for g := range of {
			if not[g] {
				d := audit.BindingDelta{Action: action, Role: g.role, Member: g.member}
				if g.condition != (Condition{}) {
					d.Condition = &audit.Expr{
						Title:       g.condition.Title,
						Description: g.condition.Description,
						Expression:  g.condition.Expression,
					}
				}
				out = append(out, d)
			}
		}
	}
	add("REMOVE", had, has)
	add("ADD", has, had)
	slices.SortFunc(out, func(a, b audit.BindingDelta) int {
		return cmp.Or(-cmp.Compare(a.Action, b.Action), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Member, b.Member))
	})
	return out[:min(len(out), maxDelta)]
}
