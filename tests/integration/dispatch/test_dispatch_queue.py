"""Claims of jobs on a real Postgres: what a worker gets, and that no two get the same."""

from __future__ import annotations

import queue as thread_queue
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from airbridge.dispatch.listener import JobListener
from airbridge.dispatch.queue import Claim, Demand, install_notifications
from airbridge.identity.jobs import JobKey, Jobs, count_held

if TYPE_CHECKING:
    from conftest import Desk, Postgres

SOON_S = 20.0


def _demand(
    worker: str = "north", queues: tuple[str, ...] = ("a",), slots: int = 8, **more: object
) -> Demand:
    return Demand(worker, queues, slots, **{"concurrency": 100, **more})  # type: ignore[arg-type]


def _tasks(claim: Claim) -> list[str]:
    return sorted(job.key.task_id for job in claim.jobs)


def test_several_jobs_are_handed_out_at_once_up_to_the_free_slots(desk: Desk) -> None:
    desk.put("t1", "t2", "t3", "t4", "t5")
    claim = desk.queue.claim(_demand(slots=3))
    assert _tasks(claim) == ["t1", "t2", "t3"]
    assert claim.left == 2
    assert desk.states()["t1"] == ("restarting", "north")
    assert desk.states()["t4"] == ("queued", None)
    # It may send logs for these from now on.
    assert Jobs(desk.database).was_handed_out(JobKey("dag", "t1", "run", -1, 1), "north")


def test_jobs_of_other_queues_stay(desk: Desk) -> None:
    desk.put("mine")
    desk.put("theirs", queue="b")
    claim = desk.queue.claim(_demand())
    assert (_tasks(claim), claim.left) == (["mine"], 0)


def test_priority_goes_before_age(desk: Desk) -> None:
    desk.put("old", "older")
    desk.put("urgent", priority=5)
    assert _tasks(desk.queue.claim(_demand(slots=1))) == ["urgent"]


def test_job_that_needs_more_slots_than_are_free_stays(desk: Desk) -> None:
    desk.put("wide", slots=3)
    desk.put("narrow")
    claim = desk.queue.claim(_demand(slots=2))
    assert (_tasks(claim), claim.left) == (["narrow"], 1)
    assert _tasks(desk.queue.claim(_demand(slots=4, holding=frozenset({claim.jobs[0].key})))) == ["wide"]


def test_worker_gets_no_more_than_it_is_enrolled_for_whatever_it_says(desk: Desk) -> None:
    desk.put("t1", "t2", "t3", "t4")
    first = desk.queue.claim(_demand(slots=100, concurrency=2))
    held = frozenset(job.key for job in first.jobs)
    assert len(held) == 2
    assert desk.queue.claim(_demand(slots=100, concurrency=2, holding=held)).jobs == ()
    desk.set_state("t1", "success")
    assert len(desk.queue.claim(_demand(slots=100, concurrency=2, holding=held)).jobs) == 1


def test_enrolled_number_holds_with_many_demands_at_the_same_time(desk: Desk) -> None:
    desk.put(*(f"t{number}" for number in range(40)))
    everything = frozenset(JobKey("dag", f"t{number}", "run", -1, 1) for number in range(40))
    asked = [_demand(slots=5, concurrency=5, holding=everything)] * 12
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(desk.queue.claim, asked))
    assert Counter(state for state, _ in desk.states().values()) == {"restarting": 5, "queued": 35}


def test_answer_that_never_arrived_is_handed_out_again_to_the_same_worker_only(desk: Desk) -> None:
    desk.put("lost", "got")
    jobs = {job.key.task_id: job.key for job in desk.queue.claim(_demand()).jobs}
    again = desk.queue.claim(_demand(holding=frozenset({jobs["got"]})))
    assert _tasks(again) == ["lost"]
    assert desk.queue.claim(_demand("south")).jobs == ()
    # Once it has said that it runs, it has it.
    desk.set_state("lost", "running")
    assert desk.queue.claim(_demand(holding=frozenset({jobs["got"]}))).jobs == ()


