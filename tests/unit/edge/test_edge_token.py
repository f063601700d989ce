from __future__ import annotations

import time

import jwt
import pytest
from tests.unit.controlplane.edge_requests import worker
from tests.unit.edge.edge_servers import SECRET, WORKER

from airbridge.controlplane._edge_token import check_token, claimed_worker
from airbridge.controlplane._refusal import Refusal
from airbridge.edge.token import VALID_FOR_SECONDS, request_headers, request_token


def test_token_is_what_the_stock_edge_worker_sends():
    now = int(time.time())
    token = request_token(SECRET, "north-1", "workers/north-1", now=now)
    assert jwt.get_unverified_header(token)["alg"] == "HS512"
    assert jwt.decode(token, SECRET, algorithms=["HS512"], audience="api", issuer="north-1") == {
        "method": "workers/north-1",
        "iss": "north-1",
        "aud": "api",
        "nbf": now,
        "iat": now,
        "exp": now + VALID_FOR_SECONDS,
    }


def test_control_plane_reads_the_worker_from_the_token():
    token = request_token(SECRET, "north-1", "version")
    assert claimed_worker(token) == "north-1"
    check_token(token, worker(WORKER, SECRET), "version")


@pytest.mark.parametrize(
    ("secret", "method", "offset", "reason"),
    [
        ("x" * 40, "version", 0, "token_invalid"),
        (SECRET, "echo", 0, "token_invalid"),
        (SECRET, "version", -3600, "token_expired"),
        (SECRET, "version", 3600, "token_expired"),
    ],
)
def test_control_plane_refuses_other_secret_call_and_time(secret, method, offset, reason):
    token = request_token(secret, "north-1", method, now=time.time() + offset)
    with pytest.raises(Refusal) as caught:
        check_token(token, worker(WORKER, SECRET), "version")
    assert caught.value.reason == reason


def test_headers_carry_no_bearer_and_no_secret():
    headers = request_headers(SECRET, "north-1", "version")
    assert headers["Authorization"].count(".") == 2
    assert " " not in headers["Authorization"]
    assert SECRET not in str(headers)
