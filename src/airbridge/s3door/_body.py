"""A request's body on its way to S3: what its sender signed, whole, or S3 never sees the end of it.

S3 commits an object when its last byte has come. So the last piece is held back until everything before it,
and it itself, is known to be right; a body that is not is broken off, and S3 drops what it has.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airbridge.s3door._chunks import ChunkReader, ChunkSigning
from airbridge.s3door._errors import S3Error, bad_digest, invalid_request
from airbridge.s3door._signature import UNSIGNED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airbridge.s3door._request import Request
    from airbridge.s3door._signature import Proof

__all__ = ["TRAILER_PAYLOAD", "Body"]

TRAILER_PAYLOAD: Final = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SIGNED_CHUNKS: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_SIGNED_CHUNKS_TRAILER: Final = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
_CHUNKED: Final = frozenset({TRAILER_PAYLOAD, _SIGNED_CHUNKS, _SIGNED_CHUNKS_TRAILER})
_SHA256: Final = re.compile("[0-9a-f]{64}")
_LENGTH: Final = re.compile("[0-9]{1,15}")
# What chunks and their signatures may add to a body: SDKs add a percent, a chunk of a byte much more.
_MOST_FRAMING: Final = 8
# Length in base64 of what may come behind a body: a checksum of one of these kinds, and nothing else.
_CHECKSUMS: Final = {
    "x-amz-checksum-crc32": 8,
    "x-amz-checksum-crc32c": 8,
    "x-amz-checksum-crc64nvme": 12,
    "x-amz-checksum-sha1": 28,
    "x-amz-checksum-sha256": 44,
}
_OUR_CHUNK: Final = 64 * 1024  # of the chunks that S3 gets


class _Crc32:
    """CRC-32 with hashlib's methods."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


# S3 verifies each kind behind us; these are quick here too, and so a wrong body does not even get there.
_COMPUTED: Final[dict[str, Callable[[], Any]]] = {
    "x-amz-checksum-crc32": _Crc32,
    "x-amz-checksum-sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "x-amz-checksum-sha256": hashlib.sha256,
}


