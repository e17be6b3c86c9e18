package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"giggle/api/giggle"
	"giggle/fault"
	"giggle/logging"
)

func (p *program) logs() *cobra.Command {
	var data string
	var follow, asJSON bool
	var limit int
	c := &cobra.Command{
		Use:   "logs [SERVICE]",
		Short: "Show what a service says: its requests and its containers' lines",
		Long: "Logs shows the newest log entries of a service, or of all services of the project, oldest first: one line for each\n" +
			"request that ended, and one for each line that a container wrote. With --json each line is a LogEntry of Cloud\n" +
			"Logging. The newest entries of each project are kept in memory, and gone when the platform stops.",
		Example: "  giggle logs jokes\n  giggle logs jokes -f --severity WARNING\n  giggle logs jokes --revision jokes-00002-abc --json | jq .httpRequest.latency",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"limit": {strconv.Itoa(limit)}, "follow": {strconv.FormatBool(follow)}}
			if len(args) > 0 {
				q.Set("service", args[0])
			}
			for _, name := range []string{"project", "region", "revision", "severity"} {
				q.Set(name, cmd.Flag(name).Value.String())
			}
			if q.Get("project") == "" {
				st, err := getStatus(cmd.Context(), data)
				if err != nil {
					return err
				}
				q.Set("project", st.Project)
			}
			body, err := ask(cmd.Context(), data, "/v1/logs", q)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return p.printLogs(body, asJSON, len(args) == 0)
		},
	}
	p.dataFlag(c, &data)
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what comes, until interrupted")
	f.BoolVar(&asJSON, "json", false, "print entries in JSON")
	f.IntVarP(&limit, "limit", "n", 50, "how many of the newest; 0 for all")
	f.String("project", "", "another project than the platform's first")
	f.String("region", "", "only of one region")
	f.String("revision", "", "only of one revision")
	f.String("severity", "", "only what is at least so bad: DEBUG, INFO, NOTICE, WARNING, ERROR, …")
	return c
}

// printLogs prints what the platform answers, a line for each entry.
func (p *program) printLogs(body io.Reader, asJSON, named bool) error {
	colours := p.onTerminal()
	in := bufio.NewReader(body)
	for {
		b, err := in.ReadBytes('\n')
		if err == io.EOF && len(b) == 0 { //nolint:errorlint // ReadBytes returns io.EOF itself
			return nil
		}
		if err != nil {
			return fault.New(fault.Unavailable, "The platform has stopped.")
		}
		var line giggle.LogLine
		if err := json.Unmarshal(b, &line); err != nil {
			return err
		}
		switch e := line.Entry; {
		case line.Error != nil:
			return fault.New(fault.Code(line.Error.Code), "%s", line.Error.Message)
		case e == nil:
			fmt.Fprintf(p.stderr, "giggle: %d entries came faster than they could be shown, and are left out\n", line.Lost)
		case asJSON:
			out, err := json.Marshal(e)
			if err != nil {
				return err
			}
			p.printf("%s\n", out)
		default:
			p.printf("%s\n", logLine(e, named, colours))
		}
	}
}

// onTerminal reports whether what is printed is seen by a person.
func (p *program) onTerminal() bool {
	f, ok := p.stdout.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// The colours of severities, as a terminal's escape codes.
const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

// logLine is an entry in one line for a person to read. Named says whose it is.
func logLine(e *logging.Entry, named, colours bool) string {
	out := []string{e.Time.Local().Format("2006-01-02 15:04:05.000")}
	who := e.Resource.Revision
	if !named {
		who = strings.TrimPrefix(who, e.Resource.Service+"-")
	}
	out = append(out, who)
	if r := e.Request; r != nil && e.Log == logging.Requests {
		out = append(out, fmt.Sprint(r.Status), r.Method, pathOf(r.URL), shortDuration(r.Latency))
		if e.Labels["cold_start"] == "true" {
			out = append(out, "cold")
		}
		if e.Text != "" {
			out = append(out, e.Text)
		}
	} else {
		if e.Severity != logging.Default {
			out = append(out, e.Severity.String())
		}
		out = append(out, payload(e))
	}
	line := printable(strings.Join(out, "  "))
	switch {
	case !colours:
		return line
	case e.Severity >= logging.Error:
		return red + line + plain
	case e.Severity >= logging.Warning:
		return yellow + line + plain
	case e.Log == logging.Requests || e.Log == logging.System:
		return dim + line + plain
	}
	return line
}

// payload is what an entry says: the text, or of an object the message and the other fields behind it.
func payload(e *logging.Entry) string {
	var fields map[string]json.RawMessage
	if e.JSON == nil || json.Unmarshal(e.JSON, &fields) != nil {
		return e.Text
	}
	var message string
	if json.Unmarshal(fields["message"], &message) != nil {
		return string(e.JSON)
	}
	delete(fields, "message")
	if len(fields) == 0 {
		return message
	}
	rest, err := json.Marshal(fields)
	if err != nil {
		return message
	}
	return message + "  " + string(rest)
}

// pathOf is a URL without its scheme and host.
func pathOf(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.RequestURI()
	}
	return s
}

func shortDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// printable shows what would move a terminal's cursor, or worse, as what it is.
func printable(s string) string {
	if strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case unicode.IsControl(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
