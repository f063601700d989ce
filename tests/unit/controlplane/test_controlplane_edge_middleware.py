"""The edge door inside the api-server: nothing behind it is reached without a worker's token."""

from __future__ import annotations

import asyncio
import copy
from typing import Any
from urllib.parse import unquote

import httpx
import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002 - Starlette reads it
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket  # noqa: TC002 - Starlette reads it
from tests.unit.controlplane.edge_requests import (
    EDGE_TOKEN,
    INTERNAL_SECRET,
    OTHER_TOKEN,
    WORKER,
    Answer,
    ask,
    token,
)

import airbridge
from airbridge.controlplane._edge_middleware import EdgeMiddleware
from airbridge.controlplane._edge_token import EdgeTokens

EDGE = "/edge_worker/v1/"
OWN = "/airbridge/v1/"
VERBS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class Behind:
    """What lies behind the door: routes as in the api-server, each writing down what it was asked."""

    def __init__(self) -> None:
        self.guarded: list[dict[str, Any]] = []
        catch_all = [Route("/{rest:path}", self._guarded, methods=VERBS)]
        self.app = Starlette(
            routes=[
                Mount("/edge_worker", routes=catch_all),
                Mount("/airbridge", routes=catch_all),
                WebSocketRoute("/edge_worker/v1/live", self._live),
                Route("/{rest:path}", self._open, methods=VERBS),
            ]
        )

    async def _guarded(self, request: Request) -> JSONResponse:
        seen = {
            "path": request.scope["path"],
            "authorizations": request.headers.getlist("authorization"),
            "worker": request.scope.get("airbridge.worker"),
            "body": (await request.body()).decode(),
            "query": request.url.query,
        }
        self.guarded.append(seen)
        return JSONResponse(seen)

    async def _open(self, request: Request) -> JSONResponse:
        return JSONResponse({"open": request.scope["path"], "headers": dict(request.headers)})

    async def _live(self, socket: WebSocket) -> None:
        self.guarded.append({"websocket": True})
        await socket.accept()


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def door(behind: Behind) -> EdgeMiddleware:
    return EdgeMiddleware(behind.app, EdgeTokens(EDGE_TOKEN, INTERNAL_SECRET))


def _ask(door: EdgeMiddleware, path: str, *authorizations: str, **scope: Any) -> Answer:
    return asyncio.run(ask(door, path, *authorizations, **scope))


def _over_http(door: EdgeMiddleware, verb: str, path: str, **options: Any) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(door)
        async with httpx.AsyncClient(transport=transport, base_url="http://api-server:8080") as client:
            return await client.request(verb, path, **options)

    return asyncio.run(call())


# --- what is none of its business -----------------------------------------------------------------
@pytest.mark.parametrize(
    "path", ["/", "/api/v2/dags", "/auth/login", "/execution/variables/x", "/edge_work", "/air"]
)
def test_other_paths_pass_untouched(door: EdgeMiddleware, path: str) -> None:
    answer = _over_http(door, "GET", path, headers={"Authorization": "Bearer of-somebody-else"})
    assert answer.status_code == 200
    assert answer.json()["open"] == path
    assert answer.json()["headers"]["authorization"] == "Bearer of-somebody-else"


@pytest.mark.parametrize("kind", ["lifespan", "http", "websocket"])
def test_other_connections_are_handed_on_as_they_came(kind: str) -> None:
    seen: list[Any] = []

    async def inner(*arguments: Any) -> None:
        seen.extend(arguments)

    async def nothing(*_: Any) -> None:
        raise AssertionError

    scope = {"type": kind} if kind == "lifespan" else {"type": kind, "path": "/ui", "headers": []}
    asyncio.run(EdgeMiddleware(inner, None)(scope, nothing, nothing))
    assert seen[0] is scope
    assert seen[1:] == [nothing, nothing]


# --- what passes ----------------------------------------------------------------------------------
def test_worker_with_a_good_token_gets_through_with_its_body(door: EdgeMiddleware, behind: Behind) -> None:
    call = f"jobs/fetch/{WORKER}"
    answer = _over_http(
        door, "POST", f"{EDGE}{call}?a=b", content=b"{}", headers={"Authorization": token(call)}
    )
    assert answer.status_code == 200
    [seen] = behind.guarded
    assert (seen["path"], seen["body"], seen["query"]) == (f"{EDGE}{call}", "{}", "a=b")
    assert seen["worker"] == WORKER


