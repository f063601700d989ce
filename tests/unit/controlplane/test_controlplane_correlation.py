"""Each edge request is one line, and the answer says which attempt at a task it was about."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from typing import Any

import jwt
import pytest
import structlog
from prometheus_client import CollectorRegistry
from tests.unit.controlplane.edge_requests import (
    INTERNAL_SECRET,
    NEIGHBOUR,
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
from airbridge.controlplane._correlation import HEADER, AccessLog, Exchange
from airbridge.controlplane._edge_middleware import EdgeGuard, EdgeMiddleware
from airbridge.controlplane._limits import LimitSettings
from airbridge.identity.jobs import Job, JobKey, RunningTask

ATTEMPT = uuid.UUID("01a1feee-9ef2-7f1f-8963-14b081adb7ba")
KEY = JobKey("etl", "load", "manual__1", -1, 1)
JOB_PATH = "etl/load/manual__1/1/-1"
FETCH = f"jobs/fetch/{WORKER}"
FETCH_BODY = b'{"queues": ["default"], "free_concurrency": 4}'


class Rig:
    """A door with an edge API behind it that answers with what a test wants."""

    def __init__(self) -> None:
        self.answer = b"null"
        self.asked: list[dict[str, Any]] = []
        self.bound: list[dict[str, Any]] = []
        self.ledger = Ledger({KEY: Job(WORKER, "running", ATTEMPT)})
        self.ledger.tasks[ATTEMPT] = RunningTask(KEY, Job(WORKER, "running", ATTEMPT))
        self._lines = io.StringIO()
        # As many calls at once as these tests send: what limits a worker has tests of its own.
        limits = LimitSettings(concurrent=64)
        guard = EdgeGuard(Enrolments(worker()), self.ledger, INTERNAL_SECRET, no_dispatch(), limits=limits)  # type: ignore[arg-type]
        audit = Audit(CollectorRegistry())
        self.door = EdgeMiddleware(self._behind, guard, audit, AccessLog(self._lines))

    async def _behind(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.asked.append({"body": body, "headers": dict(scope["headers"])})
        self.bound.append(structlog.contextvars.get_contextvars())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.answer})

    def edge(self, verb: str, call: str, body: bytes = b"") -> Answer:
        """A call that the worker signs."""
        return asyncio.run(ask(self.door, f"/edge_worker/v1/{call}", token(call), method=verb, body=body))

    def execute(self, call: str, *headers: tuple[bytes, bytes]) -> Answer:
        """A task's call."""
        task = jwt.encode({"sub": str(ATTEMPT)}, "k" * 64, algorithm="HS512")
        return asyncio.run(ask(self.door, f"/execution/{call}", f"Bearer {task}", headers=headers))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was logged."""
        return [json.loads(line) for line in self._lines.getvalue().splitlines()]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def _header(answer: Answer) -> str:
    return dict(answer.messages[0]["headers"]).get(HEADER, b"").decode()


def _job(attempt: str) -> bytes:
    fields = {"dag_id": "etl", "task_id": "load", "run_id": "manual__1", "map_index": -1, "try_number": 1}
    return json.dumps({**fields, "command": {"ti": {"id": attempt}}}).encode()


def test_fetch_that_hands_out_an_attempt_is_about_it(rig: Rig) -> None:
    rig.answer = _job(str(ATTEMPT))
    assert _header(rig.edge("POST", FETCH, FETCH_BODY)) == str(ATTEMPT)
    (line,) = rig.lines
    assert (line["worker"], line["status"], line["correlation_id"]) == (WORKER, 200, str(ATTEMPT))
    assert line["call"] == f"POST /edge_worker/v1/{FETCH}"
    assert line["logger"] == "airbridge.access"
    assert line["duration_ms"] >= 0


def test_fetch_that_hands_out_nothing_is_about_nothing(rig: Rig) -> None:
    assert _header(rig.edge("POST", FETCH, FETCH_BODY)) == ""
    assert rig.lines[0]["correlation_id"] == ""


@pytest.mark.parametrize(
    ("verb", "call"), [("PATCH", f"jobs/state/{JOB_PATH}/running"), ("POST", f"logs/push/{JOB_PATH}")]
)
def test_calls_about_a_job_carry_the_id_of_its_attempt(rig: Rig, verb: str, call: str) -> None:
    assert _header(rig.edge(verb, call)) == str(ATTEMPT)
    assert rig.lines[0]["correlation_id"] == str(ATTEMPT)
    assert rig.bound == [{"correlation_id": str(ATTEMPT)}]


def test_task_call_carries_the_id_of_its_token(rig: Rig) -> None:
    headers = ((b"x-airbridge-door", b"edge"), (b"x-airbridge-token", f"{WORKER}.{SECRET}".encode()))
    assert _header(rig.execute(f"task-instances/{ATTEMPT}/previous-successful-dagrun", *headers)) == str(
        ATTEMPT
    )
    assert (rig.lines[0]["worker"], rig.lines[0]["correlation_id"]) == (WORKER, str(ATTEMPT))


def test_task_on_the_control_plane_is_logged_without_a_worker(rig: Rig) -> None:
    rig.ledger.tasks.clear()  # no job of an edge worker
    assert _header(rig.execute(f"task-instances/{ATTEMPT}/run")) == str(ATTEMPT)
    assert (rig.lines[0]["worker"], rig.lines[0]["correlation_id"]) == ("", str(ATTEMPT))


def test_token_of_an_edge_task_works_through_the_edge_door_only(rig: Rig) -> None:
    """As if it had been stolen, and shown at the door of people."""
    answer = rig.execute("connections/warehouse")
    assert (answer.status, answer.json["reason"]) == (403, "task_not_here")
    assert rig.asked == []


def test_refusal_tells_the_log_whose_attempt_it_was_and_not_the_caller(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.ledger.jobs[KEY] = Job(NEIGHBOUR, "running", ATTEMPT)
    answer = rig.edge("PATCH", f"jobs/state/{JOB_PATH}/success")
    assert (answer.status, _header(answer)) == (403, "")
    assert str(ATTEMPT) not in json.dumps(answer.json)
    assert rig.lines[0]["correlation_id"] == str(ATTEMPT)
    assert json.loads(capsys.readouterr().out)["correlation_id"] == str(ATTEMPT)


def test_answer_with_many_attempts_names_as_many_as_a_header_has_room_for() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    ids = [str(uuid.uuid4()) for _ in range(200)]
    exchange = Exchange(send, "POST /airbridge/v1/jobs/north")
    exchange.is_about_several(iter(ids))
    asyncio.run(exchange.send({"type": "http.response.start", "status": 200, "headers": []}))
    ((name, value),) = sent[0]["headers"]
    assert name == b"x-airbridge-correlation-id"
    assert value.decode().split(",") == ids[:128]
    assert len(value) < 8190  # what aiohttp, which the courier is made of, takes of a header


def test_strangers_do_not_fill_the_log(rig: Rig) -> None:
    call = f"/edge_worker/v1/{FETCH}"
    forged = token(FETCH, secret="f" * 64)
    assert asyncio.run(ask(rig.door, call, forged, method="POST", body=FETCH_BODY)).status == 403
    rig.execute("variables/x", (b"x-airbridge-door", b"edge"))
    assert rig.lines == []


# --- no more jobs at once than the enrolment says -----------------------------------------------------


@pytest.mark.parametrize(("held", "asked"), [(0, 4), (1, 3), (3, 1)])
def test_worker_is_handed_what_its_enrolment_leaves_free(rig: Rig, held: int, asked: int) -> None:
    rig.ledger.held = held  # of the four that the worker is enrolled for
    rig.edge("POST", FETCH, FETCH_BODY)
    body = json.loads(rig.asked[0]["body"])
    assert body == {"queues": ["default"], "free_concurrency": asked}
    assert int(rig.asked[0]["headers"].get(b"content-length", len(rig.asked[0]["body"]))) == len(
        rig.asked[0]["body"]
    )


@pytest.mark.parametrize("held", [4, 5])
def test_worker_that_runs_all_it_may_is_handed_nothing(rig: Rig, held: int) -> None:
    rig.ledger.held = held
    answer = rig.edge("POST", FETCH, FETCH_BODY)
    assert (answer.status, answer.json) == (200, None)
    assert rig.asked == []
    assert rig.ledger.open_turns == 0


def test_fetches_of_one_worker_pass_one_after_the_other(rig: Rig) -> None:
    most = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal most
        most = max(most, rig.ledger.open_turns)
        await asyncio.sleep(0.01)
        await rig._behind(scope, receive, send)

    async def flood() -> None:
        rig.door._inner = slow
        requests = (
            ask(rig.door, f"/edge_worker/v1/{FETCH}", token(FETCH), method="POST", body=FETCH_BODY)
            for _ in range(10)
        )
        answers = await asyncio.gather(*requests)
        # Nobody piles up: the worker asks again in a second.
        assert {(answer.status, answer.json) for answer in answers} == {(200, None)}

    asyncio.run(flood())
    assert (most, len(rig.asked), rig.ledger.open_turns) == (1, 4, 0)


def test_turn_ends_when_the_edge_api_fails(rig: Rig) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the edge API died")

    rig.door._inner = broken
    with pytest.raises(RuntimeError):
        rig.edge("POST", FETCH, FETCH_BODY)
    assert rig.ledger.open_turns == 0
