"""Only this host's own worker has reports signed anew."""

from __future__ import annotations

import time

import jwt
import pytest

from airbridge.courier._signature import is_signed_by
from airbridge.edge.token import request_token

SECRET = "s" * 64
METHOD = "jobs/state/etl/extract/r/1/-1/success"


def test_token_of_the_worker_is_taken() -> None:
    assert is_signed_by(SECRET, request_token(SECRET, "plant-7", METHOD), METHOD)


def test_token_as_the_stock_worker_makes_it_is_taken() -> None:
    claims = {"method": METHOD, "iss": "plant-7", "aud": "api", "exp": int(time.time()) + 30}
    assert is_signed_by(SECRET, jwt.encode(claims, SECRET, "HS512"), METHOD)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        "ä.ö.ü",
        request_token("o" * 64, "plant-7", METHOD),
        request_token(SECRET, "plant-7", "jobs/fetch/plant-7"),
        request_token(SECRET, "plant-7", METHOD, now=time.time() - 3600),
        jwt.encode({"method": METHOD, "exp": time.time() + 30}, SECRET, "HS256"),
        jwt.encode({"method": METHOD, "exp": time.time() + 30}, None, "none"),
        jwt.encode({"method": METHOD}, SECRET, "HS512"),
    ],
)
def test_anything_else_is_not(token: str) -> None:
    assert not is_signed_by(SECRET, token, METHOD)
