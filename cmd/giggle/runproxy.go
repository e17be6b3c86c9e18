package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"giggle/shell"
)

// runProxy is the program cloud-run-proxy, as gcloud 528 calls it: with Go's flags, not giggle's. It ends with 0 after
// the up-time, and gcloud then starts it again with a fresh token; any other end is not 0. gcloud knows the lines on
// standard error: it hides those with " proxies to " and " shutting down.", and explains "server error:".
func runProxy(ctx context.Context, args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet(shell.RunProxyName, flag.ContinueOnError)
	fs.SetOutput(stderr)
	host := fs.String("host", "", "URL of the service")
	token := fs.String("token", "", "ID token")
	bind := fs.String("bind", "127.0.0.1:8080", "address to listen on")
	life := fs.Duration("server-up-time", 0, "end after this long; 0 for never")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	service, err := url.Parse(*host)
	if err != nil || service.Scheme != "https" && service.Scheme != "http" || service.Host == "" || fs.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: -host must be the URL of a service, and there are no other arguments\n",
			shell.RunProxyName)
		return 2
	}
	l, err := net.Listen("tcp", *bind)
	if err != nil {
		fmt.Fprintf(stderr, "server error: %v\n", err)
		return 1
	}
	fmt.Fprintf(stderr, "%s proxies to %s\n", l.Addr(), *host)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		var end <-chan time.Time
		if *life > 0 {
			end = time.After(*life)
		}
		select {
		case sig := <-signals:
			cancel(exit(128 + int(sig.(syscall.Signal)))) // what Notify was asked for are all of this type
		case <-end:
			cancel(exit(0))
		case <-ctx.Done():
			return
		}
		fmt.Fprintln(stderr, "server is shutting down.")
	}()
	p := &shell.RunProxy{Service: service, Token: *token, Log: log.New(stderr, "", 0)}
	if err := p.Serve(ctx, l); err != nil {
		fmt.Fprintf(stderr, "server error: %v\n", err)
		return 1
	}
	var status exit
	if errors.As(context.Cause(ctx), &status) {
		return int(status)
	}
	return 1
}
