"""The provider plug-in ``s3:durable``: LocalStack's S3 with durable storage.

Chosen with ``PROVIDER_OVERRIDE_S3=durable``. Written for localstack-core 4.13, whose S3 provider changes
its models in place; :class:`_DurableOperation` says which of its operations change what, and when.
"""

from __future__ import annotations

import errno
import json
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from localstack.aws.api import CommonServiceException, ServiceException
from localstack.aws.api.s3 import NoSuchBucket, NoSuchKey, NoSuchUpload, PreconditionFailed
from localstack.aws.skeleton import create_dispatch_table
from localstack.http import Response
from localstack.services.edge import ROUTER
from localstack.services.plugins import Service, aws_provider
from localstack.services.s3.constants import DEFAULT_BUCKET_ENCRYPTION, DEFAULT_PUBLIC_BLOCK_ACCESS
from localstack.services.s3.models import S3Bucket, S3DeleteMarker, S3Multipart, S3Object, S3Part, s3_stores
from localstack.services.s3.provider import S3Provider
from localstack.services.s3.utils import extract_bucket_key_version_id_from_copy_source
from localstack.utils.tagging import TaggingService

from airbridge.errors import AirbridgeError
from airbridge.localstack._backend import DurableObjectStore, KeyedLocks
from airbridge.localstack._errors import BucketGoneError, StorageFullError, UploadGoneError
from airbridge.localstack._memory import Model
from airbridge.localstack._settings import load_settings
from airbridge.localstack._storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HEALTH_PATH", "DurableS3Provider", "durable_provider", "s3_durable"]

LOG = logging.getLogger(__name__)

HEALTH_PATH = "/_airbridge/health"
"""Answers 200 when S3 can write to its disk right now, 503 otherwise."""

_REGION = "us-east-1"  # LocalStack keeps the buckets of an account in one place for all regions

_READING = ("Get", "Head", "List", "Select")
_WITH_A_BODY = frozenset(
    {
        "CompleteMultipartUpload",
        "CopyObject",
        "PostObject",
        "PutObject",
        "UploadPart",
        "UploadPartCopy",
    }
)
"""Operations that move bodies, which takes long: others may change things until these come to their own
changes, which they make through the key stores. All other operations that change something are short and have
the lock from start to end."""

_CONDITIONAL = frozenset({"CompleteMultipartUpload", "PutObject"})
"""Those of them that take ``If-Match`` and ``If-None-Match``."""


class _DurableTagging(TaggingService):  # type: ignore[misc]
    """LocalStack's tags, noting every change."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.tags = storage.memory.tags


class DurableS3Provider(S3Provider):  # type: ignore[misc]
    """LocalStack's S3 provider on a :class:`Storage`."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage_backend=DurableObjectStore(storage))
        self.storage = storage
        self._tagging = _DurableTagging(storage)
        for account in storage.memory.accounts():
            self.get_store(account, _REGION)  # LocalStack looks for CORS rules in the accounts that it knows

    def get_store(self, account_id: str, region_name: str) -> Any:
        """Return LocalStack's store of an account, with our dictionaries in it."""
        store = s3_stores[account_id][region_name]
        memory = self.storage.memory
        buckets = memory.buckets(account_id)
        if store._global.get("buckets") is not buckets:
            store.buckets = buckets
        if store._universal.get("TAGS") is not self._tagging:
            store.TAGS = self._tagging
            store.global_bucket_map = memory.owners
        return store

    def put_bucket_versioning(
        self, context: Any, bucket: str, versioning_configuration: Any, **kwargs: Any
    ) -> None:
        """Change the key store before LocalStack would replace it by one that forgets."""
        _, s3_bucket = self._get_cross_account_bucket(context, bucket)
        status = versioning_configuration.get("Status")
        if not s3_bucket.versioning_status and status in ("Enabled", "Suspended"):
            self.storage.memory.fit(bucket, versioned=True)
            s3_bucket.versioning_status = status
        super().put_bucket_versioning(context, bucket, versioning_configuration, **kwargs)

    def copy_object(self, context: Any, request: Any) -> Any:
        """Let an older version be copied over its own key: that is how one rolls back.

        AWS allows it; LocalStack takes it for a copy of an object to itself unless the metadata are replaced.
        So they are, by those of the older version.
        """
        bucket, key, version_id = extract_bucket_key_version_id_from_copy_source(request.get("CopySource"))
        to_itself = (bucket, key) == (request["Bucket"], request["Key"])
        if to_itself and version_id and request.get("MetadataDirective") != "REPLACE":
            _, s3_bucket = self._get_cross_account_bucket(context, bucket)
            older = s3_bucket.objects.peek(key, version_id)
            if isinstance(older, S3Object) and not older.is_current:
                metadata = {
                    "Metadata": older.user_metadata,
                    "Expires": older.expires,
                    **older.system_metadata,
                }
                request = {**request, **metadata, "MetadataDirective": "REPLACE"}
        return super().copy_object(context, request)

    def on_after_init(self) -> None:
        """Register the health check beside LocalStack's own handlers."""
        super().on_after_init()
        _refuse_oversized_uploads_politely()
        ROUTER.add(HEALTH_PATH, self._health)

    def _health(self, request: Any) -> Response:
        try:
            self.storage.check()
        except (AirbridgeError, OSError) as error:
            return Response(
                json.dumps({"status": "failed", "error": str(error)}), 503, mimetype="application/json"
            )
        return Response(json.dumps({"status": "ok"}), 200, mimetype="application/json")

    def accept_state_visitor(self, visitor: Any) -> None:
        """Let nobody save, load or reset the state: it is on the disk already, and stays."""
        LOG.warning("%s ignored: S3 has durable storage", type(visitor).__name__)


