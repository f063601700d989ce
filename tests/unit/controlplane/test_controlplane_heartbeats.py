"""Heartbeats of many workers are served together, and each worker gets its own answer."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.controlplane.edge_requests import (
    INTERNAL_SECRET,
    NEIGHBOUR,
    OTHER_SECRET,
    WORKER,
    Answer,
    Enrolments,
    Ledger,
    ask,
    no_dispatch,
    token,
    worker,
)

from airbridge.audit import Audit
from airbridge.controlplane._correlation import AccessLog
from airbridge.controlplane._edge_middleware import EdgeGuard, EdgeMiddleware
from airbridge.controlplane._heartbeats import Heartbeat, HeartbeatAnswer, Heartbeats

if TYPE_CHECKING:
    from collections.abc import Sequence

BODY = b'{"state": "idle"}'


class Provider:
    """Answers with what it was told, and keeps what came together."""

    def __init__(self) -> None:
        self.served: list[list[str]] = []
        self.fails = False
        self._lock = threading.Lock()

    def serve(self, heartbeats: Sequence[Heartbeat]) -> list[HeartbeatAnswer | None]:
        assert self._lock.acquire(blocking=False), "two transactions at once"
        try:
            self.served.append([one.worker for one in heartbeats])
            if self.fails:
                raise RuntimeError("one of them breaks the transaction")
            return [
                None if one.body == b"?" else HeartbeatAnswer(200, one.worker.encode()) for one in heartbeats
            ]
        finally:
            self._lock.release()


def _beat(heartbeats: Heartbeats, *bodies: tuple[str, bytes]) -> list[HeartbeatAnswer | None]:
    async def play() -> list[HeartbeatAnswer | None]:
        return await asyncio.gather(*(heartbeats.take(Heartbeat(name, body)) for name, body in bodies))

    return asyncio.run(play())


def test_heartbeats_that_come_at_the_same_time_are_served_together() -> None:
    provider = Provider()
    answers = _beat(Heartbeats(provider.serve), ("a", BODY), ("b", BODY), ("a", BODY))
    assert [answer and answer.body for answer in answers] == [b"a", b"b", b"a"]
    assert provider.served == [["a", "b", "a"]]


def test_fleet_that_comes_back_at_once_is_served_in_parts() -> None:
    provider = Provider()
    answers = _beat(Heartbeats(provider.serve), *((f"w{number}", BODY) for number in range(250)))
    assert [answer and answer.body for answer in answers] == [f"w{n}".encode() for n in range(250)]
    assert [len(part) for part in provider.served] == [100, 100, 50]


def test_one_that_cannot_be_served_does_not_take_the_others_along() -> None:
    provider = Provider()
    answers = _beat(Heartbeats(provider.serve), ("a", BODY), ("b", b"?"))
    assert [answer and answer.body for answer in answers] == [b"a", None]
    provider.fails = True
    assert _beat(Heartbeats(provider.serve), ("a", BODY), ("b", BODY)) == [None, None]


def test_worker_that_hangs_up_leaves_the_others_their_answers() -> None:
    provider = Provider()
    heartbeats = Heartbeats(provider.serve)

    async def play() -> HeartbeatAnswer | None:
        gone = asyncio.create_task(heartbeats.take(Heartbeat("gone", BODY)))
        stays = asyncio.create_task(heartbeats.take(Heartbeat("stays", BODY)))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(play()) == HeartbeatAnswer(200, b"stays")


# --- through the door -------------------------------------------------------------------------------


class Rig:
    """A door with the provider beside it, and an edge API behind it."""

    def __init__(self) -> None:
        self.provider = Provider()
        self.behind: list[bytes] = []
        self._lines = io.StringIO()
        enrolments = Enrolments(worker(), worker(NEIGHBOUR, OTHER_SECRET))
        guard = EdgeGuard(enrolments, Ledger(), INTERNAL_SECRET, no_dispatch())  # type: ignore[arg-type]
        guard = replace(guard, heartbeats=Heartbeats(self.provider.serve))
        audit = Audit(CollectorRegistry())
        self._door = EdgeMiddleware(self._edge_api, guard, audit, AccessLog(self._lines))

    async def _edge_api(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.behind.append(body)
        await send({"type": "http.response.start", "status": 422, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def beat(self, name: str = WORKER, body: bytes = BODY, **signed: Any) -> Answer:
        call = f"worker/{name}"
        return asyncio.run(
            ask(self._door, f"/edge_worker/v1/{call}", token(call, **signed), method="PATCH", body=body)
        )

    @property
    def logged(self) -> list[int]:
        """Statuses of the requests that were logged."""
        return [json.loads(line)["status"] for line in self._lines.getvalue().splitlines()]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_heartbeat_is_answered_without_the_edge_api_and_without_a_line(rig: Rig) -> None:
    answer = rig.beat()
    assert answer.status == 200
    assert b"".join(message.get("body", b"") for message in answer.messages) == WORKER.encode()
    assert rig.provider.served == [[WORKER]]
    assert rig.behind == []
    assert rig.logged == []


def test_heartbeat_that_the_edge_api_has_to_answer_reaches_it_whole(rig: Rig) -> None:
    rig.provider.fails = True
    assert rig.beat(body=BODY).status == 422
    assert rig.behind == [BODY]
    assert rig.logged == [422]


@pytest.mark.parametrize(
    ("name", "signed", "reason"),
    [
        (WORKER, {"secret": OTHER_SECRET}, "token_invalid"),
        (NEIGHBOUR, {}, "name_mismatch"),
        ("nobody-9", {"iss": "nobody-9"}, "token_invalid"),
    ],
)
def test_heartbeat_in_somebody_elses_name_is_served_by_nobody(
    rig: Rig, name: str, signed: dict[str, Any], reason: str
) -> None:
    answer = rig.beat(name, **signed)
    assert (answer.status, answer.json["reason"]) == (403, reason)
    assert rig.provider.served == []
    assert rig.behind == []


def test_heartbeat_that_is_too_long_is_refused_before_it_is_served(rig: Rig) -> None:
    assert rig.beat(body=b"x" * 70_000).status == 413
    assert rig.provider.served == []
