"""``/healthz``, ``/metrics`` and ``POST /trees/<hash>``, each request on a thread of its own."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from airbridge.errors import AirbridgeError, SettingsError
from airbridge.sync._on_demand import UnknownTreeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

__all__ = ["serve"]

_IDLE_SECONDS = 5  # a client that sends nothing must not hold a thread


_TREES = "/trees/"


def serve(
    port: int,
    health: Callable[[], tuple[bool, dict[str, Any]]],
    registry: CollectorRegistry,
    fetch: Callable[[str], int],
) -> ThreadingHTTPServer:
    """Answer on ``port`` of all interfaces, from daemon threads.

    ``health`` returns whether, and why; ``fetch`` sees to it that the store has a tree, and returns how many
    files that took (see :meth:`airbridge.sync._on_demand.OnDemand.fetch`).
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _IDLE_SECONDS
        server_version = "dag-sync"
        sys_version = ""

        def do_GET(self) -> None:  # noqa: N802, RUF100  (the base class's name)
            path = self.path.partition("?")[0]
            if path == "/healthz":
                healthy, details = health()
                self._answer_json(200 if healthy else 503, details)
            elif path == "/metrics":
                health()  # brings the gauge up to date
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            else:
                self._answer(404, "text/plain", b"here are /healthz, /metrics and POST /trees/<hash>\n")

        do_HEAD = do_GET

        def do_POST(self) -> None:  # noqa: N802, RUF100  (the base class's name)
            path = self.path.partition("?")[0]
            if not path.startswith(_TREES):
                self._answer_json(404, {"reason": "here is POST /trees/<hash>", "fix": ""})
                return
            tree_hash = path.removeprefix(_TREES)
            try:
                fetched = fetch(tree_hash)
            except AirbridgeError as error:
                status = 404 if isinstance(error, UnknownTreeError) else 503
                self._answer_json(status, {"reason": error.what, "fix": error.fix})
            else:
                self._answer_json(200, {"tree": tree_hash, "fetched": fetched})

        def _answer_json(self, status: int, document: dict[str, Any]) -> None:
            self._answer(status, "application/json", json.dumps(document).encode() + b"\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent: a probe every few seconds is no news."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Stay silent: clients hang up."""

    try:
        server = Server(("", port), Handler)
    except OSError as error:
        raise SettingsError(
            f"HEALTH_PORT={port} cannot be used: {error.strerror}", fix="choose a free port"
        ) from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
