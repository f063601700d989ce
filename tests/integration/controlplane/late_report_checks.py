"""Checks of late reports with the edge provider's own table; see checks_in_image.py."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow.models.taskinstance import TaskInstance
from airflow.providers.edge3.models.edge_job import EdgeJobModel
from airflow.utils.state import TaskInstanceState as State
from sqlalchemy import create_engine, insert, select
from sqlalchemy.orm import Session

from airbridge.controlplane._late_reports import ignore_late_reports

if TYPE_CHECKING:
    from pathlib import Path

_watch = functools.cache(ignore_late_reports)  # once in a process, as in the api-server


def _reported(job: State, task: State | None, report: State, *, command: str | None = None) -> str:
    """State of a job after a report, by its state before, and that of its task instance (``None``: gone)."""
    _watch()
    engine = create_engine("sqlite://")
    for model in (EdgeJobModel, TaskInstance):
        model.__table__.create(engine)
    attempt = str(uuid4())
    with Session(engine) as session:
        for other, state in ((attempt, task), (str(uuid4()), State.RUNNING)):
            if state is not None:
                session.execute(
                    insert(TaskInstance).values(
                        id=other,
                        dag_id="dag",
                        task_id=f"of-{other}",
                        run_id="run",
                        state=state,
                        pool="p",
                        pool_slots=1,
                    )
                )
        session.add(
            EdgeJobModel(
                dag_id="dag",
                task_id="task",
                run_id="run",
                map_index=-1,
                try_number=1,
                state=job,
                queue="q",
                concurrency_slots=1,
                command=command or json.dumps({"ti": {"id": attempt}}),
            )
        )
        session.commit()
        session.scalar(select(EdgeJobModel)).state = report
        session.commit()
        return str(session.scalar(select(EdgeJobModel.state)))


def check_success_of_a_task_that_is_still_to_run_is_about_an_earlier_part(_: Path) -> None:
    for task in (State.SCHEDULED, State.QUEUED, State.RUNNING):
        assert _reported(State.RUNNING, task, State.SUCCESS) == State.RUNNING


def check_success_of_a_task_that_has_ended_ends_its_job(_: Path) -> None:
    for task in (State.SUCCESS, State.FAILED, State.DEFERRED, State.UP_FOR_RETRY, None):
        assert _reported(State.RUNNING, task, State.SUCCESS) == State.SUCCESS


def check_job_that_is_queued_is_ended_by_nobody(_: Path) -> None:
    for report in (State.SUCCESS, State.FAILED):
        assert _reported(State.QUEUED, State.QUEUED, report) == State.QUEUED
    assert _reported(State.QUEUED, State.QUEUED, State.RUNNING) == State.RUNNING


def check_failure_ends_a_job_whose_task_said_nothing(_: Path) -> None:
    assert _reported(State.RUNNING, State.RUNNING, State.FAILED) == State.FAILED


def check_job_whose_workload_names_no_attempt_is_ended_by_its_report(_: Path) -> None:
    assert _reported(State.RUNNING, State.RUNNING, State.SUCCESS, command="{}") == State.SUCCESS
