"""The Airflow plugin that tells a task's process which attempt it works on.

Extension point of Airflow 3.0.4: listeners. They are called in the task's process, on edge hosts and where
LocalExecutor runs tasks.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, ClassVar

import structlog
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from setproctitle import getproctitle

from airbridge.edge._correlation import FIELD, work_on

if TYPE_CHECKING:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

__all__ = ["AirbridgeCorrelationPlugin"]


class _TaskListener:
    """Called by the task runner."""

    @hookimpl  # type: ignore[untyped-decorator]
    def on_starting(self, component: object) -> None:
        """Before the DAG is read: nobody says which attempt it is for, but the process is named after it."""
        from airflow.sdk.execution_time.task_runner import TaskRunnerMarker

        if isinstance(component, TaskRunnerMarker):
            named = getproctitle().rpartition(" ")[2]
            try:
                _say(uuid.UUID(named))
            except ValueError:
                return  # the next call will say it

    @hookimpl  # type: ignore[untyped-decorator]
    def on_task_instance_running(self, task_instance: RuntimeTaskInstance) -> None:
        """Before the task's own code."""
        _say(task_instance.id)


def _say(attempt: uuid.UUID) -> None:
    work_on(str(attempt))
    structlog.contextvars.bind_contextvars(**{FIELD: str(attempt)})


class AirbridgeCorrelationPlugin(AirflowPlugin):  # type: ignore[misc]
    """Puts the id of the attempt into each line of a task's log."""

    name = "airbridge_correlation"
    listeners: ClassVar = [_TaskListener()]
