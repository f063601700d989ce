"""Write the DAG store: build immutable trees, flip to them, mend and collect them.

Every step leaves a whole tree behind ``current``, whatever kills the process between two system calls:
a tree is built out of sight, made durable, renamed into ``trees/`` in one step, and only then linked.
What a dead process left over is in ``.sync/`` and removed at the next start.

Passes and requests for single trees write from different threads: what changes or removes trees holds
:attr:`TreeStore.guard`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from airbridge.errors import AirbridgeError, RefusedError, SettingsError
from airbridge.sync.store import CURRENT, TREES, Tree, current_tree, tree, tree_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

__all__ = ["Entry", "StoreError", "TreeStore", "digests", "link", "seal", "store_error"]

PRIVATE = ".sync"
"""Directory in the store that is dag-sync's own: lock, index, staging, trees being built or removed."""

_FILE_MODE = 0o444
_DIRECTORY_MODE = 0o555
_WRITABLE = 0o755
_OTHER_FILE = "not a regular file"  # stands where a content's SHA-256 would: equal to none
_CHUNK = 1 << 20


class StoreError(AirbridgeError):
    """The DAG store's file system refused; the old tree is untouched. ``full``: for want of space."""

    full = False

    @classmethod
    def no_space(cls, root: Path, detail: str = "") -> StoreError:
        """Make the error of a full disk."""
        error = cls(
            f"DAG_STORE={root}: no space left" + (f": {detail}" if detail else ""),
            fix="free disk space or enlarge the volume; the old tree stays until then",
        )
        error.full = True
        return error


class Entry(NamedTuple):
    """One file of a tree: SHA-256 of its content (hex) and size in bytes."""

    sha256: str
    size: int


def digests(path: Path) -> tuple[str, str, int]:
    """Return SHA-256 (hex), MD5 (hex, what S3 calls ETag) and size of the file at ``path``, read once."""
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False)
    size = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return sha256.hexdigest(), md5.hexdigest(), size


def store_error(error: OSError, store: Path) -> StoreError:
    """Explain ``error`` of the store's file system in one line that names ``DAG_STORE``."""
    where = f"DAG_STORE={store}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreError.no_space(store)
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StoreError(
            f"{where} is not writable for uid {os.getuid()}: {error.strerror} ({error.filename})",
            fix="mount the volume read-write and make it belong to that uid",
        )
    return StoreError(
        f"{where}: {error.strerror or error} ({error.filename})", fix="look at the volume's disk"
    )