@pytest.mark.parametrize(("prefix", "call"), [(EDGE, f"worker/{WORKER}"), (OWN, "version")])
def test_inner_application_gets_another_token_for_the_same_call(
    door: EdgeMiddleware, behind: Behind, prefix: str, call: str
) -> None:
    mine = token(call)
    assert _ask(door, prefix + call, mine).status == 200
    [inner] = behind.guarded[0]["authorizations"]
    assert inner != mine
    claims = jwt.decode(inner, INTERNAL_SECRET, algorithms=["HS512"], audience="api")
    assert claims["method"] == call
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(inner, EDGE_TOKEN, algorithms=["HS512"], audience="api")


def test_scope_of_the_caller_is_not_touched(behind: Behind) -> None:
    call = f"worker/{WORKER}"
    mine = token(call)
    given_scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": EDGE + call,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"api-server"), (b"authorization", mine.encode())],
    }
    before = copy.deepcopy(given_scope)
    door = EdgeMiddleware(behind.app, EdgeTokens(EDGE_TOKEN, INTERNAL_SECRET))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(door(given_scope, receive, send))
    assert sent[0]["status"] == 200
    assert given_scope == before
    # A retry with the same scope is served too (mounts behind write into the one they get).
    asyncio.run(door(given_scope, receive, send))
    assert [message["status"] for message in sent if "status" in message] == [200, 200]


@pytest.mark.parametrize(
    "encoded", ["manual__2026-01-01T00%3A00%3A00%2B00%3A00", "manual__2026-01-01T00:00:00+00:00"]
)
def test_run_id_of_a_manual_run_gets_through(door: EdgeMiddleware, behind: Behind, encoded: str) -> None:
    # The stock client signs the path as it sends it.
    call = f"jobs/state/etl/extract/{encoded}/1/-1/success"
    answer = _over_http(door, "PATCH", EDGE + call, headers={"Authorization": token(call)})
    assert answer.status_code == 200
    assert behind.guarded[0]["path"] == EDGE + unquote(call)


# --- what does not --------------------------------------------------------------------------------
def test_missing_token_is_401(door: EdgeMiddleware, behind: Behind) -> None:
    answer = _ask(door, f"{EDGE}worker/{WORKER}")
    assert (answer.status, answer.json["reason"]) == (401, "token_missing")
    assert answer.messages[0]["headers"][0] == (b"content-type", b"application/json")
    assert behind.guarded == []


def test_two_tokens_are_refused_even_if_one_is_good(door: EdgeMiddleware, behind: Behind) -> None:
    call = f"worker/{WORKER}"
    for pair in ((token(call), "x"), ("x", token(call)), (token(call), token(call))):
        answer = _ask(door, EDGE + call, *pair)
        assert (answer.status, answer.json["reason"]) == (400, "token_invalid")
    assert behind.guarded == []


NAMED_CALLS = ["worker/{}", "worker/queues/{}", "jobs/fetch/{}", "workers/{}"]


@pytest.mark.parametrize("call", NAMED_CALLS)
@pytest.mark.parametrize(
    "victim", ["south-2", "north-11", "north-", "NORTH-1", "north-1\n", "north-1 ", "queues"]
)
def test_name_of_another_worker_is_refused(
    door: EdgeMiddleware, behind: Behind, call: str, victim: str
) -> None:
    path = call.format(victim)
    answer = _ask(door, (OWN if call.startswith("workers") else EDGE) + path, token(path))
    assert (answer.status, answer.json["reason"]) == (403, "name_mismatch")
    assert WORKER in answer.json["detail"]
    assert behind.guarded == []


@pytest.mark.parametrize("call", NAMED_CALLS)
def test_own_name_passes(door: EdgeMiddleware, call: str) -> None:
    path = call.format(WORKER)
    assert _ask(door, (OWN if call.startswith("workers") else EDGE) + path, token(path)).status == 200


def test_other_version_is_refused_and_both_are_named(door: EdgeMiddleware, behind: Behind) -> None:
    call = f"worker/{WORKER}"
    answer = _ask(door, EDGE + call, token(call), headers=((b"x-airbridge-version", b"9.8.7"),))
    assert (answer.status, answer.json["reason"]) == (400, "version_mismatch")
    assert "9.8.7" in answer.json["detail"]
    assert airbridge.__version__ in answer.json["detail"]
    assert "make build-edge-worker" in answer.json["detail"]
    assert behind.guarded == []


