"""The end of a process wakes who waits for it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from typing import Any

from airbridge.edge._process_end import ProcessEnd

_FOREVER_S = 60.0
_fork = multiprocessing.get_context("fork")


def _until_closed(readable: int, writable: int) -> None:
    os.close(writable)
    os.read(readable, 1)


def _forked() -> tuple[Any, int]:
    """Return a process, and a descriptor: it ends when that is closed."""
    readable, writable = os.pipe()
    process = _fork.Process(target=_until_closed, args=(readable, writable))
    process.start()
    os.close(readable)
    return process, writable


def _leave_a_child() -> None:
    if os.fork() == 0:
        signal.alarm(5)
        signal.pause()
    os.kill(os.getpid(), signal.SIGKILL)


def test_wait_returns_when_a_forked_process_ends() -> None:
    async def play() -> None:
        process, writable = _forked()
        with ProcessEnd(process) as end:
            waiting = asyncio.create_task(end.wait(_FOREVER_S))
            await asyncio.sleep(0)
            assert not waiting.done()
            os.close(writable)
            assert await waiting
        assert process.exitcode == 0

    asyncio.run(play())


def test_wait_says_so_when_the_process_goes_on() -> None:
    async def play() -> None:
        process, writable = _forked()
        with ProcessEnd(process) as end:
            assert not await end.wait(0.01)
            assert not await end.wait(0.01)
            os.close(writable)
            assert await end.wait(_FOREVER_S)

    asyncio.run(play())


def test_wait_returns_when_a_process_is_killed_whose_child_lives_on() -> None:
    """The child keeps the sentinel's pipe open, so that the kernel says nothing."""

    async def play() -> None:
        process = _fork.Process(target=_leave_a_child)
        process.start()
        with ProcessEnd(process) as end:
            assert await end.wait(_FOREVER_S)
        assert process.exitcode == -signal.SIGKILL

    asyncio.run(play())


def test_wait_returns_when_a_fresh_interpreter_ends() -> None:
    async def play() -> None:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            assert process.stdin
            with ProcessEnd(process) as end:
                assert not await end.wait(0.01)
                process.stdin.close()
                assert await end.wait(_FOREVER_S)

    asyncio.run(play())


def test_a_process_that_has_ended_already_is_seen() -> None:
    async def play() -> None:
        process, writable = _forked()
        os.close(writable)
        process.join()
        with ProcessEnd(process) as end:
            assert await end.wait(0)

    asyncio.run(play())
