"""Tasks that leave one line on their host for each time that they run, and a few lines in their logs."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import dag, get_current_context, task

_log = logging.getLogger(__name__)

_MANY = 50
_LINES = 5


def _define(queue: str, count: int) -> None:
    @dag(
        dag_id=f"e2e_partition_{queue}",
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        params={"seconds": 0},
    )
    def _partition() -> None:
        # No retries: a task that ran twice or got lost would fail the run.
        @task(queue=queue)
        def work(number: int) -> int:
            seconds = get_current_context()["params"]["seconds"]
            with Path("/cache/ran").open("a") as file:
                file.write(f"{queue} {number}\n")
            for line in range(_LINES):
                _log.info("line %s of %s", line + 1, number)
                time.sleep(seconds / _LINES)
            _log.info("the end of %s", number)
            return number * number

        # Needs what each of them has left, and so that nothing of it was lost on the way.
        @task(queue=queue)
        def total(squares: list[int]) -> int:
            return sum(squares)

        total(work.expand(number=list(range(count))))

    _partition()


_define("partition", _MANY)
_define("partition-dark", 2)
