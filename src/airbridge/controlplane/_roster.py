"""Who is enrolled, remembered for less than a second.

Every request of an edge host asks. A query each time would be the better part of the cost; remembering longer
would let a revoked worker go on.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from airbridge.identity.model import Worker

__all__ = ["Enrolments", "Roster"]

# A revocation is in force within a second: this, and the time that a request takes.
_REMEMBERED_S: Final = 0.5
# Names come from strangers too: the memory of them is bounded.
_MOST: Final = 1024
# How stale "last seen" may be; a write for each request would cost more than it tells.
_SEEN_EVERY_S: Final = 10.0


class Enrolments(Protocol):
    """Where the roster looks."""

    def find(self, name: str) -> Worker | None:
        """Return the worker of this name."""

    def mark_seen(self, name: str) -> None:
        """Note that it proved itself now."""


class Roster:
    """The enrolled workers, asked by many threads."""

    def __init__(self, enrolments: Enrolments, clock: Callable[[], float] = time.monotonic) -> None:
        self._enrolments = enrolments
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, Worker | None]] = OrderedDict()
        self._seen: dict[str, float] = {}

    def remembered(self, name: str) -> tuple[bool, Worker | None]:
        """Return whether an answer is fresh enough, and which; never waits for the database."""
        entry = self._known.get(name)
        if entry is None or self._clock() - entry[0] >= _REMEMBERED_S:
            return False, None
        return True, entry[1]

    def find(self, name: str) -> Worker | None:
        """Return the worker as the database has it now."""
        # The age counts from before the question: an answer is never older than it seems.
        asked = self._clock()
        worker = self._enrolments.find(name)
        with self._lock:
            self._known[name] = (asked, worker)
            self._known.move_to_end(name)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return worker

    def is_seen_stale(self, name: str) -> bool:
        """Return whether it is time for :meth:`mark_seen`."""
        return self._clock() - self._seen.get(name, -_SEEN_EVERY_S) >= _SEEN_EVERY_S

    def mark_seen(self, name: str) -> None:
        """Note that an enrolled worker proved itself."""
        self._seen[name] = self._clock()
        self._enrolments.mark_seen(name)
