"""The cache of an edge host: how large it is, and what is removed from it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from airbridge.edge._cache import CACHE_DIR, Contents, cache_folder, contents, remove
from airbridge.edge._cli import app
from airbridge.errors import AirbridgeError, SettingsError

DAY_S = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def _put(path: Path, size: int = 100_000, days_old: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - days_old * DAY_S
    os.utime(path, (then, then))
    return path


def _command(folder: Path, *arguments: str) -> list[str]:
    done = CliRunner().invoke(app, ["cache", *arguments], env={CACHE_DIR: str(folder)})
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_contents_are_counted_as_they_lie_on_the_disk(cache: Path) -> None:
    _put(cache / "a" / "one")
    _put(cache / "two")
    with (cache / "sparse").open("wb") as file:
        file.truncate(10**9)
    found = contents(cache)
    assert found.files == 3
    assert 200_000 <= found.size < 1_000_000


def test_everything_is_removed_but_the_folder(cache: Path) -> None:
    _put(cache / "a" / "b" / "one")
    (cache / "empty").mkdir()
    assert remove(cache).files == 1
    assert list(cache.iterdir()) == []


def test_only_what_was_unused_is_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(cache / "old")
    _put(cache / "in" / "old")
    kept = _put(cache / "new")
    used = _put(cache / "in" / "used")
    later = time.time() + 8 * DAY_S
    for path, read in ((kept, later), (used, later - 6 * DAY_S)):
        os.utime(path, (read, path.stat().st_mtime))
    # Neither is the time of a change of its name or mode to be set, so the clock goes on instead.
    monkeypatch.setattr(time, "time", lambda: later)
    assert remove(cache, 7 * DAY_S).files == 2
    assert sorted(path.name for path in cache.rglob("*")) == ["in", "new", "used"]


def test_links_are_removed_and_what_they_point_to_stays(cache: Path, tmp_path: Path) -> None:
    outside = _put(tmp_path / "outside" / "kept")
    (cache / "file").symlink_to(outside)
    (cache / "folder").symlink_to(outside.parent)
    assert remove(cache).files == 2
    assert outside.exists()
    assert list(cache.iterdir()) == []


def test_what_cannot_be_removed_is_one_clear_line_and_the_rest_goes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(cache / "mine")
    stuck = _put(cache / "theirs")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        # The tests may run as root, whom nothing is refused.
        if path == stuck:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(AirbridgeError, match=r"theirs: Operation not permitted.*fix: remove it as its owner"):
        remove(cache)
    assert [path.name for path in cache.iterdir()] == ["theirs"]


@pytest.mark.parametrize("told", ["", "/nowhere"])
def test_cache_that_is_none_is_one_clear_line(told: str) -> None:
    with pytest.raises(SettingsError, match=f"{CACHE_DIR}={told} is no folder"):
        cache_folder({CACHE_DIR: told} if told else {})


def test_command_says_what_is_there_and_what_it_removed(cache: Path) -> None:
    _put(cache / "one", 2 * 1024 * 1024)
    assert _command(cache) == [f"{cache} holds 1 file, 2.0 MiB"]
    assert _command(cache, "--unused-for-days", "1") == [
        "removed 0 files, 0.0 MiB",
        f"{cache} holds 1 file, 2.0 MiB",
    ]
    assert _command(cache, "--clear") == ["removed 1 file, 2.0 MiB", f"{cache} holds 0 files, 0.0 MiB"]
    assert contents(cache) == Contents(0, 0)
