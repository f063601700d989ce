"""Durable S3 state: what a request changed in memory becomes one transaction, or is undone."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airbridge.errors import AirbridgeError
from airbridge.localstack._bodies import BodyStore, fsync_directory
from airbridge.localstack._database import MetadataDatabase
from airbridge.localstack._errors import StorageFullError
from airbridge.localstack._journal import Changes, Journal
from airbridge.localstack._memory import Memory, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["DEFAULT_RESERVE_BYTES", "Storage"]

LOG = logging.getLogger(__name__)

DEFAULT_RESERVE_BYTES = 32 * 1024 * 1024
"""Free space that bodies never use: room for the write-ahead log, so that deletes work on a full disk."""

_START_BYTES = 4 * 1024 * 1024  # below this not even metadata can be written
_HEALTHY_BYTES = 1024 * 1024  # beyond the reserve: a DAG file or a log can still be written
_LOST_MEMORY_EXIT_CODE = 5


def _exit_now() -> None:
    os._exit(_LOST_MEMORY_EXIT_CODE)


class Storage:
    """The data directory and the state in memory, kept the same."""

    def __init__(
        self,
        root: Path,
        model: Model,
        *,
        reserve_bytes: int = DEFAULT_RESERVE_BYTES,
        grace_seconds: float | None = None,
        give_up: Callable[[], None] = _exit_now,
    ) -> None:
        """Open a data directory, creating it if needed, and read everything.

        :param reserve_bytes: free space that bodies never use.
        :param grace_seconds: how long a body that nothing names any more stays, for readers about to open it.
        :param give_up: called when memory can no longer be made equal to the database; must end the process.
        :raises AirbridgeError: the directory is not writable, full, in use, damaged, or of a newer release.
        """
        self._give_up = give_up
        _require_writable(root)
        self.journal = Journal()
        self.memory = Memory(model, self.journal)
        self._database = MetadataDatabase(root)
        try:
            options = {} if grace_seconds is None else {"grace_seconds": grace_seconds}
            self.bodies = BodyStore(root, reserve_bytes=reserve_bytes, **options)
            fsync_directory(root)
            fsync_directory(root.parent)
            named = self.memory.load(self._database)
            removed, missing = self.bodies.sweep(named)
        except BaseException:
            self._database.close()
            raise
        LOG.info("S3 storage %s: %d keys, %d leftover bodies removed", root, self.memory.count(), removed)
        if missing:
            LOG.error(
                "%d object bodies are missing in %s (first: %s): restore a backup of the volume",
                len(missing),
                root,
                missing[0],
            )

    @contextmanager
    def request(self, *, exclusive: bool) -> Iterator[Changes]:
        """Surround the handler of a request that may change something.

        When this returns, every change is on the disk. When it raises, memory is as it was before.

        :param exclusive: keep other changes out all the time; what the request looks up counts as changed.
        """
        changes = self.journal.start(exclusive=exclusive)
        try:
            try:
                yield changes
                self._commit(changes)
            except BaseException:
                self._undo(changes)
                raise
        finally:
            self.journal.finish()

    def _commit(self, changes: Changes) -> None:
        kept: set[str] = set()
        dropped: set[str] = set()
        if changes:
            with self._database.transaction():
                self._write_buckets(changes, dropped)
                self._write_versions(changes, kept, dropped)
                self._write_uploads(changes, kept, dropped)
                self._write_tags(changes)
        for body_id in (
            changes.created_bodies - kept
        ):  # of a request that wrote a body and then did not use it
            self.bodies.discard(body_id)
        self.bodies.retire(dropped - kept)

    def _write_buckets(self, changes: Changes, dropped: set[str]) -> None:
        database = self._database
        for name in changes.buckets:
            row = self.memory.bucket_row(name)
            if row is None:
                dropped.update(part.body for part in database.parts(name) if part.body)
                database.delete_bucket(name)
            elif [row] != database.buckets(name):
                database.put_bucket(row)

    def _write_versions(self, changes: Changes, kept: set[str], dropped: set[str]) -> None:
        database = self._database
        for (bucket, key, version_id), placed in changes.versions.items():
            before = database.version(bucket, key, version_id)
            seq = self.memory.next_seq() if placed or before is None else before.seq
            after = self.memory.version_row(bucket, key, version_id, seq)
            if before == after:
                continue
            if before is not None and before.body is not None:
                dropped.add(before.body)
            if after is None:
                database.delete_version(bucket, key, version_id)
                continue
            database.put_version(after)
            if after.body is not None:
                kept.add(after.body)

    def _write_uploads(self, changes: Changes, kept: set[str], dropped: set[str]) -> None:
        database = self._database
        for bucket, upload_id in changes.uploads:
            upload = self.memory.upload_row(bucket, upload_id)
            if upload is None:
                dropped.update(part.body for part in database.parts(bucket, upload_id) if part.body)
                database.delete_upload(bucket, upload_id)
            else:
                database.put_upload(upload)
        for bucket, upload_id, number in changes.parts:
            part = self.memory.part_row(bucket, upload_id, number)
            if part is None:
                continue  # removed with its upload
            dropped.update(row.body for row in database.parts(bucket, upload_id, number) if row.body)
            database.put_part(part)
            if part.body is not None:
                kept.add(part.body)

    def _write_tags(self, changes: Changes) -> None:
        for resource in changes.tags:
            tags = self.memory.tags_json(resource)
            if tags is None:
                self._database.delete_tags(resource)
            elif self._database.tags(resource) != [(resource, tags)]:
                self._database.put_tags(resource, tags)

    def _undo(self, changes: Changes) -> None:
        """Make memory what the database holds, for everything that the request changed."""
        try:
            if changes:
                self._reload(changes)
            if changes.created_bodies:
                named = self._named_bodies(changes)
                for body_id in changes.created_bodies - named:
                    self.bodies.discard(body_id)
        except Exception:
            LOG.critical("memory and database differ and cannot be reconciled; stopping", exc_info=True)
            self._give_up()
            raise

    def _reload(self, changes: Changes) -> None:
        memory, database = self.memory, self._database
        for bucket in changes.removed_buckets.values():
            memory.revive_bucket(bucket)
        for name in changes.buckets:
            rows = database.buckets(name)
            if rows:
                memory.load_bucket(rows[0])
            else:
                memory.unload_bucket(name)
        for bucket_name, key in {(bucket, key) for bucket, key, _ in changes.versions}:
            memory.load_key(bucket_name, key, database.versions(bucket_name, key))
        uploads = changes.uploads | {(bucket, upload_id) for bucket, upload_id, _ in changes.parts}
        for bucket_name, upload_id in uploads:
            upload_rows = database.uploads(bucket_name, upload_id)
            if upload_rows:
                memory.load_upload(upload_rows[0], database.parts(bucket_name, upload_id))
            else:
                memory.unload_upload(bucket_name, upload_id)
        for resource in changes.tags:
            tag_rows = database.tags(resource)
            memory.load_tags(resource, tag_rows[0][1] if tag_rows else None)

    def _named_bodies(self, changes: Changes) -> set[str]:
        """Return bodies that rows name: a commit may report failure and still have reached the disk."""
        if not changes:
            return set()
        database = self._database
        named = {
            row.body
            for bucket, key in {(bucket, key) for bucket, key, _ in changes.versions}
            for row in database.versions(bucket, key)
        }
        named |= {row.body for part in changes.parts for row in database.parts(*part)}
        return {body for body in named if body}

    def check(self) -> None:
        """Prove that writing works: one transaction, and room for bodies.

        :raises AirbridgeError: it does not.
        """
        self.bodies.require_space(_HEALTHY_BYTES)
        with self.journal.lock:
            self._database.probe()

    def close(self) -> None:
        """Finish the current change and close the files."""
        with self.journal.lock:
            self.bodies.close()
            self._database.close()


def _require_writable(root: Path) -> None:
    probe = root / ".writable"
    try:
        root.mkdir(parents=True, exist_ok=True)
        stats = os.statvfs(root)
        if stats.f_bavail * stats.f_frsize < _START_BYTES:
            raise StorageFullError(
                f"S3 data directory {root} is full ({(stats.f_bavail * stats.f_frsize) >> 10} KiB free)",
                fix="free at least 4 MiB on its volume",
            )
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise AirbridgeError(
            f"S3 data directory {root} is not writable: {error.strerror}",
            fix=f"mount a volume that uid {os.getuid()} owns, and check that it is not mounted read-only",
        ) from error
