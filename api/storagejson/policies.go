package storagejson

import (
	"context"
	"io"
	"strconv"

	"cloud.google.com/go/iam/apiv1/iampb"
	"google.golang.org/protobuf/encoding/protojson"

	"giggle/api/guard"
	"giggle/api/policies"
	"giggle/fault"
	"giggle/iam"
	"giggle/rest"
	"giggle/storage"
)

// maxPolicy bounds the body of a policy, in bytes.
const maxPolicy = 1 << 20

// policy is a bucket's policy as the JSON API writes it: google.iam.v1.Policy with a kind and a resource.
type policy struct {
	Kind       string    `json:"kind"`
	ResourceID string    `json:"resourceId"`
	Version    int32     `json:"version"`
	Etag       string    `json:"etag"`
	Bindings   []binding `json:"bindings,omitempty"`
}

type binding struct {
	Role      string     `json:"role"`
	Members   []string   `json:"members"`
	Condition *condition `json:"condition,omitempty"`
}

// condition is google.type.Expr.
type condition struct {
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Expression  string `json:"expression,omitempty"`
	Location    string `json:"location,omitempty"`
}

func policyToWire(bucket string, p iam.Policy) policy {
	w := policy{
		Kind:       "storage#policy",
		ResourceID: "projects/_/buckets/" + bucket,
		Version:    max(p.Version, 1),
		Etag:       p.Etag,
	}
	for _, b := range p.Bindings {
		w.Bindings = append(w.Bindings, binding{Role: b.Role, Members: b.Members})
	}
	for _, b := range p.Conditional {
		c := condition(b.Condition)
		w.Bindings = append(w.Bindings, binding{Role: b.Role, Members: b.Members, Condition: &c})
	}
	return w
}

// policed returns the name that a bucket's policy is kept under, or NotFound.
func (s *Server) policed(ctx context.Context, bucket string) (string, error) {
	project, err := s.Storage.BucketProject(ctx, bucket)
	return "projects/" + project + "/buckets/" + bucket, err
}

func (s *Server) getPolicy(ctx context.Context, r *rest.Request) (any, error) {
	bucket := r.Params["bucket"]
	name, err := s.policed(ctx, bucket)
	if err != nil {
		return nil, err
	}
	version := 0
	if asked := r.Query.Get("optionsRequestedPolicyVersion"); asked != "" {
		if version, err = strconv.Atoi(asked); err != nil {
			return nil, fault.Invalid("optionsRequestedPolicyVersion", "%.20q is no number", asked)
		}
	}
	have, err := s.Policies.Policy(name).AsVersion(int32(version))
	if err != nil {
		return nil, err
	}
	return policyToWire(bucket, have), nil
}

func (s *Server) setPolicy(ctx context.Context, r *rest.Request) (any, error) {
	bucket := r.Params["bucket"]
	name, err := s.policed(ctx, bucket)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxPolicy+1))
	if err != nil {
		return nil, &fault.Error{Code: fault.InvalidArgument, Message: "The body ended too early.", Cause: err}
	}
	if len(body) > maxPolicy {
		return nil, fault.New(fault.InvalidArgument, "The policy is longer than %d bytes.", maxPolicy)
	}
	var w iampb.Policy
	// kind and resourceId
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, &w); err != nil {
		return nil, &fault.Error{Code: fault.InvalidArgument, Message: "The body is not a policy.", Cause: err}
	}
	want, err := policies.FromProto(&w)
	if err != nil {
		return nil, err
	}
	have, err := s.Policies.SetPolicy(ctx, name, want)
	if fault.Is(err, fault.Aborted) { // Cloud Storage has 412 for what is 409 elsewhere
		return nil, &fault.Error{
			Code:    fault.FailedPrecondition,
			Reason:  storage.ReasonPrecondition,
			Message: fault.From(err).Message,
			Cause:   err,
		}
	}
	if err != nil {
		return nil, err
	}
	return policyToWire(bucket, have), nil
}

// maxPermissions is the most permissions that one call may ask about.
const maxPermissions = 100

func (s *Server) testPermissions(ctx context.Context, r *rest.Request) (any, error) {
	name, err := s.policed(ctx, r.Params["bucket"])
	if err != nil {
		return nil, err
	}
	asked := r.Query["permissions"]
	if len(asked) == 0 || len(asked) > maxPermissions {
		return nil, fault.Invalid("permissions", "want 1 to %d", maxPermissions)
	}
	return struct {
		Kind        string   `json:"kind"`
		Permissions []string `json:"permissions,omitempty"`
	}{"storage#testIamPermissionsResponse", policies.Held(s.Policies, guard.Caller(ctx), asked, name)}, nil
}
