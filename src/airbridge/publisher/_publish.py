"""Publish a release: files first, the manifest last, so that a publish that dies changes nothing.

Files are uploaded beside what readers see, because readers follow the manifest to exact versions. The
manifest is written on the condition that it still is the one that was read; who loses that race has changed
nothing.
Objects that no manifest names any more are deleted afterwards; should that fail, the next publish does it.

A package without a manifest is shown as it lies in the bucket, so it gets one before anything is uploaded: of
exactly the files that are there. It is a release like any other, and can be rolled back to.
"""

from __future__ import annotations

import getpass
import hashlib
import socket
import unicodedata
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import airbridge
from airbridge.errors import AirbridgeError, RefusedError
from airbridge.manifest import (
    MANIFEST_NAME,
    MAX_FILE_BYTES,
    Manifest,
    ManifestFile,
    new_release_id,
    read_manifest,
)
from airbridge.publisher._catalog import RemotePackage, read_catalog, read_claims
from airbridge.publisher._files import LocalFile
from airbridge.publisher._plan import Plan, make_plan, reusable
from airbridge.publisher._s3 import LostRaceError
from airbridge.publisher._source import read_source
from airbridge.publisher._validate import Checks, Validation, validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.publisher._files import Snapshot
    from airbridge.publisher._s3 import Store, StoredVersion

__all__ = [
    "TOOL",
    "InvalidReleaseError",
    "Published",
    "check_clock",
    "lost_race",
    "publish",
    "publish_made",
    "stamp",
    "whoami",
]

TOOL: Final = f"airflow-dag-publisher/{airbridge.__version__}"

_WARN_SKEW: Final = timedelta(seconds=30)
_MAX_SKEW: Final = timedelta(minutes=5)  # releases are ordered by time; S3 itself refuses from 15 minutes on
_MAX_NAME: Final = 200


class InvalidReleaseError(AirbridgeError):
    """The release was looked at and refused; nothing was written."""

    def __init__(self, package: str, validation: Validation) -> None:
        errors = validation.errors
        first = errors[0]
        place = f"{first.file}:{first.line}: " if first.line else f"{first.file}: " if first.file else ""
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        super().__init__(
            f"the release of {package} has errors: {place}{first.code} {first.message}{more}", fix=first.hint
        )
        self.validation = validation


@dataclass(slots=True)
class Published:
    """The result of a publish."""

    package: str
    outcome: str
    """``published``, ``unchanged`` (nothing had to be written), ``healed`` (only leftovers were removed), or
    ``planned`` (a dry run)."""
    release: str | None
    replaces: str | None
    uploaded: list[str]
    reused: int
    deleted: list[str]
    bytes_uploaded: int
    dags: list[str]
    validation: Validation
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        document = asdict(self)
        del document["validation"]
        document["findings"] = [found.to_json() for found in self.validation.findings]
        return document


def whoami(name: str | None = None) -> str:
    """Return who publishes, for the manifest: ``name``, or user and host."""
    if not name:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a uid without a name, as in many CI containers
            user = "unknown"
        name = f"{user}@{socket.gethostname()}"
    printable = "".join(c for c in name if unicodedata.category(c)[0] not in {"C", "Z"} or c == " ")
    return printable.strip()[:_MAX_NAME] or "unknown"


def check_clock(store: Store) -> list[str]:
    """Return a warning when this machine's clock is off; :class:`RefusedError` when it is far off."""
    skew = store.skew
    if skew is None or abs(skew) < _WARN_SKEW:
        return []
    seconds = round(abs(skew).total_seconds())
    text = f"this machine's clock is {seconds} s {'behind' if skew > timedelta(0) else 'ahead of'} S3's"
    if abs(skew) > _MAX_SKEW:
        raise RefusedError(
            f"{text}, so releases would get a wrong order", fix="synchronize the clock (NTP), publish again"
        )
    return [f"{text}: synchronize it (NTP)"]


