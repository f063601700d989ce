"""What is asked for at the start of a session and looked at later: DAG runs go on while others are tested.

Fixtures, for conftest.py to import; ``_head_start`` there starts those that a chosen test wants.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import Done, EdgeHost, Run, Stack

__all__ = [
    "EXAMPLES",
    "JOBS",
    "JOBS_THAT_WAIT",
    "cli_runs",
    "example_runs",
    "job_runs",
    "log_runs",
    "recovery_runs",
]

# The example DAGs, with the number of their task instances.
EXAMPLES = {
    "edge_sample_dag": 2,
    "FreshPoC_E2E": 5,
    "feature_tour_deferral": 3,
    # numbers, six squares, total, on_control_plane, verify
    "feature_tour_mapping": 10,
}

# The example jobs that run when they are triggered, with the arguments that they get; those that wait for
# others come by themselves.
JOBS: dict[str, list[str] | None] = {
    "orders_hello": None,
    "orders_import_orders": None,
    "orders_check_stock": None,
    "orders_repeat_args": ["--one", "two words"],
    "orders_flaky_upload": None,
    "orders_slow_export": None,
    "orders_big_merge": None,
    "orders_ring_bell": None,
    "orders_talk": None,
    "orders_old_script": None,
    "reporting_heartbeat": None,
}
JOBS_THAT_WAIT = ("reporting_daily_report", "reporting_archive")


@pytest.fixture(scope="session")
def job_runs(stack: Stack, edge: EdgeHost) -> dict[str, Run]:
    """A run of each example job, by its DAG id, and one of some in which it is to fail."""
    assert edge
    for dag_id in JOBS_THAT_WAIT:
        stack.unpause(dag_id)

    def trigger(dag_id: str, args: list[str] | None) -> Run:
        return stack.trigger(dag_id, {} if args is None else {"args": args})

    runs = {dag_id: trigger(dag_id, args) for dag_id, args in JOBS.items()}
    runs["exit code"] = trigger("orders_repeat_args", ["--exit-code", "3"])
    runs["left"] = trigger("orders_old_script", ["--leave-with", "no orders today"])
    runs["too slow"] = trigger("orders_slow_export", ["120"])
    runs["too big"] = trigger("orders_big_merge", ["1024"])
    return runs


@pytest.fixture(scope="session")
def example_runs(stack: Stack, edge: EdgeHost) -> dict[str, Run]:
    """A run of each example, by its DAG id, and one in which a service of FreshPoC keeps failing."""
    assert edge
    runs = {dag_id: stack.trigger(dag_id) for dag_id in EXAMPLES}
    runs["failing service"] = stack.trigger("FreshPoC_E2E", {"fail_at": "analyzer"})
    return runs


@pytest.fixture(scope="session")
def cli_runs(stack: Stack, edge: EdgeHost) -> Iterator[dict[str, Future[Done]]]:
    """The two commands of the sample's documentation, as a person types them; seconds of CPU each."""
    assert edge
    stack.unpause("edge_sample_dag")

    def airflow(*arguments: str) -> Done:
        done = stack.exec("scheduler", "airflow", *arguments, check=False)
        if "DeadlockDetected" in done.output:
            # "tasks test" deletes its temporary run at its end. The scheduler looks at every run of a DAG
            # that is not paused, at this one too, and Postgres ends one of the two when they meet.
            done = stack.exec("scheduler", "airflow", *arguments, check=False)
        return done

    with ThreadPoolExecutor(1) as pool:
        yield {
            "trigger": pool.submit(airflow, "dags", "trigger", "edge_sample_dag", "--run-id", "cli"),
            "test": pool.submit(airflow, "tasks", "test", "edge_sample_dag", "start", "2024-01-01"),
        }


@pytest.fixture(scope="session")
def log_runs(stack: Stack, edge: EdgeHost) -> Iterator[Future[tuple[EdgeHost, Run]]]:
    """A long task on an edge host of its own, which a test will take away."""
    assert edge

    def start() -> tuple[EdgeHost, Run]:
        return stack.edge("logs", "logs"), stack.trigger("e2e_live_log")

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(start)


@pytest.fixture(scope="session")
def recovery_runs(stack: Stack, edge: EdgeHost) -> dict[str, Run]:
    """Runs with trouble, each in its way, by their DAG id; and a backfill of three days of ``e2e_daily``."""
    assert edge
    runs = {
        name: stack.trigger(name)
        for name in ("e2e_fails_until_mended", "e2e_always_fails", "e2e_fails_once", "e2e_late_part")
    }
    stack.unpause("e2e_daily")
    days = {"from_date": "2024-01-02T00:00:00Z", "to_date": "2024-01-04T00:00:00Z"}
    stack.api.post("/backfills", {"dag_id": "e2e_daily", **days})
    return runs
