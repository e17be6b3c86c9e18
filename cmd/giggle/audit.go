package main

import (
	"bufio"
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
			"  giggle audit --json -n 0 | jq .protoPayload.methodName",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Set("limit", strconv.Itoa(limit))
			q.Set("refused", strconv.FormatBool(refused))
			q.Set("follow", strconv.FormatBool(follow))
			for _, name := range []string{"project", "principal", "method"} {
				q.Set(name, cmd.Flag(name).Value.String())
			}
			body, err := ask(cmd.Context(), data, "/v1/audit", q)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return p.printAudit(body, asJSON)
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
	return c
}

func (p *program) printAudit(body io.Reader, asJSON bool) error {
	in := bufio.NewScanner(body)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			audit.Entry
			giggle.Error
		}
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return err
		}
		switch {
		case e.Code != 0:
			return fault.New(fault.Code(e.Code), "%s", e.Message)
		case asJSON:
			p.printf("%s\n", in.Text())
		default:
			p.printf("%s\n", auditLine(e.Entry))
		}
	}
	return in.Err()
}

// auditLine is an entry in one line for a person to read.
func auditLine(e audit.Entry) string {
	who := e.Payload.Authentication.PrincipalEmail
	if who == "" {
		who = "anonymous"
	}
	service, _, _ := strings.Cut(e.Payload.ServiceName, ".")
	method := e.Payload.MethodName[strings.LastIndexByte(e.Payload.MethodName, '.')+1:]
	out := []string{e.Timestamp.Local().Format("2006-01-02 15:04:05"), who, service + "/" + method}
	if e.Payload.ResourceName != "" {
		out = append(out, e.Payload.ResourceName)
	}
	if st := e.Payload.Status; st.Code == 0 {
		out = append(out, "ok")
	} else {
		out = append(out, fault.Code(st.Code).String())
		if len(e.Payload.Authorization) > 0 && e.Refused() {
			out = append(out, e.Payload.Authorization[0].Permission)
		}
	}
	if e.Refused() {
		out = append(out, e.InsertID)
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
		return nil, fault.New(fault.Unavailable, "No platform runs on %s, or you may not use it. Start one with `giggle up --data %s`.", abs, abs)
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
