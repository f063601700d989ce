from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time

import pytest

from airbridge.edge._presence import Presence
from airbridge.edge.sysinfo import report
from airbridge.errors import RefusedError


@pytest.fixture
def worker_process(edge_host, monkeypatch, tmp_path):
    edge_host()
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_ISSUER", "north-1")
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_full_disk_is_an_error_status_and_room_is_none(worker_process, monkeypatch):
    monkeypatch.setenv("EDGE_MIN_FREE_DISK_MB", "1048576")
    info = asyncio.run(report())
    assert info["status"] == logging.ERROR
    assert "EDGE_MIN_FREE_DISK_MB" in str(info["status_text"])
    monkeypatch.setenv("EDGE_MIN_FREE_DISK_MB", "1")
    assert "status" not in asyncio.run(report())


def test_dag_tree_is_the_one_that_this_host_shows(worker_process, monkeypatch, tmp_path):
    monkeypatch.setenv("DAG_STORE", str(tmp_path / "store"))
    assert asyncio.run(report())["dag_tree"] == "none"
    tree = "ab" * 32
    (tmp_path / "store" / "trees" / tree).mkdir(parents=True)
    (tmp_path / "store" / "current").symlink_to(f"trees/{tree}")
    assert asyncio.run(report())["dag_tree"] == tree


def test_first_call_of_a_process_is_no_heartbeat(worker_process):
    """It comes before the registration, which may be refused."""
    code = (
        "import asyncio; from pathlib import Path; from airbridge.edge.sysinfo import report\n"
        f"mark = Path({str(worker_process)!r}) / 'north-1.heartbeat'\n"
        "asyncio.run(report()); assert not mark.exists()\n"
        "asyncio.run(report()); assert mark.exists()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=20, env={**os.environ, "PYTHONPATH": "src"}
    )


def test_mark_ages_and_is_forgotten(tmp_path):
    presence = Presence(tmp_path, "north-1")
    assert presence.mark_age() is None
    presence.mark()
    age = presence.mark_age()
    assert age is not None
    assert 0 <= age < 2
    presence.forget()
    assert presence.mark_age() is None


def test_mark_of_this_boot_says_nothing_across_boots(tmp_path):
    presence = Presence(tmp_path, "north-1")
    presence.mark()
    assert presence.age_across_boots() is None


def test_mark_of_an_earlier_boot_ages_by_the_hosts_time(tmp_path):
    then = time.time() - 60
    (tmp_path / "north-1.heartbeat").write_text(f"00000000-0000-0000-0000-000000000000 5.0 {then}")
    presence = Presence(tmp_path, "north-1")
    assert presence.mark_age() is None
    assert presence.age_across_boots() == pytest.approx(60, abs=5)


def test_mark_that_is_written_leaves_nothing_beside_it(tmp_path):
    Presence(tmp_path, "north-1").mark()
    assert [path.name for path in tmp_path.iterdir()] == ["north-1.heartbeat"]


@pytest.mark.parametrize("content", ["", "garbage", "00000000-0000-0000-0000-000000000000 5.0"])
def test_mark_of_another_boot_or_damaged_is_none(tmp_path, content):
    (tmp_path / "north-1.heartbeat").write_text(content)
    presence = Presence(tmp_path, "north-1")
    assert presence.mark_age() is None
    assert presence.age_across_boots() is None


def test_lock_is_held_by_what_the_worker_forked(tmp_path):
    """A supervisor that outlives its killed worker keeps the name taken on this host."""
    holder = Presence(tmp_path, "north-1")
    holder.acquire()
    child = os.fork()
    if child == 0:
        os.execvp("sleep", ["sleep", "30"])
    holder.release()
    try:
        with pytest.raises(RefusedError):
            Presence(tmp_path, "north-1").acquire()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    again = Presence(tmp_path, "north-1")
    again.acquire()
    again.release()
