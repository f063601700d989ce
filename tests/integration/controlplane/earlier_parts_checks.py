"""The scheduler's own judgement of what executors report, task by task; see checks_in_image.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.executors.local_executor import LocalExecutor as AirflowLocalExecutor
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.base import Base
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.edge3.executors import EdgeExecutor as ProviderExecutor
from airflow.utils import timezone
from airflow.utils.state import TaskInstanceState as State
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from airbridge.controlplane.executor import EdgeExecutor, LocalExecutor

if TYPE_CHECKING:
    from pathlib import Path

_KEY = TaskInstanceKey("dag", "task", "run", 1, -1)
_SCHEDULER = 7
_GOES_ON = "execute_complete"


class _TakenForKilled(BaseException):
    """The scheduler asks for the DAG of a task only to fail it. Nothing on the way catches this."""


class _DagBag:
    def get_dag(self, **_: Any) -> None:
        raise _TakenForKilled


def _is_failed(kind: type, task: State, report: State, next_method: str | None) -> bool:
    """Return whether the scheduler fails a task in a state, of whose attempt an executor reports an end."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    executor = kind()
    executor.event_buffer[_KEY] = (report, None)
    with Session(engine) as session:
        # Tasks are read with their runs.
        session.execute(
            insert(DagRun).values(
                dag_id=_KEY.dag_id,
                run_id=_KEY.run_id,
                run_type="manual",
                run_after=timezone.utcnow(),
                log_template_id=1,
                state="running",
            )
        )
        session.execute(
            insert(TaskInstance).values(
                id=str(uuid4()),
                dag_id=_KEY.dag_id,
                task_id=_KEY.task_id,
                run_id=_KEY.run_id,
                try_number=_KEY.try_number,
                map_index=_KEY.map_index,
                state=task,
                next_method=next_method,
                queued_by_job_id=_SCHEDULER,
                pool="p",
                pool_slots=1,
                priority_weight=1,
            )
        )
        try:
            SchedulerJobRunner.process_executor_events(
                executor=executor, job_id=_SCHEDULER, scheduler_dag_bag=_DagBag(), session=session
            )
        except _TakenForKilled:
            return True
    return False


def check_upstream_still_fails_a_task_that_goes_on(_: Path) -> None:
    """When this fails, Airflow has mended it, and ours can go."""
    for kind in (ProviderExecutor, AirflowLocalExecutor):
        assert _is_failed(kind, State.SCHEDULED, State.SUCCESS, _GOES_ON)


def check_report_of_an_earlier_part_fails_no_task_that_goes_on(_: Path) -> None:
    for kind in (EdgeExecutor, LocalExecutor):
        for task in (State.SCHEDULED, State.QUEUED, State.RUNNING):
            assert not _is_failed(kind, task, State.SUCCESS, _GOES_ON), (kind, task)


def check_report_of_an_earlier_part_fails_no_rescheduled_sensor_that_waits_for_a_slot(_: Path) -> None:
    for kind in (EdgeExecutor, LocalExecutor):
        assert not _is_failed(kind, State.SCHEDULED, State.SUCCESS, None)


def check_task_whose_part_is_lost_fails_still(_: Path) -> None:
    for kind in (EdgeExecutor, LocalExecutor):
        for task in (State.QUEUED, State.RUNNING):
            assert _is_failed(kind, task, State.FAILED, _GOES_ON), (kind, task)
            assert _is_failed(kind, task, State.SUCCESS, None), (kind, task)


def check_executor_has_no_waiting_task_of_which_it_reported_nothing(_: Path) -> None:
    """``airflow dags test --use-executor`` asks this before it runs a task, and would wait for ever."""
    waiting = SimpleNamespace(id=str(uuid4()), key=_KEY, state=State.SCHEDULED, next_method=_GOES_ON)
    for kind in (EdgeExecutor, LocalExecutor):
        executor = kind()
        assert not executor.has_task(waiting)
        executor.event_buffer[_KEY] = (State.SUCCESS, None)
        executor.get_event_buffer()
        assert executor.has_task(waiting)
        executor.get_event_buffer()
        assert not executor.has_task(waiting)