def stamp(store: Store, current: Manifest | None) -> str:
    """Return the time for a new manifest: now, and never before the current release."""
    moment = store.clock()
    if current is not None:
        for text in (current.published_at, current.activated_at):
            moment = max(moment, datetime.fromisoformat(text) + timedelta(milliseconds=1))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lost_race(package: str, what: str) -> RefusedError:
    """Return what the loser of a race is told."""
    return RefusedError(
        f"another publish or rollback of {package} came first: {what}, and nobody sees anything of yours",
        fix=f"look at it with 'airflow-dag-publisher list {package}', then publish again",
    )


def publish(
    store: Store,
    package: str,
    snapshot: Snapshot,
    checks: Checks,
    *,
    published_by: str,
    take_over: bool = False,
    dry_run: bool = False,
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> Published:
    """Make ``snapshot`` the current release of ``package``.

    Raises :class:`InvalidReleaseError` for a release with errors, :class:`airbridge.errors.RefusedError` when
    another publish came first; then nothing that anyone sees has changed.
    """
    progress("reading the bucket", 0, 0)
    catalog = read_catalog(store)
    warnings = check_clock(store)
    others = read_claims(store, catalog, but=package)
    progress("validating", 0, 0)
    validation = validate(snapshot, package, checks, others=others)
    if validation.errors:
        raise InvalidReleaseError(package, validation)
    remote = catalog.package(package)
    warnings += _look_at(remote, snapshot, take_over=take_over)
    adopts = remote.manifest is None and not remote.problem and not dry_run
    if adopts:
        remote = _adopt(store, remote, published_by)
    plan = _plan(store, snapshot, remote)
    dags = set(validation.dags)
    if plan.same_content and remote.manifest is not None:
        # What an import found before is true of the same files.
        dags |= set(remote.manifest.dags)
    grown = remote.manifest is not None and dags != set(remote.manifest.dags)
    result = Published(
        package=package,
        outcome="planned",
        release=remote.manifest.release if remote.manifest else None,
        replaces=None,
        uploaded=list(plan.upload),
        reused=len(plan.reuse),
        deleted=list(plan.delete),
        bytes_uploaded=sum(len(file.content) for file in snapshot.files if file.path in set(plan.upload)),
        dags=sorted(dags),
        validation=validation,
        warnings=warnings,
    )
    if dry_run:
        return result
    if plan.writes_manifest or grown:
        manifest = _commit(store, remote, snapshot, plan, sorted(dags), published_by, TOOL, progress)
        result.outcome, result.release, result.replaces = "published", manifest.release, manifest.replaces
        if manifest.files and not manifest.files[0].version_id:
            result.warnings.append(f"the bucket {store.settings.dag_bucket} keeps no versions: no rollback")
    else:
        result.outcome = "published" if adopts else "healed" if plan.delete else "unchanged"
    result.warnings += _remove(store, package, plan, progress)
    return result


def publish_made(
    store: Store, remote: RemotePackage, snapshot: Snapshot, dags: list[str], *, published_by: str, tool: str
) -> tuple[Manifest, list[str]]:
    """Make files that a program generated the current release; return it, and warnings.

    They are not validated: their maker answers for them. Raises :class:`airbridge.errors.RefusedError` when
    another publish came first; then nothing that anyone sees has changed.
    """
    plan = _plan(store, snapshot, remote)
    manifest = _commit(store, remote, snapshot, plan, dags, published_by, tool, lambda *_: None)
    return manifest, _remove(store, remote.name, plan, lambda *_: None)


def _look_at(remote: RemotePackage, snapshot: Snapshot, *, take_over: bool) -> list[str]:
    """Return warnings about what is there; refuse to hide files that nobody published with a release."""
    if remote.problem:
        return [f"{remote.problem}: it is replaced"]
    if remote.manifest is not None:
        return []
    strangers = sorted(set(remote.objects) - {file.path for file in snapshot.files})
    if strangers and not take_over:
        raise RefusedError(
            f"{remote.name} has no manifest but {len(strangers)} files that are not in this release, such as "
            f"{strangers[0]}: they would disappear",
            fix="add them to the release, or give --take-over",
        )
    return [f"{remote.name} had no manifest: its files are a release from now on"] if remote.objects else []


def _adopt(store: Store, remote: RemotePackage, published_by: str) -> RemotePackage:
    """Make a release of what lies in the bucket, so that uploads beside it are not seen."""
    prefix = f"{store.settings.prefix}{remote.name}/"

    def take(path: str) -> tuple[ManifestFile, list[str]] | None:
        found = store.get(prefix + path, limit=MAX_FILE_BYTES)
        if found is None:  # deleted since it was listed
            return None
        content, there = found
        sha256 = hashlib.sha256(content).hexdigest()
        source = read_source(LocalFile(path, content, path)) if path.endswith(".py") else None
        return (
            ManifestFile(path, sha256, len(content), there.etag, there.version_id),
            [dag.dag_id for dag in source.dags] if source is not None else [],
        )

    paths = [path for path in remote.objects if "__pycache__" not in path.split("/")]
    taken = [item for item in store.each(take, paths) if item is not None]
    files = tuple(sorted((file for file, _ in taken), key=lambda file: file.path))
    time = stamp(store, None)
    manifest = Manifest(
        package=remote.name,
        release=new_release_id(time, {file.path: file.sha256 for file in files}),
        published_at=time,
        published_by=published_by,
        activated_at=time,
        activated_by=published_by,
        tool=TOOL,
        dags=tuple(sorted({dag for _, dags in taken for dag in dags})),
        files=files,
    )
    written = _write_manifest(store, manifest, etag=remote.manifest_etag)
    return RemotePackage(remote.name, remote.objects, manifest, written.etag)


def _plan(store: Store, snapshot: Snapshot, remote: RemotePackage) -> Plan:
    prefix = f"{store.settings.prefix}{remote.name}/"
    wanted = snapshot.hashes
    paths = [file.path for file in reusable(wanted, remote)]
    heads = dict(store.each(lambda path: (path, store.head(prefix + path)), paths))
    return make_plan(wanted, remote, heads)


def _commit(  # noqa: PLR0917  (one step, cut out of publish)
    store: Store,
    remote: RemotePackage,
    snapshot: Snapshot,
    plan: Plan,
    dags: list[str],
    published_by: str,
    tool: str,
    progress: Callable[[str, int, int], None],
) -> Manifest:
    prefix = f"{store.settings.prefix}{remote.name}/"
    by_path = {file.path: file for file in snapshot.files}

    def upload(path: str) -> ManifestFile:
        file = by_path[path]
        stored = store.put(prefix + path, file.content)
        return ManifestFile(path, file.sha256, len(file.content), stored.etag, stored.version_id)

    files = list(plan.reuse)
    progress("uploading", 0, len(plan.upload))
    for file in store.each(upload, plan.upload):
        files.append(file)
        progress("uploading", len(files) - len(plan.reuse), len(plan.upload))
    time = stamp(store, remote.manifest)
    manifest = Manifest(
        package=remote.name,
        release=new_release_id(time, snapshot.hashes),
        published_at=time,
        published_by=published_by,
        activated_at=time,
        activated_by=published_by,
        replaces=remote.manifest.release if remote.manifest else None,
        tool=tool,
        dags=tuple(dags),
        files=tuple(sorted(files, key=lambda file: file.path)),
    )
    progress("writing the manifest", 0, 0)
    _write_manifest(store, manifest, etag=remote.manifest_etag)
    return manifest


def _write_manifest(store: Store, manifest: Manifest, *, etag: str | None) -> StoredVersion:
    body = manifest.to_bytes()
    read_manifest(body, manifest.package)  # what no reader would accept is not written
    try:
        return store.replace(f"{store.settings.prefix}{manifest.package}/{MANIFEST_NAME}", body, etag=etag)
    except LostRaceError:
        raise lost_race(manifest.package, "its manifest has changed since this publish read it") from None


def _remove(store: Store, package: str, plan: Plan, progress: Callable[[str, int, int], None]) -> list[str]:
    """Delete what the release does not hold; return a warning when that did not work."""
    prefix = f"{store.settings.prefix}{package}/"
    try:
        for done, _ in enumerate(store.each(lambda path: store.delete(prefix + path), plan.delete), start=1):
            progress("removing", done, len(plan.delete))
    except AirbridgeError as error:
        return [
            "objects of earlier releases stay for now; nobody sees them, and the next publish removes them: "
            f"{error.what}"
        ]
    return []
