"""Which trees stay: what DAG runs need is known from the bucket, and what is not known is kept."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from sync_peer import Peer, error
from sync_rig import Rig, make_rig, references

from airbridge.sync._mirror import WITHOUT_REFERENCES_SECONDS
from airbridge.sync._references import MAX_AGE_SECONDS
from airbridge.sync.store import tree_hashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airbridge.sync._settings import Settings

KEY = ".airbridge/dev/references.json"


@pytest.fixture
def rig(peer: Peer, settings: Settings) -> Iterator[Rig]:
    """A mirror that keeps what it must, and asks for the references in every pass."""
    rig = make_rig(
        peer,
        settings.model_copy(
            update={"dag_sync_keep_trees": 2, "dag_sync_keep_seconds": 60, "dag_sync_interval": 0.0}
        ),
    )
    yield rig
    rig.store.close()


def show(rig: Rig, count: int, *, age_s: float) -> list[str]:
    """Show ``count`` trees one after the other; all but the current one were used ``age_s`` ago."""
    shown = []
    for number in range(count):
        rig.peer.put("dev/etl/dags/a.py", f"{number} {time.monotonic_ns()}")
        shown.append(rig.run(full=True).tree)
    for tree_hash in shown[:-1]:
        used = time.time() - age_s
        os.utime(rig.settings.dag_store / "trees" / tree_hash, (used, used))
    return shown


def kept(rig: Rig) -> set[str]:
    return set(tree_hashes(rig.settings.dag_store))


def test_a_tree_that_a_dag_run_needs_stays_however_old_it_is(rig: Rig) -> None:
    trees = show(rig, 5, age_s=3600)
    rig.peer.put(KEY, references(trees[0], trees[2]))
    rig.run(full=True)
    assert kept(rig) == {trees[0], trees[2], trees[3], trees[4]}
    rig.peer.put(KEY, references())
    rig.run(full=True)
    assert kept(rig) == {trees[3], trees[4]}
    assert {line["tree"] for line in rig.log("tree collected")} == {trees[0], trees[1], trees[2]}


def test_a_tree_that_was_used_lately_stays(rig: Rig) -> None:
    rig.peer.put(KEY, references())
    trees = show(rig, 5, age_s=30)
    rig.run(full=True)
    assert kept(rig) == set(trees)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        (404, {}, error("NoSuchKey")),
        (403, {}, error("AccessDenied")),
        (500, {}, b""),
        (200, {}, b"{"),
        (200, {}, b'{"format": "airbridge.references/1", "trees": [], "written_at": "lately"}'),
        (200, {}, b'{"format": "airbridge.references/1", "trees": [], "written_at": "2026-01-01T00:00:00"}'),
        (200, {}, references(age_s=MAX_AGE_SECONDS + 60)),
    ],
)
def test_while_the_references_are_not_known_only_very_old_trees_go(
    rig: Rig, answer: tuple[int, dict[str, str], bytes] | None
) -> None:
    rig.peer.fault = lambda request: answer if request.key == KEY else None
    trees = show(rig, 5, age_s=WITHOUT_REFERENCES_SECONDS - 3600)
    for _ in range(2):
        assert rig.run(full=True).result == "verified"
    assert kept(rig) == set(trees)
    assert len(rig.log("references not known")) == 1
    used = time.time() - WITHOUT_REFERENCES_SECONDS - 3600
    os.utime(rig.settings.dag_store / "trees" / trees[0], (used, used))
    rig.run(full=True)
    assert kept(rig) == set(trees[1:])


def test_references_that_were_known_and_grow_old_are_not_believed_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.peer.put(KEY, references(age_s=MAX_AGE_SECONDS - 2))
    trees = show(rig, 4, age_s=3600)
    rig.run(full=True)
    assert kept(rig) == set(trees[2:])
    time.sleep(2.1)
    more = show(rig, 3, age_s=3600)
    rig.run(full=True)
    assert kept(rig) >= set(more)
    assert rig.peer.count("get") > 0


def test_references_that_did_not_change_are_not_sent_again(rig: Rig) -> None:
    trees = show(rig, 3, age_s=3600)
    rig.peer.put(KEY, references(*trees))
    rig.peer.requests.clear()
    rig.run(full=True)
    rig.run(full=True)
    asked = [request for request in rig.peer.requests if request.key == KEY]
    assert [bool(request.headers.get("If-None-Match")) for request in asked] == [False, True]
    assert kept(rig) == set(trees)


def test_nobody_asks_for_references_while_no_tree_is_old(rig: Rig) -> None:
    show(rig, 2, age_s=3600)
    rig.run(full=True)
    assert [request for request in rig.peer.requests if request.key == KEY] == []


def test_polls_ask_for_references_once_an_interval_at_most(peer: Peer, settings: Settings) -> None:
    rig = make_rig(peer, settings.model_copy(update={"dag_sync_keep_trees": 1, "dag_sync_keep_seconds": 0}))
    peer.put(KEY, references())
    for number in range(5):
        peer.put("dev/etl/dags/a.py", str(number))
        rig.run(full=not number)
    assert len([request for request in peer.requests if request.key == KEY]) == 1
    rig.store.close()


def test_a_tree_that_was_asked_for_a_moment_ago_stays_whatever_the_rules_say(
    peer: Peer, settings: Settings
) -> None:
    rig = make_rig(
        peer,
        settings.model_copy(
            update={"dag_sync_keep_trees": 1, "dag_sync_keep_seconds": 0, "dag_sync_publish_trees": True}
        ),
    )
    peer.put("dev/etl/dags/a.py", "0")
    first = rig.run(full=True).tree
    peer.put(KEY, references())
    assert rig.demand.fetch(first) == 0
    peer.put("dev/etl/dags/a.py", "1")
    second = rig.run().tree
    peer.put("dev/etl/dags/a.py", "2")
    third = rig.run().tree
    assert kept(rig) == {first, third}
    assert second not in kept(rig)
    rig.store.close()


def test_a_full_disk_takes_old_trees_but_none_that_is_known_to_be_needed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = show(rig, 5, age_s=0)
    used = time.time() - 3600
    os.utime(rig.settings.dag_store / "trees" / trees[0], (used, used))
    rig.peer.put(KEY, references(trees[0]))
    rig.run(full=True)
    assert kept(rig) == set(trees)
    rig.peer.put("dev/etl/dags/a.py", "more")
    monkeypatch.setattr(rig.store, "free_bytes", lambda: 0)
    with pytest.raises(Exception, match="no space left"):
        rig.run()
    assert kept(rig) == {trees[0], trees[3], trees[4]}
