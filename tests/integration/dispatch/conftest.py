"""The Postgres of the identity tests, with the announcements of queued jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

import pytest
from tests.integration.identity.conftest import database, postgres

from airbridge.dispatch.queue import JobQueue, install_notifications

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airbridge.identity.database import Database

__all__ = ["Desk", "database", "desk", "postgres", "workload_of"]


def workload_of(task: str) -> dict[str, Any]:
    """What there is to do, as far as the control plane reads it."""
    return {"ti": {"id": str(uuid5(NAMESPACE_OID, task))}}


@dataclass(frozen=True, slots=True)
class Desk:
    """What queues jobs, and looks at them."""

    database: Database
    queue: JobQueue

    def put(self, *tasks: str, queue: str = "a", slots: int = 1, priority: int = 1) -> None:
        """Queue a job for each task id, as the edge executor does, in one transaction."""
        with self.database.cursor() as cursor:
            for task in tasks:
                cursor.execute(
                    "INSERT INTO edge_job (dag_id, task_id, run_id, map_index, try_number, state, queue,"
                    " concurrency_slots, priority_weight, command, queued_dttm)"
                    " VALUES ('dag', %s, 'run', -1, 1, 'queued', %s, %s, %s, %s, clock_timestamp())",
                    (task, queue, slots, priority, json.dumps(workload_of(task))),
                )

    def set_state(self, task: str, state: str) -> None:
        """Report a job's state, as a worker does."""
        with self.database.cursor() as cursor:
            cursor.execute("UPDATE edge_job SET state = %s WHERE task_id = %s", (state, task))

    def claimed_by(self, worker: str, task: str) -> None:
        """Hand a job out to a worker that does not ask here."""
        with self.database.cursor() as cursor:
            cursor.execute(
                "UPDATE edge_job SET state = 'restarting', edge_worker = %s WHERE task_id = %s",
                (worker, task),
            )

    def states(self) -> dict[str, tuple[str, str | None]]:
        """State and worker of every job, by task id."""
        with self.database.cursor() as cursor:
            cursor.execute("SELECT task_id, state, edge_worker FROM edge_job ORDER BY task_id")
            return {task: (state, worker) for task, state, worker in cursor.fetchall()}


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    """An empty queue of jobs."""
    with database.cursor() as cursor:
        cursor.execute("DELETE FROM edge_job")
    connection = database.connection()
    install_notifications(connection)
    connection.close()
    yield Desk(database, JobQueue(database))
    with database.cursor() as cursor:
        cursor.execute("DROP TRIGGER IF EXISTS airbridge_job_queued ON edge_job")
        cursor.execute("DELETE FROM edge_job")
