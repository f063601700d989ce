"""Requests that wait for jobs: who is woken, and that no announcement is lost."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from airbridge.dispatch.waiting import WaitingRoom

SOON = 5.0


async def _at_rest() -> None:
    """Let everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_announcement_wakes_the_one_that_waited_longest_and_nobody_else() -> None:
    async def play() -> None:
        room = WaitingRoom()
        with room.enter("first", ["a"]) as first, room.enter("second", ["a"]) as second:
            room.announce(["a"])
            assert await first.wait(SOON)
            assert not second.is_woken

    asyncio.run(play())


def test_announcement_before_the_wait_is_not_lost() -> None:
    async def play() -> None:
        room = WaitingRoom()
        with room.enter("north", ["a"]) as ticket:
            room.announce(["a"])
            await _at_rest()
            assert await ticket.wait(SOON)

    asyncio.run(play())


def test_announcement_of_another_queue_wakes_nobody() -> None:
    async def play() -> None:
        room = WaitingRoom()
        with room.enter("north", ["a", "b"]) as ticket:
            room.announce(["c"])
            assert not await ticket.wait(0.01)

    asyncio.run(play())


def test_what_one_leaves_wakes_the_next_once_a_round() -> None:
    async def play() -> None:
        room = WaitingRoom()
        with room.enter("first", ["a"]) as first, room.enter("second", ["a"]) as second:
            room.announce(["a"])
            assert await first.wait(SOON)
            room.wake(["a"], first.round)
            assert await second.wait(SOON)
            # Both have looked in this round: the job waits for slots, nobody spins.
            room.wake(["a"], second.round)
            assert not first.is_woken
            assert not second.is_woken

    asyncio.run(play())


def test_one_that_leaves_without_looking_passes_the_announcement_on() -> None:
    async def play() -> None:
        room = WaitingRoom()
        with ExitStack() as first_is_there:
            first_is_there.enter_context(room.enter("first", ["a"]))
            with room.enter("second", ["a"]) as second:
                room.announce(["a"])
                assert not second.is_woken
                first_is_there.close()
                assert await second.wait(SOON)

    asyncio.run(play())


def test_second_request_of_a_worker_sends_the_first_away() -> None:
    async def play() -> None:
        room = WaitingRoom()
        with room.enter("north", ["a"]) as before:
            waiting = asyncio.create_task(before.wait(SOON))
            await _at_rest()
            with room.enter("north", ["a"]) as after:
                assert await waiting is False
                assert before.superseded
                assert len(room) == 1
                room.announce(["a"])
                assert await after.wait(SOON)
        assert len(room) == 0

    asyncio.run(play())


def test_jobs_are_shared_with_those_that_are_still_to_be_woken() -> None:
    room = WaitingRoom()
    with room.enter("one", ["a"]) as one, room.enter("two", ["a", "b"]) as two, room.enter("three", ["c"]):
        assert room.sharers(one) == 1  # nothing was announced: it has just come, and takes what it can
        room.announce(["a"])
        assert room.sharers(one) == 2
        room.wake(one.queues, one.round)
        assert room.sharers(two) == 1


def test_who_has_waited_longest_is_woken_whichever_of_its_queues_it_is() -> None:
    room = WaitingRoom()
    with (
        room.enter("other", ["c"]) as other,
        room.enter("first", ["b"]) as first,
        room.enter("second", ["a", "b"]) as second,
    ):
        room.wake(["a", "b"], 1)
        assert (first.is_woken, second.is_woken) == (True, False)
        room.wake(["a", "b"], 1)
        assert second.is_woken
        assert not other.is_woken


def test_request_that_was_sent_away_is_neither_woken_nor_counted() -> None:
    room = WaitingRoom()
    with (
        room.enter("north", ["a"]),
        room.enter("north", ["b"]) as north,
        room.enter("south", ["a", "b"]) as south,
    ):
        room.announce(["a"])
        assert south.is_woken, "north waits for b now"
        assert room.sharers(south) == 2
        room.announce(["b"])
        assert north.is_woken
    assert len(room) == 0
