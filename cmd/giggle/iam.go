package main

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"giggle/api/giggle"
	"giggle/fault"
	"giggle/logging/audit"
)

func (p *program) iam() *cobra.Command {
	c := &cobra.Command{
		Use:     "iam",
		Short:   "Ask who may do what, and why",
		Example: "  giggle iam explain you@example.com run.services.create projects/giggle",
	}
	c.AddCommand(p.iamExplain())
	return c
}

func (p *program) iamExplain() *cobra.Command {
	var data string
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain {PRINCIPAL PERMISSION RESOURCE | REQUEST_ID}",
		Short: "Say why a permission is given or refused",
		Long: "Explain prints whether a principal has a permission on a resource, by which binding, and which bindings missed it and\n" +
			"why: the role lacks the permission, the condition is not met by these values. For a refusal it prints what would\n" +
			"grant it. Of a request in the audit log (`giggle audit`, or the request id of an error) it explains the permission\n" +
			"that the request needed, by the policies as they are now. The exit status is 1 for a refusal.",
		Example: "  giggle iam explain tortune@giggle.iam.gserviceaccount.com run.services.update projects/giggle/locations/europe-north1/services/jokes\n" +
			"  giggle iam explain anonymous run.routes.invoke projects/giggle/locations/europe-north1/services/jokes\n" +
			"  giggle iam explain 0b0c1a1e-9c5f-4e6c-8a7e-0d6f3f1d2c4b",
		Args: cobra.RangeArgs(1, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			switch len(args) {
			case 1:
				q.Set("request", args[0])
			case 3:
				q.Set("principal", args[0])
				q.Set("permission", args[1])
				q.Set("resource", args[2])
			default:
				return usage{fault.New(fault.InvalidArgument,
					"name a principal, a permission and a resource, or the id of a request")}
			}
			body, err := ask(cmd.Context(), data, "/v1/explain", q)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			var e giggle.Explanation
			if err := json.NewDecoder(body).Decode(&e); err != nil {
				return err
			}
			if asJSON {
				err = p.printJSON(e)
			} else {
				p.printExplanation(e)
			}
			if err == nil && !e.Allowed {
				return exit(1)
			}
			return err
		},
	}
	p.dataFlag(c, &data)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) printExplanation(e giggle.Explanation) {
	if e.Entry != nil {
		p.printf("Request: %s\n", auditLine(e.Entry))
		if call, err := audit.PayloadOf(e.Entry); err == nil && len(call.Authorization) > 0 {
			p.printf("As policies are now: ")
		}
	}
	p.printf("%s\n", strings.TrimRight(e.Text, "\n"))
}
