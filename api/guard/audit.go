package guard

import (
	"net"
	"net/http"
	"strings"

	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/rest"
)

// record writes a call that reads, or that never got to its handler, to the audit log if it was refused, or tried to
// change something.
func (g *Guard) record(host string, call *rest.Call, rule Rule, err error) {
	if call.HTTP == nil { // refused already: it came by no wire that we know
		return
	}
	if refused(fault.From(err)) || !reads(call, rule) {
		g.logged(call, g.Audit.Record(event(host, call, rule, err)))
	}
}

// logged says that an entry could not be written. The answer goes out: the change has happened, and where it was in the
// store, the entry is there, too.
func (g *Guard) logged(call *rest.Call, err error) {
	if err != nil {
		g.Log.Error("a call is missing in the audit log", "request", call.ID, "rpc", call.Method, "err", err)
	}
}

func refused(f *fault.Error) bool {
	return f != nil && (f.Code == fault.PermissionDenied || f.Code == fault.Unauthenticated)
}

// event is a call as the audit log takes it, with what came of it.
func event(host string, call *rest.Call, rule Rule, err error) audit.Event {
	on := call.Resource
	who, _ := call.Caller.(iam.Principal)
	e := audit.Event{
		RequestID:  call.ID,
		Service:    host,
		Method:     call.Method,
		Project:    projectIn(on),
		Resource:   on,
		Permission: rule.Permission,
		Data:       rule.Data,
		Member:     who.Member,
	}
	e.Caller, _, _ = net.SplitHostPort(call.HTTP.RemoteAddr)
	e.UserAgent = call.HTTP.UserAgent()
	f := fault.From(err)
	if refused(f) && f.Metadata["permission"] != "" { // a handler looked closer
		e.Permission, e.Resource = f.Metadata["permission"], f.Metadata["resource"]
		e.Project = projectIn(e.Resource)
	}
	if f != nil {
		e.Code, e.Message = int32(f.Code), f.Message
		if f.Code == fault.InvalidArgument { // its text may quote a value, and values may be secrets
			e.Message = "Invalid argument."
			if len(f.Fields) > 0 {
				e.Message = "Invalid argument: " + f.Fields[0].Path
			}
		}
	}
	return e
}

// readers are the verbs that RPCs begin with when they change nothing.
var readers = []string{
	"get", "list", "search", "query", "test", "batchget", "lint", "fetch", "count", "check", "export", "wait",
}

// reads reports whether a call changes nothing: by its rule, by its HTTP method, or by the verb in its name where
// everything is a POST ("/google.iam.admin.v1.IAM/GetRole", "cloudresourcemanager.projects.getIamPolicy").
func reads(call *rest.Call, rule Rule) bool {
	if rule.Reads || call.HTTP.Method == http.MethodGet || call.HTTP.Method == http.MethodHead {
		return true
	}
	verb := strings.ToLower(call.Method[strings.LastIndexAny(call.Method, "./")+1:])
	for _, r := range readers {
		if strings.HasPrefix(verb, r) {
			return true
		}
	}
	return false
}
