"""Held calls through the edge door, on a real Postgres: an enrolment that ends or changes while they wait."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from prometheus_client import CollectorRegistry

from airbridge.audit import Audit
from airbridge.controlplane._dispatch import Dispatch
from airbridge.controlplane._edge_middleware import EdgeGuard, EdgeMiddleware
from airbridge.credential import Credential
from airbridge.edge.token import request_token
from airbridge.identity.jobs import Jobs
from airbridge.identity.model import Allowance
from airbridge.identity.store import Cipher, WorkerStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from conftest import Desk

WORKER = "north-1"
HELD_S = 50.0
# A revocation is in force within a second; the machine of the test may be busy.
SOON_S = 1.0
PATIENCE_S = 40.0
ALLOWED = Allowance.checked(("a", "b"), 4)


class Door:
    """The middleware with all that is real behind it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.store = WorkerStore(desk.database, Cipher(Fernet.generate_key().decode()))
        self.credential = Credential.new(WORKER)
        self.store.enroll(WORKER, ALLOWED, credential=self.credential)
        self._dispatch: Dispatch
        self._middleware: EdgeMiddleware

    def run(self, play: Callable[[], Awaitable[None]]) -> None:
        """Run a scene to its end."""

        async def scene() -> None:
            async def nobody(*_: object) -> None:
                raise AssertionError("nothing of this reaches Airflow")

            self._dispatch = Dispatch(self.desk.database, lambda job: None)
            guard = EdgeGuard(self.store, Jobs(self.desk.database), "i" * 64, self._dispatch)
            self._middleware = EdgeMiddleware(nobody, guard, Audit(CollectorRegistry()))
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await play()
            finally:
                await asyncio.to_thread(self._dispatch.close)

        asyncio.run(scene())

    async def hold(self, slots: int = 4, **more: Any) -> asyncio.Task[tuple[int, Any]]:
        """Ask for jobs of queue a, and return once the call is held."""
        call = asyncio.create_task(self.ask(slots=slots, **more))
        while self._dispatch.held < 1:
            assert not call.done(), call.result()
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # its first look is over
        return call

    async def ask(self, **body: Any) -> tuple[int, Any]:
        """Ask for jobs; status and body of the answer."""
        path = f"jobs/{WORKER}"
        asked = {"queues": ["a"], "slots": 4, "wait": HELD_S, "holding": [], **body}
        token = request_token(self.credential.secret, WORKER, path)
        messages: list[MutableMapping[str, Any]] = []
        pieces = [{"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}]

        async def receive() -> MutableMapping[str, Any]:
            return pieces.pop() if pieces else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: MutableMapping[str, Any]) -> None:
            messages.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/airbridge/v1/{path}",
            "query_string": b"",
            "client": ("10.0.0.9", 4711),
            "headers": [(b"authorization", token.encode()), (b"x-airbridge-door", b"edge")],
        }
        await self._middleware(scope, receive, send)
        return messages[0]["status"], json.loads(b"".join(one.get("body", b"") for one in messages))

    async def change(self, change: Callable[[], object]) -> None:
        """Change the enrolment, off the loop."""
        await asyncio.to_thread(change)

    async def put(self, *tasks: str) -> None:
        """Queue jobs."""
        await asyncio.to_thread(lambda: self.desk.put(*tasks))


@pytest.fixture
def door(desk: Desk) -> Door:
    return Door(desk)


def _revoke(door: Door) -> object:
    return door.store.revoke(WORKER)


def _rotate_at_once(door: Door) -> object:
    return door.store.rotate(WORKER, timedelta(0))


def _expire(door: Door) -> object:
    return door.store.update(WORKER, ALLOWED, datetime.now(UTC))


def _give_other_queues(door: Door) -> object:
    return door.store.update(WORKER, Allowance.checked(("b",), 4), None)


def _join_again(door: Door) -> object:
    return door.store.join(door.store.new_join_token(WORKER), "10.0.0.10")


