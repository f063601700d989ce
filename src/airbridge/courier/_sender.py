"""Delivers what waits in the spool: in order for each job, several jobs at once, until taken or refused."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from airbridge.courier._answers import Answer, Meaning, is_repeat_of
from airbridge.courier._calls import read_call

if TYPE_CHECKING:
    from airbridge.courier._link import Link
    from airbridge.courier._spool import Waiting
    from airbridge.courier._store import Store
    from airbridge.courier._upstream import Upstream

__all__ = ["Sender"]

_AT_ONCE: Final = 4
_TIMEOUT_S: Final = 30.0
_SLOWEST_LINE: Final = 64 * 1024  # bytes a second that a large XCom gets on top
# The life of a task's token ([execution_api] jwt_expiration_time): older reports cannot be taken.
_KEPT_S: Final = 86_400.0
# Pauses of one job's reports that fail while others are taken.
_pause = wait_random_exponential(multiplier=1.0, max=30.0)

_log = structlog.get_logger("airbridge.courier")


@dataclass(slots=True)
class _Trouble:
    """A stream whose first report failed, while the control plane was there."""

    state: RetryCallState = field(default_factory=lambda: RetryCallState(AsyncRetrying(), None, (), {}))
    since: float = field(default_factory=time.monotonic)
    until: float = 0.0


class Sender:
    """Empties the spool whenever the control plane is there.

    :param patience_s: how long a report may fail while the control plane is there, before it makes way for
        what comes after it
    """

    def __init__(self, store: Store, upstream: Upstream, link: Link, patience_s: float) -> None:
        self._store = store
        self._upstream = upstream
        self._link = link
        self._patience_s = patience_s
        self._troubled: dict[str, _Trouble] = {}
        self.delivered = 0
        self.refused = 0
        self.lost = 0

    @property
    def is_busy(self) -> bool:
        """Whether reports wait that nothing stands against."""
        return bool(self._store.streams - self._troubled.keys())

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            await self._link.wait_until_there()
            self._troubled = {
                name: trouble for name, trouble in self._troubled.items() if self._store.has(name)
            }
            now = time.monotonic()
            resting = {name for name, trouble in self._troubled.items() if trouble.until > now}
            due = await self._store.first(without=resting, most=_AT_ONCE)
            if due:
                await asyncio.gather(*(self._deliver(waiting) for waiting in due))
                continue
            wake = min((trouble.until for trouble in self._troubled.values()), default=None)
            await self._store.wait_for_more(None if wake is None else max(0.05, wake - now))

    async def _deliver(self, waiting: Waiting) -> None:
        report = waiting.report
        if time.time() - waiting.added > _KEPT_S:
            self.lost += 1
            _log.error("report lost: it waited too long", target=report.target, kept_s=_KEPT_S)
            await self._store.remove(waiting)
            return
        timeout = _TIMEOUT_S + len(report.body) / _SLOWEST_LINE
        answer = await self._upstream.send(
            report.verb, report.target, report.headers, report.body, timeout=timeout, sign=True
        )
        meaning = answer.meaning
        if meaning is Meaning.DONE:
            self.delivered += 1
        elif meaning is Meaning.NO or self._is_hopeless(report.stream, answer):
            self.note_refusal(report.verb, report.target, report.body, answer)
        else:
            return
        self._troubled.pop(report.stream, None)
        await self._store.remove(waiting)
        call = read_call(report.verb, report.target)
        if call is not None and call.ends_job:
            await self._store.ended(report.stream)

    def _is_hopeless(self, stream: str, answer: Answer) -> bool:
        """Let a stream rest whose first report failed; return whether that report has failed for too long."""
        now = time.monotonic()
        trouble = self._troubled.setdefault(stream, _Trouble())
        trouble.until = now + _pause(trouble.state)
        trouble.state.attempt_number += 1
        if answer.meaning is Meaning.AWAY:
            # Others decide whether this is an absence, which is nobody's fault.
            trouble.since = now
            self._link.suspect(answer)
        return now - trouble.since > self._patience_s

    def note_refusal(self, verb: str, target: str, body: bytes, answer: Answer) -> None:
        """Write down that the control plane does not want a report; nothing else is to be done about it."""
        if is_repeat_of(body, answer):
            return  # its answer was lost, not the report
        self.refused += 1
        _log.warning("report refused, and dropped", verb=verb, target=target, reason=answer.reason)
