"""One id for an attempt at a task, in every log on its way (D7), and one command that shows the way."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from _stack import ROOT, until

if TYPE_CHECKING:
    from _stack import Run, Stack

NAME = "correlated"

#: A task that fails once, prints, and comes back.
DAG = f"""
from airflow.sdk import dag, task

@dag(schedule=None)
def correlated():
    @task(queue="{NAME}", retries=1, retry_delay=0.1)
    def twice(ti=None) -> None:
        print("printed by the task")
        if ti.try_number == 1:
            raise RuntimeError("the first time")

    twice()

correlated()
"""


def _trace(stack: Stack, **asked: str) -> dict[str, Any]:
    """What ``make trace`` prints."""
    settings = {
        "COMPOSE_PROJECT_NAME": stack.compose.project,
        "AIRBRIDGE_ENV_FILE": os.devnull,
        **stack.compose.settings,
    }
    done = subprocess.run(
        ["scripts/trace.sh"],
        cwd=ROOT,
        env={**os.environ, **settings, **asked, "JSON": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def run(stack: Stack) -> Run:
    key = stack.put_dag(NAME, "correlated.py", DAG)
    host = stack.edge(NAME, NAME)
    run = stack.trigger("correlated")
    try:
        stack.wait_for_run(run)
        yield run  # type: ignore[misc]
    finally:
        host.remove()
        stack.unpublish([key])


def test_each_try_is_in_every_log_with_an_id_of_its_own(stack: Stack, run: Run) -> None:
    task = f"{run.dag_id}/{run.run_id}/twice"
    attempts = _trace(stack, TASK=task)["attempts"]
    assert [attempt["try_number"] for attempt in attempts] == [1, 2]
    assert len({attempt["id"] for attempt in attempts}) == 2

    for attempt in attempts:
        steps = until("the way is whole", lambda attempt=attempt: _whole_way(stack, attempt["id"]))
        assert {step["host"] for step in steps} == {"control-plane", NAME, ""}
        assert {step["service"] for step in steps} == {
            "gateway",
            "api-server",
            "uplink",
            "edge-worker",
            "task log",
        }
        assert [step["time"] for step in steps] == sorted(step["time"] for step in steps)
        # Handed out, started, run, ended: in this order, whoever says so.
        order = [
            _first(steps, "gateway", f"/airbridge/v1/jobs/{NAME}"),
            _first(steps, "edge-worker", "Launched"),
            _first(steps, "task log", "DAG bundles loaded"),
            _first(steps, "edge-worker", "Task finished"),
            max(number for number, step in enumerate(steps) if step["service"] == "gateway"),
        ]
        assert order == sorted(order)
        assert _first(steps, "task log", "printed by the task")
        for step in steps:
            assert attempt["id"] in json.dumps(step["line"])


def _whole_way(stack: Stack, attempt: str) -> list[dict[str, Any]]:
    """The steps; none as long as the last one is not in the logs."""
    steps: list[dict[str, Any]] = _trace(stack, ID=attempt)["steps"]
    ended = any(
        step["service"] == "gateway" and step["what"].split(" ")[1].endswith(("/success", "/failed"))
        for step in steps
    )
    logged = any(step["service"] == "task log" for step in steps)
    return steps if ended and logged else []


def _first(steps: list[dict[str, Any]], service: str, words: str) -> int:
    found = [n for n, step in enumerate(steps) if step["service"] == service and words in step["what"]]
    assert found, f"{service} does not say '{words}'"
    return found[0]


def test_every_line_of_the_tasks_log_carries_the_id(stack: Stack, run: Run) -> None:
    seen = set()
    for number in (1, 2):
        text = stack.log_from_s3(run, "twice", number)
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        assert any(line["event"] == "printed by the task" for line in lines)
        (attempt,) = {line.get("correlation_id") for line in lines}
        seen.add(attempt)
    assert len(seen) == 2
