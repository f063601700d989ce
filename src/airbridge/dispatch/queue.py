"""The queue of jobs: the table ``edge_job`` of the edge provider 5.1.0, claimed in batches.

The provider's own fetch (``providers/edge3/worker_api/routes/jobs.py``) hands out one job a call. This one
hands out as many as the worker has slots for, in one transaction, hands out again what the worker never got,
and makes Postgres say when there is something to claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from airbridge.identity.jobs import JobKey, count_held, may_have_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.identity.database import Database

__all__ = [
    "CHANNEL",
    "ENDED_CHANNEL",
    "Claim",
    "ClaimedJob",
    "Demand",
    "JobQueue",
    "install_notifications",
]

CHANNEL: Final = "airbridge_job_queued"
"""Postgres notifies it of each queue that a job was put into; the payload is the queue's name."""

ENDED_CHANNEL: Final = "airbridge_job_ended"
"""Postgres notifies it of workers of which a job has ended, which frees a slot; the payload is a name."""

# NOTIFY takes less than 8000 bytes, the column 256 characters.
_INSTALL: Final = f"""
    CREATE OR REPLACE FUNCTION airbridge.announce_job() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{CHANNEL}', NEW.queue);
        RETURN NULL;
    END $$;
    DROP TRIGGER IF EXISTS airbridge_job_queued ON edge_job;
    CREATE TRIGGER airbridge_job_queued AFTER INSERT OR UPDATE OF state, queue ON edge_job
        FOR EACH ROW WHEN (NEW.state = 'queued') EXECUTE FUNCTION airbridge.announce_job();
    CREATE OR REPLACE FUNCTION airbridge.announce_job_end() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('{ENDED_CHANNEL}', NEW.edge_worker);
        RETURN NULL;
    END $$;
    DROP TRIGGER IF EXISTS airbridge_job_ended ON edge_job;
    CREATE TRIGGER airbridge_job_ended AFTER UPDATE OF state ON edge_job
        FOR EACH ROW WHEN (NEW.state IN ('success', 'failed') AND NEW.state <> OLD.state)
        EXECUTE FUNCTION airbridge.announce_job_end();
"""

_LOST: Final = """
    SELECT dag_id, task_id, run_id, map_index, try_number, task_instance_id, command, concurrency_slots, queue
    FROM edge_job WHERE edge_worker = %(worker)s AND state = 'restarting'
"""

# The order of the provider's fetch, and its index (rj_order). Of rows that are too many for the free slots
# the lock ends with the transaction.
_CLAIM: Final = """
    WITH candidate AS MATERIALIZED (
        SELECT dag_id, task_id, run_id, map_index, try_number, task_instance_id, concurrency_slots,
               priority_weight, queued_dttm
        FROM edge_job
        WHERE state = 'queued' AND queue = ANY(%(queues)s) AND concurrency_slots <= %(free)s
        ORDER BY priority_weight DESC, queued_dttm
        LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ), fitting AS (
        SELECT *, sum(concurrency_slots) OVER (
            ORDER BY priority_weight DESC, queued_dttm, dag_id, run_id, task_id, map_index, try_number
        ) AS slots FROM candidate
    )
    UPDATE edge_job job SET state = 'restarting', edge_worker = %(worker)s, last_update = now()
    FROM fitting f
    WHERE f.slots <= %(free)s
        AND (job.dag_id, job.task_id, job.run_id, job.map_index, job.try_number, job.task_instance_id)
          = (f.dag_id, f.task_id, f.run_id, f.map_index, f.try_number, f.task_instance_id)
    RETURNING job.dag_id, job.task_id, job.run_id, job.map_index, job.try_number, job.task_instance_id,
              job.command, job.concurrency_slots, job.queue
"""

_RUNNING: Final = """
    SELECT dag_id, task_id, run_id, map_index, try_number FROM edge_job
    WHERE edge_worker = %(worker)s AND state = 'running'
"""

_BACKLOG: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM edge_job WHERE state = 'queued' AND queue = ANY(%(queues)s) LIMIT %(most)s
    ) AS waiting
"""
# Counting further would change nothing: no worker takes more at once.
_MOST_COUNTED: Final = 1000

_NOTE: Final = """
    INSERT INTO airbridge.handed_out (dag_id, task_id, run_id, map_index, try_number, worker)
    SELECT *, %(worker)s FROM unnest(%(dags)s, %(tasks)s, %(runs)s, %(maps)s, %(tries)s)
    ON CONFLICT (dag_id, task_id, run_id, map_index, try_number, worker) DO UPDATE SET handed_at = now()
