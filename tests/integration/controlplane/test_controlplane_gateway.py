"""The edge door: TLS, the paths that a worker needs, S3 for workers, and nothing else."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from tests.integration.controlplane.controlplane_containers import GATEWAY

if TYPE_CHECKING:
    from tests.integration.controlplane.conftest import Gateway
    from tests.integration.controlplane.controlplane_containers import Lab
    from tests.integration.controlplane.https_client import Answer, Door

TOKEN_HEADER = "X-AirBridge-Token"
RUN_ID = "manual__2026-01-01T00%3A00%3A00%2B00%3A00"
TASK = "0198f0d2-7a31-7c58-b5cc-0123456789ab"


def _words(text: str) -> list[str]:
    return text.split()


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


# --- TLS ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["localhost", "gateway", "host.docker.internal", "edge.example.org", "127.0.0.1"]
)
def test_every_name_has_a_certificate_of_the_gateways_own_ca(door: Door, name: str) -> None:
    assert door.ask("GET", "/healthz", name=name).body == b"ok"


def test_client_that_dials_an_address_needs_no_server_name(door: Door) -> None:
    with door.connect(None) as connection:
        names = connection.getpeercert()
    assert names is not None
    assert ("IP Address", "127.0.0.1") in names["subjectAltName"]
    assert door.ask("GET", "/healthz", name=None, host=f"127.0.0.1:{door.port}").body == b"ok"


def test_address_of_ip_version_6_is_a_name_too(door: Door) -> None:
    assert door.ask("GET", "/healthz", host=f"[::1]:{door.port}").body == b"ok"


def test_stranger_to_the_ca_does_not_trust_the_gateway(door: Door) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        door.connect(context=ssl.create_default_context())


def test_name_that_is_not_the_gateways_gets_no_certificate_for_it(door: Door) -> None:
    with pytest.raises(ssl.SSLError):
        door.connect("evil.example.org")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_1_1_is_refused_by_the_gateway(door: Door) -> None:
    old = door.context()
    old.set_ciphers("ALL:@SECLEVEL=0")  # else this side would refuse it first
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
        door.connect(context=old)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(door: Door, version: ssl.TLSVersion) -> None:
    context = door.context()
    context.minimum_version = context.maximum_version = version
    with door.connect(context=context) as connection:
        assert connection.version() == version.name.replace("v1_", "v1.")


def test_plain_http_gets_nowhere(gateway: Gateway) -> None:
    done = gateway.container.execute(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://localhost:8443/healthz"
    )
    assert done.out == "400"


def test_http_2_takes_the_same_way(gateway: Gateway) -> None:
    root = "/data/caddy/pki/authorities/local/root.crt"
    base = ["curl", "-s", "--http2", "--path-as-is", "--cacert", root, "-w", "\n%{http_version} %{http_code}"]
    allowed = gateway.container.execute(*base, "https://localhost:8443/airbridge/v1/version").out
    assert '"upstream": "api-server"' in allowed
    assert allowed.splitlines()[-1] == "2 200"
    refused = gateway.container.execute(*base, "https://localhost:8443/execution/../api/v2/dags").out
    assert refused.splitlines()[-1] == "2 400"


# --- paths ----------------------------------------------------------------------------------------
ALLOWED = [
    ("POST", "/edge_worker/v1/worker/north-1"),
    ("PATCH", "/edge_worker/v1/worker/north-1"),
    ("PATCH", "/edge_worker/v1/worker/queues/north-1"),
    ("POST", "/edge_worker/v1/jobs/fetch/north-1"),
    ("PATCH", f"/edge_worker/v1/jobs/state/etl/extract/{RUN_ID}/1/-1/success"),
    ("PATCH", "/edge_worker/v1/jobs/state/etl/extract/manual__2026-01-01T00:00:00+00:00/2/13/failed"),
    ("GET", f"/edge_worker/v1/logs/logfile_path/etl/extract/{RUN_ID}/1/-1"),
    ("POST", f"/edge_worker/v1/logs/push/etl/group.extract/{RUN_ID}/1/-1"),
    ("PATCH", f"/execution/task-instances/{TASK}/run"),
    ("PUT", f"/execution/task-instances/{TASK}/heartbeat"),
    ("PATCH", f"/execution/task-instances/{TASK}/state"),
    ("GET", "/execution/task-instances/count?dag_id=etl"),
    ("GET", f"/execution/xcoms/etl/{RUN_ID}/extract/return_value?map_index=-1"),
    ("HEAD", f"/execution/xcoms/etl/{RUN_ID}/extract/return_value"),
    ("POST", f"/execution/xcoms/etl/{RUN_ID}/extract/return_value"),
    ("GET", "/execution/variables/region"),
    ("PUT", "/execution/variables/region"),
    ("DELETE", "/execution/variables/region"),
    ("GET", "/execution/connections/warehouse"),
    ("POST", f"/execution/dag-runs/etl/{RUN_ID}"),
    ("GET", "/execution/assets/by-name?name=daily"),
    ("GET", "/execution/asset-events/by-asset?name=daily"),
    ("GET", f"/execution/task-reschedules/{TASK}/start_date"),
    ("GET", "/airbridge/v1/version"),
    ("GET", "/airbridge/v1/workers/north-1"),
    ("GET", "/airbridge/v1/enrolment/north-1"),
    ("POST", "/airbridge/v1/echo"),
    ("POST", "/airbridge/v1/join"),
]


@pytest.mark.parametrize(("method", "target"), ALLOWED)
def test_call_of_a_worker_reaches_the_api_server_as_it_was_sent(door: Door, method: str, target: str) -> None:
    body = b'{"state": "idle"}' if method not in ("GET", "HEAD") else b""
    answer = door.ask(method, target, {"Authorization": "a.b.c"}, body)
    assert (answer.status, answer.upstream) == (200, "api-server")
    if method != "HEAD":
        assert (answer.seen["method"], answer.seen["path"]) == (method, target)
        assert answer.seen["body"] == body.decode()
        assert answer.seen_headers("Authorization") == ["a.b.c"]


DENIED = _words(
    r"""
    / /index.html /login /logout /auth/login /auth/login/ /auth/token /auth/menus /api/v2/dags
    /api/v2/version /api/v2/monitor/health /api/v1/dags /docs /redoc /openapi.json /ui /ui/config
    /ui/auth/menus /pluginsv2 /users/list/ /metrics /static /static/main.js /favicon.ico /home
    /dags/etl/runs /execution /execution/ /execution/health /execution/docs /execution/openapi.json
    /execution/hitlDetails/x /execution/variables /execution/task-instancesx/1 /edge_worker
    /edge_worker/ /edge_worker/docs /edge_worker/openapi.json /edge_worker/ui /edge_worker/ui/worker
    /edge_worker/ui/jobs /edge_worker/static/main.js /edge_worker/res/x /edge_worker/v1 /edge_worker/v1/
    /edge_worker/v1/health /edge_worker/v1/rpcapi /edge_worker/v1/worker /edge_worker/v1/worker/
    /edge_worker/v1/worker/a/b/c /edge_worker/v1/jobs/state/a/b/c/1/0
    /edge_worker/v1/jobs/state/a/b/c/x/0/success /edge_worker/v1/jobs/state/a/b/c/1/0/SUCCESS
    /edge_worker/v1/logs/push/a/b/c/1/0/more /edge_worker/v2/worker/north-1
    /EDGE_WORKER/v1/worker/north-1 /edge_worker/V1/worker/north-1 /Airbridge/v1/version /airbridge
    /airbridge/ /airbridge/v1 /airbridge/v1/versions /airbridge/v1/workers /airbridge/v1/workers/
    /airbridge/v1/metrics /airbridge/v1/enrolment /airbridge/v1/join/
    /airbridge/v1/workers/North /airbridge/v1/workers/a/b /airbridge/v1/workers/a%0a /airbridge/docs
    /s /healthz/ /healthzz /_localstack /_localstack/health /airbridge-dags/dev/x
    /x/edge_worker/v1/worker/north-1 /edge_worker/v1/worker/north-1;x/y
    *
    """
)


@pytest.mark.parametrize("target", DENIED)
def test_any_other_path_is_not_there(door: Door, target: str) -> None:
    for method in ("GET", "POST", "PATCH"):
        answer = door.ask(method, target)
        assert (answer.status, answer.upstream, answer.body) == (404, "", b"")


TRICKS = _words(
    r"""
    /execution/../api/v2/dags /execution/variables/../../api/v2/dags /execution/variables/..
    /execution/variables/./x /execution/variables/x/. /edge_worker/v1/../ui/worker /. /..
    /edge_worker/v1/worker/..?a=b /airbridge/v1/../../api/v2/dags /../api/v2/dags
    /execution/%2e%2e/api/v2/dags /execution/%2E%2E/api/v2/dags /execution/variables/%2e%2e/%2e%2e/ui
    /execution/variables/.%2e/.%2E/ui /execution/variables%2f..%2fui /execution/variables/a%2Fb
    /execution/variables/..%2fui /execution/variables/a%5c..%5cb /execution/variables/a\..\b
    /execution/variables/%00 /execution/variables/x%00.html /execution/variables/%252e%252e/ui
    //edge_worker/v1/worker/north-1 /edge_worker//v1/worker/north-1 /edge_worker/v1/worker//north-1
    //api/v2/dags /execution/variables// //airbridge/v1/version /s3/airbridge-dags//dev/x
    /s3/airbridge-dags/dev/../prod/x /s3/airbridge-dags/dev/%2e%2e/prod/x /s3/../api/v2/dags
    /s3/airbridge-logs/dev/diag/..%2f..%2f..%2fother/x /http://api-server:8080/
    """
)


@pytest.mark.parametrize("target", TRICKS)
def test_path_with_a_trick_in_it_is_refused_outright(door: Door, credential: str, target: str) -> None:
    answer = door.ask("GET", target, {TOKEN_HEADER: credential})
    assert (answer.status, answer.upstream, answer.body) == (400, "", b"")


def test_request_to_a_proxy_is_not_taken_for_one_to_the_gateway(door: Door) -> None:
    for address in ("http://api-server:8080/api/v2/dags", "http://localhost:8443/airbridge/v1/version"):
        answer = door.ask("GET", address)
        assert answer.status in (400, 404)
        assert answer.upstream == ""


def test_dots_within_a_name_are_no_trick(door: Door) -> None:
    target = "/execution/variables/..region..eu...north"
    assert door.ask("GET", target).seen["path"] == target


WRONG_METHODS = [
    ("GET", "/edge_worker/v1/worker/north-1"),
    ("PUT", "/edge_worker/v1/worker/north-1"),
    ("DELETE", "/edge_worker/v1/worker/north-1"),
    ("POST", "/edge_worker/v1/worker/queues/north-1"),
    ("GET", "/edge_worker/v1/jobs/fetch/north-1"),
    ("POST", f"/edge_worker/v1/jobs/state/etl/extract/{RUN_ID}/1/-1/success"),
    ("POST", f"/edge_worker/v1/logs/logfile_path/etl/extract/{RUN_ID}/1/-1"),
    ("GET", f"/edge_worker/v1/logs/push/etl/extract/{RUN_ID}/1/-1"),
    ("OPTIONS", "/edge_worker/v1/worker/north-1"),
    ("HEAD", "/edge_worker/v1/worker/north-1"),
    ("post", "/edge_worker/v1/worker/north-1"),
    ("OPTIONS", "/execution/variables/region"),
    ("TRACE", "/execution/variables/region"),
    ("PROPFIND", "/execution/variables/region"),
    ("POST", "/airbridge/v1/version"),
    ("GET", "/airbridge/v1/echo"),
    ("DELETE", "/airbridge/v1/workers/north-1"),
]


@pytest.mark.parametrize(("method", "target"), WRONG_METHODS)
def test_method_that_no_worker_uses_is_not_there(door: Door, method: str, target: str) -> None:
    answer = door.ask(method, target)
    assert (answer.status, answer.upstream) == (404, "")


@pytest.mark.parametrize("host", ["api-server:8080", "evil.example.org", "airbridge-dags.s3.amazonaws.com"])
@pytest.mark.parametrize("target", ["/airbridge/v1/version", "/api/v2/dags", "/s3/airbridge-dags/dev/x"])
def test_host_that_is_not_the_gateways_reaches_nothing(
    door: Door, credential: str, host: str, target: str
) -> None:
    answer = door.ask("GET", target, {TOKEN_HEADER: credential}, host=host)
    assert (answer.status, answer.upstream, answer.body) == (404, "", b"")


# --- what is told to the services behind ----------------------------------------------------------
def test_api_server_learns_the_door_and_not_what_the_client_says_about_itself(door: Door) -> None:
    claims = {
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Host": "localhost:8080",
        "X-Forwarded-Proto": "http",
        "X-AirBridge-Door": "ui",
    }
    answer = door.ask("GET", "/airbridge/v1/version", claims)
    assert "127.0.0.1" not in answer.seen_headers("X-Forwarded-For")[0]
    assert answer.seen_headers("X-Forwarded-Host") == [f"localhost:{door.port}"]
    assert answer.seen_headers("X-Forwarded-Proto") == ["https"]
    assert answer.seen_headers("X-AirBridge-Door") == ["edge"]


def test_api_server_learns_which_worker_sends_a_tasks_call(door: Door, credential: str) -> None:
    answer = door.ask("GET", "/execution/variables/region", {TOKEN_HEADER: credential})
    assert answer.seen_headers(TOKEN_HEADER) == [credential]
    assert answer.seen_headers("X-AirBridge-Door") == ["edge"]


def test_api_server_learns_the_version_of_the_edge_host(door: Door) -> None:
    answer = door.ask("GET", "/airbridge/v1/version", {"X-AirBridge-Version": "0.1.0"})
    assert answer.seen_headers("X-AirBridge-Version") == ["0.1.0"]


# --- S3 -------------------------------------------------------------------------------------------
LOG_KEY = f"/airbridge-logs/dev/task-logs/dag_id=etl/run_id={RUN_ID}/task_id=extract/attempt=1.log"
S3_PASSED = [
    ("GET", "/airbridge-dags/dev/etl/dags/etl.py"),
    ("HEAD", "/airbridge-dags/dev/etl/dags/etl.py"),
    ("PUT", "/airbridge-dags/dev/etl/dags/b%20c+%C3%BC.py"),
    ("DELETE", "/airbridge-dags/dev/etl/dags/etl.py"),
    ("GET", "/airbridge-dags/dev/etl/metadata.json?versionId=abc&x-id=GetObject"),
    ("GET", "/airbridge-dags?list-type=2&prefix=dev%2F&delimiter=%2F&encoding-type=url&max-keys=1000"),
    ("GET", "/airbridge-dags/?prefix=dev/etl/"),
    ("GET", "/airbridge-dags?list-type=2&prefix=dev%2F&continuation-token=a%2Bb%3D%3D"),
    ("POST", "/airbridge-dags?delete"),
    ("HEAD", "/airbridge-logs/"),
    ("PUT", LOG_KEY),
    ("POST", f"{LOG_KEY}?uploads"),
    ("PUT", f"{LOG_KEY}?partNumber=1&uploadId=abc"),
]


def _s3(door: Door, method: str, target: str, **headers: str) -> Answer:
    body = b"log line" if method in ("PUT", "POST") else b""
    return door.ask(method, f"/s3{target}", headers, body)


@pytest.mark.parametrize(("method", "target"), S3_PASSED)
def test_request_to_s3_reaches_the_door_behind_to_the_letter(door: Door, method: str, target: str) -> None:
    """What was signed is what it verifies: nothing on the way may tidy it up."""
    signed = {
        "Authorization": "AWS4-HMAC-SHA256 x",
        "X-Amz-Date": "20260101T000000Z",
        "Accept-Encoding": "identity",
        "X-AirBridge-Signed-Host": "uplink:9000",
        "X-AirBridge-Version": "0.1.0",
    }
    answer = _s3(door, method, target, **signed)
    assert (answer.status, answer.upstream) == (200, "s3-door")
    if method != "HEAD":
        assert (answer.seen["method"], answer.seen["path"]) == (method, f"/s3{target}")
        assert answer.seen["body"] == ("log line" if method in ("PUT", "POST") else "")
        assert {name: answer.seen_headers(name) for name in signed} == {
            name: [value] for name, value in signed.items()
        }


def test_what_the_gateway_says_of_a_client_comes_from_no_client(door: Door) -> None:
    lies = {"X-AirBridge-Client-Name": "north-1", "X-AirBridge-Client-Serial": "1", TOKEN_HEADER: "secret"}
    answer = _s3(door, "GET", LOG_KEY, **lies)
    assert {name: answer.seen_headers(name) for name in lies} == {name: [] for name in lies}


S3_DENIED = [
    tuple(line.replace("{LOG_KEY}", LOG_KEY).split(" "))
    for line in _lines(
        """
        PATCH {LOG_KEY}
        OPTIONS {LOG_KEY}
        GET /other/dev/x
        GET /airbridge-dags-old/dev/x
        GET /xairbridge-dags/dev/x
        GET /AIRBRIDGE-DAGS/dev/x
        GET /
        GET /?x-id=ListBuckets
        HEAD /other
        PUT /other
        GET /_localstack/health
        POST /_localstack/state/reset
        GET /_aws/x
        """
    )
]


@pytest.mark.parametrize(("method", "target"), S3_DENIED)
def test_gateway_knows_two_buckets_and_no_other_service(door: Door, method: str, target: str) -> None:
    answer = _s3(door, method, target)
    assert (answer.status, answer.upstream) == (403, "")
    if method != "HEAD":
        assert answer.body.startswith(b"AccessDenied: ")


def test_presigned_signature_is_in_no_log_line(gateway: Gateway, door: Door) -> None:
    _s3(door, "GET", "/airbridge-dags/dev/logged.py?X-Amz-Expires=60&X-Amz-Signature=abcdefsecret")
    logs = gateway.container.logs()
    assert "/airbridge-dags/dev/logged.py" in logs
    assert "abcdefsecret" not in logs


# --- its own life ---------------------------------------------------------------------------------
BAD_SETTINGS = {
    "GATEWAY_NAMES": [
        "edge.example.org:8443",
        "https://edge.example.org",
        "a,b",
        "*",
        "under_score",
        "-x",
        "[::1]",
    ],
    "GATEWAY_PUBLIC_HOST": ["edge.example.org:443", "two names", "*.example.org", "{env.HOME}"],
    "DAG_BUCKET": ["", "a b", "DAGS", "dags/x", ".*"],
    "LOG_BUCKET": ["(x)"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD_SETTINGS.items() for v in values])
def test_malformed_setting_is_named_in_one_line(gateway: Gateway, name: str, value: str) -> None:
    done = gateway.container.execute("airbridge-gateway", **{name: value})
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("gateway: ")
    assert name in done.err
    assert "| fix: " in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_ACME_DIRECTORY", "http://acme.example.org/dir"),
        ("GATEWAY_ACME_EMAIL", "nobody"),
        ("GATEWAY_ACME_CA_FILE", "/does/not/exist.pem"),
        ("GATEWAY_ACME_CA_FILE", "/etc/hostname"),
    ],
)
def test_malformed_acme_setting_is_named_in_one_line(gateway: Gateway, name: str, value: str) -> None:
    done = gateway.container.execute(
        "airbridge-gateway", GATEWAY_PUBLIC_HOST="edge.example.org", **{name: value}
    )
    assert (done.code, done.out) == (2, "")
    assert name in done.err
    assert done.err.count("\n") == 1


def test_health_check_fails_where_no_gateway_listens(lab: Lab) -> None:
    done = lab.run(GATEWAY, entrypoint="airbridge-gateway-health")
    assert done.code != 0


def test_ca_survives_kill_and_restart(gateway: Gateway) -> None:
    root = gateway.door.root
    gateway.container.kill()
    gateway.container.start()
    gateway.find_door()
    assert gateway.door.root == root
    assert gateway.door.ask("GET", "/airbridge/v1/version").status == 200


def test_token_is_in_no_log_line(gateway: Gateway, door: Door, credential: str) -> None:
    _s3(door, "GET", LOG_KEY, **{TOKEN_HEADER: credential})
    door.ask("GET", "/airbridge/v1/version", {"Authorization": "edge.jwt.of-a-worker", "Cookie": "session=1"})
    door.ask("GET", "/s3/airbridge-dags/dev/x", {TOKEN_HEADER: credential}, host="not-mine.example.org")
    logs = gateway.container.logs()
    assert "/airbridge/v1/version" in logs
    assert "not-mine.example.org" in logs
    assert credential not in logs
    assert "edge.jwt.of-a-worker" not in logs
