"""The releases of a package: the versions of its manifest, and the files that they name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airbridge.errors import IntegrityError, RefusedError
from airbridge.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, ManifestFile, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airbridge.publisher._s3 import RemoteObject, Store

__all__ = ["Release", "find_release", "missing_files", "previous_release", "read_content", "releases"]

_AT_ONCE: Final = 32
"""Manifests that are read together, newest first: mostly, one of the first is looked for."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release as its newest manifest says; ``current`` when that is the one that counts."""

    manifest: Manifest
    current: bool


def releases(store: Store, package: str) -> Iterator[Release]:
    """Yield each release of ``package`` once, the one that was activated last first.

    An empty one, such as a package begins with, only while it is the current one.
    """
    key = f"{store.settings.prefix}{package}/{MANIFEST_NAME}"
    versions = store.versions(key)
    newest = store.head(key)  # a delete marker on top: no release is current
    current = next(
        (version for version in versions if newest and version.version_id == newest.version_id), None
    )

    def read(version: RemoteObject) -> tuple[RemoteObject, Manifest | None]:
        found = store.get(key, version.version_id, limit=MAX_MANIFEST_BYTES)
        try:
            return version, read_manifest(found[0], package) if found else None
        except IntegrityError:  # one that lies is no release
            return version, None

    seen: set[str] = set()
    for start in range(0, len(versions), _AT_ONCE):
        batch = versions[start : start + _AT_ONCE]
        manifests = {version.version_id: manifest for version, manifest in store.each(read, batch)}
        for version in batch:
            manifest = manifests[version.version_id]
            if manifest is None or manifest.release in seen:
                continue
            seen.add(manifest.release)
            if manifest.files or version is current:
                yield Release(manifest, current=version is current)


def find_release(store: Store, package: str, wanted: str) -> Release:
    """Return the release whose id is, or begins or ends with, ``wanted``; ``current`` and ``previous`` too.

    Raises :class:`airbridge.errors.RefusedError` when there is none, or more than one.
    """
    if wanted == "previous":
        return previous_release(store, package)
    found = []
    for release in releases(store, package):
        name = release.manifest.release
        if name == wanted or (wanted == "current" and release.current):
            return release
        if wanted and (name.startswith(wanted) or name.endswith(wanted)):
            found.append(release)
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} releases of {package} are called {wanted!r}"
    raise RefusedError(
        many if found else f"{package} has no release {wanted!r}",
        fix=f"see 'airflow-dag-publisher list {package}'",
    )


def previous_release(store: Store, package: str) -> Release:
    """Return the release that was published before the current one.

    By the time of publishing, not of activation: so doing it again goes back one more.
    """
    every = list(releases(store, package))
    current = next((release.manifest for release in every if release.current), None)
    older = [
        release for release in every if current is not None and release.manifest.release < current.release
    ]
    if not older:
        raise RefusedError(
            f"{package} has no release before the current one",
            fix=f"see 'airflow-dag-publisher list {package}'",
        )
    return max(older, key=lambda release: release.manifest.release)


def missing_files(store: Store, manifest: Manifest) -> list[str]:
    """Return the paths whose version is not in the bucket any more, or is not what the manifest says."""
    prefix = f"{store.settings.prefix}{manifest.package}/"

    def gone(file: ManifestFile) -> str | None:
        there = store.head(prefix + file.path, file.version_id)
        right = there is not None and (there.etag, there.size) == (file.etag, file.size)
        return None if right else file.path

    return sorted(path for path in store.each(gone, manifest.files) if path is not None)


def read_content(store: Store, manifest: Manifest, file: ManifestFile) -> bytes:
    """Return the content of a file of a release; :class:`IntegrityError` when it is not there."""
    key = f"{store.settings.prefix}{manifest.package}/{file.path}"
    found = store.get(key, file.version_id, limit=file.size)
    if found is None or hashlib.sha256(found[0]).hexdigest() != file.sha256:
        what = "is gone" if found is None else "is not what the manifest says"
        raise IntegrityError(
            f"{file.path} of release {manifest.release} {what}", fix="publish the package again"
        )
    return found[0]
