"""A DAG that gives its worker slot back while it waits: the triggerer does the waiting."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import dag, task

_log = logging.getLogger(__name__)

# Long enough to be seen as "deferred" in the UI, short enough for a demonstration.
WAIT_SECONDS = 5
# The triggerer's clock ends the wait, the clock of an edge host measures it.
CLOCK_TOLERANCE_SECONDS = 2

DOC = f"""
### feature_tour_deferral

`before` (edge) → `wait` (starts on the edge, **defers**, waits {WAIT_SECONDS} s in the triggerer, ends on the
edge) → `after` (edge), which fails if less passed (give or take {CLOCK_TOLERANCE_SECONDS} s of
clock skew).

While `wait` is deferred no edge worker holds a slot for it. Its log has two parts in the UI and in S3: the
worker's (`attempt=1.log`) and the triggerer's (`attempt=1.log.trigger.<id>.log`: "trigger starting",
"sleeping 1 second...").
"""


@dag(
    dag_id="feature_tour_deferral",
    description="A task that defers to the triggerer and comes back to the edge",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["feature_tour", "example"],
    doc_md=DOC,
)
def _feature_tour_deferral() -> None:
    @task
    def before() -> str:
        now = datetime.now(UTC)
        _log.info("the wait begins at %s", now.isoformat())
        return now.isoformat()

    wait = DateTimeSensorAsync(
        task_id="wait",
        # From the moment this task starts, so that time spent in a queue is not counted as waiting.
        target_time=f"{{{{ (ti.start_date + macros.timedelta(seconds={WAIT_SECONDS})).isoformat() }}}}",
        execution_timeout=timedelta(minutes=5),
    )

    @task
    def after(began: str) -> float:
        waited = (datetime.now(UTC) - datetime.fromisoformat(began)).total_seconds()
        if waited < WAIT_SECONDS - CLOCK_TOLERANCE_SECONDS:
            raise ValueError(f"only {waited:.1f} s passed since 'before', {WAIT_SECONDS} s were promised")
        _log.info("%.1f s passed, %d s were promised", waited, WAIT_SECONDS)
        return round(waited, 1)

    began = before()
    began >> wait >> after(began)


_feature_tour_deferral()
