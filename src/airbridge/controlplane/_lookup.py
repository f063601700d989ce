"""Who is enrolled, asked by requests on the event loop; made-up names cost the database next to nothing.

A name that is new here is first looked for among the names of all workers, which are asked for at most once
in half a second, whoever asks and for how many names. Only a name that is there has a query of its own, and
one query at a time.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio
import anyio.to_thread

from airbridge.identity.roster import Enrolments, Roster

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.identity.model import Worker

__all__ = ["Lookup", "Names"]

# A new enrolment is usable within a second: this, and the time that a request takes.
_NAMES_REMEMBERED_S: Final = 0.5
# Connections to the database that questions about enrolled workers may hold at once; the pool keeps as many.
_THREADS: Final = 8
# The same for what strangers can cause: the names, and attempts to join.
_STRANGERS_THREADS: Final = 2

_Result = TypeVar("_Result")


class Names(Enrolments["Worker"], Protocol):
    """Where it looks."""

    def names(self) -> frozenset[str]:
        """Return the name of everyone who was ever enrolled."""


class Lookup:
    """Finds workers, and runs what needs the database in threads.

    Args:
        enrolments: the database.
        clock: seconds.
    """

    def __init__(self, enrolments: Names, clock: Callable[[], float] = time.monotonic) -> None:
        self._enrolments = enrolments
        self._clock = clock
        self._roster: Roster[Worker] = Roster(enrolments, clock)
        self._names: frozenset[str] = frozenset()
        self._names_asked = -math.inf
        self._refresh = anyio.Lock()
        self._revising = anyio.Lock()
        self._one_at_a_time: dict[str, anyio.Lock] = {}
        # Made on the event loop that they are for.
        self._threads: anyio.CapacityLimiter | None = None
        self._strangers: anyio.CapacityLimiter | None = None

    async def find(self, name: str) -> Worker | None:
        """Return the worker as the database had it half a second ago at most."""
        fresh, worker = self._roster.remembered(name)
        if fresh:
            return worker
        if not await self._is_enrolled(name):
            return None
        async with self._revising:
            # Mostly nothing has changed, for nobody of the fleet.
            if not self._roster.is_revised:
                await self.in_thread(self._roster.revise)
        fresh, worker = self._roster.remembered(name)
        if fresh:
            return worker
        async with self._one_at_a_time.setdefault(name, anyio.Lock()):
            fresh, worker = self._roster.remembered(name)
            return worker if fresh else await self.in_thread(lambda: self._roster.find(name))

    async def find_anew(self, name: str) -> Worker | None:
        """Return the worker as the database has it now, whatever is remembered."""
        return await self.in_thread(lambda: self._roster.find_anew(name))

    async def mark_seen(self, name: str) -> None:
        """Note that a worker proved itself; written down now and then, for many at once."""
        if self._roster.saw(name):
            await self.in_thread(self._roster.write_seen)

    async def in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Do what an enrolled worker needs the database for."""
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(_THREADS)
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def in_strangers_thread(self, work: Callable[[], _Result]) -> _Result:
        """Do what somebody who has proved nothing needs the database for."""
        if self._strangers is None:
            self._strangers = anyio.CapacityLimiter(_STRANGERS_THREADS)
        return await anyio.to_thread.run_sync(work, limiter=self._strangers)

    async def _is_enrolled(self, name: str) -> bool:
        if name in self._names:
            return True  # or was, which its own query will say
        if self._is_stale():
            async with self._refresh:
                if self._is_stale():
                    asked = self._clock()
                    self._names = await self.in_strangers_thread(self._enrolments.names)
                    self._names_asked = asked
        return name in self._names

    def _is_stale(self) -> bool:
        return self._clock() - self._names_asked >= _NAMES_REMEMBERED_S
