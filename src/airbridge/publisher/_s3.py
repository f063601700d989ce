"""The DAG bucket, as the publisher uses it: few calls, each of which fails with one line for a person."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from airbridge.errors import AirbridgeError, IntegrityError, RefusedError, SettingsError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airbridge.publisher._settings import Settings

__all__ = ["LostRaceError", "RemoteObject", "Store", "StoredVersion", "utc_now"]

THREADS: Final = 16
"""Requests at once. More gain nothing for small files, and make S3 slow down a burst from one client."""

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 60  # a PUT of the largest file over a slow line
_ATTEMPTS: Final = 4
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LOCAL_CREDENTIALS: Final = "airbridge"  # for a LocalStack on this machine, which takes any
_ENDPOINT_FIX: Final = "start the S3 service, or correct S3_ENDPOINT_URL (empty means AWS)"
_CREDENTIALS_FIX: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (make publisher writes an env file)"
)
_LOST: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "405", "MethodNotAllowed"})
_NULL_VERSION: Final = "null"  # what a bucket without, or with suspended, versioning calls its only version


class LostRaceError(Exception):
    """A conditional write found something else than what it was to replace."""


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """An object as S3 holds it; ``version_id`` is empty when it is not known or not kept."""

    key: str
    etag: str
    size: int
    last_modified: datetime
    version_id: str = ""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """What S3 says of a write or a read: ``etag`` without quotes, ``version_id`` empty without versioning."""

    etag: str
    version_id: str
    size: int = 0


def utc_now() -> datetime:
    """Return the time of this machine."""
    return datetime.now(UTC)


class Store:
    """One environment of the DAG bucket.

    Args:
        settings: which bucket, environment and endpoint.
        clock: the time of this machine.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings
        self.clock = clock
        self.skew: timedelta | None = None
        """S3's clock minus this machine's, as of the first answer; a second is as exact as S3 tells it."""
        self.client = _client(settings)
        self.client.meta.events.register("response-received.s3", self._note_time)

    def objects(self, prefix: str) -> dict[str, RemoteObject]:
        """Return the objects below ``prefix`` by key."""
        with self._asking(f"list {self._at(prefix)}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.settings.dag_bucket, Prefix=prefix
            )
            return {
                item["Key"]: RemoteObject(
                    key=item["Key"],
                    etag=item["ETag"].strip('"'),
                    size=item["Size"],
                    last_modified=item["LastModified"],
                )
                for page in pages
                for item in page.get("Contents", [])
            }

    def versions(self, key: str) -> list[RemoteObject]:
        """Return the versions of one object, newest first; delete markers are left out."""
        found = []
        with self._asking(f"list the versions of {self._at(key)}"):
            pages = self.client.get_paginator("list_object_versions").paginate(
                Bucket=self.settings.dag_bucket, Prefix=key
            )
            for page in pages:
                found += [
                    RemoteObject(
                        key=key,
                        etag=item["ETag"].strip('"'),
                        size=item["Size"],
                        last_modified=item["LastModified"],
                        version_id=_version(item.get("VersionId")),
                    )
                    for item in page.get("Versions", [])
                    if item["Key"] == key
                ]
        return found

    def get(self, key: str, version_id: str = "", *, limit: int) -> tuple[bytes, StoredVersion] | None:
        """Read an object, the newest version unless one is named; ``None`` when there is none.

        Raises :class:`airbridge.errors.IntegrityError` when it has more than ``limit`` bytes.
        """
        with self._asking(f"read {self._at(key)}"):
            try:
                answer = self.client.get_object(
                    Bucket=self.settings.dag_bucket,
                    Key=key,
                    **({"VersionId": version_id} if version_id else {}),
                )
            except ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise
            with answer["Body"] as body:
                content: bytes = body.read(limit + 1)
        if len(content) > limit:
            raise IntegrityError(f"{self._at(key)} has more than {limit} bytes", fix="remove that object")
        return content, StoredVersion(
            answer["ETag"].strip('"'), _version(answer.get("VersionId")), len(content)
        )

    def head(self, key: str, version_id: str = "") -> StoredVersion | None:
        """Look an object up, the newest version unless one is named; ``None`` when there is none."""
        with self._asking(f"look up {self._at(key)}"):
            try:
                answer = self.client.head_object(
                    Bucket=self.settings.dag_bucket,
                    Key=key,
                    **({"VersionId": version_id} if version_id else {}),
                )
            except ClientError as error:
                # 400: what names the version is none at all. Without s3:ListBucket on the very key, AWS says
                # 403 for what is not there.
                if _code(error) in _ABSENT or (version_id and _code(error) in {"400", "403"}):
                    return None
                raise
        return StoredVersion(
            answer["ETag"].strip('"'), _version(answer.get("VersionId")), answer["ContentLength"]
        )

    def put(self, key: str, content: bytes) -> StoredVersion:
        """Write an object; S3 verifies the SHA-256 that goes with it."""
        with self._asking(f"write {self._at(key)}"):
            return self._put(key, content, {})

    def replace(self, key: str, content: bytes, *, etag: str | None) -> StoredVersion:
        """Write an object if its ETag still is ``etag``, or (``None``) if there still is none.

        Raises :class:`LostRaceError` when that is not so; then nothing was written.
        """
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": f'"{etag}"'}
        with self._asking(f"write {self._at(key)}"):
            try:
                return self._put(key, content, condition)
            except ClientError as error:
                if _code(error) not in _LOST | ({"NoSuchKey", "404"} if etag else set()):
                    raise
        # A retry after an answer that got lost finds its own first attempt.
        try:
            there = self.get(key, limit=len(content))
        except IntegrityError:  # larger, so it is somebody else's
            there = None
        if there is not None and there[0] == content:
            return there[1]
        raise LostRaceError(key)

    def delete(self, key: str) -> None:
        """Delete an object: on a versioned bucket a marker goes on top, and every version stays."""
        with self._asking(f"delete {self._at(key)}"):
            self.client.delete_object(Bucket=self.settings.dag_bucket, Key=key)

    def each(self, action: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Call ``action`` for each item, :data:`THREADS` at once; yield the results as they come.

        The first failure is raised, and what has not begun by then is not begun.
        """
        with ThreadPoolExecutor(THREADS, thread_name_prefix="s3") as pool:
            futures = {pool.submit(action, item) for item in items}
            try:
                while futures:
                    done, futures = wait(futures, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _put(self, key: str, content: bytes, condition: dict[str, str]) -> StoredVersion:
        answer = self.client.put_object(
            Bucket=self.settings.dag_bucket,
            Key=key,
            Body=content,
            ContentType=_content_type(key),
            ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode(),
            **condition,
        )
        return StoredVersion(answer["ETag"].strip('"'), _version(answer.get("VersionId")), len(content))

    def _at(self, key: str) -> str:
        return f"s3://{self.settings.dag_bucket}/{key}"

    def _asking(self, what: str) -> _Asking:
        return _Asking(what, self)

    def _note_time(self, response_dict: dict[str, Any] | None = None, **_: object) -> None:
        date = ((response_dict or {}).get("headers") or {}).get("date")
        if self.skew is None and date:
            try:
                self.skew = parsedate_to_datetime(date) - self.clock()
            except ValueError:
                return


class _Asking:
    """Turns what botocore raises inside of it into one of :mod:`airbridge.errors`."""

    def __init__(self, what: str, store: Store) -> None:
        self._what = what
        self._store = store

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ClientError):
            raise _refusal(error, self._what, self._store) from None
        if isinstance(error, BotoCoreError):
            raise _unreachable(error, self._what, self._store.settings) from None


def _client(settings: Settings) -> Any:
    session = boto3.session.Session()
    credentials: dict[str, str] = {}
    address = urlsplit(settings.s3_endpoint_url)
    local = address.scheme == "http" and address.hostname in _LOOPBACK
    try:
        if local and session.get_credentials() is None:
            credentials = {
                "aws_access_key_id": _LOCAL_CREDENTIALS,
                "aws_secret_access_key": _LOCAL_CREDENTIALS,
            }
        return session.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url or None,
            region_name=settings.aws_default_region,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                max_pool_connections=THREADS,
                s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
            ),
            **credentials,
        )
    except (BotoCoreError, ValueError) as error:
        raise SettingsError(f"the S3 client cannot be made: {error}", fix=_CREDENTIALS_FIX) from None


def _version(version_id: str | None) -> str:
    return "" if version_id in {None, _NULL_VERSION} else str(version_id)


def _content_type(key: str) -> str:
    if key.endswith(".json"):
        return "application/json"
    return "text/x-python; charset=utf-8" if key.endswith(".py") else "application/octet-stream"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(error: ClientError, what: str, store: Store) -> AirbridgeError:
    code, message = _code(error), error.response.get("Error", {}).get("Message", "")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    said = f"{status} {code}" + (f" ({message})" if message else "")
    settings = store.settings
    if code == "NoSuchBucket":
        return RefusedError(
            f"DAG_BUCKET={settings.dag_bucket} does not exist", fix="create the bucket, or correct --bucket"
        )
    if code == "RequestTimeTooSkewed":
        return RefusedError(f"S3 refuses this machine's clock: {said}", fix="synchronize the clock (NTP)")
    if status in {301, 307, 308} or code == "AuthorizationHeaderMalformed":
        return RefusedError(f"S3 refuses to {what}: {said}", fix="correct AWS_DEFAULT_REGION")
    if status in {401, 403}:
        return RefusedError(
            f"S3 refuses to {what}: {said}",
            fix="correct the AWS credentials, or allow them what 'policy PACKAGE' prints",
        )
    if status >= 500 or status == 429 or code in {"SlowDown", "ServiceUnavailable", "InternalError"}:
        return UnreachableError(
            f"S3 failed to {what}, {_ATTEMPTS} times: {said}", fix="publish again: that heals"
        )
    return RefusedError(f"S3 refuses to {what}: {said}", fix=_ENDPOINT_FIX)


def _unreachable(error: BotoCoreError, what: str, settings: Settings) -> AirbridgeError:
    where = f"S3_ENDPOINT_URL={settings.s3_endpoint_url}" if settings.s3_endpoint_url else "S3"
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return SettingsError(f"there are no AWS credentials to {what}", fix=_CREDENTIALS_FIX)
    if isinstance(error, SSLError):
        return UnreachableError(f"{where}: TLS failed", fix="name the CA's certificate in AWS_CA_BUNDLE")
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return UnreachableError(f"{where} did not answer in time, asked to {what}", fix=_ENDPOINT_FIX)
    if isinstance(error, EndpointConnectionError):
        return UnreachableError(f"{where} cannot be reached to {what}", fix=_ENDPOINT_FIX)
    if isinstance(error, HTTPClientError):
        return UnreachableError(f"{where} broke off, asked to {what}", fix=_ENDPOINT_FIX)
    return UnreachableError(f"{where}: {error}", fix=_ENDPOINT_FIX)
