package shell

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// RunProxyName is the name of the program that `gcloud run services proxy` starts: the giggle binary by another name.
const RunProxyName = "cloud-run-proxy"

// drainTimeout is how long a proxy that ends waits for requests under way.
const drainTimeout = 5 * time.Second

// RunProxy forwards requests to one service on behalf of a caller who may invoke it.
type RunProxy struct {
	Service *url.URL // of the service: https://…
	Token   string   // ID token that the service's front end asks for; empty for none
	Log     *log.Logger
}

// Serve forwards what comes in on l, HTTP/1.1 and unencrypted HTTP/2, until ctx ends; then it lets requests end for a
// moment. It closes l.
func (p *RunProxy) Serve(ctx context.Context, l net.Listener) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: p.handler(), Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second, ErrorLog: p.Log}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := s.Shutdown(ending)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	if e := <-failed; err == nil && !errors.Is(e, http.ErrServerClosed) {
		err = e
	}
	return err
}

func (p *RunProxy) handler() http.Handler {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true, // WebSocket goes by HTTP/1.1 nevertheless
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true, // the body as the service sends it
	}
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      p.Log,
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host = p.Service.Scheme, p.Service.Host
			pr.Out.Host = p.Service.Host
			p.authorize(pr.Out.Header)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				p.Log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
			}
			http.Error(w, "cloud-run-proxy: the service can't be reached: "+err.Error(), http.StatusBadGateway)
		},
	}
}

// authorize adds the token. A request that has an Authorization of its own keeps it, for the app; Cloud Run then takes
// the token from the other header (https://cloud.google.com/run/docs/authenticating/service-to-service).
func (p *RunProxy) authorize(h http.Header) {
	const serverless = "X-Serverless-Authorization"
	h.Del(serverless)
	switch {
	case p.Token == "":
	case h.Get("Authorization") != "":
		h.Set(serverless, "Bearer "+p.Token)
	default:
		h.Set("Authorization", "Bearer "+p.Token)
	}
}
