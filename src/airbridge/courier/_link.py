"""Whether the control plane is there: one opinion for the whole courier, and one who keeps asking.

A call that gets no usable answer makes the link *unsure*; one question settles whether it is away. While it
is away nobody but this module asks, with pauses that grow exponentially and are random from zero to that
(full jitter), so that a fleet does not come back as one. A partition is one line in the log at its beginning
and one at its end.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_never, wait_random_exponential

from airbridge.courier._answers import Answer, Meaning

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Link", "Notes"]

_FIRST_PAUSE_S: Final = 1.0
# As long as somebody waits for the line to come back, half of this is what it costs.
_LONGEST_PAUSE_S: Final = 15.0
# A host that is refused (revoked, expired, wrong clock) is waited for by an operator, not by a network.
_LONGEST_PAUSE_REFUSED_S: Final = 60.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_AWAY_SINCE: Final = "away since"

_log = structlog.get_logger("airbridge.courier")


class Notes(Protocol):
    """What outlives the courier."""

    def note(self, name: str, text: str) -> None:
        """Keep a short text."""

    def noted(self, name: str) -> str:
        """Return it."""


def _boot_clock() -> float:
    """Seconds since this machine started; no clock change touches them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Link:
    """The way to the control plane.

    :param probe: asks the control plane something that it answers to every worker
    :param notes: where the beginning of a partition is kept, so that a restart does not prolong it
    """

    def __init__(self, probe: Callable[[], Awaitable[Answer]], notes: Notes) -> None:
        self._probe = probe
        self._notes = notes
        self._asked = asyncio.Event()
        self._there = asyncio.Event()
        self._since: float | None = None
        self._announced = False
        self._was_there = False
        self._last = Answer(0, error="not asked yet")
        self._asked.set()  # nothing is known at the start

    @property
    def is_there(self) -> bool:
        """Whether calls may be sent."""
        return self._there.is_set()

    @property
    def is_away(self) -> bool:
        """Whether it is away, or was not there yet; neither this nor there: being asked."""
        return self._since is not None or not self._was_there

    @property
    def away_s(self) -> float:
        """Seconds since it went away."""
        return 0.0 if self._since is None else max(0.0, _boot_clock() - self._since)

    @property
    def last(self) -> Answer:
        """The last answer, or the lack of one, that spoke against it."""
        return self._last

    async def wait_until_there(self) -> None:
        """Return once calls may be sent."""
        await self._there.wait()

    def suspect(self, answer: Answer) -> None:
        """Say that a call got ``answer``, which is no word of the control plane."""
        if self.is_there:
            self._last = answer
            self._there.clear()
            self._asked.set()

    async def watch(self) -> None:
        """Settle doubts for ever."""
        self._restore()
        retrying = AsyncRetrying(
            retry=retry_if_result(lambda answer: not self._is_usable(answer)),
            wait=self._pause,
            stop=stop_never,
        )
        while True:
            await self._asked.wait()
            self._asked.clear()
            await retrying(self._ask)
            self._came_back()

    async def _ask(self) -> Answer:
        answer = await self._probe()
        if not self._is_usable(answer):
            self._is_not_there(answer)
        return answer

    @staticmethod
    def _is_usable(answer: Answer) -> bool:
        return answer.meaning is Meaning.DONE

    def _pause(self, state: RetryCallState) -> float:
        refused = self._last.is_refusal_of_worker or self._last.is_version_mismatch
        longest = _LONGEST_PAUSE_REFUSED_S if refused else _LONGEST_PAUSE_S
        pause = wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=longest)(state)
        try:
            # A 429 may say for how long; never longer than we would wait ourselves.
            asked_for = float(self._last.headers.get("Retry-After", "0"))
        except ValueError:
            asked_for = 0.0
        return max(pause, min(asked_for, longest))

    def _restore(self) -> None:
        boot, _, since = self._notes.noted(_AWAY_SINCE).partition(" ")
        if since and boot == _BOOT_ID.read_text().strip():
            self._since = float(since)

    def _is_not_there(self, answer: Answer) -> None:
        self._last = answer
        if self._since is None:
            self._since = _boot_clock()
            self._notes.note(_AWAY_SINCE, f"{_BOOT_ID.read_text().strip()} {self._since!r}")
        if not self._announced:
            self._announced = True
            _log.warning("control plane away: reports are kept on this host", reason=answer.reason)

    def _came_back(self) -> None:
        if self._since is not None:
            _log.info("control plane is back", away_s=round(self.away_s, 1))
            self._since = None
            self._announced = False
            self._notes.note(_AWAY_SINCE, "")
        self._was_there = True
        self._there.set()
