"""The DAG bucket as this capability sees it, through the publisher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airbridge.jobs._releases import TOOL, RemotePackage, content_of
from airbridge.publisher.releases import ReleaseStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airbridge.manifest import Manifest

__all__ = ["Bucket"]


class Bucket:
    """A :class:`airbridge.jobs._releases.ReleaseWriter` on S3; settings come from the environment."""

    def __init__(self) -> None:
        self._store = ReleaseStore(tool=TOOL)

    @property
    def name(self) -> str:
        """User and host, as releases say who published them."""
        return self._store.published_by

    def packages(self) -> Mapping[str, RemotePackage]:
        """Return every package of the environment."""
        return {name: self._seen(name, package.manifest) for name, package in self._store.packages().items()}

    def publish(self, package: str, files: Mapping[str, bytes], dags: Sequence[str]) -> str:
        """Make ``files`` the current release, and return its id."""
        return self._store.publish(package, files, dags).release

    def _seen(self, name: str, manifest: Manifest | None) -> RemotePackage:
        if manifest is None or manifest.activated_at == manifest.published_at:
            return RemotePackage(manifest)
        # Rolled back by somebody: only then does it matter what was there before.
        past = frozenset(
            content_of({file.path: file.sha256 for file in release.files})
            for release in self._store.past(name)
        )
        return RemotePackage(manifest, past)
