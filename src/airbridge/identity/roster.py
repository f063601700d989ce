"""Who is enrolled, remembered for less than a second.

Every request of an edge host or a publisher asks. A query each time would be the better part of the cost;
remembering longer would let who was revoked go on.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Enrolments", "Roster"]

# A revocation is in force within a second: this, and the time that a request takes.
_REMEMBERED_S: Final = 0.5
# Names come from strangers too: the memory of them is bounded.
_MOST: Final = 1024
# How stale "last seen" may be; a write for each request would cost more than it tells.
_SEEN_EVERY_S: Final = 10.0


_Found = TypeVar("_Found")
_Found_co = TypeVar("_Found_co", covariant=True)


class Enrolments(Protocol[_Found_co]):
    """Where the roster looks."""

    def find(self, name: str) -> _Found_co | None:
        """Return the principal of this name."""

    def mark_seen(self, name: str) -> None:
        """Note that it proved itself now."""


class Roster(Generic[_Found]):
    """The enrolled principals, asked by many threads."""

    def __init__(self, enrolments: Enrolments[_Found], clock: Callable[[], float] = time.monotonic) -> None:
        self._enrolments = enrolments
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, _Found | None]] = OrderedDict()
        self._seen: dict[str, float] = {}

    def remembered(self, name: str) -> tuple[bool, _Found | None]:
        """Return whether an answer is fresh enough, and which; never waits for the database."""
        entry = self._known.get(name)
        if entry is None or self._clock() - entry[0] >= _REMEMBERED_S:
            return False, None
        return True, entry[1]

    def find(self, name: str) -> _Found | None:
        """Return the principal as the database has it now."""
        # The age counts from before the question: an answer is never older than it seems.
        asked = self._clock()
        found = self._enrolments.find(name)
        with self._lock:
            self._known[name] = (asked, found)
            self._known.move_to_end(name)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return found

    def is_seen_stale(self, name: str) -> bool:
        """Return whether it is time for :meth:`mark_seen`."""
        return self._clock() - self._seen.get(name, -_SEEN_EVERY_S) >= _SEEN_EVERY_S

    def mark_seen(self, name: str) -> None:
        """Note that a principal proved itself."""
        self._seen[name] = self._clock()
        self._enrolments.mark_seen(name)
