"""Hands out jobs: to each worker no more at once than it is enrolled for, whatever it asks for.

The edge API behind believes the number of free slots that a worker names. Here a worker's fetches pass one
after the other, and each with the slots that are free by the control plane's own count, so that no two of
them take the same slot. What an answer hands out is written down before the worker knows of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

import anyio

from airbridge.controlplane._asgi import Message, Send
from airbridge.identity.jobs import JobKey

if TYPE_CHECKING:
    from airbridge.controlplane._correlation import Exchange
    from airbridge.identity.jobs import HandedOut
    from airbridge.identity.model import Worker

__all__ = ["FetchDesk", "Fetched", "Turn", "Turns", "fetched"]

Call = Callable[[bytes, Send], Awaitable[None]]

# Fetches of all workers that are under way at once: each holds a connection to the database, and the edge API
# behind has one of its own for each.
_AT_ONCE: Final = 8
# Fetches of one worker that are here at once. It asks every second, whether an answer has come or not, so
# on a slow day they would pile up; one that is told "nothing" asks again.
_OF_ONE_WORKER: Final = 4
_OK: Final = 200
_NOTHING: Final = b"null"  # what the edge API says when there is no job


class Turn(Protocol):
    """A worker's turn to fetch."""

    held: int

    def end(self, handed: JobKey | None = None, fetch_id: str | None = None) -> None:
        """Let the next one fetch, after noting which job was handed out, and to which question."""


class Turns(Protocol):
    """Who gives turns; see :class:`airbridge.identity.jobs.Jobs`."""

    def turn(self, worker: str) -> Turn:
        """Wait until nobody else fetches for ``worker``, and return its turn."""

    def handed_out_under(self, fetch_id: str, worker: str) -> HandedOut | None:
        """Return the job that was handed out to this question and not heard of since."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The job in the edge API's answer to a fetch."""

    key: JobKey
    attempt: str
    """Id of the task instance; empty where the workload names none."""


def fetched(answer: bytes) -> Fetched | None:
    """Return what the edge API's answer to a fetch hands out; ``None``: nothing."""
    try:
        job = json.loads(answer)
        key = JobKey(job["dag_id"], job["task_id"], job["run_id"], job["map_index"], job["try_number"])
    except (ValueError, TypeError, KeyError):
        return None  # "null": there was nothing to do
    try:
        return Fetched(key, str(UUID(job["command"]["ti"]["id"])))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Fetched(key, "")


@dataclass(slots=True)
class _Queue:
    """One worker's fetches."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class FetchDesk:
    """Serves the fetches of all workers.

    Args:
        turns: who counts what a worker runs, and keeps its fetches apart from those at other api-servers.
        in_thread: runs what waits for the database.
    """

    def __init__(self, turns: Turns, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._turns = turns
        self._in_thread = in_thread
        # Those of one worker wait here, where waiting costs nothing: a flood of them holds one connection.
        self._queues: dict[str, _Queue] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def serve(
        self, worker: Worker, body: bytes, fetch_id: str | None, call: Call, exchange: Exchange
    ) -> None:
        """Serve one fetch; the same question gets the same job, until the worker has said something about it.

        :param body: of the request, checked before
        :param fetch_id: id of the question, where the worker's courier gives it one
        :param call: asks the edge API with a body
        :param exchange: where the answer goes, and which attempt it hands out
        """
        queue = self._queues.setdefault(worker.name, _Queue())
        if queue.length >= _OF_ONE_WORKER:
            answer = _answer(_NOTHING)
        else:
            queue.length += 1
            try:
                async with queue.lock, self._places:
                    answer = await self._fetch(worker, body, fetch_id, call, exchange)
            finally:
                queue.length -= 1
        for message in answer:
            await exchange.send(message)

    async def _fetch(
        self, worker: Worker, body: bytes, fetch_id: str | None, call: Call, exchange: Exchange
    ) -> list[Message]:
        """Return the messages of the answer."""
        turn: Turn = await self._in_thread(lambda: self._turns.turn(worker.name))
        handed: Fetched | None = None
        try:
            messages = await self._known(worker, fetch_id) or await self._asked(worker, turn, body, call)
            handed = fetched(b"".join(message.get("body", b"") for message in messages))
        finally:
            with anyio.CancelScope(shield=True):
                await self._in_thread(lambda: turn.end(handed.key if handed else None, fetch_id))
        if handed:
            exchange.correlation = handed.attempt
        return messages

    async def _known(self, worker: Worker, fetch_id: str | None) -> list[Message]:
        """Return the answer that this question had before; empty: it had none, or no job."""
        if fetch_id is None:
            return []
        known = await self._in_thread(lambda: self._turns.handed_out_under(fetch_id, worker.name))
        return [] if known is None else _answer(known.answer)

    @staticmethod
    async def _asked(worker: Worker, turn: Turn, body: bytes, call: Call) -> list[Message]:
        """Return what the edge API answers."""
        free = worker.allowance.concurrency - turn.held
        if free <= 0:
            return _answer(_NOTHING)
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await call(_within(body, free), keep)
        return messages


def _within(body: bytes, free: int) -> bytes:
    asked = json.loads(body)
    if asked["free_concurrency"] <= free:
        return body
    return json.dumps({**asked, "free_concurrency": free}).encode()


def _answer(body: bytes) -> list[Message]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return [
        {"type": "http.response.start", "status": _OK, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]
