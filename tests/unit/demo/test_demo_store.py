"""What a service keeps of its runs."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from demo.fresh_poc._store import Store
from demo.fresh_poc.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path


def test_the_first_result_of_a_run_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.sqlite")
    store.put("run-1", {"n": 1})
    store.put("run-1", {"n": 2})
    assert store.get("run-1") == {"n": 1}
    assert store.get("run-2") is None


def test_old_runs_and_their_failures_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.sqlite", runs_kept=3)
    for number in range(5):
        store.put(f"run-{number}", {"n": number})
        store.count_failure(f"run-{number}")
    assert [store.get(f"run-{number}") is not None for number in range(5)] == [False, False, True, True, True]
    with store.connection() as connection:
        assert connection.execute("SELECT count(*) FROM failures").fetchone()[0] <= 4


def test_a_forgotten_run_takes_its_graph_along(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.sqlite", Writer.schema, runs_kept=1)
    for run_id in ("run-1", "run-2"):
        store.put(
            run_id,
            {},
            also=lambda connection, run_id=run_id: connection.execute(  # type: ignore[misc]
                "INSERT INTO node VALUES (?, 'a', 0, 1)", (run_id,)
            ),
        )
    with store.connection() as connection:
        assert connection.execute("SELECT run_id FROM node").fetchall() == [("run-2",)]


def test_a_write_that_breaks_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.sqlite")

    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        store.put("run-1", {}, also=broken)
    assert store.get("run-1") is None
