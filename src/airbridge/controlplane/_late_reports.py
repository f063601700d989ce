"""A worker's late word about an earlier part of a task does not end the part that came after it.

A deferred task runs in parts, and the edge provider has one row for all of them (same task, same attempt).
When the trigger fires before the worker has said that the first part ended - it sends the log first, and the
host may be slow - the row is queued again, and the late "success" lands on it: the second part never starts,
or the scheduler takes a running task for one that was lost, and fails it.

A true success is easy to tell: the task has told the Execution API its state before its worker reports. So a
"success" for a task instance that is still to run, or runs, is about an earlier part; and a job that is
queued is with no worker, so that no worker can have ended it.
"""

from __future__ import annotations

from typing import Any

import structlog

from airbridge.identity.jobs import task_instance_of

__all__ = ["ignore_late_reports"]

log = structlog.get_logger(__name__)


def ignore_late_reports() -> None:
    """Watch the job table of the edge provider in this process. Needs Airflow; for the api-server only.

    In the transaction that takes the report, with its row locked, so that nothing changes in between.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.providers.edge3.models.edge_job import EdgeJobModel
    from airflow.utils.state import TaskInstanceState as State
    from sqlalchemy import event, select
    from sqlalchemy.orm import object_session

    unfinished = (State.SCHEDULED, State.QUEUED, State.RUNNING)

    def is_late(job: Any, new: str, old: object) -> bool:
        if old == State.QUEUED:
            return new in (State.SUCCESS, State.FAILED)
        session, attempt = object_session(job), task_instance_of(job.command)
        if new != State.SUCCESS or session is None or attempt is None:
            return False
        # By its id: by its names, Postgres may come to read every task of the run.
        return session.scalar(select(TaskInstance.state).where(TaskInstance.id == str(attempt))) in unfinished

    def keep_state(job: Any, new: str, old: Any, _: object) -> Any:
        if not is_late(job, new, old):
            return new
        log.info(
            "late report of an earlier part ignored",
            dag_id=job.dag_id,
            task_id=job.task_id,
            run_id=job.run_id,
            map_index=job.map_index,
            try_number=job.try_number,
            reported=str(new),
            job_is=str(old),
        )
        return old

    event.listen(EdgeJobModel.state, "set", keep_state, retval=True)
