"""Who is enrolled, remembered for as long as nothing has changed, which is asked twice a second.

Every request of an edge host or a publisher asks. A query each time would be the better part of the cost;
remembering longer would let who was revoked go on. So there is one question for everybody, in half a second:
whether any enrolment has changed (``airbridge.revision``, which triggers move on in the transaction of each
change).
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Enrolled", "Enrolments", "Roster"]

# A revocation is in force within a second: this, and the time that a request takes.
_REMEMBERED_S: Final = 0.5
# Names come from strangers too: the memory of them is bounded, at a few MiB.
_MOST: Final = 8192
# How stale "last seen" may be; a write for each request would cost more than it tells.
_SEEN_EVERY_S: Final = 10.0
# The same for who was not seen before: an operator waits for it.
_NEW_SEEN_EVERY_S: Final = 1.0


class Enrolled(Protocol):
    """What the roster looks at."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that are good now."""


_Found = TypeVar("_Found", bound=Enrolled)
_Found_co = TypeVar("_Found_co", covariant=True)


class Enrolments(Protocol[_Found_co]):
    """Where the roster looks."""

    def find(self, name: str) -> _Found_co | None:
        """Return the principal of this name."""

    def revision(self) -> int:
        """Return a number that differs from an earlier one when an enrolment has changed since."""

    def mark_seen(self, seen: Mapping[str, float]) -> None:
        """Note how many seconds ago each of these proved itself."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_Found]):
    asked: float
    revision: int
    """As it was before the question, so that an answer is never older than it seems."""
    found: _Found | None

    @property
    def lasts(self) -> bool:
        """Whether it stays true until somebody changes it: the older of two secrets ends by itself."""
        return self.found is None or len(self.found.secrets) < 2


class Roster(Generic[_Found]):
    """The enrolled principals, asked by many threads."""

    def __init__(self, enrolments: Enrolments[_Found], clock: Callable[[], float] = time.monotonic) -> None:
        self._enrolments = enrolments
        self._clock = clock
        self._lock = threading.Lock()
        self._revising = threading.Lock()
        self._known: OrderedDict[str, _Entry[_Found]] = OrderedDict()
        self._revision = 0
        self._revised_at = -math.inf
        self._seen: dict[str, float] = {}
        self._unwritten: dict[str, float] = {}
        self._written_at = -math.inf

    # --- who is enrolled --------------------------------------------------------------------------

    @property
    def is_revised(self) -> bool:
        """Whether it was asked a moment ago if anything has changed."""
        return self._clock() - self._revised_at < _REMEMBERED_S

    def revise(self) -> int:
        """Ask whether anything has changed, unless that was done a moment ago; returns the revision."""
        with self._revising:
            if not self.is_revised:
                # The age counts from before the question.
                asked = self._clock()
                self._revision = self._enrolments.revision()
                self._revised_at = asked
            return self._revision

    def remembered(self, name: str) -> tuple[bool, _Found | None]:
        """Return whether an answer is fresh enough, and which; never waits for the database."""
        entry = self._known.get(name)
        if entry is None:
            return False, None
        if self._clock() - entry.asked < _REMEMBERED_S or (self.is_revised and self._holds(entry)):
            return True, entry.found
        return False, None

    def find(self, name: str) -> _Found | None:
        """Return the principal as the database had it half a second ago at most."""
        revision = self.revise()
        entry = self._known.get(name)
        if entry is not None and self._holds(entry):
            return entry.found
        asked = self._clock()
        found = self._enrolments.find(name)
        with self._lock:
            self._known[name] = _Entry(asked, revision, found)
            self._known.move_to_end(name)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return found

    def find_anew(self, name: str) -> _Found | None:
        """Return the principal as the database has it now, for who knows that something has changed."""
        with self._revising:
            self._revised_at = -math.inf
        return self.find(name)

    def _holds(self, entry: _Entry[_Found]) -> bool:
        return entry.lasts and entry.revision == self._revision

    # --- who was seen -----------------------------------------------------------------------------

    def saw(self, name: str) -> bool:
        """Note that a principal proved itself; returns whether it is time for :meth:`write_seen`."""
        now = self._clock()
        before = self._seen.get(name)
        if before is not None and now - before < _SEEN_EVERY_S:
            return False
        self._seen[name] = now
        with self._lock:
            self._unwritten[name] = now
        return now - self._written_at >= (_SEEN_EVERY_S if before is not None else _NEW_SEEN_EVERY_S)

    def write_seen(self) -> None:
        """Write down who was seen since the last time."""
        now = self._written_at = self._clock()
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
        if unwritten:
            self._enrolments.mark_seen({name: now - at for name, at in sorted(unwritten.items())})
