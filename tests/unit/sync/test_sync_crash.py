from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sync_crash import killed_at
from sync_peer import read_tree
from sync_rig import Rig, make_rig, references
from tests.release_writer import ReleaseWriter

from airbridge.sync.store import current_tree, name_tree

if TYPE_CHECKING:
    from sync_peer import Peer

    from airbridge.sync._settings import Settings

# Steps that lie close together differ little, and each one costs a run of rclone; the steps of publishing
# itself are all tried in test_sync_trees.py.
STRIDE = 4


def test_a_kill_at_any_moment_of_a_pass_leaves_a_whole_tree_and_the_next_start_heals(
    peer: Peer, settings: Settings
) -> None:
    # Nothing is kept, so that each round builds its tree anew and collects the one before.
    here = settings.model_copy(update={"dag_sync_keep_trees": 1, "dag_sync_keep_seconds": 0})
    old = {"etl/dags/a.py": b"old", "etl/dags/same.py": b"same"}
    new = {"etl/dags/a.py": b"new", "etl/dags/same.py": b"same", "two/dags/b.py": b"new"}

    def show(contents: dict[str, bytes]) -> None:
        for key in list(peer.objects):
            if key.removeprefix("dev/") not in contents:
                peer.delete(key)
        for path, data in contents.items():
            peer.put(f"dev/{path}", data)

    def once() -> Rig:
        rig = make_rig(peer, here)
        rig.run(full=True)
        rig.store.close()
        return rig

    peer.put(".airbridge/dev/references.json", references())
    show(old)
    once()
    seen = set()
    step = 0
    show(new)
    while killed_at(step, once):
        current = current_tree(settings.dag_store)
        assert current is not None
        files = read_tree(current.path)
        assert files in (old, new), f"half a tree after a kill at step {step}"
        assert name_tree((p, hashlib.sha256(d).hexdigest()) for p, d in files.items()) == current.hash
        seen.add("new" if files == new else "old")
        show(old)
        rig = once()
        assert rig.seen() == old
        assert {path.name for path in rig.store.private.iterdir()} == {"lock", "index.json"}
        show(new)
        step += STRIDE
    assert seen == {"old", "new"}
    assert step > 40


def test_a_kill_at_any_moment_of_a_release_or_a_rollback_leaves_a_whole_release(
    peer: Peer, settings: Settings
) -> None:
    here = settings.model_copy(
        update={"dag_sync_keep_trees": 1, "dag_sync_keep_seconds": 0, "dag_sync_publish_trees": True}
    )

    def put(key: str, body: bytes) -> tuple[str, str]:
        stored = peer.put(key, body)
        return stored.etag, stored.version

    def once() -> Rig:
        rig = make_rig(peer, here)
        rig.run(full=True)
        rig.store.close()
        return rig

    writer = ReleaseWriter(put)
    peer.put(".airbridge/dev/references.json", references())
    old = writer.publish("etl", {"dags/a.py": "old", "dags/same.py": "same"})
    new = writer.publish("etl", {"dags/a.py": "new", "dags/same.py": "same", "dags/b.py": "new"})
    peer.put("dev/etl/metadata.json", old.body)  # so that a.py must be read by its version
    once()
    seen = set()
    step = 0
    peer.put("dev/etl/metadata.json", new.body)
    while killed_at(step, once):
        current = current_tree(settings.dag_store)
        assert current is not None
        files = read_tree(current.path)
        assert files in (old.seen, new.seen), f"half a release after a kill at step {step}"
        assert name_tree((p, hashlib.sha256(d).hexdigest()) for p, d in files.items()) == current.hash
        seen.add("new" if files == new.seen else "old")
        peer.put("dev/etl/metadata.json", old.body)
        rig = once()
        assert rig.seen() == old.seen
        assert {path.name for path in rig.store.private.iterdir()} == {"lock", "index.json"}
        peer.put("dev/etl/metadata.json", new.body)
        step += STRIDE
    assert seen == {"old", "new"}
    assert step > 40