def test_same_version_passes_but_not_beside_another_one(door: EdgeMiddleware) -> None:
    call = f"worker/{WORKER}"
    same = (b"x-airbridge-version", airbridge.__version__.encode())
    assert _ask(door, EDGE + call, token(call), headers=(same,)).status == 200
    both = (same, (b"x-airbridge-version", b"9.8.7"))
    assert _ask(door, EDGE + call, token(call), headers=both).status == 400


def test_long_version_is_not_echoed_whole(door: EdgeMiddleware) -> None:
    call = f"worker/{WORKER}"
    answer = _ask(door, EDGE + call, token(call), headers=((b"x-airbridge-version", b"9" * 5000),))
    assert len(answer.json["detail"]) < 300


def test_stranger_learns_nothing_about_versions(door: EdgeMiddleware) -> None:
    answer = _ask(door, f"{OWN}version", headers=((b"x-airbridge-version", b"9.8.7"),))
    assert answer.json["reason"] == "token_missing"


@pytest.mark.parametrize(
    "path",
    [
        "/edge_worker",
        "/edge_worker/",
        "/edge_worker/docs",
        "/edge_worker/openapi.json",
        "/edge_worker/ui/worker",
        "/edge_worker/static/main.js",
        "/edge_worker/v1",
        "/edge_worker/v2/worker/north-1",
        "/edge_workers/v1/x",
        "/airbridge",
        "/airbridge/docs",
        "/airbridge/v2/version",
    ],
)
def test_other_parts_of_the_edge_provider_are_not_there(
    door: EdgeMiddleware, behind: Behind, path: str
) -> None:
    answer = _ask(door, path, token(path.removeprefix(EDGE)))
    assert (answer.status, answer.json["reason"]) == (404, "unknown_path")
    assert behind.guarded == []


def test_control_plane_without_secrets_refuses_with_503(behind: Behind) -> None:
    call = f"worker/{WORKER}"
    door = EdgeMiddleware(behind.app, None)
    for authorization in ([], [token(call)], ["x"]):
        answer = _ask(door, EDGE + call, *authorization)
        assert (answer.status, answer.json["reason"]) == (503, "not_ready")
    assert _ask(door, "/api/v2/dags").status == 200
    assert behind.guarded == []


def test_websocket_is_closed_before_it_is_accepted(door: EdgeMiddleware, behind: Behind) -> None:
    answer = _ask(door, f"{EDGE}live", token("live"), type="websocket", scheme="ws", subprotocols=[])
    assert answer.messages == [{"type": "websocket.close", "code": 1008}]
    assert behind.guarded == []


# --- path tricks ----------------------------------------------------------------------------------
# With a token for exactly this path, which every holder of the edge token can make.
TRICKS_OF_A_WORKER = [
    f"{EDGE}../ui/worker",
    f"{EDGE}../../api/v2/dags",
    f"{EDGE}./worker/south-2",
    f"{EDGE}/worker/south-2",
    f"{EDGE}worker//south-2",
    f"{EDGE}worker/south-2/",
    f"{EDGE}worker/north-1/../south-2",
    f"{EDGE}jobs/fetch/north-1/",
    EDGE,
    f"{OWN}../v1/version",
    f"{OWN}workers/south-2/",
]


@pytest.mark.parametrize("path", TRICKS_OF_A_WORKER)
def test_path_with_empty_or_dot_segments_is_not_there(
    door: EdgeMiddleware, behind: Behind, path: str
) -> None:
    prefix = EDGE if path.startswith(EDGE) else OWN
    answer = _ask(door, path, token(path.removeprefix(prefix)))
    assert (answer.status, answer.json["reason"]) == (404, "unknown_path")
    assert behind.guarded == []


@pytest.mark.parametrize(
    "path",
    [
        "//edge_worker/v1/worker/north-1",
        "/./edge_worker/v1/worker/north-1",
        "/x/../edge_worker/v1/worker/north-1",
        "/EDGE_WORKER/v1/worker/north-1",
        "/edge%5Fworker/v1/worker/north-1",
        "\\edge_worker\\v1\\worker\\north-1",
        "edge_worker/v1/worker/north-1",
        "/edge_worker\0/v1/worker/north-1",
        "//airbridge/v1/version",
        "/AirBridge/v1/version",
    ],
)
def test_path_that_only_looks_like_the_edge_api_reaches_no_part_of_it(
    door: EdgeMiddleware, behind: Behind, path: str
) -> None:
    _ask(door, path)
    assert behind.guarded == []


