"""What ``airflow tasks test`` runs by itself is handed to nobody else.

The command makes a run of the DAG, runs one task in its own process and deletes the run
(``airflow/cli/commands/task_command.py``, 3.0.4). When the DAG is not paused, the scheduler takes that run
for one of its own: the faster tasks come to edge hosts, the likelier one of them runs it too, and the tasks
after it, and the command fails because its task runs already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow.executors.base_executor import BaseExecutor

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["LeavesTestRuns"]

# See _generate_temporary_run_id() there.
_TEMPORARY: Final = "__airflow_temporary_run_"


class LeavesTestRuns(BaseExecutor):  # type: ignore[misc]
    """An executor that takes no task of a run that a person's command made for itself. To be named first."""

    def queue_workload(self, workload: Any, session: Session) -> None:
        """See Airflow's. The run is gone when its command has ended, whatever state its tasks have then."""
        task = getattr(workload, "ti", None)
        if task is not None and task.run_id.startswith(_TEMPORARY):
            self.log.info("Left to the command that made this run: %s", task.key)
            return
        super().queue_workload(workload, session=session)
