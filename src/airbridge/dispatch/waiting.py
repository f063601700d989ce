"""Where requests for jobs wait: on the event loop, without a thread or a database connection.

One request a worker. A queue that was announced wakes the request that has waited longest for it; what that
one leaves wakes the next one (:meth:`WaitingRoom.wake` with the same round), so that a single job does not
wake a whole fleet.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Ticket", "WaitingRoom"]


class Ticket:
    """A request that waits."""

    def __init__(self, worker: str, queues: Iterable[str], number: int = 0) -> None:
        self.worker = worker
        self.number = number
        """Its place among those that wait: the lowest has waited longest."""
        self.queues = frozenset(queues)
        self.round = 0
        """The last round of announcements that it was woken in."""
        self.superseded = False
        """Whether the same worker has sent another request since."""
        self.looks_for_lost = True
        """Whether its next look is also for what an answer before it did not bring: one that got lost."""
        self.changed = False
        """Whether the worker's enrolment has changed since this was last set to False."""
        self._woken = asyncio.Event()

    async def wait(self, timeout: float) -> bool:
        """Return True when there may be a job, or the enrolment has changed; False after ``timeout`` seconds
        or when superseded.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        if self.superseded or not self._woken.is_set():
            return False
        self._woken.clear()
        return True

    @property
    def is_woken(self) -> bool:
        """Whether it was woken and has not looked yet."""
        return self._woken.is_set()

    def wake(self, number: int) -> None:
        """Make :meth:`wait` return True, in the round of this number."""
        self.round = number
        self._woken.set()

    def look_again(self) -> None:
        """Make :meth:`wait` return True, in the round that it was woken in last."""
        self.wake(self.round)

    def supersede(self) -> None:
        """Make :meth:`wait` return False."""
        self.superseded = True
        self._woken.set()


class WaitingRoom:
    """The requests that wait in this process. Not safe in threads: all calls come from one event loop."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}  # by worker
        # For each queue its tickets, in the order of their arrival: those for other queues are not looked at.
        self._by_queue: defaultdict[str, dict[int, Ticket]] = defaultdict(dict)
        self._rounds = itertools.count(1)
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def enter(self, worker: str, queues: Iterable[str]) -> Iterator[Ticket]:
        """Let a request wait; one of the same worker that waits already is sent away."""
        before = self._tickets.pop(worker, None)
        if before is not None:
            before.supersede()
            self._forget(before)
        ticket = Ticket(worker, queues, next(self._numbers))
        self._tickets[worker] = ticket
        for queue in ticket.queues:
            self._by_queue[queue][ticket.number] = ticket
        try:
            yield ticket
        finally:
            self._forget(ticket)
            if self._tickets.get(worker) is ticket:
                del self._tickets[worker]
            if ticket.is_woken and not ticket.superseded:
                # It leaves without having looked: somebody else has to.
                self.wake(ticket.queues, ticket.round)

    def sharers(self, ticket: Ticket) -> int:
        """Return how many share jobs with ``ticket``: itself, and those that are still to be woken."""
        return 1 + len(
            {
                other.number
                for queue in ticket.queues
                for other in self._waiting(queue)
                if other.round < ticket.round and other is not ticket
            }
        )

    def announce(self, queues: Iterable[str]) -> None:
        """Wake one request for each queue that got a job."""
        number = next(self._rounds)
        for queue in queues:
            self.wake((queue,), number)

    def nudge(self, workers: Iterable[str]) -> None:
        """Wake the requests of workers of which a slot has become free."""
        for ticket in self._of(workers):
            ticket.look_again()

    def lost(self, worker: str) -> None:
        """Wake the request of a worker that an answer before it did not reach."""
        for ticket in self._of((worker,)):
            ticket.looks_for_lost = True
            ticket.look_again()

    def change(self, workers: Iterable[str]) -> None:
        """Wake the requests of workers whose enrolment has changed."""
        for ticket in self._of(workers):
            ticket.changed = True
            ticket.look_again()

    def wake(self, queues: Iterable[str], number: int) -> None:
        """Wake the request that has waited longest for any of ``queues`` and was not woken in this round."""
        firsts = [
            ticket
            for queue in queues
            for ticket in itertools.islice((one for one in self._waiting(queue) if one.round < number), 1)
        ]
        if firsts:
            min(firsts, key=lambda ticket: ticket.number).wake(number)

    def _of(self, workers: Iterable[str]) -> list[Ticket]:
        return [self._tickets[worker] for worker in workers if worker in self._tickets]

    def _waiting(self, queue: str) -> Iterable[Ticket]:
        # Not by [], which would remember each name that was ever announced.
        return self._by_queue.get(queue, {}).values()

    def _forget(self, ticket: Ticket) -> None:
        for queue in ticket.queues:
            self._by_queue[queue].pop(ticket.number, None)  # one that was sent away is not there any more
            if not self._by_queue[queue]:
                del self._by_queue[queue]

    def __len__(self) -> int:
        return len(self._tickets)
