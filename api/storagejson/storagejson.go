// Package storagejson is the wire form of Cloud Storage: the JSON API v1 with its uploads and downloads, and the plain
// GET of an object by path that the XML API has, which gcloud's build log tail uses.
//
// It translates for package giggle/storage and decides nothing itself. ACLs, versioning, life cycle, retention,
// customer keys and notifications are answered with 405 where a client asks for them. Rules:
// https://cloud.google.com/storage/docs/json_api and …/docs/performing-resumable-uploads.
package storagejson

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"giggle/api/guard"
	"giggle/api/policies"
	"giggle/fault"
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
	"storage.objects.compose": {Data: true, Permission: "storage.objects.create", On: onObject},
}

// Register adds the API's routes. The Mux should have WriteError for its errors, so that unknown paths speak the same
// dialect.
func (s *Server) Register(m *rest.Mux) {
	json := rest.Errors(WriteError)
	const b, o = "/storage/v1/b/{bucket}", "/storage/v1/b/{bucket}/o/{object}"
	m.HandleFunc("GET", "/storage/v1/b", "storage.buckets.list", s.listBuckets, json)
	m.HandleFunc("POST", "/storage/v1/b", "storage.buckets.insert", s.insertBucket, json)
	m.HandleFunc("GET", b, "storage.buckets.get", s.getBucket, json)
	m.HandleFunc("GET", b+"/storageLayout", "storage.buckets.getStorageLayout", s.storageLayout, json)
	m.HandleFunc("PATCH", b, "storage.buckets.patch", s.patchBucket, json)
	m.HandleFunc("PUT", b, "storage.buckets.update", s.updateBucket, json)
	m.HandleFunc("DELETE", b, "storage.buckets.delete", s.deleteBucket, json)
	m.HandleFunc("GET", b+"/iam", "storage.buckets.getIamPolicy", s.ifPolicies(s.getPolicy), json)
	m.HandleFunc("PUT", b+"/iam", "storage.buckets.setIamPolicy", s.ifPolicies(s.setPolicy), json)
	m.HandleFunc("GET", b+"/iam/testPermissions", "storage.buckets.testIamPermissions", s.ifPolicies(s.testPermissions),
		json)

	// gcloud storage rm -r looks for real and managed folders. There are none in any bucket.
	m.HandleFunc("GET", b+"/managedFolders", "storage.managedFolders.list", s.noFolders("storage#managedFolders"), json)
	m.HandleFunc("GET", b+"/folders", "storage.folders.list", s.noFolders("storage#folders"), json)

	m.HandleFunc("GET", b+"/o", "storage.objects.list", s.listObjects, json)
	m.HandleFunc("GET", o, "storage.objects.get", s.getObject, json)
	m.HandleFunc("PATCH", o, "storage.objects.patch", s.patchObject, json)
	m.HandleFunc("PUT", o, "storage.objects.update", s.patchObject, json)
	m.HandleFunc("DELETE", o, "storage.objects.delete", s.deleteObject, json)
	m.HandleFunc("POST", o+"/compose", "storage.objects.compose", s.compose, json)
	m.HandleFunc("POST", o+"/copyTo/b/{destinationBucket}/o/{destinationObject}", "storage.objects.copy", s.copyObject,
		json)
	m.HandleFunc("POST", o+"/rewriteTo/b/{destinationBucket}/o/{destinationObject}", "storage.objects.rewrite",
		s.rewriteObject, json)
	m.HandleFunc("GET", "/download"+o, "storage.objects.get", s.download, json)

	unlimited := rest.MaxBody(-1) // bounded by the disk: Storage asks before it takes bytes in
	for _, prefix := range []string{"/upload", "/resumable/upload"} {
		m.HandleFunc("POST", prefix+b+"/o", "storage.objects.insert", s.startUpload, json, unlimited)
		m.HandleFunc("PUT", prefix+b+"/o", "storage.objects.insert", s.continueUpload, json, unlimited)
		m.HandleFunc("DELETE", prefix+b+"/o", "storage.objects.insert", s.cancelUpload, json)
	}
	// What is unknown below the JSON API's own prefixes is no object by path.
	for _, prefix := range []string{"storage", "upload", "resumable", "download", "batch"} {
		m.HandleFunc("GET", "/"+prefix+"/{rest=**}", "storage.unknown", unknown, json)
	}
	m.HandleFunc("GET", "/{bucket}/{object=**}", "storage.objects.get", s.getByPath, rest.Errors(writeXMLError),
		rest.Unescaped())
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
