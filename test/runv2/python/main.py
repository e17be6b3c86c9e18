"""Makes the calls that applications make with Google's Python client of Cloud Run, over gRPC and over REST.

It fails where an answer is not what the library's users get from Google. The library is what the Cloud SDK brings:
google-cloud-run's generated clients under a name of the SDK's, google.api_core and grpc. So is the Python.
"""

import os
import sys
import urllib.request

# Behind Python's own: the SDK has copies of some of those.
sys.path += [os.path.join(os.environ["SDK"], "lib"), os.path.join(os.environ["SDK"], "lib", "third_party")]

from cloudsdk.google.protobuf import field_mask_pb2
from google.api_core import exceptions
from google.iam.v1 import iam_policy_pb2, policy_pb2
from googlecloudsdk.generated_clients.gapic_clients import run_v2

LOCATION = "europe-north1"
SERVER = "import http.server as h, os\nclass H(h.BaseHTTPRequestHandler):\n def do_GET(s):\n  s.send_response(200); s.end_headers(); s.wfile.write(os.environ['WORD'].encode())\nh.HTTPServer(('', int(os.environ['PORT'])), H).serve_forever()"


def wanted(word):
    """A service that answers with a word, from an image of the mirror."""
    return run_v2.Service(
        labels={"team": "python"},
        template=run_v2.RevisionTemplate(
            timeout={"seconds": 30},
            containers=[
                run_v2.Container(
                    image="python:3.12",
                    command=["python3", "-c"],
                    args=[SERVER],
                    env=[run_v2.EnvVar(name="WORD", value=word)],
                    resources=run_v2.ResourceRequirements(limits={"cpu": "1", "memory": "512Mi"}, cpu_idle=True),
                )
            ],
        ),
    )


def fails(kind, words, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as e:
        assert words in str(e), e
        return e
    raise AssertionError(f"no {kind.__name__}")


def main(project, transport):
    services = run_v2.ServicesClient(transport=transport)
    revisions = run_v2.RevisionsClient(transport=transport)
    parent = f"projects/{project}/locations/{LOCATION}"
    id = f"python-{transport}"
    name = services.service_path(project, LOCATION, id)

    made = services.create_service(parent=parent, service=wanted("one"), service_id=id).result(timeout=60)
    assert made.name == name and made.terminal_condition.state == run_v2.Condition.State.CONDITION_SUCCEEDED, made
    have = services.get_service(name=name)
    assert dict(have.labels) == {"team": "python"} and have.template.timeout.seconds == 30, have
    assert name in [s.name for s in services.list_services(parent=parent)]

    have.template.containers[0].env[0].value = "two"
    request = run_v2.UpdateServiceRequest(service=have, update_mask=field_mask_pb2.FieldMask(paths=["template"]))
    changed = services.update_service(request=request).result(timeout=60)
    assert changed.latest_ready_revision != made.latest_ready_revision, changed
    fails(exceptions.Aborted if transport == "grpc" else exceptions.Conflict, "Conflict", services.update_service, service=have)

    assert [r.name for r in revisions.list_revisions(parent=name)] == [changed.latest_ready_revision, made.latest_ready_revision]
    assert revisions.get_revision(name=made.latest_ready_revision).containers[0].env[0].value == "one"
    assert revisions.delete_revision(name=made.latest_ready_revision).result(timeout=60).name == made.latest_ready_revision
    fails(exceptions.NotFound, "not found", revisions.get_revision, name=made.latest_ready_revision)

    policy = services.get_iam_policy(request=iam_policy_pb2.GetIamPolicyRequest(resource=name))
    policy.bindings.append(policy_pb2.Binding(role="roles/run.invoker", members=["allUsers"]))
    policy = services.set_iam_policy(request=iam_policy_pb2.SetIamPolicyRequest(resource=name, policy=policy))
    assert list(policy.bindings[0].members) == ["allUsers"], policy
    asked = iam_policy_pb2.TestIamPermissionsRequest(resource=name, permissions=["run.routes.invoke", "run.services.delete"])
    assert list(services.test_iam_permissions(request=asked).permissions) == ["run.routes.invoke", "run.services.delete"]
    with urllib.request.urlopen(changed.uri) as answer:
        assert answer.read() == b"two"

    bad = wanted("three")
    bad.template.timeout = {"seconds": 5000}
    e = fails(exceptions.InvalidArgument if transport == "grpc" else exceptions.BadRequest, "template.timeout", services.create_service, parent=parent, service=bad, service_id=id + "-bad")
    # Over gRPC, reading them takes grpcio-status, which the SDK leaves out.
    details = e.response.trailing_metadata() if transport == "grpc" else e.details
    assert "template.timeout" in str(details), details
    exits = wanted("three")
    exits.template.containers[0].command, exits.template.containers[0].args = ["sh", "-c"], ["exit 3"]
    failing = services.create_service(parent=parent, service=exits, service_id=id + "-fails")
    fails(exceptions.GoogleAPICallError, "exit", failing.result, timeout=60)

    for gone in (name, name + "-fails"):
        assert services.delete_service(name=gone).result(timeout=60).name == gone
    fails(exceptions.NotFound, "was not found", services.get_service, name=name)
    print(transport, "ok")


for kind in ("grpc", "rest"):
    main(sys.argv[1], kind)
