"""A request as it arrived, read once: the signature, the rules and the request to S3 all work on this."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote_to_bytes

from airbridge.s3door._canonical import parse_query
from airbridge.s3door._errors import access_denied, invalid_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["BASE_PATH", "Request", "checked_key"]

BASE_PATH: Final = "/s3"
"""Where the gateway has S3, and so the base path of clients that dial it without an uplink."""

# Proxies on the way add to these; nothing is signed or decided by them.
_MAY_REPEAT: Final = frozenset({"via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_PATH: Final = re.compile(r"/(?:[!\"$&-~]|%[0-9A-Fa-f]{2})*")
_QUERY: Final = re.compile(r"(?:[!\"$&-*,-~]|%[0-9A-Fa-f]{2})*")
_NO_NAMES: Final = frozenset({"", ".", ".."})
_LONGEST_KEY: Final = 1024  # bytes, as S3 has it


@dataclass(frozen=True, slots=True)
class Request:
    """One request: what stands in its first line and its headers."""

    method: str
    path: bytes
    """Decoded, without :data:`BASE_PATH`."""
    based: bool
    """Whether :data:`BASE_PATH` stood before it."""
    query: tuple[tuple[bytes, bytes], ...]
    headers: Mapping[str, str]
    """By lower-case name."""

    @classmethod
    def read(cls, method: str, target: str, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """Read a request line's target and raw headers.

        :raises S3Error: something is there twice, or is no part of a request to S3
        """
        encoded, _, query = target.partition("?")
        if not _PATH.fullmatch(encoded):
            raise invalid_request("The path is malformed.", "InvalidURI", "path_malformed")
        # A plus sign is a space to some readers and a plus sign to others: whoever means one writes %2B.
        if not _QUERY.fullmatch(query):
            raise invalid_request("The query is malformed.", "InvalidURI", "query_malformed")
        path = unquote_to_bytes(encoded)
        based = path == BASE_PATH.encode() or path.startswith(f"{BASE_PATH}/".encode())
        parameters = tuple(parse_query(query))
        if len({name.lower() for name, _ in parameters}) != len(parameters):
            raise invalid_request("A query parameter is given twice.", reason="query_doubled")
        return cls(
            method,
            (path.removeprefix(BASE_PATH.encode()) or b"/") if based else path,
            based,
            parameters,
            _headers(headers),
        )

    def parameter(self, name: str) -> str | None:
        """Return the value of a query parameter; ``None``: it is not there."""
        found = next((value for known, value in self.query if known == name.encode()), None)
        return None if found is None else _text(found)

    @property
    def bucket(self) -> str:
        """Name of the bucket, empty for a request about none."""
        return _text(self.path[1:].partition(b"/")[0])

    @property
    def key(self) -> str:
        """Key of the object, empty for a request about a bucket.

        :raises S3Error: no object of ours has such a key
        """
        key = self.path[1:].partition(b"/")[2]
        return checked_key(_text(key)) if key else ""


def checked_key(key: str) -> str:
    """Return ``key``.

    :raises S3Error: it is one that some reader could take for another: dot segments, empty ones, controls
    """
    if (
        any(segment in _NO_NAMES for segment in key.split("/"))
        or not key.isprintable()
        or len(key.encode()) > _LONGEST_KEY
    ):
        raise access_denied("No object here has such a key.", "key_malformed")
    return key


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise invalid_request("A name is not UTF-8.", "InvalidURI", "path_malformed") from None


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name_bytes, value in raw:
        name = name_bytes.decode("latin-1").lower()
        if name in found and name not in _MAY_REPEAT:
            raise invalid_request(f"The header {name[:64]} is given twice.", reason="header_doubled")
        try:
            found[name] = value.decode("utf-8")
        except UnicodeDecodeError:
            raise invalid_request(f"The header {name[:64]} is not UTF-8.") from None
    return found
