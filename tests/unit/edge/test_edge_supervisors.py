"""Supervisors take one attempt after the other."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airbridge.edge import _supervisors
from airbridge.edge._process_end import ProcessEnd
from airbridge.edge._supervisors import Supervised, Supervisors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FOREVER_S = 60.0


def _nothing() -> None: ...


@pytest.fixture
def run(tmp_path: Path) -> Callable[[bytes], int]:
    """Do what the order says, in the supervisor: ``<what> <argument>``."""

    def do(order: bytes) -> int:
        what, _, argument = order.decode().partition(" ")
        if what == "exit":
            return int(argument)
        if what == "note":  # who was it?
            (tmp_path / argument).write_text(str(os.getpid()))
        elif what == "await":
            while not (tmp_path / argument).exists():
                time.sleep(0.01)
        elif what == "die":
            os.kill(os.getpid(), int(argument))
        elif what == "leave":  # a task that outlives its supervisor
            if os.fork() == 0:
                signal.alarm(int(_FOREVER_S))
                while not (tmp_path / argument).exists():
                    time.sleep(0.01)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    return do


@pytest.fixture
def supervisors(run: Callable[[bytes], int]) -> Iterator[Supervisors]:
    with Supervisors(run, _nothing) as made:
        yield made
        for supervisor in made._all:
            if supervisor.process.is_alive() and supervisor not in made._idle:
                supervisor.process.kill()


def _finish(supervised: Supervised) -> int | None:
    async def play() -> None:
        with ProcessEnd(supervised) as end:  # type: ignore[arg-type]
            assert await end.wait(_FOREVER_S)

    asyncio.run(play())
    return supervised.exitcode


def _run_to_end(supervisors: Supervisors, order: str) -> int | None:
    supervised = supervisors.start(order.encode())
    code = _finish(supervised)
    supervisors.release(supervised)
    return code


def test_attempt_ends_with_what_it_returns_in_the_supervisor(supervisors: Supervisors) -> None:
    assert [_run_to_end(supervisors, f"exit {code}") for code in (0, 3, 0)] == [0, 3, 0]


def test_one_supervisor_takes_one_attempt_after_the_other(supervisors: Supervisors, tmp_path: Path) -> None:
    for name in ("a", "b"):
        _run_to_end(supervisors, f"note {name}")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() != str(os.getpid())


def test_attempts_at_the_same_time_have_a_supervisor_each(supervisors: Supervisors, tmp_path: Path) -> None:
    running = [supervisors.start(b"await go") for _ in range(3)]
    assert all(each.is_alive() and each.exitcode is None for each in running)
    assert len({each.pid for each in running}) == 3
    (tmp_path / "go").touch()
    assert [_finish(each) for each in running] == [0, 0, 0]


def test_attempt_that_has_ended_has_no_process_that_could_be_killed_for_it(supervisors: Supervisors) -> None:
    ended = supervisors.start(b"exit 0")
    _finish(ended)
    assert ended.pid is None


def test_supervisor_that_is_killed_ends_its_attempt_and_no_other(
    supervisors: Supervisors, tmp_path: Path
) -> None:
    other = supervisors.start(b"await go")
    assert _run_to_end(supervisors, f"die {signal.SIGTERM:d}") == -signal.SIGTERM
    assert other.is_alive()
    assert _run_to_end(supervisors, "exit 0") == 0
    (tmp_path / "go").touch()
    assert _finish(other) == 0


def test_end_of_a_supervisor_is_noticed_though_its_task_lives_on(
    supervisors: Supervisors, tmp_path: Path
) -> None:
    assert _run_to_end(supervisors, "leave done") == -signal.SIGKILL
    (tmp_path / "done").touch()


def test_supervisor_that_was_killed_while_idle_is_replaced(supervisors: Supervisors, tmp_path: Path) -> None:
    _run_to_end(supervisors, "note a")
    idle = int((tmp_path / "a").read_text())
    os.kill(idle, signal.SIGKILL)
    supervisors._all[0].process.join()
    assert _run_to_end(supervisors, "note b") == 0
    assert (tmp_path / "b").read_text() != str(idle)


def test_supervisor_that_nobody_needs_ends(supervisors: Supervisors) -> None:
    _run_to_end(supervisors, "exit 0")
    (supervisor,) = supervisors._all
    supervisors.retire(idle_s=_FOREVER_S)
    assert supervisor.process.is_alive()
    supervisors.retire(idle_s=0)
    supervisor.process.join(_FOREVER_S)
    assert supervisor.process.exitcode == 0
    assert not supervisors._all


def test_supervisor_is_replaced_after_a_number_of_attempts(
    supervisors: Supervisors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_supervisors, "_MOST_ATTEMPTS", 2)
    for name in ("a", "b", "c"):
        _run_to_end(supervisors, f"note {name}")
    first, second, third = ((tmp_path / name).read_text() for name in ("a", "b", "c"))
    assert first == second != third


def test_idle_supervisors_end_with_the_worker(run: Callable[[bytes], int], tmp_path: Path) -> None:
    """Also those whose line others inherited: each closes what it inherited."""
    with Supervisors(run, _nothing) as supervisors:
        running = [supervisors.start(b"await go") for _ in range(3)]
        (tmp_path / "go").touch()
        for each in running:
            _finish(each)
            supervisors.release(each)
        processes = [supervisor.process for supervisor in supervisors._all]
    for process in processes:
        process.join(_FOREVER_S)
        assert process.exitcode == 0


def test_task_cannot_answer_for_its_supervisor() -> None:
    """The line is closed in whatever the supervisor forks."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def fork_a_task(_: bytes) -> int:
        before = descriptors()
        readable, writable = os.pipe()
        if os.fork() == 0:
            os.write(writable, bytes([descriptors()]))
            os._exit(0)
        os.wait()
        # Two more for the pipe; one less for the line.
        return 0 if os.read(readable, 1)[0] == before + 2 - 1 else 1

    with Supervisors(fork_a_task, _nothing) as supervisors:
        assert _run_to_end(supervisors, "") == 0


