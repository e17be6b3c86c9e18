// Package storagejson is the wire form of Cloud Storage: the JSON API v1 with its uploads and downloads, and of the XML
// API objects by path, listings, uploads of parts and V4 signed URLs.
//
// It translates for package giggle/storage and decides nothing itself. ACLs, life cycle, retention,
// customer keys and notifications are answered with 405 where a client asks for them. Rules:
// https://cloud.google.com/storage/docs/json_api and …/docs/performing-resumable-uploads.
package storagejson

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"giggle/api/guard"
	"giggle/api/policies"
	"giggle/fault"
	"giggle/iam"
	"giggle/resource"
	"giggle/rest"
	"giggle/storage"
)

// Config is what a Server needs.
type Config struct {
	Storage *storage.Storage
	Pages   *resource.Pages
	Project resource.FindProject
	// Allow fails when the caller of ctx lacks a permission on an object: for requests that read one and write another.
	Allow func(ctx context.Context, permission, bucket, object string) error
	// Policies keeps the policies on buckets; nil answers that there are none.
	Policies policies.Policies
	// Signatures verifies what service accounts have signed: *iam.IAM.
	Signatures interface {
		CheckSignature(ctx context.Context, email string, message, signature []byte) (iam.Credential, error)
		CheckMember(ctx context.Context, member string) error
	}
	Now func() time.Time
	// Asked returns the host and the escaped path that the client has asked for, if something has changed them since; nil
	// takes those of the request.
	Asked func(r *http.Request) (host, path string)
	// Base returns the scheme, host and path prefix of the URLs that the client uses; nil takes the Host.
	Base func(r *http.Request) string
}

// Server serves the API.
type Server struct {
	Config
}

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

// onBucket is where the permissions on a bucket and its objects are needed. Policies know it by its project:
// the guard asks storage.BucketProject which that is.
const onBucket = "projects/_/buckets/{bucket}"

// onObject is where the permissions on one object are needed: its bucket's policy counts, and conditions see its name.
const (
	onObject = onBucket + "/objects/{object}"
	onCopy   = "projects/_/buckets/{destinationBucket}/objects/{destinationObject}"
)

// Rules says what each RPC needs.
var Rules = guard.Rules{
	"storage.buckets.list":               {Permission: "storage.buckets.list", On: "projects/{project}"},
	"storage.buckets.insert":             {Permission: "storage.buckets.create", On: "projects/{project}"},
	"storage.buckets.get":                {Permission: "storage.buckets.get", On: onBucket, Public: true},
	"storage.buckets.getStorageLayout":   {Permission: "storage.buckets.get", On: onBucket},
	"storage.buckets.patch":              {Permission: "storage.buckets.update", On: onBucket},
	"storage.buckets.update":             {Permission: "storage.buckets.update", On: onBucket},
	"storage.buckets.delete":             {Permission: "storage.buckets.delete", On: onBucket},
	"storage.buckets.getIamPolicy":       {Permission: "storage.buckets.getIamPolicy", On: onBucket},
	"storage.buckets.setIamPolicy":       {Permission: "storage.buckets.setIamPolicy", On: onBucket},
	"storage.buckets.testIamPermissions": {Authenticated: true},
	"storage.managedFolders.list":        {Permission: "storage.managedFolders.list", On: onBucket},
	"storage.folders.list":               {Permission: "storage.folders.list", On: onBucket},
	"storage.xml.put":                    {Data: true, Authenticated: true, On: onObject},
	"storage.xml.post":                   {Data: true, Authenticated: true, On: onObject},
	"storage.xml.delete":                 {Data: true, Authenticated: true, On: onObject},
	"storage.projects.hmacKeys":          {Absent: true},
	"storage.batch":                      {Authenticated: true, Reads: true}, // each call is asked about itself
	"storage.unknown":                    {Authenticated: true},
	"storage.objects.list":               {Data: true, Permission: "storage.objects.list", On: onBucket, Public: true},
	"storage.objects.get":                {Data: true, Permission: "storage.objects.get", On: onObject, Public: true},
	// the name may be in the body: see mayInsert
	"storage.objects.insert":  {Data: true, Authenticated: true},
	"storage.objects.patch":   {Data: true, Permission: "storage.objects.update", On: onObject},
	"storage.objects.update":  {Data: true, Permission: "storage.objects.update", On: onObject},
	"storage.objects.delete":  {Data: true, Permission: "storage.objects.delete", On: onObject},
	"storage.objects.copy":    {Data: true, Permission: "storage.objects.create", On: onCopy},
	"storage.objects.rewrite": {Data: true, Permission: "storage.objects.create", On: onCopy},
	"storage.objects.move":    {Data: true, Permission: "storage.objects.move", On: onObject},
	"storage.objects.restore": {Data: true, Permission: "storage.objects.restore", On: onObject},
	"storage.objects.compose": {Data: true, Permission: "storage.objects.create", On: onObject},
}

