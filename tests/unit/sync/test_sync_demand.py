"""Trees made on demand: from the document that the control plane wrote, on a host that never had them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sync_peer import Answer, Peer, Request, error, read_tree
from sync_rig import Rig, make_rig, references
from tests.release_writer import ReleaseWriter

from airbridge.errors import AirbridgeError, IntegrityError, UnreachableError
from airbridge.sync._on_demand import UnknownTreeError
from airbridge.sync._trees import StoreError
from airbridge.sync.store import current_tree, name_tree, tree_hashes
from airbridge.tree_document import TreeDocument, TreeFile, document_key, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airbridge.sync._settings import Settings

ONE = {"dags/a.py": "a = 1\n", "dags/same.py": "same\n"}
TWO = {"dags/a.py": "a = 2\n", "dags/same.py": "same\n", "dags/new.py": "n = 1\n"}


@pytest.fixture
def writer(peer: Peer) -> ReleaseWriter:
    def put(key: str, body: bytes) -> tuple[str, str]:
        stored = peer.put(key, body)
        return stored.etag, stored.version

    return ReleaseWriter(put)


@pytest.fixture
def control(peer: Peer, settings: Settings) -> Iterator[Rig]:
    """The control plane's dag-sync, which writes documents."""
    rig = make_rig(peer, settings.model_copy(update={"dag_sync_publish_trees": True}))
    yield rig
    rig.store.close()


@pytest.fixture
def edge_settings(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "edge").mkdir()
    return settings.model_copy(update={"dag_store": tmp_path / "edge"})


@pytest.fixture
def edge(peer: Peer, edge_settings: Settings) -> Iterator[Rig]:
    rig = make_rig(peer, edge_settings)
    yield rig
    rig.store.close()


def tree_of(rig: Rig, tree_hash: str) -> dict[str, bytes]:
    return read_tree(rig.settings.dag_store / "trees" / tree_hash)


# --- documents -------------------------------------------------------------------------------------


def document_of(peer: Peer, tree_hash: str) -> TreeDocument:
    return read_document(peer.objects[document_key("dev", tree_hash)].body, tree_hash)


def test_a_tree_has_its_document_before_anyone_sees_it(
    peer: Peer, writer: ReleaseWriter, control: Rig
) -> None:
    seen: list[object] = []

    def look(request: Request) -> None:
        if request.operation == "put":
            seen.append(current_tree(control.settings.dag_store))

    peer.fault = look
    one = writer.publish("etl", ONE)
    peer.put("dev/plain/dags/p.py", "p")
    first = control.run(full=True).tree
    assert seen == [None]
    document = document_of(peer, first)
    assert {file.path: file.version_id for file in document.files} == {
        key.removeprefix("dev/"): stored.version
        for key, stored in peer.objects.items()
        if key.startswith("dev/")
    }
    assert document.releases == {"etl": one.manifest.release}
    writer.publish("etl", TWO)
    second = control.run().tree
    assert [tree and tree.hash for tree in seen] == [None, first]
    assert document_of(peer, second).tree == second


def test_only_versions_that_nobody_knows_are_asked_for_and_once(
    peer: Peer, writer: ReleaseWriter, control: Rig
) -> None:
    for number in range(12):
        peer.put(f"dev/plain/dags/{number}.py", str(number))
    writer.publish("etl", ONE)
    control.run(full=True)
    heads = [request.key for request in peer.requests if request.operation == "head"]
    assert sorted(key for key in heads if key.startswith("dev/")) == sorted(
        f"dev/plain/dags/{number}.py" for number in range(12)
    )
    peer.requests.clear()
    peer.put("dev/plain/dags/3.py", "three")
    control.run()
    heads = [request.key for request in peer.requests if request.operation == "head"]
    assert [key for key in heads if key.startswith("dev/")] == ["dev/plain/dags/3.py"]


def test_a_tree_that_comes_back_and_a_restart_write_no_document_again(
    peer: Peer, control: Rig, settings: Settings
) -> None:
    for content in ("one", "two", "one"):
        peer.put("dev/etl/dags/a.py", content)
        control.run(full=True)
    assert peer.count("put") == 2
    control.store.close()
    peer.requests.clear()
    again = make_rig(peer, control.settings)
    again.run(full=True)
    again.run(full=True)
    assert (peer.count("put"), peer.count("head")) == (0, 1)
    again.store.close()


def test_a_document_that_grew_old_is_written_again(peer: Peer, control: Rig) -> None:
    peer.put("dev/etl/dags/a.py", "one")
    tree_hash = control.run(full=True).tree
    key = document_key("dev", tree_hash)
    peer.objects[key].headers["Last-Modified"] = "Thu, 01 Jan 2026 00:00:00 GMT"
    control.store.close()
    peer.requests.clear()
    again = make_rig(peer, control.settings)
    again.run(full=True)
    assert [request.key for request in peer.requests if request.operation == "put"] == [key]
    again.store.close()


