package runv1

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/run"
)

// query is what a list or watch asks for.
type query struct {
	selector resource.Selector
	limit    int
	last     string
	scope    string // what the continue token belongs to
	watch    bool
	since    int64 // resourceVersion to watch from
}

func (s *Server) query(r *rest.Request, t target, kind string) (query, error) {
	q := query{
		limit: pageSize(r.Query.Get("limit")),
		scope: kind + " " + t.location.String() + " " + r.Query.Get("labelSelector"),
	}
	var err error
	if q.selector, err = resource.ParseSelector(r.Query.Get("labelSelector")); err != nil {
		return q, err
	}
	if r.Query.Get("fieldSelector") != "" {
		return q, fault.NotImplemented("fieldSelector", "field selectors are not implemented; use labelSelector")
	}
	if q.last, err = s.Pages.Last(q.scope, r.Query.Get("continue")); err != nil {
		return q, err
	}
	q.watch = r.Query.Get("watch") == "true"
	if v := r.Query.Get("resourceVersion"); v != "" {
		if q.since, err = strconv.ParseInt(v, 10, 64); err != nil {
			return q, fault.Invalid("resourceVersion", "%.40q is not one that this API gave", v)
		}
	}
	return q, nil
}

// listed is an object of a list with what the list needs to know of it.
type listed struct {
	object  any
	name    string // full name: the place in the list
	labels  map[string]string
	created bool // of a watch: this is its first change
	deleted bool
}

// write answers a list: those of all that the query selects, a page at a time.
func (s *Server) write(kind string, q query, all []listed, cursor int64) any {
	out := list[any]{
		APIVersion: apiVersion,
		Kind:       kind,
		Items:      []any{},
		Metadata:   listMeta{ResourceVersion: strconv.FormatInt(cursor, 10)},
	}
	last := ""
	for _, x := range all {
		if x.name <= q.last || !q.selector.Matches(x.labels) {
			continue
		}
		if len(out.Items) == q.limit {
			out.Metadata.Continue = s.Pages.Token(q.scope, last)
			break
		}
		out.Items = append(out.Items, x.object)
		last = x.name
	}
	return out
}

// watch streams changes until the client leaves: one JSON event a line.
func watch(ctx context.Context, q query, next func() ([]listed, error), stop func()) rest.Write {
	return func(w http.ResponseWriter) {
		defer stop()
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		w.WriteHeader(http.StatusOK)
		flush := http.NewResponseController(w)
		enc := json.NewEncoder(w)
		for {
			if err := flush.Flush(); err != nil {
				return
			}
			events, err := next()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				e := fault.From(err)
				_ = enc.Encode(watchEvent{"ERROR", statusOf(e, e.Code.HTTPStatus())})
				return
			}
			for _, x := range events {
				if !q.selector.Matches(x.labels) {
					continue
				}
				kind := "MODIFIED"
				switch {
				case x.deleted:
					kind = "DELETED"
				case x.created:
					kind = "ADDED"
				}
				if err := enc.Encode(watchEvent{kind, x.object}); err != nil {
					return
				}
			}
		}
	}
}

func (s *Server) listServices(ctx context.Context, r *rest.Request, t target) (any, error) {
	return listAs(ctx, s, r, t, "ServiceList", func(w *service) any { return w })
}

// listOf lists what is derived from services: configurations and routes.
func listOf[T any](s *Server, kind string, derive func(*service) T) handler {
	return func(ctx context.Context, r *rest.Request, t target) (any, error) {
		return listAs(ctx, s, r, t, kind, func(w *service) any { return derive(w) })
	}
}

func getOf[T any](s *Server, derive func(*service) T) handler {
	return func(ctx context.Context, _ *rest.Request, t target) (any, error) {
		svc, err := s.Services.Get(ctx, t.service())
		if err != nil {
			return nil, notFound(err, "Service", t.id)
		}
		return derive(toWire(&svc, t.project)), nil
	}
}

func listAs(
	ctx context.Context, s *Server, r *rest.Request, t target, kind string, derive func(*service) any,
) (any, error) {
	q, err := s.query(r, t, kind)
	if err != nil {
		return nil, err
	}
	convert := func(svcs []run.Service) []listed {
		var out []listed
		for i := range svcs {
			w := toWire(&svcs[i], t.project)
			out = append(out, listed{
				object:  derive(w),
				name:    svcs[i].Name.String(),
				labels:  with(w.Metadata.Labels, map[string]string{labelService: svcs[i].Name.ID}),
				created: svcs[i].Created.Equal(svcs[i].Updated),
				deleted: svcs[i].Deleted,
			})
		}
		return out
	}
	if q.watch {
		next, stop := s.Services.Events(ctx, t.location, q.since)
		return watch(ctx, q, func() ([]listed, error) { svcs, err := next(); return convert(svcs), err }, stop), nil
	}
	svcs, cursor, err := s.Services.List(ctx, t.location, "", 0)
	if err != nil {
		return nil, err
	}
	return s.write(kind, q, convert(svcs), cursor), nil
}

func (s *Server) listRevisions(ctx context.Context, r *rest.Request, t target) (any, error) {
	q, err := s.query(r, t, "RevisionList")
	if err != nil {
		return nil, err
	}
	convert := func(revs []run.Revision) ([]listed, error) {
		active, err := s.active(ctx, t.location)
		if err != nil {
			return nil, err
		}
		var out []listed
		for i := range revs {
			w := revisionToWire(&revs[i], t.project, active[revs[i].Name.String()])
			out = append(out, listed{
				object:  w,
				name:    revs[i].Name.String(),
				labels:  w.Metadata.Labels,
				created: revs[i].Created.Equal(revs[i].Updated),
				deleted: revs[i].Deleted,
			})
		}
		return out, nil
	}
	if q.watch {
		next, stop := s.Services.RevisionEvents(ctx, t.location, q.since)
		return watch(ctx, q, func() ([]listed, error) {
			revs, err := next()
			if err != nil {
				return nil, err
			}
			return convert(revs)
		}, stop), nil
	}
	revs, cursor, err := s.Services.ListRevisions(ctx, t.location)
	if err != nil {
		return nil, err
	}
	all, err := convert(revs)
	if err != nil {
		return nil, err
	}
	return s.write("RevisionList", q, all, cursor), nil
}

// pageSize reads a limit; 100 where there is none that counts.
func pageSize(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 || n > 1000 {
		return 100
	}
	return n
}
