"""Decide which objects of a listing belong into the store, and say once what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airbridge.sync._keys import judge_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import structlog

    from airbridge.sync._releases import Release
    from airbridge.sync.s3 import RemoteObject

__all__ = ["Selection"]

_MAX_LINES = 50  # keys of one kind that get a log line of their own per pass


class Selection:
    """Chooses objects by their keys; remembers what it said about the others."""

    def __init__(self, prefix: str, log: structlog.typing.FilteringBoundLogger) -> None:
        self._prefix = prefix
        self._log = log
        self._refused_before: frozenset[str] = frozenset()
        self._drift_before: frozenset[str] = frozenset()

    def choose(self, listed: Iterable[RemoteObject]) -> tuple[dict[str, RemoteObject], dict[str, int]]:
        """Return the objects that become files, by path, and how many keys were refused for which reason."""
        chosen: dict[str, RemoteObject] = {}
        refused: dict[str, str] = {}
        for item in listed:  # sorted: a file comes before what would need it as a directory
            verdict = judge_key(item.path)
            if verdict.refused:
                refused[item.path] = verdict.refused
            elif verdict.mirror:
                if any(above in chosen for above in _ancestors(item.path)):
                    refused[item.path] = "below a file"
                else:
                    chosen[item.path] = item
        new = sorted(refused.keys() - self._refused_before)
        for path in new[:_MAX_LINES]:
            self._log.warning(
                "key refused", key=self.key(path), reason=refused[path], fix="delete or rename the object"
            )
        if len(new) > _MAX_LINES:
            self._log.warning("more keys refused", count=len(new) - _MAX_LINES)
        self._refused_before = frozenset(refused)
        counts: dict[str, int] = {}
        for reason in refused.values():
            counts[reason] = counts.get(reason, 0) + 1
        return chosen, counts

    def count_drift(self, objects: Iterable[str], releases: Mapping[str, Release]) -> int:
        """Return how many of ``objects`` lie in a package whose manifest does not name them."""
        drift = {
            path
            for path in objects
            if (release := releases.get(path.partition("/")[0])) and path not in release.files
        }
        new = sorted(drift - self._drift_before)
        for path in new[:_MAX_LINES]:
            self._log.warning(
                "drift",
                key=self.key(path),
                reason="the package's manifest does not name it, so it is not mirrored",
                fix="publish the package again or delete the object, unless a publish is under way",
            )
        if len(new) > _MAX_LINES:
            self._log.warning("more drift", count=len(new) - _MAX_LINES)
        self._drift_before = frozenset(drift)
        return len(drift)

    def key(self, path: str) -> str:
        """Return the object key of ``path``; what is not UTF-8 in it is escaped."""
        return (self._prefix + path).encode("utf-8", "backslashreplace").decode()


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]
