package registry

import (
	"net"
	"net/http"

	"giggle/audit"
	"giggle/fault"
)

// methods are the names that Artifact Registry's audit log has for what changes an image. The parts of a push that
// nobody sees until its manifest is there have no entry.
var methods = map[noun]map[string]string{
	manifestNoun: {http.MethodPut: "Docker-PutManifest", http.MethodDelete: "Docker-DeleteManifest"},
	blobNoun:     {http.MethodDelete: "Docker-DeleteBlob"},
}

// reads are the names for the rest, which is in the log when it was refused.
var reads = map[string]string{download: "Docker-Download", upload: "Docker-Upload", remove: "Docker-Delete"}

// record writes a request to the audit log: what changed an image or tried to, and what was refused to somebody. Nobody
// is asked to log in first by every client; that is no refusal.
func (s *server) record(r *request, e endpoint, err error) {
	f := fault.From(err)
	method, write := methods[r.noun][r.Method]
	if !write {
		if f == nil || f.Code != fault.PermissionDenied {
			return
		}
		method = reads[e.permission]
	}
	if f != nil && f.Code == fault.Unauthenticated {
		return
	}
	ev := audit.Event{
		RequestID: r.id, Service: "artifactregistry.googleapis.com", Method: method, Project: r.image.Repository.Project,
		Resource: r.image.Repository.String() + "/dockerImages/" + r.image.Path + "@" + r.ref, Permission: e.permission, Data: true,
		Member: r.who.Member, UserAgent: r.UserAgent(),
	}
	ev.Caller, _, _ = net.SplitHostPort(r.RemoteAddr)
	if f != nil {
		ev.Code, ev.Message = int32(f.Code), f.Message
	}
	if err := s.Audit.Record(ev); err != nil {
		s.Log.Error("a push is missing in the audit log", "image", ev.Resource, "err", err)
	}
}
