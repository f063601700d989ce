"""How many requests are inside Airflow's application at once.

FastAPI runs the parts of a request one after the other, each in a thread of one pool of 40: the route, which
takes a connection to the database, then the making of the answer, which still holds it
(``fastapi/routing.py``, ``serialize_response``). Requests that have a connection and wait for a thread can so
stand before threads that wait for a connection, until SQLAlchemy gives them up after 30 s. That takes as many
requests as there are connections and threads together. Here they wait outside instead, holding neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from airbridge.controlplane._asgi import App, Message, Receive, Scope, Send

__all__ = ["Places"]


class Places:
    """Lets so many requests into an application at once; the others wait in the order in which they came.

    A request is let in once its whole body is here: who sends one slowly takes no place meanwhile.

    Args:
        app: the application.
        most: requests.
    """

    def __init__(self, app: App, most: int) -> None:
        self._app = app
        self._most = most
        self._free: anyio.Semaphore | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        read = [await receive()]
        while read[-1].get("more_body", False):
            read.append(await receive())

        async def receive_again() -> Message:
            return read.pop(0) if read else await receive()

        if self._free is None:  # made on the event loop that it is for
            self._free = anyio.Semaphore(self._most)
        await self._free.acquire()
        place = _Place(self._free)

        async def leaving(message: Message) -> None:
            # By now the route's session is closed (FastAPI 0.116); who reads slowly holds nothing any more.
            place.leave()
            await send(message)

        try:
            await self._app(scope, receive_again, leaving)
        finally:
            place.leave()


class _Place:
    """One of the places, to be left once."""

    def __init__(self, free: anyio.Semaphore) -> None:
        self._free = free
        self._is_taken = True

    def leave(self) -> None:
        """Give the place to the next; nothing the second time."""
        if self._is_taken:
            self._is_taken = False
            self._free.release()
