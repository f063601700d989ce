"""Reports that wait for the control plane, on this host's disk.

SQLite, in write-ahead mode with a sync at each commit: what was added is there after a killed process or a
power cut, what was not added whole is not there at all. Entries have one order, that of :meth:`Spool.add`;
the entries of one stream (one job) are delivered in that order, streams do not wait for each other.

The spool also remembers two things about jobs that must outlive the courier: which job a task instance
belongs to, so that a task's state and its job's state are in one stream, and the id under which the next job
is asked for, so that an answer that got lost can be asked for again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airbridge.errors import AirbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

__all__ = ["Report", "Spool", "SpoolFullError", "Totals", "Waiting"]

_FILE: Final = "spool.db"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS report (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    stream  TEXT NOT NULL,
    verb    TEXT NOT NULL,
    target  TEXT NOT NULL,
    headers TEXT NOT NULL,
    body    BLOB NOT NULL,
    added   REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS report_stream ON report (stream, id);
CREATE TABLE IF NOT EXISTS job (task_instance TEXT PRIMARY KEY, stream TEXT NOT NULL, added REAL NOT NULL);
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, text TEXT NOT NULL);
"""
_FETCH: Final = "fetch"
# What an entry takes beside its body: row, index, headers.
_ENTRY_BYTES: Final = 1024
# Kept for reports without which a task would be run again; logs, which also go to S3, leave it free.
_RESERVE: Final = 0.1
# A job that runs for longer than this keeps its order all the same, unless the courier is restarted.
_JOBS_KEPT_S: Final = 7 * 86_400.0


class SpoolFullError(AirbridgeError):
    """There is no room for a report, in the spool's limit or on the disk."""


@dataclass(frozen=True, slots=True)
class Report:
    """A call that can be made later."""

    stream: str
    verb: str
    target: str
    """Path and query as they were called."""
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """A report in the spool."""

    id: int
    report: Report
    added: float


@dataclass(frozen=True, slots=True)
class Totals:
    """How much waits."""

    count: int
    size: int
    oldest: float | None
    """When the oldest entry was added, in seconds since the epoch."""


