"""How much of the api-server one edge worker, or one stranger, may use at once and over time.

A worker that has proved itself has a token bucket of calls, and so many that are worked on at the same time;
more wait their turn, which costs nobody else anything, and only a long queue is refused. Whoever fails to
prove itself has a bucket of failures for its address, which is charged *after* the check: a worker with a
good credential is never refused for what others behind its address do. An attempt to join is charged before,
as it goes to the database, and given back when it succeeds.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from airbridge.controlplane._refusal import Refusal
from airbridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Buckets", "LimitSettings", "Limits"]

_MINUTE_S: Final = 60.0
# Buckets that are remembered: those of strangers' addresses must not fill the memory.
_MOST_BUCKETS: Final = 4096
# A refusal by a limit is held back for so long: whoever sends one request after the other is slowed down, and
# waiting costs nothing. So many at once, lest waiting itself become a burden.
_HELD_S: Final = 1.0
_MOST_HELD: Final = 256
# An IPv6 host has a network of this size to itself.
_IPV6_NETWORK: Final = 64


def _number(environ: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= 1_000_000:
        raise SettingsError(f"{name}={text} is no limit", fix=f"a whole number, {least} or more")
    return int(text)


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The numbers. The defaults are several times what a worker with 64 tasks at once needs."""

    rate: int = 200
    """Calls a second of one worker, on average."""
    burst: int = 2000
    """Calls at once, after a quiet time."""
    concurrent: int = 4
    """Calls of one worker that are worked on at the same time: half of the database threads."""
    waiting: int = 512
    """Calls of one worker that wait their turn."""
    failures: int = 120
    """Failed proofs a minute of one address."""
    joins: int = 20
    """Failed attempts to join a minute of one address."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> LimitSettings:
        """Read the settings.

        :raises SettingsError: one is no number
        """
        usual = cls()
        return cls(
            rate=_number(environ, "EDGE_LIMIT_RATE", usual.rate, 1),
            burst=_number(environ, "EDGE_LIMIT_BURST", usual.burst, 1),
            concurrent=_number(environ, "EDGE_LIMIT_CONCURRENT", usual.concurrent, 1),
            waiting=_number(environ, "EDGE_LIMIT_WAITING", usual.waiting, 1),
            failures=_number(environ, "EDGE_LIMIT_FAILURES", usual.failures, 1),
            joins=_number(environ, "EDGE_LIMIT_JOINS", usual.joins, 1),
        )


class Buckets:
    """Token buckets by key, the oldest forgotten first.

    Args:
        rate: tokens a second that come back.
        size: tokens of a full bucket.
        clock: seconds.
    """

    def __init__(self, rate: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._size = size
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take a token; returns 0, or the seconds until there is one."""
        now = self._clock()
        level, at = self._levels.get(key, (self._size, now))
        level = min(self._size, level + (now - at) * self._rate)
        taken = level >= 1
        self._put(key, level - 1 if taken else level, now)
        return 0.0 if taken else (1 - level) / self._rate

    def give_back(self, key: str) -> None:
        """Return a token that was taken."""
        level, at = self._levels.get(key, (self._size, self._clock()))
        self._put(key, min(self._size, level + 1), at)

    def _put(self, key: str, level: float, at: float) -> None:
        self._levels[key] = (level, at)
        self._levels.move_to_end(key)
        while len(self._levels) > _MOST_BUCKETS:
            self._levels.popitem(last=False)


class _Turns:
    """The calls of one worker: some are worked on, the others wait."""

    def __init__(self, concurrent: int) -> None:
        self.semaphore = anyio.Semaphore(concurrent)
        self.waiting = 0


class Limits:
    """What has been used. One object a process; not for several threads.

    Args:
        settings: the numbers.
        clock: seconds.
    """

    def __init__(
        self, settings: LimitSettings | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings or LimitSettings()
        self._calls = Buckets(self._settings.rate, self._settings.burst, clock)
        self._failures = _a_minute(self._settings.failures, clock)
        self._joins = _a_minute(self._settings.joins, clock)
        # Of enrolled workers only, so their number is bounded by enrolment.
        self._turns: dict[str, _Turns] = {}
        self._held = 0

    async def enter(self, worker: str, kind: str = "") -> None:
        """Wait until a call of this worker, which has proved itself, may go on; then :meth:`leave`.

        :param kind: calls of different kinds have buckets of their own
        :raises Refusal: it sends too much
        """
        wait = self._calls.take(f"{kind}:{worker}")
        if wait:
            raise _limited("limit_rate", f"worker '{worker}' sends too many requests", wait)
        turns = self._turns.get(worker)
        if turns is None:
            turns = self._turns[worker] = _Turns(self._settings.concurrent)
        if turns.waiting >= self._settings.waiting:
            raise _limited("limit_waiting", f"worker '{worker}' has too many requests under way", _HELD_S)
        turns.waiting += 1
        try:
            await turns.semaphore.acquire()
        finally:
            turns.waiting -= 1

    def leave(self, worker: str) -> None:
        """Give the turn to the worker's next call."""
        self._turns[worker].semaphore.release()

    def failed(self, address: str, refusal: Refusal) -> Refusal:
        """Charge a request that nobody has proved; returns what to answer: ``refusal``, or "not so fast"."""
        wait = self._failures.take(_network(address))
        if not wait:
            return refusal
        return _limited("limit_failures", "too many requests that were not accepted", wait)

    def join_begins(self, address: str) -> None:
        """Charge an attempt to join.

        :raises Refusal: there were too many from this address
        """
        wait = self._joins.take(_network(address))
        if wait:
            raise _limited("limit_joins", "too many attempts to join from this address", wait, status=429)

    def join_succeeded(self, address: str) -> None:
        """Give back what a good join token was charged."""
        self._joins.give_back(_network(address))

    async def hold(self) -> None:
        """Wait before a refusal by a limit is answered, unless many wait already."""
        if self._held >= _MOST_HELD:
            return
        self._held += 1
        try:
            await anyio.sleep(_HELD_S)
        finally:
            self._held -= 1


def _a_minute(number: int, clock: Callable[[], float]) -> Buckets:
    return Buckets(number / _MINUTE_S, number, clock)


def _limited(reason: str, message: str, wait: float, status: int = 503) -> Refusal:
    """503 by default: what an edge host's clients take for "later", whatever call it is (docs/adr/0016)."""
    return Refusal(status, reason, message, retry_after=max(1, math.ceil(wait)))


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))
    return address