def test_a_document_that_cannot_be_written_stops_no_flip_and_is_tried_again(
    peer: Peer, control: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airbridge.sync._documents._RETRY_SECONDS", 0.0)
    peer.put("dev/etl/dags/a.py", "one")
    peer.fault = lambda request: (403, {}, error("AccessDenied")) if request.operation == "put" else None
    tree_hash = control.run(full=True).tree
    assert control.seen() == {"etl/dags/a.py": b"one"}
    assert "AccessDenied" in control.mirror.documents.trouble
    assert control.log("tree document not written")[0]["level"] == "warning"
    assert control.run().result == "unchanged"
    assert len(control.log("tree document not written")) == 2
    peer.fault = lambda _request: None
    assert control.run().result == "unchanged"
    assert control.mirror.documents.trouble == ""
    assert document_of(peer, tree_hash).tree == tree_hash


def test_a_held_package_is_documented_with_the_versions_of_what_it_shows(
    peer: Peer, writer: ReleaseWriter, control: Rig, edge: Rig
) -> None:
    one = writer.publish("etl", ONE)
    control.run(full=True)
    peer.put("dev/etl/metadata.json", b'{"format": "airbridge.release/1"}')
    peer.put("dev/etl/dags/a.py", "overwritten")
    peer.put("dev/plain/dags/p.py", "p")
    control.store.close()
    again = make_rig(peer, control.settings)  # nothing is remembered but what is in the store
    outcome = again.run(full=True)
    assert set(outcome.held) == {"etl"}
    assert document_of(peer, outcome.tree).releases == {"etl": one.manifest.release}
    edge.run(full=True)
    edge.demand.fetch(outcome.tree)
    assert tree_of(edge, outcome.tree) == one.seen | {"plain/dags/p.py": b"p"}
    again.store.close()


def test_a_dag_sync_that_was_not_told_to_writes_nothing(peer: Peer, writer: ReleaseWriter, rig: Rig) -> None:
    writer.publish("etl", ONE)
    rig.run(full=True)
    assert peer.count("put") == 0


# --- fetching --------------------------------------------------------------------------------------


def test_a_tree_that_the_host_never_had_is_made_of_what_it_has_and_the_rest(
    peer: Peer, writer: ReleaseWriter, control: Rig, edge: Rig
) -> None:
    one = writer.publish("etl", ONE)
    peer.put("dev/plain/dags/p.py", "old")
    wanted = control.run(full=True).tree
    writer.publish("etl", TWO)
    peer.put("dev/plain/dags/p.py", "new")
    now = edge.run(full=True).tree
    peer.requests.clear()
    assert edge.demand.fetch(wanted) == 3  # a.py, the manifest, p.py; same.py is linked
    assert tree_of(edge, wanted) == one.seen | {"plain/dags/p.py": b"old"}
    assert peer.count("get") == 4
    here = edge.settings.dag_store / "trees"
    assert (here / wanted / "etl/dags/same.py").samefile(here / now / "etl/dags/same.py")
    current = current_tree(edge.settings.dag_store)
    assert current is not None
    assert current.hash == now
    assert (here / wanted).stat().st_mode & 0o777 == 0o555


def test_a_tree_that_is_there_costs_no_request_and_counts_as_used(peer: Peer, control: Rig) -> None:
    peer.put("dev/etl/dags/a.py", "one")
    old = control.run(full=True).tree
    peer.put("dev/etl/dags/a.py", "two")
    control.run()
    path = control.settings.dag_store / "trees" / old
    os.utime(path, (1, 1))
    peer.requests.clear()
    assert control.demand.fetch(old) == 0
    assert peer.requests == []
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize("name", ["ab" * 32, "", "current", "../" * 3 + "etc", "AB" * 32, "x" * 500])
def test_an_unknown_tree_is_unknown(edge: Rig, name: str) -> None:
    with pytest.raises(UnknownTreeError):
        edge.demand.fetch(name)
    assert tree_hashes(edge.settings.dag_store) == []


def a_document(peer: Peer, **changes: object) -> str:
    """Put the document of a tree of one file, changed, and return the tree's name."""
    stored = peer.put("dev/etl/dags/a.py", "a\n")
    sha256 = hashlib.sha256(b"a\n").hexdigest()
    file = dataclasses.replace(TreeFile("etl/dags/a.py", sha256, 2, stored.version), **changes)
    tree_hash = name_tree([(file.path, file.sha256)])
    peer.put(document_key("dev", tree_hash), TreeDocument(tree_hash, (file,)).to_bytes())
    return tree_hash


def test_a_right_document_of_one_file_is_followed(peer: Peer, edge: Rig) -> None:
    tree_hash = a_document(peer)
    assert edge.demand.fetch(tree_hash) == 1
    assert tree_of(edge, tree_hash) == {"etl/dags/a.py": b"a\n"}


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../../../etc/passwd"}, {"path": "/etc/passwd"}, {"path": "etl/dags/../../x"},
        {"path": "a.py"}, {"path": "etl/dags/" + "x" * 256}, {"sha256": "0" * 64}, {"sha256": "x"},
        {"size": -1}, {"size": 3}, {"size": 1}, {"version_id": "v99"},
    ],
)  # fmt: skip
def test_a_document_that_lies_makes_no_tree(peer: Peer, edge: Rig, changes: dict[str, object]) -> None:
    tree_hash = a_document(peer, **changes)
    with pytest.raises(IntegrityError):
        edge.demand.fetch(tree_hash)
    assert tree_hashes(edge.settings.dag_store) == []
    assert {path.name for path in edge.store.private.iterdir()} <= {"lock", "index.json"}


