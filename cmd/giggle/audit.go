package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"giggle/api/giggle"
	"giggle/fault"
	"giggle/logging"
	"giggle/logging/audit"
	"giggle/shell"
)

func (p *program) audit() *cobra.Command {
	var data string
	var follow, refused, asJSON bool
	q := url.Values{}
	var limit int
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, and what was refused",
		Long: "Audit shows the audit log: every call that changed something or tried to, and every refusal, oldest first. With\n" +
			"--json each line is an entry in the form of Cloud Audit Logs. The id at the end of a refusal is what\n" +
			"`giggle iam explain` takes.",
		Example: "  giggle audit\n  giggle audit -f --refused\n  giggle audit --principal tortune@giggle.iam.gserviceaccount.com --method SetIamPolicy\n" +
			"  giggle audit --filter 'protoPayload.status.code=7 AND timestamp>=\"2026-11-30\"'\n" +
			"  giggle audit --json -n 0 | jq .protoPayload.methodName",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Set("limit", strconv.Itoa(limit))
			q.Set("refused", strconv.FormatBool(refused))
			q.Set("follow", strconv.FormatBool(follow))
			for _, name := range []string{"project", "principal", "method", "filter"} {
				q.Set(name, cmd.Flag(name).Value.String())
			}
			body, err := ask(cmd.Context(), data, "/v1/audit", q)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return p.printEntries(body, asJSON, auditLine)
		},
	}
	p.dataFlag(c, &data)
	f := c.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what comes, until interrupted")
	f.BoolVar(&refused, "refused", false, "only what was refused")
	f.BoolVar(&asJSON, "json", false, "print entries in JSON")
	f.IntVarP(&limit, "limit", "n", 50, "how many of the newest; 0 for all")
	f.String("project", "", "only of one project")
	f.String("principal", "", "only of one principal, by e-mail address")
	f.String("method", "", "only methods with this in their name")
	f.String("filter", "", "only what a query of the Logging query language wants")
	return c
}

// auditLine is an entry in one line for a person to read.
func auditLine(e *logging.Entry) string {
	call, err := audit.PayloadOf(e)
	if err != nil {
		return err.Error()
	}
	who := call.Authentication.PrincipalEmail
	if who == "" {
		who = "anonymous"
	}
	service, _, _ := strings.Cut(call.ServiceName, ".")
	method := call.MethodName[strings.LastIndexByte(call.MethodName, '.')+1:]
	out := []string{e.Time.Local().Format("2006-01-02 15:04:05"), who, service + "/" + method}
	if call.ResourceName != "" {
		out = append(out, call.ResourceName)
	}
	if st := call.Status; st.Code == 0 {
		out = append(out, "ok")
	} else {
		out = append(out, fault.Code(st.Code).String())
		if len(call.Authorization) > 0 && call.Refused() {
			out = append(out, call.Authorization[0].Permission)
		}
	}
	if call.Refused() {
		out = append(out, e.ID)
	}
	return strings.Join(out, "  ")
}

// ask sends a GET to the platform's own API. The caller closes the body.
func ask(ctx context.Context, data, path string, q url.Values) (io.ReadCloser, error) {
	return call(ctx, data, http.MethodGet, path, q, nil)
}

// call makes a call of the platform's own API on a data directory's socket, and returns the answer's body.
func call(ctx context.Context, data, method, path string, q url.Values, content io.Reader) (io.ReadCloser, error) {
	abs, err := filepath.Abs(data)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://giggle"+path+"?"+q.Encode(), content)
	if err != nil {
		return nil, err
	}
	res, err := shell.Dial(abs).Do(req)
	if err != nil {
		return nil, fault.New(fault.Unavailable,
			"No platform runs on %s, or you may not use it. Start one with `giggle up --data %s`.", abs, abs)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	var e giggle.Error
	err = errors.Join(json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e), res.Body.Close())
	if err != nil || e.Code == 0 {
		return nil, fault.New(fault.Unavailable, "The platform answers %s.", res.Status)
	}
	return nil, fault.New(fault.Code(e.Code), "%s", e.Message)
}
