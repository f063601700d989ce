"""Find a content that the store already has, so that it is not transferred again.

Nothing is remembered for it: a tree that is kept has the file under the same path, and what is found is
hashed before it is believed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from airbridge.sync._trees import Entry, digests

if TYPE_CHECKING:
    from airbridge.sync._trees import TreeStore

__all__ = ["Contents"]


class Contents:
    """The files of all trees of a store, as they are now; not for long, trees come and go."""

    def __init__(self, store: TreeStore) -> None:
        self._trees = [str(path) for path in store.newest_first()]
        self._hashed: dict[tuple[int, int], Entry] = {}  # by device and inode: trees share files

    def find(self, path: str, entry: Entry) -> Path | None:
        """Return a file at ``path`` of any tree that holds ``entry``, read to be sure."""
        seen: set[int] = set()
        for tree in self._trees:
            candidate = f"{tree}/{path}"
            try:
                status = os.lstat(candidate)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size or status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            if self._read(candidate, status) == entry:
                return Path(candidate)
        return None

    def _read(self, file: str, status: os.stat_result) -> Entry | None:
        inode = (status.st_dev, status.st_ino)
        if inode not in self._hashed:
            sha256, _, size = digests(Path(file))
            self._hashed[inode] = Entry(sha256, size)
        return self._hashed[inode]
