"""Bring what the next tree needs and the store does not have.

A content that any tree of the store has is linked from there. An object that still is what the listing, or
the manifest, says comes through rclone; one that a manifest names and that was replaced since (a publish
under way, a rollback) is read by its S3 version. Nothing is believed that was not hashed here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airbridge.errors import AirbridgeError
from airbridge.sync._contents import Contents
from airbridge.sync._index import Fact
from airbridge.sync._parallel import in_parallel
from airbridge.sync._releases import MD5
from airbridge.sync._trees import Entry, StoreError, digests, seal
from airbridge.sync.s3 import NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import structlog

    from airbridge.sync._index import Index
    from airbridge.sync._rclone import Rclone, Transfer
    from airbridge.sync._releases import Named
    from airbridge.sync._settings import Settings
    from airbridge.sync._trees import TreeStore
    from airbridge.sync.s3 import Bucket, Head, RemoteObject

__all__ = ["Fetched", "Fetcher", "download_version"]

_NOT_DELIVERED: Final = "S3 did not deliver it"


@dataclass(slots=True)
class Fetched:
    """What a pass has beside the current tree (content and where it lies), and what it could not have."""

    staging: Path
    files: dict[str, tuple[Entry, Path]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    count: int = 0
    size: int = 0


class Fetcher:
    """Fetches for one mirror."""

    def __init__(
        self,
        settings: Settings,
        store: TreeStore,
        bucket: Bucket,
        rclone: Rclone,
        *,
        index: Index,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._store = store
        self._bucket = bucket
        self._rclone = rclone
        self._index = index
        self._log = log
        self._opaque_etags = False  # seen encryption under which no ETag can be checked: pin every object

    def fetch(
        self,
        plain: Mapping[str, RemoteObject],
        named: Mapping[str, Named],
        listed: Mapping[str, RemoteObject],
        local: Mapping[str, Entry],
        fetched: Fetched,
    ) -> None:
        """Bring what is neither in the current tree, which holds ``local``, nor in ``fetched``.

        ``plain`` files are what their object is, ``named`` ones what a manifest says, wherever S3 has it.
        Failures go to ``fetched.failed``.
        """
        fetched.failed.clear()
        wanted = [
            item
            for path, item in plain.items()
            if not self._index.knows(item, local.get(path))
            and not (path in fetched.files and self._index.knows(item, fetched.files[path][0]))
        ]
        missing = {
            path: file
            for path, file in named.items()
            if local.get(path) != file.entry
            and not (path in fetched.files and fetched.files[path][0] == file.entry)
        }
        if missing:
            missing = self._reuse(missing, local, fetched)
        if not wanted and not missing:
            return
        need = sum(item.size for item in wanted) + sum(file.entry.size for file in missing.values())
        if need > (free := self._store.free_bytes()):
            raise StoreError.no_space(self._store.root, f"{need} bytes to fetch, {free} free")
        pinned_all = self._opaque_etags
        as_named = {
            path: item
            for path, file in missing.items()
            if (item := listed.get(path)) and (item.etag, item.size) == (file.etag, file.entry.size)
        }
        if wanted or as_named:
            missing = self._copy(wanted, as_named, missing, fetched)
        if missing:
            self._download(missing, fetched)
        if self._opaque_etags and not pinned_all:
            self.fetch(plain, named, listed, local, fetched)

    def _reuse(
        self, missing: Mapping[str, Named], local: Mapping[str, Entry], fetched: Fetched
    ) -> dict[str, Named]:
        """Take what some tree of the store has; return what none has."""
        contents = Contents(self._store)
        current = self._store.current()
        moved = {entry.sha256: path for path, entry in local.items()} if current else {}
        absent: dict[str, Named] = {}
        for path, file in missing.items():
            found = contents.find(path, file.entry)
            other = moved.get(file.entry.sha256)
            if found is None and current and other and local[other] == file.entry:
                found = contents.find(other, file.entry)
            if found is None:
                absent[path] = file
            else:
                fetched.files[path] = (file.entry, found)
        return absent

    # Through rclone: what the newest version of an object is

    def _copy(
        self,
        wanted: list[RemoteObject],
        as_named: Mapping[str, RemoteObject],
        missing: Mapping[str, Named],
        fetched: Fetched,
    ) -> dict[str, Named]:
        """Copy plain and named objects; return the named ones that turned out to be something else."""
        pins = self._pin(wanted)
        items = [*wanted, *as_named.values()]
        target, transfer = self._transfer(items, fetched)
        for item in wanted:
            why = self._accept(item, target / item.path, pins.get(item.path), fetched)
            if why:
                general = transfer.general[0] if transfer.general else ""
                fetched.failed[item.path] = transfer.errors.get(item.path) or general or why
        left = dict(missing)
        for path in as_named:
            file = target / path
            if not _why_not(file, missing[path].entry):
                seal(file)
                fetched.files[path] = (missing[path].entry, file)
                del left[path]
        return left

    def _transfer(self, items: list[RemoteObject], fetched: Fetched) -> tuple[Path, Transfer]:
        started = time.monotonic()
        target = self._store.new_directory("staging")
        transfer = self._rclone.copy((item.path for item in items), target, self._bucket.credentials())
        fetched.count += transfer.files
        fetched.size += transfer.size
        self._log.info(
            "transferred",
            files=transfer.files,
            bytes=transfer.size,
            asked=len(items),
            seconds=round(time.monotonic() - started, 3),
        )
        said = [*transfer.errors.values(), *transfer.general]
        if any("no space left on device" in line or "disk quota exceeded" in line for line in said):
            raise StoreError.no_space(self._store.root)
        return target, transfer

    def _pin(self, wanted: list[RemoteObject]) -> dict[str, Head | None]:
        """Look up, before the transfer, the objects whose ETag is no digest (multipart, encrypted)."""
        return {
            item.path: self._bucket.head(self._settings.prefix + item.path)
            for item in wanted
            if self._opaque_etags or not MD5.fullmatch(item.etag)
        }

    def _accept(self, item: RemoteObject, file: Path, pin: Head | None, fetched: Fetched) -> str:
        """Check one fetched file against the listing; return why it is not what was listed, or ""."""
        if not file.is_file() or file.is_symlink():
            return _NOT_DELIVERED
        sha256, md5, size = digests(file)
        if size != item.size:
            return f"{size} bytes came, {item.size} are listed"
        if md5 != item.etag:
            head = self._bucket.head(self._settings.prefix + item.path)
            if head is None or head.etag != item.etag:
                return "it changed while it was fetched"
            if MD5.fullmatch(item.etag) and not head.etag_is_opaque:
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

    # By version: what a manifest names, whatever the object is by now

    def _download(self, missing: Mapping[str, Named], fetched: Fetched) -> None:
        started = time.monotonic()
        target = self._store.new_directory("versions")
        places = {path: target / str(number) for number, path in enumerate(missing)}

        def get(path: str) -> str:
            file = missing[path]
            key = self._settings.prefix + path
            return download_version(self._bucket, key, file.version, file.entry, places[path])

        for path, why in in_parallel(get, missing):
            if why:
                fetched.failed[path] = why
                continue
            fetched.files[path] = (missing[path].entry, places[path])
            fetched.count += 1
            fetched.size += missing[path].entry.size
        self._log.info(
            "versions read",
            files=len(missing) - len(fetched.failed.keys() & missing.keys()),
            asked=len(missing),
            seconds=round(time.monotonic() - started, 3),
        )


def download_version(bucket: Bucket, key: str, version: str, entry: Entry, target: Path) -> str:
    """Write one version of an object to ``target``, sealed; return why it is not ``entry``, or "".

    Raises :class:`airbridge.sync.s3.NoAnswerError` when S3 does not answer, so that nobody waits once for
    each file.
    """
    what = f"its version {version}" if version else "it"
    try:
        # One byte more tells a longer object; only S3 itself knows how much longer.
        head = bucket.download(key, target, version=version, max_bytes=entry.size + 1)
    except NoAnswerError:
        raise
    except AirbridgeError as error:
        return error.what
    if head is None:
        return f"{what} is not in S3"
    if why := _why_not(target, entry):
        return f"{what}: {why}"
    seal(target)
    return ""


def _why_not(file: Path, entry: Entry) -> str:
    """Return why ``file`` is not ``entry``, or ""."""
    if not file.is_file() or file.is_symlink():
        return _NOT_DELIVERED
    sha256, _, size = digests(file)
    if size != entry.size:
        return f"it has {'more' if size > entry.size else size} bytes, {entry.size} are named"
    if sha256 != entry.sha256:
        return f"its content has SHA-256 {sha256}, {entry.sha256} is named"
    return ""
