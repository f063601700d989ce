"""Decide what an object key becomes in the store: a file, nothing of ours, or refused.

Anyone who may write the bucket chooses keys, so a key is hostile until it passed here: it must name one file
inside its package's directory on any Linux file system, and read the same in a log line.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

__all__ = ["MAX_NAME_BYTES", "MAX_PATH_BYTES", "Verdict", "judge_key"]

MAX_NAME_BYTES = 255
"""Longest file name on ext4, xfs, btrfs and overlayfs (NAME_MAX)."""

MAX_PATH_BYTES = 1024
"""Longest S3 key; with the store's own prefix still far below PATH_MAX (4096)."""

_METADATA = "metadata.json"
_DAGS = "dags"

# Control, format (bidirectional overrides hide what a name is), surrogate (not UTF-8), line and paragraph
# separators: they break logs, listings and the one-line-a-file text that names a tree.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# What rclone writes for characters that a name cannot hold, and reads back as these (its "standard"
# encoding): full-width slash, pictures of control characters, and its quote. A key made of them would be
# fetched from, and written to, another path: full-width dots and slash before x are "../x" to rclone.
_RCLONE_STAND_INS = frozenset("\uff0f\u201b\u2421" + "".join(map(chr, range(0x2400, 0x2420))))


class Verdict(NamedTuple):
    """What to do with a key: ``mirror`` it, else why it is ``refused``; neither means it is not ours."""

    mirror: bool
    refused: str = ""


_MIRROR = Verdict(mirror=True)
_IGNORE = Verdict(mirror=False)


def _refuse(why: str) -> Verdict:
    return Verdict(mirror=False, refused=why)


def judge_key(path: str) -> Verdict:  # noqa: PLR0911  (one return a rule reads best)
    """Judge ``path``: an object key without its environment prefix (``<package>/dags/x.py``).

    ``refused`` is a short reason, of a fixed set, fit for a metric label.
    """
    if any(unicodedata.category(character) in _FORBIDDEN for character in path):
        return _refuse("control character")
    if "\\" in path:
        return _refuse("backslash")
    if not _RCLONE_STAND_INS.isdisjoint(path):
        return _refuse("reserved character")
    if path.startswith("/"):
        return _refuse("absolute")
    parts = path.split("/")
    if any(unicodedata.normalize("NFKC", part) in {".", ".."} for part in parts):  # full-width dots too
        return _refuse("dot segment")
    if "" in parts[:-1]:
        return _refuse("empty segment")
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return _refuse("name too long")
    if not parts[-1]:
        return _IGNORE  # "folder" markers that consoles make
    if len(parts) == 2 and parts[1] == _METADATA:
        return _MIRROR
    if len(parts) >= 3 and parts[1] == _DAGS and "__pycache__" not in parts:
        return _MIRROR  # bytecode stays out: Python would trust it over a source of equal time and size
    return _IGNORE
