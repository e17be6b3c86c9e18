// Package cloudlogging is the wire form of Cloud Logging v2: entries that are listed, written and followed.
//
// What services, builds and clients write and what was done (the audit log) are read as one. There is one bucket of
// entries in a project, _Default, and no sinks, exclusions and metrics.
package cloudlogging

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/logging/apiv2/loggingpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/iam"
	"giggle/logging"
	"giggle/resource"
	"giggle/rest"
)

// Log is where clients' entries go: *logging.Ring.
type Log interface {
	Append(e logging.Entry)
	// Delete forgets the entries of a log.
	Delete(project, log string)
}

// Identity is the identity side: *iam.IAM.
type Identity interface {
	Authorize(ctx context.Context, p iam.Principal, permission, resource string) error
}

// Projects is the project side: *projects.Projects.
type Projects interface {
	Find(ref string) (resource.Project, error)
	CheckEnabled(project, service string) error
}

// Config is what a Server needs.
type Config struct {
	Log      Log
	Entries  logging.Reader // all that can be read
	Identity Identity
	Projects Projects
	Pages    *resource.Pages
	Now      func() time.Time
}

// Server serves the API.
type Server struct {
	Config
	absent
}

// absent answers UNIMPLEMENTED for every method that the server doesn't have itself.
type absent struct {
	loggingpb.UnimplementedLoggingServiceV2Server
	config
	metrics
}

type (
	config struct {
		loggingpb.UnimplementedConfigServiceV2Server
	}
	metrics struct {
		loggingpb.UnimplementedMetricsServiceV2Server
	}
)

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{Config: cfg} }

const (
	host    = "logging.googleapis.com"
	rpc     = "/google.logging.v2.LoggingServiceV2/"
	configs = "/google.logging.v2.ConfigServiceV2/"
)

// Rules says what each RPC needs. Lists and writes name several projects: the handlers ask for each.
var Rules = guard.Absent(
	&loggingpb.LoggingServiceV2_ServiceDesc,
	&loggingpb.ConfigServiceV2_ServiceDesc,
	&loggingpb.MetricsServiceV2_ServiceDesc,
).With(guard.Rules{
	rpc + "ListLogEntries":                   {Authenticated: true, Reads: true},
	rpc + "TailLogEntries":                   {Authenticated: true, Reads: true},
	rpc + "WriteLogEntries":                  {Authenticated: true, Data: true},
	rpc + "ListMonitoredResourceDescriptors": {Authenticated: true, Reads: true},
	rpc + "ListLogs":                         {Permission: "logging.logs.list", On: "{parent}"},
	rpc + "DeleteLog":                        {Permission: "logging.logs.delete", On: "{log_name}"},
	configs + "ListBuckets":                  {Permission: "logging.buckets.list", On: "{parent}"},
	configs + "GetBucket":                    {Permission: "logging.buckets.get", On: "{name}"},
})

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	loggingpb.RegisterLoggingServiceV2Server(m, s)
	loggingpb.RegisterConfigServiceV2Server(m, s)
	loggingpb.RegisterMetricsServiceV2Server(m, s)
}

// project finds the project of a name that begins with it, and asks whether its entries may be used in this way.
func (s *Server) project(ctx context.Context, field, name, permission string) (resource.Project, error) {
	ref, ok := strings.CutPrefix(name, "projects/")
	ref, below, _ := strings.Cut(ref, "/")
	if !ok || ref == "" {
		if strings.HasPrefix(name, "folders/") || strings.HasPrefix(name, "organizations/") ||
			strings.HasPrefix(name, "billingAccounts/") {
			return resource.Project{}, fault.NotImplemented(field, "there are projects only")
		}
		return resource.Project{}, fault.Invalid(field, "%.100q is not projects/PROJECT", name)
	}
	if below != "" && !allEntries(below) {
		return resource.Project{}, fault.New(fault.NotFound, "%.200q was not found.", name)
	}
	p, err := s.Projects.Find(ref)
	if err != nil { // which projects there are is nobody's business
		p = resource.Project{ID: ref}
	}
	if err := s.Identity.Authorize(ctx, guard.Caller(ctx), permission, "projects/"+p.ID); err != nil {
		return resource.Project{}, err
	}
	if err != nil {
		return resource.Project{}, err
	}
	return p, s.Projects.CheckEnabled(p.ID, host)
}

// allEntries reports whether the name of a bucket or a view, below its project, is of one that has all entries.
func allEntries(name string) bool {
	bucket, view, _ := strings.Cut(name, "/views/")
	return (bucket == "locations/global/buckets/_Default" || bucket == "locations/global/buckets/_Required") &&
		(view == "" || view == "_AllLogs" || view == "_Default")
}

