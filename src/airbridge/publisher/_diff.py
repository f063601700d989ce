"""Compare two releases, or a folder with the current one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FileDiff", "Side", "compare"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of two: what it is called, SHA-256 by path, and how its contents are read."""

    name: str
    hashes: Mapping[str, str]
    read: Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class FileDiff:
    """One file that differs; ``text`` is a unified diff, empty for what is no text."""

    path: str
    change: str
    """``added``, ``removed`` or ``changed``."""
    added_lines: int
    removed_lines: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "path": self.path,
            "change": self.change,
            "added_lines": self.added_lines,
            "removed_lines": self.removed_lines,
        }


def compare(before: Side, after: Side) -> list[FileDiff]:
    """Return the files that differ, by path."""
    paths = sorted(set(before.hashes) | set(after.hashes))
    return [_file(path, before, after) for path in paths if before.hashes.get(path) != after.hashes.get(path)]


def _file(path: str, before: Side, after: Side) -> FileDiff:
    change = "added" if path not in before.hashes else "removed" if path not in after.hashes else "changed"
    old = before.read(path) if path in before.hashes else b""
    new = after.read(path) if path in after.hashes else b""
    try:
        lines = list(
            difflib.unified_diff(
                _lines(old),
                _lines(new),
                f"{before.name}/{path}" if change != "added" else "/dev/null",
                f"{after.name}/{path}" if change != "removed" else "/dev/null",
            )
        )
    except UnicodeDecodeError:
        return FileDiff(path, change, 0, 0, "")
    body = lines[2:]
    return FileDiff(
        path,
        change,
        added_lines=sum(line.startswith("+") for line in body),
        removed_lines=sum(line.startswith("-") for line in body),
        text="".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
        ),
    )


def _lines(content: bytes) -> list[str]:
    # Not splitlines(): only a line feed ends a line of a file, and the others would garble the diff.
    return [f"{line}\n" for line in content.decode().split("\n")[:-1]] + (
        [content.decode().split("\n")[-1]] if content and not content.endswith(b"\n") else []
    )