def test_attempt_that_still_runs_keeps_its_supervisor_though_nobody_waits_for_it(
    supervisors: Supervisors, tmp_path: Path
) -> None:
    running = supervisors.start(b"await go")
    supervisors.release(running)
    supervisors.retire()
    assert _run_to_end(supervisors, "note a") == 0
    assert (tmp_path / "a").read_text() != str(running.pid)
    assert running.is_alive()
    (tmp_path / "go").touch()
    assert _finish(running) == 0


def test_supervisor_of_an_attempt_that_nobody_waited_for_is_taken_back(
    supervisors: Supervisors, tmp_path: Path
) -> None:
    running = supervisors.start(b"await go")
    supervisors.release(running)
    (tmp_path / "go").touch()
    while running.is_alive():
        time.sleep(0.01)
    supervisors.retire()
    assert len(supervisors._idle) == 1


def test_attempt_is_given_back_once(supervisors: Supervisors, tmp_path: Path) -> None:
    first = supervisors.start(b"exit 0")
    _finish(first)
    supervisors.release(first)
    second = supervisors.start(b"await go")
    supervisors.release(first)  # it is the second one's by now
    assert not supervisors._idle
    (tmp_path / "go").touch()
    assert _finish(second) == 0


def test_no_attempt_is_started_once_the_worker_has_ended(run: Callable[[bytes], int]) -> None:
    with Supervisors(run, _nothing) as supervisors:
        pass
    with pytest.raises(RuntimeError):
        supervisors.start(b"exit 0")


def test_attempt_whose_line_is_closed_is_looked_at_without_trouble(
    run: Callable[[bytes], int], tmp_path: Path
) -> None:
    """Of a worker that ends while it waits for a task that was killed."""

    async def play(supervised: Supervised, supervisors: Supervisors) -> None:
        with ProcessEnd(supervised) as end:  # type: ignore[arg-type]
            supervisors.__exit__(None, None, None)
            assert not await end.wait(0)

    with Supervisors(run, _nothing) as supervisors:
        running = supervisors.start(b"await go")
        asyncio.run(play(running, supervisors))
        (tmp_path / "go").touch()
        while running.is_alive():
            time.sleep(0.01)
        supervisors.release(running)


def test_what_is_no_attempt_of_a_supervisor_is_left_alone(supervisors: Supervisors) -> None:
    supervisors.release(object())
    assert not supervisors._all
