"""Mutual TLS as a switch: a client certificate opens its own worker's door, and nothing goes without one."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from _attacks import attacks
from _s3_door import enroll_publisher, principal
from _stack import until

from airbridge.client_certificate import ClientCertificate, new_request
from airbridge.credential import Credential
from airbridge.edge.token import request_headers
from airbridge.identity.authority import Authority

if TYPE_CHECKING:
    from _stack import EdgeHost, Stack
    from _strict import Door

WORKER, OTHER = "tls-mine", "tls-theirs"
DAG = f"""
from airflow.sdk import dag, task

@dag(schedule=None)
def tls_echo():
    task(task_id="one", queue="{WORKER}")(lambda: "done")()

tls_echo()
"""


@pytest.fixture(scope="module")
def door(strict: Door) -> Door:
    strict.stack.put_dag("tls_echo", "tls_echo.py", DAG)
    return strict


@pytest.fixture(scope="module")
def host(door: Door) -> EdgeHost:
    """An edge host that joined: no certificate was given to it, it made its own key."""
    stack = door.stack
    token = stack.identity("enroll", WORKER, "--queues", WORKER, "--concurrency", "8").stdout.strip()
    return stack.edge(WORKER, WORKER, given=token)


def _held(host: EdgeHost) -> ClientCertificate:
    return ClientCertificate.parse(host.exec("edge-worker", "cat", "/var/lib/airbridge/client.pem").stdout)


def _credential(host: EdgeHost) -> Credential:
    text = host.exec("edge-worker", "cat", "/var/lib/airbridge/credential").stdout
    return Credential.parse(text.strip())


def _expiry(stack: Stack, name: str) -> str:
    import json

    rows = json.loads(stack.identity("list", "--json").stdout)["workers"]
    return str(next(row["certificate_expires"] for row in rows if row["name"] == name))


def test_task_runs_on_a_host_whose_key_never_travelled(door: Door, host: EdgeHost) -> None:
    ended = door.stack.wait_for_run(door.stack.trigger("tls_echo"))
    assert ended.one("one").hostname == WORKER
    assert door.reason(_held(host), _credential(host)) == ""
    diag = host.exec("edge-worker", "diag", check=False)
    assert "29.9 days to expiry, required" in diag.stdout or "30.0 days to expiry, required" in diag.stdout
    assert _expiry(door.stack, WORKER) == _held(host).not_after.isoformat(timespec="seconds")


def test_nothing_but_the_exchange_of_a_join_token_goes_without_a_certificate(
    door: Door, host: EdgeHost
) -> None:
    who = _credential(host)
    with door.client(None) as stranger:
        options: dict[str, Any] = {"extensions": {"sni_hostname": "host.docker.internal"}}
        assert stranger.get("/healthz", **options).status_code == 200
        assert stranger.post("/airbridge/v1/join", json={}, **options).json()["reason"] == "join_refused"
        for method, path in (
            ("GET", "/airbridge/v1/version"),
            ("POST", "/airbridge/v1/certificate"),
            ("POST", f"/edge_worker/v1/jobs/fetch/{who.name}"),
            ("PUT", "/execution/task-instances/0198f0d2-7a31-7c58-b5cc-0123456789ab/heartbeat"),
            ("GET", "/s3"),
            ("GET", "/S3/airbridge-dags/dev/x"),
            ("POST", "/AIRBRIDGE/v1/join"),
            ("POST", "/airbridge/v1/join/"),
            ("POST", "/airbridge/v1/join?x=/healthz"),
            ("POST", "/airbridge/v1/%6aoin"),
            ("GET", "/healthz/"),
        ):
            call = path.removeprefix("/airbridge/v1/").removeprefix("/edge_worker/v1/")
            headers = request_headers(who.secret, who.name, call) | {
                "X-AirBridge-Token": who.text,
                "X-AirBridge-Client-Name": who.name,
                "X-AirBridge-Client-Serial": _held(host).serial,
                "X-Airbridge-Client-Subject": f"CN={who.name}",
            }
            answer = stranger.request(method, path, headers=headers, **options)
            refused = answer.status_code == 403 and answer.json()["reason"] == "certificate_missing"
            attacks.tried(f"no client certificate: {method} {path}", not refused, answer.text)


def test_s3_asks_edge_hosts_for_their_certificate_and_publishers_for_none(door: Door, host: EdgeHost) -> None:
    """Edge hosts read DAGs through their uplink here all the time; this is the credential without it."""
    publisher = enroll_publisher(door.stack, "tls-team", "tls_echo")
    file = "/airbridge-dags/dev/tls_echo/dags/tls_echo.py"
    until("the publisher is known", lambda: publisher.ask("GET", file).status == 200, 10)
    stolen = principal(door.stack, _credential(host).text)
    spoofed = {"X-AirBridge-Client-Name": WORKER, "X-AirBridge-Client-Serial": _held(host).serial}
    for name, headers in (("plain", {}), ("with headers that name it", spoofed)):
        sent = stolen.sign("GET", file)
        answer = stolen.send(replace(sent, headers=(*sent.headers, *headers.items())))
        refused = answer.status == 403 and b"client certificate" in answer.body
        attacks.tried(f"S3 without the client certificate, {name}", not refused, answer.body)


def test_certificate_of_a_foreign_ca_ends_the_handshake(door: Door, host: EdgeHost) -> None:
    who = _credential(host)
    _, foreign = Authority.new().issue_with_key(WORKER, timedelta(days=1))
    reason = door.reason(foreign, who)
    attacks.tried("client certificate of a foreign CA", reason != "handshake", reason)


def test_certificate_of_another_worker_does_not_go_with_this_ones_credential(
    door: Door, host: EdgeHost
) -> None:
    other, others = door.enrolled(OTHER)
    assert door.reason(others, other) == ""
    spoofed = {"X-AirBridge-Client-Name": WORKER, "X-AirBridge-Client-Serial": _held(host).serial}
    for name, headers in (("plain", {}), ("with headers that name the right one", spoofed)):
        reason = door.reason(others, _credential(host), **headers)
        attacks.tried(f"another worker's certificate, {name}", reason != "certificate_mismatch", reason)


def test_certificate_without_a_record_opens_nothing(door: Door, host: EdgeHost) -> None:
    """Signed by the right CA, for the right name: a copy of the CA's key alone is not enough."""
    text = door.stack.exec("api-server", "cat", "/secrets/issuing/client-ca").stdout
    _, forged = Authority.parse(text).issue_with_key(WORKER, timedelta(days=1))
    reason = door.reason(forged, _credential(host))
    attacks.tried("well-signed certificate that was never issued", reason != "certificate_ended", reason)


