"""Calls that a worker's courier may send twice, because it cannot know whether the first one arrived.

A report that was taken while its answer got lost comes again, and so does the question for a job. States say
the same thing twice, which harms nobody. Two calls are not like that: a fetch hands out another job each
time, and nobody would ever run the first one, so that :mod:`airbridge.controlplane._fetch` gives the same
question the same job; and a piece of log is appended each time.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from airbridge.controlplane._edge_rules import job_of_log
from airbridge.controlplane._refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airbridge.identity.jobs import JobKey

__all__ = ["CHUNK_HEADER", "FETCH_HEADER", "Deliveries", "LogRecord", "checked_fetch_id"]

FETCH_HEADER: Final = b"x-airbridge-fetch"
"""Id of a question for a job: the same one until it was answered with a job."""
CHUNK_HEADER: Final = b"x-airbridge-chunk"
"""When a piece of log was written, as in the body; part of its key in the database."""

_FETCH_ID: Final = re.compile("[0-9a-f]{32}")


def checked_fetch_id(fetch_id: str | None) -> str | None:
    """Return the id of a question for a job.

    :raises Refusal: it is none
    """
    if fetch_id is not None and not _FETCH_ID.fullmatch(fetch_id):
        raise Refusal(400, "body_invalid", "the id of the fetch is none")
    return fetch_id


class LogRecord(Protocol):
    """What was delivered already."""

    def has_log_piece(self, key: JobKey, written_at: datetime) -> bool:
        """Return whether a piece of log is here already."""


class Deliveries:
    """Takes what is delivered twice for delivered.

    :param in_thread: runs what asks the database
    """

    def __init__(self, record: LogRecord, in_thread: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._record = record
        self._in_thread = in_thread

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
