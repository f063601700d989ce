"""So many requests are inside the application at once, and the others wait outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.unit.controlplane.edge_requests import WORKER, Enrolments, Ledger, door_before, token, worker

from airbridge.controlplane import _edge_middleware
from airbridge.controlplane._places import Places

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST = 3


class _Inside:
    """An application whose requests stay until they are let go."""

    def __init__(self) -> None:
        self.here: list[str] = []
        self.served: list[str] = []
        self.go = asyncio.Event()
        self.answers_first = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.here.append(scope["path"])
        try:
            if self.answers_first:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await self.go.wait()
            if scope["path"] == "/broken":
                raise RuntimeError("broken")
            if not self.answers_first:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.here.remove(scope["path"])
            self.served.append(scope["path"])


async def _no_body() -> Any:
    return {"type": "http.request"}


async def _forget(_: Any) -> None:
    """Nobody reads the answer."""


def _run(scene: Callable[[_Inside, Places], Awaitable[None]]) -> None:
    async def play() -> None:
        inside = _Inside()
        async with asyncio.timeout(10):
            await scene(inside, Places(inside, MOST))

    asyncio.run(play())


def _enter(places: Places, *paths: str) -> list[asyncio.Task[None]]:
    return [
        asyncio.ensure_future(places({"type": "http", "path": path}, _no_body, _forget)) for path in paths
    ]


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_more_requests_than_places_wait_in_order() -> None:
    async def scene(inside: _Inside, places: Places) -> None:
        calls = _enter(places, *"abcde")
        await _settle()
        assert inside.here == ["a", "b", "c"]
        inside.go.set()
        await asyncio.gather(*calls)
        assert sorted(inside.served[-2:]) == ["d", "e"]

    _run(scene)


def test_request_whose_answer_has_begun_has_left_its_place() -> None:
    async def scene(inside: _Inside, places: Places) -> None:
        inside.answers_first = True
        calls = _enter(places, *"abcde")
        await _settle()
        assert len(inside.here) == 5
        inside.go.set()
        await asyncio.gather(*calls)
        # Each place was given back once: no more than there are.
        inside.answers_first, inside.go = False, asyncio.Event()
        calls = _enter(places, *"abcde")
        await _settle()
        assert len(inside.here) == MOST
        inside.go.set()
        await asyncio.gather(*calls)

    _run(scene)


@pytest.mark.parametrize("how", ["fails", "is given up inside", "is given up outside"])
def test_request_without_an_answer_leaves_its_place(how: str) -> None:
    async def scene(inside: _Inside, places: Places) -> None:
        calls = _enter(places, *["/broken"] * MOST, "waits")
        await _settle()
        if how == "fails":
            inside.go.set()
        for call in calls[:MOST] if how == "is given up inside" else calls[MOST:]:
            if how != "fails":
                call.cancel()
        await _settle()
        inside.go.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(end, (RuntimeError, asyncio.CancelledError)) for end in ends)
        inside.go.clear()
        more = _enter(places, *"abcd")
        await _settle()
        assert inside.here == ["a", "b", "c"]
        inside.go.set()
        await asyncio.gather(*more)

    _run(scene)


def test_edge_requests_inside_are_bounded_and_slow_bodies_take_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_edge_middleware, "_EDGE_PLACES", MOST)
    call = f"worker/queues/{WORKER}"

    async def scene() -> None:
        inside = _Inside()
        door = door_before(inside, Enrolments(worker()), Ledger())
        slow = asyncio.Event()

        async def slow_body() -> Any:
            yield b'{"new_queues": ["gpu"], '
            await slow.wait()
            yield b'"remove_queues": []}'

        async def ask(client: httpx.AsyncClient, body: Any) -> int:
            headers = {"Authorization": token(call)}
            answer = await client.patch(f"/edge_worker/v1/{call}", content=body, headers=headers)
            return answer.status_code

        transport = httpx.ASGITransport(door)
        async with asyncio.timeout(10), httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            # Of one worker no more than four are worked on at once.
            slow_one = asyncio.ensure_future(ask(client, slow_body()))
            quick = [asyncio.ensure_future(ask(client, b'{"new_queues": ["gpu"]}')) for _ in range(6)]
            while len(inside.here) < MOST:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len(inside.here) == MOST
            inside.go.set()
            assert set(await asyncio.gather(*quick)) == {200}
            slow.set()
            assert await slow_one == 200

    asyncio.run(scene())
