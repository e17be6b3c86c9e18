// Command cloudsql is a service that asks a PostgreSQL for its version on each way that there is to one: by name and
// port, by the socket of a Cloud SQL instance, and with Google's connector. With arguments it asks once:
//
//	cloudsql VIA DSN
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"cloud.google.com/go/cloudsqlconn"
	"github.com/jackc/pgx/v5"
)

func main() {
	if len(os.Args) == 3 {
		text, err := ask(context.Background(), os.Args[1], os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(text)
		return
	}
	http.HandleFunc("/ask", func(w http.ResponseWriter, r *http.Request) {
		text, err := ask(r.Context(), r.FormValue("via"), r.FormValue("dsn"))
		if err != nil {
			text = "error: " + err.Error()
		}
		fmt.Fprintln(w, text)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+os.Getenv("PORT"), nil))
	os.Exit(1)
}

// ask connects, to the instance that via names with Google's connector, or for "" as the DSN says.
func ask(ctx context.Context, via, dsn string) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "", err
	}
	if via != "" {
		d, err := cloudsqlconn.NewDialer(ctx)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
		config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Dial(ctx, via) }
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	err = c.QueryRow(ctx, "select split_part(version(), ' ', 1) || ' for ' || current_user").Scan(&version)
	return version, err
}
