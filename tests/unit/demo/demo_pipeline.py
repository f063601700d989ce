"""The five demo services, really listening on loopback."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from demo.fresh_poc.__main__ import SERVICES
from demo.fresh_poc._server import Server
from demo.fresh_poc._settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ACTIONS", "Pipeline"]

#: Service -> its action, in the order of the pipeline.
ACTIONS = {
    "ingestion": "/trigger",
    "miner": "/run",
    "analyzer": "/run",
    "writer": "/apply",
    "reporting": "/generate",
}


@dataclass
class Pipeline:
    """Starts, stops and calls the services; their data outlives a stop."""

    root: Path
    urls: dict[str, str] = field(default_factory=dict)
    _running: dict[str, tuple[Server, threading.Thread]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        settings = Settings(name, self.root / name, port=0, host="127.0.0.1", peers=self.urls)
        server = Server(SERVICES[name](settings), settings)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self._running[name] = (server, thread)
        self.urls[name] = f"http://127.0.0.1:{server.port}"

    def stop(self, name: str) -> None:
        server, thread = self._running.pop(name)
        server.shutdown()
        thread.join()
        server.server_close()

    def stop_all(self) -> None:
        for name in list(self._running):
            self.stop(name)

    def call(self, name: str, path: str, *, method: str = "GET", **query: str) -> tuple[int, Any]:
        """Status and JSON (or text) of one call."""
        url = f"{self.urls[name]}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, method=method, data=b"{}" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, _decoded(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error)

    def run(self, run_id: str) -> dict[str, Any]:
        """Run the whole pipeline once; every answer by service."""
        answers = {}
        for name, action in ACTIONS.items():
            status, answers[name] = self.call(name, action, run_id=run_id)
            assert status == 200, answers[name]
        return answers


def _decoded(answer: Any) -> Any:
    text = answer.read().decode()
    return json.loads(text) if answer.headers.get_content_type() == "application/json" else text
