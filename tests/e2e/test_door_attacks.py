"""Attacks at the edge door: framing, headers, paths, TLS, and the two doors taken for each other."""

from __future__ import annotations

import ssl
import uuid
from typing import TYPE_CHECKING

import httpx
import pytest
from _attacks import attacks
from _raw_door import NAME, RawDoor

from airbridge.credential import Credential
from airbridge.edge.token import request_headers

if TYPE_CHECKING:
    from _stack import Stack

WORKER, VICTIM = "door-attacker", "door-victim"
HOST = f"Host: {NAME}\r\n"


@pytest.fixture(scope="module")
def door(stack: Stack) -> RawDoor:
    return RawDoor.of(stack)


@pytest.fixture(scope="module")
def attacker(stack: Stack) -> Credential:
    return Credential.parse(stack.ensure(WORKER, WORKER))


@pytest.fixture(scope="module")
def victim(stack: Stack) -> Credential:
    return Credential.parse(stack.ensure(VICTIM, VICTIM))


def _signed(who: Credential, call: str) -> str:
    headers = request_headers(who.secret, who.name, call)
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _seen_behind(stack: Stack, marker: str) -> str:
    """Lines of the api-server that show a request with this marker."""
    return "\n".join(line for line in stack.compose.logs("api-server").splitlines() if marker in line)


# --- framing: one request is one request, in front and behind ---------------------------------------


def _smuggles(inner: str, who: Credential) -> dict[str, str]:
    """Ways to hide ``inner`` in the body of a request that the door lets pass."""
    size = len(inner)
    first = (
        f"POST /airbridge/v1/echo HTTP/1.1\r\n{HOST}{_signed(who, 'echo')}Content-Type: application/json\r\n"
    )
    chunked = "Transfer-Encoding: chunked\r\n"
    hidden = f"0\r\n\r\n{inner}"
    rest = f"Content-Length: {len(hidden)}\r\n\r\n{hidden}"
    body = f'{{"a": "{"x" * 20}"}}'
    return {
        "CL.TE": f"{first}Content-Length: {len(hidden)}\r\n{chunked}\r\n{hidden}",
        "TE.CL": f"{first}Content-Length: 4\r\n{chunked}\r\n{size:x}\r\n{inner}\r\n0\r\n\r\n",
        "CL.CL, different": f"{first}Content-Length: 0\r\nContent-Length: {size}\r\n\r\n{inner}",
        "CL list": f"{first}Content-Length: 0, {size}\r\n\r\n{inner}",
        "CL with a sign": f"{first}Content-Length: +{size}\r\n\r\n{inner}",
        "CL in hexadecimal": f"{first}Content-Length: 0x{size:x}\r\n\r\n{inner}",
        "CL behind a fold": f"{first}X-A: b\r\n Content-Length: 0\r\nContent-Length: {size}\r\n\r\n{inner}",
        "TE behind a fold": f"{first}Transfer-Encoding:\r\n chunked\r\n{rest}",
        "TE in a fold": f"{first}X-A: b\r\n Transfer-Encoding: chunked\r\n{rest}",
        "TE with a blank before the colon": f"{first}Transfer-Encoding : chunked\r\n\r\n{hidden}",
        "TE behind a tab": f"{first}Transfer-Encoding:\tchunked\r\n{rest}",
        "TE twice": f"{first}{chunked}Transfer-Encoding: identity\r\n\r\n{hidden}",
        "TE list": f"{first}Transfer-Encoding: chunked, identity\r\n\r\n{hidden}",
        "TE unknown": f"{first}Transfer-Encoding: xchunked\r\n{rest}",
        "TE of HTTP/1.0": first.replace("HTTP/1.1", "HTTP/1.0") + chunked + rest,
        "chunk extension with a line feed": f"{first}{chunked}\r\n{len(body):x};a=\n\r\n{body}\r\n{hidden}",
        "chunk extension in quotes": f'{first}{chunked}\r\n{len(body):x};a="\r\n{body}\r\n{hidden}',
        "chunks with bare line feeds": f"{first}{chunked}\r\n{len(body):x}\n{body}\n0\n\n{inner}",
        "chunk size with a sign": f"{first}{chunked}\r\n-1\r\n{inner}",
        "chunk size with a prefix": f"{first}{chunked}\r\n0x{len(body):x}\r\n{body}\r\n{hidden}",
        "chunk size that overflows": f"{first}{chunked}\r\n1{'0' * 16}\r\n{inner}",
        "chunk longer than it says": f"{first}{chunked}\r\n2\r\n{body}\r\n{hidden}",
        "bare carriage return": f"{first}X-A: b\rContent-Length: 0\r\nContent-Length: {size}\r\n\r\n{inner}",
        "header with NUL": f"{first}X-A: b\0\r\nContent-Length: {size}\r\n\r\n{inner}",
        "body of a GET": f"GET /airbridge/v1/version HTTP/1.1\r\n{HOST}{_signed(who, 'version')}"
        f"Content-Length: {size}\r\n\r\n{inner}",
        "trailer": f"{first}{chunked}Trailer: Content-Length\r\n\r\n0\r\nContent-Length: {size}\r\n\r\n",
        "upgrade to h2c": f"GET /airbridge/v1/version HTTP/1.1\r\n{HOST}{_signed(who, 'version')}"
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
        f"Content-Length: {size}\r\n\r\n{inner}",
        "upgrade to a WebSocket": f"GET /airbridge/v1/version HTTP/1.1\r\n{HOST}{_signed(who, 'version')}"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: {size}\r\n\r\n{inner}",
    }


