from __future__ import annotations

import time

import jwt
import pytest
from tests.unit.edge.edge_servers import INTERNAL, TOKEN

from airbridge.controlplane._edge_token import EdgeTokens, Refusal
from airbridge.edge.token import VALID_FOR_SECONDS, request_headers, request_token


def test_token_is_what_the_stock_edge_worker_sends():
    now = int(time.time())
    token = request_token(TOKEN, "north-1", "workers/north-1", now=now)
    assert jwt.get_unverified_header(token)["alg"] == "HS512"
    assert jwt.decode(token, TOKEN, algorithms=["HS512"], audience="api", issuer="north-1") == {
        "method": "workers/north-1",
        "iss": "north-1",
        "aud": "api",
        "nbf": now,
        "iat": now,
        "exp": now + VALID_FOR_SECONDS,
    }


def test_control_plane_reads_the_worker_from_the_token():
    token = request_token(TOKEN, "north-1", "version")
    assert EdgeTokens(TOKEN, INTERNAL).identify(token, "version").worker == "north-1"


@pytest.mark.parametrize(
    ("secret", "method", "offset", "reason"),
    [
        ("x" * 40, "version", 0, "token_invalid"),
        (TOKEN, "echo", 0, "token_invalid"),
        (TOKEN, "version", -3600, "token_expired"),
        (TOKEN, "version", 3600, "token_expired"),
    ],
)
def test_control_plane_refuses_other_secret_call_and_time(secret, method, offset, reason):
    token = request_token(secret, "north-1", method, now=time.time() + offset)
    with pytest.raises(Refusal) as caught:
        EdgeTokens(TOKEN, INTERNAL).identify(token, "version")
    assert caught.value.reason == reason


def test_headers_carry_no_bearer_and_no_secret():
    headers = request_headers(TOKEN, "north-1", "version")
    assert headers["Authorization"].count(".") == 2
    assert " " not in headers["Authorization"]
    assert TOKEN not in str(headers)
