"""One pass of dag-sync: list, read the manifests, fetch what is missing, publish.

A package with a manifest (:mod:`airbridge.manifest`) shows exactly the files that it names, whatever else
lies or moves below its prefix. One without is published only as the listing before *and* after the transfer
described it; a bucket that changes all the time is listed again a few times. A package that still moves then,
whose object cannot be had, or whose manifest lies, keeps its previous release while the others go ahead, and
the pass reports it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from airbridge.errors import IntegrityError
from airbridge.manifest import MANIFEST_NAME
from airbridge.sync._documents import Documents
from airbridge.sync._index import Index
from airbridge.sync._references import NeededTrees
from airbridge.sync._releases import Named, Release, Releases, release_in
from airbridge.sync._selection import Selection
from airbridge.sync._transfer import Fetched, Fetcher
from airbridge.sync._trees import Entry, StoreError, store_error
from airbridge.sync.store import name_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import structlog

    from airbridge.sync._rclone import Rclone
    from airbridge.sync._settings import Settings
    from airbridge.sync._trees import TreeStore
    from airbridge.sync.s3 import Bucket, Listing, RemoteObject
    from airbridge.sync.store import Tree

__all__ = ["Mirror", "Outcome"]

MAX_ATTEMPTS = 4
"""How often a pass lists again because the bucket changed under it, before it holds what still moves."""

WITHOUT_REFERENCES_SECONDS = 7 * 86400
"""While nobody says which trees DAG runs need, all stay that were used within so many seconds.

Longer than a weekend without the control plane, and still an end.
"""

_PAUSE_SECONDS = 0.1  # before the second attempt; doubled for each one after: 0.7 s in all
_HELD_SECONDS = 10.0  # between tries to get an object that S3 lists but does not deliver as listed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass did.

    ``result``: ``unchanged`` (cheap poll), ``verified`` (compared in full, nothing to do), ``changed`` (a new
    tree, or the current one mended), ``partial`` (the same, but the packages in ``held`` keep an earlier
    release; the reason is their value). ``drift``: objects that no manifest of their package names. Sizes in
    bytes.
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
    drift: int = 0
    held: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one listing asks for.

    ``plain`` objects become files as they are, ``named`` files are those of ``releases``. Packages in
    ``held`` cannot be planned for, and those in ``moved`` changed while their manifest was read.
    """

    digest: str
    objects: Mapping[str, RemoteObject]
    plain: Mapping[str, RemoteObject]
    named: Mapping[str, Named]
    releases: Mapping[str, Release]
    held: Mapping[str, str]
    moved: frozenset[str]
    refused: Mapping[str, int]
    drift: int

    def unmanaged(self, paths: Iterable[str]) -> list[str]:
        """Return those of ``paths`` that no manifest speaks for."""
        return [
            path
            for path in paths
            if (package := _package(path)) not in self.releases and package not in self.held
        ]


