"""List, look up, read and write objects of one bucket, small and fast.

Signing and credentials are botocore's, HTTP is urllib3's; only the listing is parsed here, with expat as it
comes off the wire. Measured with 10,000 objects against boto3's client: 0.17 s of CPU instead of 1.35 s for a
listing, which runs every two seconds, and 20 MiB less memory. An answer is believed only when it says that it
is the listing that was asked for: an error page of a proxy, or half an answer, must never look like an empty
bucket.

Every method may be called from any thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import quote, unquote, urlsplit
from xml.parsers import expat

import botocore.httpsession
import botocore.session
import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.utils import get_environ_proxies

from airbridge.errors import AirbridgeError, IntegrityError, RefusedError, SettingsError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "THREADS",
    "Bucket",
    "Credentials",
    "Got",
    "Head",
    "Listing",
    "NoAnswerError",
    "Place",
    "RemoteObject",
    "ca_bundle",
]

THREADS: Final = 8
"""Requests that a caller may have under way at once: each keeps its connection."""

_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
# 1000 keys of 1024 bytes, each percent-encoded to three, and their other fields: a page is never larger.
_MAX_PAGE_BYTES = 8 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_CHUNK_BYTES = 256 * 1024


class Place(Protocol):
    """Which bucket, and where it is."""

    @property
    def dag_bucket(self) -> str:
        """Name of the bucket."""

    @property
    def s3_endpoint_url(self) -> str:
        """S3 endpoint, addressed path-style; empty means AWS."""

    @property
    def aws_default_region(self) -> str:
        """Region of the bucket."""

    @property
    def prefix(self) -> str:
        """Key prefix that is listed, with its trailing slash."""

    @property
    def source(self) -> str:
        """The prefix, for people."""


class NoAnswerError(UnreachableError):
    """There was no answer at all: asking for the next object would only wait again."""


class RemoteObject(NamedTuple):
    """One object as listed: ``path`` is its key without the prefix; ``size`` in bytes."""

    path: str
    etag: str
    size: int
    last_modified: str


class Listing(NamedTuple):
    """All objects of the prefix, sorted by path, and a ``digest`` that changes whenever any of them does."""

    objects: list[RemoteObject]
    digest: str


class Head(NamedTuple):
    """What pins one write of an object: on a versioned bucket ``version`` differs for every write."""

    etag: str
    version: str
    last_modified: str
    size: int
    etag_is_opaque: bool
    """True when the object's encryption makes its ETag something else than a digest of its content."""


class Got(NamedTuple):
    """An object that was read: its content and what pins it; ``None`` as content: as it was before."""

    body: bytes | None
    head: Head


class Credentials(NamedTuple):
    """AWS credentials at one moment."""

    access_key: str
    secret_key: str
    token: str


def ca_bundle() -> str:
    """Return the path of the CA certificates to trust: ``AWS_CA_BUNDLE``, the system's, or botocore's own."""
    for candidate in (os.environ.get("AWS_CA_BUNDLE"), os.environ.get("SSL_CERT_FILE")):
        if candidate:
            return candidate
    system = "/etc/ssl/certs/ca-certificates.crt"
    return system if Path(system).is_file() else str(botocore.httpsession.get_cert_path(True))


