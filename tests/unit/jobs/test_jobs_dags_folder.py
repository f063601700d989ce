"""The local folder: whole files at any moment, and nobody else's file touched."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airbridge.errors import AirbridgeError, RefusedError
from airbridge.jobs._dags_folder import INDEX, FolderChanges, write_folder
from airbridge.jobs._marker import Origin, mark, origin_of
from airbridge.jobs._release_files import PackageFiles

if TYPE_CHECKING:
    from collections.abc import Iterable


def package(name: str = "sales", *, dag: str = "x = 1\n", code: str = "y = 1\n") -> PackageFiles:
    files = {
        f"dags/{name}_load.py": mark(dag),
        "dags/.airflowignore": mark("/_source/\n"),
        f"dags/_source/{name}/jobs/load.py": code.encode(),
    }
    return PackageFiles(name, files, (f"{name}_load",))


def sync(folder: Path, *packages: PackageFiles, keep: Iterable[str] = ()) -> FolderChanges:
    return write_folder(folder, packages, keep=keep, remove_stale=True)


def seen(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {INDEX, ".airbridge-jobs.lock"}
    }


def expected(*packages: PackageFiles) -> dict[str, bytes]:
    return {f"{one.package}/{path}": body for one in packages for path, body in one.files.items()}


def test_files_are_written_and_a_second_time_nothing_is(tmp_path: Path) -> None:
    folder = tmp_path / "new/dags"
    sales, other = package(), package("other")
    changes = sync(folder, sales, other)
    assert seen(folder) == expected(sales, other)
    assert sorted(changes.written) == sorted(expected(sales, other))
    again = sync(folder, sales, other)
    assert (again.written, again.removed, again.kept, again.unchanged) == ([], [], [], 6)


def test_changed_files_are_replaced_and_stale_ones_removed_with_their_empty_folders(tmp_path: Path) -> None:
    sync(tmp_path, package(), package("other"))
    changed = package(dag="x = 2\n", code="y = 2\n")
    changes = sync(tmp_path, changed)
    assert seen(tmp_path) == expected(changed)
    assert sorted(changes.written) == ["sales/dags/_source/sales/jobs/load.py", "sales/dags/sales_load.py"]
    assert not (tmp_path / "other").exists()
    sync(tmp_path)
    assert seen(tmp_path) == {}


def test_generate_removes_nothing(tmp_path: Path) -> None:
    sync(tmp_path, package("other"))
    write_folder(tmp_path, [package()], remove_stale=False)
    assert seen(tmp_path) == expected(package(), package("other"))


def test_package_that_is_to_be_kept_stays(tmp_path: Path) -> None:
    sync(tmp_path, package())
    sync(tmp_path, keep=["sales"])
    assert seen(tmp_path) == expected(package())


@pytest.mark.parametrize("path", ["sales/dags/sales_load.py", "sales/dags/_source/sales/jobs/load.py"])
def test_edited_file_is_neither_replaced_nor_removed(tmp_path: Path, path: str) -> None:
    sync(tmp_path, package())
    edited = (tmp_path / path).read_bytes() + b"# by hand\n"
    (tmp_path / path).write_bytes(edited)
    for packages in ([package(dag="x = 2\n", code="y = 2\n")], []):
        changes = sync(tmp_path, *packages)
        assert changes.kept == [(path, "it was edited after it was generated")]
        assert (tmp_path / path).read_bytes() == edited


@pytest.mark.parametrize("path", ["sales/dags/sales_load.py", "sales/dags/_source/sales/jobs/load.py"])
def test_foreign_file_in_the_way_stays(tmp_path: Path, path: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("mine = True\n")
    changes = sync(tmp_path, package())
    assert changes.kept == [(path, "it was not generated")]
    assert (tmp_path / path).read_text() == "mine = True\n"


def test_foreign_files_beside_ours_stay_when_ours_go(tmp_path: Path) -> None:
    sync(tmp_path, package())
    mine = {
        "sales/dags/my_dag.py": b"mine = True\n",
        "sales/dags/_source/sales/notes.txt": b"mine",
        "elsewhere/x.py": b"mine",
        "top.py": b"mine",
    }
    for path, body in mine.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(body)
    changes = sync(tmp_path)
    assert changes.kept == []
    assert seen(tmp_path) == mine


def test_links_are_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    folder = tmp_path / "dags"
    (folder / "sales/dags").mkdir(parents=True)
    (folder / "sales/dags/sales_load.py").symlink_to(target)
    (folder / "other").symlink_to(tmp_path)
    changes = sync(folder, package(), package("other"))
    assert target.read_text() == "mine"
    assert ("sales/dags/sales_load.py", "it is no regular file") in changes.kept
    assert ("other/dags/other_load.py", "other is a symbolic link") in changes.kept
    assert not list(tmp_path.glob("dags/*load.py"))


@pytest.mark.parametrize(
    "index",
    [
        b"", b"{", b"[]", b"\xff", b'{"format": "x", "files": {}}',
        b'{"format": "airbridge.generated/1", "files": {"dags/my.py": ["HASH"]}}',
        b'{"format": "airbridge.generated/1", "files": {"dags/_source/../my.py": ["HASH"]}}',
        b'{"format": "airbridge.generated/1", "files": {"dags/_source/../../../out.py": ["HASH"]}}',
    ],
)  # fmt: skip
def test_index_that_lies_removes_nothing(tmp_path: Path, index: bytes) -> None:
    import hashlib

    body = b"mine = True\n"
    folder = tmp_path / "dags"
    (folder / "sales/dags/_source").mkdir(parents=True)
    victims = [folder / "sales/dags/my.py", tmp_path / "out.py"]
    for victim in victims:
        victim.write_bytes(body)
    digest = hashlib.sha256(body).hexdigest().encode()
    (folder / "sales/dags" / INDEX).write_bytes(index.replace(b"HASH", digest))
    sync(folder)
    assert all(victim.read_bytes() == body for victim in victims)


def test_second_writer_is_refused(tmp_path: Path) -> None:
    sync(tmp_path, package())
    with (tmp_path / ".airbridge-jobs.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="another airflow-control-plane is writing"):
            sync(tmp_path)


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AirbridgeError, match=r"AIRFLOW_DAGS_DIR=.* cannot be written"):
        sync(tmp_path / "file", package())


_ALTERNATE = """
import sys, json
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[2])
from test_jobs_dags_folder import package, sync
folder = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    sync(folder, package(dag=f"x = {number}\\n" * 2000, code=f"y = {number}\\n" * 2000))
    sync(folder)
"""


def test_killed_at_any_moment_it_leaves_whole_files_which_the_next_pass_owns(tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    here = str(Path(__file__).parent)
    for attempt in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", _ALTERNATE, str(folder), json.dumps([here])],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.005 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        left = (
            {path: body for path, body in seen(folder).items() if not path.endswith(".tmp")}
            if folder.exists()
            else {}
        )
        for path, body in left.items():
            if path.startswith("sales/dags/_source/"):
                lines = set(body.splitlines())
                assert len(lines) == 1
                assert len(body.splitlines()) == 2000
            else:
                assert origin_of(body) is Origin.GENERATED
        if "sales/dags/sales_load.py" in left:
            assert "sales/dags/_source/sales/jobs/load.py" in left
        changes = sync(folder)
        assert changes.kept == []
        assert {path for path in seen(folder) if not path.endswith(".tmp")} == set()


def test_files_are_readable_by_airflow(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        sync(tmp_path, package())
    finally:
        os.umask(before)
    assert (tmp_path / "sales/dags/sales_load.py").stat().st_mode & 0o777 == 0o644
