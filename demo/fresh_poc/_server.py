"""HTTP around a service: one thread a call, JSON errors, and a stop that finishes what was begun."""

from __future__ import annotations

import logging
import signal
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from ._errors import ServiceError
from ._logging import event
from ._service import Answer

if TYPE_CHECKING:
    from ._service import Service
    from ._settings import Settings

__all__ = ["Server", "serve"]

# A client that says nothing must not hold a thread, nor a stop.
_SOCKET_TIMEOUT_SECONDS = 2.0
_MAX_BODY_BYTES = 64 * 1024
_MAX_PARAMS = 20
_POLL_SECONDS = 0.1


class Server(ThreadingHTTPServer):
    """Listens for one service. ``server_close`` waits for the calls that are under way."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        super().__init__((settings.host, settings.port), _Handler)

    @property
    def port(self) -> int:
        """The port it really listens on."""
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: every call closes its connection, so that no idle one delays a stop."""

    server: Server
    timeout = _SOCKET_TIMEOUT_SECONDS
    server_version = "fresh-poc"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a call. FreshPoC's contract triggers with GET; calls are idempotent per run id."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a call; everything it says is in the query, a body is read and ignored."""
        self._answer()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send JSON where the standard library would send HTML."""
        self._send(Answer.of_json({"error": message or explain or HTTPStatus(code).phrase}, code))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: every call is logged once, as JSON, when it is answered."""

    def _answer(self) -> None:
        began = time.monotonic()
        url = urlsplit(self.path)
        params: dict[str, str] = {}
        error = ""
        try:
            self._drop_body()
            params = _params(url.query)
            answer = self.server.service.answer(url.path, params)
        except ServiceError as problem:
            error = problem.what
            answer = Answer.of_json({"error": error, "service": self.server.service.name}, problem.status)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            event("call broke", level=logging.ERROR, exc_info=True, path=url.path)
            answer = Answer.of_json({"error": "internal error", "service": self.server.service.name}, 500)
        if url.path != "/healthz" or error:
            event(
                "call answered",
                level=logging.WARNING if error else logging.INFO,
                method=self.command,
                path=url.path,
                run_id=params.get("run_id"),
                attempt=self.headers.get("X-Attempt"),
                status=answer.status,
                ms=round((time.monotonic() - began) * 1000, 1),
                error=error,
            )
        self._send(answer)

    def _drop_body(self) -> None:
        text = self.headers.get("Content-Length", "0")
        if not (text.isascii() and text.isdigit()):
            raise ServiceError(400, "Content-Length is no number")
        if int(text) > _MAX_BODY_BYTES:
            raise ServiceError(413, f"a body has at most {_MAX_BODY_BYTES} bytes")
        self.rfile.read(int(text))

    def _send(self, answer: Answer) -> None:
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
        except OSError as error:
            event("caller hung up", level=logging.WARNING, path=self.path, error=str(error))


def _params(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMS, errors="strict")
    except ValueError as error:
        raise ServiceError(400, f"the query is malformed: {error}") from error
    params = dict(pairs)
    if len(params) != len(pairs):
        raise ServiceError(400, "a parameter appears twice")
    return params


def serve(server: Server) -> None:
    """Serve until SIGTERM or SIGINT, then finish the calls that are under way."""

    def stop(number: int, _frame: object) -> None:
        event("stopping", signal=signal.Signals(number).name)
        # shutdown() waits for serve_forever(), which this very thread runs.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    event("listening", port=server.port)
    server.serve_forever(poll_interval=_POLL_SECONDS)
    server.server_close()
    event("stopped")