@pytest.mark.parametrize(
    "path", ["/edge_worker/v1/worker/north-1", "/airbridge/v1/version", "/edge_worker/docs"]
)
def test_root_path_is_no_way_around(door: EdgeMiddleware, behind: Behind, path: str) -> None:
    # [api] base_url with a path makes Airflow's routers take it off before they look.
    assert _ask(door, f"/airflow{path}", root_path="/airflow").status in (401, 404)
    assert behind.guarded == []


def test_worker_passes_below_a_root_path(door: EdgeMiddleware, behind: Behind) -> None:
    call = f"worker/{WORKER}"
    assert _ask(door, f"/airflow{EDGE}{call}", token(call), root_path="/airflow").status == 200
    assert len(behind.guarded) == 1


# --- nothing at all gets through without a token --------------------------------------------------
segments = st.sampled_from(
    [
        "edge_worker",
        "airbridge",
        "v1",
        "worker",
        "jobs",
        "fetch",
        "north-1",
        "..",
        ".",
        "",
        "%2e%2e",
        "ui",
        "\\",
    ]
)
paths = st.lists(segments, max_size=7).map(lambda parts: "/" + "/".join(parts)) | st.text(max_size=40)
roots = st.sampled_from(["", "/airflow", "/edge_worker", "/", "//"])
authorizations = st.lists(
    st.text(st.characters(max_codepoint=255), max_size=60)
    | st.builds(lambda m: token(m, secret=OTHER_TOKEN), paths)
    | st.builds(lambda m: token(m, algorithm="HS256"), paths),
    max_size=2,
)


@given(path=paths, root=roots, tokens=authorizations, verb=st.sampled_from(VERBS))
@example(path="/edge_worker/v1/worker/north-1", root="", tokens=[], verb="POST")
@example(path="/airflow/airbridge/v1/version", root="/airflow", tokens=[], verb="GET")
@example(path="/edge_worker/edge_worker/v1/x", root="/edge_worker", tokens=[], verb="GET")
def test_no_path_and_no_token_of_a_stranger_reaches_what_is_guarded(
    path: str, root: str, tokens: list[str], verb: str
) -> None:
    behind = Behind()
    door = EdgeMiddleware(behind.app, EdgeTokens(EDGE_TOKEN, INTERNAL_SECRET))
    _ask(door, path, *tokens, root_path=root, method=verb)
    assert behind.guarded == []


@given(path=paths, root=roots, method=paths)
def test_token_of_a_worker_reaches_only_the_call_it_was_made_for(path: str, root: str, method: str) -> None:
    behind = Behind()
    door = EdgeMiddleware(behind.app, EdgeTokens(EDGE_TOKEN, INTERNAL_SECRET))
    _ask(door, path, token(method), root_path=root)
    for seen in behind.guarded:
        assert seen["worker"] == WORKER
        assert path.endswith(method) or path.endswith(unquote(method))


PEOPLE = f"{OWN}workers"
THROUGH_THE_EDGE_DOOR = (b"x-airbridge-door", b"edge")


def test_list_of_workers_is_for_people_who_bring_their_own_token(
    door: EdgeMiddleware, behind: Behind
) -> None:
    answer = _ask(door, PEOPLE, "Bearer of-a-person")
    assert answer.status == 200
    # Handed on as it came: the application behind asks for what the REST API asks for.
    assert behind.guarded[0]["authorizations"] == ["Bearer of-a-person"]
    assert behind.guarded[0]["worker"] is None


@pytest.mark.parametrize("authorizations", [[], ["Bearer of-a-person"]])
def test_list_of_workers_is_closed_at_the_edge_door(
    door: EdgeMiddleware, behind: Behind, authorizations: list[str]
) -> None:
    answer = _ask(door, PEOPLE, *authorizations, headers=(THROUGH_THE_EDGE_DOOR,))
    assert answer.status == 404
    assert behind.guarded == []


def test_list_of_workers_is_closed_at_the_edge_door_for_a_worker_with_a_good_token(
    door: EdgeMiddleware, behind: Behind
) -> None:
    assert _ask(door, PEOPLE, token("workers"), headers=(THROUGH_THE_EDGE_DOOR,)).status == 404
    assert behind.guarded == []


@pytest.mark.parametrize("path", [PEOPLE + "/", PEOPLE + "//", PEOPLE + "/../workers", PEOPLE + "x"])
def test_only_the_very_path_is_for_people(door: EdgeMiddleware, behind: Behind, path: str) -> None:
    answer = _ask(door, path, "Bearer of-a-person")
    assert answer.status in (401, 403, 404)
    assert behind.guarded == []
