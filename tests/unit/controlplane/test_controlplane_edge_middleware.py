"""The edge door inside the api-server: nothing behind it is reached without a worker's token."""

from __future__ import annotations

import asyncio
import copy
import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx
import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002 - Starlette reads it
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket  # noqa: TC002 - Starlette reads it
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
    door_before,
    token,
    worker,
)

import airbridge
from airbridge.audit import Audit
from airbridge.controlplane._edge_middleware import EdgeMiddleware
from airbridge.credential import Credential, JoinToken
from airbridge.errors import UnreachableError
from airbridge.identity.jobs import Job, JobKey, RunningTask

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
            "worker": getattr(request.scope.get("airbridge.worker"), "name", None),
            "headers": dict(request.headers),
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
def enrolments() -> Enrolments:
    return Enrolments(worker(), worker(NEIGHBOUR, OTHER_SECRET))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def audit() -> Audit:
    return Audit(CollectorRegistry())


@pytest.fixture
def door(behind: Behind, enrolments: Enrolments, ledger: Ledger, audit: Audit) -> EdgeMiddleware:
    return door_before(behind.app, enrolments, ledger, audit)


#: Calls that name their worker, as the worker sends them.
NAMED_CALLS: dict[str, tuple[str, bytes]] = {
    "worker/{}": ("POST", b'{"state": "starting", "queues": ["default", "gpu"], "sysinfo": {}}'),
    "worker/queues/{}": ("PATCH", b'{"new_queues": ["gpu"], "remove_queues": ["default"]}'),
    "jobs/fetch/{}": ("POST", b'{"queues": ["default"], "free_concurrency": 4}'),
    "workers/{}": ("GET", b""),
    "enrolment/{}": ("GET", b""),
}
OF_OURS = ("workers", "enrolment", "version")


def _ask(door: EdgeMiddleware, path: str, *authorizations: str, **scope: Any) -> Answer:
    return asyncio.run(ask(door, path, *authorizations, **scope))


def _call(door: EdgeMiddleware, call: str, name: str = WORKER, **options: Any) -> Answer:
    """Send one of NAMED_CALLS with a good token."""
    verb, body = NAMED_CALLS[call]
    path = call.format(name)
    prefix = OWN if call.startswith(OF_OURS) else EDGE
    return _ask(door, prefix + path, token(path), method=verb, body=body, **options)


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
    asyncio.run(EdgeMiddleware(inner, None, Audit(CollectorRegistry()))(scope, nothing, nothing))
    assert seen[0] is scope
    assert seen[1] is nothing
    # What the application says of its own start is listened to; see test_controlplane_garbage.py.
    assert (seen[2] is nothing) == (kind != "lifespan")


# --- what passes ----------------------------------------------------------------------------------
def test_worker_with_a_good_token_gets_through_with_its_body(door: EdgeMiddleware, behind: Behind) -> None:
    call = f"jobs/fetch/{WORKER}"
    body = NAMED_CALLS["jobs/fetch/{}"][1]
    answer = _over_http(
        door, "POST", f"{EDGE}{call}?a=b", content=body, headers={"Authorization": token(call)}
    )
    assert answer.status_code == 200
    [seen] = behind.guarded
    assert (seen["path"], seen["body"], seen["query"]) == (f"{EDGE}{call}", body.decode(), "a=b")
    assert seen["worker"] == WORKER


@pytest.mark.parametrize(
    ("verb", "prefix", "call"), [("PATCH", EDGE, f"worker/{WORKER}"), ("GET", OWN, "version")]
)
def test_inner_application_gets_another_token_for_the_same_call(
    door: EdgeMiddleware, behind: Behind, verb: str, prefix: str, call: str
) -> None:
    mine = token(call)
    assert _ask(door, prefix + call, mine, method=verb).status == 200
    [inner] = behind.guarded[0]["authorizations"]
    assert inner != mine
    claims = jwt.decode(inner, INTERNAL_SECRET, algorithms=["HS512"], audience="api")
    assert claims["method"] == call
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(inner, SECRET, algorithms=["HS512"], audience="api")


def test_scope_of_the_caller_is_not_touched(behind: Behind) -> None:
    call = f"worker/{WORKER}"
    mine = token(call)
    given_scope: dict[str, Any] = {
        "type": "http",
        "method": "PATCH",
        "path": EDGE + call,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"api-server"), (b"authorization", mine.encode())],
    }
    before = copy.deepcopy(given_scope)
    door = door_before(behind.app, Enrolments(worker()), Ledger())
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
def test_run_id_of_a_manual_run_gets_through(
    door: EdgeMiddleware, behind: Behind, ledger: Ledger, encoded: str
) -> None:
    ledger.jobs[JobKey("etl", "extract", unquote(encoded), -1, 1)] = Job(WORKER, "running")
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


