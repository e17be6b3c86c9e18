package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"giggle/api/giggle"
)

func (p *program) sql() *cobra.Command {
	c := &cobra.Command{
		Use:   "sql",
		Short: "Say which databases Cloud SQL instances are",
		Long: "Sql has the name of a Cloud SQL instance lead to a database that runs on this machine or near it. Services reach it\n" +
			"as they reach Cloud SQL: by the socket that `gcloud run deploy --add-cloudsql-instances` gives them, and with\n" +
			"Google's connectors for Go, Java, Node.js and Python. Their account needs roles/cloudsql.client on the project.",
		Example: "  giggle sql map giggle:europe-north1:jokes 127.0.0.1:5432\n" +
			"  gcloud run deploy jokes --source . --add-cloudsql-instances giggle:europe-north1:jokes\n" +
			"  # then, in the service: postgres://USER:PASSWORD@/DB?host=/cloudsql/giggle:europe-north1:jokes\n" +
			"  giggle sql map giggle:europe-north1:shop db.example.com:3306 --engine MYSQL_8_0\n" +
			"  giggle sql ls\n" +
			"  giggle sql unmap giggle:europe-north1:jokes",
	}
	c.AddCommand(p.sqlMap(), p.sqlList(), p.sqlUnmap())
	return c
}

func (p *program) sqlMap() *cobra.Command {
	var data, engine string
	c := &cobra.Command{
		Use:     "map PROJECT:REGION:INSTANCE HOST:PORT",
		Short:   "Have a Cloud SQL instance lead to a database",
		Long:    "Map has a Cloud SQL instance lead to HOST:PORT, as this machine dials it, from the next connection on.",
		Example: "  giggle sql map giggle:europe-north1:jokes 127.0.0.1:5432 --engine POSTGRES_15",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := json.Marshal(giggle.Database{Instance: args[0], Address: args[1], Version: engine})
			if err != nil {
				return err
			}
			res, err := call(cmd.Context(), data, http.MethodPut, "/v1/sql", nil, bytes.NewReader(body))
			if err != nil {
				return err
			}
			defer func() { _ = res.Close() }()
			var d giggle.Database
			if err := json.NewDecoder(res).Decode(&d); err != nil {
				return err
			}
			p.printf("%s (%s) leads to %s.\n", d.Instance, d.Version, d.Address)
			if d.Socket != "" {
				p.printf("Services have it at %s after:\n\n  gcloud run deploy … --add-cloudsql-instances %s\n", d.Socket,
					d.Instance)
			}
			return nil
		},
	}
	p.dataFlag(c, &data)
	c.Flags().StringVar(&engine, "engine", "",
		"database and version as Cloud SQL calls them: POSTGRES_15, MYSQL_8_0, SQLSERVER_2022_STANDARD, …; "+
			"empty to tell by the port")
	return c
}

func (p *program) sqlList() *cobra.Command {
	var data string
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List the Cloud SQL instances and where they lead",
		Example: "  giggle sql ls --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := ask(cmd.Context(), data, "/v1/sql", nil)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			var all []giggle.Database
			if err := json.NewDecoder(body).Decode(&all); err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(all)
			}
			t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "INSTANCE\tENGINE\tADDRESS")
			for _, d := range all {
				fmt.Fprintf(t, "%s\t%s\t%s\n", d.Instance, d.Version, d.Address)
			}
			return t.Flush()
		},
	}
	p.dataFlag(c, &data)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) sqlUnmap() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:     "unmap PROJECT:REGION:INSTANCE",
		Short:   "Forget where a Cloud SQL instance leads",
		Long:    "Unmap has a Cloud SQL instance lead nowhere, from the next connection on. The database itself stays as it is.",
		Example: "  giggle sql unmap giggle:europe-north1:jokes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := call(cmd.Context(), data, http.MethodDelete, "/v1/sql", url.Values{"instance": {args[0]}},
				nil)
			if err != nil {
				return err
			}
			p.printf("%s leads nowhere any more.\n", args[0])
			return res.Close()
		},
	}
	p.dataFlag(c, &data)
	return c
}