def test_smuggled_requests_reach_nobody(stack: Stack, door: RawDoor, attacker: Credential) -> None:
    marker = uuid.uuid4().hex
    # What a way around the gateway's checks would be worth: it closes this path, the api-server has it.
    inner = f"GET /airbridge/v1/workers?{marker} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"
    answers = {name: door.send(text) for name, text in _smuggles(inner, attacker).items()}
    seen = _seen_behind(stack, marker)
    for name, answer in answers.items():
        # A second answer is one too many; whatever it says, the door took the body for a request.
        attacks.tried(f"smuggling: {name}", len(answer.statuses) > 1, answer)
    attacks.tried("smuggled request at the api-server", bool(seen), seen)


# --- headers: what the gateway says of a request is not for the client to say -------------------------


def test_spoofed_headers_change_nothing(stack: Stack, door: RawDoor, attacker: Credential) -> None:
    ask = "GET /airbridge/v1/workers HTTP/1.1\r\n"
    for name, headers in {
        "X-AirBridge-Door emptied": "X-AirBridge-Door:\r\n",
        "X-AirBridge-Door removed by Connection": "Connection: close, X-AirBridge-Door\r\n",
        "X-AirBridge-Door twice": "X-AirBridge-Door: ui\r\nX-AirBridge-Door: people\r\n",
        "X_AirBridge_Door": "X_AirBridge_Door: ui\r\n",
        "X-Forwarded-* of the inside": "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: localhost:8080\r\n"
        "X-Forwarded-Proto: http\r\nX-Forwarded-Prefix: /\r\nX-Real-IP: 127.0.0.1\r\n",
        "X-Original-URL": "X-Original-URL: /airbridge/v1/workers\r\nX-Rewrite-URL: /airbridge/v1/workers\r\n",
        "X-HTTP-Method-Override": "X-HTTP-Method-Override: GET\r\n",
    }.items():
        answer = door.send(f"{ask}{HOST}{_signed(attacker, 'workers')}{headers}\r\n")
        attacks.tried(f"people's call with {name}", answer.statuses != [404], answer)
        # The same at a path that the gateway lets pass: the middleware has to know the door.
        signed = _signed(attacker, "version").replace("Authorization", "X-Nothing")
        answer = door.send(f"GET /airbridge/v1/version HTTP/1.1\r\n{HOST}{signed}{headers}\r\n")
        attacks.tried(f"unsigned call with {name}", answer.statuses != [401], answer)


def test_address_in_the_record_is_the_one_that_the_gateway_saw(
    stack: Stack, door: RawDoor, attacker: Credential
) -> None:
    marker = f"unenrolled-{uuid.uuid4().hex[:8]}"
    door.send(
        f"GET /airbridge/v1/workers/{marker} HTTP/1.1\r\n{HOST}X-Forwarded-For: 203.0.113.9\r\n"
        f"{_signed(attacker, f'workers/{marker}')}\r\n"
    )
    line = next(line for line in _seen_behind(stack, marker).splitlines() if "airbridge.audit" in line)
    attacks.tried("X-Forwarded-For in the audit record", "203.0.113.9" in line, line)


def test_second_credential_beside_a_good_one_is_refused(
    door: RawDoor, attacker: Credential, victim: Credential
) -> None:
    version = "GET /airbridge/v1/version HTTP/1.1\r\n"
    mine, theirs = _signed(attacker, "version"), _signed(victim, "version")
    authorization = next(line for line in mine.split("\r\n") if line.startswith("Authorization"))
    for name, headers in {
        "two different ones": mine + theirs,
        "the same twice": f"{mine}{authorization}\r\n",
        "an empty second one": f"{mine}Authorization:\r\n",
        "folded": mine.replace(authorization, authorization.replace(": ", ":\r\n ") + "\r\nAuthorization: x"),
    }.items():
        answer = door.send(f"{version}{HOST}{headers}Connection: close\r\n\r\n")
        attacks.tried(f"two Authorization headers, {name}", 200 in answer.statuses, answer)
    token = "X-AirBridge-Token"
    for name, headers in {
        f"{token} twice": f"{token}: {attacker.text}\r\n{token}: {victim.text}\r\n",
        f"{token} as a list": f"{token}: {attacker.text}, {victim.text}\r\n",
    }.items():
        answer = door.send(f"GET /s3/airbridge-dags/dev/none HTTP/1.1\r\n{HOST}{headers}\r\n")
        attacks.tried(name, not set(answer.statuses) <= {400, 403}, answer)