@pytest.mark.parametrize("call", NAMED_CALLS)
@pytest.mark.parametrize(
    "victim", ["south-2", "north-11", "north-", "NORTH-1", "north-1\n", "north-1 ", "queues"]
)
def test_name_of_another_worker_is_refused(
    door: EdgeMiddleware, behind: Behind, call: str, victim: str
) -> None:
    answer = _call(door, call, victim)
    assert (answer.status, answer.json["reason"]) == (403, "name_mismatch")
    assert WORKER in answer.json["detail"]
    assert behind.guarded == []


@pytest.mark.parametrize("call", NAMED_CALLS)
def test_own_name_passes(door: EdgeMiddleware, call: str) -> None:
    assert _call(door, call).status == 200


def test_other_version_is_refused_and_both_are_named(door: EdgeMiddleware, behind: Behind) -> None:
    call = f"worker/{WORKER}"
    answer = _ask(door, EDGE + call, token(call), headers=((b"x-airbridge-version", b"9.8.7"),))
    assert (answer.status, answer.json["reason"]) == (400, "version_mismatch")
    assert "9.8.7" in answer.json["detail"]
    assert airbridge.__version__ in answer.json["detail"]
    assert "make build-edge-worker" in answer.json["detail"]
    assert behind.guarded == []


def test_same_version_passes_but_not_beside_another_one(door: EdgeMiddleware) -> None:
    same = (b"x-airbridge-version", airbridge.__version__.encode())
    assert _call(door, "worker/{}", headers=(same,)).status == 200
    both = (same, (b"x-airbridge-version", b"9.8.7"))
    assert _call(door, "worker/{}", headers=both).status == 400


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
    door = EdgeMiddleware(behind.app, None, Audit(CollectorRegistry()))
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
# With a token for exactly this path, which every worker can make.
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
    path = f"/airflow{EDGE}{call}"
    assert _ask(door, path, token(call), root_path="/airflow", method="PATCH").status == 200
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
    | st.builds(lambda m: token(m, secret="x" * 64), paths)
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
    door = door_before(behind.app, Enrolments(worker()), Ledger())
    _ask(door, path, *tokens, root_path=root, method=verb)
    assert behind.guarded == []


@given(path=paths, root=roots, method=paths, verb=st.sampled_from(VERBS))
@example(path=f"{EDGE}worker/{WORKER}", root="", method=f"worker/{WORKER}", verb="PATCH")
def test_token_of_a_worker_reaches_only_the_call_it_was_made_for(
    path: str, root: str, method: str, verb: str
) -> None:
    behind = Behind()
    door = door_before(behind.app, Enrolments(worker()), Ledger())
    _ask(door, path, token(method), root_path=root, method=verb)
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


# --- the Execution API, through the edge door -------------------------------------------------------

TASK = uuid.UUID("0199a5e0-7c3b-7a11-8f2e-3f1d2c4b5a69")
KEY = JobKey("etl", "extract", "manual__1", -1, 1)
CREDENTIAL = (b"x-airbridge-token", f"{WORKER}.{SECRET}".encode())
TASK_TOKEN = "Bearer " + jwt.encode({"sub": str(TASK)}, "of-airflow" * 8, algorithm="HS512")
HEARTBEAT = f"/execution/task-instances/{TASK}/heartbeat"


@pytest.fixture
def running(ledger: Ledger) -> Ledger:
    """Worker north-1 runs the task of TASK_TOKEN."""
    job = Job(WORKER, "running")
    ledger.jobs[KEY] = job
    ledger.tasks[TASK] = RunningTask(KEY, job)
    return ledger


def _execute(
    door: EdgeMiddleware, path: str, *more: tuple[bytes, bytes], verb: str = "PUT", bearer: str = TASK_TOKEN
) -> Answer:
    """A call to the Execution API as the gateway hands it on."""
    return _ask(door, path, bearer, method=verb, headers=(THROUGH_THE_EDGE_DOOR, *more))


def test_call_of_a_task_passes_with_its_own_token_and_without_the_workers(
    door: EdgeMiddleware, behind: Behind, running: Ledger
) -> None:
    answer = _execute(door, HEARTBEAT, CREDENTIAL)
    assert answer.status == 200
    assert answer.json["headers"]["authorization"] == TASK_TOKEN
    assert "x-airbridge-token" not in answer.json["headers"]


