"""Held calls on a real Postgres: who is answered, when, and what a held call costs."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.dispatch.conftest import workload_of

from airbridge.controlplane._dispatch import Dispatch, Renew
from airbridge.controlplane._refusal import Refusal
from airbridge.dispatch.queue import ClaimedJob, Demand, JobQueue
from airbridge.identity.jobs import JobKey
from airbridge.identity.store import CHANGES_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from conftest import Desk

_POLL_S = 0.01
_QUIET_LOOKS = 20
LONG_S = 60.0  # a held call that nothing ends; a test that waits for it has failed


class Office:
    """Runs held calls on an event loop, as the api-server does."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.counted: list[ClaimedJob] = []

    def run(self, play: Callable[[Dispatch], Awaitable[None]]) -> None:
        """Run a scene to its end, and stop to listen."""

        async def scene() -> None:
            dispatch = Dispatch(self.desk.database, self.counted.append)
            try:
                async with asyncio.timeout(LONG_S / 2):
                    await play(dispatch)
            finally:
                await asyncio.to_thread(dispatch.close)

        asyncio.run(scene())

    def enrolment_changed(self, worker: str) -> None:
        """Announce it, as the tables of the enrolments do."""
        with self.desk.database.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", (CHANGES_CHANNEL, worker))

    async def put(self, *tasks: str, **more: Any) -> None:
        """Queue jobs, off the loop."""
        await asyncio.to_thread(lambda: self.desk.put(*tasks, **more))


@pytest.fixture
def office(desk: Desk) -> Office:
    return Office(desk)


def _call(
    dispatch: Dispatch, worker: str = "north", queue: str = "a", wait: float = LONG_S, **more: Any
) -> asyncio.Task[list[dict[str, Any]]]:
    demand = Demand(worker, (queue,), **{"slots": 4, "concurrency": 4, **more})
    return asyncio.create_task(dispatch.serve(demand, wait, asyncio.Event().wait(), _same(demand)))


def _same(demand: Demand) -> Renew:
    """The enrolment does not change."""

    async def renew(_: bool) -> Demand:
        return demand

    return renew


def _tasks(jobs: list[dict[str, Any]]) -> list[str]:
    return sorted(job["task_id"] for job in jobs)


async def _until_held(dispatch: Dispatch, number: int = 1) -> None:
    while dispatch.held < number:
        await asyncio.sleep(_POLL_S)
    # Who looks for the first time while jobs are announced takes some, and counts as one still to come.
    quiet = 0
    while quiet < _QUIET_LOOKS:
        await asyncio.sleep(_POLL_S)
        looking = dispatch._limiter.statistics() if dispatch._limiter else None
        is_over = looking is not None and not looking.borrowed_tokens and not looking.tasks_waiting
        quiet = quiet + 1 if is_over else 0


