"""Edge hosts that stop, die and meet their double."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from _stack import PATIENCE_S, ROOT, EdgeHost, Run, Stack, docker, until
from _trouble import exit_code, make, next_exit, psql, restarts, worker_state

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOSTS = ("drain", "crash", "twins")
_DRAINED_TASK_S = 20
_RENEWED_TASK_S = 10
# Never reached: the host loses its power before, and the next attempt takes no time.
_LOST_TASK_S = 600
# Seconds of silence after which the scheduler gives a task up. The product's ten minutes outlast an outage
# of the control plane; a test does not wait for them.
_SILENCE_S = 30

# What a service of its own settings looks like to compose.
_IMPATIENT = f"""
services:
  scheduler:
    environment:
      AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "{_SILENCE_S}"
"""


@pytest.fixture(scope="module")
def hosts(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EdgeHost]]:
    """Three edge hosts, and a scheduler that soon gives up on tasks that say nothing."""
    override = tmp_path_factory.mktemp("drain") / "impatient.yaml"
    override.write_text(_IMPATIENT)
    up = ("up", "--detach", "--no-build", "--no-deps", "--wait", "scheduler")
    with ThreadPoolExecutor(len(_HOSTS) + 1) as pool:
        scheduler = pool.submit(stack.compose, "--file", str(override), *up)
        started = {name: pool.submit(stack.edge, name, name) for name in _HOSTS}
        scheduler.result()
        try:
            yield {name: host.result() for name, host in started.items()}
        finally:
            again = pool.submit(stack.compose, *up)
            for name in _HOSTS:
                if name in stack.edges:
                    stack.edges.pop(name).remove()
            again.result()


@pytest.fixture(scope="module")
def lost(stack: Stack, hosts: dict[str, EdgeHost]) -> Run:
    """A run whose task was on an edge host that lost its power, and has it back since."""
    host = hosts["crash"]
    run = stack.trigger("e2e_work_crash", {"seconds": _LOST_TASK_S})
    stack.wait_for_task(run, "work", {"running"})
    containers = [
        host.compose.container(service) for service in ("edge-worker", "courier", "dag-sync", "uplink")
    ]
    docker("kill", "--signal", "KILL", *containers)
    # As the engine does at boot: all at once, without a look at who needs whom.
    docker("start", *containers)
    return run


@pytest.mark.usefixtures("lost")
def test_stopped_worker_finishes_its_task_takes_no_other_and_signs_off(
    stack: Stack, hosts: dict[str, EdgeHost]
) -> None:
    host = hosts["drain"]
    worker = host.compose.container("edge-worker")
    running = stack.trigger("e2e_work_drain", {"seconds": _DRAINED_TASK_S})
    stack.wait_for_task(running, "work", {"running"})
    with ThreadPoolExecutor(1) as pool:
        # Neither signal nor patience are given: compose.edge.yaml holds both.
        stopped: Future[object] = pool.submit(docker, "stop", worker)
        until("the worker drains", lambda: worker_state(stack, "drain") not in ("running", "idle"))
        late = stack.trigger("e2e_work_drain")
        stack.wait_for_task(late, "work", {"queued"})
        assert stack.wait_for_task(running, "work", {"running", "success"}).state == "running"
        stopped.result()

    assert exit_code(host.compose, "edge-worker") == 0
    assert worker_state(stack, "drain") == "offline"
    work = stack.wait_for_task(running, "work", {"success"})
    assert work.try_number == 1
    assert "the work is done" in stack.log_from_s3(running, "work")
    # There was a free slot all the time, and what comes after the task was due before the worker left.
    assert stack.wait_for_task(late, "work", {"queued"}).state == "queued"
    assert stack.wait_for_task(running, "after", {"scheduled", "queued"}).hostname == ""

    host.compose("start", "edge-worker")
    for run in (running, late):
        assert stack.wait_for_run(run).one("work").try_number == 1


def test_host_that_is_made_anew_finishes_its_task_first(stack: Stack, hosts: dict[str, EdgeHost]) -> None:
    """With other credentials, as after a rotation, or another image: uplink and worker change together."""
    host = hosts["drain"]
    run = stack.trigger("e2e_work_drain", {"seconds": _RENEWED_TASK_S})
    stack.wait_for_task(run, "work", {"running"})
    before = host.compose.container("edge-worker"), host.compose.container("uplink")
    bundles = ROOT / "edge-bundles" / f".{stack.compose.project}"
    try:
        said = make(stack, "edge", "NAME=drain", "QUEUES=drain").stdout
        assert "host drain joined" in said
        # Not only when the patience of a stop was over.
        assert stack.wait_for_run(run).one("work").try_number == 1
        after = host.compose.container("edge-worker"), host.compose.container("uplink")
        assert not set(before) & set(after)
    finally:
        shutil.rmtree(bundles, ignore_errors=True)


def test_second_host_of_a_name_is_refused_and_the_first_works_on(
    stack: Stack, hosts: dict[str, EdgeHost]
) -> None:
    first = hosts["twins"]
    run = stack.trigger("e2e_work_twins", {"seconds": 10})
    stack.wait_for_task(run, "work", {"running"})

    copied = (first.folder / "token").read_text().strip()
    second = stack.edge("twins-double", "twins", wait=False, given=copied, WORKER_NAME="twins")
    try:
        assert next_exit(second.compose, "edge-worker") == 4
        said = second.compose.logs("edge-worker")
        assert "another worker named twins is alive" in said
        assert "WORKER_NAME" in said
        assert "Traceback" not in said
    finally:
        stack.edges.pop("twins-double").remove()

    finished = stack.wait_for_run(run)
    assert finished.one("work").try_number == 1
    assert (restarts(first.compose, "edge-worker"), worker_state(stack, "twins")) in {
        (0, "idle"),
        (0, "running"),
    }
    assert stack.wait_for_run(stack.trigger("e2e_work_twins")).one("work").hostname == "twins"


def test_host_that_lost_its_power_joins_again_and_its_lost_task_is_retried(
    stack: Stack, hosts: dict[str, EdgeHost], lost: Run
) -> None:
    finished = stack.wait_for_run(lost, timeout=2 * PATIENCE_S)
    work = finished.one("work")
    assert (work.state, work.try_number, work.hostname) == ("success", 2, "crash")
    assert "the work is done" in stack.log_from_s3(lost, "work", 2)
    assert finished.one("after").state == "success"
    assert worker_state(stack, "crash") in {"idle", "running"}
    assert psql(stack, "SELECT count(*) FROM edge_worker WHERE worker_name LIKE 'crash%'") == "1"
    hosts["crash"].compose.wait_until_healthy("edge-worker")