class Mirror:
    """Mirrors one prefix into one store; call :meth:`start` once, then :meth:`run` for every pass."""

    def __init__(
        self,
        settings: Settings,
        store: TreeStore,
        bucket: Bucket,
        rclone: Rclone,
        log: structlog.typing.FilteringBoundLogger,
        *,
        leased: Callable[[], frozenset[str]] = frozenset,
        count_document: Callable[[str], None] = lambda _result: None,
    ) -> None:
        """Prepare; ``leased`` trees are never collected, ``count_document`` hears of each tree document."""
        self._settings = settings
        self._store = store
        self._bucket = bucket
        self._log = log
        self._index = Index(store.private / "index.json", settings.source)
        self._selection = Selection(settings.prefix, log)
        self._manifests = Releases(bucket, settings.prefix, self._index)
        self._fetcher = Fetcher(settings, store, bucket, rclone, index=self._index, log=log)
        self._needed = NeededTrees(settings, bucket, log)
        self._leased = leased
        self.documents = Documents(settings, bucket, self._index, log=log, count=count_document)
        self._local: dict[str, Entry] = {}  # content of the current tree, as last published or read
        self._shown: dict[str, Release] = {}  # what the current tree shows, of packages with a manifest
        self._published = ""  # digest of the listing that the current tree shows, "" if none does
        self._held_at = ("", 0.0)  # digest of the listing with objects that cannot be had; when to try again
        self._last = Outcome("verified", "", 0)

    def start(self) -> None:
        """Read the index; the first pass must be a full one."""
        self._index.load()

    def run(self, *, full: bool) -> Outcome:
        """Do one pass; ``full`` re-reads every local file and believes nothing that was published before.

        Raises an :class:`airbridge.errors.AirbridgeError` when nothing could be done; the store is as it was.
        """
        listing = self._bucket.list()
        last = self._last
        if not full and listing.digest == self._published:
            self._document(last.tree, self._local, self._shown)
            return Outcome("unchanged", last.tree, last.files, refused=last.refused, drift=last.drift)
        if not full and listing.digest == self._held_at[0] and time.monotonic() < self._held_at[1]:
            self._document(last.tree, self._local, self._shown)
            return Outcome(
                "partial", last.tree, last.files, refused=last.refused, drift=last.drift, held=last.held
            )
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
            self._local, self._shown = {}, {}
        fetched = Fetched(self._store.new_directory("staging"))
        moving: set[str] = set()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            plan = self._plan(listing, current, fetched)
            self._fetcher.fetch(plan.plain, plan.named, plan.objects, self._local, fetched)
            moving = set(plan.moved)
            if not moving and current is not None and self._shows(plan):
                break  # nothing to publish that could be half: a release is whole whatever moves
            listing = self._bucket.list()
            moving |= self._moving(plan, listing)
            if not moving:
                break
            if attempt < MAX_ATTEMPTS:
                time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
        held = dict(plan.held)
        held |= dict.fromkeys(moving, f"still changing after {MAX_ATTEMPTS + 1} listings")
        held |= {
            _package(path): f"{path}: {why}"
            for path, why in fetched.failed.items()
            if path in plan.plain or path in plan.named
        }
        outcome = self._publish(plan, fetched, held)
        self._published = "" if held else plan.digest
        self._held_at = (plan.digest if held and not moving else "", time.monotonic() + _HELD_SECONDS)
        self._forget(plan)
        self._last = outcome
        return outcome

    def _make_room(self, error: StoreError) -> None:
        """When the disk is full, let go of the trees that stay for their age only."""
        if error.full:
            with contextlib.suppress(OSError):
                for tree in self._store.collect(self._settings.dag_sync_keep_trees, 0, self._spared):
                    self._log.warning("tree collected", tree=tree, reason="no space left")

    # What belongs into the store

    def _plan(self, listing: Listing, current: Tree | None, fetched: Fetched) -> _Plan:
        objects, refused = self._selection.choose(listing.objects)
        verdicts = self._manifests.read(
            objects, current.path if current else None, self._local, fetched.files, fetched.staging
        )
        releases = {package: verdict.release for package, verdict in verdicts.items() if verdict.release}
        held = {package: verdict.held for package, verdict in verdicts.items() if verdict.held}
        named: dict[str, Named] = {}
        for release in releases.values():
            named.update(release.files)
        return _Plan(
            digest=listing.digest,
            objects=objects,
            plain={
                path: item
                for path, item in objects.items()
                if (package := _package(path)) not in releases and package not in held
            },
            named=named,
            releases=releases,
            held=held,
            moved=frozenset(package for package, verdict in verdicts.items() if verdict.moved),
            refused=refused,
            drift=self._selection.count_drift(objects, releases),
        )

    def _shows(self, plan: _Plan) -> bool:
        """Tell whether the current tree holds exactly the plain objects of ``plan``, beside its releases."""
        unmanaged = plan.unmanaged(self._local)
        return plan.plain.keys() == set(unmanaged) and all(
            self._index.knows(item, self._local[path]) for path, item in plan.plain.items()
        )

    def _moving(self, plan: _Plan, after: Listing) -> set[str]:
        """Return the packages without a manifest that are not what they were when ``plan`` was made."""
        objects, _ = self._selection.choose(after.objects)
        now = {objects[path] for path in plan.unmanaged(objects)}
        return {_package(item.path) for item in now.symmetric_difference(plan.plain.values())}

    def _forget(self, plan: _Plan) -> None:
        manifests = {f"{package}/{MANIFEST_NAME}" for package in plan.releases}
        listed = plan.plain.keys() | (manifests & plan.objects.keys())
        held = {path for path in self._index.facts if _package(path) in plan.held}

        def is_local(path: str, sha256: str) -> bool:
            entry = self._local.get(path)
            return entry is not None and entry.sha256 == sha256

        self._index.forget(listed | held, is_local)

    # Showing it

    def _publish(self, plan: _Plan, fetched: Fetched, held: dict[str, str]) -> Outcome:
        current = self._store.current()
        wanted: dict[str, Entry] = {}
        sources: dict[str, Path] = {}

        def belongs(path: str, entry: Entry) -> bool:
            named = plan.named.get(path)
            if named is not None:
                return named.entry == entry
            return path in plan.plain and self._index.knows(plan.plain[path], entry)

        for path, entry in self._local.items():
            if current and (_package(path) in held or belongs(path, entry)):
                wanted[path], sources[path] = entry, current.path / path
        for path, (entry, file) in fetched.files.items():
            if _package(path) not in held and belongs(path, entry):
                wanted[path], sources[path] = entry, file
        absent = [
            path for path in (*plan.plain, *plan.named) if path not in wanted and _package(path) not in held
        ]
        if absent:  # cannot be: what is neither local nor fetched has failed, and its package is held
            raise IntegrityError(
                f"{len(absent)} objects are neither in the store nor fetched, {absent[0]!r} first"
            )
        if current is None and held and not wanted:
            package, why = min(held.items())
            raise IntegrityError(
                f"nothing of {self._settings.source} could be fetched; {package}: {why}",
                fix="publish it again, or allow AWS_ACCESS_KEY_ID s3:GetObject there; nothing was published",
            )
        tree_hash = name_tree((path, entry.sha256) for path, entry in wanted.items())
        added = sorted(wanted.keys() - self._local.keys())
        removed = sorted(self._local.keys() - wanted.keys())
        changed = sorted(
            path for path in wanted.keys() & self._local.keys() if wanted[path] != self._local[path]
        )
        mended = 0
        releases = self._releases_shown(plan, held, current, wanted)
        if current is None or tree_hash != current.hash:
            self._store.build(tree_hash, wanted, sources)
            self._document(tree_hash, wanted, releases)
            self._store.flip(tree_hash, added + changed)
            self._log_changes(added, changed, removed, wanted)
            self._log_releases(releases)
            self._log.info("flipped", old=current.hash if current else None, new=tree_hash, files=len(wanted))
            if not wanted:
                self._log.warning(
                    "the prefix holds no DAG file",
                    source=self._settings.source,
                    fix="publish a package, or correct DAG_BUCKET and ENVIRONMENT",
                )
        else:
            if wanted != self._local:
                mended = self._store.mend(current.path, wanted, self._local, sources)
                self._log.error(
                    "tree mended", tree=tree_hash, files=mended, first=(changed + added + removed)[0],
                    fix="nobody but dag-sync may write the store: mount it read-only everywhere else",
                )  # fmt: skip
                added = changed = removed = []
            self._document(tree_hash, wanted, releases)
        self._local, self._shown = wanted, releases
        self._collect()
        for package, why in sorted(held.items()):
            self._log.error(
                "package held",
                package=package,
                reason=why,
                fix="it keeps its previous release; publish the package again, or roll it back",
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
            refused=plan.refused,
            drift=plan.drift,
            held=held,
        )

    def _releases_shown(
        self, plan: _Plan, held: Mapping[str, str], current: Tree | None, wanted: Mapping[str, Entry]
    ) -> dict[str, Release]:
        """Return the release of each package in the tree to be; a held one keeps what it shows."""
        shown = {package: release for package, release in plan.releases.items() if package not in held}
        for package in held:
            path = f"{package}/{MANIFEST_NAME}"
            kept = self._shown.get(package)
            if kept is None and current is not None and path in wanted:
                version = self._index.versions.get((path, wanted[path].sha256), "")
                with contextlib.suppress(IntegrityError, OSError):  # then its versions are looked up
                    kept = release_in((current.path / path).read_bytes(), package, "", version)
            if kept is not None and path in wanted:
                shown[package] = kept
        return shown

    def _document(self, tree_hash: str, files: Mapping[str, Entry], releases: Mapping[str, Release]) -> None:
        if tree_hash and self.documents.due(tree_hash):
            self.documents.write(tree_hash, files, releases)

    def _collect(self) -> None:
        keep, seconds = self._settings.dag_sync_keep_trees, self._settings.dag_sync_keep_seconds
        if not self._store.removable(keep, seconds):
            return  # the references are not asked for when nothing depends on them
        if self._needed.get() is None:
            seconds = max(seconds, WITHOUT_REFERENCES_SECONDS)
        for tree in self._store.collect(keep, seconds, self._spared):
            self._log.info("tree collected", tree=tree)

    def _spared(self) -> frozenset[str]:
        return (self._needed.known or frozenset()) | self._leased()

    def _log_changes(
        self, added: list[str], changed: list[str], removed: list[str], wanted: Mapping[str, Entry]
    ) -> None:
        key = self._selection.key
        for operation, paths in (("added", added), ("changed", changed)):
            for path in paths:
                self._log.info(operation, key=key(path), bytes=wanted[path].size, sha256=wanted[path].sha256)
        for path in removed:
            self._log.info("removed", key=key(path), bytes=self._local[path].size)

    def _log_releases(self, releases: Mapping[str, Release]) -> None:
        for package, release in sorted(releases.items()):
            before = self._shown.get(package)
            if before is None or before.id != release.id:
                self._log.info(
                    "release shown",
                    package=package,
                    release=release.id,
                    before=before.id if before else None,
                    published_by=release.published_by,
                )


def _package(path: str) -> str:
    return path.partition("/")[0]