class Spool:
    """The spool in ``folder``. Calls block for as long as the disk takes; one thread at a time.

    :param limit: bytes that may wait
    :raises AirbridgeError: the folder cannot be written
    """

    def __init__(self, folder: Path, limit: int, *, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / _FILE
        self._limit = limit
        self._clock = clock
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Bearer tokens of tasks are in it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise AirbridgeError(
                f"the spool {self._path} cannot be used: {error}",
                fix="make COURIER_SPOOL a volume that uid 50000 may write, with free space; a damaged "
                "spool.db may be moved away, with the reports in it",
            ) from None

    def _open(self) -> None:
        # Statements are committed one by one; transactions of several are written out.
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA auto_vacuum = FULL")  # the file shrinks as it empties
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA cache_size = -1024")  # KiB
        self._db.executescript(_SCHEMA)
        self._db.execute("DELETE FROM job WHERE added < ?", (self._clock() - _JOBS_KEPT_S,))
        self._streams: Counter[str] = Counter(
            dict(self._db.execute("SELECT stream, count(*) FROM report GROUP BY stream"))
        )
        self._size = self._db.execute(
            "SELECT coalesce(sum(length(body)), 0) + ? * count(*) FROM report", (_ENTRY_BYTES,)
        ).fetchone()[0]
        self._jobs: dict[str, str] = dict(self._db.execute("SELECT task_instance, stream FROM job"))
        self._notes: dict[str, str] = dict(self._db.execute("SELECT name, text FROM note"))

    def close(self) -> None:
        """Close the files."""
        self._db.close()

    # --- reports ----------------------------------------------------------------------------------

    def add(self, report: Report, *, may_use_reserve: bool = True) -> None:
        """Keep a report; it is on the disk when this returns.

        :param may_use_reserve: false for what can be done without when room is short
        :raises SpoolFullError: there is no room for it
        """
        size = len(report.body) + _ENTRY_BYTES
        limit = self._limit if may_use_reserve else int(self._limit * (1 - _RESERVE))
        if self._size + size > limit:
            raise SpoolFullError(
                f"the spool holds {self._size} of {limit} bytes",
                fix="let this host reach its control plane, or raise COURIER_SPOOL_MB",
            )
        try:
            self._db.execute(
                "INSERT INTO report (stream, verb, target, headers, body, added) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    report.stream,
                    report.verb,
                    report.target,
                    json.dumps(dict(report.headers)),
                    report.body,
                    self._clock(),
                ),
            )
        except sqlite3.Error as error:
            raise SpoolFullError(
                f"the spool {self._path} cannot be written: {error}", fix="free space on this host's disk"
            ) from None
        self._streams[report.stream] += 1
        self._size += size

    def first(self, *, without: Collection[str] = (), most: int = 1) -> list[Waiting]:
        """Return the first report of each stream, the oldest first.

        :param without: streams to leave out
        """
        rows = self._db.execute("SELECT min(id) FROM report GROUP BY stream ORDER BY 1")
        found: list[Waiting] = []
        for (number,) in rows.fetchall():
            stream, verb, target, headers, body, added = self._db.execute(
                "SELECT stream, verb, target, headers, body, added FROM report WHERE id = ?", (number,)
            ).fetchone()
            if stream not in without:
                report = Report(stream, verb, target, json.loads(headers), bytes(body))
                found.append(Waiting(number, report, added))
            if len(found) == most:
                break
        return found

    def remove(self, waiting: Waiting) -> None:
        """Forget a report that was delivered, or never will be."""
        if not self._db.execute("DELETE FROM report WHERE id = ?", (waiting.id,)).rowcount:
            return
        stream = waiting.report.stream
        self._streams[stream] -= 1
        if not self._streams[stream]:
            del self._streams[stream]
        self._size -= len(waiting.report.body) + _ENTRY_BYTES

    def has(self, stream: str) -> bool:
        """Return whether a report of this stream waits."""
        return stream in self._streams

    @property
    def streams(self) -> frozenset[str]:
        """Streams of which a report waits."""
        return frozenset(self._streams)

    def totals(self) -> Totals:
        """Return how much waits."""
        oldest = self._db.execute("SELECT min(added) FROM report").fetchone()[0]
        return Totals(self._streams.total(), self._size, oldest)

    # --- jobs -------------------------------------------------------------------------------------

    @property
    def fetch_id(self) -> str:
        """Id under which the next job is asked for, until one was given."""
        if _FETCH not in self._notes:
            self.note(_FETCH, uuid.uuid4().hex)
        return self._notes[_FETCH]

    def took(self, task_instance: str, stream: str) -> None:
        """Note that a job was given under :attr:`fetch_id`; the next one gets another id."""
        following = uuid.uuid4().hex
        with self._db:
            self._db.execute("BEGIN")
            self._db.execute(
                "INSERT OR REPLACE INTO job VALUES (?, ?, ?)", (task_instance, stream, self._clock())
            )
            self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (_FETCH, following))
        self._jobs[task_instance] = stream
        self._notes[_FETCH] = following

    def assign(self, streams: Mapping[str, str]) -> None:
        """Note to which job each of these task instances belongs."""
        now = self._clock()
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT OR REPLACE INTO job VALUES (?, ?, ?)",
                [(task_instance, stream, now) for task_instance, stream in streams.items()],
            )
        self._jobs.update(streams)

    def stream_of(self, task_instance: str) -> str:
        """Return the stream of the job that a task instance belongs to; of its own where none is known."""
        return self._jobs.get(task_instance, task_instance)

    def ended(self, stream: str) -> None:
        """Forget whose stream this is: its job has ended."""
        gone = [task_instance for task_instance, known in self._jobs.items() if known == stream]
        for task_instance in gone:
            del self._jobs[task_instance]
        self._db.execute("DELETE FROM job WHERE stream = ?", (stream,))

    # --- notes ------------------------------------------------------------------------------------

    def note(self, name: str, text: str) -> None:
        """Keep a short text across restarts."""
        self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, text))
        self._notes[name] = text

    def noted(self, name: str) -> str:
        """Return a text that was kept; empty when there is none."""
        return self._notes.get(name, "")
