// Package sqladmin is the wire form of the Cloud SQL Admin API, v1beta4 and v1: what instances there are, and what
// Google's connectors ask before they connect to one.
//
// It translates for package sql. Instances are made, changed and deleted with `giggle sql`, since there is no database
// that a client could ask for.
package sqladmin

import (
	"context"
	"fmt"
	"net/netip"

	v1 "cloud.google.com/go/sql/apiv1/sqlpb"
	"cloud.google.com/go/sql/apiv1beta4/sqlpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"giggle/api/guard"
	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/sql"
)

// Certificates signs: *sql.CA.
type Certificates interface {
	// Certificate is what clients check servers by.
	Certificate() sql.Certificate
	// Client makes the certificate of a member of policies who connects to an instance, of its public key in PEM.
	Client(n sql.Name, member, publicKey string) (sql.Certificate, error)
}

// Config is what a Server needs.
type Config struct {
	Instances    *sql.Instances
	Certificates Certificates
	Project      resource.FindProject
	Pages        *resource.Pages
	// Address returns where programs of this machine connect to an instance.
	Address func(n sql.Name) (netip.Addr, error)
}

// Server serves the API.
type Server struct{ Config }

// New returns the server of the API.
func New(cfg Config) *Server { return &Server{cfg} }

type insideKey struct{}

// Inside marks the connections of programs in containers: there instances have other addresses.
func Inside(ctx context.Context) context.Context { return context.WithValue(ctx, insideKey{}, true) }

const (
	beta     = "/google.cloud.sql.v1beta4."
	stable   = "/google.cloud.sql.v1."
	instance = "projects/{project}/instances/{instance}"
)

// Rules says what each RPC needs.
var Rules = func() guard.Rules {
	out := guard.Absent(
		&sqlpb.SqlBackupRunsService_ServiceDesc, &sqlpb.SqlBackupsService_ServiceDesc,
		&sqlpb.SqlConnectService_ServiceDesc, &sqlpb.SqlDatabasesService_ServiceDesc,
		&sqlpb.SqlFlagsService_ServiceDesc, &sqlpb.SqlInstancesService_ServiceDesc,
		&sqlpb.SqlOperationsService_ServiceDesc, &sqlpb.SqlSslCertsService_ServiceDesc,
		&sqlpb.SqlTiersService_ServiceDesc, &sqlpb.SqlUsersService_ServiceDesc,
		&v1.SqlConnectService_ServiceDesc, &v1.SqlInstancesService_ServiceDesc,
	)
	for _, version := range []string{beta, stable} {
		out = out.With(guard.Rules{
			version + "SqlConnectService/GetConnectSettings": {Permission: "cloudsql.instances.get", On: instance},
			version + "SqlConnectService/GenerateEphemeralCert": {
				Permission: "cloudsql.instances.connect",
				On:         instance,
				Reads:      true,
			},
			version + "SqlInstancesService/Get":  {Permission: "cloudsql.instances.get", On: instance},
			version + "SqlInstancesService/List": {Permission: "cloudsql.instances.list", On: "projects/{project}"},
		})
	}
	return out
}()

// Register adds the API's routes.
func (s *Server) Register(m *rest.Mux) {
	sqlpb.RegisterSqlConnectServiceServer(m, connect{s: s})
	sqlpb.RegisterSqlInstancesServiceServer(m, instances{s: s})
	v1.RegisterSqlConnectServiceServer(m, connectV1{s: s})
	v1.RegisterSqlInstancesServiceServer(m, instancesV1{s: s})
	// None of these is implemented.
	sqlpb.RegisterSqlBackupRunsServiceServer(m, sqlpb.UnimplementedSqlBackupRunsServiceServer{})
	sqlpb.RegisterSqlBackupsServiceServer(m, sqlpb.UnimplementedSqlBackupsServiceServer{})
	sqlpb.RegisterSqlDatabasesServiceServer(m, sqlpb.UnimplementedSqlDatabasesServiceServer{})
	sqlpb.RegisterSqlFlagsServiceServer(m, sqlpb.UnimplementedSqlFlagsServiceServer{})
	sqlpb.RegisterSqlOperationsServiceServer(m, sqlpb.UnimplementedSqlOperationsServiceServer{})
	sqlpb.RegisterSqlSslCertsServiceServer(m, sqlpb.UnimplementedSqlSslCertsServiceServer{})
	sqlpb.RegisterSqlTiersServiceServer(m, sqlpb.UnimplementedSqlTiersServiceServer{})
	sqlpb.RegisterSqlUsersServiceServer(m, sqlpb.UnimplementedSqlUsersServiceServer{})
}

