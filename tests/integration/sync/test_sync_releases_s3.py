"""Releases and trees against the project's own S3 service, with dag-sync as a process of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from sync_stack import DagBucket, DagSync, eventually
from tests.unit.sync.sync_peer import read_tree

from airbridge.errors import RefusedError, UnreachableError
from airbridge.sync.client import request_tree
from airbridge.sync.store import current_tree, tree_hashes
from airbridge.tree_document import References, document_key, read_document, references_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.release_writer import ReleaseWriter

ONE = {"dags/a.py": "a = 1\n", "dags/same.py": "same\n", "dags/sub/gone.py": "g = 1\n"}
TWO = {"dags/a.py": "a = 2\n", "dags/same.py": "same\n", "dags/new.py": "n = 1\n"}


@pytest.fixture
def writer(bucket: DagBucket) -> ReleaseWriter:
    return bucket.writer()


@pytest.fixture
def start(bucket: DagBucket, tmp_path: Path) -> Iterator[Callable[..., DagSync]]:
    """Return a function that starts the dag-sync of another host and waits until it is healthy."""
    running: list[DagSync] = []

    def start(**settings: str) -> DagSync:
        directory = tmp_path / f"host-{len(running)}"
        directory.mkdir()
        running.append(DagSync(bucket.environment() | settings, directory))
        eventually(running[-1].healthy, "for the first sync")
        return running[-1]

    yield start
    for one in running:
        one.stop()


def crash(writer: ReleaseWriter, package: str, files: dict[str, str], after: int) -> None:
    writing = writer.steps(package, dict(files))
    for _ in range(after + 1):
        next(writing)


def polls(sync: DagSync) -> None:
    """Let a few polls go by."""
    time.sleep(1)
    assert sync.healthy()


def test_a_publish_in_flight_and_one_that_died_change_nothing(
    bucket: DagBucket, dag_sync: DagSync, writer: ReleaseWriter, start: Callable[..., DagSync]
) -> None:
    one = writer.publish("etl", dict(ONE))
    dag_sync.shows(one.seen)
    crash(writer, "etl", TWO, 2)
    polls(dag_sync)
    assert dag_sync.seen() == one.seen
    fresh = start()
    assert fresh.seen() == one.seen
    assert fresh.tree() == dag_sync.tree()
    assert fresh.health()["drift_files"] == 1
    two = writer.publish("etl", dict(TWO))
    for sync in (dag_sync, fresh):
        sync.shows(two.seen)


def test_a_rollback_is_one_write_seen_by_every_host(
    dag_sync: DagSync, writer: ReleaseWriter, start: Callable[..., DagSync]
) -> None:
    one = writer.publish("etl", dict(ONE))
    dag_sync.shows(one.seen)
    two = writer.publish("etl", dict(TWO))
    dag_sync.shows(two.seen)
    fresh = start()  # has never seen the first release
    moved = len(dag_sync.log("transferred"))
    back = writer.roll_back(one)
    for sync in (dag_sync, fresh):
        sync.shows(back.seen)
    assert len(dag_sync.log("transferred")) == moved
    assert dag_sync.log("versions read") == []
    assert fresh.log("versions read")[0]["asked"] == 1  # the one that the second release overwrote
    assert dag_sync.tree() == fresh.tree()


def test_a_version_that_is_gone_holds_the_package_until_it_is_published_again(
    bucket: DagBucket, dag_sync: DagSync, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", dict(ONE))
    other = writer.publish("other", {"dags/o.py": "o = 1\n"})
    dag_sync.shows(one.seen | other.seen)
    two = writer.manifest("etl", one.manifest.files)
    etag, version = bucket.write("dev/etl/dags/a.py", b"a = 5\n")
    lost = dataclasses.replace(
        one.manifest.files[0],
        sha256=hashlib.sha256(b"a = 5\n").hexdigest(),
        etag=etag,
        version_id=version,
    )
    bucket.client.delete_object(Bucket=bucket.name, Key="dev/etl/dags/a.py", VersionId=version)
    writer.point_at(dataclasses.replace(two, files=(lost, *one.manifest.files[1:])), {})
    other = writer.publish("other", {"dags/o.py": "o = 2\n"})
    dag_sync.shows(one.seen | other.seen)
    eventually(lambda: "etl" in dag_sync.health()["held_packages"])
    assert "etl/dags/a.py" in dag_sync.health()["held_packages"]["etl"]
    assert dag_sync.log("package held")[0]["package"] == "etl"
    healed = writer.publish("etl", dict(TWO))
    dag_sync.shows(healed.seen | other.seen)
    eventually(lambda: dag_sync.health()["held_packages"] == {})


def test_a_manifest_that_lies_about_a_content_holds_the_package(
    dag_sync: DagSync, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", dict(ONE))
    dag_sync.shows(one.seen)
    two = writer.publish("etl", dict(ONE) | {"dags/a.py": "a = 7\n"})
    dag_sync.shows(two.seen)
    first, *others = two.manifest.files
    lie = dataclasses.replace(first, sha256=first.sha256[::-1])
    writer.point_at(dataclasses.replace(two.manifest, files=(lie, *others)), {})
    eventually(lambda: "SHA-256" in dag_sync.health()["held_packages"].get("etl", ""))
    assert dag_sync.seen() == two.seen
    writer.roll_back(one)
    eventually(lambda: dag_sync.health()["held_packages"] == {})


def test_copies_by_hand_over_a_release_are_drift(
    bucket: DagBucket, dag_sync: DagSync, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", dict(ONE))
    dag_sync.shows(one.seen)
    bucket.put("etl/dags/a.py", "by hand")
    bucket.put("etl/dags/stray.py", "by hand")
    bucket.delete("etl/dags/same.py")
    eventually(lambda: dag_sync.health()["drift_files"] == 1)
    assert dag_sync.seen() == one.seen
    assert [line["key"] for line in dag_sync.log("drift")] == ["dev/etl/dags/stray.py"]


def test_a_run_finishes_on_its_release_on_a_host_that_missed_it_while_two_more_were_published(
    bucket: DagBucket, writer: ReleaseWriter, start: Callable[..., DagSync]
) -> None:
    control = start(DAG_SYNC_PUBLISH_TREES="true")
    bucket.put("plain/dags/p.py", "p = 1\n")
    one = writer.publish("etl", dict(ONE))
    control.shows(one.seen | {"plain/dags/p.py": b"p = 1\n"})
    wanted = control.tree()
    bucket.put("plain/dags/p.py", "p = 2\n")
    writer.publish("etl", dict(TWO))
    three = writer.publish("etl", {"dags/a.py": "a = 3\n"})
    control.shows(three.seen | {"plain/dags/p.py": b"p = 2\n"})
    edge = start()
    assert wanted not in tree_hashes(edge.store)
    now = edge.tree()
    assert request_tree(f"http://127.0.0.1:{edge.port}", wanted, 30) > 0
    assert read_tree(edge.store / "trees" / wanted) == one.seen | {"plain/dags/p.py": b"p = 1\n"}
    assert edge.tree() == now
    assert request_tree(f"http://127.0.0.1:{edge.port}", wanted, 30) == 0
    with pytest.raises(RefusedError, match="no document of it"):
        request_tree(f"http://127.0.0.1:{edge.port}", "0" * 64, 30)


def test_every_tree_that_is_shown_has_its_document(
    bucket: DagBucket, writer: ReleaseWriter, start: Callable[..., DagSync]
) -> None:
    control = start(DAG_SYNC_PUBLISH_TREES="true")
    for number in range(4):
        release = writer.publish("etl", {"dags/a.py": f"a = {number}\n"})
        control.shows(release.seen)
        document = read_document(bucket.read(document_key("dev", control.tree())), control.tree())
        assert document.releases == {"etl": release.manifest.release}
        for file in document.files:
            got = bucket.client.get_object(
                Bucket=bucket.name, Key=f"dev/{file.path}", VersionId=file.version_id
            )
            assert got["Body"].read() == release.seen[file.path]


def test_a_document_that_was_lost_is_written_again_by_the_next_start(
    bucket: DagBucket, writer: ReleaseWriter, start: Callable[..., DagSync]
) -> None:
    control = start(DAG_SYNC_PUBLISH_TREES="true")
    release = writer.publish("etl", dict(ONE))
    control.shows(release.seen)
    key = document_key("dev", control.tree())
    bucket.client.delete_object(Bucket=bucket.name, Key=key)
    control.stop()
    again = DagSync(bucket.environment() | {"DAG_SYNC_PUBLISH_TREES": "true"}, control.store.parent)
    try:
        eventually(again.healthy)
        eventually(lambda: again.log("tree document written"))
        assert read_document(bucket.read(key), again.tree()).tree == again.tree()
    finally:
        again.stop()


def test_what_a_run_needs_stays_and_the_rest_goes(
    bucket: DagBucket, writer: ReleaseWriter, start: Callable[..., DagSync]
) -> None:
    sync = start(DAG_SYNC_KEEP_TREES="1", DAG_SYNC_KEEP_SECONDS="0", DAG_SYNC_INTERVAL="1")
    trees = []
    for number in range(4):
        release = writer.publish("etl", {"dags/a.py": f"a = {number}\n"})
        sync.shows(release.seen)
        trees.append(sync.tree())
    assert set(trees) <= set(tree_hashes(sync.store))  # nobody said yet what is needed

    def need(*needed: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        bucket.write(references_key("dev"), References(frozenset(needed), at).to_bytes())

    need(trees[1])
    eventually(lambda: set(tree_hashes(sync.store)) == {trees[1], trees[3]}, "for the collection")
    need()
    eventually(lambda: tree_hashes(sync.store) == [trees[3]], "for the collection")


def test_an_s3_that_goes_away_is_said_to_who_asks(
    bucket: DagBucket, writer: ReleaseWriter, tmp_path: Path
) -> None:
    settings = bucket.environment() | {"S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    sync = DagSync(settings, tmp_path)
    try:
        eventually(lambda: sync.log("sync failed"))
        with pytest.raises(UnreachableError, match="cannot be reached"):
            request_tree(f"http://127.0.0.1:{sync.port}", "0" * 64, 30)
    finally:
        sync.stop()


def test_a_publisher_without_pause_is_followed_and_only_whole_releases_are_seen(
    bucket: DagBucket, dag_sync: DagSync, writer: ReleaseWriter
) -> None:
    stop = threading.Event()
    committed = [writer.publish("etl", {f"dags/f{n}.py": "generation = -1\n" for n in range(5)})]
    dag_sync.shows(committed[0].seen)
    wrong: list[dict[str, bytes]] = []
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            tree = current_tree(dag_sync.store)
            assert tree is not None
            files = read_tree(tree.path)
            contents = {data for path, data in files.items() if path.endswith(".py")}
            if len(files) != 6 or len(contents) != 1:
                wrong.append(files)
            seen.update(contents)

    reader = threading.Thread(target=read)
    reader.start()
    for generation in range(60):
        committed.append(
            writer.publish("etl", {f"dags/f{n}.py": f"generation = {generation}\n" for n in range(5)})
        )
    dag_sync.shows(committed[-1].seen)
    stop.set()
    reader.join()
    assert wrong == []
    assert len(seen) > 2
    assert dag_sync.log("package held") == []


def test_one_changed_file_among_a_thousand_of_many_releases_moves_one_file(
    bucket: DagBucket, writer: ReleaseWriter, start: Callable[..., DagSync]
) -> None:
    packages = 20
    for package in range(packages):
        writer.publish(f"p{package}", {f"dags/f{n}.py": f"n = {package} * {n}\n" for n in range(50)})
    sync = start(DAG_SYNC_PUBLISH_TREES="true")
    assert sync.health()["files"] == packages * 51
    moved = len(sync.log("transferred"))
    changed = writer.publish("p3", {f"dags/f{n}.py": f"n = {3 if n else 'new'} * {n}\n" for n in range(50)})
    eventually(lambda: sync.health()["files"] and sync.seen().items() >= changed.seen.items())
    (transfer,) = sync.log("transferred")[moved:]
    assert transfer["files"] == 1
    polls(sync)
    assert len(sync.log("transferred")) == moved + 1
