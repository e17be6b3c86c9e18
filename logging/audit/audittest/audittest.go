// Package audittest reads audit logs for the tests of those who write to them. It is no part of the platform.
package audittest

import (
	"testing"

	"giggle/logging"
	"giggle/logging/audit"
)

// Calls returns what the entries of an audit log hold, oldest first.
func Calls(t testing.TB, l logging.Reader) []audit.Payload {
	t.Helper()
	var out []audit.Payload
	for e, err := range l.Read(t.Context(), logging.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		p, err := audit.PayloadOf(&e)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}
