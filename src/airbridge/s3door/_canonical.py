"""The canonical form of a request that Signature Version 4 signs, and the arithmetic of the signature.

After "Create a signed AWS API request" (AWS Identity and Access Management User Guide,
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html) with what
"Authenticating Requests: Using the Authorization Header" (Amazon S3 API Reference,
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html) says of S3: paths are encoded
once and never normalized.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "ALGORITHM",
    "EMPTY_SHA256",
    "Scope",
    "canonical_query",
    "canonical_request",
    "encode_path",
    "parse_query",
    "signature",
    "signing_key",
    "string_to_sign",
]

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()

_TERMINATOR: Final = "aws4_request"
_SPACES: Final = re.compile(r" +")
_UNRESERVED: Final = "-._~"  # beside letters and digits (RFC 3986, section 2.3)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signing key is good for: one day, one region, one service."""

    day: str
    region: str
    service: str = "s3"

    @property
    def text(self) -> str:
        """As it stands in a string to sign."""
        return f"{self.day}/{self.region}/{self.service}/{_TERMINATOR}"

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read one.

        :raises ValueError: it is none
        """
        day, region, service, terminator = text.split("/")
        if not re.fullmatch("[0-9]{8}", day) or terminator != _TERMINATOR or not region or not service:
            raise ValueError("is no credential scope")
        return cls(day, region, service)


def encode_path(path: bytes) -> str:
    """Return AWS's ``UriEncode`` of a decoded path: slashes stay."""
    return quote_from_bytes(path, safe=f"/{_UNRESERVED}")


def _encode(value: bytes) -> str:
    return quote_from_bytes(value, safe=_UNRESERVED)


def parse_query(query: str) -> list[tuple[bytes, bytes]]:
    """Return names and values, decoded; a name alone has an empty value, and a plus sign is a plus sign."""
    parts = (part.partition("=") for part in query.split("&") if part)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in parts]


def canonical_query(parameters: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the canonical query string, sorted by encoded name, then encoded value."""
    return "&".join(
        f"{name}={value}" for name, value in sorted((_encode(n), _encode(v)) for n, v in parameters)
    )


def canonical_request(  # noqa: PLR0917 - in the order of its lines
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    signed: Sequence[str],
    payload: str,
) -> str:
    """Return the canonical request.

    :param path: encoded, see :func:`encode_path`
    :param query: see :func:`canonical_query`
    :param headers: values by lower-case name; those of ``signed`` are used
    :param payload: what ``x-amz-content-sha256`` says of the body
    """
    lines = "".join(f"{name}:{_SPACES.sub(' ', headers[name].strip())}\n" for name in signed)
    return f"{method}\n{path}\n{query}\n{lines}\n{';'.join(signed)}\n{payload}"


def string_to_sign(timestamp: str, scope: Scope, request: str) -> str:
    """Return the string to sign for a canonical request."""
    return f"{ALGORITHM}\n{timestamp}\n{scope.text}\n{hashlib.sha256(request.encode()).hexdigest()}"


def signing_key(secret: str, scope: Scope) -> bytes:
    """Derive the key that signs within ``scope``."""
    key = f"AWS4{secret}".encode()
    for part in (scope.day, scope.region, scope.service, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(key: bytes, text: str) -> str:
    """Return the signature of a string to sign, in lower-case hexadecimal."""
    return hmac.digest(key, text.encode(), "sha256").hex()
