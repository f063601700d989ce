"""Worker, api-server, gateway and Postgres are killed amid 200 tasks: none is lost, none runs twice at once.

On a stack of its own, as nothing else would survive it. The end of the test run reports what was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from _attacks import attacks
from _marks import Marks, now
from _stack import PATIENCE_S, PROJECT, TEST_DAGS, Compose, EdgeHost, Run, Stack, until
from _trouble import crash, psql

if TYPE_CHECKING:
    from collections.abc import Iterator

_TASKS = 200
_CONCURRENCY = 8
# So many tasks have to end before the next kill: what was killed before has to be at work again.
_BETWEEN = 35
# Tasks that run when the worker is killed, at the least.
_AT_WORK = 3
_TASK_S = 2.0
_REPLICAS_TASKS = 60
_TWO_PROCESSES = """
services:
  api-server:
    environment:
      AIRFLOW__API__WORKERS: "2"
"""


@pytest.fixture(scope="module")
def stack_of_its_own(_nothing_left_behind: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack.start(tmp_path_factory.mktemp("kills"), f"{PROJECT}-kills")
    stack.publish(TEST_DAGS / "e2e_kills")
    yield stack
    stack.remove()


@pytest.fixture(scope="module")
def host(stack_of_its_own: Stack) -> EdgeHost:
    settings = {"WORKER_CONCURRENCY": str(_CONCURRENCY), "WORKER_RUNNER": "airbridge"}
    return stack_of_its_own.edge("kills", "kills,replicas", **settings)


def _marks_after(host: EdgeHost, ended: int) -> Marks:
    """Wait until so many tasks have ended."""

    def look() -> Marks | None:
        marks = Marks.of(host)
        return marks if marks.ended >= ended else None

    return until(f"{ended} tasks have ended", look, every=1.0)  # type: ignore[return-value]


def _wait_for_work(compose: Compose) -> None:
    """Wait until tasks are between their two marks; by themselves they begin and end in waves."""
    begun = (
        "cd $AIRBRIDGE_CACHE_DIR;"
        f" until [ $(grep -c start marks) -ge $(($(grep -c end marks) + {_AT_WORK})) ]; do sleep 0.1; done"
    )
    compose.exec("edge-worker", "sh", "-c", begun)


def _tries(stack: Stack, run: Run) -> dict[int, int]:
    """How often each task was tried."""
    rows = psql(
        stack,
        f"SELECT map_index, try_number FROM task_instance WHERE dag_id = '{run.dag_id}' AND task_id = 'work'",
    )
    return {int(index): int(tries) for index, tries in (row.split("|") for row in rows.splitlines())}


@pytest.mark.timeout(4 * PATIENCE_S, method="signal")
def test_two_hundred_tasks_outlive_the_kill_of_everything_that_serves_them(
    stack_of_its_own: Stack, host: EdgeHost
) -> None:
    stack = stack_of_its_own
    run = stack.trigger("e2e_kills", {"seconds": _TASK_S})
    killed: dict[str, float] = {}
    for compose, service in (
        (host.compose, "edge-worker"),
        (stack.compose, "api-server"),
        (stack.compose, "gateway"),
        (stack.compose, "postgres"),
    ):
        _marks_after(host, _BETWEEN * (len(killed) + 1))
        assert Marks.of(host).ended < _TASKS - _CONCURRENCY, "too late to be in the middle"
        if service == "edge-worker":
            _wait_for_work(compose)
        killed[service] = now()
        crash(compose, service)

    stack.compose.wait_until_healthy("postgres", "api-server", "gateway")
    finished = stack.wait_for_run(run, timeout=2 * PATIENCE_S)
    assert finished.state == "success"
    marks = Marks.of(host)
    for service, moment in killed.items():
        next_end = marks.first_end_after(moment)
        next_whole = marks.first_end_after(moment, begun_after=True)
        assert next_end is not None
        assert next_whole is not None
        attacks.note(
            f"kill of {service}: the next task ended after {next_end:.1f} s,"
            f" the next that began after it ended after {next_whole:.1f} s"
        )

    # Every task ran, none at the same time as itself.
    each = marks.of_each()
    assert sorted(each) == list(range(_TASKS))
    assert all(any(one.ended is not None for one in attempts) for attempts in each.values())
    worker_killed = killed["edge-worker"]
    assert marks.overlaps(worker_killed) == []
    # A retry is what brings back the tasks that ran on the worker when it was killed, and no others.
    died = {one.number for one in marks.attempts if one.ended is None}
    retried = {number for number, tries in _tries(stack, run).items() if tries > 1}
    assert died, "no task ran on the worker when it was killed"
    assert died <= retried, (died, retried)
    # Some had not come to their first mark, or had left their last.
    assert len(retried) <= _CONCURRENCY, retried
    assert all(len(attempts) == 1 for number, attempts in each.items() if number not in retried)
    attacks.note(f"{len(retried)} of {_TASKS} tasks were tried again: they ran on the worker that was killed")


def test_two_api_server_processes_hand_out_each_job_once(stack_of_its_own: Stack, host: EdgeHost) -> None:
    """Which of them a call reaches is the kernel's choice; that an announcement wakes both is tested where
    both can be asked (tests/integration/dispatch).
    """
    stack = stack_of_its_own
    override = stack.folder / "two-processes.yaml"
    override.write_text(_TWO_PROCESSES)
    up = ("up", "--detach", "--no-build", "--no-deps", "--wait", "api-server")
    stack.compose("--file", str(override), *up)
    other = stack.edge("kills-other", "replicas", WORKER_RUNNER="airbridge", WORKER_CONCURRENCY="4")
    host.exec("edge-worker", "sh", "-c", "rm -f $AIRBRIDGE_CACHE_DIR/marks")
    run = stack.trigger("e2e_replicas", {"seconds": 0.3})
    stack.wait_for_run(run)
    marks = Marks.of(host, other)
    assert sorted(marks.of_each()) == list(range(_REPLICAS_TASKS))
    assert len(marks.attempts) == _REPLICAS_TASKS
    assert set(_tries(stack, run).values()) == {1}
