"""A control plane that fails as it is told, and a courier process in front of it."""

from __future__ import annotations

import http.server
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jwt

from airbridge.courier_status import CourierStatus, read_status
from airbridge.edge.token import request_token
from airbridge.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RUN", "SECRET", "TASK", "WORKER", "Courier", "Peer", "Seen", "until"]

ROOT = Path(__file__).parents[3]
WORKER = "plant-7"
SECRET = "s" * 64
RUN = "manual__2026-11-21T10:00:00+00:00"
TASK = "0199a0b1-0000-7000-8000-000000000001"
_PATIENCE_S = 60.0


def until(what: str, probe: Callable[[], object]) -> None:
    """Return once ``probe`` is true."""
    deadline = time.monotonic() + _PATIENCE_S
    while not probe():
        assert time.monotonic() < deadline, f"{what}: not within {_PATIENCE_S:g} s"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that the peer has processed."""

    verb: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


@dataclass(slots=True)
class Script:
    """What the peer does with requests, until it is told something else."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    """Process the request, then hang up instead of answering."""
    only: str = ""
    """Only with paths that hold this text; the others are answered."""


class Peer:
    """An HTTP server on loopback in the place of uplink, gateway and api-server."""

    def __init__(self) -> None:
        self.script: Script | None = None
        self.seen: list[Seen] = []
        self.jobs: list[dict[str, Any]] = []
        self.handed: dict[str, dict[str, Any]] = {}
        self.held = 0
        """Questions for jobs that were held, until now."""
        self.hung_up = 0
        """Held questions for jobs whose connection was closed before they were answered."""
        self._lock = threading.Lock()
        self._port = 0
        self._server: http.server.ThreadingHTTPServer | None = None
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                peer.serve(self, Seen(self.command, self.path, dict(self.headers), body))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients that were killed are what these tests are about

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def close(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            self.script = Script(cut=True)  # what is still connected

    def heal(self) -> None:
        """Answer again."""
        self.script = None
        if self._server is None:
            self.open()

    def serve(self, handler: http.server.BaseHTTPRequestHandler, request: Seen) -> None:
        script = self.script
        if script is not None and script.only in request.path:
            if script.cut:
                if self._server is not None:
                    self._process(request)
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
                return
            self._answer(handler, script.status, script.body, script.headers)
            return
        if request.path.startswith("/airbridge/v1/jobs/") and not self._hold(handler, request):
            return
        status, body = self._process(request)
        self._answer(handler, status, body, {"Content-Type": "application/json"})

    def _hold(self, handler: http.server.BaseHTTPRequestHandler, request: Seen) -> bool:
        """Wait for jobs as long as the question says; False: who asked has gone."""
        self.held += 1
        deadline = time.monotonic() + request.json["wait"]
        while not self.jobs and time.monotonic() < deadline:
            if select.select([handler.connection], [], [], 0.05)[0]:
                self.hung_up += 1
                handler.close_connection = True
                return False
        return True

    @staticmethod
    def _answer(
        handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def _process(self, request: Seen) -> tuple[int, bytes]:
        """Do what the control plane does."""
        if request.path.startswith("/airbridge/v1/version"):
            return 200, b"{}"
        with self._lock:
            self.seen.append(request)
            if request.path.startswith("/airbridge/v1/jobs/"):
                jobs, self.jobs = self.jobs, []
                return 200, json.dumps({"jobs": jobs}).encode()
            if "/jobs/fetch/" in request.path:
                number = request.headers["X-AirBridge-Fetch"]
                if number not in self.handed and self.jobs:
                    self.handed[number] = self.jobs.pop(0)
                return 200, json.dumps(self.handed.get(number)).encode()
        if request.verb == "PATCH" and "/worker/" in request.path:
            said = request.json
            return 200, json.dumps({"state": said["state"], "queues": ["default", "added"]}).encode()
        if request.path.startswith("/execution/") and request.verb != "GET":
            return 204, b""
        return 200, b'"an answer"'

    def reports(self) -> list[str]:
        """Bodies or states of the reports that were processed, in order."""
        with self._lock:
            return [
                request.path.rpartition("/")[2] if "/jobs/state/" in request.path else request.body.decode()
                for request in self.seen
                if "/jobs/state/" in request.path or "/logs/push/" in request.path or "/state" in request.path
            ]


class Courier:
    """A courier process, and the calls that a worker and its tasks make through it."""

    def __init__(self, peer: Peer, spool: Path, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = spool.parent / "courier.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "src"),
            "WORKER_NAME": WORKER,
            "CONTROL_PLANE_TOKEN": f"{WORKER}.{SECRET}",
            "UPLINK_URL": peer.url,
            "COURIER_SPOOL": str(spool),
            "COURIER_PORT": str(port),
            **settings,
        }
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the process and wait until it serves."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airbridge.courier"],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until("the courier serves", self._serves)

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.said
        try:
            self.status()
        except UnreachableError:
            return False
        return True

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> int:
        """End it as Docker does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def status(self) -> CourierStatus:
        """How it is."""
        return read_status(self.url)

    def wait_until(self, *, away: bool) -> None:
        """Return once it has made up its mind."""
        until(f"the courier says {'away' if away else 'there'}", lambda: self.status().away is away)

    def wait_until_delivered(self) -> None:
        """Return once its spool is empty."""
        until("everything is delivered", lambda: self.status().waiting == 0)

    # --- as the worker ----------------------------------------------------------------------------

    def edge(self, verb: str, path: str, body: object = None, secret: str = SECRET) -> httpx.Response:
        """A call of the edge API, as the stock worker signs it."""
        headers = {"Authorization": request_token(secret, WORKER, path), "Content-Type": "application/json"}
        return self.http.request(
            verb, f"/edge_worker/v1/{path}", content=json.dumps(body).encode(), headers=headers
        )

    def job_state(self, state: str, task: str = "extract") -> httpx.Response:
        return self.edge("PATCH", f"jobs/state/etl/{task}/{RUN}/1/-1/{state}")

    def log(self, text: str, task: str = "extract") -> httpx.Response:
        body = {
            "log_chunk_time": f"2026-11-21T10:00:00.{abs(hash(text)) % 10**6:06}+00:00",
            "log_chunk_data": text,
        }
        return self.edge("POST", f"logs/push/etl/{task}/{RUN}/1/-1", body)

    def heartbeat(self, state: str = "running") -> httpx.Response:
        return self.edge("PATCH", f"worker/{WORKER}", {"state": state, "queues": ["default"], "sysinfo": {}})

    def fetch(self) -> Any:
        answer = self.edge("POST", f"jobs/fetch/{WORKER}", {"queues": ["default"], "free_concurrency": 4})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def jobs(self, wait: float = 20.0, patience: float = 30.0) -> Any:
        """The held question of AirBridge's own worker."""
        path = f"jobs/{WORKER}"
        body = {"queues": ["default"], "slots": 4, "wait": wait, "holding": []}
        headers = {"Authorization": request_token(SECRET, WORKER, path), "Content-Type": "application/json"}
        answer = self.http.post(f"/airbridge/v1/{path}", json=body, headers=headers, timeout=patience)
        assert answer.status_code == 200, answer.text
        return answer.json()["jobs"]

    # --- as a task --------------------------------------------------------------------------------

    def task(self, verb: str, path: str, body: object = None) -> httpx.Response:
        """A call of the Execution API, as the Task SDK makes it."""
        headers = {"Authorization": f"Bearer {jwt.encode({'sub': TASK}, 'k' * 32)}"}
        return self.http.request(
            verb, f"/execution/{path}", content=json.dumps(body).encode(), headers=headers
        )

    def task_state(self, state: str) -> httpx.Response:
        return self.task("PATCH", f"task-instances/{TASK}/state", {"state": state})

    def task_heartbeat(self) -> httpx.Response:
        return self.task("PUT", f"task-instances/{TASK}/heartbeat", {"pid": 1})
