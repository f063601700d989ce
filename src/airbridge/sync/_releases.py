"""Know which release each package shows, from its manifest (:mod:`airbridge.manifest`).

A manifest is read once for each write of it, in parallel, and kept without its text. It is the commit of a
release, so whichever manifest is there when it is asked for is a whole release; nothing else of the package's
prefix has to stand still for it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airbridge.errors import AirbridgeError, IntegrityError
from airbridge.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, read_manifest
from airbridge.sync._index import Fact
from airbridge.sync._keys import judge_key
from airbridge.sync._parallel import in_parallel
from airbridge.sync._trees import Entry, seal
from airbridge.sync.s3 import NoAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airbridge.sync._index import Index
    from airbridge.sync.s3 import Bucket, RemoteObject

__all__ = ["MD5", "Named", "Release", "Releases", "Verdict", "release_in"]

MD5 = re.compile(r"[0-9a-f]{32}")
"""An ETag that can be the MD5 of its object."""


class Named(NamedTuple):
    """A file as a manifest names it: content, and where S3 has it."""

    entry: Entry
    etag: str
    version: str


@dataclass(frozen=True, slots=True)
class Release:
    """A release of a package: its id, and its files by path below the environment, the manifest included."""

    package: str
    id: str
    published_by: str
    files: Mapping[str, Named]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a package's ``metadata.json`` is: a ``release``, none (a plain file), or why it cannot be used.

    ``moved``: it was written or removed since it was listed, and is no manifest: list again.
    """

    release: Release | None = None
    held: str = ""
    moved: bool = False


_PLAIN = Verdict()


class Releases:
    """The release of every package, as its manifest says."""

    def __init__(self, bucket: Bucket, prefix: str, index: Index) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._index = index
        # By package: the object that was read, and what it said. What may heal by itself is not kept.
        self._read: dict[str, tuple[RemoteObject, Verdict]] = {}

    def read(
        self,
        objects: Mapping[str, RemoteObject],
        tree: Path | None,
        local: Mapping[str, Entry],
        fetched: dict[str, tuple[Entry, Path]],
        staging: Path,
    ) -> dict[str, Verdict]:
        """Return the verdict on every package that has a manifest's object among ``objects``, by package.

        ``tree`` is the current tree and ``local`` what it holds. What had to be read from S3 is put into
        ``staging`` and noted in ``fetched``, because it belongs into the next tree.
        """
        manifests = {
            path.partition("/")[0]: item
            for path, item in objects.items()
            if path.endswith(f"/{MANIFEST_NAME}") and path.count("/") == 1
        }
        self._read = {package: kept for package, kept in self._read.items() if package in manifests}
        verdicts: dict[str, Verdict] = {}
        unread: list[tuple[str, RemoteObject]] = []
        for package, item in manifests.items():
            kept = self._read.get(package)
            if kept is not None and kept[0] == item:
                verdicts[package] = kept[1]
            elif tree is not None and self._index.knows(item, local.get(item.path)):
                body = (tree / item.path).read_bytes()
                if Entry(hashlib.sha256(body).hexdigest(), len(body)) == local[item.path]:
                    version = self._index.versions.get((item.path, local[item.path].sha256), "")
                    verdicts[package] = self._judge(package, body, item.etag, version)
                    self._read[package] = (item, verdicts[package])
                else:
                    unread.append((package, item))
            else:
                unread.append((package, item))

        def ask(one: tuple[str, RemoteObject]) -> Verdict:
            return self._ask(*one, fetched, staging)

        for (package, _), verdict in in_parallel(ask, unread):
            verdicts[package] = verdict
        return verdicts

    def _ask(
        self, package: str, item: RemoteObject, fetched: dict[str, tuple[Entry, Path]], staging: Path
    ) -> Verdict:
        try:
            got = self._bucket.get(self._prefix + item.path, max_bytes=MAX_MANIFEST_BYTES + 1)
        except NoAnswerError:
            raise
        except AirbridgeError as error:
            return Verdict(held=f"{item.path}: {error.what}")
        if got is None or got.body is None:
            return Verdict(moved=True)
        body, head = got.body, got.head
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if MD5.fullmatch(head.etag) and not head.etag_is_opaque and md5 != head.etag:
            return Verdict(held=f"{item.path}: its content has MD5 {md5}, its ETag says {head.etag}")
        verdict = self._judge(package, body, head.etag, head.version)
        as_listed = (head.etag, len(body)) == (item.etag, item.size)
        if verdict.release is None and not as_listed:
            return Verdict(moved=True)
        entry = Entry(hashlib.sha256(body).hexdigest(), len(body))
        file = staging / hashlib.sha256(f"{item.path} {entry.sha256}".encode()).hexdigest()
        if not file.exists():
            file.write_bytes(body)
            seal(file)
        fetched[item.path] = (entry, file)
        if head.version:
            self._index.versions[item.path, entry.sha256] = head.version
        if as_listed:
            self._index.facts[item.path] = Fact(item, entry.sha256)
            self._read[package] = (item, verdict)
        return verdict

    def _judge(self, package: str, body: bytes, etag: str, version: str) -> Verdict:
        try:
            release = release_in(body, package, etag, version)
        except IntegrityError as error:
            return Verdict(held=error.what)
        return Verdict(release) if release else _PLAIN


def release_in(body: bytes, package: str, etag: str, version: str) -> Release | None:
    """Return the release that ``body``, a ``metadata.json``, tells of; ``None`` when it is no manifest.

    Raises :class:`airbridge.errors.IntegrityError` when it names what cannot be a file of the package.
    """
    manifest = read_manifest(body, package)
    if manifest is None:
        return None
    path = f"{package}/{MANIFEST_NAME}"
    files = {path: Named(Entry(hashlib.sha256(body).hexdigest(), len(body)), etag, version)}
    for file in manifest.files:
        name = f"{package}/{file.path}"
        judged = judge_key(name)
        if not judged.mirror:
            why = judged.refused or "it is left out of every tree"
            raise IntegrityError(f"{path} is no manifest: it names {file.path!r}: {why}")
        files[name] = Named(Entry(file.sha256, file.size), file.etag, file.version_id)
    return Release(package, manifest.release, manifest.published_by, files)
