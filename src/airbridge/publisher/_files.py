"""Take a snapshot of a folder of DAG files: what is published is what was looked at, byte for byte."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airbridge.errors import SettingsError
from airbridge.manifest import MAX_FILE_BYTES, MAX_FILES
from airbridge.publisher._findings import MAX_RELEASE_BYTES, MAX_SOURCE_BYTES, Finding, finding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["LocalFile", "Snapshot", "judge_path", "read_files", "read_folder", "release_path_problems"]

FOLDER: Final = "dags"
_MAX_NAME_BYTES: Final = 255  # NAME_MAX of every Linux file system
_MAX_KEY_BYTES: Final = 1024  # S3
_MAX_PREFIX_BYTES: Final = 63 + 63 + 2  # environment and package in front of the path
_FORBIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})
# Names that dag-sync refuses, because rclone reads other characters out of them.
_STAND_INS: Final = frozenset("\uff0f\u201b\u2421" + "".join(map(chr, range(0x2400, 0x2420))))
_WINDOWS: Final = frozenset('<>:"|?*')
_WELCOME_HIDDEN: Final = frozenset({".airflowignore"})
_LEFTOVERS: Final = ("~", ".swp", ".swo", ".orig", ".rej", ".bak", ".tmp")
# Python's own: never published, never a fault. Bytecode would be trusted over its source.
_SKIPPED_FOLDERS: Final = frozenset({"__pycache__"})
_SKIPPED_SUFFIXES: Final = (".pyc", ".pyo")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of a release: ``path`` as the manifest writes it, below ``dags/``."""

    path: str
    content: bytes
    shown: str
    """How a person finds the file: its path as it was given."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_python(self) -> bool:
        """Whether Airflow would look at it."""
        return self.path.endswith(".py")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a release, by path, and what is wrong with how they lie there."""

    files: tuple[LocalFile, ...]
    findings: tuple[Finding, ...]

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 by path."""
        return {file.path: file.sha256 for file in self.files}


def read_folder(dag_path: Path) -> Snapshot:
    """Read the release in ``dag_path``: the folder of the DAG files, or the one that holds it as ``dags``.

    A single file is a release too. Raises :class:`airbridge.errors.SettingsError` when there is nothing.
    """
    try:
        if not dag_path.is_dir():
            if not dag_path.exists():
                raise SettingsError(
                    f"--dag-path {dag_path} does not exist", fix="name the folder of the DAG files"
                )
            return read_files([dag_path])
        root = dag_path / FOLDER if (dag_path / FOLDER).is_dir() else dag_path
    except OSError as error:
        raise SettingsError(
            f"--dag-path {dag_path} cannot be read: {error.strerror}", fix="make it readable for you"
        ) from None
    reader = _Reader()
    reader.folder(root, FOLDER, root)
    return reader.snapshot()


def read_files(paths: Iterable[Path]) -> Snapshot:
    """Read single files, as if they lay in one folder."""
    reader = _Reader()
    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise SettingsError(f"{path} does not exist", fix="correct --dag-file")
        reader.entry(path, f"{FOLDER}/{path.name}", path)
    return reader.snapshot()


def judge_path(path: str) -> str:  # noqa: PLR0911  (one return a rule reads best)
    """Return why ``path`` (relative, with ``/``) cannot be stored everywhere; empty when it can."""
    if any(unicodedata.category(character) in _FORBIDDEN for character in path):
        return "it holds a control character, or is not UTF-8"
    if "\\" in path:
        return "it holds a backslash"
    if not _STAND_INS.isdisjoint(path):
        return "it holds a character that stands for another one"
    if not _WINDOWS.isdisjoint(path):
        return "it holds one of " + " ".join(sorted(_WINDOWS))
    parts = path.split("/")
    if any(unicodedata.normalize("NFKC", part) in {"", ".", ".."} for part in parts):
        return "it holds an empty, . or .. part"
    if any(part != part.strip() or part.endswith(".") for part in parts):
        return "a part of it begins or ends with a space, or ends with a dot"
    if unicodedata.normalize("NFC", path) != path:
        return "it is not in Unicode's composed form, which some systems change"
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        return f"a part of it has more than {_MAX_NAME_BYTES} bytes"
    if len(path.encode()) > _MAX_KEY_BYTES - _MAX_PREFIX_BYTES:
        return f"it has more than {_MAX_KEY_BYTES - _MAX_PREFIX_BYTES} bytes"
    return ""


def release_path_problems(files: Iterable[LocalFile]) -> list[Finding]:
    """Return what is wrong with names and sizes of a release as a whole."""
    files = list(files)
    found = []
    folded: dict[str, LocalFile] = {}
    for file in sorted(files, key=lambda file: file.path):
        # Folders as well: a/x and A/y meet in one folder where case does not count.
        parts = file.path.split("/")
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            other = folded.setdefault(name.casefold(), file)
            known = "/".join(other.path.split("/")[:depth])
            if known != name:
                found.append(
                    finding("ABP104", f"{name!r} and {known!r} differ in case only", file=file.shown)
                )
    if len(files) > MAX_FILES:
        found.append(finding("ABP106", f"the release has more than {MAX_FILES} files"))
    total = sum(len(file.content) for file in files)
    if total > MAX_RELEASE_BYTES:
        found.append(finding("ABP109", f"the release has {total} bytes, {MAX_RELEASE_BYTES} are allowed"))
    return found


class _Reader:
    """Walks a folder and never follows a link out of it."""

    def __init__(self) -> None:
        self._files: list[LocalFile] = []
        self._findings: list[Finding] = []
        self._bytes = 0

    def snapshot(self) -> Snapshot:
        files = tuple(sorted(self._files, key=lambda file: file.path))
        duplicates = {file.path for file in files}
        if len(duplicates) != len(files):
            raise SettingsError(
                "two of the files have one name", fix="give each --dag-file a name of its own"
            )
        return Snapshot(files, (*self._findings, *release_path_problems(files)))

    def folder(self, folder: Path, path: str, shown: Path) -> None:
        try:
            names = sorted(entry.name for entry in os.scandir(folder))
        except OSError as error:
            self._add("ABP110", f"the folder cannot be read: {error.strerror}", shown)
            return
        for name in names:
            self.entry(folder / name, f"{path}/{name}", shown / name)

    def entry(self, file: Path, path: str, shown: Path) -> None:
        name = file.name
        try:
            mode = file.lstat().st_mode
        except OSError as error:
            self._add("ABP110", f"it cannot be looked at: {error.strerror}", shown)
            return
        if (stat.S_ISDIR(mode) and name in _SKIPPED_FOLDERS) or name.endswith(_SKIPPED_SUFFIXES):
            return
        if why := judge_path(path):
            self._add("ABP101", f"the name cannot be stored: {why}", shown)
            return
        if (name.startswith(".") and name not in _WELCOME_HIDDEN) or name.endswith(_LEFTOVERS):
            self._add("ABP103", f"{name!r} is hidden, or what an editor left", shown)
            return
        if stat.S_ISDIR(mode):
            self.folder(file, path, shown)
        elif stat.S_ISREG(mode):
            self._read(file, path, shown)
        else:
            what = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            self._add("ABP102", f"it is {what}", shown)

    def _read(self, file: Path, path: str, shown: Path) -> None:
        limit = MAX_SOURCE_BYTES if path.endswith(".py") else MAX_FILE_BYTES
        try:
            # No link is followed here either, should one have taken the file's place meanwhile.
            descriptor = os.open(
                file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            )
            with os.fdopen(descriptor, "rb") as source:
                if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                    self._add("ABP102", "it is a special file", shown)
                    return
                content = source.read(limit + 1)
        except OSError as error:
            self._add("ABP110", f"it cannot be read: {error.strerror}", shown)
            return
        if len(content) > limit:
            self._add("ABP105", f"it has more than {limit} bytes", shown)
            return
        self._bytes += len(content)
        # Beyond the limits nothing more is kept: the fault is certain, and memory is not endless.
        if self._bytes <= MAX_RELEASE_BYTES and len(self._files) <= MAX_FILES:
            self._files.append(LocalFile(path, content, str(shown)))
        elif self._bytes > MAX_RELEASE_BYTES and not any(found.code == "ABP109" for found in self._findings):
            self._findings.append(finding("ABP109", f"the release has more than {MAX_RELEASE_BYTES} bytes"))

    def _add(self, code: str, message: str, shown: Path) -> None:
        name = str(shown).encode("utf-8", "backslashreplace").decode()
        printable = "".join(c if unicodedata.category(c) not in _FORBIDDEN else repr(c)[1:-1] for c in name)
        self._findings.append(finding(code, message, file=printable))
