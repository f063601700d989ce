"""Releases for programs that make DAG files: what the bucket has, and whole new releases.

The same steps as ``airflow-dag-publisher publish``: files first, the manifest last, on the condition that
nobody else was faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airbridge.errors import RefusedError
from airbridge.publisher._catalog import Catalog, Claims, read_catalog, read_claims
from airbridge.publisher._files import LocalFile, Snapshot, judge_path, release_path_problems
from airbridge.publisher._history import releases
from airbridge.publisher._names import claimed_name
from airbridge.publisher._publish import check_clock, publish_made, whoami
from airbridge.publisher._s3 import Store
from airbridge.publisher._settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airbridge.manifest import Manifest

__all__ = ["ReleaseStore", "StoredPackage"]

_SHOWN = 3  # names that an error lists


@dataclass(frozen=True, slots=True)
class StoredPackage:
    """A package as it lies in the bucket."""

    name: str
    manifest: Manifest | None
    """The current release; ``None``: files that nobody published as one, or a manifest that lies."""


class ReleaseStore:
    """One environment of the DAG bucket, for a program.

    Args:
        tool: name and version of the program, for the manifests.
        published_by: who runs it; user and host when nobody is named.
        settings: ``dag_bucket``, ``environment``, ``s3_endpoint_url``, ``aws_default_region``; what is not
            given comes from the environment.
    """

    def __init__(self, *, tool: str, published_by: str | None = None, **settings: Any) -> None:
        self._store = Store(load_settings(**settings))
        self._tool = tool
        self.published_by = whoami(published_by)
        """How the manifests say who it was."""
        self._catalog = Catalog()

    def packages(self) -> dict[str, StoredPackage]:
        """Read every package: one LIST per 1000 objects, one GET a manifest.

        Packages without an object below ``dags/`` and without a manifest are none.
        """
        self._catalog = read_catalog(self._store)
        check_clock(self._store)
        return {
            name: StoredPackage(name, remote.manifest)
            for name, remote in sorted(self._catalog.packages.items())
            if remote.objects or remote.manifest_etag is not None
        }

    def past(self, package: str) -> Iterator[Manifest]:
        """Yield the releases that ``package`` has had, the one that was activated last first."""
        return (release.manifest for release in releases(self._store, package))

    def publish(self, package: str, files: Mapping[str, bytes], dags: Sequence[str]) -> Manifest:
        """Make ``files`` (by path, such as ``dags/x.py``) the current release of ``package``.

        What :meth:`packages` has read is what it is compared with. Raises
        :class:`airbridge.errors.RefusedError` when a name cannot be stored or is another package's, or when
        another publish came first; then nothing that anyone sees has changed.
        """
        local = tuple(LocalFile(path, files[path], path) for path in sorted(files))
        self._check_names(package, local, dags)
        remote = self._catalog.package(package)
        manifest, _ = publish_made(
            self._store,
            remote,
            Snapshot(local, ()),
            sorted(dags),
            published_by=self.published_by,
            tool=self._tool,
        )
        return manifest

    def _check_names(self, package: str, files: tuple[LocalFile, ...], dags: Sequence[str]) -> None:
        problems = [f"{file.path}: {why}" for file in files if (why := judge_path(file.path))]
        problems += [finding.message for finding in release_path_problems(files)]
        others = read_claims(self._store, self._catalog, but=package) if files else Claims()
        problems += [f"DAG id {dag} is of package {others.dags[dag]}" for dag in dags if dag in others.dags]
        for file in files:
            name = claimed_name(file.path)
            if name is not None and name in others.files:
                problems.append(f"file name {name} is of package {others.files[name]}")
        if problems:
            more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise RefusedError(
                f"{package} cannot be published: {'; '.join(problems[:_SHOWN])}{more}",
                fix="rename what is named here",
            )
