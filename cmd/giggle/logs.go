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
	var build string
	c := &cobra.Command{
		Use:   "logs [SERVICE | --build BUILD]",
		Short: "Show what a service says, its requests and its containers' lines, or what a build says",
		Long: "Logs shows the newest log entries of a service, or of all services of the project, oldest first: one line for each\n" +
			"request that ended, and one for each line that a container wrote. With --build it shows those of a build, by its id:\n" +
			"one for each line of its log, unless the build's options say GCS_ONLY or NONE. With --json each line is a LogEntry of\n" +
			"Cloud Logging. The newest entries of the services and of the builds of each project are kept in memory, and gone when\n" +
			"the platform stops.",
		Example: "  giggle logs jokes\n  giggle logs jokes -f --severity WARNING\n  giggle logs jokes --revision jokes-00002-abc --json | jq .httpRequest.latency\n" +
			"  giggle logs --filter 'httpRequest.status>=500 AND httpRequest.latency>1s'\n" +
			"  giggle logs -f --build 0b0c1a1e-9c5f-4e6c-8a7e-0d6f3f1d2c4b",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if build != "" && (len(args) > 0 || cmd.Flag("revision").Changed || cmd.Flag("region").Changed) {
				return usage{fault.New(fault.InvalidArgument,
					"name a build, or a service with its revision and region")}
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}, "follow": {strconv.FormatBool(follow)}}
			if len(args) > 0 {
				q.Set("service", args[0])
			}
			for _, name := range []string{"project", "region", "revision", "build", "severity", "filter"} {
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
			named, colours := len(args) == 0, p.onTerminal()
			return p.printEntries(body, asJSON, func(e *logging.Entry) string { return logLine(e, named, colours) })
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
	f.StringVar(&build, "build", "", "of a build, by its id, in place of services")
	f.String("severity", "", "only what is at least so bad: DEBUG, INFO, NOTICE, WARNING, ERROR, …")
	f.String("filter", "", "only what a query of the Logging query language wants")
	return c
}

// printEntries prints the entries that the platform answers, each in JSON or in the line that text makes of it.
func (p *program) printEntries(body io.Reader, asJSON bool, text func(e *logging.Entry) string) error {
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
			fmt.Fprintf(p.stderr, "giggle: %d entries came faster than they could be shown, and are left out\n",
				line.Lost)
		case asJSON:
			out, err := json.Marshal(e)
			if err != nil {
				return err
			}
			p.printf("%s\n", out)
		default:
			p.printf("%s\n", text(e))
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
	if who := e.Resource.Labels["revision_name"]; who != "" {
		if !named {
			who = strings.TrimPrefix(who, e.Resource.Labels["service_name"]+"-")
		}
		out = append(out, who)
	}
	if r := e.Request; r != nil && e.Log == logging.Requests {
		out = append(out, fmt.Sprint(r.Status), r.Method, pathOf(r.URL), shortDuration(r.Latency))
		if e.Labels["cold_start"] == "true" {
			out = append(out, "cold")
		}
		if e.Text != "" {
			out = append(out, e.Text)
		}
	} else {
		if e.Severity != logging.Default && e.Log != logging.Builds { // a build's lines have no severity of their own
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