def test_expired_certificate_ends_the_handshake(door: Door) -> None:
    text = door.stack.exec("api-server", "cat", "/secrets/issuing/client-ca").stdout
    issued, old = Authority.parse(text).issue_with_key(OTHER, timedelta(seconds=1))
    until("it has expired", lambda: datetime.now(UTC) > issued.not_after + timedelta(seconds=1), 10)
    reason = door.reason(old, Credential.new(OTHER))
    attacks.tried("expired client certificate", reason != "handshake", reason)


def test_revocation_ends_credential_and_certificate_within_a_second(door: Door) -> None:
    who, held = door.enrolled("tls-gone")
    assert door.reason(held, who) == ""
    door.stack.identity("revoke", "tls-gone")
    time.sleep(1)
    reason = door.reason(held, who)
    attacks.tried("certificate of a revoked worker", reason != "worker_revoked", reason)
    # Enrolled anew, with another credential: the old certificate stays worthless.
    again = Credential.parse(
        door.stack.identity("enroll", "tls-gone", "--queues", "x", "--credential").stdout.strip()
    )
    until("the enrolment is known", lambda: door.reason(held, again) != "token_invalid", 5)
    reason = door.reason(held, again)
    attacks.tried("old certificate of a worker that was enrolled anew", reason != "certificate_ended", reason)


def test_credential_alone_buys_no_certificate(door: Door, host: EdgeHost) -> None:
    _, request = new_request(WORKER)
    reason = door.reason(
        None, _credential(host), call="certificate", method="POST", body={"request": request}
    )
    attacks.tried("renewal with a stolen credential alone", reason != "certificate_missing", reason)


def test_what_a_certificate_says_is_not_for_the_request_to_say(door: Door, host: EdgeHost) -> None:
    _, request = new_request("tls-admin")
    answer = door.ask(_held(host), _credential(host), "certificate", method="POST", body={"request": request})
    assert answer.status_code == 200, answer.text
    from cryptography import x509

    made = x509.load_pem_x509_certificate(answer.json()["certificate"].encode())
    got = made.subject.rfc4514_string()
    attacks.tried("certificate request for another name", got != f"CN={WORKER}", got)


def test_host_renews_before_the_end_and_the_uplink_shows_the_new_one(door: Door, host: EdgeHost) -> None:
    before = _held(host)
    host.exec("edge-worker", "airbridge-edge", "renew")
    after = _held(host)
    assert after.serial != before.serial
    until(
        "the uplink shows the new certificate",
        lambda: after.serial in host.compose.logs("uplink"),
        30,
    )
    # For ten minutes: connections that are open still show it.
    assert door.reason(before, _credential(host)) == ""
    ended = door.stack.wait_for_run(door.stack.trigger("tls_echo"))
    assert ended.one("one").state == "success"


def test_health_check_renews_by_itself_when_it_is_time(door: Door) -> None:
    """With a lifetime of a minute, on a control plane that was started again with it."""
    stack = door.stack
    short = stack.compose.with_settings(AIRBRIDGE_CLIENT_CERTIFICATE_LIFETIME="60s")
    short.up("api-server")
    try:
        name = "tls-short"
        token = stack.identity("enroll", name, "--queues", name).stdout.strip()
        host = stack.edge(name, name, given=token)
        first = _held(host)
        assert first.not_after - first.not_before == timedelta(seconds=60)

        def renewed() -> bool:
            # What Docker runs every half minute.
            host.exec("edge-worker", "python", "-m", "airbridge.edge", "health", check=False)
            return _held(host).serial != first.serial

        until("the certificate was renewed", renewed, 120, every=5)
        until("the first one has expired", lambda: datetime.now(UTC) > first.not_after, 90)
        until("the host works on", lambda: "idle" in _health(host), 60)
        host.remove()
    finally:
        stack.compose.up("api-server")


def _health(host: EdgeHost) -> str:
    return host.exec("edge-worker", "python", "-m", "airbridge.edge", "health", check=False).output
