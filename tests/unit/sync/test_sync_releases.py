"""Packages with a manifest: readers see what it names, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sync_peer import Peer, Request, error
from sync_rig import Rig, make_rig
from tests.release_writer import ReleaseWriter

from airbridge.errors import UnreachableError
from airbridge.sync.store import tree_hashes

if TYPE_CHECKING:
    from pathlib import Path

    from airbridge.sync._settings import Settings

ONE = {"dags/a.py": "a = 1\n", "dags/b.py": "b = 1\n", "dags/sub/c.py": "c = 1\n"}
TWO = {"dags/a.py": "a = 2\n", "dags/b.py": "b = 1\n", "dags/new.py": "n = 1\n"}


@pytest.fixture
def writer(peer: Peer) -> ReleaseWriter:
    def put(key: str, body: bytes) -> tuple[str, str]:
        stored = peer.put(key, body)
        return stored.etag, stored.version

    return ReleaseWriter(put)


def crash(writer: ReleaseWriter, package: str, files: dict[str, Any], after: int) -> None:
    """Publish up to and with the request number ``after``."""
    writing = writer.steps(package, files)
    for _ in range(after + 1):
        next(writing)


def version_gets(peer: Peer) -> list[str]:
    return [request.key for request in peer.requests if "versionId" in request.query]


def test_a_release_is_shown_whole_and_said_by_its_id(rig: Rig, writer: ReleaseWriter) -> None:
    one = writer.publish("etl", ONE)
    assert rig.run(full=True).held == {}
    assert rig.seen() == one.seen
    two = writer.publish("etl", TWO)
    assert rig.run().result == "changed"
    assert rig.seen() == two.seen
    shown = [(line["release"], line["before"]) for line in rig.log("release shown")]
    assert shown == [(one.manifest.release, None), (two.manifest.release, one.manifest.release)]


@pytest.mark.parametrize("done", range(4))
def test_a_publish_that_died_half_way_changes_nothing_and_the_next_one_heals_it(
    rig: Rig, writer: ReleaseWriter, done: int
) -> None:
    other = writer.publish("other", {"dags/o.py": "o"})
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    crash(writer, "etl", {**TWO, "dags/b.py": "b = 2\n"}, done)
    for full in (False, True):
        assert rig.run(full=full).held == {}
        assert rig.seen() == one.seen | other.seen
    two = writer.publish("etl", TWO)
    assert rig.run().held == {}
    assert rig.seen() == two.seen | other.seen


def test_a_new_host_in_the_middle_of_a_publish_gets_the_whole_old_release(
    rig: Rig, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", ONE)
    crash(writer, "etl", TWO, 2)
    outcome = rig.run(full=True)
    assert (outcome.result, outcome.held) == ("changed", {})
    assert rig.seen() == one.seen
    assert version_gets(rig.peer) == ["dev/etl/dags/a.py"]  # the one that was overwritten
    assert outcome.drift == 1  # the one that no manifest names yet


def test_a_rollback_is_one_write_and_moves_nothing_that_the_store_still_has(
    rig: Rig, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    writer.publish("etl", TWO)
    rig.run()
    rig.peer.requests.clear()
    back = writer.roll_back(one)
    outcome = rig.run()
    assert rig.seen() == back.seen
    assert [request.operation for request in rig.peer.requests] == ["list", "get"]
    assert rig.gets() == ["dev/etl/metadata.json"]
    assert outcome.transferred_files == 0


def test_a_rollback_on_a_host_that_never_had_the_release_reads_its_versions(
    rig: Rig, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", ONE)
    writer.publish("etl", TWO)
    rig.run(full=True)
    back = writer.roll_back(one)
    rig.peer.requests.clear()
    assert rig.run().transferred_files == 2
    assert rig.seen() == back.seen
    assert set(version_gets(rig.peer)) == {"dev/etl/dags/a.py"}
    assert "dev/etl/dags/b.py" not in rig.gets()  # both releases share it


def test_a_content_that_another_path_of_the_tree_has_is_not_transferred(
    rig: Rig, writer: ReleaseWriter
) -> None:
    writer.publish("etl", {"dags/before.py": "the same\n"})
    rig.run(full=True)
    rig.peer.requests.clear()
    moved = writer.publish("etl", {"dags/after.py": "the same\n"})
    assert rig.run().transferred_files == 0
    assert rig.seen() == moved.seen


def test_an_unchanged_bucket_of_releases_costs_one_list(rig: Rig, writer: ReleaseWriter) -> None:
    for number in range(5):
        writer.publish(f"p{number}", ONE)
    rig.run(full=True)
    rig.peer.requests.clear()
    assert rig.run().result == "unchanged"
    assert rig.run(full=True).result == "verified"
    assert [request.operation for request in rig.peer.requests] == ["list", "list"]


def test_a_restart_reads_manifests_from_the_store(rig: Rig, writer: ReleaseWriter) -> None:
    one = writer.publish("etl", ONE)
    crash(writer, "etl", TWO, 2)
    rig.run(full=True)
    rig.store.close()
    rig.peer.requests.clear()
    again = make_rig(rig.peer, rig.settings)
    assert again.run(full=True).result == "verified"
    assert again.seen() == one.seen
    assert [request.operation for request in rig.peer.requests] == ["list"]


def test_objects_that_no_manifest_names_are_drift_counted_and_said_once(
    rig: Rig, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    rig.peer.put("dev/etl/dags/stray.py", "stray")
    rig.peer.put("dev/etl/notes.txt", "of no layout")
    rig.peer.put("dev/plain/dags/p.py", "p")
    assert rig.run().drift == 1
    assert rig.run().drift == 1
    assert rig.run(full=True).drift == 1
    assert rig.seen() == one.seen | {"plain/dags/p.py": b"p"}
    assert [line["key"] for line in rig.log("drift")] == ["dev/etl/dags/stray.py"]
    rig.peer.delete("dev/etl/dags/stray.py")
    assert rig.run().drift == 0


def test_an_object_overwritten_or_deleted_behind_the_manifest_changes_nothing(
    rig: Rig, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    rig.peer.put("dev/etl/dags/a.py", "by hand")
    rig.peer.delete("dev/etl/dags/b.py")
    assert rig.run().held == {}
    assert rig.seen() == one.seen


def test_a_package_whose_manifest_goes_is_mirrored_as_it_lies(rig: Rig, writer: ReleaseWriter) -> None:
    writer.publish("etl", ONE)
    rig.run(full=True)
    rig.peer.put("dev/etl/dags/a.py", "by hand")
    rig.peer.delete("dev/etl/metadata.json")
    assert rig.run().held == {}
    assert rig.seen() == {
        "etl/dags/a.py": b"by hand",
        "etl/dags/b.py": b"b = 1\n",
        "etl/dags/sub/c.py": b"c = 1\n",
    }


def test_a_removed_package_disappears(rig: Rig, writer: ReleaseWriter) -> None:
    writer.publish("etl", ONE)
    keep = writer.publish("keep", ONE)
    rig.run(full=True)
    for key in [key for key in rig.peer.objects if key.startswith("dev/etl/")]:
        rig.peer.delete(key)
    assert rig.run().removed == 4
    assert rig.seen() == keep.seen


def test_a_metadata_file_of_somebody_else_is_a_plain_file(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.peer.put("dev/etl/metadata.json", '{"owner": "ana"}')
    assert rig.run(full=True).held == {}
    assert rig.seen() == {"etl/dags/a.py": b"a", "etl/metadata.json": b'{"owner": "ana"}'}
    rig.peer.put("dev/etl/metadata.json", '{"owner": "bob"}')
    assert rig.run().changed == 1


# --- what cannot be believed ------------------------------------------------------------------------


def lies(body: bytes) -> list[bytes]:
    """Manifests that are none, made of a right one."""
    document = json.loads(body)
    first, *others = document["files"]

    def with_file(**changes: object) -> dict[str, Any]:
        return {**document, "files": [{**first, **changes}, *others]}

    wrong = [
        {**document, "package": "other"},
        {**document, "format": "airbridge.release/99"},
        {**document, "files": [first, first]},
        with_file(path="../other/dags/a.py"),
        with_file(path="dags/../../other/dags/a.py"),
        with_file(path="/etc/passwd"),
        with_file(path="dags/" + "x" * 256),
        with_file(path="dags/\uff0e\uff0e/x.py"),
        with_file(path="dags/__pycache__/a.pyc"),
        with_file(path="other.txt"),
        with_file(sha256="f" * 63),
        with_file(size=-1),
        with_file(size=1 << 40),
    ]
    return [json.dumps(each).encode() for each in wrong] + [b"{", b"", b"[]", b"\xff\xfe"]


def test_a_manifest_that_lies_holds_its_package_and_no_other(rig: Rig, writer: ReleaseWriter) -> None:
    one = writer.publish("etl", ONE)
    other = writer.publish("other", {"dags/o.py": "old"})
    rig.run(full=True)
    for number, lie in enumerate(lies(one.body), 1):
        rig.peer.put("dev/etl/metadata.json", lie)
        outcome = rig.run()
        assert (outcome.result, set(outcome.held)) == ("partial", {"etl"}), lie
        assert rig.seen() == one.seen | other.seen
        assert len(rig.log("package held")) == number
        assert rig.run().result == "partial"  # the alarm stays
    other = writer.publish("other", {"dags/o.py": "new"})
    assert set(rig.run().held) == {"etl"}
    assert rig.seen() == one.seen | other.seen
    two = writer.publish("etl", TWO)
    assert rig.run().held == {}
    assert rig.seen() == two.seen | other.seen


def test_a_content_that_is_not_what_the_manifest_says_holds_the_package(
    rig: Rig, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    two = writer.publish("etl", TWO)
    changed = replace(two.manifest.files[0], sha256=hashlib.sha256(b"not a = 2\n").hexdigest())
    lying = replace(two.manifest, files=(changed, *two.manifest.files[1:]))
    writer.point_at(lying, {})
    outcome = rig.run()
    assert "SHA-256" in outcome.held["etl"]
    assert rig.seen() == one.seen


@pytest.mark.parametrize("damage", ["gone", "other bytes", "shorter", "longer", "refused"])
def test_a_damaged_version_holds_the_package_until_it_heals(
    rig: Rig, writer: ReleaseWriter, damage: str
) -> None:
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    two = writer.publish("etl", TWO)
    key = "dev/etl/dags/a.py"
    answers = {
        "gone": (404, {}, error("NoSuchVersion")),
        "other bytes": (200, {"ETag": f'"{two.manifest.files[0].etag}"'}, b"a = 3\n"),
        "shorter": (200, {}, b"a"),
        "longer": (200, {}, b"a = 2\n and more"),
        "refused": (403, {}, error("AccessDenied")),
    }
    rig.peer.fault = lambda request: (
        answers[damage] if request.key == key and request.operation == "get" else None
    )
    outcome = rig.run()
    assert (outcome.result, list(outcome.held)) == ("partial", ["etl"])
    assert "etl/dags/a.py" in outcome.held["etl"]
    assert rig.seen() == one.seen
    rig.peer.fault = lambda _request: None
    assert rig.run(full=True).held == {}
    assert rig.seen() == two.seen


def test_a_release_held_across_a_restart_keeps_the_old_one(rig: Rig, writer: ReleaseWriter) -> None:
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    writer.publish("etl", TWO)
    rig.peer.fault = lambda request: (
        (404, {}, error("NoSuchKey")) if request.operation == "get" and "/dags/" in request.key else None
    )
    assert rig.run().result == "partial"
    rig.store.close()
    again = make_rig(rig.peer, rig.settings)
    assert again.run(full=True).result == "partial"
    assert again.seen() == one.seen


def test_an_s3_that_does_not_answer_fails_the_pass_and_not_one_package_after_the_other(
    rig: Rig, writer: ReleaseWriter
) -> None:
    one = writer.publish("etl", ONE)
    rig.run(full=True)
    writer.publish("etl", TWO)
    for name in ("a.py", "new.py"):
        rig.peer.put(f"dev/etl/dags/{name}", "overwritten, so a version must be read")

    def stop(request: Request) -> None:
        if request.operation == "get" and request.key.endswith("metadata.json"):
            rig.peer.after = lambda _request: None
            rig.peer.stop()

    rig.peer.after = stop
    with pytest.raises(UnreachableError):
        rig.run()
    assert rig.seen() == one.seen
    rig.peer.start()


# --- what moves while it is read ---------------------------------------------------------------------


def test_a_package_that_is_published_all_the_time_is_never_held(rig: Rig, writer: ReleaseWriter) -> None:
    busy = [writer.publish("busy", {"dags/x.py": "0", "dags/y.py": "0"})]
    rig.run(full=True)

    def publish_again(request: Request) -> None:
        rig.peer.after = lambda _request: None
        busy.append(writer.publish("busy", {"dags/x.py": f"{len(busy)}", "dags/y.py": f"{len(busy)}"}))
        rig.peer.after = publish_again

    rig.peer.after = publish_again
    for _ in range(4):
        outcome = rig.run()
        assert outcome.held == {}
        assert rig.seen() in [release.seen for release in busy]
    rig.peer.after = lambda _request: None
    rig.run()
    assert rig.seen() == busy[-1].seen


def test_a_package_that_gets_its_first_manifest_while_it_is_read_is_shown_by_it(
    rig: Rig, writer: ReleaseWriter
) -> None:
    rig.peer.put("dev/etl/dags/a.py", "plain")
    rig.run(full=True)
    rig.peer.put("dev/etl/dags/b.py", "plain")
    releases = []

    def publish(request: Request) -> None:
        if request.operation == "get":
            rig.peer.after = lambda _request: None
            releases.append(writer.publish("etl", ONE))

    rig.peer.after = publish
    rig.run()
    assert rig.seen() == releases[0].seen


def test_a_tampered_store_is_mended_from_the_release(rig: Rig, writer: ReleaseWriter) -> None:
    writer.publish("etl", ONE)
    rig.run(full=True)
    two = writer.publish("etl", TWO)
    before = rig.run()
    writer.publish("etl", ONE)
    rig.peer.objects["dev/etl/metadata.json"] = rig.peer.put("dev/etl/metadata.json", two.body)
    for name in ("metadata.json", "dags/a.py", "dags/b.py"):
        file = rig.settings.dag_store / "trees" / before.tree / "etl" / name
        file.chmod(0o644)
        file.write_bytes(b"evil")
    after = rig.run(full=True)
    assert (after.held, after.tree, after.mended) == ({}, before.tree, 3)
    assert rig.seen() == two.seen


def test_trees_of_releases_have_one_name_on_every_host(
    rig: Rig, writer: ReleaseWriter, tmp_path: Path, settings: Settings
) -> None:
    one = writer.publish("etl", ONE)
    first = rig.run(full=True).tree
    writer.publish("etl", TWO)
    rig.run()
    rig.peer.put("dev/etl/metadata.json", one.body)
    assert rig.run().tree == first
    (tmp_path / "edge").mkdir()
    edge = make_rig(rig.peer, settings.model_copy(update={"dag_store": tmp_path / "edge"}))
    assert edge.run(full=True).tree == first
    assert len(tree_hashes(rig.settings.dag_store)) == 2
    edge.store.close()
