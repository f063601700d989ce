"""DAGs that fail, and what brings them back."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from airflow.sdk import Variable, dag, get_current_context, task

_log = logging.getLogger(__name__)
_START = datetime(2024, 1, 1, tzinfo=UTC)


@dag(dag_id="e2e_fails_until_mended", schedule=None, start_date=_START, catchup=False)
def _e2e_fails_until_mended() -> None:
    @task
    def work() -> None:
        if not Variable.get("e2e_mended", default=""):
            raise RuntimeError("nobody has mended it yet")
        _log.info("it was mended")

    @task
    def after() -> None:
        _log.info("what comes after ran")

    work() >> after()


@dag(dag_id="e2e_always_fails", schedule=None, start_date=_START, catchup=False)
def _e2e_always_fails() -> None:
    @task
    def work() -> None:
        raise RuntimeError("this never works")

    @task
    def after() -> None:
        _log.info("what comes after ran")

    work() >> after()


@dag(dag_id="e2e_fails_once", schedule=None, start_date=_START, catchup=False)
def _e2e_fails_once() -> None:
    @task(retries=2, retry_delay=timedelta(seconds=1))
    def work() -> int:
        attempt = get_current_context()["ti"].try_number
        if attempt == 1:
            raise RuntimeError("the first attempt fails")
        return attempt

    work()


@dag(
    dag_id="e2e_daily",
    schedule="@daily",
    start_date=_START,
    end_date=datetime(2024, 1, 10, tzinfo=UTC),
    catchup=False,
)
def _e2e_daily() -> None:
    @task
    def work() -> str:
        day = get_current_context()["ds"]
        _log.info("the day is %s", day)
        return day

    work()


_e2e_fails_until_mended()
_e2e_always_fails()
_e2e_fails_once()
_e2e_daily()