class _DurableOperation:
    """Calls an operation's handler so that what it changes is on the disk before the response is sent."""

    def __init__(
        self, operation: str, handler: Callable[..., Any], storage: Storage, locks: KeyedLocks
    ) -> None:
        self._operation = operation
        self._handler = handler
        self._storage = storage
        self._locks = locks

    def __call__(self, context: Any, request: Any) -> Any:
        try:
            if self._operation.startswith(_READING):
                return self._handler(context, request)
            if self._operation == "CompleteMultipartUpload":
                # A client that retries must not complete an upload twice.
                with self._locks.hold(request.get("UploadId")):
                    return self._change(context, request, exclusive=False)
            return self._change(context, request, exclusive=self._operation not in _WITH_A_BODY)
        except ServiceException:
            raise
        except BucketGoneError as error:
            raise NoSuchBucket(
                "The specified bucket does not exist", BucketName=request.get("Bucket")
            ) from error
        except UploadGoneError as error:
            raise NoSuchUpload(
                "The specified upload does not exist.", UploadId=request.get("UploadId")
            ) from error
        except (AirbridgeError, OSError) as error:
            raise self._as_s3_error(error) from error

    def _change(self, context: Any, request: Any, *, exclusive: bool) -> Any:
        with self._storage.request(exclusive=exclusive) as changes:
            if exclusive and (bucket := (request or {}).get("Bucket")):
                changes.buckets.add(bucket)  # its settings may change in place
            if self._operation in _CONDITIONAL:
                changes.condition = _condition(request)
            return self._handler(context, request)

    def _as_s3_error(self, error: Exception) -> CommonServiceException:
        full = isinstance(error, StorageFullError) or getattr(error, "errno", None) in (
            errno.ENOSPC,
            errno.EDQUOT,
        )
        if full:
            LOG.error("%s refused: %s", self._operation, error)
            return CommonServiceException(
                code="ServiceUnavailable",
                message=f"{self._operation} was refused, nothing was changed: {error}",
                status_code=503,
            )
        LOG.error("%s failed: %s", self._operation, error, exc_info=True)
        return CommonServiceException(
            code="InternalError", message=f"{self._operation} failed: {error}", status_code=500
        )


def _condition(request: Any) -> Callable[[Any], None] | None:
    """Return what the request asks of the object that it would replace, as LocalStack's own check does."""
    etag, absent = request.get("IfMatch"), request.get("IfNoneMatch")
    if not etag and not absent:
        return None

    def holds(existing: Any) -> None:
        if etag and existing is None:
            raise NoSuchKey("The specified key does not exist.", Key=request["Key"])
        if (etag and existing.etag != etag.strip('"')) or (absent and existing is not None):
            raise PreconditionFailed(
                "At least one of the pre-conditions you specified did not hold",
                Condition="If-Match" if etag else "If-None-Match",
            )

    return holds


class _NoRoom:
    """Takes the place of an upload's buffer when the disk is full; whoever reads it is told."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def write(self, data: bytes) -> int:
        return len(data)

    def read(self, size: int = -1) -> bytes:
        raise self._error

    readline = read

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def tell(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to free."""


def _refuse_oversized_uploads_politely() -> None:
    """Answer an upload that does not fit on the disk with an S3 error.

    Twisted collects a request's body in a temporary file before any handler runs; when that fails, it drops
    the connection, and the client learns nothing.
    """
    from localstack.utils.patch import patch
    from twisted.web.http import Request  # type: ignore[import-not-found]

    @patch(Request.handleContentChunk)  # type: ignore[untyped-decorator]
    def handle_content_chunk(fn: Callable[..., Any], self: Any, data: bytes) -> None:
        try:
            fn(self, data)
        except OSError as error:
            self.content.close()
            self.content = _NoRoom(error)


def _dispatch_table(provider: DurableS3Provider) -> dict[str, Any]:
    locks = KeyedLocks()
    return {
        operation: _DurableOperation(operation, handler, provider.storage, locks)
        for operation, handler in create_dispatch_table(provider).items()
    }


@cache
def durable_provider() -> DurableS3Provider:
    """Open the storage that the settings name and return the provider on it, the same one every time.

    :raises AirbridgeError: it cannot be opened.
    """
    settings = load_settings()
    model = Model(
        bucket=S3Bucket,
        object=S3Object,
        marker=S3DeleteMarker,
        upload=S3Multipart,
        part=S3Part,
        constants={
            "DEFAULT_BUCKET_ENCRYPTION": DEFAULT_BUCKET_ENCRYPTION,
            "DEFAULT_PUBLIC_BLOCK_ACCESS": DEFAULT_PUBLIC_BLOCK_ACCESS,
        },
    )
    return DurableS3Provider(Storage(settings.data_dir, model, reserve_bytes=settings.reserve_mib << 20))


@aws_provider(api="s3", name="durable")  # type: ignore[untyped-decorator]
def s3_durable() -> Service:
    """Create the service; found through the entry point ``s3:durable``."""
    return Service.for_provider(durable_provider(), dispatch_table_factory=_dispatch_table)
