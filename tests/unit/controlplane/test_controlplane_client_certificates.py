"""Mutual TLS behind the gateway: whose certificate a request came with, and how a worker gets its next."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from starlette.responses import JSONResponse
from tests.unit.controlplane.edge_requests import (
    NEIGHBOUR,
    OTHER_SECRET,
    SECRET,
    WORKER,
    Answer,
    Enrolments,
    Ledger,
    ask,
    door_before,
    token,
    worker,
)

from airbridge.client_certificate import new_request
from airbridge.controlplane._client_certificates import ClientCertificates
from airbridge.credential import Credential, JoinToken
from airbridge.errors import SettingsError
from airbridge.identity.authority import Authority
from airbridge.identity.model import HeldCertificate

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.controlplane._edge_middleware import EdgeMiddleware

SERIAL = "4711"
AUTHORITY = Authority.new()
REQUIRED = ClientCertificates(required=True, authority=AUTHORITY)


def _held(serial: str = SERIAL, **length: float) -> tuple[HeldCertificate, ...]:
    return (HeldCertificate(serial, datetime.now(UTC) + timedelta(**(length or {"days": 1}))),)


@pytest.fixture
def enrolments() -> Enrolments:
    return Enrolments(
        worker(certificates=_held()), worker(NEIGHBOUR, OTHER_SECRET, certificates=_held("4712"))
    )


async def _behind(scope: Any, receive: Any, send: Any) -> None:
    await JSONResponse({"served": scope["path"]})(scope, receive, send)


def _door(enrolments: Enrolments, certificates: ClientCertificates = REQUIRED) -> EdgeMiddleware:
    return door_before(_behind, enrolments, Ledger(), certificates=certificates)


def _shown(name: str = WORKER, serial: str = SERIAL) -> tuple[tuple[bytes, bytes], ...]:
    """What the gateway says of the handshake."""
    return (
        (b"x-airbridge-door", b"edge"),
        (b"x-airbridge-client-name", name.encode()),
        (b"x-airbridge-client-serial", serial.encode()),
    )


def _call(
    door: EdgeMiddleware, call: str = "version", shown: tuple[tuple[bytes, bytes], ...] = (), **scope: Any
) -> Answer:
    return asyncio.run(ask(door, f"/airbridge/v1/{call}", token(call), headers=shown, **scope))


def _reason(answer: Answer) -> str:
    return "" if answer.status < 400 else f"{answer.status} {answer.json['reason']}"


def test_own_certificate_opens_the_door(enrolments: Enrolments) -> None:
    assert _call(_door(enrolments), shown=_shown()).status == 200


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ((), "403 certificate_missing"),
        (_shown("", ""), "403 certificate_missing"),
        (_shown(serial=""), "403 certificate_missing"),
        (_shown(NEIGHBOUR, "4712"), "403 certificate_mismatch"),
        (_shown(NEIGHBOUR, SERIAL), "403 certificate_mismatch"),
        (_shown(serial="4712"), "403 certificate_ended"),
        (_shown(serial="04711"), "403 certificate_ended"),
        ((*_shown(), *_shown()), "400 token_invalid"),
    ],
)
def test_no_other_certificate_does(
    enrolments: Enrolments, shown: tuple[tuple[bytes, bytes], ...], reason: str
) -> None:
    assert _reason(_call(_door(enrolments), shown=shown)) == reason


def test_credential_of_the_uplink_needs_the_certificate_as_well(enrolments: Enrolments) -> None:
    vouched = ((b"x-airbridge-token", Credential(WORKER, SECRET).text.encode()),)

    def run_task(*shown: tuple[bytes, bytes]) -> str:
        path = "/execution/variables/threshold"
        return _reason(asyncio.run(ask(_door(enrolments), path, headers=(*vouched, *shown))))

    assert run_task((b"x-airbridge-door", b"edge")) == "403 certificate_missing"
    assert run_task(*_shown(NEIGHBOUR, "4712")) == "403 certificate_mismatch"
    assert "certificate" not in run_task(*_shown())  # the next thing to be missing is the task's token


def test_certificate_ends_while_its_connection_stays_open(enrolments: Enrolments) -> None:
    enrolments.workers[WORKER] = worker(certificates=_held(seconds=-1))
    assert _reason(_call(_door(enrolments), shown=_shown())) == "403 certificate_ended"


def test_nobody_is_asked_for_one_while_the_switch_is_off(enrolments: Enrolments) -> None:
    off = ClientCertificates(authority=AUTHORITY)
    assert _call(_door(enrolments, off)).status == 200
    assert _call(_door(enrolments, off), shown=_shown(NEIGHBOUR)).status == 200


def test_why_a_certificate_is_refused_is_told_to_who_holds_the_secret_alone(enrolments: Enrolments) -> None:
    call = "version"
    forged = token(call, secret=OTHER_SECRET)
    answer = asyncio.run(ask(_door(enrolments), f"/airbridge/v1/{call}", forged))
    assert _reason(answer) == "403 token_invalid"


def _issue(door: EdgeMiddleware, body: object) -> Answer:
    return _call(door, "certificate", _shown(), method="POST", body=json.dumps(body).encode())


def test_next_certificate_says_what_the_control_plane_knows_not_what_is_asked(
    enrolments: Enrolments,
) -> None:
    key, request = new_request("somebody-else")
    answer = _issue(_door(enrolments), {"request": request})
    assert answer.status == 200
    made = x509.load_pem_x509_certificate(answer.json["certificate"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert made.subject.rfc4514_string() == f"CN={WORKER}"
    assert names.get_values_for_type(x509.DNSName) == [WORKER]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:airbridge:worker:{WORKER}"]
    assert str(made.serial_number) == answer.json["serial"]
    made.verify_directly_issued_by(AUTHORITY.certificate)
    held = [one.serial for one in enrolments.workers[WORKER].certificates]
    assert held == [answer.json["serial"], SERIAL], "good at once, and the one before still is"
    assert key not in str(answer.messages)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"request": 1},
        {"request": ""},
        {"request": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"},
        {"request": "x" * 9000},
        [],
        None,
    ],
)
def test_request_that_is_none_gets_nothing(enrolments: Enrolments, body: object) -> None:
    assert _reason(_issue(_door(enrolments), body)) == "400 request_invalid"
    assert [one.serial for one in enrolments.workers[WORKER].certificates] == [SERIAL]


def test_join_token_is_traded_for_a_certificate_too_without_having_one(enrolments: Enrolments) -> None:
    join = JoinToken.new(WORKER)
    enrolments.join_tokens.add(join.text)
    door = _door(enrolments)

    def trade(**body: str) -> Answer:
        sent = json.dumps({"token": join.text, **body}).encode()
        return asyncio.run(ask(door, "/airbridge/v1/join", method="POST", body=sent))

    assert _reason(trade(request="none")) == "400 request_invalid"
    answer = trade(request=new_request(WORKER)[1])
    assert answer.status == 200, "a request that was none cost nobody the token"
    assert answer.json["serial"] in {one.serial for one in enrolments.workers[WORKER].certificates}


def test_control_plane_without_a_ca_lets_hosts_join_all_the_same(enrolments: Enrolments) -> None:
    join = JoinToken.new(WORKER)
    enrolments.join_tokens.add(join.text)
    door = _door(enrolments, ClientCertificates())
    sent = json.dumps({"token": join.text, "request": new_request(WORKER)[1]}).encode()
    answer = asyncio.run(ask(door, "/airbridge/v1/join", method="POST", body=sent))
    assert sorted(answer.json) == ["credential"]


def test_settings(tmp_path: Path) -> None:
    assert ClientCertificates.of({}, tmp_path) == ClientCertificates()
    tmp_path.joinpath("client-ca").write_text(AUTHORITY.text)
    found = ClientCertificates.of(
        {"GATEWAY_CLIENT_CERTIFICATES": "require", "AIRBRIDGE_CLIENT_CERTIFICATE_LIFETIME": "12h"}, tmp_path
    )
    assert (found.required, found.length) == (True, timedelta(hours=12))
    assert found.authority is not None
    for bad in (
        {"GATEWAY_CLIENT_CERTIFICATES": "yes"},
        {"AIRBRIDGE_CLIENT_CERTIFICATE_LIFETIME": "1s"},
        {"AIRBRIDGE_CLIENT_CERTIFICATE_LIFETIME": "30"},
        {"AIRBRIDGE_CLIENT_CERTIFICATE_LIFETIME": "900d"},
    ):
        with pytest.raises(SettingsError):
            ClientCertificates.of(bad, tmp_path)
    tmp_path.joinpath("client-ca").write_text("nothing")
    with pytest.raises(SettingsError, match="client CA"):
        ClientCertificates.of({}, tmp_path)


def test_worker_is_told_whether_one_is_required_and_which_it_showed(enrolments: Enrolments) -> None:
    answer = _call(_door(enrolments), "certificate", _shown())
    ends = {f"ends_{SERIAL}": enrolments.workers[WORKER].certificates[0].ends_at.isoformat()}
    assert answer.json == {"required": "yes", "serial": SERIAL, **ends}
    off = replace(REQUIRED, required=False)
    assert _call(_door(enrolments, off), "certificate").json == {"required": "no", "serial": "", **ends}
