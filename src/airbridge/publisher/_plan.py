"""Decide what a publish has to write. No request is made here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airbridge.manifest import Manifest, ManifestFile
    from airbridge.publisher._catalog import RemotePackage
    from airbridge.publisher._s3 import StoredVersion

__all__ = ["Plan", "make_plan", "reusable"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Paths to upload, files to take over as they are, paths to delete after the manifest."""

    upload: tuple[str, ...]
    reuse: tuple[ManifestFile, ...]
    delete: tuple[str, ...]
    same_content: bool
    """Whether the current release has exactly these files."""

    @property
    def writes_manifest(self) -> bool:
        """Whether there is anything that readers would see, or that has to be healed for them."""
        return bool(self.upload) or not self.same_content

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be written at all."""
        return not self.writes_manifest and not self.delete


def reusable(wanted: Mapping[str, str], remote: RemotePackage) -> list[ManifestFile]:
    """Return the files of the current release that may be taken over, as far as a listing tells.

    Args:
        wanted: SHA-256 of the new release's files by path.
        remote: the package as it is.
    """
    files = remote.manifest.files if remote.manifest else ()
    return [
        file
        for file in files
        if wanted.get(file.path) == file.sha256
        and file.path in remote.objects
        and (remote.objects[file.path].etag, remote.objects[file.path].size) == (file.etag, file.size)
    ]


def make_plan(
    wanted: Mapping[str, str], remote: RemotePackage, heads: Mapping[str, StoredVersion | None]
) -> Plan:
    """Return the plan for ``wanted`` (SHA-256 by path).

    Args:
        wanted: the new release.
        remote: the package as it is.
        heads: what S3 says of the objects at the keys of :func:`reusable`: the version counts, which no
            listing tells.
    """
    reuse = []
    for file in reusable(wanted, remote):
        head = heads.get(file.path)
        if head is not None and (head.etag, head.version_id) == (file.etag, file.version_id):
            reuse.append(file)
    taken_over = {file.path for file in reuse}
    return Plan(
        upload=tuple(sorted(set(wanted) - taken_over)),
        reuse=tuple(sorted(reuse, key=lambda file: file.path)),
        delete=tuple(sorted(set(remote.objects) - set(wanted))),
        same_content=_content(remote.manifest) == dict(wanted),
    )


def _content(manifest: Manifest | None) -> dict[str, str] | None:
    return {file.path: file.sha256 for file in manifest.files} if manifest else None
