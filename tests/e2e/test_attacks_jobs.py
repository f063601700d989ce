"""The held question for jobs under attack: by who has one worker's credential, and wants another's jobs.

Each attack is counted (``_attacks``). No edge host is needed: workers here are credentials. The last test is
about an answer that never arrives, which must not give a worker's job to anybody else either.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from _attacker import claims_of_worker, forged
from _attacks import attacks
from _edge_door import OURS, EdgeDoor, reason
from _stack import until
from _trouble import psql

from airbridge.credential import Credential
from airbridge.edge.token import request_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from _stack import Run, Stack

MINE, THEIRS, HELD, LOST = "jobs-mine", "jobs-theirs", "jobs-held", "jobs-lost"
# Longer than anything that has to happen meanwhile; no call may be held to its end.
HELD_S = 50.0
# In which a revocation is in force, and some for the commands of the test.
SOON_S = 1.0

DAG = f"""
from airflow.sdk import dag, task

def define(queue, tasks):
    @dag(dag_id=f"attacks_{{queue}}", schedule=None)
    def waiting():
        @task(queue=queue)
        def work(number: int) -> int:
            return number

        work.expand(number=list(range(tasks)))

    waiting()

for queue, tasks in {{"{MINE}": 3, "{THEIRS}": 2, "{HELD}": 1, "{LOST}": 3}}.items():
    define(queue, tasks)
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Four workers, and a run with tasks of each of the first two."""

    stack: Stack
    door: EdgeDoor
    workers: dict[str, Credential]
    runs: dict[str, Run]

    def ask(self, who: str, name: str = "", **body: Any) -> httpx.Response:
        """Ask for jobs of ``who``, under the path of ``name``."""
        asked = {"queues": [who], "slots": 1, "wait": 0, **body}
        return self.door.call(self.workers[who], "POST", f"jobs/{name or who}", asked, OURS)

    def states(self, queue: str) -> set[str]:
        """State and worker of the jobs in a queue."""
        rows = psql(self.stack, f"SELECT state, edge_worker FROM edge_job WHERE queue = '{queue}'")
        return set(rows.splitlines())


def _keys(run: Run, number: int) -> list[list[Any]]:
    return [[run.dag_id, "work", run.run_id, index, 1] for index in range(number)]


def _jobs(answer: httpx.Response) -> list[Any]:
    found: list[Any] = answer.json()["jobs"] if answer.status_code == 200 else []
    return found


def _queued(stack: Stack, queue: str, number: int) -> None:
    count = f"SELECT count(*) FROM edge_job WHERE queue = '{queue}' AND state = 'queued'"
    until(f"{number} jobs of {queue} are queued", lambda: psql(stack, count) == str(number))


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    key = stack.put_dag("attacks_jobs", "attacks_jobs.py", DAG)
    workers = {
        name: Credential.parse(
            stack.identity(
                "enroll", name, "--queues", name, "--concurrency", "2", "--credential"
            ).stdout.strip()
        )
        for name in (MINE, THEIRS, HELD, LOST)
    }
    runs = {name: stack.trigger(f"attacks_{name}") for name in (MINE, THEIRS)}
    _queued(stack, MINE, 3)
    _queued(stack, THEIRS, 2)
    yield Scene(stack, EdgeDoor.of(stack), workers, runs)
    for name in workers:
        stack.identity("revoke", name, check=False)
    stack.unpublish([key])


def _refused(scene: Scene, name: str, answer: httpx.Response) -> None:
    attacks.tried(f"held call: {name}", answer.status_code < 400, f"{answer.status_code} {answer.text[:300]}")
    assert not answer.is_server_error, f"{name}: the edge door breaks instead of refusing"
    assert scene.states(THEIRS) == {"queued|"}, name


# --- another's jobs ---------------------------------------------------------------------------------


def test_jobs_of_another_worker_are_not_handed_out(scene: Scene) -> None:
    mine, theirs = scene.workers[MINE], scene.workers[THEIRS]
    for body in (
        {"queues": [THEIRS]},
        {"queues": [MINE, THEIRS]},
        {"queues": ["default"]},
        {"queues": ["*"]},
        {"queues": []},
        {"queues": None},
        {"queues": [f"{THEIRS}' OR '1'='1"]},
        {"queues": [MINE] * 300},
        {"queues": {MINE: THEIRS}},
    ):
        _refused(scene, f"queues {str(body)[:60]}", scene.ask(MINE, **body))
    _refused(scene, "another's path", scene.ask(MINE, THEIRS))
    impostor = Credential(THEIRS, mine.secret)
    asked = {"queues": [THEIRS], "slots": 1}
    _refused(scene, "another's name", scene.door.call(impostor, "POST", f"jobs/{THEIRS}", asked, prefix=OURS))
    for path in (f"jobs/{MINE}/../{THEIRS}", f"jobs/{MINE}%2F..%2F{THEIRS}", f"jobs//{THEIRS}", "jobs/"):
        headers = request_headers(mine.secret, MINE, path)
        _refused(scene, f"path {path}", scene.door.send("POST", OURS + path, headers, asked))
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        headers = request_headers(theirs.secret, THEIRS, f"jobs/{THEIRS}")
        _refused(scene, method, scene.door.send(method, f"{OURS}jobs/{THEIRS}", headers, asked))


def test_lies_about_what_it_holds_give_a_worker_nothing(scene: Scene) -> None:
    lies = [*_keys(scene.runs[THEIRS], 2), ["no", "such", "job", -1, 1], ["*", "%", "_", 0, 0]]
    for body in ({"holding": lies}, {"holding": lies, "restarted": True}, {"restarted": True}):
        answer = scene.ask(MINE, slots=0, **body)
        given = answer.json()["jobs"] or answer.json().get("lost")
        attacks.tried(f"held call: lies {list(body)}", bool(given), answer.text[:300])
    assert scene.states(THEIRS) == {"queued|"}


@pytest.mark.parametrize(
    "body",
    [
        {"slots": -1},
        {"slots": 10**9},
        {"slots": 1.5},
        {"slots": "1"},
        {"slots": True},
        {"slots": None},
        {"wait": -1},
        {"wait": 10**6},
        {"wait": "soon"},
        {"wait": float("inf")},
        {"holding": [["dag", "task", "run", "-1", 1]]},
        {"holding": [["dag"]]},
        {"holding": "all"},
        {"holding": [["d" * 300, "task", "run", -1, 1]]},
        {"restarted": 1},
        {"concurrency": 99},
        {"worker": THEIRS},
    ],
    ids=lambda body: str(body)[:32],
)
def test_question_with_wrong_values_is_refused_in_words(scene: Scene, body: dict[str, Any]) -> None:
    asked = json.dumps({"queues": [MINE], "slots": 1, "wait": 0, **body}).encode()
    headers = request_headers(scene.workers[MINE].secret, MINE, f"jobs/{MINE}")
    answer = scene.door.raw("POST", f"{OURS}jobs/{MINE}", headers, asked)
    _refused(scene, f"wrong values {body}", answer)
    assert (answer.status_code, reason(answer)) == (400, "body_invalid")
    assert answer.json()["detail"].startswith("not a request for jobs: ")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b"{" * 30_000, 400),
        (b'{"queues": ["\xff"]}', 400),
        (
            json.dumps({"queues": [MINE], "slots": 1, "holding": [["x" * 200] * 3 + [1, 1]] * 400}).encode(),
            413,
        ),
        (b" " * 1_000_000, 413),
    ],
    ids=["empty", "null", "list", "deep", "no UTF-8", "long list", "long"],
)
def test_body_that_is_no_question_is_refused(scene: Scene, body: bytes, status: int) -> None:
    headers = request_headers(scene.workers[MINE].secret, MINE, f"jobs/{MINE}")
    answer = scene.door.raw("POST", f"{OURS}jobs/{MINE}", headers, body)
    _refused(scene, f"body {body[:16]!r}", answer)
    assert answer.status_code == status


def test_token_of_another_time_or_call_asks_for_no_jobs(scene: Scene) -> None:
    secret, call = scene.workers[THEIRS].secret.encode(), f"jobs/{THEIRS}"
    now = int(time.time())
    tokens = {
        "expired": claims_of_worker(THEIRS, call, iat=now - 200, nbf=now - 200, exp=now - 170),
        "of the future": claims_of_worker(THEIRS, call, iat=now + 200, nbf=now + 200, exp=now + 230),
        "long-lived": claims_of_worker(THEIRS, call, exp=now + 86_400),
        "of a fetch": claims_of_worker(THEIRS, f"jobs/fetch/{THEIRS}"),
        "of a heartbeat": claims_of_worker(THEIRS, f"worker/{THEIRS}"),
        "of another worker's question": claims_of_worker(THEIRS, f"jobs/{MINE}"),
        "of a version": claims_of_worker(THEIRS, "version"),
        "of no call": claims_of_worker(THEIRS, call, method=None),
    }
    asked = {"queues": [THEIRS], "slots": 1, "wait": 0}
    for name, claims in tokens.items():
        headers = {"Authorization": forged(claims, secret)}
        _refused(scene, f"token {name}", scene.door.send("POST", OURS + call, headers, asked))
    # And a token of this call is good for no other.
    held = {"Authorization": forged(claims_of_worker(THEIRS, call), secret)}
    for method, path in (
        ("POST", f"/edge_worker/v1/jobs/fetch/{THEIRS}"),
        ("PATCH", f"/edge_worker/v1/worker/{THEIRS}"),
        ("GET", f"{OURS}workers/{THEIRS}"),
        ("POST", f"{OURS}certificate"),
    ):
        body = {"queues": [THEIRS], "free_concurrency": 1, "state": "idle", "jobs_active": 0, "sysinfo": {}}
        _refused(scene, f"its token at {path}", scene.door.send(method, path, held, body))
    for name, headers in {
        "no token": {},
        "the credential itself": {"Authorization": scene.workers[THEIRS].text},
        "the uplink's header alone": {"X-AirBridge-Token": scene.workers[THEIRS].text},
        "a claim to be inside": {"X-AirBridge-Door": "inside"},
    }.items():
        _refused(scene, name, scene.door.send("POST", OURS + call, headers, asked))


# --- more than its share ----------------------------------------------------------------------------


def test_worker_is_handed_no_more_than_it_is_enrolled_for_and_many_questions_harm_nobody(
    scene: Scene,
) -> None:
    """Enrolled for two; these are handed out again until they are reported, and nothing beside them."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: scene.ask(MINE, slots=100), range(48)))
    handed = {job["map_index"] for answer in answers for job in _jobs(answer)}
    attacks.tried("held call: more jobs than the enrolment allows", len(handed) > 2, handed)
    for answer in answers:
        attacks.tried("held call: more jobs in one answer", len(_jobs(answer)) > 2, answer.text[:300])
    assert len(handed) == 2
    # A hundred held questions of one worker are one, and another's is answered meanwhile.
    with ThreadPoolExecutor(24) as pool:
        holding = [["attacks_" + MINE, "work", scene.runs[MINE].run_id, index, 1] for index in handed]
        waiting = [pool.submit(scene.ask, MINE, slots=1, wait=3, holding=holding) for _ in range(96)]
        began = time.monotonic()
        assert _jobs(scene.ask(HELD, wait=0.2)) == []
        attacks.tried("held call: others wait behind a flood", time.monotonic() - began > 10, "")
        assert all(one.result().status_code in (200, 503) for one in waiting)


