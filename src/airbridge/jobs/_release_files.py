"""Put together what a package's release consists of: DAG files, and the code that they run."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airbridge.jobs._marker import mark
from airbridge.jobs._model import Problem
from airbridge.jobs._packages import is_hidden
from airbridge.jobs.generation import Code, generate_dag_file
from airbridge.manifest import MAX_FILE_BYTES, MAX_FILES, SOURCE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airbridge.jobs._model import Discovery, Package

__all__ = ["IGNORE_FILE", "MAX_PACKAGE_BYTES", "PackageFiles", "build_package", "fingerprint"]

MAX_PACKAGE_BYTES: Final = 64 * 1024 * 1024
"""Code of one package at most: it is read as a whole, to be one state of it. Data belong elsewhere."""

IGNORE_FILE: Final = "dags/.airflowignore"

_MAX_NAME_BYTES: Final = 255
_MAX_PATH_CHARACTERS: Final = 700
"""With bucket prefix and package still below the 1024 bytes of an S3 key."""

Fingerprint = frozenset[tuple[str, int, int, int]]


@dataclass(frozen=True, slots=True)
class PackageFiles:
    """The files of a package's release, by their path in it, such as ``dags/sales_load.py``."""

    package: str
    files: dict[str, bytes]
    dags: tuple[str, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Tell whether the package has no job."""
        return not self.dags


class _TooMuchError(Exception):
    """The package has more than a release may hold."""


def build_package(discovery: Discovery, package: Package, code: Code) -> PackageFiles | Problem:
    """Return the files of a package; a problem when it has more than a release may hold.

    A package without jobs gives an empty release. Files that cannot be published are left out, and are among
    the problems of the result.
    """
    jobs = discovery.jobs_of(package.name)
    if not jobs:
        return PackageFiles(package.name, {}, ())
    files = {f"dags/{job.dag_id}.py": generate_dag_file(job, code) for job in jobs}
    problems: list[Problem] = []
    if code is Code.RELEASE:
        files[IGNORE_FILE] = mark(f"/{SOURCE_FOLDER}/\n")
        try:
            files.update(_source_files(package, problems, MAX_FILES - len(files)))
        except _TooMuchError as error:
            return Problem(
                package.name, 0, str(error), "keep data elsewhere, or split the package", package.name
            )
    if len(files) > MAX_FILES:
        what = f"the package has {len(files)} files, {MAX_FILES} are allowed"
        return Problem(package.name, 0, what, "split the package", package.name)
    return PackageFiles(package.name, files, tuple(job.dag_id for job in jobs), tuple(problems))


def fingerprint(package: Package) -> Fingerprint:
    """Return names, sizes and times of a package's files: they differ when it was changed meanwhile."""
    found: set[tuple[str, int, int, int]] = set()
    for path, _ in _walk(package.root):
        try:
            status = path.stat()
        except OSError:
            continue
        found.add((str(path), status.st_size, status.st_mtime_ns, status.st_ino))
    return frozenset(found)


def _source_files(package: Package, problems: list[Problem], allowed: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    total = 0
    for path, why_not in _walk(package.root):
        relative = path.relative_to(package.root).as_posix()
        wrong = why_not or _wrong_name(relative)
        body = b"" if wrong else _read(path)
        if wrong or body is None:
            shown = relative if relative.isprintable() else ascii(relative)[1:-1]
            what = f"the file is left out: {wrong or 'it cannot be read'}"
            fix = "rename it, put the file itself there, or remove it"
            problems.append(Problem(f"{package.name}/{shown}", 0, what, fix, package.name))
            continue
        if len(body) > MAX_FILE_BYTES:
            raise _TooMuchError(f"{relative} has more than {MAX_FILE_BYTES // 2**20} MiB")
        total += len(body)
        if total > MAX_PACKAGE_BYTES:
            raise _TooMuchError(f"the package has more than {MAX_PACKAGE_BYTES // 2**20} MiB")
        files[f"dags/{SOURCE_FOLDER}/{package.name}/{relative}"] = body
        if len(files) > allowed:
            raise _TooMuchError(f"the package has more than {MAX_FILES} files")
    return files


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file in the order of names, and why it cannot be published, if it cannot."""
    root = folder
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError:
            yield current, "the folder cannot be read"
            continue
        folders: list[Path] = []
        for entry in entries:
            path = Path(entry.path)
            if is_hidden(entry.name):
                continue
            if entry.is_symlink():
                yield path, _wrong_link(root, path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_file(follow_symlinks=False):
                yield path, ""
            else:
                yield path, "it is no regular file"
        waiting.extend(reversed(folders))


def _wrong_link(root: Path, path: Path) -> str:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "it is a symbolic link that leads nowhere"
    if not target.is_relative_to(root):
        return "it is a symbolic link that leads out of the package"
    if any(is_hidden(part) for part in target.relative_to(root).parts):
        return "it is a symbolic link to a hidden file"
    return "" if target.is_file() else "it is a symbolic link to a folder"


def _wrong_name(relative: str) -> str:
    if not relative.isprintable() or "\\" in relative:
        return "its name holds control characters or a backslash"
    if len(relative) > _MAX_PATH_CHARACTERS or len(relative.encode()) > _MAX_PATH_CHARACTERS:
        return "its path is too long"
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in relative.split("/")):
        return "its name is too long"
    return ""


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            return file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return None
