"""Where requests for jobs wait: on the event loop, without a thread or a database connection.

One request a worker. A queue that was announced wakes the request that has waited longest for it; what that
one leaves wakes the next one (:meth:`WaitingRoom.wake` with the same round), so that a single job does not
wake a whole fleet.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Ticket", "WaitingRoom"]


class Ticket:
    """A request that waits."""

    def __init__(self, worker: str, queues: Iterable[str]) -> None:
        self.worker = worker
        self.queues = frozenset(queues)
        self.round = 0
        """The last round of announcements that it was woken in."""
        self.superseded = False
        """Whether the same worker has sent another request since."""
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

    def supersede(self) -> None:
        """Make :meth:`wait` return False."""
        self.superseded = True
        self._woken.set()


class WaitingRoom:
    """The requests that wait in this process. Not safe in threads: all calls come from one event loop."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}  # in the order of their arrival
        self._rounds = itertools.count(1)

    @contextlib.contextmanager
    def enter(self, worker: str, queues: Iterable[str]) -> Iterator[Ticket]:
        """Let a request wait; one of the same worker that waits already is sent away."""
        before = self._tickets.pop(worker, None)
        if before is not None:
            before.supersede()
        ticket = Ticket(worker, queues)
        self._tickets[worker] = ticket
        try:
            yield ticket
        finally:
            if self._tickets.get(worker) is ticket:
                del self._tickets[worker]
            if ticket.is_woken and not ticket.superseded:
                # It leaves without having looked: somebody else has to.
                self.wake(ticket.queues, ticket.round)

    def sharers(self, ticket: Ticket) -> int:
        """Return how many share jobs with ``ticket``: itself, and those that are still to be woken."""
        return 1 + sum(
            1
            for other in self._tickets.values()
            if other is not ticket and other.round < ticket.round and other.queues & ticket.queues
        )

    def announce(self, queues: Iterable[str]) -> None:
        """Wake one request for each queue that got a job."""
        number = next(self._rounds)
        for queue in queues:
            self.wake((queue,), number)

    def nudge(self, worker: str) -> None:
        """Wake the request of one worker, of which a slot has become free."""
        if ticket := self._tickets.get(worker):
            ticket.wake(ticket.round)

    def change(self, workers: Iterable[str]) -> None:
        """Wake the requests of workers whose enrolment has changed."""
        for worker in workers:
            if ticket := self._tickets.get(worker):
                ticket.changed = True
                ticket.wake(ticket.round)

    def wake(self, queues: Iterable[str], number: int) -> None:
        """Wake the request that has waited longest for any of ``queues`` and was not woken in this round."""
        wanted = frozenset(queues)
        for ticket in self._tickets.values():
            if ticket.round < number and ticket.queues & wanted:
                ticket.wake(number)
                return

    def __len__(self) -> int:
        return len(self._tickets)