class TreeStore:
    """The store at ``root``, locked against a second writer from :meth:`open` until the process ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / PRIVATE
        self.guard = threading.RLock()
        """Held while trees come or go, and while one is linked from that must not go."""
        self._trees = root / TREES
        self._lock: int | None = None
        self._workspaces: set[str] = set()

    def open(self) -> None:
        """Make the directories, take the lock, remove what a killed process left.

        Raises :class:`SettingsError` when the store is missing or not writable, :class:`RefusedError` when
        another dag-sync holds it.
        """
        try:
            if not self.root.is_dir():
                raise SettingsError(
                    f"DAG_STORE={self.root} is no directory", fix="mount the DAG store's volume there"
                )
            self.private.mkdir(mode=0o700, exist_ok=True)
            self._lock = self._take_lock()
            self._trees.mkdir(exist_ok=True)
            self._trees.chmod(_WRITABLE)
            self.clear_private()
        except OSError as error:
            failure = store_error(error, self.root)
            raise SettingsError(failure.what, fix=failure.fix) from None

    def _take_lock(self) -> int:
        descriptor = os.open(self.private / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise RefusedError(
                f"DAG_STORE={self.root} is in use by another dag-sync ({holder})",
                fix="run one dag-sync a store: stop the other one or give this one its own volume",
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"host {os.uname().nodename}, pid {os.getpid()}\n".encode())
        return descriptor

    def close(self) -> None:
        """Let the lock go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def clear_private(self) -> None:
        """Remove staging, unfinished and discarded trees; lock, index and workspaces in use stay."""
        with self.guard:
            for leftover in self.private.iterdir():
                if leftover.name not in {"lock", "index.json"} | self._workspaces:
                    _remove(leftover)

    @contextlib.contextmanager
    def workspace(self, purpose: str) -> Iterator[Path]:
        """Make a private directory that no :meth:`clear_private` of another thread takes away."""
        with self.guard:
            path = self.new_directory(purpose)
            self._workspaces.add(path.name)
        try:
            yield path
        finally:
            with self.guard:
                self._workspaces.discard(path.name)
                with contextlib.suppress(OSError):  # tried again by clear_private()
                    _remove(path)

    def new_directory(self, purpose: str) -> Path:
        """Make an empty private directory on the store's file system."""
        path = self.private / f"{purpose}-{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
        path.mkdir()
        return path

    def current(self) -> Tree | None:
        """Return the current tree."""
        return current_tree(self.root)

    def free_bytes(self) -> int:
        """Return how many bytes this user can still write."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    # Reading what is there

    def newest_first(self) -> list[Path]:
        """Return the trees of the store: the current one, then those that were current last."""
        current = self.current()
        aged: list[tuple[bool, float, Path]] = []
        for tree_hash in tree_hashes(self.root):
            path = self._trees / tree_hash
            aged.append((current is not None and tree_hash == current.hash, path.stat().st_mtime, path))
        return [path for _, _, path in sorted(aged, reverse=True)]

    def touch(self, tree_hash: str) -> bool:
        """Note that a tree is used now, for :meth:`collect`; return whether the store has it."""
        with self.guard:
            path = tree(self.root, tree_hash)
            if path is not None:
                os.utime(path)
            return path is not None

    def scan(self, path: Path) -> dict[str, Entry]:
        """Read the tree at ``path`` whole: relative path to entry; modes that went astray are set right.

        Anything but a regular file gets an entry that equals no content.
        """
        found: dict[str, Entry] = {}
        for directory, _, names in _walk(path):
            _set_mode(directory, _DIRECTORY_MODE)
            for name in names:
                file = directory / name
                relative = file.relative_to(path).as_posix()
                if not stat.S_ISREG(file.lstat().st_mode):
                    found[relative] = Entry(_OTHER_FILE, 0)
                    continue
                _set_mode(file, _FILE_MODE)
                sha256, _, size = digests(file)
                found[relative] = Entry(sha256, size)
        return found

    # Writing

    def build(self, tree_hash: str, files: Mapping[str, Entry], sources: Mapping[str, Path]) -> Path:
        """Make sure that ``trees/<tree_hash>`` holds exactly ``files``, and return it.

        ``sources`` says for each path which file of the same file system has its content. A tree of that
        name that is already there is used if every byte is right, else built anew.
        """
        with self.guard:
            return self._build(tree_hash, files, sources)

    def _build(self, tree_hash: str, files: Mapping[str, Entry], sources: Mapping[str, Path]) -> Path:
        existing = tree(self.root, tree_hash)
        if existing is not None:
            if self.scan(existing) == files:
                return existing
            self._discard(existing)
        building = self.new_directory("build")
        made: set[str] = set()
        for path in files:  # plain strings: with ten thousand files, making paths costs as much as linking
            parent = path.rpartition("/")[0]
            if parent not in made:
                (building / parent).mkdir(parents=True, exist_ok=True)
                while parent and parent not in made:
                    made.add(parent)
                    parent = parent.rpartition("/")[0]
            link(sources[path], f"{building}/{path}")
        for name in sorted(made, reverse=True):  # a directory before the one it is in
            (building / name).chmod(_DIRECTORY_MODE)
            _sync(building / name)
        _sync(building)
        # Moving a directory needs write permission on it, so the top gets its mode afterwards.
        building.chmod(_WRITABLE)
        finished = self._trees / tree_hash
        building.rename(finished)
        finished.chmod(_DIRECTORY_MODE)
        _sync(self._trees)
        return finished

    def flip(self, tree_hash: str, changed: list[str]) -> None:
        """Point ``current`` at ``trees/<tree_hash>`` in one step.

        ``changed`` are the paths whose content differs from the tree before: their modification time becomes
        now, because Airflow parses a file again at once only when its time moved forward.
        """
        target = self._trees / tree_hash
        for path in changed:
            os.utime(target / path)
        before = self.current()
        if before is not None:
            os.utime(before.path)  # its time says until when it was current: see collect()
        os.utime(target)
        with self.guard:
            link = self.private / f"{CURRENT}-{time.monotonic_ns()}"
            link.symlink_to(f"{TREES}/{tree_hash}")
            link.replace(self.root / CURRENT)
            _sync(self.root)

    def mend(
        self, path: Path, files: Mapping[str, Entry], found: Mapping[str, Entry], sources: Mapping[str, Path]
    ) -> int:
        """Make the tree at ``path``, which holds ``found``, hold ``files`` again; return how many were wrong.

        Each file is replaced in one step, also where other trees share the damaged one by hard link.
        """
        with self.guard:
            return self._mend(path, files, found, sources)

    def _mend(
        self, path: Path, files: Mapping[str, Entry], found: Mapping[str, Entry], sources: Mapping[str, Path]
    ) -> int:
        mended = 0
        for relative in found.keys() - files.keys():
            with _writable(path / relative):
                _remove(path / relative)
            mended += 1
        for relative, entry in files.items():
            if found.get(relative) == entry:
                continue
            target = path / relative
            damaged = target.lstat().st_ino if os.path.lexists(target) else None
            others = [
                other
                for tree_hash in tree_hashes(self.root)
                if (other := self._trees / tree_hash / relative) != target
                and damaged is not None
                and os.path.lexists(other)
                and other.lstat().st_ino == damaged
            ]
            for place in (target, *others):
                self._put(sources[relative], place)
            mended += 1
        return mended

    def _put(self, source: Path, target: Path) -> None:
        fresh = self.private / f"put-{time.monotonic_ns()}"
        link(source, fresh)
        missing = [above for above in target.parents if not above.exists()]
        with _writable(missing[-1] if missing else target):
            for directory in reversed(missing):
                directory.mkdir()
            if target.is_dir() and not target.is_symlink():
                _remove(target)
            fresh.replace(target)
            for directory in missing:
                directory.chmod(_DIRECTORY_MODE)
        _sync(target.parent)

    def removable(self, keep: int, seconds: float) -> list[str]:
        """Return the hashes of the trees that are old: beyond ``keep`` and not used within ``seconds``.

        The current tree never is. A tree is used when it stops being the current one, and when it is asked
        for (:meth:`touch`).
        """
        current = self.current()
        aged: list[tuple[float, str]] = []
        for tree_hash in tree_hashes(self.root):
            if current is None or tree_hash != current.hash:
                aged.append(((self._trees / tree_hash).stat().st_mtime, tree_hash))
        aged.sort(reverse=True)
        oldest = time.time() - seconds
        return [tree_hash for until, tree_hash in aged[max(0, keep - 1) :] if until < oldest]

    def collect(
        self, keep: int, seconds: float, spared: Callable[[], Container[str]] = frozenset
    ) -> list[str]:
        """Remove the trees that are old (:meth:`removable`) but those ``spared``; return their hashes.

        ``spared`` is asked with the guard held, so that no tree goes that somebody began to use just now.
        """
        with self.guard:
            self.clear_private()
            stay = spared()
            removed = [tree_hash for tree_hash in self.removable(keep, seconds) if tree_hash not in stay]
            for tree_hash in removed:
                self._discard(self._trees / tree_hash)
            return removed

    def _discard(self, path: Path) -> None:
        """Take a tree out of sight in one step, then delete it."""
        path.chmod(_WRITABLE)
        away = self.private / f"discard-{time.monotonic_ns()}"
        path.rename(away)
        _remove(away)


def _walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk like ``Path.walk`` of Python 3.12, errors raised, symlinks listed as files."""

    def fail(error: OSError) -> None:
        raise error

    for directory, directories, names in os.walk(top, onerror=fail):
        links = [name for name in directories if (Path(directory) / name).is_symlink()]
        yield Path(directory), directories, names + links


def _set_mode(path: Path, mode: int) -> None:
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Allow changes in the directory of ``path`` for a moment."""
    directory = path.parent
    directory.chmod(_WRITABLE)
    try:
        yield
    finally:
        directory.chmod(_DIRECTORY_MODE)


def link(source: Path, target: str | Path) -> None:
    """Hard-link, or copy where the file system or the number of links does not allow that."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV}:
            raise
        shutil.copyfile(source, target)
        seal(Path(target))


def _sync(path: Path) -> None:
    """Make a file's content or a directory's entries durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(path: Path) -> None:
    """Make a fetched file what files of trees are: read-only and durable."""
    path.chmod(_FILE_MODE)
    _sync(path)


def _remove(path: Path) -> None:
    """Delete a file or a read-only directory tree."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(_WRITABLE)
    shutil.rmtree(path)
