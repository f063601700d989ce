"""Edge requests go around the application's other middlewares, and are checked and answered all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from tests.unit.controlplane.edge_requests import WORKER, Enrolments, Ledger, door_before, token, worker

if TYPE_CHECKING:
    from starlette.requests import Request

CALL = f"worker/{WORKER}"
HEARTBEAT = b'{"state": "idle", "queues": ["default"], "sysinfo": {}}'
LONG = "x" * 4096


pytestmark = pytest.mark.usefixtures("collector_as_before")


class _Noting:
    """A middleware around the edge middleware, as Airflow's are: notes what comes by."""

    def __init__(self, app: Any, paths: list[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            self._paths.append(scope["path"])
        await self._app(scope, receive, send)


class _ApiServer:
    """An application with middlewares, as Airflow's api-server puts it together."""

    def __init__(self) -> None:
        self.came_by: list[str] = []
        self.asked: list[str] = []
        enrolments = Enrolments(worker())

        def edge(app: Any) -> Any:
            return door_before(app, enrolments, Ledger())

        self.app = Starlette(
            routes=[
                Mount(
                    "/edge_worker", routes=[Route("/{rest:path}", self._edge_api, methods=["PATCH", "GET"])]
                ),
                Route("/ui", lambda _: PlainTextResponse("ui")),
            ],
            middleware=[Middleware(_Noting, paths=self.came_by), Middleware(edge)],
        )

    async def _edge_api(self, request: Request) -> JSONResponse:
        body = (await request.body()).decode()
        self.asked.append(body)
        return JSONResponse({"body": body, "long": LONG})

    def play(self, *requests: dict[str, Any], begins: int = 1) -> list[httpx.Response]:
        """Start as often as said, and answer the requests."""

        async def scene() -> list[httpx.Response]:
            for _ in range(begins):
                await self._begin()
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://api-server:8080") as client:
                return [await client.request(**request) for request in requests]

        return asyncio.run(scene())

    async def _begin(self) -> None:
        async def receive() -> dict[str, str]:
            return {"type": "lifespan.startup" if not said else "lifespan.shutdown"}

        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message["type"])

        await self.app({"type": "lifespan"}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def _heartbeat(**headers: str) -> dict[str, Any]:
    return {
        "method": "PATCH",
        "url": f"/edge_worker/v1/{CALL}",
        "content": HEARTBEAT,
        "headers": {"Authorization": token(CALL), "Accept-Encoding": "identity", **headers},
    }


UI = {"method": "GET", "url": "/ui"}


def test_edge_request_goes_around_the_other_middlewares_and_is_answered_alike() -> None:
    usual, short = _ApiServer(), _ApiServer()
    [before] = usual.play(_heartbeat(), begins=0)
    [after] = short.play(_heartbeat())
    assert usual.came_by == [f"/edge_worker/v1/{CALL}"]
    assert short.came_by == []
    assert short.asked == usual.asked == [HEARTBEAT.decode()]
    assert (after.status_code, after.content) == (before.status_code, before.content) == (200, after.content)


def test_forged_request_is_refused_on_the_short_way_too() -> None:
    server = _ApiServer()
    answers = server.play(
        _heartbeat(Authorization="Bearer nonsense"),
        _heartbeat(Authorization=token(CALL, secret="x" * 64)),
        {"method": "GET", "url": "/ui", "headers": {"X-AirBridge-Door": "edge"}},
    )
    assert [answer.status_code for answer in answers] == [403, 403, 404]
    assert server.asked == []
    assert server.came_by == []


def test_other_requests_go_their_usual_way() -> None:
    server = _ApiServer()
    assert [answer.text for answer in server.play(UI, _heartbeat(), UI)][::2] == ["ui", "ui"]
    assert server.came_by == ["/ui", "/ui"]


def test_application_that_begins_twice_has_one_shortcut() -> None:
    server = _ApiServer()
    [answer, _] = server.play(_heartbeat(), UI, begins=2)
    assert answer.status_code == 200
    assert server.asked == [HEARTBEAT.decode()]
    assert server.came_by == ["/ui"]


@pytest.mark.parametrize(("accepted", "compressed"), [("gzip", "gzip"), ("identity", None), ("br", None)])
def test_long_answer_is_compressed_for_who_takes_it(accepted: str, compressed: str | None) -> None:
    [answer] = _ApiServer().play(_heartbeat(**{"Accept-Encoding": accepted}))
    assert answer.headers.get("content-encoding") == compressed
    assert answer.json()["long"] == LONG
    if compressed:
        assert int(answer.headers["content-length"]) < len(LONG) / 10


def test_application_of_another_kind_is_left_as_it_is() -> None:
    scopes: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    async def nothing(*_: Any) -> None:
        raise AssertionError

    application = object()
    door = door_before(inner, Enrolments(), Ledger())
    asyncio.run(door({"type": "lifespan", "app": application}, nothing, nothing))
    assert scopes == [{"type": "lifespan", "app": application}]
