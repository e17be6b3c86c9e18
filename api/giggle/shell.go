package giggle

import (
	"context"
	"io"
	"net/http"
	"strconv"

	"giggle/fault"
	"giggle/iam"
)

// Shell is an open shell in a step of a build: *steps.Shell.
type Shell interface {
	Run(ctx context.Context, rows, columns uint16, in io.Reader, out io.Writer) error
	Close()
}

// ShellProtocol is what a connection to a shell is upgraded to: the bytes of a terminal, both ways, until either ends.
const ShellProtocol = "giggle-shell"

// shell opens a shell in a step of a build that failed, and makes the connection its terminal.
func (s *Server) shell(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	if r.Header.Get("Upgrade") != ShellProtocol {
		return nil, fault.New(fault.InvalidArgument, "A shell needs a connection that is upgraded to %s.",
			ShellProtocol)
	}
	q := r.URL.Query()
	size := func(name string, def uint16) uint16 {
		if n, err := strconv.ParseUint(q.Get(name), 10, 16); err == nil && n > 0 {
			return uint16(n)
		}
		return def
	}
	sh, err := s.cfg.OpenShell(r.Context(), who, q.Get("build"), q.Get("step"))
	if err != nil {
		return nil, err
	}
	defer sh.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // all that was to be said was
	if _, err := conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " +
		ShellProtocol + "\r\n\r\n")); err != nil {
		return nil, nil
	}
	// Not the request's context: that ends when the server has seen the end of what the client sends, and a client that
	// has sent all still wants the answer.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	if err := sh.Run(ctx, size("rows", 24), size("columns", 80), &untilGone{buffered, cancel}, conn); err != nil {
		_, _ = io.WriteString(conn, "\r\n"+fault.From(err).Message+"\r\n")
	}
	return nil, nil
}

// untilGone is a person's input: when the connection breaks, the shell is over.
type untilGone struct {
	io.Reader
	gone func()
}

func (u *untilGone) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // Read returns io.EOF itself
		u.gone()
	}
	return n, err
}
