"""S3 away while tasks run, and Postgres away at the start: nothing is lost, and all goes on by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from _stack import EdgeHost, Stack, until
from _trouble import bare_control_plane, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The edge host under test looks this often, and calls itself unhealthy after three times as long.
_SYNC_INTERVAL_S = 2
_TASK_S = 8


@pytest.fixture
def outage_host(stack: Stack) -> Iterator[EdgeHost]:
    yield stack.edge("outage", "outage", DAG_SYNC_INTERVAL=str(_SYNC_INTERVAL_S))
    stack.edges.pop("outage").remove()


def test_s3_outage_loses_no_state_no_log_and_no_dag(stack: Stack, outage_host: EdgeHost) -> None:
    def sync_is_healthy() -> bool:
        return outage_host.exec("dag-sync", "python", "-m", "airbridge.sync", "health", check=False).code == 0

    dag_file = "/store/current/e2e_trouble/dags/e2e_trouble.py"
    run = stack.trigger("e2e_work_outage", {"seconds": _TASK_S})
    stack.wait_for_task(run, "work", {"running"})
    assert sync_is_healthy()

    stack.compose("kill", "--signal", "KILL", "localstack")
    try:
        # Both tasks end while nobody takes their logs.
        assert stack.wait_for_task(run, "work", {"success"}).try_number == 1
        stack.wait_for_task(run, "after", {"running", "success"})
        until("dag-sync says that it is unhealthy", lambda: not sync_is_healthy())
        said = outage_host.compose.logs("dag-sync")
        assert '"event": "sync failed"' in said
        assert "S3_ENDPOINT_URL=" in said
        # What was there stays there, for the parser and for the tasks.
        assert outage_host.exec("edge-worker", "test", "-s", dag_file).code == 0
        assert stack.api.get("/dags/e2e_work_outage")["is_stale"] is False
    finally:
        stack.compose("start", "localstack")

    stack.wait_for_run(run)
    until("dag-sync is healthy again", sync_is_healthy)
    assert "recovered" in outage_host.compose.logs("dag-sync")
    for task, line in {"work": "the work is done", "after": "what comes after ran"}.items():
        assert line in stack.log_from_s3(run, task, timeout=180)
        assert line in stack.log_from_api(run, task)
    stack.wait_for_run(stack.trigger("e2e_work_outage"))


@pytest.mark.usefixtures("_nothing_left_behind")
def test_services_that_start_before_postgres_wait_and_go_on_by_themselves(tmp_path: Path) -> None:
    compose = bare_control_plane(tmp_path, "late")
    early = ("init", "scheduler")
    try:
        compose.up("localstack", "postgres", wait=True)
        compose("stop", "postgres")
        # One after the other, because compose would let the scheduler wait for init.
        for service in reversed(early):
            compose("up", "--detach", "--no-build", "--no-deps", service)
        for service in early:
            until(
                f"{service} says what it waits for",
                lambda service=service: "waiting for Postgres" in compose.logs(service),  # type: ignore[misc]
            )
        compose("start", "postgres")
        until("init ends", lambda: compose.health("init") == "exited")
        assert exit_code(compose, "init") == 0, compose.logs("init")
        compose.wait_until_healthy("scheduler")
        said = compose.logs(*early)
        assert "Traceback" not in said
        assert "init: bucket 'airbridge-dags' made, versioned" in said
    finally:
        compose.remove()
