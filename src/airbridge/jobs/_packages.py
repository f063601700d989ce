"""Walk the packages' root: packages, and the modules of their ``jobs/`` folders."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airbridge.errors import SettingsError
from airbridge.jobs._model import Package, Problem
from airbridge.jobs._module_reader import MAX_MODULE_BYTES
from airbridge.jobs._names import check_package_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JOBS", "Module", "find_packages", "is_hidden", "modules_of"]

JOBS: Final = "jobs"
"""Name of the folder in a package that is looked at."""

_MAX_DEPTH: Final = 5


@dataclass(frozen=True, slots=True)
class Module:
    """A Python file below ``jobs/``, read."""

    parts: tuple[str, ...]
    """Below ``jobs/``, the last one without ``.py``."""
    file: str
    """Below the packages' root, with slashes."""
    body: bytes


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is none of ours: dot files (secrets among them) and bytecode."""
    return name.startswith(".") or name == "__pycache__" or name.endswith(".pyc")


def find_packages(root: Path) -> tuple[list[Package], list[Problem]]:
    """Find the folders of ``root`` that have a ``jobs/``, in the order of names.

    Raises :class:`airbridge.errors.SettingsError` when ``root`` cannot be read: that is not an empty one, and
    must never look like one.
    """
    try:
        resolved = root.resolve(strict=True)
        entries = sorted(resolved.iterdir())
    except OSError as error:
        raise SettingsError(
            f"ETL_PACKAGES_ROOT={str(root)!r} cannot be read: {error.strerror or error}",
            fix="name the folder that holds the packages",
        ) from None
    packages: list[Package] = []
    problems: list[Problem] = []
    for entry in entries:
        try:
            if is_hidden(entry.name) or not (entry / JOBS).is_dir():
                continue
        except OSError as error:
            what = f"the folder cannot be read: {error.strerror}"
            name = _shown(entry.name)
            problems.append(Problem(name, 0, what, "correct its permissions", name))
            continue
        if wrong := check_package_name(entry.name):
            problems.append(
                Problem(
                    _shown(entry.name),
                    0,
                    f"the package's name {wrong}",
                    "rename the folder, or move its jobs/ elsewhere",
                    _shown(entry.name),
                )
            )
        elif (entry / JOBS).resolve() != resolved / entry.name / JOBS:
            problems.append(
                Problem(
                    entry.name,
                    0,
                    "the package, or its jobs/, is a symbolic link",
                    "put the folder itself here",
                    entry.name,
                )
            )
        else:
            packages.append(Package(entry.name, entry))
    return packages, problems


def modules_of(package: Package) -> Iterator[Module | Problem]:
    """Read every ``*.py`` below the package's ``jobs/``, in the order of names."""
    yield from _walk(package, package.root / JOBS, ())


def _walk(package: Package, folder: Path, parts: tuple[str, ...]) -> Iterator[Module | Problem]:
    def problem(path: Path, what: str, fix: str) -> Problem:
        return Problem(_where(package, path), 0, what, fix, package.name)

    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield problem(folder, f"the folder cannot be read: {error.strerror}", "correct its permissions")
        return
    for entry in entries:
        path = Path(entry.path)
        if is_hidden(entry.name):
            continue
        if entry.is_symlink() and not _stays_inside(package, path):
            if entry.name.endswith(".py") or path.is_dir():
                yield problem(path, "a symbolic link leads out of the package", "put the file itself here")
        elif entry.is_dir(follow_symlinks=False):
            if len(parts) < _MAX_DEPTH:
                yield from _walk(package, path, (*parts, entry.name))
            else:
                yield problem(path, "the folder is nested too deeply", "move it up")
        elif entry.name.endswith(".py"):
            yield _read(package, path, (*parts, entry.name.removesuffix(".py")))


def _stays_inside(package: Package, path: Path) -> bool:
    """Let links to files of the package through; a linked folder could lead in circles."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_file() and target.is_relative_to(package.root)


def _read(package: Package, path: Path, parts: tuple[str, ...]) -> Module | Problem:
    where = _where(package, path)
    try:
        # Not blocking: a pipe of this name must not hold everybody up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Problem(where, 0, "this is no regular file", "put a file here", package.name)
            return Module(parts, where, file.read(MAX_MODULE_BYTES + 1))
    except OSError as error:
        return Problem(
            where, 0, f"the file cannot be read: {error.strerror}", "correct its permissions", package.name
        )


def _where(package: Package, path: Path) -> str:
    return _shown(f"{package.name}/{path.relative_to(package.root).as_posix()}")


def _shown(name: str) -> str:
    """Return a name as one printable text: whoever may write the folder chooses it."""
    return name if name.isprintable() else ascii(name)[1:-1]
