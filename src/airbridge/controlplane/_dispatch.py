"""The call by which an edge host waits for jobs: ``POST /airbridge/v1/jobs/<worker>``.

It is held until there is a job for one of the worker's queues, or its time is over. A held call is a ticket
on the event loop (:mod:`airbridge.dispatch.waiting`); a claim alone takes a thread and a connection.

Request, JSON: ``queues``, ``slots`` (tasks at once), ``wait`` (seconds, 0 to 60) and ``holding``: attempts
that the worker has, each ``[dag_id, task_id, run_id, map_index, try_number]``. Answer: ``{"jobs": [...]}``,
each as the edge provider's fetch hands it out (``EdgeJobFetched``). What the worker was given before and does
not list, it never got: it is handed out again.

With ``restarted`` true, a worker that took the place of one that was killed asks first what that one ran. It
is answered at once: ``{"jobs": [], "lost": [...]}``, attempts as in ``holding``.

A worker may be revoked, or enrolled for something else, while its call is held: Postgres announces it, and
before each claim but the first the enrolment is looked at again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airbridge.controlplane._refusal import Refusal
from airbridge.dispatch.listener import JobListener
from airbridge.dispatch.queue import Claim, ClaimedJob, Demand, JobQueue
from airbridge.dispatch.waiting import WaitingRoom
from airbridge.identity.jobs import JobKey

if TYPE_CHECKING:
    from airbridge.dispatch.waiting import Ticket
    from airbridge.identity.database import Database
    from airbridge.identity.model import Worker

__all__ = ["LONGEST_WAIT_S", "Dispatch", "JobRequest", "Renew"]

Renew = Callable[[bool], Awaitable[Demand]]
"""Returns a worker's demand anew; True: its enrolment has just changed, what is remembered of it is over."""

LONGEST_WAIT_S: Final = 60.0
"""Of a held call; proxies on the way give a call two minutes."""

# Claims at the same time. Their own threads: checks of other calls do not wait behind a burst of claims.
_THREADS: Final = 4
# Calls that one wakes when it leaves jobs: with two, as many as have threads to claim in are soon awake.
_WOKEN_BY_EACH: Final = 2
_MOST_SLOTS: Final = 10_000  # no host has more; a bound keeps numbers sane
_Result = TypeVar("_Result")
_Short = Annotated[str, Field(max_length=256)]


class JobRequest(BaseModel):
    """What a worker asks for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    queues: Annotated[list[_Short], Field(min_length=1, max_length=256)]
    slots: Annotated[int, Field(ge=0, le=_MOST_SLOTS)]
    wait: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S)] = 0.0
    holding: Annotated[list[tuple[_Short, _Short, _Short, int, int]], Field(max_length=_MOST_SLOTS)] = []
    restarted: bool = False

    @classmethod
    def parse(cls, body: bytes) -> JobRequest:
        """Read a request.

        :raises Refusal: it is none
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Refusal(400, "body_invalid", f"not a request for jobs: {where}: {first['msg']}") from None

    def demand(self, worker: Worker) -> Demand:
        """Return what the worker can take, within its enrolment.

        :raises Refusal: a queue is not the worker's
        """
        if not set(self.queues) <= set(worker.allowance.queues):
            allowed = ",".join(worker.allowance.queues)
            reason = f"worker '{worker.name}' is enrolled for the queues {allowed}, no other"
            raise Refusal(403, "queue_not_allowed", reason)
        return Demand(
            worker.name,
            tuple(self.queues),
            self.slots,
            worker.allowance.concurrency,
            frozenset(JobKey(*key) for key in self.holding),
        )


