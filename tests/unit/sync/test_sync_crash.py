from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sync_crash import killed_at
from sync_peer import read_tree
from sync_rig import Rig, make_rig

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
