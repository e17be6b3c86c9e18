package cloudbuild

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"regexp"
	"sync"

	"cloud.google.com/go/cloudbuild/apiv1/v2/cloudbuildpb"

	"giggle/build"
	"giggle/build/trigger"
	"giggle/fault"
	"giggle/rest"
)

// githubRPC is the name of the route that takes GitHub's deliveries.
const githubRPC = "cloudbuild.projects.githubWebhook"

// GitHubSecret is the secret that a project's webhook of GitHub signs with.
func GitHubSecret(project string) string {
	return "projects/" + project + "/secrets/github-webhook/versions/latest"
}

var secretName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^projects/[a-z0-9-]{1,30}/secrets/[a-zA-Z0-9_-]{1,255}/versions/(latest|[0-9]{1,9})$`)
})

// IsSecretName reports whether a text names a secret's version.
func IsSecretName(s string) bool { return secretName().MatchString(s) }

// Read reads a build configuration.
func (s *Server) Read(data []byte) (build.Request, error) { return ReadRequest(data) }

// ReadRequest reads a build configuration into a request for the build.
func ReadRequest(data []byte) (build.Request, error) {
	w, err := ParseConfig(data)
	if err != nil {
		return build.Request{}, err
	}
	return ToRequest(w)
}

// ReceiveTriggerWebhook starts a build by a trigger for whoever knows the trigger's secret. An API key is not looked at:
// it would say which project pays.
func (s *Server) ReceiveTriggerWebhook(ctx context.Context, r *cloudbuildpb.ReceiveTriggerWebhookRequest) (*cloudbuildpb.ReceiveTriggerWebhookResponse, error) {
	// One answer for all that is wrong: who does not know the secret learns nothing.
	refused := fault.New(fault.PermissionDenied, "The trigger does not exist, or the secret is not its own.")
	n, err := s.triggerName(r.GetName(), r.GetProjectId(), r.GetTrigger())
	if err != nil {
		return nil, refused
	}
	t, err := s.Triggers.Get(ctx, n)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	if err != nil || t.Webhook == nil || r.GetSecret() == "" {
		return nil, refused
	}
	secret, err := s.Secret(t.Webhook.Secret)
	if err != nil || len(secret) == 0 {
		return nil, refused
	}
	got, want := sha256.Sum256([]byte(r.GetSecret())), sha256.Sum256(secret)
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return nil, refused
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

// receiveGitHub takes what GitHub tells: a push or a pull request, signed with the project's secret.
func (s *Server) receiveGitHub(ctx context.Context, r *rest.Request) (any, error) {
	refused := fault.New(fault.Unauthenticated, "The signature is not that of this body.")
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	p, err := s.Project(r.Params["project"])
	if err != nil {
		return nil, refused
	}
	secret, err := s.Secret(GitHubSecret(p.ID))
	if err != nil {
		return nil, refused
	}
	if err := trigger.CheckSignature(secret, body, r.Header.Get("X-Hub-Signature-256")); err != nil {
		return nil, err
	}
	d, ok, err := trigger.ParseDelivery(p.ID, r.Header.Get("X-GitHub-Event"), r.Header.Get("X-GitHub-Delivery"), body)
	if err != nil || !ok {
		return nil, err
	}
	return nil, s.Triggers.Deliver(ctx, d)
}