class Bucket:
    """The DAG bucket; every failure is an :class:`airbridge.errors.AirbridgeError`."""

    def __init__(
        self,
        place: Place,
        on_request: Callable[[str], None] = lambda _operation: None,
        sign_with: Callable[[], Credentials] | None = None,
    ) -> None:
        """Prepare, without a request yet; ``on_request`` is told the operation of each one sent.

        Operations: ``list``, ``head``, ``get``, ``put``, ``delete``. ``sign_with`` is asked for the
        credentials of each request; without it they come the standard way of AWS.
        """
        self._place = place
        self._on_request = on_request
        self._sign_with = sign_with
        self._base = _base_url(place)
        self._pool = _pool(self._base)
        if sign_with is not None:
            return
        try:
            self._credentials = botocore.session.Session().get_credentials()
        except BotoCoreError as error:
            raise SettingsError(f"AWS credentials: {error}", fix=_CREDENTIALS_FIX) from None
        if self._credentials is None:
            raise SettingsError(
                "AWS_ACCESS_KEY_ID is not set and no other AWS credentials were found", fix=_CREDENTIALS_FIX
            )

    def credentials(self) -> Credentials:
        """Return the credentials as of now (roles rotate theirs, and a host that joins gets its own)."""
        if self._sign_with is not None:
            return self._sign_with()
        try:
            frozen = self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise RefusedError(
                f"AWS credentials could not be refreshed: {error}", fix=_CREDENTIALS_FIX
            ) from None
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    def list(self, prefix: str = "") -> Listing:
        """List ``prefix``, or the place's own: one request per 1000 objects."""
        prefix = prefix or self._place.prefix
        source = f"s3://{self._place.dag_bucket}/{prefix}"
        objects: list[RemoteObject] = []
        token = ""
        while True:
            query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
            if token:
                query["continuation-token"] = token
            page = _Page(prefix)
            page.parse(self._ask_for_page(query, source))
            page.check(self._place.dag_bucket, source, self._where)
            objects += page.objects
            if not page.truncated:
                break
            if not page.token or page.token == token:
                raise IntegrityError(f"the listing of {source} says there is more, but not where")
            token = page.token
        objects.sort()
        digest = hashlib.sha256()
        previous = None
        for item in objects:
            if item.path == previous:
                raise IntegrityError(f"the listing of {source} names {item.path!r} twice")
            previous = item.path
            digest.update(repr(item).encode("utf-8", "surrogateescape"))
        return Listing(objects, digest.hexdigest())

    def _ask_for_page(self, query: dict[str, str], source: str) -> bytes:
        with self._request("GET", "", query, operation="list") as response:
            body = self._read(response, _MAX_PAGE_BYTES + 1)
            if response.status != 200:
                raise self._failure(response, body, f"list {source}")
            if len(body) > _MAX_PAGE_BYTES:
                raise IntegrityError(
                    f"{self._where} answered a listing larger than any S3 sends", fix=_ENDPOINT_FIX
                )
            return body

    def head(self, key: str) -> Head | None:
        """Look one object up; ``None`` when it does not exist."""
        with self._request("HEAD", key, {}) as response:
            if response.status == 404:
                return None
            if response.status != 200:
                raise self._failure(response, b"", f"read {key}")
            return _head(response.headers)

    def get(self, key: str, *, version: str = "", unless: str = "", max_bytes: int) -> Got | None:
        """Read one object, or the given version of it; ``None`` when it does not exist.

        ``unless`` is an ETag: an object that still has it is not sent again. One that is larger than
        ``max_bytes`` is refused.
        """
        headers = {"If-None-Match": f'"{unless}"'} if unless else {}
        with self._request("GET", key, _version(version), headers) as response:
            if response.status == 304:
                return Got(None, _head(response.headers))
            if self._is_missing(response, key):
                return None
            body = self._read(response, max_bytes + 1)
            if len(body) > max_bytes:
                raise IntegrityError(f"{key} has more than {max_bytes} bytes", fix=_OBJECT_FIX)
            return Got(body, _head(response.headers))

    def download(self, key: str, target: Path, *, version: str = "", max_bytes: int) -> Head | None:
        """Write one object, or the given version of it, to ``target``; ``None`` when it does not exist.

        It stops after ``max_bytes``. The caller checks what came.
        """
        with self._request("GET", key, _version(version)) as response:
            if self._is_missing(response, key):
                return None
            left = max_bytes
            with target.open("wb") as file:
                while left > 0 and (chunk := self._read(response, min(left, _CHUNK_BYTES))):
                    file.write(chunk)
                    left -= len(chunk)
            return _head(response.headers)

    def put(self, key: str, body: bytes, content_type: str) -> str:
        """Write one object and return its version, empty on a bucket without versioning."""
        headers = {"Content-Type": content_type}
        with self._request("PUT", key, {}, headers, body) as response:
            if response.status != 200:
                raise self._failure(response, self._read(response, _MAX_ERROR_BYTES), f"write {key}")
            self._read(response, _MAX_ERROR_BYTES)
            return response.headers.get("x-amz-version-id", "")

    def delete(self, key: str, *, version: str = "") -> None:
        """Remove one object, or one version of it for good; one that is not there is no error."""
        with self._request("DELETE", key, _version(version)) as response:
            body = self._read(response, _MAX_ERROR_BYTES)
            if response.status not in {200, 204, 404}:
                raise self._failure(response, body, f"delete {key}")

    def _is_missing(self, response: urllib3.BaseHTTPResponse, key: str) -> bool:
        """Tell whether the answer says that there is no such object; raise when it says anything else."""
        if response.status == 200:
            return False
        body = self._read(response, _MAX_ERROR_BYTES)
        if response.status == 404 and _error_of(body)[0] != "NoSuchBucket":
            return True
        raise self._failure(response, body, f"read {key}")

    @contextmanager
    def _request(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        operation: str = "",
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        url = self._base + (f"/{quote(key, safe='/~', errors='surrogateescape')}" if key else "")
        if query:
            url += "?" + "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(query.items()))
        request = AWSRequest(method=method, url=url, headers=headers, data=body)
        S3SigV4Auth(self.credentials(), "s3", self._place.aws_default_region).add_auth(request)
        self._on_request(operation or method.lower())
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=dict(request.headers),
                redirect=False,
                preload_content=False,
                decode_content=False,  # an object that is stored compressed is what it is
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        try:
            yield response
        finally:
            response.close() if response.length_remaining else response.release_conn()

    def _read(self, response: urllib3.BaseHTTPResponse, most: int) -> bytes:
        """Return the next ``most`` bytes of the answer, or what is left of it; an end too early is none."""
        chunks: list[bytes] = []
        try:
            while most > 0 and (chunk := response.read(most)):
                chunks.append(chunk)
                most -= len(chunk)
            return b"".join(chunks)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from None

    @property
    def _where(self) -> str:
        return f"S3_ENDPOINT_URL={self._place.s3_endpoint_url}" if self._place.s3_endpoint_url else self._base

    def _unreachable(self, error: Exception) -> AirbridgeError:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.NameResolutionError):
            why = "its host name does not resolve"
        elif isinstance(reason, (urllib3.exceptions.SSLError, ssl.SSLError)):
            return NoAnswerError(
                f"{self._where}: TLS failed: {reason}",
                fix="name the CA's certificate in AWS_CA_BUNDLE, or correct S3_ENDPOINT_URL",
            )
        elif isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(
            reason, urllib3.exceptions.NewConnectionError
        ):
            why = "it did not answer in time"
        else:
            why = _ERRNO.sub("", str(reason).rpartition(": ")[2]) or type(reason).__name__
        return NoAnswerError(f"{self._where} cannot be reached: {why}", fix=_ENDPOINT_FIX)

    def _failure(self, response: urllib3.BaseHTTPResponse, body: bytes, doing: str) -> AirbridgeError:
        status = response.status
        code, message = _error_of(body)
        said = f"{status} {code}".strip() + (f" ({message})" if message else "")
        bucket = f"DAG_BUCKET={self._place.dag_bucket}"
        region = response.headers.get("x-amz-bucket-region", "")
        if code == "NoSuchBucket":
            return RefusedError(
                f"{bucket} does not exist at {self._where}", fix="create the bucket or correct DAG_BUCKET"
            )
        if status in {301, 307, 308} or code == "AuthorizationHeaderMalformed":
            return RefusedError(
                f"{bucket} is not in AWS_DEFAULT_REGION={self._place.aws_default_region}: {said}",
                fix=f"set AWS_DEFAULT_REGION={region}"
                if region
                else "correct AWS_DEFAULT_REGION or S3_ENDPOINT_URL",
            )
        if code == "RequestTimeTooSkewed":
            return RefusedError(f"S3 refuses this host's clock: {said}", fix="synchronize the clock (NTP)")
        if status in {401, 403}:
            return RefusedError(
                f"S3 refuses to {doing}: {said}",
                fix="correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (on an edge host: "
                "CONTROL_PLANE_TOKEN), or allow them s3:ListBucket and s3:GetObject there",
            )
        if status >= 500 or status == 429:
            return UnreachableError(
                f"{self._where} is failing: {said}", fix="wait, or look at the S3 service's log"
            )
        return RefusedError(f"{self._where} answered {said} when asked to {doing}", fix=_ENDPOINT_FIX)


