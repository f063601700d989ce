"""Signature Version 4: AWS's published examples, botocore as the oracle, and tampering with every part."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.s3door.s3_requests import HOST, NAME, SECRET, Sent, outcome, proved, signed

from airbridge.s3door._canonical import EMPTY_SHA256, Scope
from airbridge.s3door._errors import S3Error
from airbridge.s3door._signature import Claim, verify

# --- AWS's examples --------------------------------------------------------------------------------
# "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk" and
# "Authenticating Requests: Using Query Parameters", Amazon S3 API Reference.
AWS_NAME = "AKIAIOSFODNN7EXAMPLE"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AWS_HOST = "examplebucket.s3.amazonaws.com"
AWS_TIME = "20130524T000000Z"
AWS_NOW = datetime(2013, 5, 24, tzinfo=UTC)


def _aws_example(method: str, target: str, signature: str, **headers: str) -> Sent:
    sent = {"host": AWS_HOST, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": AWS_TIME}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    names = ";".join(sorted(sent))
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={AWS_NAME}/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature={signature}"
    )
    return Sent(method, target, tuple(sent.items()))


EXAMPLES = {
    "get an object": _aws_example(
        "GET",
        "/test.txt",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        range="bytes=0-9",
    ),
    "put an object": _aws_example(
        "PUT",
        "/test%24file.text",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        date="Fri, 24 May 2013 00:00:00 GMT",
        x_amz_content_sha256="44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        x_amz_storage_class="REDUCED_REDUNDANCY",
    ),
    "get a bucket's lifecycle": _aws_example(
        "GET", "/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    ),
    "list objects": _aws_example(
        "GET", "/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    ),
    "presigned": Sent(
        "GET",
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        (("host", AWS_HOST),),
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_published_examples_hold(example: str) -> None:
    assert outcome(EXAMPLES[example], [AWS_SECRET], AWS_NOW) == "ok"


@pytest.mark.parametrize("example", EXAMPLES)
def test_published_examples_do_not_hold_for_another_secret(example: str) -> None:
    assert outcome(EXAMPLES[example], [AWS_SECRET[:-1]], AWS_NOW) == "signature_wrong"


# --- botocore as the oracle --------------------------------------------------------------------------
KEYS = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/"), min_size=1, max_size=30
) | st.text(alphabet="abc=:+~ '()!*@&$,;%#?", min_size=1, max_size=20)
VALUES = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=20)


@given(KEYS, st.dictionaries(st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True), VALUES, max_size=4))
@settings(deadline=None)
def test_what_botocore_signs_holds_whatever_key_and_query(key: str, query: dict[str, str]) -> None:
    asked = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query.items()
    )
    sent = signed("GET", f"/bucket/{quote(f'dev/{key}', safe='/-_.~')}?{asked}")
    assert outcome(sent) == "ok"
    assert sent.read().key == f"dev/{key}" if key not in (".", "..") and key.isprintable() else True
    assert {name.decode(): value.decode() for name, value in sent.read().query} == query


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30))
@settings(deadline=None)
def test_runs_of_spaces_in_a_header_count_as_one(word: str) -> None:
    value = f"  {word}   and  {word} "
    assert outcome(signed("PUT", headers={"x-amz-meta-note": value})) == "ok"


def test_spaces_within_a_path_are_not_folded() -> None:
    assert outcome(signed("GET", "/bucket/dev/a%20%20b")) == "ok"


@pytest.mark.parametrize("expires", [1, 3600, 604_800])
def test_presigned_addresses_of_botocore_hold(expires: int) -> None:
    assert outcome(signed("PUT", expires=expires)) == "ok"


# --- both secrets of a rotation, and nobody's ------------------------------------------------------
@pytest.mark.parametrize("secrets", [(SECRET, "n" * 64), ("n" * 64, SECRET), (SECRET,)])
def test_either_secret_of_a_rotation_is_good(secrets: tuple[str, ...]) -> None:
    assert outcome(signed(), secrets) == "ok"


@pytest.mark.parametrize("secrets", [(), ("n" * 64,), ("n" * 64, "m" * 64)])
def test_no_other_secret_is_good(secrets: tuple[str, ...]) -> None:
    assert outcome(signed(), secrets) == "signature_wrong"


def test_third_secret_is_not_looked_at() -> None:
    assert outcome(signed(), ("n" * 64, "m" * 64, SECRET)) == "signature_wrong"


# --- the ways through gateway and uplink -------------------------------------------------------------
def test_client_with_the_gateways_base_path_signs_it() -> None:
    sent = signed("GET", "/s3/airbridge-dags/dev/a.py")
    assert outcome(sent) == "ok"
    assert sent.read().bucket == "airbridge-dags"


def test_client_that_signs_without_the_base_path_is_known_too() -> None:
    sent = signed("GET", "/airbridge-dags/dev/a.py")
    assert outcome(replace(sent, target=f"/s3{sent.target}")) == "ok"


def test_client_behind_an_uplink_signs_the_uplinks_name() -> None:
    sent = signed("GET", "/airbridge-dags/dev/a.py", host="uplink:9000")
    forwarded = replace(sent, target=f"/s3{sent.target}").header("Host", HOST)
    assert outcome(forwarded) == "signature_wrong"
    assert outcome(forwarded.header("X-AirBridge-Signed-Host", "uplink:9000")) == "ok"


def test_uplinks_clients_do_not_sign_the_base_path() -> None:
    sent = signed("GET", "/s3/airbridge-dags/dev/a.py", host="uplink:9000").header("Host", HOST)
    assert outcome(sent.header("X-AirBridge-Signed-Host", "uplink:9000")) == "signature_wrong"


@pytest.mark.parametrize("host", ["up_link:9000", "x" * 300, "[::1]:9000"])
def test_signed_host_that_is_no_host_of_an_uplink_is_not_believed(host: str) -> None:
    sent = signed(host=host).header("Host", HOST).header("X-AirBridge-Signed-Host", host)
    assert outcome(sent) == "signature_wrong"


# --- tampering -----------------------------------------------------------------------------------------
def _changed(text: str) -> str:
    last = text[-1]
    return text[:-1] + ("0" if last != "0" else "1")


TAMPERED = {
    "method": lambda sent: replace(sent, method="PUT"),
    "key": lambda sent: replace(sent, target=sent.target.replace("a.py", "b.py")),
    "bucket": lambda sent: replace(sent, target=sent.target.replace("-dags", "-logs")),
    "query added": lambda sent: replace(sent, target=f"{sent.target}?versionId=1"),
    "body's hash": lambda sent: sent.header("x-amz-content-sha256", _changed(EMPTY_SHA256)),
    "host": lambda sent: sent.header("host", "elsewhere:8443"),
    "date": lambda sent: sent.header("x-amz-date", _changed(sent.value("x-amz-date")[:-1]) + "Z"),
    "signed header": lambda sent: sent.header("x-amz-meta-note", "another"),
    "signature": lambda sent: sent.header("authorization", _changed(sent.value("authorization"))),
    "name": lambda sent: sent.header("authorization", sent.value("authorization").replace(NAME, "team-b")),
}


@pytest.mark.parametrize("part", TAMPERED)
def test_changed_part_breaks_the_signature(part: str) -> None:
    sent = signed(headers={"x-amz-meta-note": "as it was"})
    tampered = TAMPERED[part](sent)  # type: ignore[no-untyped-call]
    assert tampered != sent
    # The secret is looked up by the name, so another name is checked with another secret.
    secrets = ("n" * 64,) if part == "name" else (SECRET,)
    assert outcome(tampered, secrets) == "signature_wrong"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("authorization", None), "signature_missing"),
        (("authorization", "AWS team-a:c2lnbmF0dXJl"), "signature_algorithm"),
        (("authorization", "Bearer x"), "signature_algorithm"),
        (("authorization", "AWS4-HMAC-SHA256 nonsense"), "signature_malformed"),
        (("authorization", "AWS4-HMAC-SHA256 "), "signature_malformed"),
        (("x-amz-content-sha256", None), "payload_hash_missing"),
        (("x-amz-date", None), "date_missing"),
        (("x-amz-date", "yesterday"), "date_missing"),
        (("x-amz-meta-note", None), "header_stripped"),
        (("x-amz-acl", "public-read"), "header_not_signed"),
        (("x-amz-copy-source", "airbridge-dags/dev/b.py"), "header_not_signed"),
        (("x-amz-security-token", "x"), "header_not_signed"),
    ],
)
def test_request_that_could_not_hold_is_refused_for_its_form(
    change: tuple[str, str | None], reason: str
) -> None:
    assert outcome(signed(headers={"x-amz-meta-note": "as it was"}).header(*change)) == reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("us-east-1", "eu-central-1", "signature_scope"),
        ("/s3/", "/iam/", "signature_scope"),
        ("aws4_request", "aws5_request", "signature_malformed"),
        (r"/2[0-9]{7}/", "/20200101/", "signature_scope"),
        ("SignedHeaders=host;", "SignedHeaders=", "header_not_signed"),
        ("SignedHeaders=host;", "SignedHeaders=x-amz-date;host;", "signature_malformed"),
        ("SignedHeaders=host;", "SignedHeaders=host;host;", "signature_malformed"),
        ("SignedHeaders=host;", "SignedHeaders=HOST;", "signature_malformed"),
        (r"Signature=[0-9a-f]+", "Signature=", "signature_malformed"),
        (r"Signature=[0-9a-f]+", f"Signature={'A' * 64}", "signature_malformed"),
        (r"Signature=", "Signature=, Signature=", "signature_malformed"),
        (", SignedHeaders", ", Extra=1, SignedHeaders", "signature_malformed"),
    ],
)
def test_header_that_says_something_odd_is_refused(old: str, new: str, reason: str) -> None:
    sent = signed()
    changed = re.sub(old, new, sent.value("authorization"), count=1)
    assert changed != sent.value("authorization")
    assert outcome(sent.header("authorization", changed)) == reason


@pytest.mark.parametrize(
    "header", ["authorization", "host", "x-amz-date", "x-amz-content-sha256", "content-length", "range"]
)
def test_header_that_is_there_twice_is_refused(header: str) -> None:
    sent = signed().header("range", "bytes=0-1").header("content-length", "0")
    doubled = replace(sent, headers=(*sent.headers, (header.title(), sent.value(header))))
    assert outcome(doubled) == "header_doubled"


@pytest.mark.parametrize("query", ["versionId=1&versionId=2", "prefix=dev/&PREFIX=prod/", "a=1&%61=1"])
def test_query_parameter_that_is_there_twice_is_refused(query: str) -> None:
    assert outcome(signed("GET", f"/airbridge-dags?{query}")) == "query_doubled"


@pytest.mark.parametrize(
    "target", ["/a b", "/%zz", "/a\x00", "http://gateway/x", "*", "", "/a?b c", "/a?b+c", "/a#b"]
)
def test_malformed_target_is_refused(target: str) -> None:
    assert outcome(replace(signed(), target=target)) in {"path_malformed", "query_malformed"}


# --- time -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("minutes", "result"), [(14.9, "ok"), (-14.9, "ok"), (15.1, "clock_skewed"), (-15.1, "clock_skewed")]
)
def test_clocks_may_differ_by_a_quarter_of_an_hour(minutes: float, result: str) -> None:
    sent, now = signed(), datetime.now(UTC)
    assert outcome(sent, now=now + timedelta(minutes=minutes)) == result


def test_skewed_clock_is_told_with_the_code_that_clients_know() -> None:
    with pytest.raises(S3Error) as raised:
        proved(signed(), now=datetime.now(UTC) + timedelta(hours=1))
    assert (raised.value.status, raised.value.code) == (403, "RequestTimeTooSkewed")


@pytest.mark.parametrize(
    ("seconds", "result"), [(0, "ok"), (58, "ok"), (62, "presigned_expired"), (-1000, "clock_skewed")]
)
def test_presigned_address_lives_as_long_as_it_says(seconds: float, result: str) -> None:
    assert outcome(signed(expires=60), now=datetime.now(UTC) + timedelta(seconds=seconds)) == result


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "1e3", "", "99999999"])
def test_presigned_address_has_bounds(expires: str) -> None:
    sent = signed(expires=60)
    changed = replace(sent, target=sent.target.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}"))
    assert outcome(changed) == "expiry_out_of_bounds"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=61", "signature_wrong"),
        ("a.py", "b.py", "signature_wrong"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=", "signature_malformed"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=range", "header_not_signed"),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=none", "signature_algorithm"),
        ("X-Amz-Expires=60", "X-Amz-Expires=60&X-Amz-Security-Token=x", "query_odd"),
        ("X-Amz-Expires=60", "X-Amz-Expires=60&x-amz-acl=public-read", "query_odd"),
        ("X-Amz-Expires=60", "X-Amz-Expires=60&versionId=1", "signature_wrong"),
        ("X-Amz-Expires=60", "X-Amz-Expires=60&x-amz-expires=600", "query_doubled"),
    ],
)
def test_tampered_presigned_address_is_refused(old: str, new: str, reason: str) -> None:
    sent = signed(expires=60)
    assert old in sent.target
    assert outcome(replace(sent, target=sent.target.replace(old, new, 1))) == reason


def test_presigned_address_is_good_for_its_method_alone() -> None:
    assert outcome(replace(signed("GET", expires=60), method="PUT")) == "signature_wrong"


def test_two_ways_of_signing_at_once_are_refused() -> None:
    sent = signed(expires=60)
    assert outcome(sent.header("authorization", signed().value("authorization"))) == "signature_doubled"


# --- what the time that it takes could tell -----------------------------------------------------------
@pytest.mark.parametrize("secrets", [(), (SECRET,), ("n" * 64,), (SECRET, "n" * 64), ("n" * 64, SECRET)])
def test_every_verification_is_the_same_work(
    monkeypatch: pytest.MonkeyPatch, secrets: tuple[str, ...]
) -> None:
    from airbridge.s3door import _signature

    calls: list[str] = []
    for name in ("signing_key", "signature"):
        real = getattr(_signature, name)
        monkeypatch.setattr(
            _signature, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1]
        )
    outcome(signed(), secrets)
    assert (calls.count("signing_key"), calls.count("signature")) == (2, 6)


def test_strangers_and_forgers_get_the_same_answer() -> None:
    from airbridge.s3door._errors import wrong_signature

    one, other = wrong_signature("principal_unknown"), wrong_signature("signature_wrong")
    assert (one.status, one.document("id")) == (other.status, other.document("id"))


# --- botocore signs what we verify: the other way round -------------------------------------------------
def test_signature_made_here_is_botocores() -> None:
    """The door signs its own requests to S3 with the same arithmetic."""
    request = AWSRequest("PUT", f"https://{HOST}/b/k%20k?x-id=PutObject", {"x-amz-meta-a": "1  2"}, b"")
    request.context["payload_signing_enabled"] = True
    S3SigV4Auth(Credentials("n", SECRET), "s3", "us-east-1").add_auth(request)
    made = request.headers["Authorization"].rpartition("Signature=")[2]
    sent = Sent("PUT", "/b/k%20k?x-id=PutObject", (("host", HOST), *request.headers.items()))
    claim = Claim(
        "n",
        Scope(request.context["timestamp"][:8], "us-east-1"),
        request.context["timestamp"],
        ("host", "x-amz-content-sha256", "x-amz-date", "x-amz-meta-a"),
        made,
        EMPTY_SHA256,
        presigned=False,
    )
    assert verify(sent.read(), claim, [SECRET]) is not None
