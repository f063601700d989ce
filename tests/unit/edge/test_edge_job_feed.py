"""The held question for jobs, against an HTTP server on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from airbridge.edge._job_feed import JobFeed

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s" * 64
JOB = {"dag_id": "dag", "task_id": "task"}


class ControlPlane:
    """Gives the answers that it was told to give, in turn, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.connections: set[int] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, self.headers["Authorization"], body))
                outer.connections.add(self.client_address[1])
                status, answer = outer.answers.pop(0)
                if not status:
                    self.close_connection = True  # cut in the middle
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    made = ControlPlane()
    yield made
    made.server.shutdown()
    made.server.server_close()


def _jobs(control_plane: ControlPlane, times: int = 1) -> list[list[dict[str, Any]]]:
    async def ask() -> list[list[dict[str, Any]]]:
        async with JobFeed(control_plane.url, "north-1", SECRET) as feed:
            return [await feed.jobs(["a"], 2, [("dag", "old", "run", -1, 1)]) for _ in range(times)]

    return asyncio.run(ask())


def test_question_is_signed_for_its_path_and_says_what_the_worker_has(control_plane: ControlPlane) -> None:
    control_plane.answers = [(200, json.dumps({"jobs": [JOB]}).encode())]
    assert _jobs(control_plane) == [[JOB]]
    ((path, authorization, body),) = control_plane.asked
    assert path == "/airbridge/v1/jobs/north-1"
    claims = jwt.decode(authorization, SECRET, algorithms=["HS512"], audience="api")
    assert (claims["iss"], claims["method"]) == ("north-1", "jobs/north-1")
    assert body == {"queues": ["a"], "slots": 2, "wait": 50.0, "holding": [["dag", "old", "run", -1, 1]]}


def test_worker_in_the_place_of_a_killed_one_asks_what_that_one_ran(control_plane: ControlPlane) -> None:
    control_plane.answers = [(503, b""), (200, b'{"jobs": [], "lost": [["dag", "task", "run", -1, 2]]}')]

    async def ask() -> list[Any]:
        async with JobFeed(control_plane.url, "north-1", SECRET) as feed:
            return await feed.lost(["a"])

    assert asyncio.run(ask()) == [("dag", "task", "run", -1, 2)]
    assert control_plane.asked[-1][2] == {"queues": ["a"], "slots": 0, "restarted": True}


def test_questions_share_one_connection(control_plane: ControlPlane) -> None:
    control_plane.answers = [(200, b'{"jobs": []}')] * 3
    assert _jobs(control_plane, 3) == [[], [], []]
    assert len(control_plane.connections) == 1


@pytest.mark.parametrize(
    "trouble",
    [(503, b"later"), (502, b""), (403, b"{}"), (429, b""), (200, b"not json"), (200, b"[]"), (0, b"")],
    ids=["503", "502", "403", "429", "no JSON", "no jobs", "cut"],
)
def test_whatever_goes_wrong_is_tried_again(control_plane: ControlPlane, trouble: tuple[int, bytes]) -> None:
    control_plane.answers = [trouble, (200, b'{"jobs": []}')]
    assert _jobs(control_plane) == [[]]
    assert len(control_plane.asked) == 2
