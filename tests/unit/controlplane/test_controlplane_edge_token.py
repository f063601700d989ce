"""Which tokens of edge workers are accepted, and what is said about the others."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.controlplane.edge_requests import (
    EDGE_TOKEN,
    INTERNAL_SECRET,
    OTHER_TOKEN,
    WORKER,
    claims,
    token,
)

from airbridge.controlplane._edge_token import EdgeTokens, Refusal
from airbridge.edge.token import request_token

CALL = "jobs/fetch/north-1"
TOKENS = EdgeTokens(EDGE_TOKEN, INTERNAL_SECRET)


def _refused(authorization: str | None, call: str = CALL) -> Refusal:
    with pytest.raises(Refusal) as caught:
        TOKENS.identify(authorization, call)
    return caught.value


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _with_header(header: bytes, call: str = CALL) -> str:
    """A token with this header and no good signature."""
    return f"{_b64(header)}.{_b64(json.dumps(claims(call)).encode())}.{_b64(b'x' * 64)}"


def test_token_of_the_stock_worker_names_its_worker() -> None:
    assert TOKENS.identify(token(CALL), CALL).worker == WORKER


def test_token_of_the_edge_hosts_own_checks_names_its_worker() -> None:
    made = request_token(EDGE_TOKEN, WORKER, f"workers/{WORKER}")
    assert TOKENS.identify(made, f"workers/{WORKER}").worker == WORKER


@pytest.mark.parametrize("authorization", [None, ""])
def test_missing_token_is_401(authorization: str | None) -> None:
    refusal = _refused(authorization)
    assert (refusal.status, refusal.reason) == (401, "token_missing")


def _forgeries() -> dict[str, str]:
    """By kind; made when they are used, because a token that is right but for one thing soon expires."""
    return {
        "wrong secret": token(CALL, secret=OTHER_TOKEN),
        "control plane's own secret": token(CALL, secret=INTERNAL_SECRET),
        "no secret": jwt.encode(claims(CALL), b"\0" * 64, algorithm="HS512"),
        "HS256": token(CALL, algorithm="HS256"),
        "HS384": token(CALL, algorithm="HS384"),
        "alg none": jwt.encode(claims(CALL), None, algorithm="none"),
        "alg none, capital": _with_header(b'{"alg":"None"}'),
        "no alg": _with_header(b'{"typ":"JWT"}'),
        "alg of another type": _with_header(b'{"alg":["HS512"]}'),
        "header is no object": _with_header(b"[]"),
        "header nested beyond any parser": _with_header(b"[" * 20_000),
        "detached payload": _with_header(b'{"alg":"HS512","b64":false}'),
        "signature cut off": token(CALL).rsplit(".", 1)[0] + ".",
        "payload exchanged": ".".join(
            [
                token(CALL).split(".")[0],
                _b64(json.dumps(claims(CALL, iss="south-2")).encode()),
                token(CALL).split(".")[2],
            ]
        ),
        "Bearer before it": f"Bearer {token(CALL)}",
        "not a token": "not-a-token",
        "not ASCII": "\xff\xfe.\x00.é",
        "other audience": token(CALL, aud="urn:airflow.apache.org:task"),
        "no audience": token(CALL, aud=None),
        "no issuer": token(CALL, iss=None),
        "no issue time": token(CALL, iat=None),
        "no expiry": token(CALL, exp=None),
        "no method": token(CALL, method=None),
        "long-lived": token(CALL, exp=int(time.time()) + 3600),
        "long-lived, times as text": token(CALL, exp=str(int(time.time()) + 3600), iat=str(int(time.time()))),
        "for ever": token(CALL, exp=1e308),
        "infinite": token(CALL, exp=float("inf")),
        "expiry is no number": token(CALL, exp=[1]),
        "issue time is no number": token(CALL, iat={"now": 1}),
    }


@pytest.mark.parametrize("kind", sorted(_forgeries()))
def test_forgery_is_refused_without_saying_what_was_wrong(kind: str) -> None:
    refusal = _refused(_forgeries()[kind])
    assert (refusal.status, refusal.reason) == (403, "token_invalid")
    assert str(refusal) == "the token was not accepted"


@pytest.mark.parametrize(
    ("shift", "clock"),
    [(-120, "has expired"), (-61, "has expired"), (61, "is from the future"), (7200, "is from the future")],
)
def test_token_of_another_time_speaks_of_the_clock(shift: int, clock: str) -> None:
    now = int(time.time()) + shift
    refusal = _refused(token(CALL, iat=now, nbf=now, exp=now + 30))
    assert (refusal.status, refusal.reason) == (403, "token_expired")
    assert clock in str(refusal)
    assert "clock" in str(refusal)


@pytest.mark.parametrize("shift", [-50, 25])
def test_small_difference_of_clocks_is_forgiven(shift: int) -> None:
    now = int(time.time()) + shift
    assert TOKENS.identify(token(CALL, iat=now, nbf=now, exp=now + 30), CALL).worker == WORKER


@pytest.mark.parametrize("life", [30, 600])
def test_life_of_a_workers_token_is_accepted(life: int) -> None:
    assert TOKENS.identify(token(CALL, exp=int(time.time()) + life), CALL).worker == WORKER


@pytest.mark.parametrize(
    "other", ["jobs/fetch/south-2", "worker/north-1", "", "jobs/fetch/north-1/", "JOBS/FETCH/NORTH-1"]
)
def test_token_is_good_for_its_own_call_only(other: str) -> None:
    refusal = _refused(token(other))
    assert (refusal.status, refusal.reason) == (403, "token_invalid")
    assert str(refusal) == "the token was made for another call"


@pytest.mark.parametrize("method", [7, True, ["jobs/fetch/north-1"], {"a": 1}])
def test_method_of_another_type_is_another_call(method: Any) -> None:
    assert _refused(token(CALL, method=method)).reason == "token_invalid"


@pytest.mark.parametrize(
    "name", ["", "North-1", "north_1", "-north", "north 1", "north-1\n", "n" * 64, "../north-1", "nörth", "*"]
)
def test_token_must_name_a_worker(name: str) -> None:
    refusal = _refused(token(CALL, iss=name))
    assert (refusal.status, refusal.reason) == (403, "token_invalid")
    assert "WORKER_NAME" in str(refusal)


@pytest.mark.parametrize("name", ["n", "0", "north-1", "n" * 63])
def test_names_of_dns_labels_are_workers(name: str) -> None:
    assert TOKENS.identify(token(CALL, iss=name), CALL).worker == name


RUN_IDS = [
    "manual__2026-01-01T00:00:00+00:00",
    "scheduled__2026-01-01T00:00:00.123456+00:00",
    "with blank",
    "50%",
    "päckchen",
]


@pytest.mark.parametrize("run_id", RUN_IDS)
@pytest.mark.parametrize("encode", [str, quote, lambda text: quote(text, safe="")])
def test_run_id_may_be_signed_encoded_or_not(run_id: str, encode: Any) -> None:
    # The stock client signs what it quoted; the server compares with what it decoded.
    seen = f"jobs/state/etl/extract/{run_id}/1/-1/success"
    signed = f"jobs/state/etl/extract/{encode(run_id)}/1/-1/success"
    assert TOKENS.identify(token(signed), seen).worker == WORKER


@given(st.text(max_size=200))
def test_no_text_is_accepted(text: str) -> None:
    with pytest.raises(Refusal):
        TOKENS.identify(text, CALL)


@given(st.data())
def test_no_changed_character_is_accepted(data: st.DataObject) -> None:
    good = token(CALL)
    # The last character of the signature holds bits that base64 ignores.
    place = data.draw(st.integers(0, len(good) - 2))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != good[place]))
    with pytest.raises(Refusal):
        TOKENS.identify(good[:place] + other + good[place + 1 :], CALL)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "iat", "nbf", "exp", "method", "sub", "jti"]), json_values, min_size=1
    )
)
def test_holder_of_the_token_gets_an_identity_or_a_refusal_for_any_claims(changes: dict[str, Any]) -> None:
    # PyJWT itself refuses to encode some; sign by hand, as somebody else's library would.
    header = _b64(b'{"alg":"HS512","typ":"JWT"}')
    payload = _b64(json.dumps({**claims(CALL), **changes}).encode())
    signature = jwt.get_algorithm_by_name("HS512").sign(f"{header}.{payload}".encode(), EDGE_TOKEN.encode())
    try:
        identity = TOKENS.identify(f"{header}.{payload}.{_b64(signature)}", CALL)
    except Refusal:
        return
    assert identity.worker == changes.get("iss", WORKER)


def test_signed_anew_is_what_the_edge_api_checks() -> None:
    # As airflow/providers/edge3/worker_api/auth.py does: audience, times, method; JWTValidator's own
    # required claims are exp, iat and nbf.
    inner = jwt.decode(
        TOKENS.resign(CALL),
        INTERNAL_SECRET,
        algorithms=["HS512"],
        audience="api",
        options={"require": ["exp", "iat", "nbf"]},
    )
    assert inner["method"] == CALL
    assert 0 < inner["exp"] - time.time() <= 60


def test_signed_anew_is_no_edge_token() -> None:
    assert _refused(TOKENS.resign(CALL)).reason == "token_invalid"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token(CALL), INTERNAL_SECRET, algorithms=["HS512"], audience="api")
