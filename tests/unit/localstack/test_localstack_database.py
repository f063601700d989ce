"""The metadata database: durability settings, schema, damage, and who may open it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from airbridge.errors import IntegrityError
from airbridge.localstack._database import SCHEMA_VERSION, BucketRow, MetadataDatabase, VersionRow
from airbridge.localstack._errors import StorageBusyError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = BucketRow("b", "000000000000", "{}")
SYNCHRONOUS_FULL = 2


@pytest.fixture
def database(tmp_path: Path) -> Iterator[MetadataDatabase]:
    database = MetadataDatabase(tmp_path)
    yield database
    database.close()


def version(key: str, seq: int, body: str = "body") -> VersionRow:
    return VersionRow("b", key, f"v{seq}", seq, "object", body, "{}")


def test_commit_waits_for_the_disk(database: MetadataDatabase) -> None:
    assert database.pragma("journal_mode") == "wal"
    assert database.pragma("synchronous") == SYNCHRONOUS_FULL
    assert database.pragma("foreign_keys") == 1


def test_failed_transaction_leaves_nothing(database: MetadataDatabase) -> None:
    def fail() -> None:
        with database.transaction():
            database.put_bucket(BUCKET)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert database.buckets() == []
    with database.transaction():
        database.put_bucket(BUCKET)
    assert database.buckets() == [BUCKET]


def test_version_that_is_written_again_becomes_the_newest(database: MetadataDatabase) -> None:
    with database.transaction():
        database.put_bucket(BUCKET)
        database.put_version(version("k", 1))
        database.put_version(version("k", 2))
        database.put_version(VersionRow("b", "k", "v1", 3, "object", "other", "{}"))
    assert [(row.version_id, row.body) for row in database.versions("b", "k")] == [
        ("v2", "body"),
        ("v1", "other"),
    ]
    assert [row.version_id for row in database.iter_versions()] == ["v2", "v1"]


def test_deleting_a_bucket_deletes_what_is_in_it(database: MetadataDatabase) -> None:
    with database.transaction():
        database.put_bucket(BUCKET)
        database.put_version(version("k", 1))
        database.delete_bucket("b")
    assert list(database.iter_versions()) == []


def test_version_needs_its_bucket(database: MetadataDatabase) -> None:
    with pytest.raises(sqlite3.IntegrityError), database.transaction():
        database.put_version(version("k", 1))


def test_second_process_is_refused(database: MetadataDatabase, tmp_path: Path) -> None:
    database.probe()
    with pytest.raises(StorageBusyError, match="in use by another process"):
        MetadataDatabase(tmp_path)


def test_directory_is_free_again_after_a_failed_open(tmp_path: Path) -> None:
    (tmp_path / "metadata.sqlite3").write_bytes(b"this is no database" * 100)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="cannot be read"):
            MetadataDatabase(tmp_path)


def test_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    MetadataDatabase(tmp_path).close()
    path = tmp_path / "metadata.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match=f"has schema {SCHEMA_VERSION + 1}, this release reads up to"):
        MetadataDatabase(tmp_path)
    assert path.read_bytes() == before


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "metadata.sqlite3") as connection:
        connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(IntegrityError, match="belongs to another program"):
        MetadataDatabase(tmp_path)


def test_damaged_page_is_found_at_start(tmp_path: Path) -> None:
    database = MetadataDatabase(tmp_path)
    with database.transaction():
        database.put_bucket(BUCKET)
        for number in range(500):
            database.put_version(version(f"key-{number:04}", number))
    database.close()
    path = tmp_path / "metadata.sqlite3"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"damaged|cannot be read"):
        MetadataDatabase(tmp_path)


def test_full_disk_is_named_and_nothing_changes(database: MetadataDatabase) -> None:
    with database.transaction():
        database.put_bucket(BUCKET)
    database.pragma(f"max_page_count = {database.pragma('page_count')}")

    def fill() -> None:
        with database.transaction():
            for number in range(1000):
                database.put_version(version(f"key-{number}", number))

    with pytest.raises(StorageFullError, match="S3 storage is full"):
        fill()
    assert list(database.iter_versions()) == []
    database.pragma("max_page_count = 100000")
    fill()
    assert len(list(database.iter_versions())) == 1000
