package registry

import (
	"net"
	"net/http"

	"giggle/fault"
	"giggle/logging/audit"
)

// methods are the names that Artifact Registry's audit log has for what changes an image. The parts of a push that
// nobody sees until its manifest is there have no entry.
var methods = map[noun]map[string]string{
	manifestNoun: {http.MethodPut: "Docker-PutManifest", http.MethodDelete: "Docker-DeleteManifest"},
	blobNoun:     {http.MethodDelete: "Docker-DeleteBlob"},
}

// reads are the names for the rest, which is in the log when it was refused.
var reads = map[string]string{download: "Docker-Download", upload: "Docker-Upload", remove: "Docker-Delete"}

// record writes a request that changes nothing to the audit log if it was refused to an authenticated caller.
// Unauthenticated requests are what every client begins with; those are no refusal.
func (s *server) record(r *request, e endpoint, err error) {
	if fault.Is(err, fault.PermissionDenied) {
		s.logged(r, s.Audit.Record(event(r, e, err)))
	}
}

func (s *server) logged(r *request, err error) {
	if err != nil {
		s.Log.Error("a push is missing in the audit log", "image", r.image.Repository, "request", r.id, "err", err)
	}
}

// event is a request as the audit log takes it, with what came of it.
func event(r *request, e endpoint, err error) audit.Event {
	method, ok := methods[r.noun][r.Method]
	if !ok {
		method = reads[e.permission]
	}
	ev := audit.Event{
		RequestID:  r.id,
		Service:    "artifactregistry.googleapis.com",
		Method:     method,
		Project:    r.image.Repository.Project,
		Resource:   r.image.Repository.String() + "/dockerImages/" + r.image.Path + "@" + r.ref,
		Permission: e.permission,
		Data:       true,
		Member:     r.who.Member,
		UserAgent:  r.UserAgent(),
	}
	ev.Caller, _, _ = net.SplitHostPort(r.RemoteAddr)
	if f := fault.From(err); f != nil {
		ev.Code, ev.Message = int32(f.Code), f.Message
	}
	return ev
}