// Register adds the API's routes. The Mux should have WriteError for its errors, so that unknown paths speak the same
// dialect.
func (s *Server) Register(m *rest.Mux) {
	const b, o = "/storage/v1/b/{bucket}", "/storage/v1/b/{bucket}/o/{object}"
	handle := func(method, pattern, rpc string, fn rest.Func, options ...rest.RouteOption) {
		m.HandleFunc(method, pattern, rpc, fn, append(options, rest.Errors(WriteError), rest.Query(params[rpc]...))...)
	}
	handle("GET", "/storage/v1/b", "storage.buckets.list", s.listBuckets)
	handle("POST", "/storage/v1/b", "storage.buckets.insert", s.insertBucket)
	handle("GET", b, "storage.buckets.get", s.getBucket)
	handle("GET", b+"/storageLayout", "storage.buckets.getStorageLayout", s.storageLayout)
	handle("PATCH", b, "storage.buckets.patch", s.patchBucket)
	handle("PUT", b, "storage.buckets.update", s.updateBucket)
	handle("DELETE", b, "storage.buckets.delete", s.deleteBucket)
	handle("GET", b+"/iam", "storage.buckets.getIamPolicy", s.ifPolicies(s.getPolicy))
	handle("PUT", b+"/iam", "storage.buckets.setIamPolicy", s.ifPolicies(s.setPolicy))
	handle("GET", b+"/iam/testPermissions", "storage.buckets.testIamPermissions", s.ifPolicies(s.testPermissions))

	// gcloud storage rm -r looks for real and managed folders. There are none in any bucket.
	handle("GET", b+"/managedFolders", "storage.managedFolders.list", s.noFolders("storage#managedFolders"))
	handle("GET", b+"/folders", "storage.folders.list", s.noFolders("storage#folders"))

	handle("GET", b+"/o", "storage.objects.list", s.listObjects)
	handle("GET", o, "storage.objects.get", s.getObject)
	handle("PATCH", o, "storage.objects.patch", s.patchObject)
	handle("PUT", o, "storage.objects.update", s.patchObject)
	handle("DELETE", o, "storage.objects.delete", s.deleteObject)
	handle("POST", o+"/compose", "storage.objects.compose", s.compose)
	handle("POST", o+"/copyTo/b/{destinationBucket}/o/{destinationObject}", "storage.objects.copy", s.copyObject)
	handle("POST", o+"/rewriteTo/b/{destinationBucket}/o/{destinationObject}", "storage.objects.rewrite",
		s.rewriteObject)
	handle("POST", o+"/moveTo/o/{destinationObject}", "storage.objects.move", s.moveObject)
	handle("POST", o+"/restore", "storage.objects.restore", s.restoreObject)
	handle("GET", "/download"+o, "storage.objects.get", s.download)

	unlimited := rest.MaxBody(-1) // bounded by the disk: Storage asks before it takes bytes in
	for _, prefix := range []string{"/upload", "/resumable/upload"} {
		handle("POST", prefix+b+"/o", "storage.objects.insert", s.startUpload, unlimited)
		handle("PUT", prefix+b+"/o", "storage.objects.insert", s.continueUpload, unlimited)
		handle("DELETE", prefix+b+"/o", "storage.objects.insert", s.cancelUpload)
	}
	for _, r := range [][2]string{{"GET", ""}, {"POST", ""}, {"GET", "/{key}"}, {"PUT", "/{key}"}, {"DELETE", "/{key}"}} {
		m.HandleFunc(r[0], "/storage/v1/projects/{project}/hmacKeys"+r[1], "storage.projects.hmacKeys", noHMAC,
			rest.Errors(WriteError))
	}
	for _, path := range []string{"/batch", "/batch/storage/v1"} {
		m.HandleFunc("POST", path, "storage.batch", s.batch(m), rest.Errors(WriteError), rest.MaxBody(maxBatchBytes+1))
	}
	// What is unknown below the JSON API's own prefixes is no object by path.
	for _, prefix := range jsonPrefixes {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			m.HandleFunc(method, "/"+prefix+"/{rest=**}", "storage.unknown", unknown, rest.Errors(WriteError))
		}
	}
	s.registerXML(m)
}

