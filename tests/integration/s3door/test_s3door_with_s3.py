"""The door before the real S3: what S3 sees of a request, and what it never sees."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.s3door.conftest import RATE, client

from airbridge.credential import Credential

if TYPE_CHECKING:
    from tests.integration.s3door.conftest import Site

DAGS = "airbridge-dags"
MIB = 1024 * 1024


def _versions(site: Site, key: str) -> list[Any]:
    found = site.raw.list_object_versions(Bucket=DAGS, Prefix=key)
    return [*found.get("Versions", []), *found.get("DeleteMarkers", [])]


@pytest.mark.parametrize("size", [0, 1, 70_000, 8 * MIB])
def test_bodies_of_any_size_arrive_as_they_were_sent(site: Site, size: int) -> None:
    body, key = os.urandom(size), f"dev/orders/size-{size}"
    s3 = client(site.door.container.port(9000), site.team)
    s3.put_object(Bucket=DAGS, Key=key, Body=body)
    assert site.raw.get_object(Bucket=DAGS, Key=key)["Body"].read() == body
    assert s3.get_object(Bucket=DAGS, Key=key)["Body"].read() == body


@pytest.mark.parametrize("size", [1, 70_000, 8 * MIB])
@pytest.mark.parametrize("place", [0, -1])
def test_tampered_body_leaves_no_version_behind(site: Site, size: int, place: int) -> None:
    body, key = bytearray(os.urandom(size)), f"dev/orders/tampered-{size}-{place}"
    from tests.unit.s3door.s3_requests import signed

    sent = signed(
        "PUT",
        f"/{DAGS}/{key}",
        body=bytes(body),
        name=site.team.name,
        secret=site.team.secret,
        host="door:9000",
    )
    body[place] ^= 1
    status, answer = site.door.send(sent, bytes(body))
    assert status == 400
    assert b"XAmzContentSHA256Mismatch" in answer
    assert _versions(site, key) == []


def test_tampered_body_does_not_replace_what_is_there(site: Site) -> None:
    key = "dev/orders/kept"
    site.raw.put_object(Bucket=DAGS, Key=key, Body=b"as it was")
    payload = hashlib.sha256(b"signed").hexdigest()
    status, _ = site.door.ask(site.team, "PUT", f"/{DAGS}/{key}", b"forged", payload=payload)
    assert status == 400
    assert site.raw.get_object(Bucket=DAGS, Key=key)["Body"].read() == b"as it was"
    assert len(_versions(site, key)) == 1


def test_signature_that_does_not_hold_never_reaches_s3(site: Site) -> None:
    forged = Credential(site.team.name, "x" * 64)
    assert site.door.ask(forged, "PUT", f"/{DAGS}/dev/orders/forged", b"x")[0] == 403
    assert site.door.ask(site.team, "PUT", f"/{DAGS}/dev/foreign/x", b"x")[0] == 403
    assert _versions(site, "dev/orders/forged") == _versions(site, "dev/foreign/x") == []


def test_what_the_door_signs_for_s3_holds(site: Site) -> None:
    """Its S3 is a door too, which verifies as AWS does: bodies, chunks with checksums, queries, odd keys."""
    s3, key = client(site.chained.container.port(9000), site.team), "dev/orders/b c+ü=&.txt"
    written = s3.put_object(
        Bucket=DAGS, Key=key, Body=b"through two", ContentType="text/x", Metadata={"a": "1  2"}
    )
    assert site.raw.get_object(Bucket=DAGS, Key=key)["Body"].read() == b"through two"
    read = s3.get_object(Bucket=DAGS, Key=key, VersionId=written["VersionId"])
    assert (read["Body"].read(), read["ContentType"], read["Metadata"]) == (
        b"through two",
        "text/x",
        {"a": "1  2"},
    )
    listed = s3.list_objects_v2(Bucket=DAGS, Prefix="dev/orders/b c+")["Contents"]
    assert [row["Key"] for row in listed] == [key]
    deleted = s3.delete_objects(Bucket=DAGS, Delete={"Objects": [{"Key": key}]})
    assert [row["Key"] for row in deleted["Deleted"]] == [key]


def test_one_principals_flood_is_refused_with_a_code_that_clients_retry(site: Site) -> None:
    asked = f"/{DAGS}?list-type=2&prefix=dev%2F"
    time.sleep(2)  # the burst of the tests before is forgotten
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: site.chained.ask(site.team, "GET", asked), range(8 * RATE)))
    codes = {status for status, _ in answers}
    assert codes == {200, 503}
    assert any(b"<Code>SlowDown</Code>" in body for _, body in answers)
    assert site.chained.ask(site.operator, "GET", asked)[0] == 200


def test_metrics_count_requests_and_refusals_by_reason_and_name_nobody(site: Site) -> None:
    site.door.ask(site.team, "GET", f"/{DAGS}/dev/orders/nothing")
    site.door.ask(Credential("nobody", "x" * 64), "GET", f"/{DAGS}/dev/orders/nothing")
    status, text = site.door.inside("/metrics")
    assert status == 200
    assert 'airbridge_s3_requests_total{operation="GetObject",status="404"}' in text
    assert 'airbridge_s3_refusals_total{reason="principal_unknown"}' in text
    assert site.team.name not in text


def test_revocation_is_in_force_within_a_second(site: Site) -> None:
    gone = Credential.new("gone")
    site.publishers.enroll(gone, ["orders"])
    asked = f"/{DAGS}?list-type=2&prefix=dev%2F"
    assert site.door.ask(gone, "GET", asked)[0] == 200
    site.publishers.revoke("gone")
    started = time.monotonic()
    while site.door.ask(gone, "GET", asked)[0] == 200:
        assert time.monotonic() - started < 5
    assert time.monotonic() - started < 1


def test_health_says_what_is_away_and_the_door_comes_back_by_itself(site: Site) -> None:
    assert site.door.container.execute("python", "-m", "airbridge.s3door", "health").code == 0
    asked = f"/{DAGS}?list-type=2&prefix=dev%2F"
    for service, said in (
        (site.localstack, "S3 does not answer"),
        (site.postgres, "Postgres cannot be used"),
    ):
        service.kill()
        done = site.door.container.execute("python", "-m", "airbridge.s3door", "health")
        assert done.code == 1
        assert said in done.err
        time.sleep(0.6)  # longer than an enrolment is remembered
        status, body = site.door.ask(site.team, "GET", asked)
        assert (status, b"ServiceUnavailable" in body) == (503, True)
        service.start()
        site.door.container.until(
            "recovery", lambda: site.door.ask(site.team, "GET", asked)[0] == 200, pause_s=0.5
        )


def test_door_holds_no_secret_that_it_does_not_need(site: Site) -> None:
    environment = site.door.container.execute("cat", "/proc/1/environ").out
    assert "JWT" not in environment
    assert "SESSION" not in environment