"""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a worker can take now."""

    worker: str
    queues: tuple[str, ...]
    slots: int
    """Slots that it has, free or not."""
    concurrency: int
    """Slots that it may hold at once, by its enrolment."""
    holding: frozenset[JobKey] = frozenset()
    """Attempts that it has, so that what it never got can be told."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that is a worker's now."""

    key: JobKey
    task_instance_id: str
    """Empty with Airflow before 3.3."""
    command: str
    """The workload, JSON of ``airflow.executors.workloads.ExecuteTask``."""
    slots: int
    queue: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a demand."""

    jobs: tuple[ClaimedJob, ...]
    left: int
    """Jobs that are still queued in the demand's queues, 1000 at most."""


def install_notifications(connection: Any) -> None:
    """Make Postgres announce queued jobs on :data:`CHANNEL`, ended ones on :data:`ENDED_CHANNEL`.

    Triggers and not notifications by the executor or the api-server, so that whatever queues a job announces
    it, with the same commit, and to every api-server. Safe to repeat. Needs the schema ``airbridge`` and the
    tables of the edge provider.
    """
    with connection, connection.cursor() as cursor:
        cursor.execute(_INSTALL)


class JobQueue:
    """Claims jobs. Methods block: call them in a thread.

    Raises:
        airbridge.errors.UnreachableError: the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def queued(self) -> frozenset[str]:
        """Return the queues that hold a job."""
        with self._database.look() as cursor:
            cursor.execute("SELECT DISTINCT queue FROM edge_job WHERE state = 'queued'")
            return frozenset(row[0] for row in cursor.fetchall())

    def may_have(self, demand: Demand) -> bool:
        """Return whether a claim may find anything: one SELECT, where a claim is a transaction."""
        with self._database.look() as cursor:
            return may_have_jobs(cursor, demand.worker, demand.queues)

    def running(self, worker: str) -> frozenset[JobKey]:
        """Return the attempts that run on a worker, as far as is known here."""
        with self._database.cursor() as cursor:
            cursor.execute(_RUNNING, {"worker": worker})
            return frozenset(JobKey(*row) for row in cursor.fetchall())

    def claim(
        self,
        demand: Demand,
        sharers: int = 1,
        is_wanted: Callable[[], bool] = lambda: True,
        *,
        is_first: bool = True,
    ) -> Claim:
        """Give jobs to a worker: first what it was given and never got, then what is queued.

        :param sharers: workers that could take these jobs, this one included; it gets its share, rounded up
        :param is_first: False: what the worker was given since the first claim for this demand was the answer
            to another question of its; whether that one got lost, its next question tells
        :param is_wanted: asked once no other claim of this worker runs; False: its answer would reach nobody
        """
        with self._database.cursor() as cursor:
            # One claim a worker at a time: two at once would both see the same free slots.
            held = count_held(cursor, demand.worker)
            if not is_wanted():
                return Claim((), 0)
            lost = self._lost(cursor, demand) if is_first else []
            queues = list(demand.queues)
            cursor.execute(_BACKLOG, {"queues": queues, "most": _MOST_COUNTED})
            backlog = int(cursor.fetchone()[0])
            # What was lost is among what it holds by the books.
            free = min(demand.slots, demand.concurrency) - held
            claimed: list[ClaimedJob] = []
            if backlog and free > 0:
                share = -(-backlog // max(sharers, 1))
                asked = {
                    "worker": demand.worker,
                    "queues": queues,
                    "free": free,
                    "limit": min(free, share),
                }
                cursor.execute(_CLAIM, asked)
                claimed = [_job(row) for row in cursor.fetchall()]
            jobs = (*lost, *claimed)
            if jobs:
                self._note(cursor, demand.worker, [job.key for job in jobs])
        return Claim(jobs, backlog - len(claimed))

    @staticmethod
    def _lost(cursor: Any, demand: Demand) -> list[ClaimedJob]:
        cursor.execute(_LOST, {"worker": demand.worker})
        return [job for job in map(_job, cursor.fetchall()) if job.key not in demand.holding]

    @staticmethod
    def _note(cursor: Any, worker: str, keys: list[JobKey]) -> None:
        """Write down who was handed what; see :meth:`airbridge.identity.jobs.Jobs.hand_out`."""
        cursor.execute(
            _NOTE,
            {
                "worker": worker,
                "dags": [key.dag_id for key in keys],
                "tasks": [key.task_id for key in keys],
                "runs": [key.run_id for key in keys],
                "maps": [key.map_index for key in keys],
                "tries": [key.try_number for key in keys],
            },
        )


def _job(row: tuple[Any, ...]) -> ClaimedJob:
    return ClaimedJob(JobKey(*row[:5]), *row[5:])
