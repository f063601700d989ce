"""LocalStack's storage back end (``localstack.services.s3.storage.core``) on immutable body files.

An object's body is named by an attribute of the object, not by its key, so reading never meets a body of
another version, and a reader is never disturbed by a writer. There is nothing to remove here: the storage
knows from its rows which bodies are no longer named.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from localstack.services.s3.constants import S3_CHUNK_SIZE
from localstack.services.s3.storage.core import (
    LimitedStream,
    S3ObjectStore,
    S3StoredMultipart,
    S3StoredObject,
)
from localstack.services.s3.utils import get_s3_checksum

from airbridge.localstack._errors import BodyMissingError
from airbridge.localstack._keystores import NULL_VERSION
from airbridge.localstack._memory import BODY_ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from typing import BinaryIO

    from airbridge.localstack._bodies import BodyWriter
    from airbridge.localstack._storage import Storage

__all__ = ["DurableObjectStore", "KeyedLocks"]

_COPY_CHUNK = 1024 * 1024  # parts are joined from local files: larger than what the network delivers at once


class _Lock:
    """A lock that a weak reference can point to."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()


class KeyedLocks:
    """One lock a name, gone when nobody holds it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[Hashable, _Lock] = weakref.WeakValueDictionary()

    @contextmanager
    def hold(self, name: Hashable) -> Iterator[None]:
        """Hold the lock of a name."""
        held = self.get(name)
        with held.lock:
            yield

    def get(self, name: Hashable) -> _Lock:
        """Return the lock of a name; keep the reference while using it."""
        with self._guard:
            return self._locks.setdefault(name, _Lock())


class _Reader(S3StoredObject):  # type: ignore[misc]
    """A published body, open for reading."""

    def __init__(self, storage: Storage, s3_object: Any) -> None:
        super().__init__(s3_object=s3_object, mode="r")
        body_id = getattr(s3_object, BODY_ATTRIBUTE, None)
        if body_id is None:
            raise BodyMissingError(f"object {getattr(s3_object, 'key', '')!r} has no body")
        self._file: BinaryIO = storage.bodies.open(body_id, size=s3_object.size)

    def read(self, s: int | None = -1) -> bytes:
        return self._file.read(-1 if s is None else s)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def write(self, s: Any) -> int:
        raise io.UnsupportedOperation("S3 object is not in write mode")

    def append(self, part: Any) -> int:
        raise io.UnsupportedOperation("S3 object is not in write mode")

    def close(self) -> None:
        self._file.close()
        self.closed = True

    @property
    def last_modified(self) -> int:
        modified: int = self.s3_object.internal_last_modified
        return modified

    @property
    def checksum(self) -> str | None:
        if not self.s3_object.checksum_algorithm:
            return None
        return _encode(self._digest(get_s3_checksum(self.s3_object.checksum_algorithm)).digest())

    @property
    def etag(self) -> str:
        digest: str = self._digest(hashlib.md5(usedforsecurity=False)).hexdigest()
        return digest

    def _digest(self, digest: Any) -> Any:
        position = self._file.tell()
        self._file.seek(0)
        while chunk := self._file.read(_COPY_CHUNK):
            digest.update(chunk)
        self._file.seek(position)
        return digest

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(S3_CHUNK_SIZE):
            yield chunk


class _Writer(S3StoredObject):  # type: ignore[misc]
    """A body on its way to the disk. Without a complete :meth:`write` nothing is left of it."""

    def __init__(self, storage: Storage, s3_object: Any, held: _Lock | None = None) -> None:
        super().__init__(s3_object=s3_object, mode="w")
        self.closed = False
        self._storage = storage
        self._held = held
        self._body: BodyWriter | None = None
        self._etag: str | None = None
        self._checksum: str | None = None
        if held is not None:
            held.lock.acquire()

    def write(self, s: Any) -> int:
        """Take the whole stream, put it on the disk and name it in the object."""
        stream = io.BytesIO() if s is None else s
        algorithm = self.s3_object.checksum_algorithm
        checksum = get_s3_checksum(algorithm) if algorithm else None
        etag = hashlib.md5(usedforsecurity=False)
        body = self._start()
        while data := stream.read(S3_CHUNK_SIZE):
            body.write(data)
            etag.update(data)
            if checksum is not None:
                checksum.update(data)
        self._etag = self.s3_object.etag = etag.hexdigest()
        self._checksum = _encode(checksum.digest()) if checksum is not None else None
        self._publish(body)
        return body.size

    def append(self, part: Any) -> int:
        """Add a part; :meth:`finish` puts the whole on the disk."""
        body = self._body or self._start()
        before = body.size
        while data := part.read(_COPY_CHUNK):
            body.write(data)
        return body.size - before

    def finish(self) -> None:
        """Put what was appended on the disk and name it in the object."""
        self._publish(self._body or self._start())

    def _start(self) -> BodyWriter:
        self._body = self._storage.bodies.create()
        self._storage.journal.created_body(self._body.body_id)
        return self._body

    def _publish(self, body: BodyWriter) -> None:
        body.publish()
        self._body = None
        self.s3_object.size = body.size
        self.s3_object.internal_last_modified = time.time_ns()
        setattr(self.s3_object, BODY_ATTRIBUTE, body.body_id)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._body is not None:
            self._body.abort()
        if self._held is not None:
            self._held.lock.release()
            self._held = None

    def read(self, s: int | None = -1) -> bytes:
        raise io.UnsupportedOperation("S3 object is in write mode")

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("S3 object is in write mode")

    @property
    def last_modified(self) -> int:
        modified: int = self.s3_object.internal_last_modified
        return modified

    @property
    def checksum(self) -> str | None:
        return self._checksum

    @property
    def etag(self) -> str | None:
        return self._etag

    def __iter__(self) -> Iterator[bytes]:
        raise io.UnsupportedOperation("S3 object is in write mode")


class _Copy(_Reader):
    """The copy of an object: its own name for the same content, digests taken over where they are known."""

    def __init__(self, storage: Storage, s3_object: Any, source: Any) -> None:
        super().__init__(storage, s3_object)
        self._source = source

    @property
    def checksum(self) -> str | None:
        source = self._source
        same = source.checksum_algorithm == self.s3_object.checksum_algorithm
        if same and source.checksum_value and source.checksum_type == self.s3_object.checksum_type:
            value: str = source.checksum_value
            return value
        return super().checksum

    @property
    def etag(self) -> str:
        known: str = self._source.etag or ""
        is_digest_of_content = known and "-" not in known  # that of a multipart upload is one of its parts
        return known if is_digest_of_content else super().etag


class _DurableMultipart(S3StoredMultipart):  # type: ignore[misc]
    """The parts of an upload. Holds nothing itself: a part names its body."""

    def __init__(self, store: DurableObjectStore, bucket: str, s3_multipart: Any) -> None:
        super().__init__(s3_store=store, bucket=bucket, s3_multipart=s3_multipart)
        self._storage = store.storage

    def open(self, s3_part: Any, mode: Literal["r", "w"] = "r") -> S3StoredObject:
        return _Writer(self._storage, s3_part) if mode == "w" else _PartReader(self._storage, s3_part)

    def remove_part(self, s3_part: Any) -> None:
        """Nothing to do: the request fails now, which removes the body that it wrote."""

    def complete_multipart(self, parts: list[Any]) -> None:
        """Join the parts to the body of the object."""
        with self._s3_store.open(self.bucket, self.s3_multipart.object, mode="w") as joined:
            for s3_part in parts:
                with self.open(s3_part) as stored_part:
                    joined.append(stored_part)
            joined.finish()

    def close(self) -> None:
        """Nothing to do: the storage removes bodies that no row names."""

    def copy_from_object(self, s3_part: Any, src_bucket: str, src_s3_object: Any, range_data: Any) -> None:
        """Make a part from (a range of) an object."""
        with (
            self._s3_store.open(src_bucket, src_s3_object, mode="r") as source,
            self.open(s3_part, mode="w") as target,
        ):
            target.write(LimitedStream(source, range_data=range_data) if range_data else source)
            if s3_part.checksum_algorithm:
                s3_part.checksum_value = target.checksum


class _PartReader(_Reader):
    """A part; LocalStack keeps no modification time for parts."""

    @property
    def last_modified(self) -> int:
        return 0


class DurableObjectStore(S3ObjectStore):  # type: ignore[misc]
    """Bodies of all objects."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._locks = KeyedLocks()

    def open(self, bucket: str, s3_object: Any, mode: Literal["r", "w"] = "r") -> S3StoredObject:
        """Open an object's body; one writer a time for a version of a key, so that preconditions hold."""
        if mode == "r":
            return _Reader(self.storage, s3_object)
        name = (bucket, s3_object.key, s3_object.version_id or NULL_VERSION)
        return _Writer(self.storage, s3_object, self._locks.get(name))

    def remove(self, bucket: str, s3_object: Any) -> None:
        """Nothing to do: the storage removes bodies that no row names."""

    def copy(self, src_bucket: str, src_object: Any, dest_bucket: str, dest_object: Any) -> S3StoredObject:
        """Give the content of an object to another one; no byte is copied."""
        source = getattr(src_object, BODY_ATTRIBUTE, None)
        if source is None:
            raise BodyMissingError(f"object {src_object.key!r} has no body")
        twin = self.storage.bodies.duplicate(source)
        self.storage.journal.created_body(twin)
        setattr(dest_object, BODY_ATTRIBUTE, twin)
        dest_object.size = src_object.size
        dest_object.internal_last_modified = time.time_ns()
        return _Copy(self.storage, dest_object, src_object)

    def get_multipart(self, bucket: str, upload_id: Any) -> S3StoredMultipart:
        """Return the parts of an upload (LocalStack passes the upload itself)."""
        return _DurableMultipart(self, bucket, upload_id)

    def remove_multipart(self, bucket: str, s3_multipart: Any) -> None:
        """Nothing to do: the storage removes bodies that no row names."""

    def close(self) -> None:
        """Close the storage; LocalStack calls this when it stops."""
        self.storage.close()


def _encode(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
