"""Remember which content each listed object has, so that a restart transfers nothing again.

The index is a cache of facts ("the object with this ETag, size and time has this SHA-256", "this content of
this path is this S3 version"); losing it costs one full transfer and nothing else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from airbridge.sync.s3 import RemoteObject

if TYPE_CHECKING:
    from collections.abc import Callable, Container
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
        self._saved: tuple[dict[str, Fact], dict[tuple[str, str], str]] = ({}, {})
        self.facts: dict[str, Fact] = {}
        self.versions: dict[tuple[str, str], str] = {}
        """S3 version by path and SHA-256, of the files for which it was asked."""

    def load(self) -> None:
        """Read the file; an absent, foreign or damaged one leaves the index empty."""
        try:
            document = json.loads(self._path.read_bytes())
            if document["format"] != _FORMAT or document["source"] != self._source:
                return
            self.facts = {
                row[0]: Fact(RemoteObject(str(row[0]), str(row[1]), int(row[2]), str(row[3])), str(row[4]))
                for row in document["objects"]
            }
            self.versions = {
                (str(path), str(sha256)): str(version)
                for path, sha256, version in document.get("versions", ())
            }
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            self.facts, self.versions = {}, {}
        self._saved = dict(self.facts), dict(self.versions)

    def knows(self, item: RemoteObject, entry: Entry | None) -> bool:
        """Tell whether ``entry``, a local file, is known to be the content of ``item``."""
        fact = self.facts.get(item.path)
        return fact is not None and entry is not None and fact.listed == item and fact.sha256 == entry.sha256

    def forget(self, listed: Container[str], needed: Callable[[str, str], bool]) -> None:
        """Keep what is said about ``listed`` paths, and versions of contents that are ``needed``."""
        self.facts = {path: fact for path, fact in self.facts.items() if path in listed}
        self.versions = {
            (path, sha256): version
            for (path, sha256), version in self.versions.items()
            if needed(path, sha256) or ((fact := self.facts.get(path)) and fact.sha256 == sha256)
        }

    def save(self) -> None:
        """Write the file if a fact changed."""
        if (self.facts, self.versions) == self._saved:
            return
        document = {
            "format": _FORMAT,
            "source": self._source,
            "objects": [[*fact.listed, fact.sha256] for fact in self.facts.values()],
            "versions": [[*content, version] for content, version in self.versions.items()],
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(document), encoding="utf-8")
        fresh.replace(self._path)
        self._saved = dict(self.facts), dict(self.versions)
