"""Waits on the event loop for the end of a process."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from types import TracebackType

__all__ = ["ProcessEnd"]

# Where the kernel does not tell: a process that was not made by multiprocessing, or one that left a child
# behind which keeps the sentinel's pipe open.
_LOOK_EVERY_S: Final = 0.1
_LOOK_ANYWAY_S: Final = 1.0


class ProcessEnd:
    """The end of one process. Use it as a context manager.

    Args:
        process: made by ``multiprocessing`` (whose sentinel wakes the waiting at once) or ``subprocess``.
    """

    def __init__(self, process: BaseProcess | subprocess.Popen[bytes]) -> None:
        self._process = process
        self._sentinel = None if isinstance(process, subprocess.Popen) else process.sentinel
        self._told = asyncio.Event()

    def __enter__(self) -> Self:
        if self._sentinel is not None:
            asyncio.get_running_loop().add_reader(self._sentinel, self._tell)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()

    async def wait(self, timeout: float) -> bool:
        """Return whether the process has ended, at the latest after ``timeout`` seconds."""
        pause = _LOOK_EVERY_S if isinstance(self._process, subprocess.Popen) else _LOOK_ANYWAY_S
        deadline = time.monotonic() + timeout
        while not self._has_ended():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, pause)):
                    await self._told.wait()
            if self._told.is_set() and not self._has_ended():
                await asyncio.sleep(0)  # its pipe is closed, and it is about to be gone
        return True

    def _has_ended(self) -> bool:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll() is not None
        return not self._process.is_alive()

    def _tell(self) -> None:
        self._forget()
        self._told.set()

    def _forget(self) -> None:
        if self._sentinel is not None:
            asyncio.get_running_loop().remove_reader(self._sentinel)
