"""Read the DAG store: which tree is current, where a tree is, and how a tree gets its name.

For readers (the DAG bundle, ``diag``) and for dag-sync itself. Imports the standard library only, writes
nothing, needs no lock: trees are immutable and the symlink ``current`` changes in one ``rename(2)``.

A reader that walks a tree must resolve ``current`` **once**, with :func:`current_tree`, and walk the path it
got back; walking through the symlink could cross a flip between two files. (The idea of a relative symlink
flipped by rename is git-sync's: https://github.com/kubernetes/git-sync.)
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "CURRENT",
    "TREES",
    "Tree",
    "current_tree",
    "is_tree_hash",
    "name_tree",
    "tree",
    "tree_hashes",
]

CURRENT = "current"
"""Name of the symlink in the store's root; its target is always ``trees/<tree hash>``."""

TREES = "trees"
"""Name of the directory that holds the immutable trees."""

_HASH = re.compile(r"[0-9a-f]{64}")


class Tree(NamedTuple):
    """One immutable tree: its ``hash`` (64 hex digits) and its real ``path`` (no symlink in it)."""

    hash: str
    path: Path


def is_tree_hash(text: str) -> bool:
    """Tell whether ``text`` can be the name of a tree: 64 lower-case hex digits."""
    return _HASH.fullmatch(text) is not None


def current_tree(store: Path) -> Tree | None:
    """Return the tree that ``<store>/current`` points at, or ``None`` before the first sync.

    ``store`` is the root of the DAG store (the mount point, never the symlink). The path returned stays valid
    after later flips, for as long as dag-sync keeps the tree (``DAG_SYNC_KEEP_TREES`` and
    ``DAG_SYNC_KEEP_SECONDS``). A link that points anywhere but into ``trees/`` counts as absent.
    """
    try:
        parent, _, name = (store / CURRENT).readlink().as_posix().rpartition("/")
    except OSError:
        return None
    if parent != TREES:
        return None
    path = tree(store, name)
    return None if path is None else Tree(name, path)


def tree(store: Path, tree_hash: str) -> Path | None:
    """Return the directory of the tree named ``tree_hash``, or ``None`` when this store does not have it.

    Anything but 64 hex digits is ``None`` too, so a name from outside cannot lead out of the store.
    """
    if not is_tree_hash(tree_hash):
        return None
    path = store / TREES / tree_hash
    return path if path.is_dir() and not path.is_symlink() else None


def tree_hashes(store: Path) -> list[str]:
    """Return the hashes of all trees in the store, sorted; empty when there is none."""
    try:
        return sorted(p.name for p in (store / TREES).iterdir() if is_tree_hash(p.name) and p.is_dir())
    except OSError:
        return []


def name_tree(files: Iterable[tuple[str, str]]) -> str:
    """Return the hash that names a tree of ``files``: pairs of relative POSIX path and SHA-256 (hex).

    The same files give the same name on every host, in whatever order they come. It is the SHA-256 of what
    ``sha256sum`` prints for the paths in byte order, so that a person can check a tree by hand::

        cd <store>/current/
        find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -rd'\\n' sha256sum | sha256sum

    Paths must hold no control character and no backslash (dag-sync refuses such keys); that is what makes the
    text unambiguous.
    """
    digest = hashlib.sha256()
    for path, content in sorted((path.encode(), content) for path, content in files):
        digest.update(b"%s  %s\n" % (content.encode(), path))
    return digest.hexdigest()
