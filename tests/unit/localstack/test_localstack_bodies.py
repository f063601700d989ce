"""Object bodies as immutable files."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest

from airbridge.localstack._bodies import BodyStore
from airbridge.localstack._errors import BodyMissingError, StorageFullError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bodies(tmp_path: Path) -> BodyStore:
    return BodyStore(tmp_path, reserve_bytes=1024, grace_seconds=0.0)


def put(bodies: BodyStore, content: bytes) -> str:
    writer = bodies.create()
    writer.write(content)
    return writer.publish()


def read(bodies: BodyStore, body_id: str) -> bytes:
    with bodies.open(body_id) as file:
        return file.read()


def test_body_has_its_name_only_after_its_content_is_on_the_disk(
    bodies: BodyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        steps.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        real_fsync(descriptor)

    def rename(source: object, target: object, **options: object) -> None:
        steps.append("rename")
        real_rename(source, target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    put(bodies, b"content")
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_aborted_body_leaves_nothing(bodies: BodyStore, tmp_path: Path) -> None:
    writer = bodies.create()
    writer.write(b"half")
    writer.abort()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_duplicate_outlives_its_original(bodies: BodyStore) -> None:
    first = put(bodies, b"same")
    second = bodies.duplicate(first)
    bodies.discard(first)
    assert second != first
    assert read(bodies, second) == b"same"


def test_duplicate_copies_where_the_file_system_has_no_links(
    bodies: BodyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(bodies, b"same")

    def no_links(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    second = bodies.duplicate(first)
    bodies.discard(first)
    assert read(bodies, second) == b"same"


def test_open_says_that_a_body_is_missing_or_was_cut(bodies: BodyStore) -> None:
    body_id = put(bodies, b"content")
    os.truncate(bodies.path(body_id), 3)
    with pytest.raises(BodyMissingError, match="has 3 bytes, 7 were written"):
        bodies.open(body_id, size=7)
    bodies.discard(body_id)
    with pytest.raises(BodyMissingError, match="is missing"):
        bodies.open(body_id)


def test_retired_body_stays_for_open_readers_and_goes_by_itself(tmp_path: Path) -> None:
    bodies = BodyStore(tmp_path, reserve_bytes=1024, grace_seconds=0.05)
    body_id = put(bodies, b"old")
    with bodies.open(body_id) as reader:
        bodies.retire([body_id])
        assert bodies.path(body_id).exists()
        deadline = time.monotonic() + 10
        while bodies.path(body_id).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not bodies.path(body_id).exists()
        assert reader.read() == b"old"
    bodies.close()


def test_close_removes_retired_bodies_and_ends_the_reaper(tmp_path: Path) -> None:
    bodies = BodyStore(tmp_path, reserve_bytes=1024, grace_seconds=3600)
    body_id = put(bodies, b"old")
    bodies.retire([body_id])
    reaper = bodies._reaper
    assert reaper is not None
    bodies.close()
    assert not bodies.path(body_id).exists()
    reaper.join(timeout=10)
    assert not reaper.is_alive()


def test_sweep_removes_what_nothing_names_and_reports_what_is_missing(
    bodies: BodyStore, tmp_path: Path
) -> None:
    kept, orphan = put(bodies, b"kept"), put(bodies, b"orphan")
    bodies.create().write(b"never finished")
    removed, missing = bodies.sweep({kept, "f" * 32})
    assert (removed, missing) == (1, ["f" * 32])
    assert not bodies.path(orphan).exists()
    assert read(bodies, kept) == b"kept"
    assert list((tmp_path / "incoming").iterdir()) == []


def test_body_is_refused_before_the_reserve_is_used_up(tmp_path: Path) -> None:
    everything = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize * 2
    bodies = BodyStore(tmp_path, reserve_bytes=everything)
    with pytest.raises(StorageFullError, match=r"is full.*fix: delete objects"):
        put(bodies, b"x")
    with pytest.raises(StorageFullError):
        bodies.create().publish()
