"""What the DAG bundle asks dag-sync, against answers that a dag-sync gives and others that none does."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from airbridge.errors import RefusedError, UnreachableError
from airbridge.sync.client import request_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TREE = "ab" * 32


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """Return a function that starts a server with one answer, and returns its address."""
    servers: list[HTTPServer] = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(status if self.path == f"/trees/{TREE}" else 418)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_tree_that_was_fetched(answering: Callable[[int, bytes], str]) -> None:
    url = answering(200, b'{"tree": "x", "fetched": 7}\n')
    assert request_tree(url, TREE, 5) == 7
    assert request_tree(f"{url}/", TREE, 5) == 7


def test_a_proxy_of_the_host_is_not_asked(
    answering: Callable[[int, bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert request_tree(answering(200, b'{"fetched": 0}'), TREE, 5) == 0


def test_a_tree_that_nobody_knows_is_refused_with_the_reason(answering: Callable[[int, bytes], str]) -> None:
    with pytest.raises(RefusedError, match="dag-sync: no tree"):
        request_tree(answering(404, b'{"reason": "no tree ..."}'), TREE, 5)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b'{"reason": "S3 is away"}', "S3 is away"),
        (503, b"", "answered 503"),
        (502, b"<html>", "answered 502"),
        (200, b"<html>", "no dag-sync"),
        (200, b"[]", "no dag-sync"),
        (200, b"{}", "no dag-sync"),
    ],
)
def test_anything_else_is_worth_another_try(
    answering: Callable[[int, bytes], str], status: int, body: bytes, said: str
) -> None:
    with pytest.raises(UnreachableError, match=said):
        request_tree(answering(status, body), TREE, 5)


def test_nobody_there_and_nobody_answering_are_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UnreachableError, match="does not answer"):
            request_tree(f"http://127.0.0.1:{port}", TREE, 0.2)
    with pytest.raises(UnreachableError, match="does not answer"):
        request_tree(f"http://127.0.0.1:{port}", TREE, 5)


def test_a_task_pays_for_the_standard_library_only() -> None:
    script = "import sys, airbridge.sync.client; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"botocore", "pydantic", "structlog", "urllib3"} & set(modules.stdout.split())