class Dispatch:
    """Hands out jobs to the workers that wait in this process.

    Args:
        database: where jobs are queued.
        count: told of each job that is handed out.
    """

    def __init__(self, database: Database, count: Callable[[ClaimedJob], None]) -> None:
        self._database = database
        self._count = count
        self._queue = JobQueue(database)
        self._limiter: anyio.CapacityLimiter | None = None
        self._room = WaitingRoom()
        self._listener: JobListener | None = None

    async def serve(
        self, demand: Demand, wait: float, gone: Awaitable[Any], renew: Renew
    ) -> list[dict[str, Any]]:
        """Return jobs for the worker, as soon as there are any; none after ``wait`` seconds.

        :param gone: ends when nobody waits for the answer any more
        :param renew: returns the demand by the enrolment as it is by then; asked after each wait
        :raises Refusal: the enrolment has ended meanwhile, or is for other queues
        """
        self._listen()
        deadline = time.monotonic() + wait
        with self._room.enter(demand.worker, demand.queues) as ticket:
            watch = asyncio.ensure_future(gone)
            try:
                return await self._claim(demand, ticket, deadline, watch, renew)
            finally:
                watch.cancel()

    async def lost(self, demand: Demand) -> list[tuple[str, str, str, int, int]]:
        """Return the attempts that run on the worker by what it has reported, and that it does not hold."""
        running = await self._in_thread(lambda: self._queue.running(demand.worker))
        return [
            (key.dag_id, key.task_id, key.run_id, key.map_index, key.try_number)
            for key in sorted(running - demand.holding, key=astuple)
        ]

    @property
    def held(self) -> int:
        """Calls that are held now."""
        return len(self._room)

    def close(self) -> None:
        """Stop to listen; blocks until that is over."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None

    async def _claim(
        self, demand: Demand, ticket: Ticket, deadline: float, gone: asyncio.Future[Any], renew: Renew
    ) -> list[dict[str, Any]]:
        def is_wanted() -> bool:
            return not ticket.superseded and not gone.done()

        looked_in = -1
        while is_wanted():
            # Who was announced a job claims. A call that begins, or of whose worker a slot has become free,
            # looks first: mostly there is nothing, and that costs one SELECT.
            announced, looked_in = ticket.round > looked_in >= 0, ticket.round
            is_first, ticket.looks_for_lost = ticket.looks_for_lost, False
            if announced or await self._in_thread(partial(self._queue.may_have, demand)):
                sharers = self._room.sharers(ticket)
                look = partial(self._queue.claim, demand, sharers, is_wanted, is_first=is_first)
                claim = await self._in_thread(look)
            else:
                claim = Claim((), 0)
            for job in claim.jobs:
                self._count(job)
            for _ in range(min(claim.left, _WOKEN_BY_EACH)):
                self._room.wake(demand.queues, ticket.round)
            if claim.jobs:
                if not is_wanted():
                    # The answer reaches nobody: the call that came after it may have looked before the claim.
                    self._room.lost(demand.worker)
                return [_described(job) for job in claim.jobs]
            waiting = asyncio.ensure_future(ticket.wait(deadline - time.monotonic()))
            await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
            elif not waiting.result():
                break
            else:
                demand = await self._renewed(ticket, renew)
        if gone.done() and not ticket.superseded:
            # It may have been woken just as its client hung up, and not have looked: somebody else has to.
            self._room.wake(ticket.queues, ticket.round)
        return []

    async def _renewed(self, ticket: Ticket, renew: Renew) -> Demand:
        changed, ticket.changed = ticket.changed, False
        try:
            return await renew(changed)
        except Refusal:
            # The job that it was woken for is somebody else's.
            self._room.wake(ticket.queues, ticket.round)
            raise

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_THREADS)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    def _listen(self) -> None:
        """Start to listen with the first call: only then is it known which loop serves."""
        if self._listener is None:
            loop = asyncio.get_running_loop()

            def on_loop(tell: Callable[[frozenset[str]], None]) -> Callable[[frozenset[str]], None]:
                def call(names: frozenset[str]) -> None:
                    loop.call_soon_threadsafe(tell, names)

                return call

            room = self._room
            self._listener = JobListener(
                self._database, on_loop(room.announce), on_loop(room.nudge), on_loop(room.change)
            )
            self._listener.start()


def _described(job: ClaimedJob) -> dict[str, Any]:
    """As ``EdgeJobFetched`` of the edge provider."""
    return {
        "dag_id": job.key.dag_id,
        "task_id": job.key.task_id,
        "run_id": job.key.run_id,
        "map_index": job.key.map_index,
        "try_number": job.key.try_number,
        "command": json.loads(job.command),
        "concurrency_slots": job.slots,
        "task_instance_id": job.task_instance_id or None,
    }
