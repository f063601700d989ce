"""The document of a tree: what a host needs to make a tree that it never had.

Every run of a DAG is tied to the tree that was current when it started (:mod:`airbridge.sync.store`). A host
that was away while that tree was current fetches it on demand, from this document. The control plane's
dag-sync writes one for every tree that it shows; the collector removes those that nothing needs any more.
They lie beside the environment's prefix, so that they cost nothing when it is listed::

    .airbridge/<env>/trees/<tree hash>.json.gz
    .airbridge/<env>/references.json      trees that unfinished DAG runs need, written by the collector

A document that lies is harmless: its files must give the tree's name
(:func:`airbridge.sync.store.name_tree`).
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Final

from airbridge.errors import IntegrityError

__all__ = [
    "FORMAT",
    "MAX_DOCUMENT_BYTES",
    "REFERENCES_FORMAT",
    "References",
    "TreeDocument",
    "TreeFile",
    "document_key",
    "read_document",
    "read_references",
    "references_key",
]

FORMAT: Final = "airbridge.tree/1"
REFERENCES_FORMAT: Final = "airbridge.references/1"

MAX_DOCUMENT_BYTES: Final = 64 * 1024 * 1024
"""Unpacked, a reader accepts no more: a hundred thousand files with long names."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file: ``path`` below the tree, SHA-256 (hex), bytes, and the S3 version that has this content.

    ``version_id`` is empty where the bucket keeps no versions.
    """

    path: str
    sha256: str
    size: int
    version_id: str


@dataclass(frozen=True, slots=True)
class TreeDocument:
    """A tree's files, and the release of each package that has one."""

    tree: str
    files: tuple[TreeFile, ...]
    releases: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return what is stored: JSON, compressed, the same bytes for the same document."""
        document = {
            "format": FORMAT,
            "tree": self.tree,
            "releases": self.releases,
            "files": [[file.path, file.sha256, file.size, file.version_id] for file in self.files],
        }
        return gzip.compress(json.dumps(document, sort_keys=True).encode(), mtime=0)


@dataclass(frozen=True, slots=True)
class References:
    """The trees that unfinished DAG runs started with, and when that was looked up (ISO 8601, UTC)."""

    trees: frozenset[str]
    written_at: str

    def to_bytes(self) -> bytes:
        """Return what is stored."""
        document = {"format": REFERENCES_FORMAT, "written_at": self.written_at, "trees": sorted(self.trees)}
        return json.dumps(document).encode()


def document_key(environment: str, tree: str) -> str:
    """Return the object key of the document of ``tree``."""
    return f".airbridge/{environment}/trees/{tree}.json.gz"


def references_key(environment: str) -> str:
    """Return the object key of the references."""
    return f".airbridge/{environment}/references.json"


def read_document(body: bytes, tree: str) -> TreeDocument:
    """Read the document of ``tree``; :class:`airbridge.errors.IntegrityError` when it is none."""
    try:
        unpacker = zlib.decompressobj(wbits=31)  # 31: a gzip header, the largest window
        text = unpacker.decompress(body, MAX_DOCUMENT_BYTES)
        if not unpacker.eof:
            raise ValueError("it is cut short, or larger than any")
        document = json.loads(text)
        if document["format"] != FORMAT or document["tree"] != tree:
            raise ValueError(f"it is a {document['format']!r} of {document['tree']!r}")
        return TreeDocument(
            tree=tree,
            files=tuple(
                TreeFile(str(path), str(sha256), int(size), str(version))
                for path, sha256, size, version in document["files"]
            ),
            releases={str(package): str(release) for package, release in document["releases"].items()},
        )
    except (OSError, zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"the document of tree {tree} cannot be read: {error}") from None


def read_references(body: bytes) -> References:
    """Read the references; :class:`airbridge.errors.IntegrityError` when they are none."""
    try:
        document = json.loads(body)
        if document["format"] != REFERENCES_FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        return References(frozenset(str(tree) for tree in document["trees"]), str(document["written_at"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise IntegrityError(f"the references cannot be read: {error}") from None
