"""Write releases into a bucket as a publisher does: files first, the manifest last.

No more than the tests of the reader's side need; the publisher itself is tested for itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airbridge.manifest import MANIFEST_NAME, Manifest, ManifestFile, new_release_id, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Put = Callable[[str, bytes], tuple[str, str]]  # key, content -> ETag, version


@dataclass(frozen=True)
class Written:
    """A release as it was committed, and what a reader of the store must see of it."""

    manifest: Manifest
    body: bytes
    seen: dict[str, bytes]


class ReleaseWriter:
    """Writes releases of one environment with ``put``; uploads only what changed since its last release."""

    def __init__(self, put: Put, environment: str = "dev") -> None:
        self._put = put
        self._environment = environment
        self._uploaded: dict[tuple[str, str, str], ManifestFile] = {}
        self._count = 0

    def publish(self, package: str, files: dict[str, bytes | str]) -> Written:
        """Write a whole release of ``files`` (paths such as ``dags/a.py``)."""
        writing = self.steps(package, files)
        while True:
            try:
                next(writing)
            except StopIteration as done:
                return done.value

    def steps(
        self, package: str, files: dict[str, bytes | str], put_manifest: Put | None = None
    ) -> Iterator[str]:
        """The same, one step before each request to S3; returns the release. To stop early is to crash."""
        contents = {path: body.encode() if isinstance(body, str) else body for path, body in files.items()}
        named = []
        for path, body in contents.items():
            sha256 = hashlib.sha256(body).hexdigest()
            known = self._uploaded.get((package, path, sha256))
            if known is None:
                yield f"upload {path}"
                etag, version = self._put(f"{self._environment}/{package}/{path}", body)
                known = ManifestFile(path, sha256, len(body), etag, version)
                self._uploaded[package, path, sha256] = known
            named.append(known)
        manifest = self.manifest(package, tuple(named))
        yield "write the manifest"
        return self.point_at(manifest, contents, put_manifest)

    def manifest(self, package: str, files: tuple[ManifestFile, ...]) -> Manifest:
        self._count += 1
        at = now()
        return Manifest(
            package=package,
            release=new_release_id(at, {file.path: file.sha256 for file in files}),
            published_at=at,
            published_by=f"tester {self._count}",  # no two manifests are equal
            activated_at=at,
            activated_by="tester",
            files=files,
        )

    def point_at(
        self, manifest: Manifest, contents: dict[str, bytes], put_manifest: Put | None = None
    ) -> Written:
        """Write ``manifest``, which commits it; ``contents`` is what its files hold."""
        body = manifest.to_bytes()
        (put_manifest or self._put)(f"{self._environment}/{manifest.package}/{MANIFEST_NAME}", body)
        seen = {f"{manifest.package}/{path}": data for path, data in contents.items()}
        return Written(manifest, body, {**seen, f"{manifest.package}/{MANIFEST_NAME}": body})

    def roll_back(self, to: Written) -> Written:
        """Make ``to`` the current release again, in one object write."""
        manifest = replace(to.manifest, activated_at=now(), activated_by="tester rolled back")
        prefix = f"{to.manifest.package}/"
        contents = {
            path.removeprefix(prefix): data
            for path, data in to.seen.items()
            if path != prefix + MANIFEST_NAME
        }
        return self.point_at(manifest, contents)
