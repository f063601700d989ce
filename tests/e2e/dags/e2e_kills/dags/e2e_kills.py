"""Many short tasks that mark on their host when each attempt begins and ends."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import dag, get_current_context, task


def _define(queue: str, count: int) -> None:
    @dag(
        dag_id=f"e2e_{queue}",
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        params={"seconds": 1.0},
    )
    def _kills() -> None:
        # One retry, for the tasks that run on the worker when that is killed: they have begun, and only who
        # wrote them knows that they may begin again. No other task uses it, which the test looks at.
        @task(queue=queue, retries=1, retry_delay=timedelta(seconds=1))
        def work(number: int) -> int:
            context = get_current_context()
            attempt = f"{number} {context['ti'].try_number} {uuid.uuid4().hex}"
            marks = Path(os.environ["AIRBRIDGE_CACHE_DIR"], "marks")

            def mark(what: str) -> None:
                # One write of a short line to a file that is opened for appending: lines of several tasks
                # do not mix. The clock is the machine's, so that marks of different processes compare.
                now = time.clock_gettime(time.CLOCK_BOOTTIME)
                with marks.open("a") as file:
                    file.write(f"{what} {attempt} {now:.3f}\n")

            mark("start")
            time.sleep(context["params"]["seconds"])
            mark("end")
            return number

        # Needs what each of them has left, and so that nothing of it was lost on the way.
        @task(queue=queue)
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        total(work.expand(number=list(range(count))))

    _kills()


_define("kills", 200)
_define("replicas", 60)
