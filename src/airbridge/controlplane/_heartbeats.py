"""Heartbeats of many workers, served together.

An idle fleet is heartbeats. Each by itself is an authentication, a route, a thread, a session, a ping and a
commit in the edge API, for one row; together they share all of these. Nobody waits for the answer to a
heartbeat, so that it may wait for those of the others. What a heartbeat does and is answered stays the edge
provider's own business (see ``_provider_heartbeats``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.to_thread
import structlog

__all__ = ["Heartbeat", "HeartbeatAnswer", "Heartbeats", "Serve"]

GATHER_S: Final = 0.25
"""How long a heartbeat waits for others: far less than the seconds between two of a worker's."""
# In a transaction, which holds the rows of its workers. After an outage a fleet comes back at once.
_MOST: Final = 100

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a worker says about itself, checked to be of that worker and no further."""

    worker: str
    body: bytes


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What the worker is told."""

    status: int
    body: bytes


Serve = Callable[[Sequence[Heartbeat]], Sequence[HeartbeatAnswer | None]]
"""Serves heartbeats and returns their answers; ``None``: this one is for the edge API to answer. Blocks."""


class Heartbeats:
    """Gathers heartbeats. For one event loop.

    Args:
        serve: called in a thread, one call at a time.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._waiting: list[tuple[Heartbeat, asyncio.Future[HeartbeatAnswer | None]]] = []
        self._gathering: asyncio.Task[None] | None = None
        self._one_at_a_time: anyio.CapacityLimiter | None = None

    async def take(self, heartbeat: Heartbeat) -> HeartbeatAnswer | None:
        """Return the answer; ``None``: the edge API has to be asked."""
        answer: asyncio.Future[HeartbeatAnswer | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((heartbeat, answer))
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())
        return await answer

    async def _gather(self) -> None:
        await asyncio.sleep(GATHER_S)
        gathered, self._waiting = self._waiting, []
        self._gathering = None
        if self._one_at_a_time is None:
            self._one_at_a_time = anyio.CapacityLimiter(1)
        for first in range(0, len(gathered), _MOST):
            await self._answer(gathered[first : first + _MOST], self._one_at_a_time)

    async def _answer(
        self,
        gathered: list[tuple[Heartbeat, asyncio.Future[HeartbeatAnswer | None]]],
        limiter: anyio.CapacityLimiter,
    ) -> None:
        heartbeats = [heartbeat for heartbeat, _ in gathered]
        answers: Sequence[HeartbeatAnswer | None]
        try:
            answers = await anyio.to_thread.run_sync(self._serve, heartbeats, limiter=limiter)
        except Exception as error:
            # One that cannot be served must not take the others along: each goes its usual way.
            log.warning("heartbeats are served one by one", count=len(heartbeats), error=str(error))
            answers = [None] * len(heartbeats)
        for (_, future), answer in zip(gathered, answers, strict=True):
            if not future.done():  # its worker may have hung up
                future.set_result(answer)
