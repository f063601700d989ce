"""What a service keeps of every run, in one SQLite file: it outlives a restart and a kill."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Store"]

# A demonstration must not fill a disk: older runs are forgotten.
_RUNS_KEPT = 200
_LOCK_TIMEOUT_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (run_id TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""


class Store:
    """Results per run id. Safe for many threads: each call opens its own connection."""

    def __init__(self, path: Path, schema: str = "", *, runs_kept: int = _RUNS_KEPT) -> None:
        """Make the file and its tables; ``schema`` holds further tables of the service."""
        self._path = path
        self._runs_kept = runs_kept
        with self.connection() as connection:
            connection.executescript(_SCHEMA + schema)

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection without an open transaction and close it."""
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def check(self) -> None:
        """Raise sqlite3.Error when nothing can be written."""
        with self._writing():
            pass

    def get(self, run_id: str) -> dict[str, Any] | None:
        """Return the result of a run, None when there is none."""
        with self.connection() as connection:
            row = connection.execute("SELECT body FROM results WHERE run_id = ?", (run_id,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(
        self,
        run_id: str,
        result: dict[str, Any],
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Keep a result unless the run has one; ``also`` writes more in the same transaction."""
        with self._writing() as connection:
            done = connection.execute(
                "INSERT INTO results (run_id, body) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (run_id, json.dumps(result, sort_keys=True)),
            )
            if done.rowcount and also:
                also(connection)
            connection.execute(
                "DELETE FROM results WHERE seq <= (SELECT max(seq) FROM results) - ?", (self._runs_kept,)
            )

    def count_failure(self, run_id: str) -> int:
        """Count one more injected failure of a run and return how many there were."""
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM failures WHERE rowid <= (SELECT max(rowid) FROM failures) - ?",
                (self._runs_kept,),
            )
            row = connection.execute(
                "INSERT INTO failures (run_id, count) VALUES (?, 1) "
                "ON CONFLICT (run_id) DO UPDATE SET count = count + 1 RETURNING count",
                (run_id,),
            ).fetchone()
        return int(row[0])