@pytest.mark.parametrize(
    ("credential", "status", "reason"),
    [
        ("", 401, "token_missing"),
        (f"{WORKER}.{OTHER_SECRET}", 403, "token_invalid"),
        (f"nobody.{SECRET}", 403, "token_invalid"),
        (f"{NEIGHBOUR}.{OTHER_SECRET}", 403, "task_not_yours"),
        (SECRET, 403, "token_invalid"),
    ],
)
def test_call_of_a_task_needs_the_worker_that_runs_it(
    door: EdgeMiddleware, running: Ledger, credential: str, status: int, reason: str
) -> None:
    headers = [(b"x-airbridge-token", credential.encode())] if credential else []
    answer = _execute(door, HEARTBEAT, *headers)
    assert (answer.status, answer.json["reason"]) == (status, reason)


def test_call_of_a_task_with_two_credentials_is_refused(door: EdgeMiddleware, running: Ledger) -> None:
    assert _execute(door, HEARTBEAT, CREDENTIAL, CREDENTIAL).status == 400


@pytest.mark.parametrize(
    "bearer", ["", "Bearer", "Bearer x.y.z", "Basic abc", TASK_TOKEN.removeprefix("Bearer ")]
)
def test_call_of_a_task_without_a_tasks_token_is_refused(
    door: EdgeMiddleware, running: Ledger, bearer: str
) -> None:
    answer = _execute(door, HEARTBEAT, CREDENTIAL, bearer=bearer)
    assert (answer.status, answer.json["reason"]) == (403, "task_token_invalid")


def test_execution_api_of_another_release_is_refused(door: EdgeMiddleware, running: Ledger) -> None:
    answer = _execute(door, HEARTBEAT, CREDENTIAL, (b"x-airbridge-version", b"9.8.7"))
    assert answer.json["reason"] == "version_mismatch"


@pytest.mark.parametrize(
    "path", ["/", "/api/v2/dags", "/auth/token", "/execution", "/executions/x", "/health"]
)
def test_nothing_else_is_served_to_the_edge_door(door: EdgeMiddleware, behind: Behind, path: str) -> None:
    # The gateway has an allow list of its own; this is the second lock.
    answer = _execute(door, path, CREDENTIAL, verb="GET")
    assert answer.status == 404
    assert "open" not in answer.json


# --- joining ----------------------------------------------------------------------------------------


def _join(door: EdgeMiddleware, body: Any) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return _ask(door, f"{OWN}join", method="POST", body=content, headers=(THROUGH_THE_EDGE_DOOR,))


def test_join_token_is_traded_once(door: EdgeMiddleware, enrolments: Enrolments) -> None:
    join = JoinToken.new("west-3")
    enrolments.join_tokens.add(join.text)
    answer = _join(door, {"token": join.text})
    assert answer.status == 200
    credential = Credential.parse(answer.json["credential"])
    assert credential.name == "west-3"
    assert _ask(door, f"{OWN}version", token("version", iss="west-3", secret=credential.secret)).status == 200
    again = _join(door, {"token": join.text})
    assert (again.status, again.json["reason"]) == (403, "join_refused")
    assert "credential" not in again.json


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"token": 7}', b'{"token": null}', {"token": "join_x"}, {}, b"[" * 5000],
    ids=lambda body: str(body)[:20],
)
def test_anything_else_is_refused_alike(door: EdgeMiddleware, body: Any) -> None:
    answer = _join(door, body)
    assert (answer.status, answer.json["detail"]) == (403, "the join token was not accepted")


def test_long_body_is_not_read_to_its_end(door: EdgeMiddleware) -> None:
    assert _join(door, b" " * 100_000).status == 413


# --- revocation, the record, and a database that is away --------------------------------------------


def test_revocation_is_in_force_within_a_second(door: EdgeMiddleware, enrolments: Enrolments) -> None:
    assert _call(door, "workers/{}").status == 200
    enrolments.workers[WORKER] = worker(revoked_at=datetime.now(UTC))
    revoked = time.monotonic()
    while _call(door, "workers/{}").status == 200:
        assert time.monotonic() - revoked < 1
    assert _call(door, "workers/{}").json["reason"] == "worker_revoked"


def test_enrolments_are_not_looked_up_for_every_request(door: EdgeMiddleware, enrolments: Enrolments) -> None:
    asked = [_call(door, "workers/{}").status for _ in range(50)]
    assert asked == [200] * 50
    assert len(enrolments.asked) < 50
    assert enrolments.seen == [WORKER]