def test_a_document_of_other_files_makes_no_tree(peer: Peer, edge: Rig) -> None:
    tree_hash = a_document(peer)
    other = "cd" * 32
    document = dataclasses.replace(document_of(peer, tree_hash), tree=other)
    peer.put(document_key("dev", other), document.to_bytes())
    with pytest.raises(IntegrityError, match="other files"):
        edge.demand.fetch(other)
    assert tree_hashes(edge.settings.dag_store) == []


def test_an_s3_that_is_away_is_said_and_the_next_request_tries_again(peer: Peer, edge: Rig) -> None:
    tree_hash = a_document(peer)
    demand = edge.demand
    peer.stop()
    with pytest.raises(UnreachableError, match="cannot be reached"):
        demand.fetch(tree_hash)
    assert demand.leased() == frozenset()
    peer.start()
    assert demand.fetch(tree_hash) == 1


def test_a_store_without_room_makes_no_tree(peer: Peer, edge: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    tree_hash = a_document(peer)
    monkeypatch.setattr(edge.store, "free_bytes", lambda: 1)
    with pytest.raises(StoreError, match="no space left"):
        edge.demand.fetch(tree_hash)


def test_many_who_ask_at_once_get_one_fetch(peer: Peer, edge: Rig) -> None:
    tree_hash = a_document(peer)
    demand = edge.demand
    gate, arrived = threading.Event(), threading.Event()

    def hold(request: Request) -> Answer | None:
        if request.key.endswith(".json.gz"):
            arrived.set()
            gate.wait(20)
        return None

    peer.fault = hold
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(demand.fetch(tree_hash))
        except AirbridgeError as failure:
            answers.append(failure)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert arrived.wait(20)
    gate.set()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert set(answers) <= {0, 1}  # who came when it was there already had nothing to fetch
    assert 1 in answers
    assert peer.count("get") == 2


def test_too_many_who_ask_at_once_are_told_to_ask_again(peer: Peer, edge: Rig) -> None:
    tree_hash = a_document(peer)
    gate = threading.Event()
    peer.fault = lambda request: gate.wait(20) and None if request.key.endswith(".json.gz") else None
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(edge.demand.fetch(tree_hash))
        except AirbridgeError as failure:
            answers.append(str(failure))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(answers) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {str(answer) for answer in answers} == {"12 others ask for trees just now | fix: ask again"}
    gate.set()
    for thread in threads:
        thread.join()
    assert answers[8:] == [1] * 12
    assert edge.demand.fetch(tree_hash) == 0


def test_passes_that_flip_and_collect_meanwhile_take_nothing_from_a_fetch(
    peer: Peer, writer: ReleaseWriter, control: Rig, edge_settings: Settings
) -> None:
    releases = {}
    for number in range(6):
        release = writer.publish("etl", {"dags/a.py": f"a = {number}\n", "dags/same.py": "same\n"})
        releases[control.run(full=not number).tree] = release.seen
    here = edge_settings.model_copy(update={"dag_sync_keep_trees": 1, "dag_sync_keep_seconds": 0})
    rig = make_rig(peer, here)
    peer.put(".airbridge/dev/references.json", references())
    demand = rig.demand
    stop = threading.Event()
    wrong: list[BaseException] = []

    def passes() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                peer.put("dev/plain/dags/p.py", str(number))
                rig.run(full=True)
            except BaseException as failure:
                wrong.append(failure)
                return

    thread = threading.Thread(target=passes)
    thread.start()
    for _ in range(3):
        for tree_hash, seen in releases.items():
            demand.fetch(tree_hash)
            assert tree_of(rig, tree_hash) == seen
    stop.set()
    thread.join()
    assert wrong == []
    rig.store.close()
