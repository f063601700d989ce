from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

import pytest
from sync_crash import killed_at
from sync_peer import read_tree

from airbridge.errors import RefusedError, SettingsError
from airbridge.sync._trees import Entry, StoreError, TreeStore, seal, store_error
from airbridge.sync.store import current_tree, name_tree, tree_hashes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEFT_IN_PRIVATE = {"lock", "index.json"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TreeStore]:
    store = TreeStore(tmp_path)
    store.open()
    yield store
    store.close()


def publish(store: TreeStore, contents: dict[str, bytes]) -> str:
    """Build a tree of ``contents`` and flip to it, linking what the current tree has."""
    current = store.current()
    have = store.scan(current.path) if current else {}
    staging = store.new_directory("staging")
    wanted: dict[str, Entry] = {}
    sources: dict[str, Path] = {}
    for number, (path, data) in enumerate(contents.items()):
        wanted[path] = Entry(hashlib.sha256(data).hexdigest(), len(data))
        if current and have.get(path) == wanted[path]:
            sources[path] = current.path / path
        else:
            sources[path] = staging / str(number)
            sources[path].write_bytes(data)
            seal(sources[path])
    tree_hash = name_tree((path, entry.sha256) for path, entry in wanted.items())
    store.build(tree_hash, wanted, sources)
    store.flip(tree_hash, sorted(path for path in wanted if have.get(path) != wanted[path]))
    store.clear_private()
    return tree_hash


OLD = {"etl/dags/a.py": b"old a", "etl/dags/same.py": b"same", "gone/dags/g.py": b"gone"}
NEW = {
    "etl/dags/a.py": b"new a",
    "etl/dags/same.py": b"same",
    "new/dags/sub/n.py": b"new",
    "new/metadata.json": b"{}",
}


def test_a_flip_shows_the_new_tree_whole_and_keeps_the_old_one(store: TreeStore) -> None:
    old = publish(store, OLD)
    new = publish(store, NEW)
    assert read_tree(store.root / "current") == NEW
    assert (store.root / "current").readlink().as_posix() == f"trees/{new}"
    assert read_tree(store.root / "trees" / old) == OLD
    assert {path.name for path in store.private.iterdir()} <= LEFT_IN_PRIVATE


def test_an_unchanged_file_is_the_same_inode_in_both_trees(store: TreeStore) -> None:
    old, new = publish(store, OLD), publish(store, NEW)
    trees = store.root / "trees"
    assert (trees / old / "etl/dags/same.py").samefile(trees / new / "etl/dags/same.py")
    assert not (trees / old / "etl/dags/a.py").samefile(trees / new / "etl/dags/a.py")


