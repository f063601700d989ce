"""Six minutes without the control plane, longer than a stock worker's patience, amid fifty tasks (D3).

On a stack of its own, beside the others: it mostly waits. The absence has several faces, one after the other:
a gateway that takes connections and says nothing, one that is gone, an api-server that is gone behind it.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from _stack import PROJECT, TEST_DAGS, EdgeHost, Run, Stack, docker, until
from _trouble import exit_code, psql

if TYPE_CHECKING:
    from collections.abc import Iterator

_TASKS = 50
_CONCURRENCY = 10
# Of a task. Those that run when the line is cut end while it is cut, and the next could not be fetched.
_TASK_S = 12
# Three faces of two minutes each.
_FACE_S = 120
_DARK_TASKS = 2
# Long enough for them to run still when the line is cut, and over before the next face.
_DARK_TASK_S = 20
_SERVICES = ("uplink", "courier", "dag-sync", "edge-worker")
# Uploads of logs are tried again in their own time.
_LOGS_S = 180
# Beside two other stacks on two cores it takes fifteen minutes, six of them absence: a bound, not a measure.
_LONGEST_S = 3600


@pytest.fixture(scope="module")
def stack_of_its_own(_nothing_left_behind: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack.start(tmp_path_factory.mktemp("partition"), f"{PROJECT}-partition")
    yield stack
    stack.remove()


def _started(host: EdgeHost) -> dict[str, str]:
    """When each container of the host was started, which a restart would change."""
    return {
        service: docker("inspect", "--format", "{{.State.StartedAt}}", host.compose.container(service)).stdout
        for service in _SERVICES
    }


def _lines(host: EdgeHost) -> Counter[str]:
    """How often each task ran, by what it left on the host."""
    return Counter(host.exec("edge-worker", "cat", "/cache/ran").stdout.splitlines())


def _states(stack: Stack, run: Run) -> Counter[str | None]:
    return Counter(task.state for task in stack.tasks(run) if task.task_id == "work")


def _is_in_the_middle(stack: Stack, run: Run) -> bool:
    states = _states(stack, run)
    return states["success"] >= _CONCURRENCY and states["running"] >= _CONCURRENCY // 2


def _wait_for_courier(host: EdgeHost, words: str) -> None:
    until(
        f"the courier of {host.name} says {words}",
        lambda: words in host.exec("courier", "python", "-m", "airbridge.courier", "health").stdout,
    )


def _cut_for_six_minutes(stack: Stack, dark: EdgeHost, drained: EdgeHost) -> None:
    """Take the control plane away in three ways; two other hosts lose power and stop meanwhile."""
    gateway = stack.compose.container("gateway")
    docker("pause", gateway)
    began = time.monotonic()
    _wait_for_courier(dark, "control plane away")
    # Its two tasks end while nobody hears of it, and then the power goes.
    until(
        "the dark host's tasks have ended",
        lambda: dark.compose.logs("edge-worker").count("Job completed") == _DARK_TASKS,
    )
    _wait_for_courier(dark, "reports in the spool")
    containers = [dark.compose.container(service) for service in _SERVICES]
    docker("kill", "--signal", "KILL", *containers)
    # No task runs on this one: there is nothing to wait for.
    stopping = time.monotonic()
    drained.compose("stop", "edge-worker")
    assert exit_code(drained.compose, "edge-worker") == 0
    assert time.monotonic() - stopping < _FACE_S, "a drain without tasks waited for the control plane"
    docker("start", *containers)
    time.sleep(max(0.0, began + _FACE_S - time.monotonic()))

    docker("unpause", gateway)
    stack.compose("kill", "--signal", "KILL", "gateway")
    time.sleep(max(0.0, began + 2 * _FACE_S - time.monotonic()))

    stack.compose("kill", "--signal", "KILL", "api-server")
    stack.compose("start", "gateway")
    time.sleep(max(0.0, began + 3 * _FACE_S - time.monotonic()))
    stack.compose("start", "api-server")
    stack.compose.wait_until_healthy("api-server", "gateway")


@pytest.mark.timeout(_LONGEST_S, method="signal")
def test_six_minutes_of_absence_lose_and_double_nothing(stack_of_its_own: Stack) -> None:
    stack = stack_of_its_own
    stack.publish(TEST_DAGS / "e2e_partition")
    with ThreadPoolExecutor(3) as pool:
        starting = pool.submit(stack.edge, "partition", "partition", WORKER_CONCURRENCY=str(_CONCURRENCY))
        others = [pool.submit(stack.edge, name, f"partition-{name}") for name in ("dark", "drained")]
        host, (dark, drained) = starting.result(), [other.result() for other in others]
    started = _started(host)
    run = stack.trigger("e2e_partition_partition", {"seconds": _TASK_S})
    until("some have ended and others run", lambda: _is_in_the_middle(stack, run))
    dark_run = stack.trigger("e2e_partition_partition-dark", {"seconds": _DARK_TASK_S})
    until("the dark host's tasks run", lambda: _states(stack, dark_run)["running"] == _DARK_TASKS)
    assert _states(stack, run)["success"] < _TASKS - _CONCURRENCY

    _cut_for_six_minutes(stack, dark, drained)

    finished = stack.wait_for_run(run, timeout=600)
    dark_finished = stack.wait_for_run(dark_run, timeout=600)
    assert {task.try_number for task in (*finished.tasks, *dark_finished.tasks)} == {1}
    assert _lines(host) == Counter({f"partition {number}": 1 for number in range(_TASKS)})
    assert _lines(dark) == Counter({f"partition-dark {number}": 1 for number in range(_DARK_TASKS)})
    assert _started(host) == started

    for number in range(_TASKS):
        wanted = [*(f"line {line} of {number}" for line in range(1, 6)), f"the end of {number}"]
        text = stack.log_from_s3(run, "work", map_index=number, timeout=_LOGS_S)
        assert [text.count(f'"{line}"') for line in wanted] == [1] * len(wanted), text
        shown = stack.log_from_api(run, "work", map_index=number).splitlines()
        assert [shown.count(line) for line in wanted] == [1] * len(wanted), shown
    for number in range(_DARK_TASKS):
        assert f"the end of {number}" in stack.log_from_s3(
            dark_run, "work", map_index=number, timeout=_LOGS_S
        )

    said = host.compose.logs("courier")
    assert said.count("control plane away") == said.count("control plane is back")
    assert psql(stack, "SELECT count(*) FROM edge_worker WHERE state IN ('idle', 'running')") == "2"
