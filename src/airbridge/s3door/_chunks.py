"""Bodies that are sent in chunks of their own, each with a signature, or a checksum after the last one.

After "Signature calculations for the authorization header: transferring payload in multiple chunks" and "…
including trailing headers" (Amazon S3 API Reference,
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html)::

    <length in hexadecimal>[;chunk-signature=<signature>]\\r\\n<data>\\r\\n
    0[;chunk-signature=<signature>]\\r\\n
    [<name>:<value>\\r\\n … [x-amz-trailer-signature:<signature>\\r\\n]]\\r\\n
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from airbridge.s3door._canonical import EMPTY_SHA256, Scope, signature
from airbridge.s3door._errors import S3Error, bad_digest, invalid_request, wrong_signature

__all__ = ["ChunkReader", "ChunkSigning"]

_CHUNK: Final = "AWS4-HMAC-SHA256-PAYLOAD"
_TRAILER: Final = "AWS4-HMAC-SHA256-TRAILER"
_TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"
_SIGNED_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,8});chunk-signature=([0-9a-f]{64})")
_PLAIN_HEAD: Final = re.compile(rb"([0-9a-fA-F]{1,8})")
_LONGEST_LINE: Final = 1024
# A signed chunk is kept until its signature holds. SDKs send 64 KiB to 1 MiB; S3 asks for 8 KiB at least.
_LONGEST_SIGNED: Final = 1024 * 1024


@dataclass(slots=True)
class ChunkSigning:
    """What the signature of the next chunk goes on from."""

    key: bytes = field(repr=False)
    timestamp: str
    scope: Scope
    previous: str

    def _check(self, algorithm: str, rest: str, given: str) -> None:
        text = f"{algorithm}\n{self.timestamp}\n{self.scope.text}\n{self.previous}\n{rest}"
        expected = signature(self.key, text)
        if not hmac.compare_digest(expected, given):
            raise wrong_signature("chunk_tampered")
        self.previous = expected

    def check_chunk(self, data: bytes, given: str) -> None:
        """Make sure that the sender signed this chunk after the ones before.

        :raises S3Error: it did not
        """
        self._check(_CHUNK, f"{EMPTY_SHA256}\n{hashlib.sha256(data).hexdigest()}", given)

    def check_trailer(self, trailer: bytes, given: str) -> None:
        """Make sure that the sender signed the trailing headers.

        :raises S3Error: it did not
        """
        self._check(_TRAILER, hashlib.sha256(trailer).hexdigest(), given)


class ChunkReader:
    """Takes the wire form apart as it comes; what it returns is the sender's, chunk by chunk.

    Args:
        signing: how chunks are signed; ``None``: they are not.
        trailers: names of the headers that must follow the last chunk, in lower case.
    """

    def __init__(self, signing: ChunkSigning | None, trailers: tuple[str, ...] = ()) -> None:
        self._signing = signing
        self._expected = trailers
        self._buffer = bytearray()
        self._size: int | None = None
        self._given = ""
        self._last = False
        self.trailers: dict[str, str] = {}
        self.done = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the chunks that are whole and right by now.

        :raises S3Error: the body is malformed, or a signature does not hold
        """
        if self.done and data:
            raise _malformed("There is something behind the end of the body.")
        self._buffer += data
        found: list[bytes] = []
        while not self.done and self._step(found):
            pass
        return found

    def finish(self) -> None:
        """Make sure that the body came to its end.

        :raises S3Error: it did not
        """
        if not self.done or self._buffer:
            raise S3Error(400, "IncompleteBody", "The body ended too early.", reason="body_incomplete")

    def _step(self, found: list[bytes]) -> bool:
        if self._last:
            return self._read_trailers()
        if self._size is None:
            return self._read_head()
        return self._read_data(found)

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > _LONGEST_LINE or (end < 0 and len(self._buffer) > _LONGEST_LINE):
            raise _malformed("A line of the chunked body is too long.")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_head(self) -> bool:
        line = self._line()
        if line is None:
            return False
        match = (_SIGNED_HEAD if self._signing else _PLAIN_HEAD).fullmatch(line)
        if not match:
            raise _malformed("The head of a chunk is malformed.")
        size = int(match[1], 16)
        if self._signing and size > _LONGEST_SIGNED:
            raise _malformed(f"A signed chunk may have {_LONGEST_SIGNED} bytes at most.")
        self._given = match[2].decode() if self._signing else ""
        if size == 0:
            if self._signing:
                self._signing.check_chunk(b"", self._given)
            self._last = True
        else:
            self._size = size
        return True

    def _read_data(self, found: list[bytes]) -> bool:
        size = self._size or 0
        if not self._signing and size:
            part = bytes(self._buffer[:size])
            del self._buffer[: len(part)]
            self._size = size - len(part)
            if part:
                found.append(part)
            return bool(part)
        if len(self._buffer) < size + 2:
            return False
        data = bytes(self._buffer[:size])
        if self._buffer[size : size + 2] != b"\r\n":
            raise _malformed("A chunk is longer than it says.")
        del self._buffer[: size + 2]
        self._size = None
        if self._signing:
            self._signing.check_chunk(data, self._given)
            found.append(data)
        return True

    def _read_trailers(self) -> bool:
        line = self._line()
        if line is None:
            return False
        if line:
            name, colon, value = line.decode("latin-1").partition(":")
            name = name.strip().lower()
            if not colon or name in self.trailers or name not in (*self._expected, _TRAILER_SIGNATURE):
                raise _malformed("A trailing header is malformed, or was not announced.")
            self.trailers[name] = value.strip()
            return True
        if self._buffer:
            raise _malformed("There is something behind the end of the body.")
        self._check_trailers()
        self.done = True
        return True

    def _check_trailers(self) -> None:
        given = self.trailers.pop(_TRAILER_SIGNATURE, None)
        if tuple(sorted(self.trailers)) != tuple(sorted(self._expected)):
            raise bad_digest("MalformedTrailerError", "The announced trailing headers did not come.")
        if self._signing and self._expected:
            text = "".join(f"{name}:{self.trailers[name]}\n" for name in self._expected)
            self._signing.check_trailer(text.encode(), given or "")
        elif given is not None:
            raise _malformed("A trailer signature belongs to signed chunks.")


def _malformed(message: str) -> S3Error:
    return invalid_request(message, "InvalidRequest", "chunks_malformed")
