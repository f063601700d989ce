"""An edge host reaches the edge endpoint and nothing else, and what it holds opens nothing else (A1, D5)."""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from itertools import product
from typing import TYPE_CHECKING

import httpx
import jwt
import pytest
from _stack import LOG_BUCKET, docker

from airbridge.credential import Credential

if TYPE_CHECKING:
    from _stack import EdgeHost, Stack

# Every port on which any container of a control plane listens, or would by default.
PORTS = (2019, 4566, 5432, 8080, 8081, 8443, 8793, 8794, 8974, 9000)

# Runs inside the edge worker: which of these addresses take a connection?
_DIAL = """
import json, socket
from concurrent.futures import ThreadPoolExecutor
def opens(address):
    try:
        with socket.create_connection(tuple(address), timeout=2):
            return True
    except OSError:
        return False
addresses = json.loads(input())
with ThreadPoolExecutor(64) as pool:
    print(json.dumps([a for a, yes in zip(addresses, pool.map(opens, addresses)) if yes]))
"""

# Which of these names are known there?
_RESOLVE = """
import json, socket
def known(name):
    try:
        socket.getaddrinfo(name, None)
        return True
    except OSError:
        return False
print(json.dumps([name for name in json.loads(input()) if known(name)]))
"""

# Everything that a process in the container could read: environments, and every file that the image's
# packages did not bring.
_LOOT = """
cat /proc/[0-9]*/environ 2>/dev/null
find /run /secrets /tmp /etc /var/lib/airbridge /opt/airflow /cache /store /data -type f -size -8M \
  -exec cat {} + 2>/dev/null
"""


def _dial(edge: EdgeHost, addresses: list[tuple[str, int]]) -> list[tuple[str, int]]:
    done = edge.exec("edge-worker", "python", "-c", _DIAL, stdin=json.dumps(addresses))
    return [(host, port) for host, port in json.loads(done.stdout)]


def test_edge_worker_reaches_no_port_of_any_control_plane_container(stack: Stack, edge: EdgeHost) -> None:
    """A1, C2: not even the gateway's own inner ports; networks of the engine are no way around the door."""
    inside = sorted(
        network["IPAddress"]
        for container in stack.compose.containers()
        for network in container["NetworkSettings"]["Networks"].values()
    )
    assert len(inside) >= 8
    assert _dial(edge, list(product(inside, PORTS))) == []


def test_edge_worker_reaches_the_endpoint_and_neither_ui_nor_s3_on_the_machine_beside_it(
    stack: Stack, edge: EdgeHost
) -> None:
    """A1: both are bound to loopback, so the machine's other addresses do not answer for them."""
    names = [f"{stack.compose.project}_{name}" for name in ("ui-door", "raw-s3", "edge-door")]
    names += [f"{edge.compose.project}_edge", "bridge"]
    networks = json.loads(docker("network", "inspect", *names).stdout)
    subnets = [ipaddress.ip_network(config["Subnet"]) for one in networks for config in one["IPAM"]["Config"]]
    # The machine itself is the first host of every network that the engine makes.
    machine = {str(next(subnet.hosts())) for subnet in subnets} | {"host.docker.internal"}
    endpoint = ("host.docker.internal", stack.gateway_port)
    closed = product(sorted(machine), (stack.ui_port, stack.s3_port))
    assert _dial(edge, [endpoint, *closed]) == [endpoint]


def test_edge_worker_knows_no_name_of_the_control_plane(stack: Stack, edge: EdgeHost) -> None:
    """A1."""
    names = [name for name in stack.compose.services() if name != "dag-sync"]  # an edge host has its own
    done = edge.exec("edge-worker", "python", "-c", _RESOLVE, stdin=json.dumps([*names, "uplink"]))
    assert json.loads(done.stdout) == ["uplink"]


@pytest.fixture(scope="session")
def secrets(stack: Stack) -> dict[str, str]:
    """Every secret of the control plane."""
    files = {
        "signing": ("jwt-private-key", "internal-edge-secret", "admin-password"),
        "control": ("db-password", "fernet-key", "session-secret"),
        "issuing": ("client-ca",),
    }
    paths = [f"/secrets/{folder}/{name}" for folder, names in files.items() for name in names]
    script = 'for f; do printf "%s\\0" "$(cat "$f")"; done'
    values = stack.exec("api-server", "sh", "-c", script, "sh", *paths).stdout.split("\0")[:-1]
    found = dict(zip(paths, values, strict=True))
    # The key's lines, because a file may hold it in another layout.
    for key in ("/secrets/signing/jwt-private-key", "/secrets/issuing/client-ca"):
        found[key] = found[key].splitlines()[1]
    assert all(len(value) > 8 for value in found.values())
    return found


