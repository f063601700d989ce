"""Make an earlier release the current one again: one conditional write, after a look at all it names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airbridge.errors import RefusedError
from airbridge.manifest import MANIFEST_NAME
from airbridge.publisher._catalog import Claims, read_catalog, read_claims
from airbridge.publisher._history import find_release, missing_files, previous_release
from airbridge.publisher._names import claimed_name
from airbridge.publisher._publish import check_clock, lost_race, stamp
from airbridge.publisher._s3 import LostRaceError

if TYPE_CHECKING:
    from airbridge.manifest import Manifest
    from airbridge.publisher._s3 import Store

__all__ = ["RolledBack", "rollback"]

_SHOWN = 3  # missing files that an error names


@dataclass(slots=True)
class RolledBack:
    """The result of a rollback; ``outcome`` is ``rolled back``, ``unchanged`` or ``planned``."""

    package: str
    outcome: str
    release: str
    replaces: str | None
    files: int
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "package": self.package,
            "outcome": self.outcome,
            "release": self.release,
            "replaces": self.replaces,
            "files": self.files,
            "warnings": self.warnings,
        }


def rollback(
    store: Store, package: str, wanted: str | None, *, activated_by: str, dry_run: bool = False
) -> RolledBack:
    """Make the release ``wanted`` the current one; ``None``: the one published before the current one.

    Raises :class:`airbridge.errors.RefusedError` when it is not whole any more, when another package has
    taken one of its names, or when somebody else wrote the manifest meanwhile. Nothing has changed then.
    """
    catalog = read_catalog(store)
    warnings = check_clock(store)
    remote = catalog.package(package)
    if remote.manifest_etag is None and not remote.objects:
        raise RefusedError(f"there is no package {package} in {store.settings.where}", fix="see 'list'")
    release = previous_release(store, package) if wanted is None else find_release(store, package, wanted)
    target = release.manifest
    result = RolledBack(package, "unchanged", target.release, None, len(target.files), warnings)
    if remote.manifest is not None and remote.manifest.release == target.release:
        return result
    if any(not file.version_id for file in target.files):
        raise RefusedError(
            f"release {target.release} was published without versions: it cannot be had again",
            fix=f"switch versioning of the bucket {store.settings.dag_bucket} on, and publish",
        )
    if missing := missing_files(store, target):
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise RefusedError(
            f"release {target.release} is not whole any more: {len(missing)} of its {len(target.files)} "
            f"files are gone ({shown})",
            fix="choose another release, or publish the files again",
        )
    _check_names(target, read_claims(store, catalog, but=package))
    result.replaces = remote.manifest.release if remote.manifest else None
    if dry_run:
        result.outcome = "planned"
        return result
    manifest = replace(
        target,
        activated_at=stamp(store, remote.manifest),
        activated_by=activated_by,
        replaces=result.replaces,
    )
    key = f"{store.settings.prefix}{package}/{MANIFEST_NAME}"
    try:
        store.replace(key, manifest.to_bytes(), etag=remote.manifest_etag)
    except LostRaceError:
        raise lost_race(package, "its manifest has changed since this rollback read it") from None
    result.outcome = "rolled back"
    return result


def _check_names(target: Manifest, others: Claims) -> None:
    """Refuse what another package took since the release was current."""
    taken = [f"DAG id {dag} ({others.dags[dag]})" for dag in target.dags if dag in others.dags]
    for file in target.files:
        name = claimed_name(file.path)
        if name is not None and name in others.files:
            taken.append(f"file name {name} ({others.files[name]})")
    if taken:
        raise RefusedError(
            f"release {target.release} has names that another package took: {', '.join(taken[:_SHOWN])}",
            fix="remove them there first, or choose another release",
        )
