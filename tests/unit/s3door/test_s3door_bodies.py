"""Bodies: AWS's published chunks, and nothing of a tampered one reaches its end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.s3door.s3_requests import SECRET, Sent

from airbridge.s3door._body import TRAILER_PAYLOAD, Body
from airbridge.s3door._canonical import EMPTY_SHA256, Scope, signature, signing_key
from airbridge.s3door._chunks import ChunkReader, ChunkSigning
from airbridge.s3door._errors import S3Error
from airbridge.s3door._signature import UNSIGNED, Claim, Proof

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

CHUNKED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
CHUNKED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
TIMESTAMP = "20260102T030405Z"
SCOPE = Scope("20260102", "us-east-1")
SEED = "5" * 64
KEY = signing_key(SECRET, SCOPE)
MIB = 1024 * 1024


def _proof(payload: str) -> Proof:
    return Proof(Claim("team-a", SCOPE, TIMESTAMP, ("host",), SEED, payload, presigned=False), KEY)


def _chunks(parts: Iterable[bytes], *, signed: bool, trailer: tuple[str, str] | None = None) -> bytes:
    """The wire form of a body, written independently of what reads it."""
    wire, previous = b"", SEED
    for part in (*parts, b""):
        head = f"{len(part):x}"
        if signed:
            rest = f"{EMPTY_SHA256}\n{hashlib.sha256(part).hexdigest()}"
            text = f"AWS4-HMAC-SHA256-PAYLOAD\n{TIMESTAMP}\n{SCOPE.text}\n{previous}\n{rest}"
            previous = signature(KEY, text)
            head += f";chunk-signature={previous}"
        wire += f"{head}\r\n".encode() + part + (b"\r\n" if part else b"")
    if trailer:
        line = f"{trailer[0]}:{trailer[1]}"
        wire += f"{line}\r\n".encode()
        if signed:
            digest = hashlib.sha256(f"{line}\n".encode()).hexdigest()
            text = f"AWS4-HMAC-SHA256-TRAILER\n{TIMESTAMP}\n{SCOPE.text}\n{previous}\n{digest}"
            wire += f"x-amz-trailer-signature:{signature(KEY, text)}\r\n".encode()
    return wire + b"\r\n"


async def _source(wire: bytes, step: int) -> AsyncIterator[bytes]:
    for start in range(0, len(wire), step):
        yield wire[start : start + step]


def _sent(wire: bytes, payload: str, length: int | None = None, trailer: str = "") -> Body:
    headers = [("content-length", str(len(wire)))]
    headers += [("x-amz-decoded-content-length", str(length))] if length is not None else []
    headers += [("x-amz-trailer", trailer)] if trailer else []
    return Body.of(Sent("PUT", "/b/dev/k", tuple(headers)).read(), payload, 8 * MIB)


def _passed(body: Body, wire: bytes, step: int = 1000) -> tuple[bytes, str]:
    """What S3 gets of a body, and why it was broken off (empty: it was not)."""
    out: list[bytes] = []

    async def run() -> str:
        try:
            async for piece in body.stream(_source(wire, step), _proof(body.payload)):
                out.append(piece)
        except S3Error as error:
            return error.reason
        return ""

    reason = asyncio.run(run())
    return b"".join(out), reason


# --- AWS's example: "Transferring Payload in Multiple Chunks" ---
def test_published_example_of_chunks_holds() -> None:
    key = signing_key("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Scope("20130524", "us-east-1"))
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    reader = ChunkReader(ChunkSigning(key, "20130524T000000Z", Scope("20130524", "us-east-1"), seed))
    wire = (
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n"
        + b"a" * 65536
        + b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"
        + b"a" * 1024
        + b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
    )
    assert b"".join(reader.feed(wire)) == b"a" * 66560
    reader.finish()


# --- whole bodies pass ------------------------------------------
PARTS = st.lists(st.binary(min_size=1, max_size=400), max_size=6)
STEPS = st.integers(1, 700)


@given(PARTS, STEPS, st.booleans())
@settings(deadline=None)
def test_chunked_body_arrives_whatever_pieces_it_comes_in(
    parts: list[bytes], step: int, signed: bool
) -> None:
    content = b"".join(parts)
    checksum = ("x-amz-checksum-crc32", base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode())
    trailer = None if signed else checksum
    payload = CHUNKED if signed else TRAILER_PAYLOAD
    wire = _chunks(parts, signed=signed, trailer=trailer)
    body = _sent(wire, payload, len(content), trailer[0] if trailer else "")
    out, reason = _passed(body, wire, step)
    assert reason == ""
    assert len(out) == body.sent_length
    if trailer:  # S3 gets chunks of ours, with the checksum behind them
        reader = ChunkReader(None, (trailer[0],))
        assert b"".join(reader.feed(out)) == content
        assert reader.trailers == dict([trailer])
    else:
        assert out == content


@given(st.binary(max_size=2000), STEPS)
@settings(deadline=None)
def test_body_in_one_chunk_arrives(content: bytes, step: int) -> None:
    for payload in (hashlib.sha256(content).hexdigest(), UNSIGNED):
        assert _passed(_sent(content, payload), content, step) == (content, "")


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_signed_trailing_checksums_hold(kind: str) -> None:
    content = b"x" * 100_000
    digest = base64.b64encode(hashlib.new(kind, content).digest()).decode()
    name = f"x-amz-checksum-{kind}"
    wire = _chunks([content[:70_000], content[70_000:]], signed=True, trailer=(name, digest))
    body = _sent(wire, CHUNKED_TRAILER, len(content), name)
    out, reason = _passed(body, wire)
    assert (reason, len(out)) == ("", body.sent_length)


# --- tampered ones do not come to their end ---------------------
def _broken(body: Body, wire: bytes) -> str:
    out, reason = _passed(body, wire, 1000)
    assert reason != ""
    assert len(out) < max(body.sent_length, 1), "S3 would have got a whole body"
    return reason


CONTENT = bytes(range(256)) * 20


@pytest.mark.parametrize("place", [0, 2000, len(CONTENT) - 1])
def test_body_that_is_not_what_was_signed_is_broken_off(place: int) -> None:
    tampered = bytearray(CONTENT)
    tampered[place] ^= 1
    body = _sent(bytes(tampered), hashlib.sha256(CONTENT).hexdigest())
    assert _broken(body, bytes(tampered)) == "body_tampered"


def test_body_where_none_was_signed_is_broken_off() -> None:
    assert _broken(_sent(b"x", EMPTY_SHA256), b"x") == "body_tampered"


@pytest.mark.parametrize("cut", [1, 100, len(CONTENT)])
def test_body_that_ends_early_is_broken_off(cut: int) -> None:
    body = _sent(CONTENT, UNSIGNED)
    assert _broken(body, CONTENT[:-cut]) == "body_incomplete"


CHUNKS = [CONTENT[:2000], CONTENT[2000:4000], CONTENT[4000:]]


def _swap(wire: bytes) -> bytes:
    heads = wire.split(b"\r\n")
    heads[0], heads[2] = heads[2], heads[0]
    return b"\r\n".join(heads)


@pytest.mark.parametrize(
    "tamper",
    {
        "first chunk's data": lambda wire: wire.replace(CONTENT[:10], b"x" * 10, 1),
        "last chunk's data": lambda wire: wire[:-120] + bytes([wire[-120] ^ 1]) + wire[-119:],
        "a chunk's signature": lambda wire: wire.replace(b"=", b"=0", 1),
        "chunks swapped": _swap,
        "the last chunk left out": lambda wire: wire[: wire.rindex(b"0;chunk")],
        "a chunk added": lambda wire: wire.replace(b"\r\n0;chunk", b"\r\n1\r\nx\r\n0;chunk"),
        "something behind the end": lambda wire: wire + b"more",
        "a chunk without signature": lambda wire: b"1\r\nx\r\n" + wire,
    }.values(),
)  # fmt: skip
def test_tampered_chunks_are_broken_off(tamper: object) -> None:
    wire = _chunks(CHUNKS, signed=True)
    changed = tamper(wire)  # type: ignore[operator]
    assert changed != wire
    assert _broken(_sent(changed, CHUNKED, len(CONTENT)), changed) in {
        "chunk_tampered", "chunks_malformed", "body_incomplete",
    }  # fmt: skip


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("what", ["checksum", "content", "missing", "another"])
def test_trailing_checksum_that_does_not_fit_is_broken_off(signed: bool, what: str) -> None:
    crc = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
    name = "x-amz-checksum-crc32"
    given_crc = "AAAAAA==" if what in {"checksum", "content"} else crc
    wire = _chunks(
        CHUNKS,
        signed=signed,
        trailer=None if what == "missing" else ("x-amz-meta-x" if what == "another" else name, given_crc),
    )
    payload = CHUNKED_TRAILER if signed else TRAILER_PAYLOAD
    assert _broken(_sent(wire, payload, len(CONTENT), name), wire) in {"body_tampered", "chunks_malformed"}


def test_trailer_of_another_body_is_broken_off() -> None:
    name = "x-amz-checksum-crc32"
    wire = _chunks(CHUNKS, signed=True, trailer=(name, "AAAAAA=="))
    forged = wire.replace(b"AAAAAA==", b"AAAAAQ==")
    assert _broken(_sent(forged, CHUNKED_TRAILER, len(CONTENT), name), forged) == "chunk_tampered"


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_noise_for_chunks_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    for payload in (CHUNKED, TRAILER_PAYLOAD):
        trailer = "x-amz-checksum-crc32" if payload == TRAILER_PAYLOAD else ""
        body = _sent(noise, payload, 100, trailer)
        assert _passed(body, noise, 7)[1] != ""


# --- what headers may say ---------------------------------------
@pytest.mark.parametrize(
    ("headers", "payload", "reason"),
    [
        ({"content-length": "9000000"}, UNSIGNED, "body_too_large"),
        ({"content-length": "-1"}, UNSIGNED, "length_missing"),
        ({"content-length": "+1"}, UNSIGNED, "length_missing"),
        ({"content-length": "1", "transfer-encoding": "chunked"}, UNSIGNED, "length_missing"),
        ({"content-length": "10"}, CHUNKED, "length_missing"),
        ({"content-length": "10", "x-amz-decoded-content-length": "9000000"}, CHUNKED, "body_too_large"),
        ({"content-length": "10"}, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "payload_odd"),
        ({"content-length": "10"}, "nonsense", "payload_odd"),
        ({"content-length": "10", "x-amz-decoded-content-length": "1"}, TRAILER_PAYLOAD, "trailer_odd"),
        (
            {"content-length": "10", "x-amz-decoded-content-length": "1", "x-amz-trailer": "x-amz-meta-a"},
            TRAILER_PAYLOAD,
            "trailer_odd",
        ),
        (
            {
                "content-length": "10",
                "x-amz-decoded-content-length": "1",
                "x-amz-trailer": "x-amz-checksum-crc32",
            },
            CHUNKED,
            "trailer_odd",
        ),
    ],
)
def test_body_of_an_odd_form_is_refused_before_it_is_read(
    headers: dict[str, str], payload: str, reason: str
) -> None:
    with pytest.raises(S3Error) as raised:
        Body.of(Sent("PUT", "/b/k", tuple(headers.items())).read(), payload, 8 * MIB)
    assert raised.value.reason == reason


def test_length_of_chunks_on_the_wire_need_not_be_known() -> None:
    wire = _chunks(CHUNKS, signed=True)
    headers = (("transfer-encoding", "chunked"), ("x-amz-decoded-content-length", str(len(CONTENT))))
    body = Body.of(Sent("PUT", "/b/dev/k", headers).read(), CHUNKED, 8 * MIB)
    assert _passed(body, wire) == (CONTENT, "")


def test_more_framing_than_content_is_broken_off() -> None:
    wire = _chunks([b"x"] * 2000, signed=True)
    assert _broken(_sent(wire, CHUNKED, 2000), wire) == "chunks_malformed"


def test_signed_chunk_that_is_too_long_to_keep_is_refused() -> None:
    wire = b"ffffffff;chunk-signature=" + b"0" * 64 + b"\r\n"
    with pytest.raises(S3Error) as raised:
        ChunkReader(ChunkSigning(KEY, TIMESTAMP, SCOPE, SEED)).feed(wire)
    assert raised.value.reason == "chunks_malformed"


def test_endless_line_is_refused() -> None:
    with pytest.raises(S3Error):
        ChunkReader(None).feed(b"0" * 2000)
