"""What the tasks of ``e2e_kills`` have marked on their host: when each attempt began and ended."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _stack import EdgeHost

__all__ = ["Attempt", "Marks", "now"]


def now() -> float:
    """The clock of the marks: that of this machine, in its containers as well."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a task ran."""

    number: int
    """Which task."""
    attempt: int
    began: float
    ended: float | None
    """``None``: it never came to its end."""


@dataclass(frozen=True, slots=True)
class Marks:
    """All attempts, the earliest first."""

    attempts: tuple[Attempt, ...]

    @classmethod
    def of(cls, *hosts: EdgeHost) -> Marks:
        """Read them; empty while a host's worker is not there to be asked."""
        began: dict[str, tuple[int, int, float]] = {}
        ended: dict[str, float] = {}
        for host in hosts:
            read = host.exec("edge-worker", "sh", "-c", "cat $AIRBRIDGE_CACHE_DIR/marks", check=False)
            for line in read.stdout.splitlines() if read.code == 0 else ():
                what, number, attempt, name, at = line.split()
                if what == "start":
                    began[name] = (int(number), int(attempt), float(at))
                else:
                    ended[name] = float(at)
        found = (Attempt(*about, ended.get(name)) for name, about in began.items())
        return cls(tuple(sorted(found, key=lambda one: one.began)))

    @property
    def ended(self) -> int:
        """How many tasks have come to their end."""
        return len({one.number for one in self.attempts if one.ended is not None})

    def of_each(self) -> dict[int, list[Attempt]]:
        """The attempts of each task."""
        found: defaultdict[int, list[Attempt]] = defaultdict(list)
        for one in self.attempts:
            found[one.number].append(one)
        return dict(found)

    def overlaps(self, killed_at: float) -> list[tuple[Attempt, Attempt]]:
        """Attempts at the same task that ran at the same time.

        :param killed_at: when the worker was killed, which ended what has no end
        """
        return [
            (first, second)
            for attempts in self.of_each().values()
            for first, second in pairwise(attempts)
            if (killed_at if first.ended is None else first.ended) > second.began
        ]

    def first_end_after(self, moment: float, *, begun_after: bool = False) -> float | None:
        """Seconds from a moment to the first end after it.

        :param begun_after: of an attempt that has begun after it as well
        """
        ends = [
            one.ended - moment
            for one in self.attempts
            if one.ended is not None and one.ended > moment and (not begun_after or one.began > moment)
        ]
        return min(ends, default=None)
