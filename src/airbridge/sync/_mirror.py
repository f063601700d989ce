"""One pass of dag-sync: list, fetch what changed, make sure nothing moved meanwhile, publish.

A package is published only as the listing before *and* after the transfer described it. A bucket that
changes all the time is listed again a few times; a package that still moves then, or whose object cannot be
had, keeps its previous release while the others go ahead, and the pass reports it.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from airbridge.errors import IntegrityError
from airbridge.sync._index import Fact, Index
from airbridge.sync._keys import judge_key
from airbridge.sync._trees import Entry, StoreError, digests, seal, store_error
from airbridge.sync.store import name_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import structlog

    from airbridge.sync._rclone import Rclone
    from airbridge.sync._s3 import Bucket, Head, Listing, RemoteObject
    from airbridge.sync._settings import Settings
    from airbridge.sync._trees import TreeStore

__all__ = ["Mirror", "Outcome"]

MAX_ATTEMPTS = 4
"""How often a pass lists again because the bucket changed under it, before it holds what still moves."""

_PAUSE_SECONDS = 0.1  # before the second attempt; doubled for each one after: 0.7 s in all
_HELD_SECONDS = 10.0  # between tries to get an object that S3 lists but does not deliver as listed
_MAX_REFUSED_LINES = 50  # refused keys that get a log line of their own per pass
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass did.

    ``result``: ``unchanged`` (cheap poll), ``verified`` (compared in full, nothing to do), ``changed`` (a new
    tree, or the current one mended), ``partial`` (the same, but the packages in ``held`` keep an earlier
    release; the reason is their value). Sizes in bytes.
    """

    result: Literal["unchanged", "verified", "changed", "partial"]
    tree: str
    files: int
    added: int = 0
    changed: int = 0
    removed: int = 0
    mended: int = 0
    transferred_files: int = 0
    transferred_bytes: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Fetched:
    """What this pass has in staging, and what it could not have."""

    files: dict[str, tuple[Entry, Path]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    count: int = 0
    size: int = 0


class Mirror:
    """Mirrors one prefix into one store; call :meth:`start` once, then :meth:`run` for every pass."""

    def __init__(
        self,
        settings: Settings,
        store: TreeStore,
        bucket: Bucket,
        rclone: Rclone,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._store = store
        self._bucket = bucket
        self._rclone = rclone
        self._log = log
        self._index = Index(store.private / "index.json", settings.source)
        self._local: dict[str, Entry] = {}  # content of the current tree, as last published or read
        self._published = ""  # digest of the listing that the current tree shows, "" if none does
        self._held_at = ("", 0.0)  # digest of the listing with objects that cannot be had; when to try again
        self._refused_before: frozenset[str] = frozenset()
        self._last = Outcome("verified", "", 0)
        self._opaque_etags = False  # seen encryption under which no ETag can be checked: pin every object

    def start(self) -> None:
        """Read the index; the first pass must be a full one."""
        self._index.load()

    def run(self, *, full: bool) -> Outcome:
        """Do one pass; ``full`` re-reads every local file and believes nothing that was published before.

        Raises an :class:`airbridge.errors.AirbridgeError` when nothing could be done; the store is as it was.
        """
        listing = self._bucket.list()
        if not full and listing.digest == self._published:
            return Outcome("unchanged", self._last.tree, self._last.files, refused=self._last.refused)
        if not full and listing.digest == self._held_at[0] and time.monotonic() < self._held_at[1]:
            last = self._last
            return Outcome("partial", last.tree, last.files, refused=last.refused, held=last.held)
        try:
            return self._mirror(listing, full=full)
        except StoreError as error:
            self._make_room(error)
            raise
        except OSError as error:
            failure = store_error(error, self._store.root)
            self._make_room(failure)
            raise failure from error
        finally:
            with contextlib.suppress(OSError):  # both are tried again in the next pass
                self._store.clear_private()
                self._index.save()

    def _mirror(self, listing: Listing, *, full: bool) -> Outcome:
        current = self._store.current()
        if full:
            self._local = self._store.scan(current.path) if current else {}
        elif current is None:
            self._local = {}
        fetched = _Fetched()
        objects, refused = self._select(listing)
        moving: set[str] = set()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            self._fetch(objects, fetched)
            if current is not None and self._shows(objects):
                moving = set()  # nothing to publish, so nothing that could be half
                break
            after = self._bucket.list()
            before, (objects, refused) = objects, self._select(after)
            listing = after
            moving = {
                _package(item.path) for item in set(before.values()).symmetric_difference(objects.values())
            }
            if not moving:
                break
            if attempt < MAX_ATTEMPTS:
                time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
        held = dict.fromkeys(moving, f"still changing after {MAX_ATTEMPTS + 1} listings")
        held |= {_package(path): f"{path}: {why}" for path, why in fetched.failed.items() if path in objects}
        outcome = self._publish(objects, fetched, held, refused)
        self._published = "" if held else listing.digest
        self._held_at = (listing.digest if held and not moving else "", time.monotonic() + _HELD_SECONDS)
        self._index.facts = {path: fact for path, fact in self._index.facts.items() if path in objects}
        self._last = outcome
        return outcome

    def _make_room(self, error: StoreError) -> None:
        """When the disk is full, let go of the trees that stay for their age only."""
        if error.full:
            with contextlib.suppress(OSError):
                for tree in self._store.collect(self._settings.dag_sync_keep_trees, 0):
                    self._log.warning("tree collected", tree=tree, reason="no space left")

    # What belongs into the store

    def _select(self, listing: Listing) -> tuple[dict[str, RemoteObject], dict[str, int]]:
        """Return the objects that become files, by path, and how many keys were refused for which reason."""
        chosen: dict[str, RemoteObject] = {}
        refused: dict[str, str] = {}
        for item in listing.objects:  # sorted: a file comes before what would need it as a directory
            verdict = judge_key(item.path)
            if verdict.refused:
                refused[item.path] = verdict.refused
            elif verdict.mirror:
                if any(above in chosen for above in _ancestors(item.path)):
                    refused[item.path] = "below a file"
                else:
                    chosen[item.path] = item
        new = sorted(refused.keys() - self._refused_before)
        for path in new[:_MAX_REFUSED_LINES]:
            self._log.warning(
                "key refused", key=self._key(path), reason=refused[path], fix="delete or rename the object"
            )
        if len(new) > _MAX_REFUSED_LINES:
            self._log.warning("more keys refused", count=len(new) - _MAX_REFUSED_LINES)
        self._refused_before = frozenset(refused)
        counts: dict[str, int] = {}
        for reason in refused.values():
            counts[reason] = counts.get(reason, 0) + 1
        return chosen, counts

    def _shows(self, objects: Mapping[str, RemoteObject]) -> bool:
        """Tell whether the current tree holds exactly ``objects``."""
        return objects.keys() == self._local.keys() and all(
            self._index.knows(item, self._local[path]) for path, item in objects.items()
        )

    # Getting it

    def _fetch(self, objects: Mapping[str, RemoteObject], fetched: _Fetched) -> None:
        """Bring what is neither in the current tree nor in staging; failures go to ``fetched.failed``."""
        fetched.failed.clear()
        wanted = [
            item
            for path, item in objects.items()
            if not self._index.knows(item, self._local.get(path))
            and not (path in fetched.files and self._index.knows(item, fetched.files[path][0]))
        ]
        if not wanted:
            return
        need, free = sum(item.size for item in wanted), self._store.free_bytes()
        if need > free:
            raise StoreError.no_space(self._store.root, f"{need} bytes to fetch, {free} free")
        started = time.monotonic()
        pinned_all = self._opaque_etags
        pins = self._pin(wanted)
        staging = self._store.new_directory("staging")
        transfer = self._rclone.copy((item.path for item in wanted), staging, self._bucket.credentials())
        fetched.count += transfer.files
        fetched.size += transfer.size
        self._log.info(
            "transferred",
            files=transfer.files,
            bytes=transfer.size,
            asked=len(wanted),
            seconds=round(time.monotonic() - started, 3),
        )
        said = [*transfer.errors.values(), *transfer.general]
        if any("no space left on device" in line or "disk quota exceeded" in line for line in said):
            raise StoreError.no_space(self._store.root)
        for item in wanted:
            why = self._accept(item, staging / item.path, pins.get(item.path), fetched)
            if why:
                general = transfer.general[0] if transfer.general else ""
                fetched.failed[item.path] = transfer.errors.get(item.path) or general or why
        if self._opaque_etags and not pinned_all:
            self._fetch(objects, fetched)

    def _pin(self, wanted: list[RemoteObject]) -> dict[str, Head | None]:
        """Look up, before the transfer, the objects whose ETag is no digest (multipart, encrypted)."""
        return {
            item.path: self._bucket.head(item.path)
            for item in wanted
            if self._opaque_etags or not _MD5.fullmatch(item.etag)
        }

    def _accept(self, item: RemoteObject, file: Path, pin: Head | None, fetched: _Fetched) -> str:
        """Check one fetched file against the listing; return why it is not what was listed, or ""."""
        if not file.is_file() or file.is_symlink():
            return "S3 did not deliver it"
        sha256, md5, size = digests(file)
        if size != item.size:
            return f"{size} bytes came, {item.size} are listed"
        if md5 != item.etag:
            head = self._bucket.head(item.path)
            if head is None or head.etag != item.etag:
                return "it changed while it was fetched"
            if _MD5.fullmatch(item.etag) and not head.etag_is_opaque:
                return f"its content has MD5 {md5}, its ETag says {item.etag}"
            if head != pin:
                # No digest to check against: the object must be one and the same before and after.
                self._opaque_etags = self._opaque_etags or head.etag_is_opaque
                return (
                    "it changed while it was fetched" if pin else "its ETag cannot be checked without a pin"
                )
        seal(file)
        fetched.files[item.path] = (Entry(sha256, size), file)
        self._index.facts[item.path] = Fact(item, sha256)
        return ""

    # Showing it

    def _publish(
        self,
        objects: Mapping[str, RemoteObject],
        fetched: _Fetched,
        held: dict[str, str],
        refused: dict[str, int],
    ) -> Outcome:
        current = self._store.current()
        wanted: dict[str, Entry] = {}
        sources: dict[str, Path] = {}
        for path, entry in self._local.items():
            if current and (
                _package(path) in held or (path in objects and self._index.knows(objects[path], entry))
            ):
                wanted[path], sources[path] = entry, current.path / path
        for path, (entry, file) in fetched.files.items():
            if path in objects and _package(path) not in held and self._index.knows(objects[path], entry):
                wanted[path], sources[path] = entry, file
        absent = [path for path in objects if path not in wanted and _package(path) not in held]
        if absent:  # cannot be: what is neither local nor fetched has failed, and its package is held
            raise IntegrityError(
                f"{len(absent)} objects are neither in the store nor fetched, {absent[0]!r} first"
            )
        if current is None and held and not wanted:
            package, why = min(held.items())
            raise IntegrityError(
                f"nothing of {self._settings.source} could be fetched; {package}: {why}",
                fix="allow AWS_ACCESS_KEY_ID s3:GetObject there; nothing was published",
            )
        tree_hash = name_tree((path, entry.sha256) for path, entry in wanted.items())
        added = sorted(wanted.keys() - self._local.keys())
        removed = sorted(self._local.keys() - wanted.keys())
        changed = sorted(
            path for path in wanted.keys() & self._local.keys() if wanted[path] != self._local[path]
        )
        mended = 0
        if current is None or tree_hash != current.hash:
            self._store.build(tree_hash, wanted, sources)
            self._store.flip(tree_hash, added + changed)
            self._log_changes(added, changed, removed, wanted)
            self._log.info("flipped", old=current.hash if current else None, new=tree_hash, files=len(wanted))
            if not wanted:
                self._log.warning(
                    "the prefix holds no DAG file",
                    source=self._settings.source,
                    fix="publish a package, or correct DAG_BUCKET and ENVIRONMENT",
                )
        elif wanted != self._local:
            mended = self._store.mend(current.path, wanted, self._local, sources)
            self._log.error(
                "tree mended", tree=tree_hash, files=mended, first=(changed + added + removed)[0],
                fix="nobody but dag-sync may write the store: mount it read-only everywhere else",
            )  # fmt: skip
            added = changed = removed = []
        self._local = wanted
        for tree in self._store.collect(
            self._settings.dag_sync_keep_trees, self._settings.dag_sync_keep_seconds
        ):
            self._log.info("tree collected", tree=tree)
        for package, why in sorted(held.items()):
            self._log.error(
                "package held",
                package=package,
                reason=why,
                fix="it keeps its previous release; publish the package again",
            )
        done = len(added) + len(changed) + len(removed) + mended or current is None
        return Outcome(
            "partial" if held else "changed" if done else "verified",
            tree=tree_hash,
            files=len(wanted),
            added=len(added),
            changed=len(changed),
            removed=len(removed),
            mended=mended,
            transferred_files=fetched.count,
            transferred_bytes=fetched.size,
            refused=refused,
            held=held,
        )

    def _log_changes(
        self, added: list[str], changed: list[str], removed: list[str], wanted: Mapping[str, Entry]
    ) -> None:
        for operation, paths in (("added", added), ("changed", changed)):
            for path in paths:
                self._log.info(
                    operation, key=self._key(path), bytes=wanted[path].size, sha256=wanted[path].sha256
                )
        for path in removed:
            self._log.info("removed", key=self._key(path), bytes=self._local[path].size)

    def _key(self, path: str) -> str:
        """Return the object key of ``path``; what is not UTF-8 in it is escaped."""
        return (self._settings.prefix + path).encode("utf-8", "backslashreplace").decode()


def _package(path: str) -> str:
    return path.partition("/")[0]


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]
