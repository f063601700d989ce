from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airbridge.sync.store import Tree, current_tree, name_tree, tree, tree_hashes

if TYPE_CHECKING:
    from pathlib import Path

HASH = "ab" * 32
CONTENT = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())
FILES = st.dictionaries(st.text("abzé/._- ", min_size=1, max_size=12), CONTENT, max_size=6)


def make_tree(store: Path, name: str = HASH) -> Path:
    path = store / "trees" / name
    path.mkdir(parents=True)
    return path


def test_a_store_before_its_first_sync_has_no_tree(tmp_path: Path) -> None:
    assert current_tree(tmp_path) is None
    assert current_tree(tmp_path / "absent") is None
    assert tree(tmp_path, HASH) is None
    assert tree_hashes(tmp_path) == []


def test_the_current_tree_is_where_the_link_points(tmp_path: Path) -> None:
    path = make_tree(tmp_path)
    (tmp_path / "current").symlink_to(f"trees/{HASH}")
    assert current_tree(tmp_path) == Tree(HASH, path)
    assert tree(tmp_path, HASH) == path
    assert tree_hashes(tmp_path) == [HASH]


@pytest.mark.parametrize(
    "target", ["trees/../../etc", "/etc", "trees", f"other/{HASH}", f"trees/{HASH}/x", "trees/" + "cd" * 32]
)
def test_a_link_that_points_elsewhere_counts_as_absent(tmp_path: Path, target: str) -> None:
    make_tree(tmp_path)
    (tmp_path / "current").symlink_to(target)
    assert current_tree(tmp_path) is None


@pytest.mark.parametrize("name", ["", "..", "../trees/" + HASH, HASH.upper(), HASH + "\n", "g" * 64])
def test_only_a_hash_names_a_tree(tmp_path: Path, name: str) -> None:
    make_tree(tmp_path)
    assert tree(tmp_path, name) is None


def test_a_symlink_among_the_trees_is_no_tree(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "trees" / ("cd" * 32)).symlink_to(HASH)
    assert tree(tmp_path, "cd" * 32) is None


@given(FILES)
def test_the_name_of_a_tree_does_not_depend_on_the_order(files: dict[str, str]) -> None:
    assert name_tree(files.items()) == name_tree(reversed(list(files.items())))


@given(FILES, FILES)
def test_trees_share_a_name_only_if_they_share_every_file(one: dict[str, str], other: dict[str, str]) -> None:
    assert (name_tree(one.items()) == name_tree(other.items())) == (one == other)


def test_a_person_can_check_the_name_with_sha256sum(tmp_path: Path) -> None:
    contents = {"b/dags/z.py": b"1", "b/dags/é x.py": b"", "a/dags/Z.py": b"2\n", "a/metadata.json": b"{}"}
    for path, data in contents.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    by_hand = subprocess.run(
        "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -rd'\\n' sha256sum | sha256sum",
        shell=True, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split()[0]  # fmt: skip
    assert name_tree((path, hashlib.sha256(data).hexdigest()) for path, data in contents.items()) == by_hand


def test_reading_the_store_imports_the_standard_library_only() -> None:
    listing = "import sys, airbridge.sync.store; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    foreign = {name for name in modules if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign - {"sitecustomize", "distutils-precedence"} == {"airbridge"}