// ListLogs returns the names of the logs that have entries.
func (s *Server) ListLogs(ctx context.Context, r *loggingpb.ListLogsRequest) (*loggingpb.ListLogsResponse, error) {
	parents := r.GetResourceNames()
	if r.GetParent() != "" {
		parents = append(slices.Clone(parents), r.GetParent())
	}
	var all []string
	for _, parent := range parents {
		p, err := s.project(ctx, "parent", parent, "logging.logs.list")
		if err != nil {
			return nil, err
		}
		for e, err := range s.Entries.Read(ctx, logging.Filter{Project: p.ID}) {
			if err != nil {
				return nil, err
			}
			if name := "projects/" + p.ID + "/logs/" + url.QueryEscape(e.Log); !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	page, next, err := resource.Page(s.Pages, resource.List{
		Query: "logs " + strings.Join(parents, " "),
		Size:  int(r.GetPageSize()),
		Most:  1000,
		Token: r.GetPageToken(),
	}, resource.Rows(all, func(s string) string { return s }), func(s string) string { return s })
	return &loggingpb.ListLogsResponse{LogNames: page, NextPageToken: next}, err
}

// DeleteLog forgets the entries of a log. Those of the audit log stay, as in Cloud Logging.
func (s *Server) DeleteLog(ctx context.Context, r *loggingpb.DeleteLogRequest) (*emptypb.Empty, error) {
	parent, id, ok := strings.Cut(r.GetLogName(), "/logs/")
	id, err := url.QueryUnescape(id)
	if !ok || err != nil || id == "" {
		return nil, fault.Invalid("logName", "%.200q is not projects/PROJECT/logs/LOG", r.GetLogName())
	}
	p, err := s.project(ctx, "logName", parent, "logging.logs.delete")
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(id, "cloudaudit.googleapis.com/") {
		return nil, fault.New(fault.InvalidArgument, "The audit log %s can't be deleted.", id)
	}
	s.Log.Delete(p.ID, id)
	return &emptypb.Empty{}, nil
}

// ListMonitoredResourceDescriptors returns the types of resources that entries may be about.
func (s *Server) ListMonitoredResourceDescriptors(
	_ context.Context, r *loggingpb.ListMonitoredResourceDescriptorsRequest,
) (*loggingpb.ListMonitoredResourceDescriptorsResponse, error) {
	page, next, err := resource.Page(s.Pages, resource.List{
		Query: "monitoredResourceDescriptors",
		Size:  int(r.GetPageSize()),
		Most:  1000,
		Token: r.GetPageToken(),
	}, resource.Rows(descriptors, typeOf), typeOf)
	return &loggingpb.ListMonitoredResourceDescriptorsResponse{ResourceDescriptors: page, NextPageToken: next}, err
}

// buckets are those of a project: where its entries are, and where the audit log is. Only the audit log is kept by
// days; entries are by their number and size.
func buckets(project string) []*loggingpb.LogBucket {
	in := "projects/" + project + "/locations/global/buckets/"
	return []*loggingpb.LogBucket{
		{
			Name:           in + "_Default",
			Description:    "Default bucket: the newest entries, in memory",
			LifecycleState: loggingpb.LifecycleState_ACTIVE,
		},
		{
			Name:           in + "_Required",
			Description:    "Audit bucket: on disk",
			RetentionDays:  400,
			Locked:         true,
			LifecycleState: loggingpb.LifecycleState_ACTIVE,
		},
	}
}

// ListBuckets returns the project's buckets.
func (s *Server) ListBuckets(
	_ context.Context, r *loggingpb.ListBucketsRequest,
) (*loggingpb.ListBucketsResponse, error) {
	parent, location, _ := strings.Cut(r.GetParent(), "/locations/")
	p, err := s.Projects.Find(strings.TrimPrefix(parent, "projects/"))
	if err != nil {
		return nil, err
	}
	out := &loggingpb.ListBucketsResponse{}
	if location == "-" || location == "global" {
		out.Buckets = buckets(p.ID)
	}
	return out, nil
}

// GetBucket returns one of the project's buckets.
func (s *Server) GetBucket(_ context.Context, r *loggingpb.GetBucketRequest) (*loggingpb.LogBucket, error) {
	parent, below, _ := strings.Cut(strings.TrimPrefix(r.GetName(), "projects/"), "/")
	p, err := s.Projects.Find(parent)
	if err != nil {
		return nil, err
	}
	for _, b := range buckets(p.ID) {
		if b.GetName() == "projects/"+p.ID+"/"+below {
			return b, nil
		}
	}
	return nil, fault.New(fault.NotFound, "Bucket %.200q was not found.", r.GetName())
}
