"""For each queue a task whose first attempt takes as many seconds as its run says, and one after it."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, get_current_context, task

_log = logging.getLogger(__name__)

_QUEUES = ("default", "drain", "crash", "twins", "outage")


def _define(queue: str) -> None:
    @dag(
        dag_id=f"e2e_work_{queue}",
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        params={"seconds": 0},
    )
    def _work() -> None:
        @task(queue=queue, retries=1, retry_delay=timedelta(seconds=1))
        def work() -> None:
            context = get_current_context()
            seconds = context["params"]["seconds"] if context["ti"].try_number == 1 else 0
            _log.info("the work takes %s s", seconds)
            time.sleep(seconds)
            _log.info("the work is done")

        @task(queue=queue)
        def after() -> None:
            _log.info("what comes after ran")

        work() >> after()

    _work()


for _queue in _QUEUES:
    _define(_queue)
