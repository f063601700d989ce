"""Runs that ``airflow tasks test`` makes for itself; see checks_in_image.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import uuid4

from airflow.cli.commands.task_command import _generate_temporary_run_id
from airflow.executors.local_executor import LocalExecutor as AirflowLocalExecutor
from airflow.executors.workloads import BundleInfo, ExecuteTask, TaskInstance
from airflow.providers.edge3.models.edge_job import EdgeJobModel
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from airbridge.controlplane.executor import EdgeExecutor, LocalExecutor

if TYPE_CHECKING:
    from pathlib import Path

_RUNS = ("manual__2026-01-01", _generate_temporary_run_id())


def _workload(run_id: str) -> ExecuteTask:
    task = TaskInstance(
        id=uuid4(),
        task_id="task",
        dag_id="dag",
        run_id=run_id,
        try_number=1,
        map_index=-1,
        pool_slots=1,
        queue="q",
        priority_weight=1,
    )
    return ExecuteTask(
        ti=task, dag_rel_path="dag.py", bundle_info=BundleInfo(name="b"), log_path="log", token="t"
    )


def check_task_of_a_command_becomes_no_job(_: Path) -> None:
    engine = create_engine("sqlite://")
    EdgeJobModel.__table__.create(engine)
    executor = EdgeExecutor()
    with Session(engine) as session:
        for run_id in _RUNS:
            executor.queue_workload(_workload(run_id), session)
        session.commit()
        assert session.scalars(select(EdgeJobModel.run_id)).all() == [_RUNS[0]]
    assert {key.run_id for key in executor.running} == {_RUNS[0]}


def check_task_of_a_command_comes_to_no_process_of_the_local_executor(_: Path) -> None:
    taken: list[str] = []

    def take(_: Any, workload: ExecuteTask, **__: Any) -> None:
        taken.append(workload.ti.run_id)

    with patch.object(AirflowLocalExecutor, "queue_workload", take):
        for run_id in _RUNS:
            LocalExecutor().queue_workload(_workload(run_id), session=SimpleNamespace())
    assert taken == [_RUNS[0]]
