"""The provider's own commands and signals, answered by AirBridge's runner while its call for jobs is held.

And the provider's own worker, which asks in its own way.
"""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from _stack import EdgeHost, Run, Stack, docker, until
from _trouble import exit_code, psql, worker_state

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "runner"
_LONG_S = 600
_DAG = """
import time
from datetime import timedelta
from airflow.sdk import dag, get_current_context, task

def define(queue):
    @dag(dag_id=f"e2e_{queue}", schedule=None, params={"seconds": 0, "tasks": 1, "fails": False})
    def runs():
        @task
        def numbers() -> list[int]:
            return list(range(get_current_context()["params"]["tasks"]))

        @task(queue=queue, retries=1, retry_delay=timedelta(seconds=1))
        def work(number: int) -> None:
            context = get_current_context()
            if context["ti"].try_number == 1:
                time.sleep(context["params"]["seconds"])
                context["ti"].xcom_push("seen", number)
                assert not context["params"]["fails"]

        work.expand(number=numbers())

    runs()

define("runner"), define("runner-added"), define("runner-stock")
"""


@pytest.fixture(scope="module")
def host(stack: Stack, edge: EdgeHost) -> Iterator[EdgeHost]:
    assert edge  # for the tasks of the queue "default"
    key = stack.put_dag("runner", "runner.py", _DAG)
    host = stack.edge(_NAME, _NAME, WORKER_RUNNER="airbridge", WORKER_CONCURRENCY="2")
    stack.identity("update", _NAME, "--queues", f"{_NAME},{_NAME}-added")
    yield host
    stack.edges.pop(_NAME).remove()
    stack.unpublish([key])


def _on_host(host: EdgeHost, *command: str) -> str:
    """A command of the provider in the worker's container, as a person types it."""
    return host.exec("edge-worker", "airflow", "edge", *command).stdout


def _control(stack: Stack, *command: str) -> None:
    stack.exec("scheduler", "airflow", "edge", *command)


def _jobs(stack: Stack, run: Run) -> list[str]:
    rows = psql(stack, f"SELECT state, coalesce(edge_worker, '') FROM edge_job WHERE run_id = '{run.run_id}'")
    return [row for row in rows.splitlines() if not row.endswith("|a")]


def _waits(stack: Stack, host: EdgeHost) -> None:
    """A job is queued, and still is after longer than the worker takes to fetch one."""
    run = stack.trigger(f"e2e_{_NAME}")
    until("its job is queued", lambda: _jobs(stack, run) == ["queued|"])
    with pytest.raises(AssertionError, match="not within"):
        until("nobody takes it", lambda: _jobs(stack, run) != ["queued|"], timeout=3)


def _status(host: EdgeHost) -> dict[str, Any]:
    # Some lines of Airflow's log come first.
    log, opening, rest = f"\n{_on_host(host, 'status')}".partition("\n{\n")
    assert opening, log
    found: dict[str, Any] = json.loads(opening + rest)
    return found


def test_maintenance_that_is_asked_for_on_the_host_takes_no_job_until_it_ends(
    stack: Stack, host: EdgeHost
) -> None:
    assert _status(host)["state"] == "idle"
    _on_host(host, "maintenance", "on", "--comments", "new disk")
    until("the control plane knows", lambda: worker_state(stack, _NAME) == "maintenance mode")
    _waits(stack, host)
    assert _status(host)["maintenance"] is True
    _on_host(host, "maintenance", "off")
    until("the jobs are taken", lambda: not psql(stack, _QUEUED))


def test_maintenance_that_the_control_plane_asks_for_ends_the_call_that_is_held(
    stack: Stack, host: EdgeHost
) -> None:
    _control(
        stack, "remote-edge-worker-request-maintenance", "--edge-hostname", _NAME, "--comments", "new disk"
    )
    until("the worker has heard", lambda: worker_state(stack, _NAME) == "maintenance mode")
    _waits(stack, host)
    _control(stack, "remote-edge-worker-exit-maintenance", "--edge-hostname", _NAME)
    until("the jobs are taken", lambda: not psql(stack, _QUEUED))


_QUEUED = f"SELECT 1 FROM edge_job WHERE state = 'queued' AND queue = '{_NAME}'"