var _ grpc.ServiceRegistrar = (*rest.Mux)(nil)

// get returns the instance that a request names.
func (s *Server) get(ctx context.Context, project, id string) (sql.Instance, error) {
	p, err := s.Project(project)
	if err != nil {
		return sql.Instance{}, err
	}
	i, err := s.Instances.Get(ctx, p.ID, id)
	if fault.Is(err, fault.NotFound) {
		return i, fault.New(fault.NotFound,
			"The Cloud SQL instance %s does not exist. Instances are made with: giggle sql map %s:REGION:%s HOST:PORT",
			sql.Name{Project: p.ID, ID: id}.Resource(), p.ID, id)
	}
	return i, err
}

// addresses are where the caller connects to an instance.
func (s *Server) addresses(ctx context.Context, i sql.Instance) ([]*sqlpb.IpMapping, error) {
	at := sql.InsideAddress(i)
	if ctx.Value(insideKey{}) == nil {
		var err error
		if at, err = s.Address(i.Name); err != nil {
			return nil, err
		}
	}
	return []*sqlpb.IpMapping{{Type: sqlpb.SqlIpAddressType_PRIMARY, IpAddress: at.String()}}, nil
}

func certificate(c sql.Certificate, instance string) *sqlpb.SslCert {
	return &sqlpb.SslCert{
		Kind:             "sql#sslCert",
		CertSerialNumber: c.SerialNumber,
		Cert:             c.PEM,
		CreateTime:       timestamppb.New(c.Created),
		ExpirationTime:   timestamppb.New(c.Expiry),
		CommonName:       c.CommonName,
		Sha1Fingerprint:  c.Fingerprint,
		Instance:         instance,
	}
}

func version(i sql.Instance) sqlpb.SqlDatabaseVersion {
	return sqlpb.SqlDatabaseVersion(sqlpb.SqlDatabaseVersion_value[i.Version])
}

func (s *Server) connectSettings(
	ctx context.Context, r *sqlpb.GetConnectSettingsRequest,
) (*sqlpb.ConnectSettings, error) {
	if r.GetReadTime() != nil {
		return nil, fault.NotImplemented("readTime", "what was is not kept")
	}
	i, err := s.get(ctx, r.GetProject(), r.GetInstance())
	if err != nil {
		return nil, err
	}
	at, err := s.addresses(ctx, i)
	if err != nil {
		return nil, err
	}
	// No mdxProtocolSupport: connectors send no metadata exchange then. And no DNS name, so that they check the common
	// name of the server's certificate.
	return &sqlpb.ConnectSettings{
		Kind:            "sql#connectSettings",
		ServerCaCert:    certificate(s.Certificates.Certificate(), i.ID),
		ServerCaMode:    sqlpb.ConnectSettings_GOOGLE_MANAGED_INTERNAL_CA,
		IpAddresses:     at,
		Region:          i.Region,
		DatabaseVersion: version(i),
		BackendType:     sqlpb.SqlBackendType_SECOND_GEN,
	}, nil
}

func (s *Server) ephemeralCert(
	ctx context.Context, r *sqlpb.GenerateEphemeralCertRequest,
) (*sqlpb.GenerateEphemeralCertResponse, error) {
	err := rest.Only(r, "", "project", "instance", "public_key")
	if err != nil {
		if r.GetAccessToken() != "" {
			return nil, fault.NotImplemented("access_token",
				"logging in to databases with IAM is not implemented; use the database's own users and passwords")
		}
		return nil, err
	}
	i, err := s.get(ctx, r.GetProject(), r.GetInstance())
	if err != nil {
		return nil, err
	}
	c, err := s.Certificates.Client(i.Name, guard.Caller(ctx).Member, r.GetPublicKey())
	if err != nil {
		return nil, err
	}
	return &sqlpb.GenerateEphemeralCertResponse{EphemeralCert: certificate(c, i.ID)}, nil
}

func (s *Server) getInstance(
	ctx context.Context, r *sqlpb.SqlInstancesGetRequest,
) (*sqlpb.DatabaseInstance, error) {
	i, err := s.get(ctx, r.GetProject(), r.GetInstance())
	if err != nil {
		return nil, err
	}
	return s.wire(ctx, i)
}

