"""The manifest of a package: ``<env>/<package>/metadata.json``, which says which release counts.

A publish uploads the files of a release and writes the manifest last, so the manifest is the commit: readers
(:mod:`airbridge.sync`) show exactly the files that it names, each at the S3 version that it names, and
nothing else of the package's prefix. A rollback writes an earlier release's manifest again. Who writes it
does so on the condition that it still is what they read (``If-Match``, ``If-None-Match: *``), so of two
writers one wins.

::

    {"format": "airbridge.release/1",
     "package": "sales",
     "release": "20261121T124501.123Z-5f0c9e2ab41d",
     "published_at": "2026-11-21T12:45:01.123Z", "published_by": "ana@laptop",
     "activated_at": "2026-11-21T12:45:01.123Z", "activated_by": "ana@laptop", "replaces": null,
     "tool": "airflow-dag-publisher/0.1.0",
     "dags": ["sales_daily"],
     "files": [{"path": "dags/sales_daily.py", "sha256": "<64 hex>", "size": 812, "etag": "<as S3 says>",
                "version_id": "<as S3 says>"}]}

``path`` is relative to the package's prefix and below ``dags/``; ``size`` is in bytes; ``etag`` has no
quotes; ``version_id`` is empty on a bucket without versioning. ``activated_*`` and ``replaces`` say who made
this release the current one, and instead of which: a publish or a rollback. ``tool`` made the release, and a
rollback leaves it as it was. What lies below ``dags/_source/`` is code that DAGs run, and no DAG file.

A ``metadata.json`` without ``format`` is not ours: such a package is mirrored as it lies in the bucket.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from airbridge.errors import IntegrityError

__all__ = [
    "FORMAT",
    "MANIFEST_NAME",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_MANIFEST_BYTES",
    "MAX_PACKAGE_CHARACTERS",
    "PACKAGE",
    "SOURCE_FOLDER",
    "Manifest",
    "ManifestFile",
    "new_release_id",
    "now",
    "read_manifest",
]

FORMAT: Final = "airbridge.release/1"

MANIFEST_NAME: Final = "metadata.json"
"""Name of the manifest's object below the package's prefix."""

PACKAGE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""A package's name: words of ``a-z0-9`` joined by single ``_``, at most :data:`MAX_PACKAGE_CHARACTERS`."""

MAX_PACKAGE_CHARACTERS: Final = 63

SOURCE_FOLDER: Final = "_source"
"""Below ``dags/``: code that the DAGs run, hidden from the parser by ``.airflowignore``."""

MAX_FILES: Final = 2_000
"""Files of one release at most: more DAG files than a team can own, fewer than hurt a reader."""

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
"""What a reader accepts: :data:`MAX_FILES` files with the longest paths that S3 allows."""

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
"""Size of one file at most; a DAG file is a few KiB, and data do not belong beside it."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_RELEASE = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_MAX_TEXT: Final = 1024
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of a release; the fields are those of the module's docstring."""

    path: str
    sha256: str
    size: int
    etag: str
    version_id: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One release, and how it became the current one; the fields are those of the module's docstring."""

    package: str
    release: str
    published_at: str
    published_by: str
    activated_at: str
    activated_by: str
    files: tuple[ManifestFile, ...]
    dags: tuple[str, ...] = ()
    replaces: str | None = None
    tool: str = ""
    format: str = field(default=FORMAT)

    def to_bytes(self) -> bytes:
        """Return what is stored: JSON, the same bytes for the same manifest."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def now() -> str:
    """Return the time as a manifest writes it: UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_release_id(published_at: str, files: dict[str, str]) -> str:
    """Return the id of a release of ``files`` (path to SHA-256): the time, and 12 digits of their hash.

    Ids sort by time, and equal contents show.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{files[path]}  {path}\n".encode())
    return f"{published_at.replace('-', '').replace(':', '')}-{digest.hexdigest()[:12]}"


def read_manifest(body: bytes, package: str) -> Manifest | None:
    """Read the ``metadata.json`` of ``package``; ``None`` when it is somebody else's JSON object.

    Raises :class:`airbridge.errors.IntegrityError` when it claims to be a manifest and is not a right one:
    one that names another package, a path outside ``dags/``, a file twice, a wrong type.
    """
    if len(body) > MAX_MANIFEST_BYTES:
        raise _lie(package, f"it has {len(body)} bytes, {MAX_MANIFEST_BYTES} are allowed")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _lie(package, f"it is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise _lie(package, "it is no JSON object")
    if "format" not in document:
        return None
    try:
        return _checked(document, package)
    except (KeyError, TypeError, ValueError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise _lie(package, why) from None


def _lie(package: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"{package}/{MANIFEST_NAME} is no manifest: {why}", fix="publish the package again, or roll it back"
    )


def _text(document: dict[str, Any], name: str, pattern: re.Pattern[str] | None = None) -> str:
    value = document[name]
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"{name!r} must be text of at most {_MAX_TEXT} characters")
    if any(unicodedata.category(character) in _FORBIDDEN for character in value):
        raise ValueError(f"{name!r} holds a control character")
    if pattern and not pattern.fullmatch(value):
        raise ValueError(f"{name!r} is {value!r}")
    return value


def _checked(document: dict[str, Any], package: str) -> Manifest:
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']!r}, this release reads {FORMAT!r}")
    if document["package"] != package:
        raise ValueError(f"it names the package {document['package']!r}")
    rows = document["files"]
    if not isinstance(rows, list) or len(rows) > MAX_FILES:
        raise ValueError(f"'files' must be a list of at most {MAX_FILES}")
    files = tuple(_file(row) for row in rows)
    paths = {file.path for file in files}
    if len(paths) != len(files):
        raise ValueError("it names a file twice")
    for path in paths:
        parts = path.split("/")
        if any("/".join(parts[:length]) in paths for length in range(1, len(parts))):
            raise ValueError(f"{path!r} lies below a file")
    dags = document.get("dags", [])
    if not isinstance(dags, list) or not all(isinstance(dag, str) for dag in dags):
        raise ValueError("'dags' must be a list of DAG ids")
    replaces = document.get("replaces")
    if replaces is not None:
        _text(document, "replaces", _RELEASE)
    return Manifest(
        package=package,
        release=_text(document, "release", _RELEASE),
        published_at=_text(document, "published_at", _TIME),
        published_by=_text(document, "published_by"),
        activated_at=_text(document, "activated_at", _TIME),
        activated_by=_text(document, "activated_by"),
        files=files,
        dags=tuple(dags),
        replaces=replaces,
        tool=_text(document, "tool") if "tool" in document else "",
    )


def _file(row: object) -> ManifestFile:
    if not isinstance(row, dict):
        raise TypeError("a file is no JSON object")
    path = _text(row, "path")
    parts = path.split("/")
    if parts[0] != "dags" or len(parts) < 2 or any(part in {"", ".", ".."} for part in parts) or "\\" in path:
        raise ValueError(f"'path' is {path!r}, which is not a file below dags/")
    size = row["size"]
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
        raise ValueError(f"'size' of {path!r} is {size!r}")
    return ManifestFile(
        path=path,
        sha256=_text(row, "sha256", _SHA256),
        size=size,
        etag=_text(row, "etag"),
        version_id=_text(row, "version_id"),
    )
