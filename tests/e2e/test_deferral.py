"""A task that is deferred runs in parts, and its trigger may fire before anybody knows that a part ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import EdgeHost, Stack

_DAG_ID = "e2e_deferral"
_TASKS = 24
_PARTS = 6
_DAG = f"""
from datetime import timedelta
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag

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

@dag(dag_id="{_DAG_ID}", schedule=None)
def runs():
    Parts.partial(task_id="parts", retries=0).expand(number=list(range({_TASKS})))

runs()
"""


@pytest.fixture
def parts(stack: Stack, edge: EdgeHost) -> Iterator[str]:
    assert edge  # for the tasks of the queue "default"
    key = stack.put_dag("deferral", "deferral.py", _DAG)
    yield _DAG_ID
    stack.unpublish([key])


def test_trigger_that_fires_at_once_costs_no_task_its_next_part(stack: Stack, parts: str) -> None:
    """Airflow fails a task that its executor says has ended and that waits again; these had only paused."""
    run = stack.wait_for_run(stack.trigger(parts)).of("parts")
    assert [(task.state, task.try_number) for task in run] == [("success", 1)] * _TASKS