def test_call_is_answered_when_a_job_is_queued(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        call = _call(dispatch)
        await _until_held(dispatch)
        await office.put("t1", "t2")
        (first, second) = await call
        assert _tasks([first, second]) == ["t1", "t2"]
        assert first["command"] == workload_of("t1")
        assert (first["dag_id"], first["run_id"], first["map_index"], first["try_number"]) == (
            "dag",
            "run",
            -1,
            1,
        )

    office.run(play)
    assert sorted(job.key.task_id for job in office.counted) == ["t1", "t2"]


def test_call_is_answered_with_nothing_when_its_time_is_over(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        assert await _call(dispatch, wait=0.05) == []
        assert dispatch.held == 0

    office.run(play)


def test_one_job_answers_one_of_many_calls(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        calls = [_call(dispatch, f"w{number}") for number in range(30)]
        await _until_held(dispatch, 30)
        await office.put("only")
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [_tasks(call.result()) for call in done] == [["only"]]
        await asyncio.sleep(0.2)
        assert all(not call.done() for call in waiting)
        for call in waiting:
            call.cancel()

    office.run(play)


def test_jobs_that_are_too_many_for_one_answer_the_others_as_well(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        calls = [_call(dispatch, f"w{number}") for number in range(5)]
        await _until_held(dispatch, 5)
        await office.put(*(f"t{number:02}" for number in range(20)))
        answers = await asyncio.gather(*calls)
        assert sorted(task for jobs in answers for task in _tasks(jobs)) == [f"t{n:02}" for n in range(20)]

    office.run(play)


def test_second_call_of_a_worker_ends_the_first(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        first = _call(dispatch)
        await _until_held(dispatch)
        second = _call(dispatch)
        assert await first == []
        await office.put("t1")
        assert _tasks(await second) == ["t1"]

    office.run(play)


def test_call_of_a_worker_that_is_gone_takes_no_job(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        left = asyncio.Event()
        demand = Demand("north", ("a",), slots=4, concurrency=4)
        call = asyncio.create_task(dispatch.serve(demand, LONG_S, left.wait(), _same(demand)))
        await _until_held(dispatch)
        left.set()
        assert await call == []
        await office.put("t1")
        await asyncio.sleep(0.2)

    office.run(play)
    assert office.desk.states() == {"t1": ("queued", None)}


def test_slot_that_becomes_free_is_used_at_once(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        await office.put("t1", "t2")
        one = _call(dispatch, slots=4, concurrency=1)
        (job,) = await one
        key = (job["dag_id"], job["task_id"], job["run_id"], job["map_index"], job["try_number"])
        waiting = _call(dispatch, slots=1, concurrency=1, holding=frozenset({JobKey(*key)}))
        await _until_held(dispatch)
        assert not waiting.done()
        await asyncio.to_thread(office.desk.set_state, job["task_id"], "success")
        assert len(await waiting) == 1

    office.run(play)


def test_two_api_servers_hand_out_each_job_once_and_both_are_woken(office: Office) -> None:
    async def play(first: Dispatch) -> None:
        second = Dispatch(office.desk.database, office.counted.append)
        try:
            here, there = _call(first, "north", concurrency=1), _call(second, "south", concurrency=1)
            await _until_held(first)
            await _until_held(second)
            await office.put("t1", "t2")
            jobs = [*await here, *await there]
            assert _tasks(jobs) == ["t1", "t2"]
            # Its end is reported to whichever of them, and the next question may wait at the other.
            (mine,) = await here
            held = frozenset({JobKey("dag", mine["task_id"], "run", -1, 1)})
            waiting = _call(second, "north", concurrency=1, holding=held)
            await _until_held(second)
            await office.put("t3")
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await asyncio.to_thread(office.desk.set_state, mine["task_id"], "success")
            assert _tasks(await waiting) == ["t3"]
        finally:
            await asyncio.to_thread(second.close)

    office.run(play)


def test_worker_that_waits_at_two_api_servers_gets_a_job_once(office: Office) -> None:
    """Its first call was cut, and the one where it was held has not noticed yet."""

    async def play(first: Dispatch) -> None:
        second = Dispatch(office.desk.database, office.counted.append)
        try:
            calls = [_call(first), _call(second)]
            await _until_held(first)
            await _until_held(second)
            await office.put("t1")
            done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert [_tasks(call.result()) for call in done] == [["t1"]]
            await asyncio.sleep(0.3)
            assert not any(call.done() for call in waiting)
            # Nobody read that answer: who asks next, and does not list it, has it at once.
            assert _tasks(await _call(second)) == ["t1"]
            for call in waiting:
                call.cancel()
        finally:
            await asyncio.to_thread(second.close)

    office.run(play)


def test_enrolment_that_changes_is_looked_at_at_once(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        asked: list[bool] = []
        small = Demand("north", ("a",), slots=4, concurrency=1)

        async def renew(changed: bool) -> Demand:
            asked.append(changed)
            return small

        call = asyncio.create_task(dispatch.serve(small, LONG_S, asyncio.Event().wait(), renew))
        await _until_held(dispatch)
        small = Demand("north", ("a",), slots=4, concurrency=2)
        await asyncio.to_thread(office.enrolment_changed, "north")
        while not asked:
            await asyncio.sleep(0.01)
        await office.put("t1", "t2", "t3")
        assert _tasks(await call) == ["t1", "t2"]
        # Once, as changed. Once more when the jobs came after the look that the change was followed by.
        assert asked in ([True], [True, False])

    office.run(play)


def test_job_that_woke_a_worker_without_enrolment_goes_to_the_next(office: Office) -> None:
    async def play(dispatch: Dispatch) -> None:
        async def refuse(_: bool) -> Demand:
            raise Refusal(403, "worker_revoked", "no")

        ended = Demand("north", ("a",), slots=4, concurrency=4)
        first = asyncio.create_task(dispatch.serve(ended, LONG_S, asyncio.Event().wait(), refuse))
        await _until_held(dispatch)
        second = _call(dispatch, "south")
        await _until_held(dispatch, 2)
        await office.put("t1")
        assert _tasks(await second) == ["t1"]
        with pytest.raises(Refusal, match="no"):
            await first

    office.run(play)


def test_job_that_woke_a_call_as_its_client_hung_up_goes_to_the_next(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the listener finds by itself, seconds later, does not help.
    monkeypatch.setattr(JobQueue, "queued", lambda _: frozenset())

    async def play(dispatch: Dispatch) -> None:
        hung_up = asyncio.Event()
        announce = dispatch._room.announce

        def announced(queues: Iterable[str]) -> None:
            announce(queues)
            hung_up.set()

        monkeypatch.setattr(dispatch._room, "announce", announced)
        demand = Demand("north", ("a",), slots=4, concurrency=4)
        first = asyncio.create_task(dispatch.serve(demand, LONG_S, hung_up.wait(), _same(demand)))
        await _until_held(dispatch)
        second = _call(dispatch, "south")
        await _until_held(dispatch, 2)
        await office.put("t1")
        assert _tasks(await second) == ["t1"]
        assert await first == []

    office.run(play)


def test_held_calls_cost_no_thread_and_no_connection(office: Office) -> None:
    connections: list[int] = []
    threads: list[int] = []

    def look() -> None:
        with office.desk.database.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'airbridge'")
            connections.append(cursor.fetchone()[0])
        threads.append(threading.active_count())

    async def play(dispatch: Dispatch) -> None:
        few = [_call(dispatch, f"w{number}") for number in range(10)]
        await _until_held(dispatch, 10)
        await asyncio.to_thread(look)
        more = [_call(dispatch, f"x{number}") for number in range(300)]
        await _until_held(dispatch, 310)
        await asyncio.to_thread(look)
        for call in (*few, *more):
            call.cancel()

    office.run(play)
    assert connections[1] <= connections[0] + 1, connections
    assert threads[1] <= threads[0] + 4, threads  # claims have four threads at most
