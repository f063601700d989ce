from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from sync_peer import Peer, Request, error

from airbridge.errors import AirbridgeError, IntegrityError, RefusedError, UnreachableError
from airbridge.sync._settings import Settings, load_settings
from airbridge.sync.s3 import Bucket, RemoteObject

if TYPE_CHECKING:
    from collections.abc import Callable

LIST = '<?xml version="1.0"?><ListBucketResult><Name>airbridge-dags</Name><Prefix>dev/</Prefix>'
ITEM = "<Contents><Key>dev/a</Key><ETag>x</ETag><Size>1</Size><LastModified>y</LastModified></Contents>"
MOVED = {"x-amz-bucket-region": "us-west-2"}
END = "<IsTruncated>false</IsTruncated></ListBucketResult>"


def test_a_listing_has_every_object_of_every_page_and_costs_one_request_a_page(
    peer: Peer, settings: Settings
) -> None:
    peer.page_size = 10
    for number in range(35):
        peer.put(f"dev/etl/dags/{number:02}.py", str(number))
    peer.put("prod/etl/dags/other.py", "not ours")
    listing = Bucket(settings).list()
    assert [item.path for item in listing.objects] == [f"etl/dags/{number:02}.py" for number in range(35)]
    assert len(peer.requests) == 4


def test_odd_names_arrive_as_they_are(peer: Peer, settings: Settings) -> None:
    names = ["a b.py", "ü+%2F&<>\"'.py", "line\nbreak.py", "tab\t.py", "日本\uff0e.py"]
    for name in names:
        peer.put(f"dev/etl/dags/{name}", name)
    assert {item.path for item in Bucket(settings).list().objects} == {f"etl/dags/{name}" for name in names}


def test_an_object_carries_what_change_detection_needs(peer: Peer, settings: Settings) -> None:
    peer.put("dev/etl/dags/a.py", "abc")
    assert Bucket(settings).list().objects == [
        RemoteObject("etl/dags/a.py", "900150983cd24fb0d6963f7d28e17f72", 3, "2026-01-01T00:00:00.000Z")
    ]


@pytest.mark.parametrize("change", ["content", "time", "etag", "added", "removed"])
def test_any_change_changes_the_digest(peer: Peer, settings: Settings, change: str) -> None:
    peer.put("dev/etl/dags/a.py", "abc")
    peer.put("dev/etl/dags/b.py", "abc")
    bucket = Bucket(settings)
    before = bucket.list().digest
    assert bucket.list().digest == before
    match change:
        case "content":
            peer.put("dev/etl/dags/a.py", "abd")  # same size, same second
        case "time":
            peer.put("dev/etl/dags/a.py", "abc", modified="2026-01-01T00:00:01.000Z")
        case "etag":
            peer.put("dev/etl/dags/a.py", "abc", etag="900150983cd24fb0d6963f7d28e17f72-2")
        case "added":
            peer.put("dev/etl/dags/c.py", "abc")
        case "removed":
            peer.delete("dev/etl/dags/b.py")
    assert bucket.list().digest != before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please log in to the wireless network</body></html>",
        b"not XML",
        b'<?xml version="1.0"?><ListBucketResult></ListBucketResult>',
        b'<?xml version="1.0"?><ListAllMyBucketsResult><Name>airbridge-dags</Name></ListAllMyBucketsResult>',
        LIST.replace("dev/", "prod/").encode() + END.encode(),
        LIST.replace("airbridge-dags", "other").encode() + END.encode(),
        LIST.encode() + b"</ListBucketResult>",
        LIST.encode() + b"<IsTruncated>false</IsTruncated>",
        LIST.encode() + b"<KeyCount>2</KeyCount>" + END.encode(),
        LIST.encode() + b"<IsTruncated>true</IsTruncated></ListBucketResult>",
        LIST.encode() + b"<Contents><Key>dev/a</Key></Contents>" + END.encode(),
        (LIST + ITEM.replace("dev/a", "prod/a") + END).encode(),
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + LIST.encode() + END.encode(),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_listing_of_the_prefix_is_never_an_empty_bucket(
    peer: Peer, settings: Settings, body: bytes
) -> None:
    peer.fault = lambda _request: (200, {}, body)
    with pytest.raises(IntegrityError):
        Bucket(settings).list()


def test_an_answer_that_breaks_off_is_an_error(peer: Peer, settings: Settings) -> None:
    peer.put("dev/etl/dags/a.py", "abc")
    whole = peer.listing({"prefix": "dev/"})
    peer.fault = lambda _request: (
        200,
        {"Content-Length": str(len(whole)), "Connection": "close"},
        whole[:-40],
    )
    with pytest.raises(UnreachableError):
        Bucket(settings).list()