# --- paths --------------------------------------------------------------------------------------------

#: Targets that would be something else for somebody who decodes, tidies or splits paths in another way.
TARGETS = (
    "/airbridge/v1/version/../workers",
    "/airbridge/v1/version/%2e%2e/workers",
    "/airbridge/v1/version/%2E%2E%2Fworkers",
    "/airbridge/v1/version/..%2fworkers",
    "/airbridge/v1/version/..;/workers",
    "/airbridge/v1/workers;version",
    "/airbridge/v1//workers",
    "//airbridge/v1/workers",
    "/airbridge//v1/workers",
    "/airbridge/v1/./workers",
    "/airbridge/v1/workers/",
    "/airbridge/v1/workers/.",
    "/airbridge/v1/workers.",
    "/airbridge/v1/workers%00",
    "/airbridge/v1/workers%20",
    "/airbridge/v1/WORKERS",
    "/AIRBRIDGE/v1/workers",
    "/airbridge/v1/%77orkers",
    "/airbridge/v1/%2577orkers",
    "/airbridge\\v1\\workers",
    "/airbridge/v1/metrics",
    "/airbridge/v1/%6detrics",
    "/airbridge/v1/version?/../workers",
    "/airbridge/v1/s3-auth",
    "/execution/../api/v2/dags",
    "/execution/task-instances/../../api/v2/dags",
    "/execution/task-instances/..%2f..%2fapi/v2/dags",
    "/execution/task-instances/%2e%2e/%2e%2e/api/v2/dags",
    "/execution//api/v2/dags",
    "/execution/task-instances/;/../../../api/v2/dags",
    "/edge_worker/v1/worker/../../../api/v2/dags",
    "/edge_worker/v1/worker/..%5c..%5c..%5capi",
    "/edge_worker/v1/health",
    "/edge_worker/v1/docs",
    "/edge_worker/",
    "/edge_worker/res/x",
    "/api/v2/dags",
    "/API/v2/dags",
    "/api/v2/dags/..;/dags",
    "/auth/token",
    "/auth/login",
    "/ui/config",
    "/docs",
    "/openapi.json",
    "/static/index.html",
    "/",
    "/.",
    "/s3/../api/v2/dags",
    "/s3/airbridge-dags/dev/../../../airbridge/v1/workers",
    "/s3/airbridge-dags/dev/%2e%2e/prod/x",
    "/s3/airbridge-dags/dev/..%2fprod/x",
    "/s3/airbridge-dags//dev/x",
    "/s3//airbridge-dags/dev/x",
    "/s3/_localstack/health",
    "/s3/airbridge-dags/dev/x?/../../_localstack/health",
    "http://api-server:8080/api/v2/dags",
    f"https://{NAME}/api/v2/dags",
    f"http://{NAME}@api-server:8080/api/v2/dags",
    "http://localstack:4566/_localstack/health",
    "api/v2/dags",
    "*",
)


def test_no_way_of_writing_a_path_opens_another_one(
    stack: Stack, door: RawDoor, attacker: Credential
) -> None:
    # Signed for what a careless reader would make of it, so that a signature is not what refuses it.
    for method in ("GET", "POST"):
        for target in TARGETS:
            call = target.rpartition("/v1/")[2]
            answer = door.send(
                f"{method} {target} HTTP/1.1\r\n{HOST}{_signed(attacker, call)}"
                f"X-AirBridge-Token: {attacker.text}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            through = any(code < 400 for code in answer.statuses)
            attacks.tried(f"path: {method} {target}", through, answer)


@pytest.mark.parametrize(
    "lines",
    [
        "Host: api-server:8080\r\n",
        "Host: localstack:4566\r\n",
        "Host: evil.example.org\r\n",
        "Host:\r\n",
        f"Host: {NAME}:99999\r\n",
        f"Host: {NAME}\r\nHost: api-server:8080\r\n",
        f"Host: {NAME}, api-server\r\n",
        "Host: 127.0.0.1:8081\r\n",
        "",
    ],
)
def test_host_header_leads_nowhere_else(door: RawDoor, lines: str) -> None:
    for path in ("/api/v2/version", "/metrics", "/_localstack/health"):
        answer = door.send(f"GET {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n")
        attacks.tried(f"host: {lines!r} {path}", any(code < 400 for code in answer.statuses), answer)


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT api-server:8080 HTTP/1.1",
        "TRACE /airbridge/v1/version HTTP/1.1",
        "TRACK /airbridge/v1/version HTTP/1.1",
        "PRI * HTTP/2.0",
        "GET /airbridge/v1/version HTTP/0.9",
        "GET /airbridge/v1/version",
        "get /airbridge/v1/version HTTP/1.1",
        "GET  /airbridge/v1/version HTTP/1.1",
        "GET /airbridge/v1/version HTTP/1.1 HTTP/1.1",
        "GET /airbridge/v1/workers\t/airbridge/v1/version HTTP/1.1",
    ],
)
def test_odd_request_lines_are_refused(door: RawDoor, attacker: Credential, line: str) -> None:
    answer = door.send(f"{line}\r\n{HOST}{_signed(attacker, 'version')}Connection: close\r\n\r\n")
    attacks.tried(f"request line: {line}", any(code < 400 for code in answer.statuses), answer)


