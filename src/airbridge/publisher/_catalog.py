"""What the bucket holds: packages, their releases, and the names that each one has claimed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from airbridge.errors import IntegrityError
from airbridge.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, read_manifest
from airbridge.publisher._files import LocalFile
from airbridge.publisher._findings import MAX_SOURCE_BYTES
from airbridge.publisher._names import claimed_name
from airbridge.publisher._source import read_source

if TYPE_CHECKING:
    from airbridge.publisher._s3 import RemoteObject, Store

__all__ = ["Catalog", "Claims", "Drift", "RemotePackage", "read_catalog", "read_claims"]

_FOLDER: Final = "dags/"


@dataclass(frozen=True, slots=True)
class Drift:
    """How the objects at the keys differ from the manifest; paths as the manifest writes them.

    Harmless for readers that follow the manifest; a rollback leaves it, and the next publish removes it.
    """

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.extra)


@dataclass(slots=True)
class RemotePackage:
    """A package in the bucket: its objects below ``dags/``, and its manifest."""

    name: str
    objects: dict[str, RemoteObject] = field(default_factory=dict)
    """By path, as a manifest writes it."""
    manifest: Manifest | None = None
    manifest_etag: str | None = None
    """ETag of ``metadata.json``, whoever wrote it; ``None`` when there is none."""
    problem: str = ""
    """Why ``metadata.json`` is no manifest although it claims to be one."""

    @property
    def drift(self) -> Drift:
        """Compare the listing with the manifest."""
        if self.manifest is None:
            return Drift()
        wanted = {file.path: file for file in self.manifest.files}
        changed = [
            path
            for path, file in wanted.items()
            if path in self.objects
            and (self.objects[path].etag, self.objects[path].size) != (file.etag, file.size)
        ]
        return Drift(
            changed=tuple(sorted(changed)),
            missing=tuple(sorted(set(wanted) - set(self.objects))),
            extra=tuple(sorted(set(self.objects) - set(wanted))),
        )


@dataclass(slots=True)
class Claims:
    """Names that other packages have: DAG ids, and file names (case folded), each with its package."""

    dags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Catalog:
    """The packages of one environment, by name."""

    packages: dict[str, RemotePackage] = field(default_factory=dict)

    def package(self, name: str) -> RemotePackage:
        """Return a package, an empty one when there is none of that name."""
        return self.packages.get(name) or RemotePackage(name)


def read_catalog(store: Store) -> Catalog:
    """Read the environment: one LIST per 1000 objects, one GET a manifest."""
    catalog = Catalog()
    with_manifest = []
    prefix = store.settings.prefix
    for key, item in store.objects(prefix).items():
        name, slash, path = key[len(prefix) :].partition("/")
        if not slash or not name:
            continue
        package = catalog.packages.setdefault(name, RemotePackage(name))
        if path == MANIFEST_NAME:
            with_manifest.append(package)
        elif path.startswith(_FOLDER) and not path.endswith("/"):
            package.objects[path] = item

    def look(package: RemotePackage) -> None:
        found = store.get(f"{prefix}{package.name}/{MANIFEST_NAME}", limit=MAX_MANIFEST_BYTES)
        if found is None:  # deleted since it was listed
            return
        body, version = found
        package.manifest_etag = version.etag
        try:
            package.manifest = read_manifest(body, package.name)
        except IntegrityError as error:
            package.problem = error.what

    for _ in store.each(look, with_manifest):
        pass
    return catalog


def read_claims(store: Store, catalog: Catalog, *, but: str) -> Claims:
    """Collect the names of all packages but one.

    A package without a manifest claims what its files say: each one is read, not run.
    """
    claims = Claims()
    unread: list[tuple[str, str]] = []
    for name in sorted(catalog.packages):
        package = catalog.packages[name]
        if name == but:
            continue
        if package.manifest is not None:
            paths = [file.path for file in package.manifest.files]
            for dag_id in package.manifest.dags:
                claims.dags.setdefault(dag_id, name)
        else:
            paths = list(package.objects)
            unread += [(name, path) for path in paths if path.endswith(".py")]
        for path in paths:
            if (claimed := claimed_name(path)) is not None:
                claims.files.setdefault(claimed, name)

    def dag_ids(item: tuple[str, str]) -> tuple[str, list[str]]:
        name, path = item
        try:
            found = store.get(f"{store.settings.prefix}{name}/{path}", limit=MAX_SOURCE_BYTES)
        except IntegrityError:  # larger than any DAG file
            found = None
        if found is None:
            return name, []
        return name, [dag.dag_id for dag in read_source(LocalFile(path, found[0], path)).dags]

    for name, found in store.each(dag_ids, unread):
        for dag_id in found:
            claims.dags.setdefault(dag_id, name)
    return claims
