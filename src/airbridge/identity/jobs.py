"""Which worker runs what, as the tables of Airflow 3.0.4 and of its edge provider 5.1.0 say."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airbridge.identity.database import Database

__all__ = [
    "HELD_STATES",
    "FetchTurn",
    "HandedOut",
    "Job",
    "JobKey",
    "JobLookup",
    "Jobs",
    "RunningTask",
    "count_held",
    "had_part",
    "may_have_jobs",
    "task_instance_of",
]

# Between a fetch and the worker's first word about the job.
_CLAIMED: Final = "restarting"
HELD_STATES: Final = (_CLAIMED, "running")
"""States of ``edge_job`` between a fetch (the first one) and the worker's report of the end."""

# Far longer than a worker may go on sending the log of what it ran.
_KEPT: Final = timedelta(days=7)

# Any constant: with the worker's name it names the lock that its fetches meet at.
_FETCH_LOCK: Final = 0x41_42_46_54  # "ABFT"
# Longer than any fetch takes; who waits for longer is told to come again.
_TURN_WAIT: Final = "5s"
# A task reports every five seconds. One that was silent for so long does not run there now, such as that of a
# worker that was killed: its successor must not wait until the scheduler has given the task up.
_SILENT: Final = timedelta(seconds=60)

# Each task instance by its id, which is in the workload: by its names, and joined as Postgres likes, all
# tasks of the run were read for a claim.
_HELD = """
    SET LOCAL lock_timeout = %(wait)s;
    SELECT pg_advisory_xact_lock(%(lock)s, hashtext(%(worker)s));
    SELECT coalesce(sum(j.concurrency_slots), 0)
    FROM edge_job j LEFT JOIN LATERAL (
        SELECT id, state, last_heartbeat_at FROM task_instance
        WHERE id = (j.command::json #>> '{ti,id}')::uuid LIMIT 1
    ) t ON true
    WHERE j.edge_worker = %(worker)s AND j.state = ANY(%(states)s)
      AND (t.id IS NULL OR t.state IN ('queued', 'running', 'restarting'))
      AND greatest(j.last_update, t.last_heartbeat_at) > now() - %(silent)s
"""
_MAY_HAVE = """
    SELECT NOT pg_try_advisory_xact_lock(%(lock)s, hashtext(%(worker)s))
        OR EXISTS (SELECT 1 FROM edge_job WHERE state = 'queued' AND queue = ANY(%(queues)s))
        OR EXISTS (SELECT 1 FROM edge_job WHERE state = %(claimed)s AND edge_worker = %(worker)s)
"""
_HAND_OUT = """
    INSERT INTO airbridge.handed_out (dag_id, task_id, run_id, map_index, try_number, worker, fetch_id)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (dag_id, task_id, run_id, map_index, try_number, worker)
    DO UPDATE SET handed_at = now(), fetch_id = excluded.fetch_id
"""


@dataclass(frozen=True, slots=True)
class JobKey:
    """One attempt at one task instance, by what Airflow calls it."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int

    @property
    def _values(self) -> tuple[str, str, str, int, int]:
        return (self.dag_id, self.task_id, self.run_id, self.map_index, self.try_number)


@dataclass(frozen=True, slots=True)
class Job:
    """What the edge provider knows about an attempt now."""

    worker: str | None
    state: str
    task_instance: UUID | None = None
    """Airflow's id of the attempt: new for each try, the same for all parts of a deferred one."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """The task instance that a workload token was made for, and who holds its job."""

    key: JobKey
    job: Job


def count_held(cursor: Any, worker: str) -> int:
    """Wait until nobody else hands out jobs to ``worker``, and return the slots that its jobs take up now.

    The lock lasts as long as the transaction.

    :raises UnreachableError: who was there before does not end
    """
    cursor.execute(
        _HELD,
        {
            "wait": _TURN_WAIT,
            "lock": _FETCH_LOCK,
            "worker": worker,
            "states": list(HELD_STATES),
            "silent": _SILENT,
        },
    )
    return int(cursor.fetchone()[0])


def may_have_jobs(cursor: Any, worker: str, queues: Sequence[str]) -> bool:
    """Return whether a job waits in these queues, or was handed to the worker and not heard of since.

    True as well while somebody hands out jobs to the worker just now. One SELECT, for
    :meth:`airbridge.identity.database.Database.look`.
    """
    cursor.execute(
        _MAY_HAVE,
        {"lock": _FETCH_LOCK, "worker": worker, "queues": list(queues), "claimed": _CLAIMED},
    )
    return bool(cursor.fetchone()[0])


