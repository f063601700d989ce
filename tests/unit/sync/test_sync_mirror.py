from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sync_peer import Answer, Peer, Request, error
from sync_rig import Rig, make_rig

from airbridge.errors import IntegrityError, RefusedError, UnreachableError
from airbridge.sync._keys import judge_key
from airbridge.sync._mirror import MAX_ATTEMPTS
from airbridge.sync._trees import StoreError
from airbridge.sync.store import current_tree, name_tree, tree_hashes

if TYPE_CHECKING:
    from airbridge.sync._settings import Settings


def test_the_bucket_becomes_a_tree_named_after_its_content(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a = 1\n")
    rig.peer.put("dev/etl/dags/sub/b.py", "b = 1\n")
    rig.peer.put("dev/etl/metadata.json", "{}")
    rig.peer.put("dev/etl/notes.txt", "not of the layout")
    rig.peer.put("prod/etl/dags/p.py", "another environment")
    outcome = rig.run(full=True)
    expected = {"etl/dags/a.py": b"a = 1\n", "etl/dags/sub/b.py": b"b = 1\n", "etl/metadata.json": b"{}"}
    assert rig.seen() == expected
    assert (outcome.result, outcome.files, outcome.added) == ("changed", 3, 3)
    current = current_tree(rig.settings.dag_store)
    assert current is not None
    assert current.hash == name_tree(
        (path, hashlib.sha256(data).hexdigest()) for path, data in expected.items()
    )


def test_the_same_content_has_the_same_name_on_another_host(
    rig: Rig, tmp_path: Path, peer: Peer, settings: Settings
) -> None:
    peer.put("dev/etl/dags/a.py", "first")
    rig.run(full=True)
    peer.put("dev/etl/dags/a.py", "second")
    rig.run()
    (tmp_path / "edge").mkdir()
    edge = make_rig(peer, settings.model_copy(update={"dag_store": tmp_path / "edge"}))
    assert edge.run(full=True).tree == rig.run(full=True).tree


def test_an_unchanged_bucket_costs_one_list_and_nothing_else(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.run(full=True)
    rig.peer.requests.clear()
    assert rig.run().result == "unchanged"
    assert [request.operation for request in rig.peer.requests] == ["list"]


def test_one_changed_file_moves_one_file(rig: Rig) -> None:
    for number in range(20):
        rig.peer.put(f"dev/etl/dags/{number}.py", str(number))
    rig.run(full=True)
    rig.peer.requests.clear()
    rig.peer.put("dev/etl/dags/7.py", "seven")
    outcome = rig.run()
    assert (outcome.changed, outcome.transferred_files, outcome.transferred_bytes) == (1, 1, 5)
    assert rig.gets() == ["dev/etl/dags/7.py"]
    assert rig.peer.count("list") == 2
    assert rig.peer.count("head") == 0
    assert rig.log("changed")[0]["key"] == "dev/etl/dags/7.py"


def test_an_edit_of_equal_size_within_the_same_second_is_seen(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "x = 1")
    rig.run(full=True)
    rig.peer.put("dev/etl/dags/a.py", "x = 2")
    assert rig.run().changed == 1
    assert rig.seen() == {"etl/dags/a.py": b"x = 2"}


def test_a_restored_older_version_is_seen(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "new", modified="2026-02-01T00:00:00.000Z")
    rig.run(full=True)
    rig.peer.put("dev/etl/dags/a.py", "old", modified="2025-01-01T00:00:00.000Z")
    rig.run()
    assert rig.seen() == {"etl/dags/a.py": b"old"}


def test_a_copy_of_the_same_content_publishes_nothing_new(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    before = rig.run(full=True)
    rig.peer.put("dev/etl/dags/a.py", "a", modified="2026-03-01T00:00:00.000Z")
    after = rig.run()
    assert (after.result, after.tree) == ("verified", before.tree)
    assert rig.run().result == "unchanged"


def test_deletions_are_followed_down_to_an_empty_bucket(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.peer.put("dev/etl/dags/b.py", "b")
    rig.run(full=True)
    rig.peer.delete("dev/etl/dags/a.py")
    assert rig.run().removed == 1
    assert rig.seen() == {"etl/dags/b.py": b"b"}
    rig.peer.delete("dev/etl/dags/b.py")
    assert rig.run().removed == 1
    assert rig.seen() == {}
    assert [line["key"] for line in rig.log("removed")] == ["dev/etl/dags/a.py", "dev/etl/dags/b.py"]
    assert rig.log("the prefix holds no DAG file")


def test_an_empty_bucket_is_a_first_tree_too(rig: Rig) -> None:
    assert rig.run(full=True).result == "changed"
    assert rig.seen() == {}
    assert rig.run().result == "unchanged"


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b""),
        (403, {}, error("AccessDenied")),
        (404, {}, error("NoSuchBucket")),
        (200, {}, b""),
        (200, {}, b"<html></html>"),
    ],
)
def test_a_listing_that_fails_never_empties_the_store(rig: Rig, answer: Answer) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.run(full=True)
    rig.peer.fault = lambda _request: answer
    for full in (False, True):
        with pytest.raises((UnreachableError, RefusedError, IntegrityError)):
            rig.run(full=full)
    assert rig.seen() == {"etl/dags/a.py": b"a"}


def test_a_bucket_that_turns_empty_for_one_listing_only_empties_nothing(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.run(full=True)
    empty = Peer.listing(rig.peer, {"prefix": "dev/"}).decode()
    start, end = empty.index("<Contents>"), empty.rindex("</ListBucketResult>")
    body = (empty[:start] + empty[end:]).replace("<KeyCount>1", "<KeyCount>0").encode()
    once = iter([(200, {}, body)])
    rig.peer.fault = lambda _request: next(once, None)
    assert rig.run().result == "verified"
    assert rig.seen() == {"etl/dags/a.py": b"a"}


def test_a_change_during_the_transfer_is_mirrored_again_and_only_the_final_state_is_shown(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a1")
    rig.peer.put("dev/etl/dags/b.py", "b1")
    rig.run(full=True)

    def interfere(request: Request) -> None:
        if request.operation == "get" and request.key.endswith("a.py"):
            rig.peer.after = lambda _request: None
            rig.peer.put("dev/etl/dags/b.py", "b2")

    rig.peer.put("dev/etl/dags/a.py", "a2")
    rig.peer.after = interfere
    outcome = rig.run()
    assert rig.seen() == {"etl/dags/a.py": b"a2", "etl/dags/b.py": b"b2"}
    assert outcome.changed == 2
    assert len(rig.log("flipped")) == 2  # the first publish, and one for both changes


def test_an_object_overwritten_between_listing_and_transfer_is_never_shown_half(
    rig: Rig,
) -> None:
    rig.peer.put("dev/etl/dags/a.py", "one")

    def overwrite(request: Request) -> None:
        if request.operation == "list":
            rig.peer.after = lambda _request: None
            rig.peer.put("dev/etl/dags/a.py", "two")

    rig.peer.after = overwrite
    rig.run(full=True)
    assert rig.seen() == {"etl/dags/a.py": b"two"}
    assert len(rig.log("flipped")) == 1


def test_an_object_deleted_before_its_transfer_is_not_an_error(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.peer.put("dev/etl/dags/b.py", "b")

    def delete(request: Request) -> None:
        if request.operation == "list":
            rig.peer.after = lambda _request: None
            rig.peer.delete("dev/etl/dags/b.py")

    rig.peer.after = delete
    assert rig.run(full=True).held == {}
    assert rig.seen() == {"etl/dags/a.py": b"a"}


def test_a_package_that_never_rests_keeps_its_release_while_others_go_ahead(rig: Rig) -> None:
    rig.peer.put("dev/busy/dags/x.py", "0")
    rig.peer.put("dev/busy/dags/y.py", "0")
    rig.peer.put("dev/calm/dags/c.py", "old")
    rig.run(full=True)
    generation = 0

    def never_rest(request: Request) -> None:
        nonlocal generation
        if request.operation == "list":
            generation += 1
            rig.peer.put("dev/busy/dags/x.py", str(generation))

    rig.peer.put("dev/calm/dags/c.py", "new")
    rig.peer.after = never_rest
    outcome = rig.run()
    assert outcome.result == "partial"
    assert set(outcome.held) == {"busy"}
    assert generation == MAX_ATTEMPTS + 1
    assert rig.seen() == {"busy/dags/x.py": b"0", "busy/dags/y.py": b"0", "calm/dags/c.py": b"new"}
    rig.peer.after = lambda _request: None
    assert rig.run().result == "changed"
    assert rig.seen() == {
        "busy/dags/x.py": str(generation).encode(),
        "busy/dags/y.py": b"0",
        "calm/dags/c.py": b"new",
    }


def test_churn_beside_the_dags_stops_nothing(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    count = 0

    def churn(_request: Request) -> None:
        nonlocal count
        count += 1
        rig.peer.put("dev/logs/today.txt", str(count))

    rig.peer.after = churn
    assert rig.run(full=True).result == "changed"
    assert rig.run().result == "verified"


def test_a_corrupted_object_keeps_its_package_back_and_heals_by_itself(rig: Rig) -> None:
    rig.peer.put("dev/bad/dags/b.py", "old")
    rig.peer.put("dev/bad/dags/c.py", "old")
    rig.run(full=True)
    rig.peer.put("dev/good/dags/g.py", "new")
    rig.peer.put("dev/bad/dags/c.py", "new")
    rig.peer.put("dev/bad/dags/b.py", "lie", etag=hashlib.md5(b"truth").hexdigest())
    outcome = rig.run()
    assert outcome.result == "partial"
    assert "MD5" in outcome.held["bad"]
    assert rig.seen() == {"bad/dags/b.py": b"old", "bad/dags/c.py": b"old", "good/dags/g.py": b"new"}
    assert rig.log("package held")[0]["package"] == "bad"
    rig.peer.put("dev/bad/dags/b.py", "mended")
    assert rig.run().result == "changed"
    assert rig.seen() == {"bad/dags/b.py": b"mended", "bad/dags/c.py": b"new", "good/dags/g.py": b"new"}


def test_an_object_that_cannot_be_had_is_not_asked_for_at_every_poll(rig: Rig) -> None:
    rig.peer.put("dev/good/dags/g.py", "g")
    rig.peer.put("dev/bad/dags/b.py", "b")
    rig.peer.fault = lambda request: (403, {}, error("AccessDenied")) if "bad" in request.key else None
    assert rig.run(full=True).result == "partial"
    rig.peer.requests.clear()
    again = rig.run()
    assert (again.result, set(again.held)) == ("partial", {"bad"})
    assert [request.operation for request in rig.peer.requests] == ["list"]


def test_when_nothing_at_all_can_be_fetched_nothing_is_published(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.peer.fault = lambda request: (403, {}, error("AccessDenied")) if request.key else None
    with pytest.raises(IntegrityError, match=r"AccessDenied.*s3:GetObject"):
        rig.run(full=True)
    assert rig.seen() is None


@pytest.mark.parametrize("etag", ["d41d8cd98f00b204e9800998ecf8427e-3", "opaque", "0x8DB"])
def test_an_object_whose_etag_is_no_md5_is_mirrored_and_its_edits_are_seen(rig: Rig, etag: str) -> None:
    rig.peer.put("dev/etl/dags/a.py", "v1", etag=etag)
    rig.run(full=True)
    assert rig.seen() == {"etl/dags/a.py": b"v1"}
    assert rig.run().result == "unchanged"
    rig.peer.put("dev/etl/dags/a.py", "v2", etag=etag + "1")
    rig.run()
    assert rig.seen() == {"etl/dags/a.py": b"v2"}


def test_a_multipart_object_replaced_and_put_back_during_the_transfer_is_not_trusted(rig: Rig) -> None:
    etag = "d41d8cd98f00b204e9800998ecf8427e-2"
    rig.peer.put("dev/etl/dags/a.py", "AAA", etag=etag)

    def swap(request: Request) -> Answer | None:
        if request.operation != "get":
            return None
        rig.peer.fault = lambda _request: None
        rig.peer.put("dev/etl/dags/a.py", "BBB", etag="other-2")
        answer = rig.peer.answer(request)
        rig.peer.put("dev/etl/dags/a.py", "AAA", etag=etag)  # the listing looks as before
        return answer

    rig.peer.fault = swap
    with pytest.raises(IntegrityError, match="changed while it was fetched"):
        rig.run(full=True)
    assert rig.seen() is None
    rig.run(full=True)
    assert rig.seen() == {"etl/dags/a.py": b"AAA"}


def test_an_encrypted_object_whose_etag_only_looks_like_md5_is_mirrored(rig: Rig) -> None:
    stored = rig.peer.put("dev/etl/dags/a.py", "secret plans", etag="0123456789abcdef" * 2)
    stored.headers["x-amz-server-side-encryption"] = "aws:kms"
    assert rig.run(full=True).held == {}
    assert rig.seen() == {"etl/dags/a.py": b"secret plans"}


def test_an_object_shorter_than_listed_is_not_published(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "whole")
    rig.peer.put("dev/ok/dags/b.py", "b")
    rig.peer.fault = lambda request: (
        (200, {"ETag": '"x"', "Content-Length": "2"}, b"wh")
        if request.operation == "get" and request.key.endswith("a.py")
        else None
    )
    assert set(rig.run(full=True).held) == {"etl"}
    assert rig.seen() == {"ok/dags/b.py": b"b"}


def test_refused_keys_are_counted_and_logged_once_and_the_rest_is_kept(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/good.py", "good")
    for key in (
        "dev/../../etc/passwd",
        "dev/etl/dags/../x.py",
        "dev/etl/dags/a\nb.py",
        "dev/etl//a.py",
        "dev/etl/dags/" + "x" * 256,
    ):
        rig.peer.put(key, "evil")
    outcome = rig.run(full=True)
    assert rig.seen() == {"etl/dags/good.py": b"good"}
    assert outcome.refused == {
        "dot segment": 2,
        "control character": 1,
        "empty segment": 1,
        "name too long": 1,
    }
    rig.run(full=True)
    assert len(rig.log("key refused")) == 5
    assert all("\n" not in line for line in rig.output.getvalue().splitlines())


def test_a_key_below_a_file_is_refused(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/x.py", "file")
    rig.peer.put("dev/etl/dags/x.py/y.py", "below it")
    rig.peer.put("dev/etl/dags/x.pyz", "beside it")
    outcome = rig.run(full=True)
    assert outcome.refused == {"below a file": 1}
    assert rig.seen() == {"etl/dags/x.py": b"file", "etl/dags/x.pyz": b"beside it"}


ODD_NAMES = [
    "a b.py",
    " leading.py",
    "trailing ",
    "#hash.py",
    "; semi.py",
    "- minus.py",
    "quo'te\".py",
    "p%2Fq.py",
    "*?[x].py",
    "\uff0e.py",
    "a\uff0e\uff0e",
    "ü.py",
    "u\u0308.py",
    "日本.py",
    "{}$(x)`.py",
    "a" * 255,
    ".hidden",
    "CON",
    "x.py.partial",
    "~t.py",
    "a:b.py",
]
# Characters that rclone, a URL or a file system could take for something else; tried alone and in pairs.
SPECIAL = [*".~%+&?#*: /\\{", "é", "e\u0301"]
SPECIAL += [
    "\uff0e",
    "\uff0f",
    "\u201b",
    "\u2400",
    "\u240d",
    "\u2421",
    "\uff3c",
    "\u2024",
    "\uff1a",
    "\uff0a",
]


def test_odd_but_safe_names_come_through_byte_for_byte(rig: Rig) -> None:
    for name in ODD_NAMES:
        rig.peer.put(f"dev/odd/dags/{name}", f"content of {name}")
    assert rig.run(full=True).held == {}
    assert rig.seen() == {f"odd/dags/{name}": f"content of {name}".encode() for name in ODD_NAMES}


def test_every_name_that_is_let_through_is_fetched_from_and_written_to_that_very_path(rig: Rig) -> None:
    names = set(SPECIAL) | {one + other for one in SPECIAL for other in SPECIAL}
    let_through = {f"odd/dags/{name}" for name in names if judge_key(f"odd/dags/{name}").mirror}
    for path in names:
        rig.peer.put(f"dev/odd/dags/{path}", f"content of {path}")
    outcome = rig.run(full=True)
    assert outcome.held == {}
    seen = rig.seen()
    assert seen is not None
    assert seen.keys() == let_through
    assert all(data.decode() == f"content of {path.removeprefix('odd/dags/')}" for path, data in seen.items())
    assert len(let_through) > 200


def test_a_gzip_encoded_object_is_stored_as_it_is(rig: Rig) -> None:
    import gzip

    body = gzip.compress(b"a = 1\n", mtime=0)
    rig.peer.put("dev/etl/dags/a.py", body).headers["Content-Encoding"] = "gzip"
    rig.run(full=True)
    assert rig.seen() == {"etl/dags/a.py": body}


def test_a_full_pass_mends_what_somebody_did_to_the_store(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.peer.put("dev/etl/dags/b.py", "b")
    before = rig.run(full=True)
    tree = rig.settings.dag_store / "trees" / before.tree
    dags = tree / "etl/dags"
    dags.chmod(0o755)
    (dags / "a.py").chmod(0o644)
    (dags / "a.py").write_bytes(b"evil")
    (dags / "b.py").unlink()
    (dags / "c.py").write_bytes(b"evil")
    assert rig.run().result == "unchanged"  # a cheap poll does not look
    after = rig.run(full=True)
    assert (after.result, after.mended, after.tree) == ("changed", 3, before.tree)
    assert rig.seen() == {"etl/dags/a.py": b"a", "etl/dags/b.py": b"b"}
    assert rig.log("tree mended")[0]["files"] == 3
    assert rig.run(full=True).result == "verified"


def test_a_tree_that_vanished_is_built_again(rig: Rig) -> None:
    import shutil

    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.run(full=True)
    trees = rig.settings.dag_store / "trees"
    for path in [trees, *trees.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(trees)
    trees.mkdir()
    rig.run(full=True)
    assert rig.seen() == {"etl/dags/a.py": b"a"}


def test_a_restart_transfers_nothing_again(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    rig.peer.put("dev/etl/dags/m.py", "m", etag="abc-2")
    rig.run(full=True)
    rig.store.close()
    rig.peer.requests.clear()
    again = make_rig(rig.peer, rig.settings)
    assert again.run(full=True).result == "verified"
    assert [request.operation for request in rig.peer.requests] == ["list"]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 99, "source": "x", "objects": []}']
)
def test_a_damaged_index_costs_a_transfer_and_nothing_else(rig: Rig, damage: bytes) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    before = rig.run(full=True)
    rig.store.close()
    (rig.store.private / "index.json").write_bytes(damage)
    again = make_rig(rig.peer, rig.settings).run(full=True)
    assert (again.result, again.tree, again.transferred_files) == ("verified", before.tree, 1)


def test_a_full_disk_is_said_before_the_transfer_and_old_trees_make_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(14):
        rig.peer.put("dev/etl/dags/a.py", str(number))
        rig.run(full=not number)
    assert len(tree_hashes(rig.settings.dag_store)) == 14  # more than DAG_SYNC_KEEP_TREES: all young
    rig.peer.put("dev/etl/dags/a.py", "one more")
    monkeypatch.setattr(rig.store, "free_bytes", lambda: 5)
    with pytest.raises(StoreError, match=r"DAG_STORE=.*no space left: 8 bytes to fetch, 5 free"):
        rig.run()
    assert len(tree_hashes(rig.settings.dag_store)) == rig.settings.dag_sync_keep_trees
    assert rig.seen() == {"etl/dags/a.py": b"13"}
    monkeypatch.undo()
    rig.run()
    assert rig.seen() == {"etl/dags/a.py": b"one more"}


def test_a_failed_pass_leaves_no_staging_behind(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    lists = iter([False])
    rig.peer.fault = lambda request: (500, {}, b"") if not request.key and next(lists, True) else None
    with pytest.raises(UnreachableError):
        rig.run(full=True)
    assert {path.name for path in rig.store.private.iterdir()} <= {"lock", "index.json"}


def test_the_secret_is_on_no_command_line(rig: Rig) -> None:
    rig.peer.put("dev/etl/dags/a.py", "a")
    seen: list[str] = []

    def look(request: Request) -> Answer | None:
        if request.operation == "get":
            for process in Path("/proc").iterdir():
                if process.name.isdigit() and parent_of(process) == os.getpid():
                    seen.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return None

    rig.peer.fault = look
    rig.run(full=True)
    assert any("rclone" in line for line in seen)
    assert not any("correct-horse-battery" in line or "edge-1" in line for line in seen)


def parent_of(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


NAMES = st.sampled_from(
    [
        "one/dags/a.py",
        "one/dags/b.py",
        "one/metadata.json",
        "two/dags/a.py",
        "two/dags/sub/c.py",
        "two/../x.py",
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.sampled_from(["{}", '{"a":1}', '{"b":2}'])),
        st.tuples(st.just("delete"), NAMES, st.just("")),
        st.tuples(st.sampled_from(["poll", "full", "restart", "fail", "tamper"]), st.just(""), st.just("")),
    ),
    max_size=12,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_whatever_happens_a_pass_that_succeeds_shows_the_bucket(
    tmp_path_factory: pytest.TempPathFactory,
    peer: Peer,
    settings: Settings,
    steps: list[tuple[str, str, str]],
) -> None:
    store = tmp_path_factory.mktemp("store")
    peer.objects = {}
    peer.fault = lambda _request: None
    here = settings.model_copy(update={"dag_store": store})
    rig = make_rig(peer, here)
    for kind, name, content in [*steps, ("full", "", "")]:
        before = rig.seen()
        match kind:
            case "put":
                peer.put(f"dev/{name}", content)
            case "delete":
                peer.delete(f"dev/{name}")
            case "restart":
                rig.store.close()
                rig = make_rig(peer, here)
                rig.run(full=True)
            case "fail":
                peer.fault = lambda _request: (500, {}, b"")
                with pytest.raises(UnreachableError):
                    rig.run()
                peer.fault = lambda _request: None
                assert rig.seen() == before
            case "tamper":
                current = current_tree(store)
                if current is not None:
                    for file in current.path.rglob("*.py"):
                        file.chmod(0o644)
                        file.write_bytes(b"evil")
                    rig.run(full=True)
            case _:
                rig.run(full=kind == "full" or rig.seen() is None)
        if kind in {"poll", "full", "restart"}:
            assert rig.seen() == {
                key.removeprefix("dev/"): stored.body
                for key, stored in peer.objects.items()
                if ".." not in key
            }
    rig.store.close()
