"""Health checks and database access: whatever is wrong, it is one line and an exit code."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from airbridge.controlplane.__main__ import main
from airbridge.controlplane._database import connect
from airbridge.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@contextmanager
def _answering(answer: bytes) -> Iterator[int]:
    """A server on loopback that answers every request with these bytes."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _json_answer(body: object) -> bytes:
    payload = json.dumps(body).encode()
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + payload


def _health_of_api(monkeypatch: pytest.MonkeyPatch, port: int) -> int:
    monkeypatch.setenv("AIRFLOW__API__PORT", str(port))
    return main(["health", "api-server"])


def test_api_server_with_its_database_is_healthy(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with _answering(_json_answer({"metadatabase": {"status": "healthy"}})) as port:
        assert _health_of_api(monkeypatch, port) == 0
    assert capfd.readouterr().out == "api-server: answers, database healthy\n"


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (_json_answer({"metadatabase": {"status": "unhealthy"}}), 1, "runs without its database"),
        (_json_answer({"status": "ok"}), 1, "is not Airflow's API"),
        (_json_answer([]), 1, "is not Airflow's API"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", 1, "is not Airflow's API"),
        (b"HTTP/1.0 500 Internal Server Error\r\n\r\n", 3, "does not answer: HTTP Error 500"),
        (b"SSH-2.0-something\r\n", 3, "does not answer"),
        (b"", 3, "does not answer"),
    ],
)
def test_api_server_that_does_not_do_its_job_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    answer: bytes,
    code: int,
    says: str,
) -> None:
    with _answering(answer) as port:
        assert _health_of_api(monkeypatch, port) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err
    assert err.strip().count("\n") == 0


def test_api_server_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _health_of_api(monkeypatch, _free_port()) == 3
    assert "docker compose logs api-server" in capfd.readouterr().err


@pytest.mark.parametrize("value", [None, "", "sqlite:////tmp/airflow.db"])
@pytest.mark.parametrize("command", [["health", "scheduler"], ["migrate"]])
def test_connection_that_is_not_set_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    value: str | None,
    command: list[str],
) -> None:
    if value is None:
        monkeypatch.delenv(CONNECTION, raising=False)
    else:
        monkeypatch.setenv(CONNECTION, value)
    assert main(command) == 2
    assert CONNECTION in capfd.readouterr().err


def test_heartbeat_check_does_not_wait_for_a_postgres_that_is_away(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CONNECTION, f"postgresql+psycopg2://airflow:secret@127.0.0.1:{_free_port()}/airflow")
    assert main(["health", "scheduler"]) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert "Postgres cannot be used" in err
    assert "Connection refused" in err
    assert "secret" not in err


def test_waiting_for_postgres_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CONNECTION, f"postgresql+psycopg2://airflow:secret@127.0.0.1:{_free_port()}/airflow")
    with pytest.raises(UnreachableError, match="Postgres cannot be used"):
        connect(patience_s=1.5)
    assert capfd.readouterr().out.count("waiting for Postgres") == 1


def test_unknown_service_and_command_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (["health", "postgres"], ["nonsense"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "Traceback" not in capfd.readouterr().err