class FetchTurn:
    """A worker's turn to fetch a job: while it lasts, nobody fetches for the same worker anywhere else.

    Holds a connection to the database; :meth:`end` it, whatever happens.
    """

    def __init__(self, database: Database, worker: str) -> None:
        self._worker = worker
        with contextlib.ExitStack() as transaction:
            self._cursor: Any = transaction.enter_context(database.cursor())
            self.held = count_held(self._cursor, worker)
            """Slots that the worker's jobs take up now."""
            self._transaction = transaction.pop_all()

    def end(self, handed: JobKey | None = None, fetch_id: str | None = None) -> None:
        """Let the next one fetch, after noting which job was handed out.

        :param handed: ``None``: none was
        :param fetch_id: under which it was asked for; see :meth:`Jobs.handed_out_under`
        """
        with self._transaction:
            if handed is not None:
                if fetch_id is not None:
                    # The answer before was a job that is gone by now: the question is about this one.
                    self._cursor.execute(
                        "UPDATE airbridge.handed_out SET fetch_id = NULL WHERE worker = %s AND fetch_id = %s",
                        (self._worker, fetch_id),
                    )
                self._cursor.execute(_HAND_OUT, (*handed._values, self._worker, fetch_id))
                self._cursor.execute(
                    "DELETE FROM airbridge.handed_out WHERE handed_at < now() - %s", (_KEPT,)
                )


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A job as it was handed out."""

    key: JobKey
    command: str
    """The workload, as JSON."""
    concurrency_slots: int

    @property
    def answer(self) -> bytes:
        """What the edge API answered to the fetch (``EdgeJobFetched``)."""
        job = {**asdict(self.key), "concurrency_slots": self.concurrency_slots}
        return json.dumps({**job, "command": json.loads(self.command)}).encode()


class Jobs:
    """Questions about jobs; each is one query by primary key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def job(self, key: JobKey) -> Job | None:
        """Return the job of an attempt; ``None``: there is none, or not any more."""
        with self._database.look() as cursor:
            cursor.execute(
                "SELECT edge_worker, state, command FROM edge_job WHERE dag_id = %s AND task_id = %s"
                " AND run_id = %s AND map_index = %s AND try_number = %s",
                key._values,
            )
            row = cursor.fetchone()
        return None if row is None else Job(row[0], row[1], task_instance_of(row[2]))

    def task(self, task_instance: UUID) -> RunningTask | None:
        """Return the task instance of this id with its job; ``None``: it is no job of an edge worker."""
        with self._database.look() as cursor:
            cursor.execute(
                "SELECT t.dag_id, t.task_id, t.run_id, t.map_index, t.try_number, j.edge_worker, j.state"
                " FROM task_instance t JOIN edge_job j USING (dag_id, task_id, run_id, map_index, try_number)"
                " WHERE t.id = %s",
                (str(task_instance),),
            )
            row = cursor.fetchone()
        return None if row is None else RunningTask(JobKey(*row[:5]), Job(row[5], row[6], task_instance))

    def turn(self, worker: str) -> FetchTurn:
        """Wait until nobody else fetches for ``worker``, and return its turn.

        :raises UnreachableError: the database does not answer, or a fetch before this one does not end
        """
        return FetchTurn(self._database, worker)

    def handed_out_under(self, fetch_id: str, worker: str) -> HandedOut | None:
        """Return the job that ``worker`` was given under this id and has said nothing about yet."""
        with self._database.look() as cursor:
            cursor.execute(
                "SELECT j.dag_id, j.task_id, j.run_id, j.map_index, j.try_number, j.command,"
                " j.concurrency_slots"
                " FROM airbridge.handed_out h"
                " JOIN edge_job j USING (dag_id, task_id, run_id, map_index, try_number)"
                " WHERE h.worker = %s AND h.fetch_id = %s AND j.edge_worker = h.worker AND j.state = %s",
                (worker, fetch_id, _CLAIMED),
            )
            row = cursor.fetchone()
        return None if row is None else HandedOut(JobKey(*row[:5]), *row[5:])

    def has_log_piece(self, key: JobKey, written_at: datetime) -> bool:
        """Return whether the piece of this attempt's log that was written then is here already."""
        with self._database.look() as cursor:
            cursor.execute(
                "SELECT 1 FROM edge_logs WHERE dag_id = %s AND task_id = %s AND run_id = %s"
                " AND map_index = %s AND try_number = %s AND log_chunk_time = %s",
                (*key._values, written_at),
            )
            return cursor.fetchone() is not None

    def was_handed_out(self, key: JobKey, worker: str) -> bool:
        """Return whether ``worker`` was ever handed a part of this attempt, within a week."""
        with self._database.look() as cursor:
            cursor.execute(
                "SELECT 1 FROM airbridge.handed_out WHERE dag_id = %s AND task_id = %s AND run_id = %s"
                " AND map_index = %s AND try_number = %s AND worker = %s",
                (*key._values, worker),
            )
            return cursor.fetchone() is not None


def task_instance_of(command: str) -> UUID | None:
    """Return the id of the attempt that a stored workload is for."""
    try:
        return UUID(json.loads(command)["ti"]["id"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class JobLookup(Protocol):
    """Who was given which job."""

    def job(self, key: JobKey) -> Job | None:
        """Return the job of an attempt."""

    def was_handed_out(self, key: JobKey, worker: str) -> bool:
        """Return whether the worker was handed a part of the attempt."""


def had_part(jobs: JobLookup, key: JobKey, job: Job | None, worker: str) -> bool:
    """Return whether ``worker`` runs, or ran, a part of this attempt: it may write the log of it.

    :param job: the attempt's job, as :meth:`JobLookup.job` says it
    """
    # A part that ended here may still send its log while the next one runs elsewhere.
    return (job is not None and job.worker == worker) or jobs.was_handed_out(key, worker)