def test_number_of_tasks_and_queues_that_are_changed_remotely_hold_for_the_call_that_is_held(
    stack: Stack, host: EdgeHost
) -> None:
    _control(stack, "set-worker-concurrency", "--edge-hostname", _NAME, "--concurrency", "1")
    _control(stack, "add-worker-queues", "--edge-hostname", _NAME, "--queues", f"{_NAME}-added")
    until(
        "the worker has heard",
        lambda: "Concurrency updated from 2 to 1" in host.compose.logs("edge-worker"),
    )
    run = stack.trigger(f"e2e_{_NAME}-added", {"tasks": 3, "seconds": 2})
    most = 0

    def ended() -> bool:
        nonlocal most
        states = _jobs(stack, run)
        most = max(most, sum(state.startswith(("running", "restarting")) for state in states))
        return stack.run_state(run) in ("success", "failed")

    until("the run ends", ended)
    assert stack.wait_for_run(run).state == "success"
    assert most == 1
    _control(stack, "set-worker-concurrency", "--edge-hostname", _NAME, "--concurrency", "2")


def test_mapped_task_that_failed_after_it_pushed_an_xcom_is_tried_again(stack: Stack, host: EdgeHost) -> None:
    """The next try begins with taking back what the one before has left."""
    host.compose.wait_until_healthy("edge-worker")
    run = stack.trigger(f"e2e_{_NAME}", {"tasks": 2, "fails": True})
    assert {task.try_number for task in stack.wait_for_run(run).of("work")} == {2}


def test_sigterm_ends_the_tasks_which_are_tried_again_when_the_worker_is_back(
    stack: Stack, host: EdgeHost
) -> None:
    run = stack.trigger(f"e2e_{_NAME}", {"seconds": _LONG_S, "tasks": 2})
    until("they run", lambda: sorted(_jobs(stack, run)) == [f"running|{_NAME}"] * 2)
    container = host.compose.container("edge-worker")
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(docker, "wait", container)
        docker("kill", "--signal", "TERM", container)
        ended.result()
    assert exit_code(host.compose, "edge-worker") == 0
    host.compose("start", "edge-worker")
    assert {task.try_number for task in stack.wait_for_run(run).of("work")} == {2}


def test_tasks_that_a_reboot_ended_are_tried_again_when_the_host_is_back(
    stack: Stack, host: EdgeHost
) -> None:
    """A power cut, but for the boot itself: all ends at once, and the mark is of a boot that is over."""
    host.compose.wait_until_healthy("edge-worker")
    run = stack.trigger(f"e2e_{_NAME}", {"seconds": _LONG_S, "tasks": 2})
    until("they run", lambda: sorted(_jobs(stack, run)) == [f"running|{_NAME}"] * 2)
    docker("kill", host.compose.container("edge-worker"))
    other_boot = f"s/^[^ ]*/{uuid.UUID(int=0)}/"
    on_disk = ("--rm", "--no-deps", "-T", "--entrypoint", "sed", "edge-worker", "-i", other_boot)
    host.compose("run", *on_disk, f"/var/lib/airbridge/{_NAME}.heartbeat")
    host.compose("start", "edge-worker")
    assert {task.try_number for task in stack.wait_for_run(run).of("work")} == {2}


def test_stop_of_the_provider_drains(stack: Stack, host: EdgeHost) -> None:
    host.compose.wait_until_healthy("edge-worker")
    run = stack.trigger(f"e2e_{_NAME}", {"seconds": 5})
    until("it runs", lambda: _jobs(stack, run) == [f"running|{_NAME}"])
    # The container may end before the command does.
    host.exec("edge-worker", "airflow", "edge", "stop", check=False)
    # The restart policy starts it again, as after any end by itself.
    assert {task.try_number for task in stack.wait_for_run(run).of("work")} == {1}
    until("it is back", lambda: worker_state(stack, _NAME) in ("idle", "running"))


def test_the_providers_own_worker_is_served_as_well(stack: Stack, host: EdgeHost) -> None:
    assert host  # for its DAGs
    name = f"{_NAME}-stock"
    stock = stack.edge(name, name, WORKER_RUNNER="stock")
    try:
        run = stack.trigger(f"e2e_{name}", {"tasks": 12})
        done = stack.wait_for_run(run).of("work")
        assert {task.state for task in done} == {"success"}
        assert {task.try_number for task in done} == {1}
        assert '"runner": "stock"' in stock.compose.logs("edge-worker")
        assert f"jobs/fetch/{name}" in stock.compose.logs("uplink")
    finally:
        stack.edges.pop(name).remove()
