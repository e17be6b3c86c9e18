// Package ask asks a PostgreSQL who it is.
package ask

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// Dial connects to a Cloud SQL instance, with Google's connector.
type Dial func(ctx context.Context, instance string) (net.Conn, error)

// Main asks once, by the arguments VIA and DSN, or without any serves, for each request of /ask?via=VIA&dsn=DSN. Via
// is the instance to dial, or "" to connect as the DSN says.
func Main(dial Dial) {
	if len(os.Args) == 3 {
		text, err := ask(context.Background(), dial, os.Args[1], os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(text)
		return
	}
	http.HandleFunc("/ask", func(w http.ResponseWriter, r *http.Request) {
		text, err := ask(r.Context(), dial, r.FormValue("via"), r.FormValue("dsn"))
		if err != nil {
			text = "error: " + err.Error()
		}
		fmt.Fprintln(w, text)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+os.Getenv("PORT"), nil))
	os.Exit(1)
}

func ask(ctx context.Context, dial Dial, via, dsn string) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "", err
	}
	if via != "" {
		config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, via) }
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	err = c.QueryRow(ctx, "select split_part(version(), ' ', 1) || ' for ' || current_user").Scan(&version)
	return version, err
}
