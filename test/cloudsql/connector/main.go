// Command connector is a service that asks a PostgreSQL who it is, with Google's connector.
package main

import (
	"context"
	"net"

	"cloud.google.com/go/cloudsqlconn"

	"giggle/test/cloudsql/ask"
)

func main() {
	ask.Main(func(ctx context.Context, instance string) (net.Conn, error) {
		d, err := cloudsqlconn.NewDialer(ctx)
		if err != nil {
			return nil, err
		}
		return d.Dial(ctx, instance) // the dialer ends with the program
	})
}
