"""What an executor says of an earlier part of a task does not fail the part that is still to come.

A deferred task runs in parts, and so does a sensor that is rescheduled. Each part ends well for its executor.
When the next is on its way before the scheduler hears of that end, Airflow 3.0.4 finds a task that "has
ended" although it waits or runs, takes it for killed by somebody, and fails it
(``airflow/jobs/scheduler_job_runner.py``, ``process_executor_events``). Here the question that it asks first,
whether the executor has that task, is answered. Upstream has mended it for what waits, later than 3.0.4
(https://github.com/apache/airflow/issues/66374, https://github.com/apache/airflow/issues/67287), and for what
runs again it is open (https://github.com/apache/airflow/issues/72716).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.executors.base_executor import BaseExecutor
from airflow.utils.state import TaskInstanceState as State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancekey import TaskInstanceKey

__all__ = ["KnowsEarlierParts"]


class KnowsEarlierParts(BaseExecutor):  # type: ignore[misc]
    """An executor whose reports are compared with what the task has still to do. To be named first."""

    _reported: Mapping[TaskInstanceKey, str | None] = MappingProxyType({})

    def get_event_buffer(self, dag_ids: Any = None) -> dict[TaskInstanceKey, Any]:
        """See Airflow's. Whoever takes the reports asks next for the tasks that they are about."""
        events: dict[TaskInstanceKey, Any] = super().get_event_buffer(dag_ids)
        self._reported = {key: state for key, (state, _) in events.items()}
        return events

    def has_task(self, task_instance: TaskInstance) -> bool:
        """Return whether the task is in this executor, or will be: what was reported was an earlier part."""
        if super().has_task(task_instance):
            return True
        if not self._goes_on(task_instance):
            return False
        self.log.info("Report of an earlier part ignored: %s", task_instance)
        return True

    def _goes_on(self, task: TaskInstance) -> bool:
        reported = self._reported.get(task.key)
        if reported is None:
            return False
        if task.state == State.SCHEDULED:
            return True  # with no executor yet, so that none can have ended it
        # next_method stays until the task has ended. When the part that it names is lost, that is no success.
        is_under_way = task.state in (State.QUEUED, State.RUNNING)
        return is_under_way and reported == State.SUCCESS and bool(task.next_method)
