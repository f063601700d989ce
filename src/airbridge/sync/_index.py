"""Remember which content each listed object has, so that a restart transfers nothing again.

The index is a cache of facts ("the object with this ETag, size and time has this SHA-256"); losing it costs
one full transfer and nothing else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from airbridge.sync._s3 import RemoteObject

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.sync._trees import Entry

__all__ = ["Fact", "Index"]

_FORMAT = 1


class Fact(NamedTuple):
    """An object as it was listed, and the SHA-256 (hex) of its content."""

    listed: RemoteObject
    sha256: str


class Index:
    """Facts by path, kept in one JSON file that is replaced as a whole."""

    def __init__(self, path: Path, source: str) -> None:
        """Use the file at ``path``; ``source`` names bucket and prefix, facts about another one are void."""
        self._path = path
        self._source = source
        self._saved: dict[str, Fact] = {}
        self.facts: dict[str, Fact] = {}

    def load(self) -> None:
        """Read the file; an absent, foreign or damaged one leaves the index empty."""
        try:
            document = json.loads(self._path.read_bytes())
            if document["format"] != _FORMAT or document["source"] != self._source:
                return
            rows = document["objects"]
            self.facts = {
                row[0]: Fact(RemoteObject(str(row[0]), str(row[1]), int(row[2]), str(row[3])), str(row[4]))
                for row in rows
            }
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            self.facts = {}
        self._saved = dict(self.facts)

    def knows(self, item: RemoteObject, entry: Entry | None) -> bool:
        """Tell whether ``entry``, a local file, is known to be the content of ``item``."""
        fact = self.facts.get(item.path)
        return fact is not None and entry is not None and fact.listed == item and fact.sha256 == entry.sha256

    def save(self) -> None:
        """Write the file if a fact changed."""
        if self.facts == self._saved:
            return
        rows = [[*fact.listed, fact.sha256] for fact in self.facts.values()]
        fresh = self._path.with_suffix(".new")
        fresh.write_text(
            json.dumps({"format": _FORMAT, "source": self._source, "objects": rows}), encoding="utf-8"
        )
        fresh.replace(self._path)
        self._saved = dict(self.facts)