@pytest.mark.parametrize("service", ["edge-worker", "courier", "uplink", "dag-sync"])
def test_edge_host_holds_no_secret_of_the_control_plane(
    stack: Stack, edge: EdgeHost, secrets: dict[str, str], service: str
) -> None:
    """A1, D5: neither the signing key nor any password, in no environment and no file."""
    loot = edge.exec(service, "sh", "-c", _LOOT, check=False).stdout
    loot += json.dumps(json.loads(docker("inspect", edge.compose.container(service)).stdout)[0]["Config"])
    assert [name for name, value in secrets.items() if value in loot] == []
    # What it may hold is found by the same search.
    own = (edge.folder / "token").read_text().strip()
    assert own in loot
    assert "UPLINK" in loot or "uplink" in loot


@pytest.mark.parametrize("audience", ["apache-airflow", "api", "urn:airflow.apache.org:task", None])
@pytest.mark.parametrize("algorithm", ["HS512", "HS256", "none"])
@pytest.mark.parametrize(
    "path", ["/api/v2/dags", "/api/v2/variables", "/execution/variables/any", "/execution/connections/any"]
)
def test_token_forged_with_a_workers_secret_opens_neither_api(
    stack: Stack, edge: EdgeHost, path: str, algorithm: str, audience: str | None
) -> None:
    """D5: an edge host's secret is of no use at the doors of people and of other tasks."""
    now = int(time.time())
    # FAB's first user, and what a task of the Execution API would be.
    claims = {"sub": "1", "iat": now, "nbf": now, "exp": now + 300, "iss": "a", "method": path.lstrip("/")}
    claims |= {"aud": audience} if audience else {}
    own = Credential.parse((edge.folder / "token").read_text().strip())
    key = None if algorithm == "none" else own.secret
    forged = jwt.encode(claims, key, algorithm=algorithm)  # type: ignore[arg-type]
    for value in (f"Bearer {forged}", forged):
        answer = httpx.get(
            f"{stack.api.base}{path}", headers={"Authorization": value}, trust_env=False, timeout=60
        )
        assert answer.status_code in (401, 403), f"{answer.status_code} {answer.text[:500]}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v2/dags",
        "/api/v2/version",
        "/auth/token",
        "/auth/login/",
        "/edge_worker/v1/docs",
        "/execution/docs",
        "/docs",
        "/metrics",
    ],
)
def test_endpoint_serves_nothing_that_a_worker_does_not_need(stack: Stack, edge: EdgeHost, path: str) -> None:
    """A1, D5: not even to an administrator."""
    context = ssl.create_default_context(cafile=str(edge.folder / "ca.crt"))
    # The certificate names host.docker.internal; from here that machine is this one.
    url = f"https://127.0.0.1:{stack.gateway_port}{path}"
    with httpx.Client(verify=context, trust_env=False, timeout=60) as client:
        headers = {**stack.api.http.headers, "Host": "host.docker.internal"}
        answer = client.get(url, headers=headers, extensions={"sni_hostname": "host.docker.internal"})
    assert answer.status_code == 404, f"{answer.status_code} {answer.text[:500]}"


def test_edge_host_cannot_write_dags_nor_read_other_prefixes_through_the_endpoint(
    stack: Stack, edge: EdgeHost
) -> None:
    """S2, D5: through its own uplink, signed with its own credential."""
    script = """
import json, os, urllib.error, urllib.request
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
name, _, secret = open(os.environ["CONTROL_PLANE_TOKEN_FILE"]).read().strip().partition(".")
signer = S3SigV4Auth(Credentials(name, secret), "s3", "us-east-1")
answers = {}
for method, path in json.loads(input()):
    body = b"x" if method == "PUT" else b""
    signed = AWSRequest(method, f"http://uplink:9000{path}", data=body)
    signer.add_auth(signed)
    headers = dict(signed.headers)
    request = urllib.request.Request(signed.url, body or None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answers[f"{method} {path}"] = answer.status
    except urllib.error.HTTPError as error:
        answers[f"{method} {path}"] = error.code
print(json.dumps(answers))
"""
    sample = "/airbridge-dags/dev/edge_sample/dags/edge_sample_dag.py"
    asked = [
        ("GET", sample),
        ("PUT", sample),
        ("DELETE", sample),
        ("PUT", "/airbridge-dags/dev/evil/dags/evil.py"),
        ("GET", "/airbridge-dags/prod/any/dags/any.py"),
        ("GET", "/airbridge-dags?versions"),
        ("PUT", f"/{LOG_BUCKET}/elsewhere/any.log"),
        ("GET", "/"),
        ("PUT", "/bucket-of-its-own"),
    ]
    done = edge.exec("edge-worker", "python", "-c", script, stdin=json.dumps(asked))
    answers = json.loads(done.stdout)
    assert answers.pop(f"GET {sample}") == 200
    assert set(answers.values()) <= {400, 403, 404}, answers
    assert (
        "edge_sample_dag"
        in stack.s3.get_object(Bucket="airbridge-dags", Key="dev/edge_sample/dags/edge_sample_dag.py")["Body"]
        .read()
        .decode()
    )
