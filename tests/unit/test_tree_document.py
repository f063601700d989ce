from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airbridge.errors import IntegrityError
from airbridge.tree_document import (
    MAX_DOCUMENT_BYTES,
    References,
    TreeDocument,
    TreeFile,
    document_key,
    read_document,
    read_references,
    references_key,
)

TREE = "ab" * 32
SHA256 = hashlib.sha256(b"x").hexdigest()

tree_files = st.builds(
    TreeFile,
    path=st.text(max_size=20),
    sha256=st.just(SHA256),
    size=st.integers(0, 1 << 40),
    version_id=st.text(max_size=8),
)
documents = st.builds(
    TreeDocument,
    tree=st.just(TREE),
    files=st.lists(tree_files, max_size=5).map(tuple),
    releases=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)


@given(document=documents)
def test_a_document_that_was_written_is_what_is_read(document: TreeDocument) -> None:
    assert read_document(document.to_bytes(), TREE) == document
    assert document.to_bytes() == document.to_bytes()


@given(trees=st.frozensets(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=4))
def test_references_that_were_written_are_what_is_read(trees: frozenset[str]) -> None:
    references = References(trees, "2026-11-21T12:45:01+00:00")
    assert read_references(references.to_bytes()) == references
    assert references.to_bytes() == references.to_bytes()


@given(body=st.binary(max_size=60))
def test_other_bytes_are_refused(body: bytes) -> None:
    for made in (body, gzip.compress(body)):
        with pytest.raises(IntegrityError):
            read_document(made, TREE)
        with pytest.raises(IntegrityError):
            read_references(made)


def document_with(**changes: Any) -> bytes:
    whole = {"format": "airbridge.tree/1", "tree": TREE, "releases": {}, "files": [["a", SHA256, 1, "v"]]}
    return gzip.compress(json.dumps({**whole, **changes}).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "airbridge.tree/2"},
        {"tree": "cd" * 32},
        {"files": None},
        {"files": [["a", SHA256, 1]]},
        {"files": [["a", SHA256, "many", "v"]]},
        {"files": [7]},
        {"releases": []},
        {"releases": None},
    ],
)
def test_a_document_of_something_else_is_refused(changes: dict[str, Any]) -> None:
    assert read_document(document_with(), TREE).files == (TreeFile("a", SHA256, 1, "v"),)
    with pytest.raises(IntegrityError, match=f"the document of tree {TREE} cannot be read"):
        read_document(document_with(**changes), TREE)


def test_a_document_that_is_cut_short_is_refused() -> None:
    whole = document_with()
    for length in range(len(whole)):
        with pytest.raises(IntegrityError):
            read_document(whole[:length], TREE)


def test_a_small_document_that_unpacks_without_end_is_refused() -> None:
    bomb = gzip.compress(b"[" + b" " * (MAX_DOCUMENT_BYTES + 1) + b"]")
    assert len(bomb) < MAX_DOCUMENT_BYTES // 100
    with pytest.raises(IntegrityError, match="larger than any"):
        read_document(bomb, TREE)


@pytest.mark.parametrize(
    "body",
    [
        b'{"format": "airbridge.references/2", "written_at": "", "trees": []}',
        b'{"format": "airbridge.references/1", "trees": []}',
        b'{"format": "airbridge.references/1", "written_at": "", "trees": 7}',
    ],
)
def test_references_of_something_else_are_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError, match="the references cannot be read"):
        read_references(body)


def test_documents_lie_beside_every_environment() -> None:
    assert document_key("dev", TREE) == f".airbridge/dev/trees/{TREE}.json.gz"
    assert references_key("dev") == ".airbridge/dev/references.json"
