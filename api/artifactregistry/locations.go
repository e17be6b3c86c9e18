package artifactregistry

import (
	"context"
	"slices"

	"google.golang.org/genproto/googleapis/cloud/location"

	"giggle/fault"
	"giggle/resource"
)

// allLocations are the names of all locations, sorted.
func allLocations() []string {
	return slices.Sorted(slices.Values(append(resource.Regions(), resource.MultiRegions()...)))
}

func locationToProto(in resource.Location) *location.Location {
	return &location.Location{Name: in.String(), LocationId: in.Location, DisplayName: in.Location}
}

// ListLocations lists where repositories may be.
func (s *Server) ListLocations(
	_ context.Context, r *location.ListLocationsRequest,
) (*location.ListLocationsResponse, error) {
	p, err := s.Project.Project(r.GetName())
	if err != nil {
		return nil, err
	}
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of locations are not implemented")
	}
	list := resource.List{
		Query: p.String() + "/locations",
		Size:  int(r.GetPageSize()),
		Most:  maxPage,
		Token: r.GetPageToken(),
	}
	key := func(name string) string { return name }
	page, next, err := resource.Page(s.Pages, list, resource.Rows(allLocations(), key), key)
	if err != nil {
		return nil, err
	}
	out := &location.ListLocationsResponse{NextPageToken: next}
	for _, name := range page {
		out.Locations = append(out.Locations, locationToProto(resource.Location{Project: p.ID, Location: name}))
	}
	return out, nil
}

// GetLocation returns one location.
func (s *Server) GetLocation(_ context.Context, r *location.GetLocationRequest) (*location.Location, error) {
	in, err := s.location(r.GetName())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(allLocations(), in.Location) {
		return nil, fault.New(fault.NotFound, "Location %.60q was not found.", in.Location)
	}
	return locationToProto(in), nil
}
