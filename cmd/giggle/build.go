package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"giggle/api/giggle"
	"giggle/fault"
	"giggle/shell"
)

func (p *program) build() *cobra.Command {
	c := &cobra.Command{
		Use:     "build",
		Short:   "Look into builds",
		Example: "  giggle build shell 0b0c1a1e-9c5f-4e6c-8a7e-0d6f3f1d2c4b",
	}
	c.AddCommand(p.buildShell())
	return c
}

func (p *program) buildShell() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "shell BUILD [STEP]",
		Short: "A shell in a failed step's container",
		Long: "Shell starts a shell in the image of the step that failed, with its environment, directory and identity, and the\n" +
			"workspace as the failure left it. STEP is another step that has run, by its id or number. The last five builds\n" +
			"that failed are kept for an hour, until the platform stops. `exit` or Ctrl-D leads back.",
		Example: "  giggle build shell 0b0c1a1e-9c5f-4e6c-8a7e-0d6f3f1d2c4b\n  giggle build shell 0b0c1a1e-9c5f-4e6c-8a7e-0d6f3f1d2c4b test\n" +
			"  echo 'ls -la' | giggle build shell 0b0c1a1e-9c5f-4e6c-8a7e-0d6f3f1d2c4b",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"build": {args[0]}}
			if len(args) > 1 {
				q.Set("step", args[1])
			}
			return p.terminal(cmd.Context(), data, "/v1/shell", q)
		},
	}
	p.dataFlag(c, &data)
	return c
}

// terminal connects this terminal, or whatever is there instead, with a shell of the platform's.
func (p *program) terminal(ctx context.Context, data, path string, q url.Values) error {
	abs, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	in, isFile := p.stdin.(*os.File)
	interactive := isFile && term.IsTerminal(int(in.Fd()))
	if interactive {
		if columns, rows, err := term.GetSize(int(in.Fd())); err == nil {
			q.Set("rows", strconv.Itoa(rows))
			q.Set("columns", strconv.Itoa(columns))
		}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(abs, shell.SocketName))
	if err != nil {
		return fault.New(fault.Unavailable,
			"No platform runs on %s, or you may not use it. Start one with `giggle up --data %s`.", abs, abs)
	}
	defer func() { _ = conn.Close() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://giggle"+path+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", giggle.ShellProtocol)
	if err := req.Write(conn); err != nil {
		return err
	}
	buffered := bufio.NewReader(conn)
	res, err := http.ReadResponse(buffered, req)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		var e giggle.Error
		if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e); err != nil || e.Code == 0 {
			return fault.New(fault.Unavailable, "The platform answers %s.", res.Status)
		}
		return fault.New(fault.Code(e.Code), "%s", e.Message)
	}
	if interactive {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(int(in.Fd()), before) }()
	}
	go func() {
		_, _ = io.Copy(conn, p.stdin)
		if u, ok := conn.(*net.UnixConn); ok {
			_ = u.CloseWrite()
		}
	}()
	_, err = io.Copy(p.stdout, buffered)
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}
