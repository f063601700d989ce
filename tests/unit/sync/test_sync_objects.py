"""Single objects: read, written and removed over HTTP, whatever the answer is."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from sync_peer import Peer, error

from airbridge.errors import AirbridgeError, IntegrityError, RefusedError, UnreachableError
from airbridge.sync._parallel import in_parallel
from airbridge.sync.s3 import Bucket, NoAnswerError

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.sync._settings import Settings

KEY = "dev/etl/dags/a b+c%.py"


@pytest.fixture
def bucket(settings: Settings) -> Bucket:
    return Bucket(settings)


def test_an_object_and_each_of_its_versions_can_be_read(peer: Peer, bucket: Bucket, tmp_path: Path) -> None:
    first, second = peer.put(KEY, "one"), peer.put(KEY, "two")
    for version, body in ((first.version, b"one"), (second.version, b"two"), ("", b"two")):
        got = bucket.get(KEY, version=version, max_bytes=10)
        assert got is not None
        assert got.body == body
        head = bucket.download(KEY, tmp_path / "file", version=version, max_bytes=10)
        assert head == got.head
        assert (tmp_path / "file").read_bytes() == body
    assert bucket.get(KEY, version="v99", max_bytes=10) is None
    assert bucket.download("dev/absent", tmp_path / "file", max_bytes=10) is None


def test_an_object_that_did_not_change_is_not_sent_again(peer: Peer, bucket: Bucket) -> None:
    etag = peer.put(KEY, "one").etag
    got = bucket.get(KEY, unless=etag, max_bytes=10)
    assert got is not None
    assert (got.body, got.head.etag) == (None, etag)
    peer.put(KEY, "two")
    got = bucket.get(KEY, unless=etag, max_bytes=10)
    assert got is not None
    assert got.body == b"two"


def test_an_object_that_is_too_large_is_refused_and_a_download_of_it_stops(
    peer: Peer, bucket: Bucket, tmp_path: Path
) -> None:
    peer.put(KEY, b"x" * 1_000_000)
    with pytest.raises(IntegrityError, match="more than 10 bytes"):
        bucket.get(KEY, max_bytes=10)
    bucket.download(KEY, tmp_path / "file", max_bytes=11)
    assert (tmp_path / "file").stat().st_size == 11
    peer.put(KEY, b"y" * 700_000)
    bucket.download(KEY, tmp_path / "file", max_bytes=700_001)
    assert (tmp_path / "file").read_bytes() == b"y" * 700_000


def test_an_object_that_is_stored_compressed_is_read_as_it_is(peer: Peer, bucket: Bucket) -> None:
    body = gzip.compress(b"text", mtime=0)
    peer.put(KEY, body).headers["Content-Encoding"] = "gzip"
    got = bucket.get(KEY, max_bytes=100)
    assert got is not None
    assert got.body == body


def test_a_body_that_breaks_off_is_an_error(peer: Peer, bucket: Bucket, tmp_path: Path) -> None:
    peer.fault = lambda _request: (200, {"Content-Length": "10", "Connection": "close"}, b"short")
    with pytest.raises(UnreachableError):
        bucket.get(KEY, max_bytes=100)
    with pytest.raises(UnreachableError):
        bucket.download(KEY, tmp_path / "file", max_bytes=100)


def test_what_is_put_can_be_read_and_what_is_deleted_is_gone(peer: Peer, bucket: Bucket) -> None:
    first = bucket.put(KEY, b"one", "text/plain")
    second = bucket.put(KEY, b"two", "text/plain")
    assert first != second
    assert peer.objects[KEY].body == b"two"
    bucket.delete(KEY, version=first)
    assert bucket.get(KEY, version=first, max_bytes=10) is None
    bucket.delete(KEY)
    assert bucket.get(KEY, max_bytes=10) is None
    bucket.delete(KEY)
    put = next(request for request in peer.requests if request.operation == "put")
    assert put.headers["Content-Type"] == "text/plain"
    assert "AWS4-HMAC-SHA256" in put.headers["Authorization"]


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (404, "NoSuchBucket", RefusedError, "DAG_BUCKET=airbridge-dags does not exist"),
        (403, "AccessDenied", RefusedError, "S3 refuses to"),
        (400, "InvalidArgument", RefusedError, "400 InvalidArgument"),
        (500, "InternalError", UnreachableError, "is failing"),
        (503, "SlowDown", UnreachableError, "is failing"),
    ],
)
def test_a_refusal_is_one_line_and_no_lack_of_an_answer(
    peer: Peer, bucket: Bucket, tmp_path: Path, status: int, code: str, kind: type[AirbridgeError], said: str
) -> None:
    peer.fault = lambda _request: (status, {}, error(code))
    for ask in (
        lambda: bucket.get(KEY, max_bytes=10),
        lambda: bucket.download(KEY, tmp_path / "file", max_bytes=10),
        lambda: bucket.put(KEY, b"x", "text/plain"),
        lambda: bucket.list(".airbridge/dev/"),
    ):
        with pytest.raises(kind, match=said) as caught:
            ask()
        assert not isinstance(caught.value, NoAnswerError)
        assert "\n" not in str(caught.value)


def test_another_prefix_can_be_listed(peer: Peer, bucket: Bucket) -> None:
    peer.put(".airbridge/dev/trees/x", "x")
    peer.put("dev/etl/dags/a.py", "a")
    assert [item.path for item in bucket.list(".airbridge/dev/trees/").objects] == ["x"]
    assert [item.path for item in bucket.list().objects] == ["etl/dags/a.py"]


def test_work_in_parallel_gives_every_result_or_the_first_error() -> None:
    assert sorted(in_parallel(lambda number: number * 2, range(50))) == [(n, n * 2) for n in range(50)]
    assert in_parallel(lambda number: number, []) == []
    begun: list[int] = []

    def fail(number: int) -> None:
        begun.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match=r"\d"):
        in_parallel(fail, range(1000))
    assert len(begun) < 1000
