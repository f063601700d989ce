"""Which worker runs what, as the tables of Airflow 3.0.4 and of its edge provider 5.1.0 say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from airbridge.identity.database import Database

__all__ = ["HELD_STATES", "Job", "JobKey", "JobLookup", "Jobs", "RunningTask", "had_part"]

HELD_STATES: Final = ("restarting", "running")
"""States of ``edge_job`` between a fetch (the first one) and the worker's report of the end."""

# Far longer than a worker may go on sending the log of what it ran.
_KEPT: Final = timedelta(days=7)


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


@dataclass(frozen=True, slots=True)
class RunningTask:
    """The task instance that a workload token was made for, and who holds its job."""

    key: JobKey
    job: Job


class Jobs:
    """Questions about jobs; each is one query by primary key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def job(self, key: JobKey) -> Job | None:
        """Return the job of an attempt; ``None``: there is none, or not any more."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT edge_worker, state FROM edge_job WHERE dag_id = %s AND task_id = %s AND run_id = %s"
                " AND map_index = %s AND try_number = %s",
                key._values,
            )
            row = cursor.fetchone()
        return None if row is None else Job(*row)

    def task(self, task_instance: UUID) -> RunningTask | None:
        """Return the task instance of this id with its job; ``None``: it is no job of an edge worker."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT t.dag_id, t.task_id, t.run_id, t.map_index, t.try_number, j.edge_worker, j.state"
                " FROM task_instance t JOIN edge_job j USING (dag_id, task_id, run_id, map_index, try_number)"
                " WHERE t.id = %s",
                (str(task_instance),),
            )
            row = cursor.fetchone()
        return None if row is None else RunningTask(JobKey(*row[:5]), Job(*row[5:]))

    def hand_out(self, key: JobKey, worker: str) -> None:
        """Note that a part of this attempt was handed to ``worker``, and forget what is long over."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "INSERT INTO airbridge.handed_out (dag_id, task_id, run_id, map_index, try_number, worker)"
                " VALUES (%s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (dag_id, task_id, run_id, map_index, try_number, worker)"
                " DO UPDATE SET handed_at = now()",
                (*key._values, worker),
            )
            cursor.execute("DELETE FROM airbridge.handed_out WHERE handed_at < now() - %s", (_KEPT,))

    def was_handed_out(self, key: JobKey, worker: str) -> bool:
        """Return whether ``worker`` was ever handed a part of this attempt, within a week."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM airbridge.handed_out WHERE dag_id = %s AND task_id = %s AND run_id = %s"
                " AND map_index = %s AND try_number = %s AND worker = %s",
                (*key._values, worker),
            )
            return cursor.fetchone() is not None


class JobLookup(Protocol):
    """Who was given which job."""

    def job(self, key: JobKey) -> Job | None:
        """Return the job of an attempt."""

    def was_handed_out(self, key: JobKey, worker: str) -> bool:
        """Return whether the worker was handed a part of the attempt."""


def had_part(jobs: JobLookup, key: JobKey, worker: str) -> bool:
    """Return whether ``worker`` runs, or ran, a part of this attempt: it may write the log of it."""
    job = jobs.job(key)
    # A part that ended here may still send its log while the next one runs elsewhere.
    return (job is not None and job.worker == worker) or jobs.was_handed_out(key, worker)