def test_jobs_are_shared_among_those_that_wait(desk: Desk) -> None:
    desk.put(*(f"t{number}" for number in range(10)))
    assert len(desk.queue.claim(_demand("one"), sharers=4).jobs) == 3
    assert len(desk.queue.claim(_demand("two"), sharers=4).jobs) == 2
    assert len(desk.queue.claim(_demand("three"), sharers=1).jobs) == 5


def test_many_workers_at_once_get_every_job_once(desk: Desk) -> None:
    desk.put(*(f"t{number}" for number in range(200)))

    def work(name: str) -> list[str]:
        mine: list[JobKey] = []
        # Each time three more than it holds.
        while jobs := desk.queue.claim(
            _demand(name, slots=len(mine) + 3, concurrency=1000, holding=frozenset(mine))
        ).jobs:
            mine += [job.key for job in jobs]
        return [key.task_id for key in mine]

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, [f"w{number}" for number in range(8)]))
    handed = Counter(task for tasks in done for task in tasks)
    assert len(handed) == 200
    assert set(handed.values()) == {1}


def test_queued_jobs_are_announced_once_a_queue_and_commit(desk: Desk) -> None:
    heard: thread_queue.Queue[frozenset[str]] = thread_queue.Queue()
    listener = JobListener(desk.database, heard.put, poll_s=3600)
    desk.put("before")
    listener.start()
    try:
        assert heard.get(timeout=SOON_S) == {"a"}  # what was there when it began
        desk.put("t1", "t2", queue="b")
        assert heard.get(timeout=SOON_S) == {"b"}
        desk.set_state("t1", "running")
        desk.set_state("t1", "queued")  # such as the second part of a deferred task
        assert heard.get(timeout=SOON_S) == {"b"}
        assert heard.empty()
    finally:
        listener.stop()


def test_lost_announcements_are_made_good_by_looking(desk: Desk) -> None:
    with desk.database.cursor() as cursor:
        cursor.execute("DROP TRIGGER airbridge_job_queued ON edge_job")
    heard: thread_queue.Queue[frozenset[str]] = thread_queue.Queue()
    listener = JobListener(desk.database, heard.put, poll_s=0.05)
    listener.start()
    try:
        desk.put("silent", queue="c")
        assert heard.get(timeout=SOON_S) == {"c"}
    finally:
        listener.stop()


def test_listener_comes_back_after_its_connection_was_cut(desk: Desk, postgres: Postgres) -> None:
    heard: thread_queue.Queue[frozenset[str]] = thread_queue.Queue()
    listener = JobListener(desk.database, heard.put, poll_s=3600)
    listener.start()
    try:
        desk.put("one", queue="one")
        assert "one" in heard.get(timeout=SOON_S)
        connection = postgres.connect()
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'airbridge' AND query LIKE 'LISTEN%'"
            )
            assert cursor.rowcount == 1
        connection.close()
        desk.put("two", queue="two")
        while "two" not in heard.get(timeout=SOON_S):
            pass
    finally:
        listener.stop()


@pytest.mark.parametrize("times", [1, 3])
def test_installing_the_announcements_again_changes_nothing(desk: Desk, times: int) -> None:
    for _ in range(times):
        connection = desk.database.connection()
        install_notifications(connection)
        connection.close()
    with desk.database.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_trigger WHERE tgname = 'airbridge_job_queued'")
        assert cursor.fetchone() == (1,)


def test_look_before_a_claim_sees_what_a_claim_would_find(desk: Desk) -> None:
    demand = _demand()
    assert not desk.queue.may_have(demand)
    desk.put("t1", queue="b")
    assert not desk.queue.may_have(demand), "for others"
    desk.put("t2")
    assert desk.queue.may_have(demand)
    assert _tasks(desk.queue.claim(demand)) == ["t2"]
    assert desk.queue.may_have(demand), "it may never have got what it was handed"
    assert not desk.queue.may_have(_demand("south"))
    desk.set_state("t2", "running")
    assert not desk.queue.may_have(demand)


def test_look_while_somebody_claims_for_the_same_worker_does_not_say_nothing(
    desk: Desk,
) -> None:
    with desk.database.cursor() as cursor:
        count_held(cursor, "north")
        assert desk.queue.may_have(_demand())
        assert not desk.queue.may_have(_demand("south"))
    assert not desk.queue.may_have(_demand())
