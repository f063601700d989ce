"""Calls that a worker's courier may send twice, because it cannot know whether the first one arrived.

A report that was taken while its answer got lost comes again, and so does the question for a job. States say
the same thing twice, which harms nobody. Two calls are not like that: a fetch hands out another job each
time, and nobody would ever run the first one; and a piece of log is appended each time.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from airbridge.controlplane._edge_rules import job_of_fetch, job_of_log
from airbridge.controlplane._refusal import Refusal

if TYPE_CHECKING:
    from airbridge.identity.jobs import HandedOut, JobKey

__all__ = ["CHUNK_HEADER", "FETCH_HEADER", "Deliveries", "DeliveryRecord"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FETCH_HEADER: Final = b"x-airbridge-fetch"
"""Id of a question for a job: the same one until it was answered with a job."""
CHUNK_HEADER: Final = b"x-airbridge-chunk"
"""When a piece of log was written, as in the body; part of its key in the database."""

_FETCH_ID: Final = re.compile("[0-9a-f]{32}")


class DeliveryRecord(Protocol):
    """What was delivered already."""

    def hand_out(self, key: JobKey, worker: str, fetch_id: str | None = None) -> None:
        """Note that a job was handed to the worker."""

    def handed_out_under(self, fetch_id: str, worker: str) -> HandedOut | None:
        """Return the job that was handed out under this id and not heard of since."""

    def has_log_piece(self, key: JobKey, written_at: datetime) -> bool:
        """Return whether a piece of log is here already."""


class Deliveries:
    """Gives the same answer to the same question.

    :param in_thread: runs what asks the database
    """

    def __init__(
        self, record: DeliveryRecord, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]
    ) -> None:
        self._record = record
        self._in_thread = in_thread
        self._asking: set[tuple[str, str]] = set()

    async def fetch(
        self, app: App, scope: Scope, receive: Receive, worker: str, fetch_id: str | None
    ) -> list[Message]:
        """Return the answer to a fetch; what it hands out is written down before the worker knows of it.

        :raises Refusal: the id is none, or its first question is still being answered
        """
        if fetch_id is None:
            return await self._hand_out(app, scope, receive, worker, None)
        if not _FETCH_ID.fullmatch(fetch_id):
            raise Refusal(400, "body_invalid", "the id of the fetch is none")
        question = (worker, fetch_id)
        if question in self._asking:
            raise Refusal(503, "not_ready", "the same question is being answered")
        self._asking.add(question)
        try:
            known: HandedOut | None = await self._in_thread(
                lambda: self._record.handed_out_under(fetch_id, worker)
            )
            if known is not None:
                return _messages(known.answer)
            return await self._hand_out(app, scope, receive, worker, fetch_id)
        finally:
            self._asking.discard(question)

    async def _hand_out(
        self, app: App, scope: Scope, receive: Receive, worker: str, fetch_id: str | None
    ) -> list[Message]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await app(scope, receive, keep)
        key = job_of_fetch(b"".join(message.get("body", b"") for message in messages))
        if key is not None:
            await self._in_thread(lambda: self._record.hand_out(key, worker, fetch_id))
        return messages

    async def has_piece(self, verb: str, call: str, written_at: str | None) -> bool:
        """Return whether this call sends a piece of log that is here already."""
        key = job_of_log(verb, call) if written_at else None
        if key is None or written_at is None:
            return False
        try:
            moment = datetime.fromisoformat(written_at)
        except ValueError:
            raise Refusal(400, "body_invalid", "the time of the piece of log is none") from None
        return bool(await self._in_thread(lambda: self._record.has_log_piece(key, moment)))


def _messages(body: bytes) -> list[Message]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return [
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]
