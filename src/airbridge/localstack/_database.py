"""The metadata database: buckets, versions, uploads, parts and tags in one SQLite file.

Write-ahead log with ``synchronous=FULL``: a transaction is on the disk when ``COMMIT`` returns. One
connection, used under the journal's lock. Schema changes raise :data:`SCHEMA_VERSION` and add a step to
``_MIGRATIONS``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from airbridge.errors import IntegrityError
from airbridge.localstack._errors import StorageBusyError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

__all__ = [
    "SCHEMA_VERSION",
    "BucketRow",
    "MetadataDatabase",
    "PartRow",
    "UploadRow",
    "VersionRow",
]

SCHEMA_VERSION = 1
"""What this release reads and writes (``PRAGMA user_version``)."""

_APPLICATION_ID = 0x41495242  # "AIRB", so that file(1) and we can tell this database from another
_WAL_LIMIT = 16 * 1024 * 1024  # bytes that the write-ahead log may keep after a checkpoint
_CACHE_KIB = 4096  # pages that SQLite keeps in memory; everything is read once, at start

_SCHEMA = """
CREATE TABLE bucket (
  name TEXT PRIMARY KEY, account TEXT NOT NULL, state TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE version (
  bucket TEXT NOT NULL REFERENCES bucket(name) ON DELETE CASCADE,
  key TEXT NOT NULL, version_id TEXT NOT NULL,
  seq INTEGER NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('object', 'marker')),
  body TEXT, state TEXT NOT NULL,
  PRIMARY KEY (bucket, key, version_id)
) WITHOUT ROWID;
CREATE TABLE upload (
  bucket TEXT NOT NULL REFERENCES bucket(name) ON DELETE CASCADE,
  upload_id TEXT NOT NULL, state TEXT NOT NULL, object TEXT NOT NULL,
  PRIMARY KEY (bucket, upload_id)
) WITHOUT ROWID;
CREATE TABLE part (
  bucket TEXT NOT NULL, upload_id TEXT NOT NULL, number INTEGER NOT NULL,
  body TEXT, state TEXT NOT NULL,
  PRIMARY KEY (bucket, upload_id, number),
  FOREIGN KEY (bucket, upload_id) REFERENCES upload(bucket, upload_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE tags (resource TEXT PRIMARY KEY, tags TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);
INSERT INTO probe VALUES (1, 0);
"""

_MIGRATIONS: dict[int, str] = {0: _SCHEMA}
"""Script that leads from a schema version to the next one."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class BucketRow:
    """A bucket's settings; ``state`` is JSON."""

    name: str
    account: str
    state: str


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version of an object (``kind`` "object", with the name of its body) or a delete marker ("marker")."""

    bucket: str
    key: str
    version_id: str
    seq: int
    kind: str
    body: str | None
    state: str


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A multipart upload in progress; ``object`` is the state of the object that it will become."""

    bucket: str
    upload_id: str
    state: str
    object: str


@dataclass(frozen=True, slots=True)
class PartRow:
    """An uploaded part."""

    bucket: str
    upload_id: str
    number: int
    body: str | None
    state: str


class MetadataDatabase:
    """Opens, checks, reads and writes the database file ``metadata.sqlite3`` of a data directory."""

    def __init__(self, root: Path) -> None:
        """:raises StorageBusyError: another process has the directory open.

        :raises IntegrityError: the file is damaged, not ours, or of a newer release.
        """
        self.path = root / "metadata.sqlite3"
        self._lock = self._lock_directory(root)
        self._connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._release()
            if _is_full(error):
                raise _full(self.path) from error
            raise IntegrityError(
                f"{self.path} cannot be read: {error}", fix="restore the S3 volume from a backup"
            ) from error
        except BaseException:
            self._release()
            raise

    @staticmethod
    def _lock_directory(root: Path) -> int:
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StorageBusyError(
                f"{root} is in use by another process", fix="stop the other LocalStack that uses this volume"
            ) from error
        return descriptor

    def _prepare(self) -> None:
        run = self._connection.execute
        version = int(run("PRAGMA user_version").fetchone()[0])
        owner = int(run("PRAGMA application_id").fetchone()[0])
        if owner not in (0, _APPLICATION_ID):
            raise IntegrityError(f"{self.path} belongs to another program (application id {owner:#x})")
        if version > SCHEMA_VERSION:
            raise IntegrityError(
                f"{self.path} has schema {version}, this release reads up to {SCHEMA_VERSION}",
                fix="run the newer release that wrote it, or restore a backup made by this one",
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA foreign_keys = ON")
        run(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        run(f"PRAGMA cache_size = -{_CACHE_KIB}")
        problem = run("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise IntegrityError(
                f"{self.path} is damaged: {problem}", fix="restore the S3 volume from a backup"
            )
        while version < SCHEMA_VERSION:
            script = f"BEGIN IMMEDIATE;{_MIGRATIONS[version]}PRAGMA user_version = {version + 1};"
            if version == 0:
                script += f"PRAGMA application_id = {_APPLICATION_ID};"
            self._connection.executescript(script + "COMMIT;")
            version += 1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is on the disk when this returns, or nothing is.

        :raises StorageFullError: there is no room.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.DatabaseError) and _is_full(error):
                raise _full(self.path) from error
            raise

    def probe(self) -> None:
        """Write something, to prove that writing works."""
        with self.transaction():
            self._connection.execute("UPDATE probe SET count = count + 1")

    # Reading

    def buckets(self, name: str | None = None) -> list[BucketRow]:
        """Return all buckets, or the one of a name."""
        return self._rows(BucketRow, "bucket", {"name": name})

    def iter_versions(self) -> Iterator[VersionRow]:
        """Iterate over all versions, by bucket and key, oldest first."""
        for row in self._connection.execute(
            "SELECT bucket, key, version_id, seq, kind, body, state FROM version ORDER BY bucket, key, seq"
        ):
            yield VersionRow(*row)

    def versions(self, bucket: str, key: str) -> list[VersionRow]:
        """Return all versions of a key, oldest first."""
        return self._rows(VersionRow, "version", {"bucket": bucket, "key": key}, order="seq")

    def version(self, bucket: str, key: str, version_id: str) -> VersionRow | None:
        """Return one version."""
        found = self._rows(VersionRow, "version", {"bucket": bucket, "key": key, "version_id": version_id})
        return found[0] if found else None

    def uploads(self, bucket: str | None = None, upload_id: str | None = None) -> list[UploadRow]:
        """Return uploads: all, of a bucket, or one."""
        return self._rows(UploadRow, "upload", {"bucket": bucket, "upload_id": upload_id})

    def parts(
        self, bucket: str | None = None, upload_id: str | None = None, number: int | None = None
    ) -> list[PartRow]:
        """Return parts: all, of a bucket, of an upload, or one."""
        return self._rows(PartRow, "part", {"bucket": bucket, "upload_id": upload_id, "number": number})

    def tags(self, resource: str | None = None) -> list[tuple[str, str]]:
        """Return (resource, JSON of its tags): all, or of one resource."""
        where, values = _where({"resource": resource})
        return self._connection.execute(f"SELECT resource, tags FROM tags{where}", values).fetchall()  # noqa: S608

    def _rows(
        self, kind: type[Row], table: str, conditions: dict[str, str | int | None], order: str = ""
    ) -> list[Row]:
        where, values = _where(conditions)
        columns = ", ".join(kind.__dataclass_fields__)  # type: ignore[attr-defined]
        suffix = f" ORDER BY {order}" if order else ""
        # Table and column names come from this module, never from a request.
        query = f"SELECT {columns} FROM {table}{where}{suffix}"  # noqa: S608
        return [kind(*row) for row in self._connection.execute(query, values)]

    # Writing, inside a transaction

    def put_bucket(self, row: BucketRow) -> None:
        """Insert or update a bucket."""
        self._connection.execute(
            "INSERT INTO bucket (name, account, state) VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET account = excluded.account, state = excluded.state",
            (row.name, row.account, row.state),
        )

    def delete_bucket(self, name: str) -> None:
        """Delete a bucket with all that is in it."""
        self._connection.execute("DELETE FROM bucket WHERE name = ?", (name,))

    def put_version(self, row: VersionRow) -> None:
        """Insert or update a version."""
        self._connection.execute(
            "INSERT INTO version (bucket, key, version_id, seq, kind, body, state)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (bucket, key, version_id) DO UPDATE SET"
            " seq = excluded.seq, kind = excluded.kind, body = excluded.body, state = excluded.state",
            (row.bucket, row.key, row.version_id, row.seq, row.kind, row.body, row.state),
        )

    def delete_version(self, bucket: str, key: str, version_id: str) -> None:
        """Delete a version."""
        self._connection.execute(
            "DELETE FROM version WHERE bucket = ? AND key = ? AND version_id = ?", (bucket, key, version_id)
        )

    def put_upload(self, row: UploadRow) -> None:
        """Insert or update an upload."""
        self._connection.execute(
            "INSERT INTO upload (bucket, upload_id, state, object) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (bucket, upload_id) DO UPDATE SET state = excluded.state, object = excluded.object",
            (row.bucket, row.upload_id, row.state, row.object),
        )

    def delete_upload(self, bucket: str, upload_id: str) -> None:
        """Delete an upload with its parts."""
        self._connection.execute("DELETE FROM upload WHERE bucket = ? AND upload_id = ?", (bucket, upload_id))

    def put_part(self, row: PartRow) -> None:
        """Insert or update a part."""
        self._connection.execute(
            "INSERT INTO part (bucket, upload_id, number, body, state) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (bucket, upload_id, number)"
            " DO UPDATE SET body = excluded.body, state = excluded.state",
            (row.bucket, row.upload_id, row.number, row.body, row.state),
        )

    def put_tags(self, resource: str, tags: str) -> None:
        """Insert or update the tags (JSON) of a resource."""
        self._connection.execute(
            "INSERT INTO tags (resource, tags) VALUES (?, ?)"
            " ON CONFLICT (resource) DO UPDATE SET tags = excluded.tags",
            (resource, tags),
        )

    def delete_tags(self, resource: str) -> None:
        """Delete the tags of a resource."""
        self._connection.execute("DELETE FROM tags WHERE resource = ?", (resource,))

    # Maintenance

    def pragma(self, name: str) -> Any:
        """Return a setting of the live connection (for checks)."""
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]

    def close(self) -> None:
        """Write everything into the main file and close; nothing is lost without it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._release()

    def _release(self) -> None:
        self._connection.close()
        os.close(self._lock)


def _where(conditions: dict[str, str | int | None]) -> tuple[str, list[str | int]]:
    given = {column: value for column, value in conditions.items() if value is not None}
    clause = " AND ".join(f"{column} = ?" for column in given)
    return (f" WHERE {clause}" if clause else "", list(given.values()))


def _is_full(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _full(path: Path) -> StorageFullError:
    return StorageFullError(
        f"S3 storage is full: cannot write {path}",
        fix="delete objects or give the volume more room; nothing was changed",
    )
