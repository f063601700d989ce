"""Bring a local folder to what was generated: every file whole at any moment, nobody else's file touched.

::

    <folder>/<package>/dags/<package>_<job>.py      the mark in the first line says whose it is
    <folder>/<package>/dags/_source/...             code; .airbridge-generated.json says what we wrote

Code first, then DAG files, then what is stale is removed: whoever stops half-way leaves DAG files that find
the code that they run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airbridge.errors import AirbridgeError, RefusedError
from airbridge.jobs._marker import Origin, origin_of
from airbridge.manifest import SOURCE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airbridge.jobs._release_files import PackageFiles

__all__ = ["INDEX", "FolderChanges", "write_folder"]

INDEX: Final = ".airbridge-generated.json"
_LOCK: Final = ".airbridge-jobs.lock"
_MAX_INDEX_BYTES: Final = 16 * 1024 * 1024
_FORMAT: Final = "airbridge.generated/1"
_FILE_MODE: Final = 0o644
_EDITED: Final = "it was edited after it was generated"
_FOREIGN: Final = "it was not generated"


@dataclass(slots=True)
class FolderChanges:
    """What was done to a folder; paths below it."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)
    """Files that stand in the way or should go, and stay because they are not ours: path, why."""
    unchanged: int = 0


def write_folder(
    folder: Path, packages: Iterable[PackageFiles], *, keep: Iterable[str] = (), remove_stale: bool
) -> FolderChanges:
    """Write the files of all packages; with ``remove_stale`` remove generated files that are none of them.

    ``keep`` are packages that stay as they are. Raises :class:`airbridge.errors.AirbridgeError` when the
    folder cannot be written, or when somebody else is writing it.
    """
    changes = FolderChanges()
    wanted = {package.package: package for package in packages}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            for package in wanted.values():
                _Writer(folder, package.package, changes).write(package.files)
            if remove_stale:
                spared = set(keep)
                for name in _packages_in(folder):
                    if name not in spared:
                        files = wanted[name].files if name in wanted else {}
                        _Writer(folder, name, changes).remove_stale(files)
    except OSError as error:
        raise AirbridgeError(
            f"AIRFLOW_DAGS_DIR={str(folder)!r} cannot be written: {error.strerror or error}",
            fix="name a folder that this user may write",
        ) from None
    return changes


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"another airflow-control-plane is writing {folder}", fix="wait for its end"
            ) from None
        yield


def _packages_in(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and not entry.is_symlink() and (entry / "dags").is_dir()
    )


class _Writer:
    """The files of one package below the folder."""

    def __init__(self, folder: Path, package: str, changes: FolderChanges) -> None:
        self._folder = folder
        self._root = folder / package
        self._changes = changes
        self._index_path = self._root / "dags" / INDEX
        self._index = _read_index(self._index_path)

    def write(self, files: dict[str, bytes]) -> None:
        """Write what is new or changed; code first, because DAG files run it."""
        code = sorted(path for path in files if _is_code(path))
        mine = [path for path in code if self._may_write(path, files[path])]
        if mine:
            # Noted before it is written, beside what was there: whatever happens in between, it is ours.
            for path in mine:
                hashes = self._index.setdefault(path, [])
                if (new := _sha256(files[path])) not in hashes:
                    hashes.append(new)
            _write(self._index_path, _index_text(self._index))
        for path in [*mine, *sorted(set(files) - set(code))]:
            if path in mine or self._may_write(path, files[path]):
                self._put(path, files[path])
        written = {path: [_sha256(files[path])] for path in mine}
        if any(self._index[path] != hashes for path, hashes in written.items()):
            self._index |= written
            _write(self._index_path, _index_text(self._index))

    def remove_stale(self, files: dict[str, bytes]) -> None:
        """Remove what was generated and is none of ``files``."""
        dags = self._root / "dags"
        for name in sorted(entry.name for entry in dags.iterdir()):
            path = f"dags/{name}"
            if path in files or not (name.endswith(".py") or name == ".airflowignore"):
                continue
            origin = _origin(self._root / path)
            if origin is Origin.GENERATED:
                self._remove(path)
            elif origin is Origin.EDITED:
                self._changes.kept.append((self._shown(path), _EDITED))
        left: dict[str, list[str]] = {}
        for path, hashes in self._index.items():
            target = self._root / path
            if path in files or not target.is_file() or target.is_symlink():
                left |= {path: hashes} if path in files else {}
            elif _sha256(target.read_bytes()) in hashes:
                self._remove(path)
            else:
                self._changes.kept.append((self._shown(path), _EDITED))
                left[path] = hashes
        if left != self._index:
            if left:
                _write(self._index_path, _index_text(left))
            else:
                self._index_path.unlink(missing_ok=True)
        self._prune(dags)

    def _may_write(self, path: str, body: bytes) -> bool:
        """Tell whether there is something to write, and the place is free or ours; note it when it is not."""
        target = self._root / path
        if why := self._blocked(target):
            self._changes.kept.append((self._shown(path), why))
            return False
        if not target.exists():
            return True
        present = target.read_bytes()
        if present == body:
            self._changes.unchanged += 1
            return False
        if _is_code(path):
            known = self._index.get(path, [])
            origin = Origin.FOREIGN if not known else Origin.EDITED
            origin = Origin.GENERATED if _sha256(present) in known else origin
        else:
            origin = origin_of(present)
        if origin is not Origin.GENERATED:
            self._changes.kept.append((self._shown(path), _EDITED if origin is Origin.EDITED else _FOREIGN))
        return origin is Origin.GENERATED

    def _blocked(self, target: Path) -> str:
        for parent in [*target.relative_to(self._folder).parents][:-1]:
            if (self._folder / parent).is_symlink():
                return f"{parent.as_posix()} is a symbolic link"
        if target.is_symlink() or (target.exists() and not target.is_file()):
            return "it is no regular file"
        return ""

    def _put(self, path: str, body: bytes) -> None:
        _write(self._root / path, body)
        self._changes.written.append(self._shown(path))

    def _remove(self, path: str) -> None:
        (self._root / path).unlink()
        self._changes.removed.append(self._shown(path))

    def _prune(self, dags: Path) -> None:
        """Remove folders that are empty now; the package's own too."""
        inside = sorted((p for p in (dags / SOURCE_FOLDER).rglob("*") if p.is_dir()), reverse=True)
        for folder in [*inside, dags / SOURCE_FOLDER, dags, self._root]:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _shown(self, path: str) -> str:
        return f"{self._root.name}/{path}"


def _is_code(path: str) -> bool:
    return path.startswith(f"dags/{SOURCE_FOLDER}/")


def _origin(path: Path) -> Origin:
    if path.is_symlink() or not path.is_file():
        return Origin.FOREIGN
    return origin_of(path.read_bytes())


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _read_index(path: Path) -> dict[str, list[str]]:
    """Read which code files are ours, and their hashes. Without a readable index none is."""
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_INDEX_BYTES:
            return {}
        document = json.loads(path.read_bytes())
        if document["format"] != _FORMAT:
            return {}
        # Only code below _source: what the index says decides what is removed.
        return {
            str(name): [str(item) for item in hashes]
            for name, hashes in document["files"].items()
            if _is_code(name) and ".." not in name.split("/")
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _index_text(files: dict[str, list[str]]) -> bytes:
    return (json.dumps({"format": _FORMAT, "files": files}, indent=1, sort_keys=True) + "\n").encode()


def _write(path: Path, body: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".airbridge-", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fchmod(file.fileno(), _FILE_MODE)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