# --- while it is held -------------------------------------------------------------------------------


def test_worker_that_is_revoked_while_its_call_is_held_is_refused_at_once_and_gets_no_job(
    scene: Scene,
) -> None:
    stack = scene.stack
    stack.unpause(f"attacks_{HELD}")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(scene.ask, HELD, wait=HELD_S)
        time.sleep(2)
        assert not call.done()
        stack.identity("revoke", HELD)
        revoked = time.monotonic()
        answer = call.result()
        took = time.monotonic() - revoked
    attacks.tried("held call: of a worker that was revoked", answer.status_code == 200, answer.text[:300])
    assert reason(answer) == "worker_revoked"
    assert took < SOON_S
    attacks.note(
        f"a held call was refused {took:.2f} s after the command that revoked its worker had returned"
    )
    stack.trigger(f"attacks_{HELD}")
    _queued(stack, HELD, 1)
    refused = scene.ask(HELD, wait=2)
    attacks.tried("held call: after a revocation", refused.status_code == 200, refused.text[:300])
    assert scene.states(HELD) == {"queued|"}


def _hold_and_hang_up(scene: Scene, who: str, handed: str) -> None:
    """Ask over a connection of our own, and close it once the answer is on its way, without reading it."""
    credential = scene.workers[who]
    body = json.dumps({"queues": [who], "slots": 2, "wait": HELD_S}).encode()
    token = request_headers(credential.secret, who, f"jobs/{who}")
    lines = [
        f"POST {OURS}jobs/{who} HTTP/1.1",
        "Host: host.docker.internal",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in token.items()),
    ]
    context = ssl.create_default_context(cadata=scene.stack.gateway_ca)
    with (
        socket.create_connection(("127.0.0.1", scene.stack.gateway_port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="host.docker.internal") as line,
    ):
        line.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        time.sleep(0.5)
        scene.stack.trigger(f"attacks_{who}")
        until("the jobs are handed out", lambda: handed in scene.states(who))


def test_jobs_of_an_answer_that_never_arrived_go_to_the_same_worker_at_once_and_to_no_other(
    scene: Scene,
) -> None:
    stack = scene.stack
    stack.unpause(f"attacks_{LOST}")
    stack.identity("enroll", "jobs-neighbour", "--queues", LOST, "--concurrency", "8", "--credential")
    neighbour = Credential.parse(stack.identity("rotate", "jobs-neighbour").stdout.strip())
    _hold_and_hang_up(scene, LOST, f"restarting|{LOST}")

    def neighbours() -> set[int]:
        body = {"queues": [LOST], "slots": 8, "wait": 0}
        answer = scene.door.call(neighbour, "POST", f"jobs/{neighbour.name}", body, OURS)
        return {job["map_index"] for job in _jobs(answer)}

    theirs = neighbours()
    again = _jobs(scene.ask(LOST, slots=2))
    lost = {job["map_index"] for job in again}
    assert lost
    attacks.tried("held call: a job of a lost answer goes to another", bool(theirs & lost), theirs)
    # Again, as long as it is not listed; never once it is.
    assert {job["map_index"] for job in _jobs(scene.ask(LOST, slots=2))} == lost
    holding = [[one["dag_id"], one["task_id"], one["run_id"], one["map_index"], 1] for one in again]
    assert not lost & {job["map_index"] for job in _jobs(scene.ask(LOST, slots=0, holding=holding))}
    assert not lost & neighbours()
    stack.identity("revoke", "jobs-neighbour")
