"""A deferred task whose first part ends, for its worker, after its second part has begun."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag

# Much longer than the triggerer and the scheduler take.
_LATE_S = 10


class _LeavesSomethingBehind(BaseOperator):
    """Defers for a moment, while a process that it started keeps its worker waiting."""

    def execute(self, context: Any) -> None:
        """Begin: the child holds the task's output open, and a worker reads that to its end."""
        subprocess.Popen(["sleep", str(_LATE_S)])
        self.log.info("the first part has run")
        self.defer(trigger=TimeDeltaTrigger(timedelta(0)), method_name="go_on")

    def go_on(self, context: Any, event: Any) -> str:
        """Come back."""
        self.log.info("the second part has run")
        return "done"


@dag(dag_id="e2e_late_part", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), catchup=False)
def _e2e_late_part() -> None:
    _LeavesSomethingBehind(task_id="work")


_e2e_late_part()
