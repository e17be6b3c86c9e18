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
func (s *Server) ListLocations(_ context.Context, r *location.ListLocationsRequest) (*location.ListLocationsResponse, error) {
	ref, err := resource.ParseProject(r.GetName())
	if err != nil {
		return nil, err
	}
	project, err := s.ProjectID(ref)
	if err != nil {
		return nil, err
	}
	if r.GetFilter() != "" {
		return nil, fault.NotImplemented("filter", "filters of locations are not implemented")
	}
	query := "projects/" + project + "/locations"
	limit, last, err := s.page(query, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &location.ListLocationsResponse{}
	for _, name := range allLocations() {
		if name <= last {
			continue
		}
		if len(out.Locations) == limit {
			out.NextPageToken = s.Pages.Token(query, out.Locations[limit-1].GetLocationId())
			break
		}
		out.Locations = append(out.Locations, locationToProto(resource.Location{Project: project, Location: name}))
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
