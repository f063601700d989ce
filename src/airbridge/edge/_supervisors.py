"""Processes that supervise attempts, one after the other.

The provider's worker forks a supervisor for each attempt, and that forks the task. What a fork shares, both
sides copy page by page as soon as they touch it, and Python touches whatever it only looks at: half the CPU
of a short task was spent in the kernel for that, most of it for the supervisor. Here a supervisor takes the
next attempt when one has ended, as the processes of LocalExecutor do (``_run_worker`` in
``airflow/executors/local_executor.py``, 3.0.4). The task itself still has a process of its own.

A supervisor is forked when none is idle, ends when nobody needs it, and after a number of attempts, so that
nothing that plugins leave behind lasts for ever. No Airflow in here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess
    from types import TracebackType

__all__ = ["Supervised", "Supervisors"]

# Longer than the pauses in a run of short tasks; then its memory is worth more than a fork.
_IDLE_S: Final = 30.0
# The cost of a fork is spread over so many attempts that more would save nothing.
_MOST_ATTEMPTS: Final = 100
_NO_RESULT: Final = 1

_fork = multiprocessing.get_context("fork")


@dataclass(slots=True, eq=False)
class _Supervisor:
    """A process, and the line over which it gets attempts and says how they ended."""

    process: ForkProcess
    line: Connection
    attempts: int = 0
    idle_since: float = field(default_factory=time.monotonic)


class Supervised:
    """An attempt in the hands of a supervisor; has what the provider's ``Job`` asks a process for."""

    def __init__(self, supervisor: _Supervisor) -> None:
        self._supervisor = supervisor
        self._exit_code: int | None = None
        self._is_released = False

    @property
    def pid(self) -> int | None:
        """Id of the supervisor; ``None`` once the end of the attempt was seen: it is somebody else's then.

        Does not look itself: who reads it twice gets the same answer.
        """
        return self._supervisor.process.pid if self._exit_code is None else None

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the attempt, or its supervisor, has ended."""
        return self._supervisor.line.fileno()

    @property
    def exitcode(self) -> int | None:
        """What the attempt ended with; ``None`` while it runs, negative: a signal ended its supervisor."""
        return None if self.is_alive() else self._exit_code

    def is_alive(self) -> bool:
        """Return whether the attempt runs."""
        if self._exit_code is None:
            # In this order: what a supervisor said before its end counts.
            process, line = self._supervisor.process, self._supervisor.line
            is_there = process.is_alive()
            with contextlib.suppress(EOFError, OSError):  # it is dead, or the worker has hung up
                if line.poll():
                    self._exit_code = int(line.recv_bytes())
            if self._exit_code is None and not is_there:
                self._exit_code = process.exitcode or _NO_RESULT
        return self._exit_code is None


class Supervisors:
    """The supervisors of a worker. Use it as a context manager: at its end those that are idle end.

    Args:
        run: runs an attempt, in a supervisor, and returns its exit code.
        prepare: called first in each new supervisor.
    """

    def __init__(self, run: Callable[[bytes], int], prepare: Callable[[], None]) -> None:
        self._run = run
        self._prepare = prepare
        self._all: list[_Supervisor] = []
        self._idle: list[_Supervisor] = []
        self._abandoned: list[Supervised] = []
        self._leaving: list[ForkProcess] = []
        self._has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended = True
        for supervisor in tuple(self._all):
            self._dismiss(supervisor)

    def start(self, order: bytes) -> Supervised:
        """Hand an attempt to a supervisor, a new one where none is idle.

        :param order: what ``run`` gets
        :raises RuntimeError: the worker has ended; a process that nobody ends would keep it
        """
        if self._has_ended:
            raise RuntimeError("no attempt is started any more")
        while self._idle:
            supervisor = self._idle.pop()
            with contextlib.suppress(OSError):
                return self._hand(supervisor, order)
            self._dismiss(supervisor)  # something killed it while it was idle
        return self._hand(self._fork(), order)

    def release(self, process: object) -> None:
        """Let the supervisor of an attempt take another, once this one has ended; nobody waits any more.

        Nothing the second time, nor for anything else, nor once the worker has ended.
        """
        if not isinstance(process, Supervised) or process._is_released or self._has_ended:
            return
        process._is_released = True
        if process.is_alive():
            self._abandoned.append(process)
        else:
            self._take_back(process._supervisor)

    def _take_back(self, supervisor: _Supervisor) -> None:
        if supervisor.attempts >= _MOST_ATTEMPTS or not supervisor.process.is_alive():
            self._dismiss(supervisor)
            return
        supervisor.idle_since = time.monotonic()
        self._idle.append(supervisor)

    def retire(self, idle_s: float = _IDLE_S) -> None:
        """Let those end that have been idle for so many seconds."""
        for ended in [process for process in self._abandoned if not process.is_alive()]:
            self._abandoned.remove(ended)
            self._take_back(ended._supervisor)
        now = time.monotonic()
        for supervisor in tuple(self._idle):
            if now - supervisor.idle_since >= idle_s:
                self._idle.remove(supervisor)
                self._dismiss(supervisor)
        self._leaving = [process for process in self._leaving if process.is_alive()]

    @staticmethod
    def _hand(supervisor: _Supervisor, order: bytes) -> Supervised:
        supervisor.line.send_bytes(order)
        supervisor.attempts += 1
        return Supervised(supervisor)

    def _fork(self) -> _Supervisor:
        ours, theirs = _fork.Pipe()
        # No daemon: Python forbids those to have children of their own, and a task may want some.
        process = _fork.Process(target=self._serve, args=(ours, theirs), daemon=False)
        process.start()
        theirs.close()
        supervisor = _Supervisor(process, ours)
        self._all.append(supervisor)
        return supervisor

    def _dismiss(self, supervisor: _Supervisor) -> None:
        """Hang up: it ends when it is idle."""
        supervisor.line.close()
        self._all.remove(supervisor)
        self._leaving.append(supervisor.process)

    # --- in the supervisor --------------------------------------------------------------------------

    def _serve(self, ours: Connection, line: Connection) -> None:
        for inherited in (ours, *(other.line for other in self._all)):
            inherited.close()  # else nobody would notice that the worker hangs up
        # A task must not be able to answer for its supervisor, nor keep the line open.
        os.register_at_fork(after_in_child=line.close)
        self._prepare()
        while True:
            try:
                order = line.recv_bytes()
            except (EOFError, OSError):
                return
            code = self._run(order)
            with contextlib.suppress(OSError):  # the worker is gone; the attempt said what it had to
                line.send_bytes(str(code).encode())
