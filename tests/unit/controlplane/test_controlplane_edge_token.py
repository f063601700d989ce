"""Which tokens of edge workers are accepted, and what is said about the others."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.controlplane.edge_requests import (
    INTERNAL_SECRET,
    NEIGHBOUR,
    OTHER_SECRET,
    SECRET,
    WORKER,
    claims,
    token,
    worker,
)

from airbridge.controlplane._edge_token import (
    check_credential,
    check_token,
    claimed_worker,
    credential_name,
    resign,
)
from airbridge.controlplane._refusal import Refusal
from airbridge.credential import Credential, JoinToken
from airbridge.edge.token import request_token

if TYPE_CHECKING:
    from airbridge.identity.model import Worker

CALL = "jobs/fetch/north-1"


def _identify(authorization: str | None, call: str = CALL, *enrolled: Worker) -> str:
    """Who sent it, as the middleware finds out."""
    known = {one.name: one for one in enrolled or (worker(),)}
    name = claimed_worker(authorization)
    check_token(authorization or "", known.get(name), call)
    return name


def _refused(authorization: str | None, call: str = CALL) -> Refusal:
    with pytest.raises(Refusal) as caught:
        _identify(authorization, call)
    return caught.value


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _with_header(header: bytes, call: str = CALL) -> str:
    """A token with this header and no good signature."""
    return f"{_b64(header)}.{_b64(json.dumps(claims(call)).encode())}.{_b64(b'x' * 64)}"


def test_token_of_the_stock_worker_names_its_worker() -> None:
    assert _identify(token(CALL)) == WORKER


def test_token_of_the_edge_hosts_own_checks_names_its_worker() -> None:
    made = request_token(SECRET, WORKER, f"workers/{WORKER}")
    assert _identify(made, f"workers/{WORKER}") == WORKER


@pytest.mark.parametrize("authorization", [None, ""])
def test_missing_token_is_401(authorization: str | None) -> None:
    refusal = _refused(authorization)
    assert (refusal.status, refusal.reason) == (401, "token_missing")


def _forgeries() -> dict[str, str]:
    """By kind; made when they are used, because a token that is right but for one thing soon expires."""
    return {
        "wrong secret": token(CALL, secret=OTHER_SECRET),
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
        "a little too long-lived": token(CALL, exp=int(time.time()) + 90),
        "with a key id": jwt.encode(
            claims(CALL), SECRET, algorithm="HS512", headers={"kid": "../../dev/null"}
        ),
        "with the address of a key": jwt.encode(
            claims(CALL), SECRET, algorithm="HS512", headers={"jku": "https://evil.example/jwks"}
        ),
        "with a key": jwt.encode(
            claims(CALL), SECRET, algorithm="HS512", headers={"jwk": {"kty": "oct", "k": "c2VjcmV0"}}
        ),
        "of a name that nobody has": token(CALL, iss="nobody"),
        "of the neighbour, with its name": token(CALL, iss=NEIGHBOUR, secret=OTHER_SECRET),
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
    assert _identify(token(CALL, iat=now, nbf=now, exp=now + 30)) == WORKER


@pytest.mark.parametrize("life", [1, 30, 59])
def test_life_of_a_workers_token_is_accepted(life: int) -> None:
    assert _identify(token(CALL, exp=int(time.time()) + life)) == WORKER


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
    assert _identify(token(CALL, iss=name), CALL, worker(name)) == name


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
    assert _identify(token(signed), seen) == WORKER


@given(st.text(max_size=200))
def test_no_text_is_accepted(text: str) -> None:
    with pytest.raises(Refusal):
        _identify(text)


@given(st.data())
def test_no_changed_character_is_accepted(data: st.DataObject) -> None:
    good = token(CALL)
    # The last character of the signature holds bits that base64 ignores.
    place = data.draw(st.integers(0, len(good) - 2))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != good[place]))
    with pytest.raises(Refusal):
        _identify(good[:place] + other + good[place + 1 :])


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
    signature = jwt.get_algorithm_by_name("HS512").sign(f"{header}.{payload}".encode(), SECRET.encode())
    try:
        name = _identify(f"{header}.{payload}.{_b64(signature)}")
    except Refusal:
        return
    assert name == changes.get("iss", WORKER) == WORKER


def test_signed_anew_is_what_the_edge_api_checks() -> None:
    # As airflow/providers/edge3/worker_api/auth.py does: audience, times, method; JWTValidator's own
    # required claims are exp, iat and nbf.
    inner = jwt.decode(
        resign(CALL, INTERNAL_SECRET),
        INTERNAL_SECRET,
        algorithms=["HS512"],
        audience="api",
        options={"require": ["exp", "iat", "nbf"]},
    )
    assert inner["method"] == CALL
    assert 0 < inner["exp"] - time.time() <= 60


def test_signed_anew_is_no_edge_token() -> None:
    assert _refused(resign(CALL, INTERNAL_SECRET)).reason == "token_invalid"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token(CALL), INTERNAL_SECRET, algorithms=["HS512"], audience="api")


# --- each worker its own ----------------------------------------------------------------------------


def test_secret_of_a_worker_signs_for_no_other_name() -> None:
    both = (worker(), worker(NEIGHBOUR, OTHER_SECRET))
    assert _identify(token(CALL, iss=NEIGHBOUR, secret=OTHER_SECRET), CALL, *both) == NEIGHBOUR
    with pytest.raises(Refusal) as caught:
        _identify(token(CALL, iss=NEIGHBOUR, secret=SECRET), CALL, *both)
    assert (caught.value.reason, caught.value.audited) == ("token_invalid", "token_signature")


def test_both_secrets_of_a_rotation_are_good_and_no_third() -> None:
    rotating = worker(WORKER, OTHER_SECRET, SECRET)
    for secret in (SECRET, OTHER_SECRET):
        assert _identify(token(CALL, secret=secret), CALL, rotating) == WORKER
        check_credential(f"{WORKER}.{secret}", rotating)
    with pytest.raises(Refusal):
        _identify(token(CALL, secret="t" * 64), CALL, rotating)


ENDED = {
    "worker_revoked": {"revoked_at": datetime.now(UTC)},
    "worker_expired": {"expires_at": datetime.now(UTC) - timedelta(seconds=1)},
}


@pytest.mark.parametrize("reason", ENDED)
def test_enrolment_that_has_ended_is_told_to_its_holder_and_to_nobody_else(reason: str) -> None:
    ended = worker(**ENDED[reason])
    for check in (
        lambda: _identify(token(CALL), CALL, ended),
        lambda: check_credential(f"{WORKER}.{SECRET}", ended),
    ):
        with pytest.raises(Refusal) as caught:
            check()
        assert (caught.value.status, caught.value.reason) == (403, reason)
    for check in (
        lambda: _identify(token(CALL, secret=OTHER_SECRET), CALL, ended),
        lambda: check_credential(f"{WORKER}.{OTHER_SECRET}", ended),
    ):
        with pytest.raises(Refusal) as caught:
            check()
        assert (caught.value.reason, str(caught.value)) == ("token_invalid", "the token was not accepted")


def test_worker_that_has_not_joined_yet_has_no_secret_to_guess() -> None:
    waiting = worker(secrets=())
    with pytest.raises(Refusal) as caught:
        _identify(token(CALL), CALL, waiting)
    assert (caught.value.reason, caught.value.audited) == ("token_invalid", "worker_not_joined")
    with pytest.raises(Refusal):
        check_credential(f"{WORKER}.{SECRET}", waiting)


def test_unknown_name_and_wrong_secret_sound_the_same() -> None:
    heard = set()
    for enrolled in (None, worker(WORKER, OTHER_SECRET), worker(secrets=())):
        with pytest.raises(Refusal) as caught:
            check_credential(f"{WORKER}.{SECRET}", enrolled)
        heard.add((caught.value.status, caught.value.reason, str(caught.value)))
        with pytest.raises(Refusal) as caught:
            check_token(token(CALL), enrolled, CALL)
        heard.add((caught.value.status, caught.value.reason, str(caught.value)))
    assert heard == {(403, "token_invalid", "the token was not accepted")}


def test_credential_names_its_worker() -> None:
    assert credential_name(f"{WORKER}.{SECRET}") == WORKER
    check_credential(f"{WORKER}.{SECRET}", worker())


@pytest.mark.parametrize("missing", [None, ""])
def test_missing_credential_is_401(missing: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        credential_name(missing)
    assert (caught.value.status, caught.value.reason) == (401, "token_missing")


@pytest.mark.parametrize(
    "text",
    [
        WORKER,
        f"{WORKER}.",
        f".{SECRET}",
        f"{WORKER}.{SECRET}s",
        f"{WORKER}.{SECRET[1:]}",
        f"{WORKER}.{SECRET}\n",
        f"{WORKER}.{SECRET[:-1]}\xe9",
        f" {WORKER}.{SECRET}",
        f"North.{SECRET}",
        JoinToken(WORKER, SECRET).text,
    ],
)
def test_what_is_no_credential_is_not_accepted(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        credential_name(text)
    assert caught.value.reason == "token_invalid"


@given(st.text(st.characters(max_codepoint=255), max_size=140))
def test_no_text_is_a_credential(text: str) -> None:
    with pytest.raises(Refusal):
        check_credential(text, worker(credential_name(text)))


@given(st.from_regex("[a-z0-9][a-z0-9-]{0,62}", fullmatch=True))
def test_credential_and_join_token_read_back_and_are_never_taken_for_each_other(name: str) -> None:
    credential, join = Credential.new(name), JoinToken.new(name)
    assert Credential.parse(credential.text) == credential
    assert JoinToken.parse(join.text) == join
    for parse, text in ((Credential.parse, join.text), (JoinToken.parse, credential.text)):
        with pytest.raises(ValueError, match=r"is not|does not"):
            parse(text)
    assert credential.secret not in repr(credential)
    assert join.secret not in repr(join)
