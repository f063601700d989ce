"""Make a tree that this store does not have, because a DAG run needs it.

The document that the control plane wrote names every file and its S3 version. It is not trusted: its files
must give the tree's name, and every content is hashed. What any tree of the store has is linked, the rest is
read; the tree appears whole, beside the current one, which stays what it is.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airbridge.errors import AirbridgeError, IntegrityError, UnreachableError
from airbridge.sync._contents import Contents
from airbridge.sync._keys import judge_key
from airbridge.sync._parallel import in_parallel
from airbridge.sync._transfer import download_version
from airbridge.sync._trees import Entry, StoreError, link, store_error
from airbridge.sync.store import is_tree_hash, name_tree
from airbridge.tree_document import MAX_DOCUMENT_BYTES, document_key, read_document

if TYPE_CHECKING:
    from pathlib import Path

    import structlog

    from airbridge.sync._settings import Settings
    from airbridge.sync._trees import TreeStore
    from airbridge.sync.s3 import Bucket
    from airbridge.tree_document import TreeFile

__all__ = ["OnDemand", "UnknownTreeError"]

_LEASE_SECONDS: Final = 600.0
"""So long a tree that was asked for stays, whatever the rules say: the task that asked is about to use it."""

_MOST_REQUESTS: Final = 12
"""Requests at once: each holds a thread, and the container's few are for passes and rclone too."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class UnknownTreeError(AirbridgeError):
    """Neither the store nor the bucket knows the tree."""


@dataclass(slots=True)
class _Flight:
    """One tree that is being made, for all who wait for it."""

    landed: threading.Event = field(default_factory=threading.Event)
    fetched: int = 0
    error: AirbridgeError | None = None


class OnDemand:
    """Answers requests for trees, from any thread."""

    def __init__(
        self,
        settings: Settings,
        store: TreeStore,
        bucket: Bucket,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._store = store
        self._bucket = bucket
        self._log = log
        self._guard = threading.Lock()
        self._requests = threading.BoundedSemaphore(_MOST_REQUESTS)
        self._making = threading.Lock()  # one tree after the other: each uses several threads
        self._flights: dict[str, _Flight] = {}
        self._asked: dict[str, float] = {}  # when (monotonic) a tree was asked for last

    def leased(self) -> frozenset[str]:
        """Return the trees that somebody asked for a short while ago."""
        with self._guard:
            oldest = time.monotonic() - _LEASE_SECONDS
            self._asked = {tree_hash: at for tree_hash, at in self._asked.items() if at >= oldest}
            return frozenset(self._asked)

    def fetch(self, tree_hash: str) -> int:
        """Make sure that the store has the tree; return how many files had to be read from S3.

        Raises :class:`UnknownTreeError`, or another :class:`airbridge.errors.AirbridgeError` that says why
        the tree could not be made now. Who asks while it is being made waits for the same.
        """
        if not is_tree_hash(tree_hash):
            raise UnknownTreeError(f"{tree_hash[:80]!r} is not the name of a tree")
        if not self._requests.acquire(blocking=False):
            raise UnreachableError(f"{_MOST_REQUESTS} others ask for trees just now", fix="ask again")
        try:
            return self._fetch(tree_hash)
        finally:
            self._requests.release()

    def _fetch(self, tree_hash: str) -> int:
        with self._guard:
            # Before anything is looked at: from here on no pass removes the tree.
            self._asked[tree_hash] = time.monotonic()
            flight = self._flights.get(tree_hash)
            mine = flight is None
            if flight is None:
                flight = self._flights[tree_hash] = _Flight()
        if mine:
            self._fly(tree_hash, flight)
        else:
            flight.landed.wait()
        if flight.error is not None:
            raise flight.error
        return flight.fetched

    def _fly(self, tree_hash: str, flight: _Flight) -> None:
        try:
            with self._making:
                if not self._store.touch(tree_hash):
                    flight.fetched = self._make(tree_hash)
        except AirbridgeError as error:
            flight.error = error
        except OSError as error:
            flight.error = store_error(error, self._store.root)
        except BaseException as error:
            flight.error = AirbridgeError(f"{type(error).__name__}: {error}", fix="report this")
            raise
        finally:
            with self._guard:
                del self._flights[tree_hash]
                if flight.error is not None:
                    self._asked.pop(tree_hash, None)
            flight.landed.set()

    def _make(self, tree_hash: str) -> int:
        started = time.monotonic()
        got = self._bucket.get(
            document_key(self._settings.environment, tree_hash), max_bytes=MAX_DOCUMENT_BYTES // 2
        )
        if got is None or got.body is None:
            raise UnknownTreeError(
                f"no tree {tree_hash} in this store, and no document of it in {self._settings.source}",
                fix="DAG_SYNC_PUBLISH_TREES=true on the control plane's dag-sync; old trees are forgotten",
            )
        files = _checked(read_document(got.body, tree_hash).files, tree_hash)
        entries = {path: Entry(file.sha256, file.size) for path, file in files.items()}
        with self._store.workspace("fetch") as workspace:
            sources = {path: workspace / str(number) for number, path in enumerate(files)}
            missing = self._link(entries, sources)
            need, free = sum(entries[path].size for path in missing), self._store.free_bytes()
            if need > free:
                raise StoreError.no_space(self._store.root, f"{need} bytes to fetch, {free} free")

            def get(path: str) -> str:
                key = self._settings.prefix + path
                version = files[path].version_id
                return download_version(self._bucket, key, version, entries[path], sources[path])

            for path, why in in_parallel(get, missing):
                if why:
                    raise IntegrityError(
                        f"tree {tree_hash} cannot be made: {path}: {why}",
                        fix="versions of objects must stay for as long as DAG runs need them",
                    )
            self._store.build(tree_hash, entries, sources)
        self._store.touch(tree_hash)
        self._log.info(
            "tree fetched",
            tree=tree_hash,
            files=len(files),
            transferred_files=len(missing),
            seconds=round(time.monotonic() - started, 3),
        )
        return len(missing)

    def _link(self, entries: dict[str, Entry], sources: dict[str, Path]) -> list[str]:
        """Link what the store has into place, so that no pass can take it away; return the other paths."""
        missing: list[str] = []
        with self._store.guard:
            contents = Contents(self._store)
            for path, entry in entries.items():
                found = contents.find(path, entry)
                if found is None:
                    missing.append(path)
                else:
                    link(found, sources[path])
        return missing


def _checked(files: tuple[TreeFile, ...], tree_hash: str) -> dict[str, TreeFile]:
    """Return the files by path, every one of which can be a file of a tree of that name."""
    found = {file.path: file for file in files}
    for path, file in found.items():
        parts = path.split("/")
        if not judge_key(path).mirror or not _SHA256.fullmatch(file.sha256) or file.size < 0:
            raise IntegrityError(
                f"the document of tree {tree_hash} names {path!r}, which is no file of a tree"
            )
        if any("/".join(parts[:length]) in found for length in range(1, len(parts))):
            raise IntegrityError(f"the document of tree {tree_hash} names {path!r}, which lies below a file")
    if len(found) != len(files) or name_tree((path, f.sha256) for path, f in found.items()) != tree_hash:
        raise IntegrityError(f"the document of tree {tree_hash} is of other files")
    return found