def _version(version: str) -> dict[str, str]:
    return {"versionId": version} if version else {}


def _head(headers: urllib3.HTTPHeaderDict) -> Head:
    encryption = headers.get("x-amz-server-side-encryption", "")
    return Head(
        etag=headers.get("etag", "").strip('"'),
        version=headers.get("x-amz-version-id", ""),
        last_modified=headers.get("last-modified", ""),
        size=int(headers.get("content-length", -1)),
        etag_is_opaque=encryption.startswith("aws:kms")
        or "x-amz-server-side-encryption-customer-algorithm" in headers,
    )


_ENDPOINT_FIX = "start the S3 service or correct S3_ENDPOINT_URL"
_OBJECT_FIX = "look at who wrote it"
_CREDENTIALS_FIX = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE"


def _base_url(place: Place) -> str:
    bucket = place.dag_bucket
    if place.s3_endpoint_url:
        return f"{place.s3_endpoint_url}/{bucket}"
    region = place.aws_default_region
    host = f"s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
    # A dot in the bucket's name does not match AWS's wildcard certificate.
    return f"https://{host}/{bucket}" if "." in bucket else f"https://{bucket}.{host}"


def _pool(base: str) -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    # One more try at once: a kept-alive connection may have been closed by the other side.
    retries = urllib3.Retry(total=1, status=0, redirect=0, backoff_factor=0)
    scheme = urlsplit(base).scheme
    trusted = ca_bundle() if scheme == "https" else None
    proxy = get_environ_proxies(base).get(scheme)
    if proxy:
        return urllib3.ProxyManager(
            proxy, maxsize=THREADS, timeout=timeout, retries=retries, ca_certs=trusted
        )
    return urllib3.PoolManager(maxsize=THREADS, timeout=timeout, retries=retries, ca_certs=trusted)


