package cloudbuild

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"

	"giggle/builds"
	"giggle/builds/trigger"
	"giggle/fault"
	"giggle/resource"
	"giggle/rest"
	"giggle/secrets"
)

// githubRPC is the name of the route that takes GitHub's deliveries.
const githubRPC = "cloudbuild.projects.githubWebhook"

// GitHubSecret is the secret that a project's webhook of GitHub signs with.
func GitHubSecret(project string) string {
	return "projects/" + project + "/secrets/github-webhook/versions/latest"
}

// ownSecret is the name of a secret's version with the project's id in it. It fails with PermissionDenied where the
// name is of another project than p: a caller who guesses would learn of a secret that they can't read.
func ownSecret(p resource.Project, name string) (string, error) {
	if !secrets.IsName(name) {
		return "", fault.Invalid("trigger.webhookConfig.secret",
			"%.300q is not projects/PROJECT/secrets/SECRET/versions/VERSION", name)
	}
	_, rest, _ := strings.Cut(name, "/")
	project, rest, _ := strings.Cut(rest, "/")
	if project != p.ID && project != p.Number {
		return "", fault.New(fault.PermissionDenied,
			"The secret %s is not of the trigger's project. Make one in the project %s.", name, p.ID)
	}
	return "projects/" + p.ID + "/" + rest, nil
}

// Read reads a build configuration.
func (s *Server) Read(data []byte) (builds.Request, error) { return ReadRequest(data) }

// ReadRequest reads a build configuration into a request for the build.
func ReadRequest(data []byte) (builds.Request, error) {
	w, err := ParseConfig(data)
	if err != nil {
		return builds.Request{}, err
	}
	return ToRequest(w)
}

// webhook returns the trigger that a request may start, since it knows the trigger's secret.
func (s *Server) webhook(
	ctx context.Context, r *cloudbuildpb.ReceiveTriggerWebhookRequest,
) (t trigger.Trigger, err error) {
	// One answer for all that is wrong: who does not know the secret learns nothing.
	refused := fault.New(fault.PermissionDenied, "The trigger does not exist, or the secret is not its own.")
	n, err := s.triggerName(r.GetName(), r.GetProjectId(), r.GetTrigger())
	if err != nil {
		return t, refused
	}
	t, err = s.Triggers.Get(ctx, n)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return t, err
	}
	if err != nil || t.Webhook == nil || r.GetSecret() == "" {
		return t, refused
	}
	p, err := s.Project(t.Name.Project)
	if err != nil {
		return t, refused
	}
	name, err := ownSecret(p, t.Webhook.Secret) // it may be older than the check when it was set
	if err != nil {
		return t, refused
	}
	secret, err := s.Secret(name)
	if err != nil || len(secret) == 0 {
		return t, refused
	}
	got, want := sha256.Sum256([]byte(r.GetSecret())), sha256.Sum256(secret)
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return t, refused
	}
	return t, nil
}

// beforeWebhook refuses a webhook without the trigger's secret before its body is read. Over gRPC all is in the
// message.
func (s *Server) beforeWebhook(ctx context.Context, call *rest.Call) error {
	if call.Params == nil {
		return nil
	}
	param := func(names ...string) string {
		for _, n := range names {
			if v := cmp.Or(call.Params[n], call.Query.Get(n)); v != "" {
				return v
			}
		}
		return ""
	}
	_, err := s.webhook(ctx, &cloudbuildpb.ReceiveTriggerWebhookRequest{
		Name:      param("name"),
		ProjectId: param("project_id", "projectId"),
		Trigger:   param("trigger"),
		Secret:    param("secret"),
	})
	return err
}

// ReceiveTriggerWebhook starts a build by a trigger for a caller who knows the trigger's secret. An API key is not
// looked at: it would say which project pays.
func (s *Server) ReceiveTriggerWebhook(
	ctx context.Context, r *cloudbuildpb.ReceiveTriggerWebhookRequest,
) (*cloudbuildpb.ReceiveTriggerWebhookResponse, error) {
	t, err := s.webhook(ctx, r)
	if err != nil {
		return nil, err
	}
	if t.Disabled {
		return nil, fault.New(fault.FailedPrecondition, "The trigger %s is disabled.", t.Title)
	}
	values, err := trigger.Bind(t.Substitutions, r.GetBody().GetData())
	if err != nil {
		return nil, err
	}
	if _, err := s.Triggers.Fire(ctx, &t, trigger.Firing{Substitutions: values}); err != nil {
		return nil, err
	}
	return &cloudbuildpb.ReceiveTriggerWebhookResponse{}, nil
}

// maxDelivery is the largest body that GitHub sends, in bytes
// (https://docs.github.com/en/webhooks/webhook-events-and-payloads#payload-cap).
const maxDelivery = 25 << 20

// github returns the project that a delivery is for, and the secret that it must be signed with.
func (s *Server) github(ref string) (project string, secret []byte, err error) {
	refused := fault.New(fault.Unauthenticated, "The signature is not that of this body.")
	p, err := s.Project(ref)
	if err != nil {
		return "", nil, refused
	}
	if secret, err = s.Secret(GitHubSecret(p.ID)); err != nil || len(secret) == 0 {
		return "", nil, refused
	}
	return p.ID, secret, nil
}

// beforeGitHub refuses a delivery to a project that takes none before its body is read.
func (s *Server) beforeGitHub(_ context.Context, call *rest.Call) error {
	_, _, err := s.github(call.Params["project"])
	return err
}

// receiveGitHub takes what GitHub tells: a push or a pull request, signed with the project's secret.
func (s *Server) receiveGitHub(ctx context.Context, r *rest.Request) (any, error) {
	project, secret, err := s.github(r.Params["project"])
	if err != nil {
		return nil, err
	}
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	if err := trigger.CheckSignature(secret, body, r.Header.Get("X-Hub-Signature-256")); err != nil {
		return nil, err
	}
	d, ok, err := trigger.ParseDelivery(project, r.Header.Get("X-GitHub-Event"), r.Header.Get("X-GitHub-Delivery"),
		body)
	if err != nil || !ok {
		return nil, err
	}
	return nil, s.Triggers.Deliver(ctx, d)
}
