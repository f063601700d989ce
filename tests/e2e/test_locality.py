"""D6: what a task keeps on its host is there for the next one, and outlives the worker's container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.locality_docs import patterns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import EdgeHost, FinishedRun, Stack

_CACHED = "/cache/locality_cache/model-7"


@pytest.fixture(scope="module")
def finished(stack: Stack, edge: EdgeHost) -> Iterator[FinishedRun]:
    """The example of docs/locality.md, run on an empty cache."""
    edge.exec("edge-worker", "rm", "-rf", "/cache/locality_cache")
    key = stack.put_dag("locality", "locality_cache.py", patterns()["locality_cache"])
    yield stack.wait_for_run(stack.trigger("locality_cache"))
    stack.unpublish([key])


def test_later_task_finds_what_an_earlier_one_of_the_same_host_fetched(
    stack: Stack, edge: EdgeHost, finished: FinishedRun
) -> None:
    assert {task.hostname for task in finished.tasks} == {edge.name}
    assert f"{_CACHED} was fetched" in stack.log_from_s3(finished.run, "first")
    assert f"{_CACHED} was there" in stack.log_from_s3(finished.run, "later")


def test_cache_outlives_the_container_and_is_cleared_by_a_command(
    edge: EdgeHost, finished: FinishedRun
) -> None:
    assert finished.state == "success"
    # Another container of the same host, as after an upgrade.
    another = ("run", "--rm", "--no-deps", "--no-TTY", "edge-worker")
    assert edge.compose(*another, "cat", _CACHED).stdout == "what takes long to fetch, once"
    command = ("python", "-m", "airbridge.edge", "cache")
    assert edge.exec("edge-worker", *command).stdout.startswith("/cache holds ")
    assert "removed 0 files" in edge.exec("edge-worker", *command, "--unused-for-days", "1").stdout
    # Not all of it, which is other tests' as well.
    edge.exec("edge-worker", "rm", "-r", "/cache/locality_cache")
    assert edge.compose(*another, "ls", "/cache").stdout.split().count("locality_cache") == 0
