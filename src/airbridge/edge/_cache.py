"""The cache of an edge host: the folder that its tasks share, how large it is, and how to make room in it."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airbridge.errors import AirbridgeError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CACHE_DIR", "Contents", "cache_folder", "contents", "remove"]

CACHE_DIR: Final = "AIRBRIDGE_CACHE_DIR"
"""Environment variable that tells tasks where the cache is."""

_BLOCK: Final = 512  # bytes; the unit of st_blocks, whatever the file system's own is


@dataclass(frozen=True, slots=True)
class Contents:
    """Some of what is in the cache."""

    files: int
    size: int
    """Bytes on the disk."""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the cache's folder.

    :raises SettingsError: there is none
    """
    folder = environ.get(CACHE_DIR, "")
    if not folder or not Path(folder).is_dir():
        raise SettingsError(
            f"{CACHE_DIR}={folder} is no folder", fix="run this in the container of the service edge-worker"
        )
    return Path(folder)


def contents(folder: Path) -> Contents:
    """Return how much is in the cache."""
    files = [about for _, about in _files(folder)]
    return Contents(len(files), sum(_size(about) for about in files))


def remove(folder: Path, unused_s: float = 0.0) -> Contents:
    """Remove files, and the folders that are empty then; returns what was removed.

    The folder itself stays: it is a mount. Links are removed, and never followed.

    :param unused_s: only what was neither read nor written for so many seconds
    :raises AirbridgeError: something could not be removed
    """
    before = time.time() - unused_s
    folders = _folders(folder, before)
    removed, size, failed = 0, 0, ""
    for path, about in _files(folder):
        if unused_s and max(about.st_atime, about.st_mtime, about.st_ctime) > before:
            continue
        try:
            path.unlink()
        except FileNotFoundError:
            continue  # a task was faster
        except OSError as error:
            failed = f"{path}: {error.strerror}"
            continue
        removed += 1
        size += _size(about)
    for empty in folders:
        with suppress(OSError):
            empty.rmdir()
    if failed:
        raise AirbridgeError(
            f"not everything in the cache could be removed, such as {failed}",
            fix="remove it as its owner: what a task's own container wrote belongs to the user of that",
        )
    return Contents(removed, size)


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Everything that is no folder, with what is known about it."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        # A link to a folder is listed as one.
        for name in (*files, *folders):
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                about = path.lstat()
                if not stat.S_ISDIR(about.st_mode):
                    found.append((path, about))
    return found


def _folders(folder: Path, before: float) -> list[Path]:
    """Folders inside that have not changed since, the deepest first: one that is new is about to be used."""
    found = []
    for parent, _, _ in os.walk(folder, topdown=False, followlinks=False):
        path = Path(parent)
        with suppress(FileNotFoundError):
            if path != folder and path.lstat().st_mtime <= before:
                found.append(path)
    return found


def _size(about: os.stat_result) -> int:
    return about.st_blocks * _BLOCK
