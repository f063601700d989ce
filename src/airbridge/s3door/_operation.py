"""Which of S3's operations a request is; what is not listed here is not served.

S3 tells operations apart by method, by whether there is a key, and by parameters that some operation is
called by (``?acl``, ``?delete``). A parameter that an operation does not list is refused with it: it could
make another operation of the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, unquote_to_bytes

from airbridge.s3door._errors import access_denied, invalid_request
from airbridge.s3door._request import checked_key

if TYPE_CHECKING:
    from airbridge.s3door._request import Request

__all__ = ["Action", "CopySource", "Operation"]


class Action(Enum):
    """What can be allowed or not."""

    HEAD_BUCKET = "HeadBucket"
    LIST = "ListObjects"
    LIST_VERSIONS = "ListObjectVersions"
    READ = "GetObject"
    READ_VERSION = "GetObjectVersion"
    WRITE = "PutObject"
    COPY = "CopyObject"
    DELETE = "DeleteObject"
    DELETE_MANY = "DeleteObjects"


_LISTING: Final = frozenset({
    "list-type", "prefix", "delimiter", "marker", "max-keys", "encoding-type", "start-after",
    "continuation-token", "fetch-owner",
})  # fmt: skip
_VERSIONS: Final = frozenset({
    "versions", "prefix", "delimiter", "max-keys", "encoding-type", "key-marker", "version-id-marker",
})  # fmt: skip
# What the parameters of a request may be, for each method: the first line that fits says what it is.
_OF_BUCKETS: Final[dict[str, tuple[tuple[Action, frozenset[str], frozenset[str]], ...]]] = {
    # action, parameters that must be there, parameters that may be there
    "HEAD": ((Action.HEAD_BUCKET, frozenset(), frozenset()),),
    "GET": (
        (Action.LIST_VERSIONS, frozenset({"versions"}), _VERSIONS),
        (Action.LIST, frozenset(), _LISTING),
    ),
    "POST": ((Action.DELETE_MANY, frozenset({"delete"}), frozenset()),),
}
_READS: Final = (
    (Action.READ_VERSION, frozenset({"versionId"}), frozenset({"partNumber"})),
    (Action.READ, frozenset[str](), frozenset({"partNumber"})),
)
_OF_OBJECTS: Final[dict[str, tuple[tuple[Action, frozenset[str], frozenset[str]], ...]]] = {
    "HEAD": _READS,
    # The parts of an upload that its sender lists are its own.
    "GET": (
        (Action.WRITE, frozenset({"uploadId"}), frozenset({"max-parts", "part-number-marker"})),
        *_READS,
    ),
    "PUT": (
        (Action.WRITE, frozenset({"partNumber", "uploadId"}), frozenset()),
        (Action.WRITE, frozenset(), frozenset()),
    ),
    "POST": (
        (Action.WRITE, frozenset({"uploads"}), frozenset()),
        (Action.WRITE, frozenset({"uploadId"}), frozenset()),
    ),
    # No versionId: what was published can always be had again.
    "DELETE": (
        (Action.WRITE, frozenset({"uploadId"}), frozenset()),
        (Action.DELETE, frozenset(), frozenset()),
    ),
}
_COPY_SOURCE: Final = "x-amz-copy-source"


@dataclass(frozen=True, slots=True)
class CopySource:
    """The object that a copy reads."""

    bucket: str
    key: str
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> CopySource:
        """Read the header; what it means is written anew, so that S3 reads nothing else in it.

        :raises S3Error: it is malformed
        """
        path, question, query = text.partition("?")
        name, equals, version = query.partition("=")
        if question and (name != "versionId" or not equals or not version.isprintable() or "&" in version):
            raise invalid_request("The copy source is malformed.", "InvalidArgument", "copy_source_malformed")
        try:
            bucket, _, key = unquote_to_bytes(path).decode().removeprefix("/").partition("/")
        except UnicodeDecodeError:
            raise invalid_request("The copy source is not UTF-8.", "InvalidArgument") from None
        if not bucket or not key:
            raise invalid_request("The copy source is malformed.", "InvalidArgument", "copy_source_malformed")
        return cls(bucket, checked_key(key), unquote(version))

    @property
    def text(self) -> str:
        """The header, in one canonical way."""
        version = f"?versionId={quote(self.version, safe='')}" if self.version else ""
        return f"{self.bucket}/{quote(self.key, safe='/-._~')}{version}"


@dataclass(frozen=True, slots=True)
class Operation:
    """What is asked for, and of what."""

    action: Action
    bucket: str
    key: str = ""
    prefix: str = ""
    """Of a listing."""
    source: CopySource | None = None

    @classmethod
    def of(cls, request: Request) -> Operation:
        """Tell which operation a request is.

        :raises S3Error: none that is served
        """
        bucket, key = request.bucket, request.key
        if not bucket:
            raise access_denied("Buckets are not listed here.")
        names = frozenset(
            name.decode("latin-1") for name, _ in request.query if not name.lower().startswith(b"x-amz-")
        ) - {"x-id"}  # SDKs name the operation in it, for people
        table = _OF_OBJECTS if key else _OF_BUCKETS
        action = next(
            (
                action
                for action, needed, more in table.get(request.method, ())
                if needed <= names <= needed | more
            ),
            None,
        )
        if action is None:
            raise access_denied("This operation of S3 is not served here.", "operation_not_served")
        source = request.headers.get(_COPY_SOURCE)
        if source is None:
            return cls(action, bucket, key, request.parameter("prefix") or "")
        if action is not Action.WRITE or request.method != "PUT" or names:
            raise access_denied("This operation of S3 is not served here.", "operation_not_served")
        return cls(Action.COPY, bucket, key, source=CopySource.parse(source))
