"""What one worker, or one stranger, may use; and that limits of one are nobody else's."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import JSONResponse
from tests.unit.controlplane.edge_requests import (
    INTERNAL_SECRET,
    NEIGHBOUR,
    OTHER_SECRET,
    SECRET,
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
from airbridge.controlplane._edge_middleware import EdgeGuard, EdgeMiddleware
from airbridge.controlplane._limits import Buckets, Limits, LimitSettings
from airbridge.controlplane._lookup import Lookup
from airbridge.controlplane._refusal import Refusal
from airbridge.credential import JoinToken
from airbridge.errors import SettingsError

pytestmark = pytest.mark.anyio

CALL = "version"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def anyio_backend() -> str:
    """What uvicorn runs on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal by a limit is held for a moment; not in here."""
    monkeypatch.setattr("airbridge.controlplane._limits._HELD_S", 0.0)


async def _served(scope: Any, receive: Any, send: Any) -> None:
    await JSONResponse({"served": scope["path"]})(scope, receive, send)


def _door(enrolments: Enrolments, app: Any = _served, **settings: int) -> EdgeMiddleware:
    guard = EdgeGuard(
        enrolments,  # type: ignore[arg-type]
        Ledger(),  # type: ignore[arg-type]
        INTERNAL_SECRET,
        no_dispatch(),
        limits=replace(LimitSettings(), **settings),
    )
    return EdgeMiddleware(app, guard, Audit(CollectorRegistry()))


async def _version(door: EdgeMiddleware, name: str = WORKER, secret: str = SECRET, **scope: Any) -> Answer:
    return await ask(door, f"/airbridge/v1/{CALL}", token(CALL, secret=secret, iss=name), **scope)


# --- buckets --------------------------------------------------------------------------------------


def test_bucket_gives_what_it_holds_then_what_comes_back() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3, clock)
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("b") == 0.0
    clock.now += 0.5
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0
    clock.now += 100
    assert [buckets.take("a") for _ in range(4)][:3] == [0.0, 0.0, 0.0], "never more than it holds"


def test_strangers_addresses_do_not_fill_the_memory() -> None:
    buckets = Buckets(1.0, 1, Clock())
    for number in range(10_000):
        buckets.take(f"10.0.{number // 256}.{number % 256}")
    assert len(buckets._levels) <= 4096


def test_addresses_of_one_ipv6_network_are_one() -> None:
    limits = Limits(LimitSettings(joins=1), Clock())
    limits.join_begins("2001:db8::1")
    with pytest.raises(Refusal) as refusal:
        limits.join_begins("2001:db8::2")
    assert (refusal.value.status, refusal.value.reason) == (429, "limit_joins")
    assert refusal.value.retry_after == 60
    limits.join_begins("2001:db8:0:1::1")
    limits.join_begins("192.0.2.1")


# --- a worker's own limits -------------------------------------------------------------------------


async def test_worker_over_its_rate_is_told_when_to_come_back_and_its_neighbour_is_not() -> None:
    door = _door(Enrolments(worker(), worker(NEIGHBOUR, OTHER_SECRET)), rate=1, burst=3)
    answers = [await _version(door) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 503]
    assert answers[3].json["reason"] == "limit_rate"
    assert (b"retry-after", b"1") in answers[3].messages[0]["headers"]
    assert (await _version(door, NEIGHBOUR, OTHER_SECRET)).status == 200
    await asyncio.sleep(1.1)
    assert (await _version(door)).status == 200


async def test_forged_token_uses_up_nothing_of_the_worker_that_it_names() -> None:
    door = _door(Enrolments(worker()), rate=1, burst=1, failures=1000)
    for _ in range(20):
        assert (await _version(door, secret=OTHER_SECRET)).status == 403
    assert (await _version(door)).status == 200


async def test_calls_beyond_a_workers_turns_wait_and_those_of_its_neighbour_do_not() -> None:
    may_end = asyncio.Event()
    inside: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        inside.append(scope["airbridge.worker"].name)
        if scope["airbridge.worker"].name == WORKER:
            await may_end.wait()
        await _served(scope, receive, send)

    door = _door(Enrolments(worker(), worker(NEIGHBOUR, OTHER_SECRET)), slow, concurrent=2, waiting=3)
    loud = [asyncio.create_task(_version(door)) for _ in range(6)]
    # One is refused, which is so only while two are at work and three in the queue.
    await asyncio.wait_for(asyncio.wait(loud, return_when=asyncio.FIRST_COMPLETED), 30)
    while len(inside) < 2:
        await asyncio.sleep(0.01)
    assert inside == [WORKER, WORKER]
    assert (await _version(door, NEIGHBOUR, OTHER_SECRET)).status == 200
    may_end.set()
    statuses = sorted(answer.status for answer in await asyncio.gather(*loud))
    assert statuses == [200, 200, 200, 200, 200, 503], "two at work, three in the queue"
    assert (await _version(door)).status == 200


async def test_call_that_fails_behind_gives_its_turn_back() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("behind")

    door = _door(Enrolments(worker()), broken, concurrent=1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="behind"):
            await asyncio.wait_for(_version(door), 5)


# --- strangers --------------------------------------------------------------------------------------


async def test_made_up_names_cost_a_query_in_half_a_second_whatever_their_number() -> None:
    enrolments = Enrolments(worker())
    door = _door(enrolments, failures=1000)
    for number in range(100):
        assert (await _version(door, f"nobody-{number}")).status == 403
    assert enrolments.asked == []
    assert enrolments.listed <= 2


async def test_new_enrolment_is_found_among_made_up_names_within_a_second() -> None:
    clock = Clock()
    enrolments = Enrolments()
    lookup = Lookup(enrolments, clock)
    assert await lookup.find("new-1") is None
    enrolments.workers["new-1"] = worker("new-1")
    clock.now += 0.6
    found = await lookup.find("new-1")
    assert found is not None
    assert found.name == "new-1"


async def test_worker_that_many_ask_for_at_once_is_looked_up_once() -> None:
    enrolments = Enrolments(worker())
    lookup = Lookup(enrolments, Clock())
    found = await asyncio.gather(*(lookup.find(WORKER) for _ in range(50)))
    assert {one.name for one in found if one} == {WORKER}
    assert enrolments.asked == [WORKER]


async def test_too_many_failures_of_an_address_are_told_to_wait_and_a_good_worker_there_is_not() -> None:
    door = _door(Enrolments(worker()), failures=5)
    statuses = [(await _version(door, f"nobody-{number}")).status for number in range(8)]
    assert statuses == [403] * 5 + [503] * 3
    assert (await _version(door)).status == 200
    assert (await _version(door, "nobody", client=("10.0.0.10", 1))).status == 403, "another address"


async def test_join_attempts_are_bounded_for_an_address_and_good_ones_are_free() -> None:
    enrolments = Enrolments(worker())
    door = _door(enrolments, joins=3)

    async def join(text: str) -> Answer:
        body = json.dumps({"token": text}).encode()
        return await ask(door, "/airbridge/v1/join", method="POST", body=body)

    for _ in range(5):
        good = JoinToken.new(WORKER)
        enrolments.join_tokens.add(good.text)
        assert (await join(good.text)).status == 200
    answers = [await join(JoinToken.new(WORKER).text) for _ in range(4)]
    assert [answer.status for answer in answers] == [403, 403, 403, 429]
    assert answers[3].json["reason"] == "limit_joins"


# --- the record, and settings ---------------------------------------------------------------------


def test_flood_of_equal_refusals_is_a_few_lines_and_a_sum(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    audit = Audit(CollectorRegistry(), clock=clock)

    def refuse(reason: str, client: str) -> None:
        audit.refused(reason, worker="", method="GET", path="/x", client=client, detail="no")

    for _ in range(1000):
        refuse("token_invalid", "192.0.2.1")
    refuse("token_invalid", "192.0.2.2")
    refuse("join_refused", "192.0.2.1")
    clock.now += 11
    refuse("token_invalid", "192.0.2.1")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["client"] for line in lines].count("192.0.2.2") == 1
    assert [line["reason"] for line in lines].count("join_refused") == 1
    summed = [line for line in lines if line["event"] == "edge requests refused, more of the same"]
    assert [(line["reason"], line["client"], line["number"]) for line in summed] == [
        ("token_invalid", "192.0.2.1", 980)
    ]
    assert len(lines) == 20 + 1 + 1 + 1 + 1
    assert 'airbridge_edge_refusals_total{reason="token_invalid"} 1002.0' in audit.metrics().decode()


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9999999"])
def test_setting_that_is_no_limit_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match="EDGE_LIMIT_RATE"):
        LimitSettings.of({"EDGE_LIMIT_RATE": value})
    assert LimitSettings.of({"EDGE_LIMIT_RATE": "7"}).rate == 7
    assert LimitSettings.of({}) == LimitSettings()
