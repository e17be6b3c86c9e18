package giggle

import (
	"context"
	"encoding/json"
	"net/http"

	"giggle/fault"
	"giggle/iam"
	"giggle/sql"
)

// Databases are the Cloud SQL instances: *sql.Instances.
type Databases interface {
	Map(ctx context.Context, want sql.Instance) (sql.Instance, error)
	Unmap(ctx context.Context, n sql.Name) error
	List(ctx context.Context, project, last string, limit int) ([]sql.Instance, error)
}

// Database says where a Cloud SQL instance leads.
type Database struct {
	Instance string `json:"instance"` // PROJECT:REGION:INSTANCE
	Address  string `json:"address"`  // HOST:PORT
	Version  string `json:"version"`  // "POSTGRES_15"; of a new one "" is what most likely listens on the port
	Socket   string `json:"socket"`   // in services that have the instance, "" for a kind that has none
}

func databaseOf(i sql.Instance) Database {
	out := Database{Instance: i.Name.String(), Address: i.Address, Version: i.Version, Socket: sql.SocketOf(i)}
	if out.Socket != "" {
		out.Socket = "/cloudsql/" + out.Socket
	}
	return out
}

func (s *Server) listDatabases(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	all, err := s.cfg.Databases.List(r.Context(), "", "", 0)
	if err != nil {
		return nil, err
	}
	out := []Database{}
	for _, i := range all {
		if s.cfg.Identity.Authorize(r.Context(), who, "cloudsql.instances.list", "projects/"+i.Project) == nil {
			out = append(out, databaseOf(i))
		}
	}
	return out, nil
}

func (s *Server) mapDatabase(w http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	var d Database
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&d); err != nil {
		return nil, fault.New(fault.InvalidArgument, "The body is no database: %v", err)
	}
	n, err := sql.ParseName(d.Instance)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Identity.Authorize(r.Context(), who, "cloudsql.instances.create",
		"projects/"+n.Project); err != nil {
		return nil, err
	}
	i, err := s.cfg.Databases.Map(r.Context(), sql.Instance{Name: n, Address: d.Address, Version: d.Version})
	if err != nil {
		return nil, err
	}
	return databaseOf(i), nil
}

func (s *Server) unmapDatabase(_ http.ResponseWriter, r *http.Request, who iam.Principal) (any, error) {
	n, err := sql.ParseName(r.URL.Query().Get("instance"))
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Identity.Authorize(r.Context(), who, "cloudsql.instances.delete", n.Resource()); err != nil {
		return nil, err
	}
	return struct{}{}, s.cfg.Databases.Unmap(r.Context(), n)
}
