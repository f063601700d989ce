"""The stack that the end-to-end tests share, and what is shown when one of them fails.

``stack``   a control plane with all example and test DAGs published
``edge``    the edge host "a" (queue ``default``), with the demo services beside it

Tests that need an edge host of their own use ``stack.edge("name", "queue-of-its-own")`` and remove it; tests
that need a whole control plane of their own use ``Stack.start(folder, f"{PROJECT}-name")`` and remove it.
"""

from __future__ import annotations

import fcntl
import signal
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _attacks import summary
from _runs import cli_runs, example_runs, job_runs, log_runs, recovery_runs
from _stack import (
    EXAMPLES,
    PATIENCE_S,
    PROJECT,
    TEST_DAGS,
    EdgeHost,
    Stack,
    check_engine,
    leftovers,
    remove_everything,
    running_projects,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["cli_runs", "edge", "example_runs", "job_runs", "log_runs", "recovery_runs", "stack"]

# The first test of a session waits for the whole stack, on a machine that may be busy.
_TIMEOUT_S = 3 * PATIENCE_S
# These stop, kill and break things that the others need: last, and in this order.
_DISRUPTIVE = ("test_drain", "test_bad_input", "test_durability", "test_engine")
_LOG_LINES = 80


def pytest_configure() -> None:
    # A kill by a CI runner ends like Ctrl-C does: with the fixtures' clean-up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the mark that is set here
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    for item in ours:
        # "signal", because the other way ends the process without any clean-up.
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S, method="signal"))
        if "stack" not in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.own_stack)

    def rank(item: pytest.Item) -> int:
        return next((i + 1 for i, name in enumerate(_DISRUPTIVE) if item.path.stem.startswith(name)), 0)

    ours.sort(key=rank)
    places = [index for index, item in enumerate(items) if item.path.is_relative_to(here)]
    for index, item in zip(places, ours, strict=True):
        items[index] = item


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the stacks said during a test that failed."""
    report = yield
    if report.failed and item.path.is_relative_to(Path(__file__).parent):
        since = datetime.fromtimestamp(call.start, UTC).isoformat()
        for compose in running_projects():
            text = compose.logs(since=since, tail=_LOG_LINES)
            report.sections.append((f"docker compose logs of {compose.project}, since the test began", text))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in summary():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def _nothing_left_behind() -> Iterator[None]:
    """No container, network or volume of these projects before the tests, nor after them."""
    with Path(tempfile.gettempdir(), f"{PROJECT}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail(
                f"other tests use the projects {PROJECT}* right now | "
                "fix: wait for their end, or set AIRBRIDGE_E2E_PROJECT to another name",
                pytrace=False,
            )
        try:
            check_engine()
        except AssertionError as error:
            pytest.fail(str(error), pytrace=False)
        remove_everything()
        try:
            yield
        finally:
            remove_everything()
        assert leftovers() == {}


@pytest.fixture(scope="session")
def stack(_nothing_left_behind: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A control plane under a project and ports of its own, with every example and test DAG in its S3."""
    running = Stack.start(tmp_path_factory.mktemp("stack"))
    for package in sorted([*EXAMPLES.iterdir(), *TEST_DAGS.iterdir()]):
        if (package / "dags").is_dir():
            running.publish(package)
    yield running
    running.remove()


@pytest.fixture(scope="session")
def edge(stack: Stack) -> EdgeHost:
    """The edge host of the examples: queue ``default``, and the demo services on its network."""
    return stack.edge("a", "default", profiles="demo")


@pytest.fixture(scope="session", autouse=True)
def _head_start(request: pytest.FixtureRequest) -> None:
    """Start every fixture called ``*_runs`` that a chosen test wants: these runs go on while others test."""
    wanted = {
        name
        for item in request.session.items
        if item.path.is_relative_to(Path(__file__).parent)
        for name in getattr(item, "fixturenames", ())
        if name.endswith("_runs")
    }
    for name in sorted(wanted):
        request.getfixturevalue(name)
