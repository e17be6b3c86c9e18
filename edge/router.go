package edge

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
)

// Routes is where the Router sends each class of host. A nil handler means that the class is not served.
type Routes struct {
	// by host without region: "run.googleapis.com", "accounts.google.com", "registry.ollama.ai"
	API      map[string]http.Handler
	Service  http.Handler // *.run.app, *.localhost
	Registry http.Handler // *-docker.pkg.dev, gcr.io, *.gcr.io
	Storage  http.Handler // storage.googleapis.com; a bucket in the host is moved into the path
	Console  http.Handler // console.cloud.google.com
}

// Router picks the handler of a request by its :authority or Host, and by nothing else. It is immutable.
type Router struct{ to Routes }

var _ http.Handler = (*Router)(nil)

// NewRouter returns a Router for routes.
func NewRouter(routes Routes) *Router { return &Router{routes} }

// overridePrefix is where endpoint overrides point that can only name an address:
// CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBUILD=http://127.0.0.1:7180/_/cloudbuild.googleapis.com/
const overridePrefix = "/_/"

// Serves reports whether the Router has a handler for a host.
func (rt *Router) Serves(host string) bool { return rt.handler(ParseName(host)) != nil }

// owns reports whether a request for the host is ours to answer: served, or one of Google's that we have not and say
// so.
func (rt *Router) owns(host string) bool { return rt.Serves(host) || OwnName(CleanHost(host)) }

func (rt *Router) handler(n Name) http.Handler {
	switch n.Class {
	case API:
		return rt.to.API[n.API]
	case Service:
		return rt.to.Service
	case Registry:
		return rt.to.Registry
	case Storage:
		return rt.to.Storage
	case Console:
		return rt.to.Console
	}
	return rt.to.API[n.Host]
}

// ServeHTTP sends the request on. A request for another host than its TLS connection was made for gets a 421, so that
// a client that coalesces connections opens its own.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := ParseName(r.Host)
	if r.TLS != nil && r.TLS.ServerName != "" && CleanHost(r.TLS.ServerName) != n.Host {
		http.Error(w, "This connection was made for another host.", http.StatusMisdirectedRequest)
		return
	}
	if h := rt.handler(n); h != nil {
		if n.Bucket != "" {
			r = bucketInPath(r, n.Bucket)
		}
		if n.Class != Service { // a service's own requests may take as long as it likes
			r = rest.Paced(w, r)
		}
		h.ServeHTTP(w, r)
		rest.Drain(w, r)
		return
	}
	if isLocal(n.Host) {
		if host, r2, ok := overridden(r); ok {
			if rt.handler(ParseName(host)) != nil {
				r2.TLS = nil // the host of the path is not the one of the connection
				rt.ServeHTTP(w, r2)
				return
			}
			n.Host = host
		}
	}
	err := fault.New(fault.NotFound, "Giggle does not serve the host %q.", n.Host)
	if n.Class == API {
		err = fault.New(fault.Unimplemented, "The API %s is not implemented by Giggle.", n.API)
		if region := rt.regionOf(n.Host); region != "" {
			err = fault.From(resource.CheckRegion(region))
		}
	}
	rest.WriteError(w, r, rest.NewFailure("", err))
}

// regionOf is what stands in the place of a region before the name of an API that is served, where it is none: the
// "mars" of mars-run.googleapis.com.
func (rt *Router) regionOf(host string) string {
	for api := range rt.to.API {
		if region, ok := strings.CutSuffix(host, "-"+api); ok && !resource.IsRegion(region) {
			return region
		}
	}
	return ""
}

// isLocal reports whether host is the machine itself and no product.
func isLocal(host string) bool {
	if host == "localhost" {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// overridden takes the host out of the path of /_/HOST/….
func overridden(r *http.Request) (host string, out *http.Request, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), overridePrefix)
	if !ok {
		return "", nil, false
	}
	host, path, _ := strings.Cut(rest, "/")
	if host = CleanHost(host); host == "" || isLocal(host) {
		return "", nil, false
	}
	out, ok = withPath(r, "/"+path)
	if ok {
		out = out.WithContext(context.WithValue(asked(r), baseKey{}, Base(r)+overridePrefix+host))
		out.Host = host
	}
	return host, out, ok
}

type (
	baseKey  struct{}
	askedKey struct{}
)

// asked is the context of r with what r asks for now.
func asked(r *http.Request) context.Context {
	host, path := Asked(r)
	return context.WithValue(r.Context(), askedKey{}, [2]string{host, path})
}

// Asked returns the host and the escaped path that the client of r has asked for, before a bucket or another host was
// moved: for what it has signed.
func Asked(r *http.Request) (host, path string) {
	if was, ok := r.Context().Value(askedKey{}).([2]string); ok {
		return was[0], was[1]
	}
	return r.Host, r.URL.EscapedPath()
}

// Base returns what stands before the path in the URLs that the client of r uses, such as
// "https://storage.googleapis.com" or "http://127.0.0.1:7180/_/storage.googleapis.com", without a slash at the end:
// for answers that hold absolute URLs.
func Base(r *http.Request) string {
	if base, ok := r.Context().Value(baseKey{}).(string); ok {
		return base
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func bucketInPath(r *http.Request, bucket string) *http.Request {
	if out, ok := withPath(r, "/"+bucket+r.URL.EscapedPath()); ok {
		out = out.WithContext(asked(r))
		out.Host = "storage.googleapis.com"
		return out
	}
	return r
}

// withPath returns a shallow copy of r with another escaped path.
func withPath(r *http.Request, escaped string) (*http.Request, bool) {
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, false
	}
	out := new(http.Request)
	*out = *r
	u := *r.URL
	u.Path, u.RawPath = plain, escaped
	out.URL = &u
	return out, true
}