func (s *Server) wire(ctx context.Context, i sql.Instance) (*sqlpb.DatabaseInstance, error) {
	at, err := s.addresses(ctx, i)
	if err != nil {
		return nil, err
	}
	return &sqlpb.DatabaseInstance{
		Kind:            "sql#instance",
		Name:            i.ID,
		Project:         i.Project,
		Region:          i.Region,
		ConnectionName:  i.Name.String(),
		DatabaseVersion: version(i),
		BackendType:     sqlpb.SqlBackendType_SECOND_GEN,
		InstanceType:    sqlpb.SqlInstanceType_CLOUD_SQL_INSTANCE,
		State:           sqlpb.DatabaseInstance_RUNNABLE,
		IpAddresses:     at,
		ServerCaCert:    certificate(s.Certificates.Certificate(), i.ID),
		CreateTime:      timestamppb.New(i.Created),
		SelfLink:        fmt.Sprintf("https://sqladmin.googleapis.com/sql/v1beta4/%s", i.Resource()),
	}, nil
}

func (s *Server) listInstances(
	ctx context.Context, r *sqlpb.SqlInstancesListRequest,
) (*sqlpb.InstancesListResponse, error) {
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters are not implemented; gcloud's --filter=FIELD~… is its own")
	}
	p, err := s.Project(r.GetProject())
	if err != nil {
		return nil, err
	}
	page, next, err := resource.Page(s.Pages, resource.List{
		Query: "sqladmin.instances " + p.ID,
		Size:  int(min(r.GetMaxResults(), 1000)),
		Most:  1000,
		Token: r.GetPageToken(),
	}, func(last string, limit int) ([]sql.Instance, error) {
		return s.Instances.List(ctx, p.ID, last, limit)
	}, func(i sql.Instance) string { return i.ID })
	if err != nil {
		return nil, err
	}
	out := &sqlpb.InstancesListResponse{Kind: "sql#instancesList", NextPageToken: next}
	for _, i := range page {
		w, err := s.wire(ctx, i)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, w)
	}
	return out, nil
}

type connect struct {
	s *Server
	sqlpb.UnimplementedSqlConnectServiceServer
}

func (c connect) GetConnectSettings(
	ctx context.Context, r *sqlpb.GetConnectSettingsRequest,
) (*sqlpb.ConnectSettings, error) {
	return c.s.connectSettings(ctx, r)
}

func (c connect) GenerateEphemeralCert(
	ctx context.Context, r *sqlpb.GenerateEphemeralCertRequest,
) (*sqlpb.GenerateEphemeralCertResponse, error) {
	return c.s.ephemeralCert(ctx, r)
}

type instances struct {
	s *Server
	sqlpb.UnimplementedSqlInstancesServiceServer
}

func (i instances) Get(ctx context.Context, r *sqlpb.SqlInstancesGetRequest) (*sqlpb.DatabaseInstance, error) {
	return i.s.getInstance(ctx, r)
}

func (i instances) List(
	ctx context.Context, r *sqlpb.SqlInstancesListRequest,
) (*sqlpb.InstancesListResponse, error) {
	return i.s.listInstances(ctx, r)
}

type connectV1 struct {
	s *Server
	v1.UnimplementedSqlConnectServiceServer
}

func (c connectV1) GetConnectSettings(
	ctx context.Context, r *v1.GetConnectSettingsRequest,
) (*v1.ConnectSettings, error) {
	return as(ctx, r, &sqlpb.GetConnectSettingsRequest{}, c.s.connectSettings, &v1.ConnectSettings{})
}

func (c connectV1) GenerateEphemeralCert(
	ctx context.Context, r *v1.GenerateEphemeralCertRequest,
) (*v1.GenerateEphemeralCertResponse, error) {
	return as(ctx, r, &sqlpb.GenerateEphemeralCertRequest{}, c.s.ephemeralCert, &v1.GenerateEphemeralCertResponse{})
}

type instancesV1 struct {
	s *Server
	v1.UnimplementedSqlInstancesServiceServer
}

func (i instancesV1) Get(ctx context.Context, r *v1.SqlInstancesGetRequest) (*v1.DatabaseInstance, error) {
	return as(ctx, r, &sqlpb.SqlInstancesGetRequest{}, i.s.getInstance, &v1.DatabaseInstance{})
}

func (i instancesV1) List(ctx context.Context, r *v1.SqlInstancesListRequest) (*v1.InstancesListResponse, error) {
	return as(ctx, r, &sqlpb.SqlInstancesListRequest{}, i.s.listInstances, &v1.InstancesListResponse{})
}

// as serves a request of v1 as v1beta4, whose messages have the same JSON.
func as[From, In, Mid, Out proto.Message](
	ctx context.Context, from From, in In, serve func(context.Context, In) (Mid, error), out Out,
) (Out, error) {
	var none Out
	if err := recode(from, in); err != nil {
		return none, err
	}
	mid, err := serve(ctx, in)
	if err != nil {
		return none, err
	}
	return out, recode(mid, out)
}

func recode(from, to proto.Message) error {
	b, err := protojson.Marshal(from)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(b, to)
}