// ifPolicies is fn on a server that has policies.
func (s *Server) ifPolicies(fn rest.Func) rest.Func {
	if s.Policies != nil {
		return fn
	}
	return func(context.Context, *rest.Request) (any, error) {
		return nil, fault.New(fault.Unimplemented, "Policies of buckets are not implemented by this server.")
	}
}

// noHMAC says that there are none: what is signed here is signed with a service account's RSA key.
func noHMAC(context.Context, *rest.Request) (any, error) {
	return nil, fault.New(fault.Unimplemented, "HMAC keys are not implemented by Giggle: use a service account's key.")
}

func unknown(_ context.Context, r *rest.Request) (any, error) {
	return nil, fault.New(fault.NotFound, "The requested URL %.100s was not found.", r.URL.Path)
}

func (s *Server) noFolders(kind string) rest.Func {
	return func(ctx context.Context, r *rest.Request) (any, error) {
		if _, err := s.Storage.Bucket(ctx, r.Params["bucket"]); err != nil {
			return nil, err
		}
		return map[string]any{"kind": kind, "items": []any{}}, nil
	}
}

func (s *Server) base(r *http.Request) string {
	if s.Base != nil {
		return s.Base(r)
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// conditions reads if{prefix}GenerationMatch and its three kin from a query.
func conditions(q url.Values, prefix string) (c storage.Conditions, err error) {
	for name, to := range map[string]**int64{
		"GenerationMatch": &c.GenerationMatch, "GenerationNotMatch": &c.GenerationNotMatch,
		"MetagenerationMatch": &c.MetagenerationMatch, "MetagenerationNotMatch": &c.MetagenerationNotMatch,
	} {
		if !q.Has("if" + prefix + name) {
			continue
		}
		n, err := number(q, "if"+prefix+name, 0)
		if err != nil {
			return c, err
		}
		*to = &n
	}
	return c, nil
}

// number reads a parameter as a number of 0 or more.
func number(q url.Values, name string, otherwise int64) (int64, error) {
	s := q.Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fault.Invalid(name, "Invalid value: %.40q is not a number of 0 or more.", s)
	}
	return n, nil
}

// flag reads a parameter as a boolean, false if it isn't there. gcloud's Python sends True.
func flag(q url.Values, name string) (bool, error) {
	switch s := q.Get(name); strings.ToLower(s) {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	default:
		return false, fault.Invalid(name, "Invalid value: %.40q is not true or false.", s)
	}
}

// refuse fails on parameters that ask for what isn't here: ACLs, since access to buckets is uniform, and keys of
// customers.
func refuse(q url.Values) error {
	for _, name := range []string{"predefinedAcl", "destinationPredefinedAcl", "predefinedDefaultObjectAcl"} {
		if q.Get(name) != "" {
			return fault.Invalid(name, "Cannot use ACLs: uniform bucket-level access is enabled on all of Giggle's buckets. Read more at https://cloud.google.com/storage/docs/uniform-bucket-level-access")
		}
	}
	for _, name := range []string{"kmsKeyName", "destinationKmsKeyName"} {
		if q.Get(name) != "" {
			return fault.NotImplemented(name, "Giggle has no encryption keys of customers.")
		}
	}
	switch q.Get("projection") {
	case "", "full", "noAcl":
		return nil
	}
	return fault.Invalid("projection", "Invalid value: want full or noAcl.")
}

// pageSize reads maxResults: 1000 at most, and without one.
func pageSize(q url.Values) (int, error) {
	n, err := number(q, "maxResults", 1000)
	if err != nil {
		return 0, err
	}
	return int(min(max(n, 1), 1000)), nil
}

// noContent is the answer to a delete.
var noContent = rest.Raw{Status: http.StatusNoContent}