def test_refusal_is_logged_with_its_reason_and_counted(
    door: EdgeMiddleware, audit: Audit, capsys: pytest.CaptureFixture[str]
) -> None:
    _call(door, "workers/{}", NEIGHBOUR)
    _ask(door, f"{OWN}version", token("version", secret="x" * 64))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["reason"], line["worker"]) for line in lines] == [
        ("name_mismatch", WORKER),
        ("token_signature", ""),  # what the stranger is not told
    ]
    assert {line["logger"] for line in lines} == {"airbridge.audit"}
    assert all(line["client"] == "10.0.0.9" for line in lines)
    counted = audit.metrics().decode()
    assert 'airbridge_edge_refusals_total{reason="name_mismatch"} 1.0' in counted
    assert 'airbridge_edge_refusals_total{reason="token_signature"} 1.0' in counted
    assert WORKER not in counted


def test_what_a_stranger_writes_stays_within_its_line(
    door: EdgeMiddleware, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = 'x\n{"event": "edge request refused", "worker": "innocent"}'
    _ask(door, f"{OWN}{forged}" + "y" * 5000, token("version"))
    [line] = capsys.readouterr().out.splitlines()
    assert len(line) < 1500
    assert json.loads(line)["worker"] == ""


def test_database_that_is_away_refuses_until_it_is_back(
    door: EdgeMiddleware, behind: Behind, enrolments: Enrolments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(name: str) -> None:
        raise UnreachableError("Postgres cannot be used: password of airflow@postgres")

    with monkeypatch.context() as patch:
        patch.setattr(enrolments, "find", away)
        answer = _call(door, "workers/{}")
    assert (answer.status, answer.json["reason"]) == (503, "not_ready")
    assert "Postgres" not in answer.json["detail"]
    assert behind.guarded == []
    assert _call(door, "workers/{}").status == 200


def test_job_that_is_handed_out_is_written_down(ledger: Ledger, enrolments: Enrolments) -> None:
    job = {
        "dag_id": "etl",
        "task_id": "extract",
        "run_id": "r",
        "map_index": -1,
        "try_number": 2,
        "command": {},
    }

    async def edge_api(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(job).encode()})

    door = door_before(edge_api, enrolments, ledger)
    assert _call(door, "jobs/fetch/{}").json == job
    assert ledger.handed == {(JobKey("etl", "extract", "r", -1, 2), WORKER)}


def test_nothing_is_written_down_when_there_was_no_job(ledger: Ledger, enrolments: Enrolments) -> None:
    async def edge_api(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"null"})

    assert _call(door_before(edge_api, enrolments, ledger), "jobs/fetch/{}").status == 200
    assert ledger.handed == set()


FETCH_ID = "0123456789abcdef" * 2


def _fetch(number: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"x-airbridge-fetch", number.encode()),)


def _push(door: EdgeMiddleware, written_at: str) -> int:
    call = "logs/push/etl/extract/r/2/-1"
    headers = ((b"x-airbridge-chunk", written_at.encode()),)
    return _ask(door, EDGE + call, token(call), method="POST", body=b"{}", headers=headers).status


def test_fetch_that_is_asked_again_gives_the_same_job(ledger: Ledger, enrolments: Enrolments) -> None:
    """D3: the answer got lost on its way; the job would wait for nobody."""
    job = {"dag_id": "etl", "task_id": "extract", "run_id": "r", "map_index": -1, "try_number": 2}
    asked: list[str] = []

    async def edge_api(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(job).encode()})

    door = door_before(edge_api, enrolments, ledger)
    first = _call(door, "jobs/fetch/{}", headers=_fetch(FETCH_ID)).json
    again = _call(door, "jobs/fetch/{}", headers=_fetch(FETCH_ID)).json
    assert first == job
    assert again == {**job, "concurrency_slots": 1, "command": {}}
    assert len(asked) == 1
    _call(door, "jobs/fetch/{}", headers=_fetch("f" * 32))
    assert len(asked) == 2


def test_fetch_under_a_malformed_id_is_refused(door: EdgeMiddleware, behind: Behind) -> None:
    answer = _call(door, "jobs/fetch/{}", headers=_fetch("' OR 1=1"))
    assert answer.status == 400
    assert behind.guarded == []


def test_piece_of_log_that_is_there_is_not_appended_again(
    door: EdgeMiddleware, behind: Behind, ledger: Ledger
) -> None:
    key = JobKey("etl", "extract", "r", -1, 2)
    ledger.handed.add((key, WORKER))
    written_at = "2026-11-21T10:00:00.000001+00:00"
    assert _push(door, written_at) == 200
    ledger.pieces.add((key, datetime.fromisoformat(written_at)))
    assert _push(door, written_at) == 200
    assert len(behind.guarded) == 1
    assert _push(door, "now") == 400