# --- TLS ----------------------------------------------------------------------------------------------


def _handshake(door: RawDoor, context: ssl.SSLContext) -> str:
    """What was agreed on, or nothing."""
    try:
        with door.connect(context) as connection:
            return f"{connection.version()} {connection.cipher()}"
    except (ssl.SSLError, ConnectionError):
        return ""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(door: RawDoor, version: ssl.TLSVersion) -> None:
    context = door.context()
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side would refuse it first
    context.minimum_version = context.maximum_version = version
    agreed = _handshake(door, context)
    attacks.tried(f"TLS {version.name}", bool(agreed), agreed)


@pytest.mark.parametrize(
    "ciphers",
    ["RC4", "3DES", "aNULL", "eNULL", "EXPORT", "kRSA", "AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "DHE"],
)
def test_weak_ciphers_are_refused(door: RawDoor, ciphers: str) -> None:
    context = door.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    except ssl.SSLError:
        agreed = ""  # the TLS library of this machine has no such cipher left to offer
    else:
        agreed = _handshake(door, context)
    attacks.tried(f"cipher {ciphers}", bool(agreed), agreed)


def test_name_of_somebody_else_in_the_handshake_is_refused(door: RawDoor) -> None:
    context = door.context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name in ("api-server", "localstack", "evil.example.org"):
        try:
            with door.connect(context, name) as connection:
                connection.sendall(
                    f"GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
                )
                got = connection.recv(4096)
        except (ssl.SSLError, ConnectionError):
            got = b""
        attacks.tried(f"server name {name}", b" 200 " in got, got)


# --- each door is one door ----------------------------------------------------------------------------


def test_people_s_calls_are_not_served_at_the_edge_door(stack: Stack, door: RawDoor) -> None:
    """With an administrator's own token: the door, not the rights, is what refuses."""
    token = stack.api.http.headers["Authorization"]
    for path in (
        "/api/v2/dags",
        "/api/v2/connections",
        "/ui/dags",
        "/",
        "/auth/login",
        "/airbridge/v1/workers",
    ):
        answer = door.send(
            f"GET {path} HTTP/1.1\r\n{HOST}Authorization: {token}\r\nConnection: close\r\n\r\n"
        )
        attacks.tried(f"edge door with an administrator's token: {path}", answer.statuses != [404], answer)


def test_edge_hosts_calls_are_not_served_at_the_people_s_door_without_proof(
    stack: Stack, attacker: Credential
) -> None:
    base = f"http://127.0.0.1:{stack.ui_port}"
    with httpx.Client(base_url=base, trust_env=False, timeout=60) as people:
        for method, path in (
            ("POST", f"/edge_worker/v1/jobs/fetch/{attacker.name}"),
            ("POST", f"/edge_worker/v1/worker/{attacker.name}"),
            ("GET", "/airbridge/v1/version"),
            ("GET", "/airbridge/v1/s3-auth"),
            ("POST", "/airbridge/v1/certificate"),
        ):
            bare = people.request(method, path, json={})
            attacks.tried(f"people's door, nothing proved: {method} {path}", bare.is_success, bare.text)
            as_admin = people.request(
                method, path, json={}, headers={"Authorization": stack.api.http.headers["Authorization"]}
            )
            attacks.tried(
                f"people's door, administrator's token: {method} {path}", as_admin.is_success, as_admin.text
            )
        answer = people.get(
            "/airbridge/v1/s3-auth",
            headers={
                "X-AirBridge-Token": attacker.text,
                "X-Forwarded-Method": "GET",
                "X-Forwarded-Uri": "/s3/airbridge-dags/dev/x",
            },
        )
        attacks.tried("question of the gateway at the people's door", answer.is_success, answer.text)
