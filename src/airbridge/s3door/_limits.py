"""What one principal may ask for in a second and at once, so that it is no burden to the others."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airbridge.s3door._errors import slow_down

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Limits", "Meter"]

# Seconds' worth of requests that may come at once after a quiet time: a publish is a burst.
_BURST_S: Final = 2.0
# Idle principals are forgotten above this number; names come from proved requests only.
_MOST: Final = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What a principal may have."""

    rate: float = 200.0
    """Requests a second, for as long as it likes."""
    in_flight: int = 32
    """Requests at once."""


@dataclass(slots=True)
class _State:
    tokens: float
    filled: float
    in_flight: int = 0


class Meter:
    """Counts requests of proved principals; used by one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._states: dict[str, _State] = {}

    @contextlib.contextmanager
    def admitted(self, name: str) -> Iterator[None]:
        """Count one request of ``name`` while it lasts.

        :raises S3Error: it is one too many
        """
        state = self._state(name)
        if state.tokens < 1:
            raise slow_down("rate_limited")
        if state.in_flight >= self._limits.in_flight:
            raise slow_down("in_flight_limited")
        state.tokens -= 1
        state.in_flight += 1
        try:
            yield
        finally:
            state.in_flight -= 1

    def _state(self, name: str) -> _State:
        now, most = self._clock(), self._limits.rate * _BURST_S
        state = self._states.get(name)
        if state is None:
            if len(self._states) >= _MOST:
                self._states = {n: s for n, s in self._states.items() if s.in_flight or s.tokens < most}
            state = self._states[name] = _State(most, now)
        state.tokens = min(most, state.tokens + (now - state.filled) * self._limits.rate)
        state.filled = now
        return state