@dataclass(frozen=True, slots=True)
class Body:
    """What a request says of its body, checked against what is allowed."""

    length: int
    """Bytes of content, without what chunks add."""
    payload: str
    trailer: str = ""
    """Name of the header behind the body, empty: none."""

    @classmethod
    def of(cls, request: Request, payload: str, longest: int) -> Body:
        """Read what the headers say.

        :param payload: ``x-amz-content-sha256`` as it was signed
        :param longest: bytes that a body may have
        :raises S3Error: too long, of unknown length, or of a form that is not served
        """
        if payload in _CHUNKED:
            # SDKs that make chunks as they go do not know how long the whole will be on the wire.
            length = _number(request.headers.get("x-amz-decoded-content-length", ""))
            trailer = request.headers.get("x-amz-trailer", "").strip().lower()
            if bool(trailer) != payload.endswith("-TRAILER") or (trailer and trailer not in _CHECKSUMS):
                raise invalid_request("One trailing checksum must be announced.", reason="trailer_odd")
            body = cls(length, payload, trailer)
        elif payload != UNSIGNED and not _SHA256.fullmatch(payload):
            raise invalid_request(
                "This kind of x-amz-content-sha256 is not served.", "NotImplemented", "payload_odd"
            )
        elif "transfer-encoding" in request.headers:
            raise S3Error(411, "MissingContentLength", "Content-Length is needed.", reason="length_missing")
        else:
            body = cls(_number(request.headers.get("content-length", "0")), payload)
        if body.length > longest:
            raise S3Error(400, "EntityTooLarge", f"A body may have {longest} bytes.", reason="body_too_large")
        return body

    @property
    def sent_length(self) -> int:
        """Bytes that S3 gets: with a trailer, our own chunks count."""
        if not self.trailer:
            return self.length
        whole, rest = divmod(self.length, _OUR_CHUNK)
        framed = whole * (_OUR_CHUNK + len(f"{_OUR_CHUNK:x}") + 4)
        framed += rest + len(f"{rest:x}") + 4 if rest else 0
        return framed + len("0\r\n") + len(self.trailer) + 1 + _CHECKSUMS[self.trailer] + 4

    async def stream(self, source: AsyncIterator[bytes], proof: Proof) -> AsyncIterator[bytes]:
        """Yield what S3 gets; the last piece only once all is known to be right.

        :raises S3Error: the body is not what its sender signed
        """
        if self.trailer:
            async for piece in self._framed(source, proof):
                yield piece
            return
        async for piece in self._checked(source, proof, {}):
            yield piece

    async def _framed(self, source: AsyncIterator[bytes], proof: Proof) -> AsyncIterator[bytes]:
        """Yield chunks of ours with the checksum behind them, so that S3 verifies and keeps it."""
        trailers: dict[str, str] = {}
        kept = bytearray()
        async for piece in self._checked(source, proof, trailers):
            kept += piece
            while len(kept) >= _OUR_CHUNK:
                yield b"%x\r\n%b\r\n" % (_OUR_CHUNK, bytes(kept[:_OUR_CHUNK]))
                del kept[:_OUR_CHUNK]
        if kept:
            yield b"%x\r\n%b\r\n" % (len(kept), bytes(kept))
        yield f"0\r\n{self.trailer}:{trailers[self.trailer]}\r\n\r\n".encode()

    async def _checked(
        self, source: AsyncIterator[bytes], proof: Proof, trailers: dict[str, str]
    ) -> AsyncIterator[bytes]:
        """Yield the content; what came behind it is in ``trailers`` before the last piece is out."""
        reader = self._reader(proof)
        digest = hashlib.sha256() if _SHA256.fullmatch(self.payload) else None
        checksum = _COMPUTED[self.trailer]() if self.trailer in _COMPUTED else None
        held = b""
        count = 0
        async for data in self._bounded(source):
            for piece in reader.feed(data) if reader else [data]:
                if not piece:
                    continue
                count += len(piece)
                if count > self.length:
                    raise invalid_request("The body is longer than it says.", reason="body_too_long")
                if digest:
                    digest.update(piece)
                if checksum:
                    checksum.update(piece)
                if held:
                    yield held
                held = piece
        if reader:
            reader.finish()
            trailers.update(reader.trailers)
        if count != self.length:
            raise S3Error(400, "IncompleteBody", "The body ended too early.", reason="body_incomplete")
        if digest and not hmac.compare_digest(digest.hexdigest(), self.payload):
            raise bad_digest(
                "XAmzContentSHA256Mismatch", "The body is not what x-amz-content-sha256 says it is."
            )
        if self.trailer:
            self._check_trailer(trailers[self.trailer], checksum)
        if held:
            yield held

    async def _bounded(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield what comes on the wire, as long as it is not much more than the content."""
        count = 0
        async for data in source:
            count += len(data)
            if count > self.length * _MOST_FRAMING + _OUR_CHUNK:
                raise invalid_request("The body has more framing than content.", reason="chunks_malformed")
            yield data

    def _check_trailer(self, given: str, checksum: Any) -> None:
        if len(given) != _CHECKSUMS[self.trailer] or not re.fullmatch("[A-Za-z0-9+/]+={0,2}", given):
            raise bad_digest("InvalidRequest", "The trailing checksum is malformed.")
        if checksum and base64.b64encode(checksum.digest()).decode() != given:
            raise bad_digest("BadDigest", "The body is not what its trailing checksum says.")

    def _reader(self, proof: Proof) -> ChunkReader | None:
        if self.payload not in _CHUNKED:
            return None
        signing = None
        if self.payload != TRAILER_PAYLOAD:
            claim = proof.claim
            signing = ChunkSigning(proof.key, claim.timestamp, claim.scope, claim.signature)
        return ChunkReader(signing, (self.trailer,) if self.trailer else ())


def _number(text: str) -> int:
    if not _LENGTH.fullmatch(text):
        raise S3Error(411, "MissingContentLength", "The body needs a length.", reason="length_missing")
    return int(text)
