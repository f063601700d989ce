"""What is asked of whoever writes releases, and when one is written at all.

The bucket is shared: package teams publish DAG files of their own with ``airflow-dag-publisher``, and
operators roll releases back. So a package is published only when it is ours and has something new to say.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import airbridge
from airbridge.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airbridge.jobs._release_files import PackageFiles
    from airbridge.manifest import Manifest

__all__ = [
    "TOOL",
    "Outcome",
    "PackageOutcome",
    "ReleaseWriter",
    "RemotePackage",
    "Verdict",
    "content_of",
    "judge",
    "publish_all",
]

_TOOL_NAME: Final = "airflow-control-plane"
TOOL: Final = f"{_TOOL_NAME}/{airbridge.__version__}"
"""How our releases are signed."""


@dataclass(frozen=True, slots=True)
class RemotePackage:
    """A package as the bucket has it."""

    manifest: Manifest | None
    """The current release; ``None`` when the package lies there without one."""
    past: frozenset[str] = frozenset()
    """The contents (:func:`content_of`) of all releases so far; known when the current one is a rollback."""


class ReleaseWriter(Protocol):
    """The bucket, as this capability sees it."""

    @property
    def name(self) -> str:
        """How releases say who published them."""

    def packages(self) -> Mapping[str, RemotePackage]:
        """Return every package of the environment."""

    def publish(self, package: str, files: Mapping[str, bytes], dags: Sequence[str]) -> str:
        """Make ``files`` the current release: files first, the manifest last, on condition. Return its id."""


class Verdict(enum.Enum):
    """What is to be done with a package."""

    PUBLISH = "publish"
    UNCHANGED = "unchanged"
    HELD = "held"
    FOREIGN = "foreign"
    ABSENT = "absent"


class Outcome(enum.StrEnum):
    """What became of a package."""

    PUBLISHED = "published"
    EMPTIED = "emptied"
    """Published without a file, because it has no job any more."""
    UNCHANGED = "unchanged"
    HELD = "held"
    """Rolled back by a person: it stays so until its files change."""
    REFUSED = "refused"
    KEPT = "kept"
    """Its jobs are broken, so the previous release stays."""


@dataclass(frozen=True, slots=True)
class PackageOutcome:
    """What became of a package, and why."""

    package: str
    outcome: Outcome
    release: str = ""
    why: str = ""


def content_of(hashes: Mapping[str, str]) -> str:
    """Return one hash for the content of a release: SHA-256 by path."""
    lines = "".join(f"{hashes[path]}  {path}\n" for path in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def judge(hashes: Mapping[str, str], remote: RemotePackage | None) -> Verdict:
    """Decide what to do for a package whose files should have ``hashes`` (none: it has no job any more)."""
    if remote is None:
        return Verdict.PUBLISH if hashes else Verdict.ABSENT
    manifest = remote.manifest
    if manifest is None or manifest.tool.partition("/")[0] != _TOOL_NAME:
        return Verdict.FOREIGN if hashes else Verdict.ABSENT
    if {file.path: file.sha256 for file in manifest.files} == dict(hashes):
        return Verdict.UNCHANGED
    if manifest.activated_at != manifest.published_at and content_of(hashes) in remote.past:
        return Verdict.HELD
    return Verdict.PUBLISH


def publish_all(
    writer: ReleaseWriter, packages: Sequence[PackageFiles], kept: Sequence[str]
) -> list[PackageOutcome]:
    """Bring the bucket to ``packages``.

    What is neither among them nor ``kept`` is gone, and becomes an empty release. Only what this very
    publisher published: a colleague's package is not gone because it is not in this folder.

    One package's trouble is its own. Raises :class:`airbridge.errors.AirbridgeError` when the bucket cannot
    be read at all.
    """
    present = writer.packages()
    outcomes = [PackageOutcome(name, Outcome.KEPT, why="its jobs are broken") for name in kept]
    wanted: dict[str, PackageFiles | None] = {package.package: package for package in packages}
    for name, remote in present.items():
        if name not in kept and remote.manifest and remote.manifest.published_by == writer.name:
            wanted.setdefault(name, None)
    for name in sorted(wanted):
        package = wanted[name]
        files = package.files if package else {}
        dags = package.dags if package else ()
        outcome = _publish(writer, name, files, dags, present.get(name))
        if outcome is not None:
            outcomes.append(outcome)
    return sorted(outcomes, key=lambda outcome: outcome.package)


def _publish(
    writer: ReleaseWriter,
    package: str,
    files: Mapping[str, bytes],
    dags: Sequence[str],
    remote: RemotePackage | None,
) -> PackageOutcome | None:
    hashes = {path: hashlib.sha256(body).hexdigest() for path, body in files.items()}
    match judge(hashes, remote):
        case Verdict.ABSENT:
            return None
        case Verdict.FOREIGN:
            manifest = remote.manifest if remote else None
            who = f"{manifest.tool or 'somebody'} ({manifest.published_by})" if manifest else "files alone"
            why = f"the package is in the bucket already, by {who} | fix: give the package another name"
            return PackageOutcome(package, Outcome.REFUSED, why=why)
        case Verdict.UNCHANGED:
            release = remote.manifest.release if remote and remote.manifest else ""
            return PackageOutcome(package, Outcome.UNCHANGED, release)
        case Verdict.HELD:
            manifest = remote.manifest if remote else None
            who = manifest.activated_by if manifest else ""
            why = f"rolled back by {who}: stays so until the package's files change"
            return PackageOutcome(package, Outcome.HELD, manifest.release if manifest else "", why)
    try:
        release = writer.publish(package, files, dags)
    except RefusedError as error:
        return PackageOutcome(package, Outcome.REFUSED, why=str(error))
    return PackageOutcome(package, Outcome.PUBLISHED if files else Outcome.EMPTIED, release)
