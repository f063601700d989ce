"""Hears from Postgres which queues got jobs, and looks itself now and then in case it heard nothing.

On the same connection it hears which workers have a slot free, and which may do something else now.
"""

from __future__ import annotations

import select
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import structlog
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from tenacity import Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential

from airbridge.dispatch.queue import CHANNEL, ENDED_CHANNEL, JobQueue
from airbridge.errors import UnreachableError
from airbridge.identity.store import CHANGES_CHANNEL
from airbridge.retry_log import retry_warning

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.identity.database import Database

__all__ = ["JobListener"]

POLL_S: Final = 5.0
"""How long a job waits at most when its announcement was lost: a connection broke, a trigger is gone."""

_RETRY_LONGEST_S: Final = 5.0
_SLICE_S: Final = 0.5
_MS: Final = 1000

log = structlog.get_logger(__name__)


class JobListener:
    """One thread and one database connection for a process, however many workers wait.

    Args:
        database: where jobs are queued.
        announce: called in the listener's thread with the names of queues that may hold a job.
        freed: the same with the names of workers of which a job has ended.
        changed: the same with the names of workers whose enrolment has changed.
        poll_s: seconds between two looks of its own.
    """

    def __init__(
        self,
        database: Database,
        announce: Callable[[frozenset[str]], None],
        freed: Callable[[frozenset[str]], None] = lambda _: None,
        changed: Callable[[frozenset[str]], None] = lambda _: None,
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._database = database
        self._queue = JobQueue(database)
        self._announce = announce
        self._others = {ENDED_CHANNEL: freed, CHANGES_CHANNEL: changed}
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="airbridge-jobs", daemon=True)

    def start(self) -> None:
        """Begin to listen; once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type((UnreachableError, psycopg2.Error)),
            wait=wait_random_exponential(multiplier=0.1, max=_RETRY_LONGEST_S),
            stop=stop_when_event_set(self._stop),
            sleep=self._pause,
            before_sleep=retry_warning(log, "does not hear of queued jobs"),
            retry_error_callback=lambda _: None,  # stopped while it was away
        )
        retrying(self._listen)

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _listen(self) -> None:
        """Listen until stopped, or until the connection breaks."""
        connection = self._database.connection()
        try:
            connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
            with connection.cursor() as cursor:
                for channel in (CHANNEL, *self._others):
                    cursor.execute(f"LISTEN {channel}")
            log.info("hears of queued jobs")
            look_at = time.monotonic()  # at once: what was queued while nobody listened
            # Not select(), which takes no descriptor beyond 1023: a thousand workers hold more connections.
            waiter = select.poll()
            waiter.register(connection, select.POLLIN)
            while not self._stop.is_set():
                # Before the wait: an answer to a statement may have brought announcements along.
                connection.poll()
                heard = _payloads(connection, CHANNEL)
                for channel, tell in self._others.items():
                    if names := _payloads(connection, channel):
                        tell(names)
                connection.notifies.clear()
                now = time.monotonic()
                if now >= look_at:
                    look_at = now + self._poll_s
                    heard |= self._queue.queued()
                self._tell(heard)
                # In slices, so that a stop need not wait for a job.
                waiter.poll(min(max(look_at - now, 0), _SLICE_S) * _MS)
        finally:
            connection.close()

    def _tell(self, queues: frozenset[str]) -> None:
        if queues:
            self._announce(queues)


def _payloads(connection: Any, channel: str) -> frozenset[str]:
    return frozenset(notice.payload for notice in connection.notifies if notice.channel == channel)