def test_trees_are_read_only_and_readable_by_every_user(store: TreeStore) -> None:
    before = os.umask(0o077)  # whatever the umask of the container is
    try:
        tree_hash = publish(store, NEW)
    finally:
        os.umask(before)
    tree = store.root / "trees" / tree_hash
    assert {stat.S_IMODE(path.stat().st_mode) for path in tree.rglob("*") if path.is_file()} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [tree, *tree.rglob("*")] if path.is_dir()} == {
        0o555
    }
    assert stat.S_IMODE(tree.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(store.private.stat().st_mode) == 0o700


def test_a_changed_file_is_newer_than_before_even_when_an_old_tree_comes_back(store: TreeStore) -> None:
    publish(store, OLD)
    publish(store, NEW)
    time.sleep(0.02)
    between = time.time()
    publish(store, OLD)
    current = store.root / "current"
    assert (current / "etl/dags/a.py").stat().st_mtime >= between
    assert (current / "etl/dags/same.py").stat().st_mtime < between


def test_a_damaged_old_tree_is_built_anew_before_it_is_used_again(store: TreeStore) -> None:
    old = publish(store, OLD)
    publish(store, NEW)
    victim = store.root / "trees" / old / "gone/dags/g.py"
    victim.chmod(0o644)
    victim.write_bytes(b"evil")
    assert publish(store, OLD) == old
    assert read_tree(store.root / "current") == OLD


def test_collecting_keeps_the_newest_and_the_current_tree(store: TreeStore) -> None:
    hashes = [publish(store, {"p/dags/a.py": str(n).encode()}) for n in range(6)]
    for age, tree_hash in enumerate(reversed(hashes)):
        os.utime(store.root / "trees" / tree_hash, (0, time.time() - 100 * age - 1))
    store.collect(keep=3, seconds=0)
    assert set(tree_hashes(store.root)) == set(hashes[-3:])
    store.collect(keep=1, seconds=0)
    assert tree_hashes(store.root) == [hashes[-1]]


def test_collecting_spares_a_tree_that_was_current_a_moment_ago(store: TreeStore) -> None:
    old = publish(store, OLD)
    os.utime(store.root / "trees" / old, (0, 0))  # built long ago
    publish(store, NEW)
    assert store.collect(keep=1, seconds=60) == []
    assert old in tree_hashes(store.root)


def test_a_reader_never_sees_half_a_tree_while_it_flips(store: TreeStore) -> None:
    def contents(generation: int) -> dict[str, bytes]:
        return {f"p{n}/dags/f{n}.py": str(generation).encode() for n in range(8)} | {
            "p/dags/same.py": b"same"
        }

    publish(store, contents(0))
    wrong: list[object] = []
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            current = current_tree(store.root)
            if current is None:
                wrong.append("no current tree")
                continue
            files = read_tree(current.path)
            generations = {data for path, data in files.items() if path != "p/dags/same.py"}
            seen.update(generations)
            if len(files) != 9 or len(generations) != 1:
                wrong.append(files)
            # One file through the link, as a parser opens it: always there, always of some generation.
            if not (store.root / "current/p3/dags/f3.py").read_bytes().isdigit():
                wrong.append("torn file")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for generation in range(1, 25):
        publish(store, contents(generation))
        store.collect(keep=2, seconds=30)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(seen) > 3


def test_a_kill_at_any_step_of_a_publish_leaves_a_whole_tree_and_the_next_start_heals(tmp_path: Path) -> None:
    first = TreeStore(tmp_path)
    first.open()
    publish(first, OLD)
    first.close()

    def work() -> None:
        store = TreeStore(tmp_path)
        store.open()
        publish(store, NEW)
        store.collect(keep=1, seconds=0)

    outcomes = set()
    step = 0
    while killed_at(step, work):
        current = current_tree(tmp_path)
        assert current is not None
        files = read_tree(current.path)
        assert files in (OLD, NEW), f"half a tree after a kill at step {step}"
        assert name_tree((p, hashlib.sha256(d).hexdigest()) for p, d in files.items()) == current.hash
        outcomes.add("new" if files == NEW else "old")

        healed = TreeStore(tmp_path)
        healed.open()
        assert {path.name for path in healed.private.iterdir()} <= LEFT_IN_PRIVATE
        publish(healed, OLD)  # the start of the next round: the old tree alone
        healed.collect(keep=1, seconds=0)
        healed.close()
        step += 1
    assert step > 60
    assert outcomes == {"old", "new"}
    assert read_tree(tmp_path / "current") == NEW


def test_a_kill_at_any_step_of_mending_never_makes_it_worse(tmp_path: Path) -> None:
    wanted = {path: Entry(hashlib.sha256(data).hexdigest(), len(data)) for path, data in NEW.items()}
    good = tmp_path / "good"
    for path, data in NEW.items():
        (good / path).parent.mkdir(parents=True, exist_ok=True)
        (good / path).write_bytes(data)

    def work() -> None:
        store = TreeStore(tmp_path)
        store.open()
        current = store.current()
        assert current is not None
        store.mend(current.path, wanted, store.scan(current.path), {path: good / path for path in NEW})

    first = TreeStore(tmp_path)
    first.open()
    current = tmp_path / "trees" / publish(first, NEW)
    first.close()
    step = 0
    while True:
        damage(current)
        if not killed_at(step, work):
            break
        assert all(data in (NEW.get(path), b"evil") for path, data in read_tree(current).items())
        step += 1
    assert step > 10
    assert read_tree(current) == NEW
    assert {stat.S_IMODE(path.stat().st_mode) for path in current.rglob("*") if path.is_dir()} == {0o555}


def damage(tree: Path) -> None:
    """Change one file, lose another with its directory, add a third."""
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755)
    for path, data in ((tree / "etl/dags/a.py", b"evil"), (tree / "etl/dags/extra.py", b"evil")):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
    lost = tree / "new/dags/sub"
    if lost.is_dir():
        (lost / "n.py").unlink(missing_ok=True)
        lost.rmdir()