def test_a_page_that_names_an_object_twice_is_an_error(peer: Peer, settings: Settings) -> None:
    peer.fault = lambda _request: (200, {}, (LIST + ITEM + ITEM + END).encode())
    with pytest.raises(IntegrityError, match="twice"):
        Bucket(settings).list()


@pytest.mark.parametrize(
    ("status", "code", "headers", "kind", "named", "fix"),
    [
        (404, "NoSuchBucket", {}, RefusedError, "DAG_BUCKET=airbridge-dags does not", "create the bucket"),
        (403, "InvalidAccessKeyId", {}, RefusedError, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", {}, RefusedError, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", {}, RefusedError, "AccessDenied", "s3:ListBucket"),
        (403, "RequestTimeTooSkewed", {}, RefusedError, "clock", "NTP"),
        (301, "PermanentRedirect", MOVED, RefusedError, "AWS_DEFAULT_REGION=eu-west-3", "=us-west-2"),
        (503, "SlowDown", {}, UnreachableError, "S3_ENDPOINT_URL=", "wait"),
        (500, "", {}, UnreachableError, "S3_ENDPOINT_URL=", "wait"),
        (418, "Teapot", {}, RefusedError, "418 Teapot", "S3_ENDPOINT_URL"),
    ],
)  # fmt: skip
def test_a_refusal_says_in_one_line_which_setting_to_correct(
    peer: Peer,
    settings: Settings,
    status: int,
    code: str,
    headers: dict[str, str],
    kind: type[AirbridgeError],
    named: str,
    fix: str,
) -> None:
    peer.fault = lambda _request: (status, headers, error(code) if code else b"\xff\xfe")
    with pytest.raises(kind) as caught:
        Bucket(settings).list()
    assert named in caught.value.what
    assert fix in caught.value.fix
    assert len(str(caught.value).splitlines()) == 1


def test_what_a_gateway_says_in_plain_text_is_passed_on(peer: Peer, settings: Settings) -> None:
    peer.fault = lambda _request: (403, {}, b"AccessDenied: this edge host's token was not accepted\n")
    with pytest.raises(RefusedError, match="this edge host's token was not accepted") as caught:
        Bucket(settings).list()
    assert "CONTROL_PLANE_TOKEN" in caught.value.fix
    assert len(str(caught.value).splitlines()) == 1


def test_a_port_that_nobody_listens_on_is_named(peer: Peer, settings: Settings) -> None:
    peer.stop()
    with pytest.raises(
        UnreachableError, match=rf"S3_ENDPOINT_URL={peer.url} cannot be reached: Connection refused"
    ):
        Bucket(settings).list()
    peer.start()


def test_a_host_name_that_does_not_resolve_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://no-such-host.invalid:4566")
    with pytest.raises(
        UnreachableError, match=r"S3_ENDPOINT_URL=http://no-such-host.invalid:4566 .* does not resolve"
    ):
        Bucket(load_settings()).list()


def test_plain_http_behind_an_https_endpoint_is_a_tls_failure(
    peer: Peer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", peer.url.replace("http:", "https:"))
    with pytest.raises(UnreachableError, match=r"S3_ENDPOINT_URL=https://.* TLS failed"):
        Bucket(load_settings()).list()


def test_a_closed_keep_alive_connection_is_opened_again(peer: Peer, settings: Settings) -> None:
    bucket = Bucket(settings)
    bucket.list()
    drops = iter([True])

    def hang_up(_request: Request) -> None:
        if next(drops, False):
            raise ConnectionAbortedError  # the server thread ends without an answer

    peer.fault = hang_up
    assert bucket.list().objects == []


def test_requests_are_signed_for_region_and_key(peer: Peer, settings: Settings) -> None:
    """What crosses the wire, read from a raw socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[bytes] = []

        def take() -> None:
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(65536))
                body = (LIST + END).encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                    % (len(body), body)
                )

        run_beside(take)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        Bucket(settings.model_copy(update={"s3_endpoint_url": url})).list()
    head = seen[0].decode()
    assert head.startswith("GET /airbridge-dags?encoding-type=url&list-type=2&prefix=dev%2F HTTP/1.1\r\n")
    assert "Authorization: AWS4-HMAC-SHA256 Credential=edge-1/" in head
    assert "/eu-west-3/s3/aws4_request" in head
    assert "correct-horse-battery" not in head


def run_beside(work: Callable[[], None]) -> None:
    import threading

    threading.Thread(target=work, daemon=True).start()


def test_head_tells_writes_of_one_object_apart(peer: Peer, settings: Settings) -> None:
    bucket = Bucket(settings)
    assert bucket.head("dev/etl/dags/a.py") is None
    peer.put("dev/etl/dags/a.py", "abc")
    first = bucket.head("dev/etl/dags/a.py")
    peer.put("dev/etl/dags/a.py", "abc")
    second = bucket.head("dev/etl/dags/a.py")
    assert first is not None
    assert second is not None
    assert first.etag == second.etag
    assert first != second
