"""Keeps the garbage collector away from what the api-server started with.

Airflow's models, routes and providers live as long as the process. Each full collection walks all of them
while no request is served. Frozen, they are not looked at any more.

What comes later is looked at less often: a held call lives for most of a minute, so that under many of them
most of what a collection walks is not garbage.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airbridge.controlplane._asgi import Message, Send

__all__ = ["freezing"]

# Objects that came and did not go before the youngest are collected, then how many such collections make one
# of the next age. Python's 700, 10, 10 made a full collection every four seconds under 500 held calls, of 40
# to 80 ms each. With these it is one in a million objects, and what waits for it some tens of MB at most.
_THRESHOLDS: Final = (10_000, 10, 10)


def freezing(send: Send) -> Send:
    """Return what an application says about its start to: once it has started, its objects are frozen
    and later ones collected less often.
    """

    async def watched(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_THRESHOLDS)
        await send(message)

    return watched