ENDS = {
    _revoke: "worker_revoked",
    _rotate_at_once: "token_invalid",
    _expire: "worker_expired",
    _give_other_queues: "queue_not_allowed",
    _join_again: "token_invalid",
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_call_is_refused_within_a_second_when_its_enrolment_ends(
    door: Door, end: Callable[[Door], object]
) -> None:
    async def play() -> None:
        call = await door.hold()
        await door.change(lambda: end(door))
        began = time.monotonic()
        status, answer = await call
        assert time.monotonic() - began < SOON_S
        assert (status, answer["reason"]) == (403, ENDS[end])
        await door.put("t1")
        assert (await door.ask(wait=0))[0] == 403

    door.run(play)
    assert door.desk.states() == {"t1": ("queued", None)}


def test_job_that_is_queued_after_the_enrolment_has_expired_is_not_handed_out(door: Door) -> None:
    """By itself, of which nobody is told."""

    async def play() -> None:
        ends = datetime.now(UTC) + timedelta(seconds=1.5)
        await door.change(lambda: door.store.update(WORKER, ALLOWED, ends))
        call = await door.hold()
        await asyncio.sleep((ends - datetime.now(UTC)).total_seconds() + 0.1)
        await door.put("t1")
        status, answer = await call
        assert (status, answer["reason"]) == (403, "worker_expired")

    door.run(play)
    assert door.desk.states() == {"t1": ("queued", None)}


def test_call_goes_on_when_the_secret_is_rotated_with_an_overlap(door: Door) -> None:
    async def play() -> None:
        call = await door.hold()
        await door.change(lambda: door.store.rotate(WORKER, timedelta(hours=1)))
        await door.put("t1")
        status, answer = await call
        assert (status, [job["task_id"] for job in answer["jobs"]]) == (200, ["t1"])

    door.run(play)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_number_of_tasks_is_the_one_that_holds_when_the_jobs_come(door: Door, concurrency: int) -> None:
    async def play() -> None:
        allowed = Allowance.checked(("a", "b"), 2)
        await door.change(lambda: door.store.update(WORKER, allowed, None))
        call = await door.hold()
        changed = Allowance.checked(("a", "b"), concurrency)
        await door.change(lambda: door.store.update(WORKER, changed, None))
        await door.put("t1", "t2", "t3", "t4")
        status, answer = await call
        assert (status, len(answer["jobs"])) == (200, concurrency)

    door.run(play)


def test_worker_in_the_place_of_a_killed_one_is_told_what_that_one_ran(door: Door) -> None:
    async def play() -> None:
        await door.put("ran", "ended", "handed")
        assert len((await door.ask(wait=0))[1]["jobs"]) == 3
        await door.change(lambda: door.desk.set_state("ran", "running"))
        await door.change(lambda: door.desk.set_state("ended", "success"))
        ran = ["dag", "ran", "run", -1, 1]
        assert await door.ask(restarted=True) == (200, {"jobs": [], "lost": [ran]})
        assert await door.ask(restarted=True, holding=[ran]) == (200, {"jobs": [], "lost": []})
        # What it was handed and never reported is handed out again, as to any worker.
        assert [job["task_id"] for job in (await door.ask(wait=0, holding=[ran]))[1]["jobs"]] == ["handed"]

    door.run(play)


def test_lies_about_what_it_holds_give_a_worker_nothing_of_another(door: Door) -> None:
    async def play() -> None:
        await door.put("theirs")
        await door.change(lambda: door.desk.claimed_by("south-2", "theirs"))
        lies = [["dag", "theirs", "run", -1, 1], ["dag", "none", "run", -1, 1]]
        assert await door.ask(wait=0, holding=lies) == (200, {"jobs": []})
        assert await door.ask(wait=0) == (200, {"jobs": []})

    door.run(play)
    assert door.desk.states() == {"theirs": ("restarting", "south-2")}
