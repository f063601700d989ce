"""A task that writes a line, and then runs until it is told to stop."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from airflow.sdk import Variable, dag, task

_log = logging.getLogger(__name__)

# Without a word from the test the task ends by itself.
_LONGEST_S = 3600


@dag(dag_id="e2e_live_log", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), catchup=False)
def _e2e_live_log() -> None:
    @task(queue="logs")
    def talk() -> None:
        _log.info("the first line of a long task")
        deadline = time.monotonic() + _LONGEST_S
        while time.monotonic() < deadline and not Variable.get("e2e_live_log_may_end", default=""):
            time.sleep(1)
        _log.info("the last line of a long task")

    talk()


_e2e_live_log()
