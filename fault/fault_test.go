package fault_test

import (
	"errors"
	"io"
	"testing"

	"giggle/fault"
)

func TestWrapKeepsKindAndHidesForeignText(t *testing.T) {
	err := func() (err error) {
		defer fault.Wrap(&err, "run.Get(%s)", "jokes")
		return fault.New(fault.NotFound, "Service %q was not found.", "jokes")
	}()
	if got := fault.CodeOf(err); got != fault.NotFound {
		t.Errorf("code = %v, want NOT_FOUND", got)
	}
	if got, want := fault.From(err).Message, `Service "jokes" was not found.`; got != want {
		t.Errorf("message = %q, want %q", got, want)
	}
	if got, want := err.Error(), `run.Get(jokes): Service "jokes" was not found.`; got != want {
		t.Errorf("chain = %q, want %q", got, want)
	}

	foreign := fault.From(io.ErrUnexpectedEOF)
	if foreign.Code != fault.Internal || foreign.Message == io.ErrUnexpectedEOF.Error() {
		t.Errorf("a foreign error became %v %q", foreign.Code, foreign.Message)
	}
	if !errors.Is(foreign, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	var none error
	fault.Wrap(&none, "nothing")
	if none != nil || fault.From(nil) != nil {
		t.Error("nil must stay nil")
	}
}

func TestCodeTable(t *testing.T) {
	for code, want := range map[fault.Code]struct {
		name string
		http int
	}{
		fault.NotFound: {"NOT_FOUND", 404}, fault.Aborted: {"ABORTED", 409},
		fault.Unauthenticated: {"UNAUTHENTICATED", 401},
		fault.Unimplemented:   {"UNIMPLEMENTED", 405}, fault.Code(99): {"UNKNOWN", 500},
	} {
		if code.String() != want.name || code.HTTPStatus() != want.http {
			t.Errorf("%d = %s %d, want %s %d", code, code, code.HTTPStatus(), want.name, want.http)
		}
	}
}
