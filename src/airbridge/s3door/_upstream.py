"""Asks S3 for what was allowed, in a request that is written and signed anew.

Only headers that are known are passed on. The signature is the control plane's own: LocalStack does not look
at it, AWS does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from airbridge.errors import SettingsError
from airbridge.s3door._canonical import (
    ALGORITHM,
    Scope,
    canonical_query,
    canonical_request,
    encode_path,
    signature,
    signing_key,
    string_to_sign,
)
from airbridge.s3door._errors import S3Error
from airbridge.s3door._signature import UNSIGNED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from airbridge.s3door._request import Request

__all__ = ["Keys", "Upstream", "aws_keys", "passed_on"]

_CONNECT_S: Final = 3.0
_READ_S: Final = 120.0  # between two pieces of an answer
_CONNECTIONS: Final = 64
_PASSED: Final = frozenset({
    "cache-control", "content-disposition", "content-language", "content-md5", "content-type", "expires",
    "if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "range",
    "x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type", "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since", "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-unmodified-since", "x-amz-metadata-directive", "x-amz-mp-object-size",
    "x-amz-sdk-checksum-algorithm",
})  # fmt: skip
_PASSED_PREFIXES: Final = ("x-amz-meta-", "x-amz-checksum-")
# Of Amazon's headers, those that the door itself deals with, or that say what is so anyway.
_KEPT: Final = frozenset({
    "x-amz-content-sha256", "x-amz-copy-source", "x-amz-date", "x-amz-decoded-content-length",
    "x-amz-trailer", "x-amz-user-agent",
})  # fmt: skip
_PLAIN: Final = {
    "x-amz-acl": frozenset({"private", "bucket-owner-full-control"}),
    "x-amz-storage-class": frozenset({"STANDARD"}),
}


@dataclass(frozen=True, slots=True)
class Keys:
    """The control plane's own AWS credentials at one moment."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


def aws_keys() -> Callable[[], Keys]:
    """Return a function that returns the keys as of now, from where botocore would have them.

    :raises SettingsError: there are none
    """
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        fixed = Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""))
        return lambda: fixed
    # A role rotates its keys, which is botocore's business; it is 20 MiB that nobody else here needs.
    import botocore.session

    credentials = botocore.session.Session().get_credentials()
    if credentials is None:
        raise SettingsError(
            "there are no AWS credentials for S3", fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )

    def frozen() -> Keys:
        now = credentials.get_frozen_credentials()
        return Keys(now.access_key, now.secret_key, now.token or "")

    return frozen


def passed_on(request: Request) -> dict[str, str]:
    """Return the headers of a request that S3 is to have.

    :raises S3Error: one of Amazon's is not known here, and leaving it out would change what is asked
    """
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        if name in _PASSED or name.startswith(_PASSED_PREFIXES):
            found[name] = value
        elif name.startswith("x-amz-") and name not in _KEPT and value not in _PLAIN.get(name, ()):
            raise S3Error(
                501, "NotImplemented", f"{name[:64]} is not served here.", reason="header_not_served"
            )
    codings = [part.strip() for part in request.headers.get("content-encoding", "").split(",")]
    if content := ",".join(part for part in codings if part and part.lower() != "aws-chunked"):
        found["content-encoding"] = content
    return found


class Upstream:
    """The S3 service behind the door.

    Args:
        address: scheme, host and port.
        region: of its buckets.
        keys: returns the control plane's keys.
    """

    def __init__(self, address: str, region: str, keys: Callable[[], Keys]) -> None:
        parts = urlsplit(address)
        default = {"http": 80, "https": 443}[parts.scheme]
        port = parts.port or default
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        self._host = host if port == default else f"{host}:{port}"
        self._address = f"{parts.scheme}://{self._host}"
        self._region = region
        self._keys = keys
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Make ready."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS * 4, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        assert self._session  # noqa: S101 - __aenter__() made it
        await self._session.close()

    def ask(
        self,
        method: str,
        path: bytes,
        query: Iterable[tuple[bytes, bytes]] = (),
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes | AsyncIterator[bytes] | None = None,
        length: int = 0,
        payload: str = UNSIGNED,
    ) -> Any:
        """Return a context manager that sends the request and yields the answer (aiohttp's).

        :param query: without anything that signs
        :param length: of ``body``
        :param payload: what ``x-amz-content-sha256`` says of it
        """
        assert self._session  # noqa: S101 - __aenter__() made it
        encoded, asked = encode_path(path), canonical_query(query)
        signed = self._signed(method, encoded, asked, dict(headers or {}), payload)
        if body is not None or method in {"PUT", "POST"}:
            signed["Content-Length"] = str(length)
        address = f"{self._address}{encoded}{'?' if asked else ''}{asked}"
        return self._session.request(
            method,
            URL(address, encoded=True),
            headers=CIMultiDict(signed),
            data=body,
            allow_redirects=False,
        )

    def _signed(
        self, method: str, path: str, query: str, headers: dict[str, str], payload: str
    ) -> dict[str, str]:
        keys, now = self._keys(), datetime.now(UTC)
        timestamp = now.strftime("%Y%m%dT%H%M%SZ")
        headers |= {"host": self._host, "x-amz-date": timestamp, "x-amz-content-sha256": payload}
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        names = sorted(headers)
        scope = Scope(timestamp[:8], self._region)
        text = string_to_sign(
            timestamp, scope, canonical_request(method, path, query, headers, names, payload)
        )
        made = signature(signing_key(keys.secret_key, scope), text)
        credential = f"{keys.access_key}/{scope.text}"
        headers["authorization"] = (
            f"{ALGORITHM} Credential={credential}, SignedHeaders={';'.join(names)}, Signature={made}"
        )
        return headers