def test_mending_reaches_the_trees_that_share_the_damaged_file(store: TreeStore) -> None:
    old, new = publish(store, OLD), publish(store, NEW)
    trees = store.root / "trees"
    shared = trees / new / "etl/dags/same.py"
    shared.chmod(0o644)
    shared.write_bytes(b"evil")
    good = store.private / "good"
    good.write_bytes(b"same")
    found = store.scan(trees / new)
    wanted = found | {"etl/dags/same.py": Entry(hashlib.sha256(b"same").hexdigest(), 4)}
    assert store.mend(trees / new, wanted, found, {"etl/dags/same.py": good}) == 1
    assert read_tree(trees / new) == NEW
    assert read_tree(trees / old) == OLD


def test_a_symlink_in_a_tree_is_damage_too(store: TreeStore) -> None:
    tree = store.root / "trees" / publish(store, NEW)
    victim = tree / "etl/dags/a.py"
    victim.parent.chmod(0o755)
    victim.unlink()
    victim.symlink_to("/etc/passwd")
    assert store.scan(tree)["etl/dags/a.py"].sha256 == "not a regular file"


def test_modes_that_went_astray_are_set_right(store: TreeStore) -> None:
    tree = store.root / "trees" / publish(store, NEW)
    (tree / "etl/dags/a.py").chmod(0o600)
    (tree / "etl").chmod(0o700)
    store.scan(tree)
    assert stat.S_IMODE((tree / "etl/dags/a.py").stat().st_mode) == 0o444
    assert stat.S_IMODE((tree / "etl").stat().st_mode) == 0o555


def test_a_second_writer_is_refused_and_told_who_holds_the_store(store: TreeStore) -> None:
    with pytest.raises(RefusedError, match=rf"in use by another dag-sync \(host .*, pid {os.getpid()}\)"):
        TreeStore(store.root).open()
    store.close()
    again = TreeStore(store.root)
    again.open()
    again.close()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from airbridge.sync._trees import TreeStore\n"
        "store = TreeStore(pathlib.Path(sys.argv[1]))\n"
        "store.open()\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RefusedError):
            TreeStore(tmp_path).open()
        holder.kill()
        holder.wait()
    after = TreeStore(tmp_path)
    after.open()
    after.close()


def test_all_of_it_works_for_a_user_that_is_not_root(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)  # noqa: PTH101
    for above in tmp_path.parents[:3]:
        above.chmod(above.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgid(50000)
                os.setuid(50000)
            store = TreeStore(tmp_path)
            store.open()
            publish(store, OLD)
            tree = tmp_path / "trees" / publish(store, NEW)
            victim = tree / "etl/dags/a.py"
            victim.chmod(0o644)
            victim.write_bytes(b"evil")
            victim.chmod(0o444)
            good = store.private / "good"
            good.write_bytes(NEW["etl/dags/a.py"])
            wanted = {p: Entry(hashlib.sha256(d).hexdigest(), len(d)) for p, d in NEW.items()}
            store.mend(tree, wanted, store.scan(tree), {"etl/dags/a.py": good})
            publish(store, OLD)
            publish(store, NEW)
            store.collect(keep=1, seconds=0)
            code = 0 if read_tree(tmp_path / "current") == NEW and len(tree_hashes(tmp_path)) == 1 else 2
        finally:
            if code == 1:
                traceback.print_exc()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_store_that_is_not_mounted_is_a_setting_at_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DAG_STORE="):
        TreeStore(tmp_path / "absent").open()


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "not writable"),
        (errno.EACCES, "not writable"),
        (errno.EIO, "look at the volume's disk"),
    ],
)
def test_an_error_of_the_disk_names_the_setting(tmp_path: Path, code: int, word: str) -> None:
    failure = store_error(OSError(code, os.strerror(code), "/store/x"), tmp_path)
    assert isinstance(failure, StoreError)
    assert f"DAG_STORE={tmp_path}" in str(failure)
    assert word in str(failure)
    assert failure.full == (word == "no space left")
