"""Keeps the garbage collector away from what the api-server started with.

Airflow's models, routes and providers live as long as the process. Each full collection walks all of them
while no request is served. Frozen, they are not looked at any more.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["freezing"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


def freezing(send: Send) -> Send:
    """Return what an application says about its start to: once it has started, its objects are frozen."""

    async def watched(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()
        await send(message)

    return watched