class _Page:
    """One page of ListObjectsV2, parsed with expat."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.objects: list[RemoteObject] = []
        self.truncated: bool | None = None
        self.token = ""
        self._root: dict[str, str] = {}
        self._item: dict[str, str] = {}
        self._path: list[str] = []
        self._text: list[str] = []

    def parse(self, body: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype  # S3 sends none; entities could blow up
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        try:
            parser.Parse(body, True)
        except (expat.ExpatError, KeyError, ValueError) as error:
            raise IntegrityError(
                f"the S3 service's answer is no listing: {error!r}", fix=_ENDPOINT_FIX
            ) from None

    def check(self, bucket: str, source: str, where: str) -> None:
        """Refuse an answer that is not the listing of this prefix, whatever its status was."""
        name, prefix = self._root.get("Name"), unquote(self._root.get("Prefix", ""))
        if name != bucket or prefix != self._prefix or self.truncated is None:
            raise IntegrityError(f"the answer of {where} is no listing of {source}", fix=_ENDPOINT_FIX)
        count = self._root.get("KeyCount")
        if count and int(count) != len(self.objects):
            raise IntegrityError(f"the listing of {source} is cut short: {len(self.objects)} of {count} keys")

    @staticmethod
    def _doctype(*_: object) -> None:
        raise ValueError("it has a document type")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._path.append(name)
        self._text.clear()
        if len(self._path) == 1 and name != "ListBucketResult":
            raise ValueError(f"it is a <{name[:40]}>")
        if len(self._path) == 2 and name == "Contents":
            self._item = {}

    def _end(self, name: str) -> None:
        depth = len(self._path)
        self._path.pop()
        if depth == 2 and name == "Contents":
            item = self._item
            key = unquote(item["Key"], errors="surrogateescape")
            if not key.startswith(self._prefix):
                raise ValueError(f"it holds a foreign key {key!r}")
            self.objects.append(
                RemoteObject(
                    path=key[len(self._prefix) :],
                    etag=item["ETag"].strip('"'),
                    size=int(item["Size"]),
                    last_modified=item["LastModified"],
                )
            )
        elif depth == 3 and self._path[1] == "Contents":
            self._item[name] = "".join(self._text)
        elif depth == 2:
            text = self._root[name] = "".join(self._text)
            if name == "IsTruncated":
                self.truncated = text == "true"
            elif name == "NextContinuationToken":
                self.token = text
        self._text.clear()


def _error_of(body: bytes) -> tuple[str, str]:
    """Return code and message of an S3 error document, or the only line of a plain answer as the message."""
    found: dict[str, str] = {}
    text: list[str] = []

    def end(name: str) -> None:
        found[name] = "".join(text).strip()
        text.clear()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    try:
        parser.Parse(body[:4096], True)
    except expat.ExpatError:
        # What stands before S3, such as the gateway, says in plain text why it refuses.
        line = body[:200].decode(errors="replace").strip()
        return "", line if line.isprintable() and "<" not in line else ""
    return found.get("Code", "")[:80], found.get("Message", "")[:200]
