"""Some tasks run in parts, and the next may be on its way before anybody knows that one ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import EdgeHost, FinishedRun, Stack

_DAG_ID = "e2e_deferral"
_TASKS = 12
_PARTS = 4
_SENSORS = 4
_LOOKS = 3
_DAG = f"""
from datetime import timedelta
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, BaseSensorOperator, dag

class Parts(BaseOperator):
    def __init__(self, number, **named):
        super().__init__(**named)
        self.number = number

    def execute(self, context, event=None, part=1):
        if part < {_PARTS}:
            self.defer(
                trigger=TimeDeltaTrigger(timedelta(0)), method_name="execute", kwargs={{"part": part + 1}}
            )
        return part

class Looks(BaseSensorOperator):
    def __init__(self, number, **named):
        super().__init__(**named)
        self.number = number

    def poke(self, context):
        return context["task_reschedule_count"] >= {_LOOKS} - 1

@dag(dag_id="{_DAG_ID}", schedule=None)
def runs():
    Parts.partial(task_id="parts", retries=0).expand(number=list(range({_TASKS})))
    Looks.partial(task_id="looks", retries=0, mode="reschedule", poke_interval=0.1).expand(
        number=list(range({_SENSORS}))
    )

runs()
"""


@pytest.fixture(scope="module")
def finished(stack: Stack, edge: EdgeHost) -> Iterator[FinishedRun]:
    assert edge  # for the tasks of the queue "default"
    key = stack.put_dag("deferral", "deferral.py", _DAG)
    yield stack.wait_for_run(stack.trigger(_DAG_ID))
    stack.unpublish([key])


def test_trigger_that_fires_at_once_costs_no_task_its_next_part(finished: FinishedRun) -> None:
    """Airflow fails a task that its executor says has ended and that waits again; these had only paused."""
    tasks = finished.of("parts")
    assert [(task.state, task.try_number) for task in tasks] == [("success", 1)] * _TASKS


def test_sensor_that_looks_again_at_once_is_not_taken_for_killed(finished: FinishedRun) -> None:
    tasks = finished.of("looks")
    assert [(task.state, task.try_number) for task in tasks] == [("success", 1)] * _SENSORS
