"""The spool, for the courier's event loop: its calls go to one thread, so that a slow disk stops nobody."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from airbridge.courier._spool import Report, Spool, Totals, Waiting

__all__ = ["Store"]

_Result = TypeVar("_Result")


class Store:
    """Asynchronous face of a :class:`Spool`; what it holds in memory is answered at once."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._pool = ThreadPoolExecutor(1, "spool")
        self._more = asyncio.Event()

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    @property
    def streams(self) -> frozenset[str]:
        """See :attr:`Spool.streams`."""
        return self._spool.streams

    def has(self, stream: str) -> bool:
        """See :meth:`Spool.has`."""
        return self._spool.has(stream)

    def stream_of(self, task_instance: str) -> str:
        """See :meth:`Spool.stream_of`."""
        return self._spool.stream_of(task_instance)

    async def add(self, report: Report, *, may_use_reserve: bool = True) -> None:
        """See :meth:`Spool.add`."""
        await self._run(lambda: self._spool.add(report, may_use_reserve=may_use_reserve))
        self._more.set()

    async def first(self, *, without: Collection[str], most: int) -> list[Waiting]:
        """See :meth:`Spool.first`."""
        self._more.clear()
        return await self._run(lambda: self._spool.first(without=without, most=most))

    async def wait_for_more(self, at_most: float | None) -> None:
        """Return when a report was added since the last :meth:`first`, or after ``at_most`` seconds."""
        try:
            async with asyncio.timeout(at_most):
                await self._more.wait()
        except TimeoutError:
            pass

    async def remove(self, waiting: Waiting) -> None:
        """See :meth:`Spool.remove`."""
        await self._run(lambda: self._spool.remove(waiting))

    async def totals(self) -> Totals:
        """See :meth:`Spool.totals`."""
        return await self._run(self._spool.totals)

    async def fetch_id(self) -> str:
        """See :attr:`Spool.fetch_id`."""
        return await self._run(lambda: self._spool.fetch_id)

    async def took(self, task_instance: str, stream: str) -> None:
        """See :meth:`Spool.took`."""
        await self._run(lambda: self._spool.took(task_instance, stream))

    async def assign(self, streams: Mapping[str, str]) -> None:
        """See :meth:`Spool.assign`."""
        await self._run(lambda: self._spool.assign(streams))

    async def ended(self, stream: str) -> None:
        """See :meth:`Spool.ended`."""
        await self._run(lambda: self._spool.ended(stream))
