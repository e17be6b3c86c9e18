// Package guard is the chain that every API call passes before its handler: who is the caller, may they, and is the API
// enabled in the project.
//
// It serves all api packages alike, REST and gRPC. What an RPC needs is data: each api package has a Rules table, and
// a route without a rule is refused. It decides nothing itself: identities and policies are package iam's, enabled
// services package projects's.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc"

	"giggle/fault"
	"giggle/iam"
	"giggle/logging/audit"
	"giggle/resource"
	"giggle/rest"
)

// Rule is what one RPC needs: a Permission, or one of Authenticated, Open and Absent.
type Rule struct {
	// Permission of the caller, such as "run.services.get".
	Permission string
	// On is the resource that the permission is needed on: text with {fields} of the request, such as "{parent}" or
	// "projects/{project}". {region} is the region in the host name (REGION-run.googleapis.com). Of several, with "|"
	// between them, the first whose fields are all there: "{name}|projects/{project_id}".
	On string
	// Reads means that the RPC changes nothing, though neither its HTTP method nor its name says so.
	Reads bool
	// Data means that the RPC is about data in a resource (an object, a token), not about the resource.
	Data bool
	// Authenticated means that any authenticated caller may, or that the handler decides who may.
	Authenticated bool
	// Open means that the RPC needs no credentials at all.
	Open bool
	// Public means that the permission is also asked for who shows no credentials: a policy may give it to allUsers.
	Public bool
	// Absent means that there is no handler: an authenticated caller is told that the RPC is not implemented.
	Absent bool
}

// Rules are the rules of an API by full RPC name.
type Rules map[string]Rule

// With returns the rules with others over them.
func (r Rules) With(others Rules) Rules {
	out := maps.Clone(r)
	maps.Copy(out, others)
	return out
}

// Absent returns rules for all RPCs of some services, none of which is implemented. The API's own rules are put over
// them: what is implemented and has no rule stays out of reach.
func Absent(services ...*grpc.ServiceDesc) Rules {
	out := make(Rules)
	for _, d := range services {
		for _, m := range d.Methods {
			out["/"+d.ServiceName+"/"+m.MethodName] = Rule{Absent: true}
		}
		for _, m := range d.Streams {
			out["/"+d.ServiceName+"/"+m.StreamName] = Rule{Absent: true}
		}
	}
	return out
}

// Authorizer is the identity side: *iam.IAM.
type Authorizer interface {
	Credential(ctx context.Context, header, host string) (iam.Credential, error)
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
}

// Projects is the project side.
type Projects interface {
	// Find returns the project that is named by id or number, or NotFound.
	Find(ref string) (resource.Project, error)
	// CheckEnabled fails when a service is not enabled in a project.
	CheckEnabled(project, service string) error
}

// Recorder keeps the audit log: *audit.Log.
type Recorder interface {
	Record(e audit.Event) error
	Begin(ctx context.Context, e audit.Event) (context.Context, *audit.Pending)
}

// Config is what a Guard needs.
type Config struct {
	Identity Authorizer
	Projects Projects
	Audit    Recorder
	Log      *slog.Logger
	// Find returns the project of a resource whose name may leave it open, "projects/-/serviceAccounts/EMAIL" or
	// "projects/_/buckets/NAME", and the one of its ids that policies know it by. It fails with NotFound.
	Find func(ctx context.Context, collection, id string) (project, canonical string, err error)
}

// Guard makes the chains of one platform.
type Guard struct{ Config }

// New returns a Guard.
func New(cfg Config) *Guard { return &Guard{cfg} }

// API is what the guard knows of one API.
type API struct {
	Host    string // "run.googleapis.com"
	Service string // its name in Service Usage, or "" for an API that can't be disabled
	Rules   Rules
	// Denied puts a refusal into the words of the API, where it has words of its own. It may be nil.
	Denied func(e *fault.Error, permission, resource string)
	// Credential is what a request shows in place of an OAuth token, if the API knows such a thing: a signature in a URL,
	// say. It may be nil.
	Credential func(ctx context.Context, r *http.Request) (c iam.Credential, found bool, err error)
}

// admit lets a call pass whose message is known, or says why not.
func (g *Guard) admit(ctx context.Context, call *rest.Call, rule compiled, api API) error {
	if call.Admitted {
		return nil
	}
	if call.Caller == nil {
		if err := g.authenticate(ctx, call, rule.Rule, api); err != nil {
			return err
		}
	}
	if rule.Permission == "" {
		if len(rule.on) > 0 {
			call.Resource, _ = g.resource(ctx, rule.on, call) // the handler says what is wrong with it
		}
		return nil
	}
	on, err := g.resource(ctx, rule.on, call)
	if err != nil {
		return err
	}
	return g.authorise(ctx, call, rule.Rule, api, on)
}

// authorise fails when the caller lacks the rule's permission on a resource, or the API is not enabled in its project.
func (g *Guard) authorise(ctx context.Context, call *rest.Call, rule Rule, api API, on string) error {
	call.Resource = on
	if err := g.Identity.Authorize(ctx, Caller(rest.WithCall(ctx, call)), rule.Permission, on); err != nil {
		if f := new(fault.Error); api.Denied != nil && errors.As(err, &f) && f.Code == fault.PermissionDenied {
			e := *f
			api.Denied(&e, rule.Permission, on)
			return &e
		}
		return err
	}
	if project := projectIn(on); api.Service != "" && project != "" {
		return g.Projects.CheckEnabled(project, api.Service)
	}
	return nil
}

