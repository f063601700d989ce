"""Object bodies as immutable files.

Layout below the data directory::

    bodies/<two hex digits>/<32 hex digits>     one file a body, never changed after it got its name
    incoming/<32 hex digits>                    bodies being written; emptied at every start

A body gets its name only when its content is on the disk: temporary file, ``fsync``, ``rename``, ``fsync``
of the folder. An overwrite is a new file, so readers of the old one are never disturbed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, BinaryIO

from airbridge.localstack._errors import BodyMissingError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["BodyStore", "BodyWriter", "fsync_directory"]

LOG = logging.getLogger(__name__)

_SHARDS = 256  # folders stay small up to some ten million bodies
_FREE_SPACE_EVERY = 8 * 1024 * 1024  # bytes written between two looks at the free space
_GRACE_SECONDS = 5.0  # a reader has looked up its object and opens the body within milliseconds
_COPY_CHUNK = 1024 * 1024


def fsync_directory(path: Path) -> None:
    """Make names that were created, renamed or removed in a folder survive power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BodyWriter:
    """A body being written. Ends with :meth:`publish` or :meth:`abort`."""

    def __init__(self, store: BodyStore, body_id: str) -> None:
        self._store = store
        self._path = store.incoming / body_id
        self._unchecked = _FREE_SPACE_EVERY  # look at the free space before the first byte
        self._file = self._path.open("xb")
        self.body_id = body_id
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append bytes.

        :raises StorageFullError: the reserve of free space would be used up.
        """
        self._unchecked += len(data)
        if self._unchecked >= _FREE_SPACE_EVERY:
            self._store.require_space(len(data))
            self._unchecked = 0
        self._file.write(data)
        self.size += len(data)

    def publish(self) -> str:
        """Put the content on the disk, then give it its name; return the name."""
        if not self.size:
            self._store.require_space(0)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        target = self._store.path(self.body_id)
        self._path.rename(target)
        fsync_directory(target.parent)
        return self.body_id

    def abort(self) -> None:
        """Forget what was written."""
        with contextlib.suppress(OSError):  # a full disk can make even close() fail; the next start cleans up
            self._file.close()
        self._path.unlink(missing_ok=True)


class BodyStore:
    """All bodies of one data directory."""

    def __init__(self, root: Path, *, reserve_bytes: int, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Create the folders.

        :param reserve_bytes: free space that bodies never use, so that metadata (and deletes) still fit.
        :param grace_seconds: how long a retired body stays.
        """
        self.incoming = root / "incoming"
        self._bodies = root / "bodies"
        self._root = root
        self._reserve = reserve_bytes
        self._grace = grace_seconds
        self._retired: deque[tuple[float, str]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._reaper: threading.Thread | None = None
        for folder in (self.incoming, self._bodies):
            folder.mkdir(parents=True, exist_ok=True)
        for shard in range(_SHARDS):
            (self._bodies / f"{shard:02x}").mkdir(exist_ok=True)
        fsync_directory(self._bodies)
        fsync_directory(root)

    def path(self, body_id: str) -> Path:
        """Where a published body lives."""
        return self._bodies / body_id[:2] / body_id

    def free_bytes(self) -> int:
        """Bytes that may still be used, reserve included."""
        stats = os.statvfs(self._root)
        return stats.f_bavail * stats.f_frsize

    def require_space(self, size: int) -> None:
        """:raises StorageFullError: writing ``size`` bytes would use up the reserve."""
        free = self.free_bytes()
        if free - size < self._reserve:
            raise StorageFullError(
                f"S3 storage {self._root} is full: {free >> 20} MiB free, {self._reserve >> 20} reserved",
                fix="delete objects or give the volume more room; nothing was changed",
            )

    def create(self) -> BodyWriter:
        """Start a new body."""
        return BodyWriter(self, uuid.uuid4().hex)

    def open(self, body_id: str, *, size: int | None = None) -> BinaryIO:
        """Open a body for reading.

        :param size: bytes that it must have.
        :raises BodyMissingError: it is not there, or has another size.
        """
        try:
            file = self.path(body_id).open("rb")
        except FileNotFoundError as error:
            raise BodyMissingError(
                f"body {body_id} is missing in {self._bodies}", fix="restore the S3 volume from a backup"
            ) from error
        actual = os.fstat(file.fileno()).st_size
        if size is not None and actual != size:
            file.close()
            raise BodyMissingError(
                f"body {body_id} has {actual} bytes, {size} were written",
                fix="restore the S3 volume from a backup",
            )
        return file

    def duplicate(self, body_id: str) -> str:
        """Give the same content a second name of its own and return it; costs no space where links work."""
        twin = uuid.uuid4().hex
        source, target = self.path(body_id), self.path(twin)
        try:
            os.link(source, target)
        except FileNotFoundError as error:
            raise BodyMissingError(f"body {body_id} is missing in {self._bodies}") from error
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return self._copy(source)
        fsync_directory(target.parent)
        return twin

    def _copy(self, source: Path) -> str:
        writer = self.create()
        try:
            with source.open("rb") as stream:
                while chunk := stream.read(_COPY_CHUNK):
                    writer.write(chunk)
            return writer.publish()
        except BaseException:
            writer.abort()
            raise

    def discard(self, body_id: str) -> None:
        """Remove a body that was never visible."""
        self.path(body_id).unlink(missing_ok=True)

    def retire(self, body_ids: Iterable[str]) -> None:
        """Remove bodies that no row names any more, a moment later: a reader may be about to open one."""
        with self._wake:
            due = time.monotonic() + self._grace
            self._retired.extend((due, body_id) for body_id in body_ids)
            if self._retired and self._reaper is None and not self._closing:
                self._reaper = threading.Thread(target=self._reap, name="s3-body-reaper", daemon=True)
                self._reaper.start()
            self._wake.notify()

    def _reap(self) -> None:
        while True:
            with self._wake:
                while not self._retired and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                due, body_id = self._retired[0]
                if (pause := due - time.monotonic()) > 0:
                    self._wake.wait(pause)
                    continue
                self._retired.popleft()
            try:
                self.discard(body_id)
            except OSError as error:  # removed at the next start
                LOG.warning("cannot remove body %s: %s", body_id, error)

    def sweep(self, named: set[str]) -> tuple[int, list[str]]:
        """Remove every body that is not ``named``; return how many, and the named ones that are missing."""
        for leftover in self.incoming.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        removed = 0
        found: set[str] = set()
        for shard in self._bodies.iterdir():
            with os.scandir(shard) as entries:
                for entry in entries:
                    if entry.name in named:
                        found.add(entry.name)
                    else:
                        os.unlink(entry.path)  # noqa: PTH108 - scandir entries, no Path objects by the thousand
                        removed += 1
        return removed, sorted(named - found)

    def close(self) -> None:
        """Remove retired bodies now and stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
            retired = [body_id for _, body_id in self._retired]
            self._retired.clear()
        for body_id in retired:
            self.discard(body_id)