// projectIn is the project of a resource, or "".
func projectIn(name string) string {
	rest, ok := strings.CutPrefix(name, "projects/")
	if !ok {
		return ""
	}
	project, _, _ := strings.Cut(rest, "/")
	return project
}

// authenticate writes the caller into the call, and fails when that is not known or their token is not for this RPC. An
// RPC without a rule is refused to everybody.
func (g *Guard) authenticate(ctx context.Context, call *rest.Call, rule Rule, api API) error {
	if call.HTTP == nil {
		return errors.New("guard: a call without its HTTP request")
	}
	c, err := g.credential(ctx, call.HTTP, api)
	who := c.Principal
	call.Caller = who
	if err != nil {
		return err
	}
	if who == iam.Anonymous && rule.Public && rule.Permission != "" {
		return nil
	}
	if who == iam.Anonymous {
		return iam.Unauthenticated("CREDENTIALS_MISSING")
	}
	call.Account = who.Member
	switch {
	case rule.Absent:
		return fault.New(fault.Unimplemented, "Method %s is not implemented by Giggle.", call.Method)
	case rule.Permission == "" && !rule.Authenticated:
		return fault.New(fault.PermissionDenied, "%s has no rule that says who may call it.", call.Method)
	}
	if err := c.CheckScope(api.Host, call.Method, reads(call, rule)); err != nil {
		return err
	}
	// People's calls name the project whose quota they use.
	if project := call.HTTP.Header.Get("X-Goog-User-Project"); project != "" {
		p, err := g.Projects.Find(project)
		if err == nil {
			err = g.Identity.Authorize(ctx, who, "serviceusage.services.use", p.String())
		}
		if err != nil {
			e := fault.New(fault.PermissionDenied,
				"Caller does not have required permission to use project %.60s. Grant the caller the roles/serviceusage.serviceUsageConsumer role.", project)
			e.Reason, e.Domain = "USER_PROJECT_DENIED", "googleapis.com"
			e.Cause, e.Help = err, fault.From(err).Help
			return e
		}
	}
	return nil
}

func (g *Guard) credential(ctx context.Context, r *http.Request, api API) (iam.Credential, error) {
	if api.Credential != nil {
		if c, found, err := api.Credential(ctx, r); found || err != nil {
			return c, err
		}
	}
	return g.Identity.Credential(ctx, r.Header.Get("Authorization"), r.Host)
}

// Caller returns who made the call that ctx belongs to.
func Caller(ctx context.Context) iam.Principal {
	if call := rest.CallFrom(ctx); call != nil {
		if p, ok := call.Caller.(iam.Principal); ok {
			return p
		}
	}
	return iam.Anonymous
}

// Canonical names the project of a resource by its id and a service account by its e-mail address, as policies do,
// whatever else the caller called them. An unknown project stays as it is: no caller has a role there, and none is told
// whether it exists. A name that a handler could read as another than the one asked about is InvalidArgument.
func (g *Guard) Canonical(ctx context.Context, name string) (string, error) {
	rest, ok := strings.CutPrefix(name, "projects/")
	if !ok {
		return name, nil
	}
	// What is behind an object's bucket is the object's name, as its owner likes it: up to 1,024 bytes, with any
	// slashes and dots (https://cloud.google.com/storage/docs/objects#naming). Nothing is looked up by it.
	object := ""
	if i := strings.Index(rest, "/objects/"); i > 0 && strings.Contains(rest[:i], "/buckets/") {
		rest, object = rest[:i], rest[i:]
	}
	if len(object) > len("/objects/")+resource.MaxName {
		return "", fault.New(fault.InvalidArgument, "The name of the object is longer than %d bytes.", resource.MaxName)
	}
	if len(rest) > resource.MaxName {
		return "", fault.New(fault.InvalidArgument, "%.100q… is longer than the %d bytes of a resource name.", name,
			resource.MaxName)
	}
	for _, segment := range strings.Split(rest, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return "", fault.New(fault.InvalidArgument,
				"%.100q is not a resource name: it has an empty segment, or one of dots.", name)
		}
	}
	ref, tail, _ := strings.Cut(rest, "/")
	open := ref == "-" || ref == "_"
	if p, err := g.Projects.Find(ref); err == nil && !open {
		ref = p.ID
	}
	if part := strings.SplitN(tail, "/", 3); open || part[0] == "serviceAccounts" && len(part) > 1 {
		part = append(part, "")[:max(2, len(part))]
		project, id, err := g.Find(ctx, part[0], part[1])
		switch {
		case err == nil && (open || project == ref): // else it isn't in that project, as the handler will say
			ref, part[1] = project, id
			tail = strings.Join(part, "/")
		case err != nil && (open || !fault.Is(err, fault.NotFound)):
			return "", err
		}
	}
	if tail != "" {
		tail = "/" + tail
	}
	return "projects/" + ref + tail + object, nil
}

// Region returns the region in a host such as europe-north1-run.googleapis.com, or "" for run.googleapis.com.
func Region(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	name, _, _ := strings.Cut(host, ".")
	i := strings.LastIndexByte(name, '-')
	if i < 0 || !resource.IsRegion(name[:i]) {
		return ""
	}
	return name[:i]
}
