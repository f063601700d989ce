"""One service as a process of its own: start, health, logs, stop, bad settings."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[3] / "demo"


def _start(tmp_path: Path, service: str = "ingestion", **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fresh_poc", service],
        cwd=DEMO,
        env={
            **os.environ,
            "DEMO_DATA_DIR": str(tmp_path),
            "DEMO_PORT": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _port(process: subprocess.Popen[str]) -> int:
    """Port of a service that just started."""
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line["event"] == "listening", line
    return int(line["port"])


def test_every_line_of_the_log_is_json_and_a_call_names_its_run_and_status(tmp_path: Path) -> None:
    process = _start(tmp_path)
    port = _port(process)
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/trigger?run_id=run-1", headers={"X-Attempt": "2"}
    )
    urllib.request.urlopen(request, timeout=5).close()
    urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=10)
    lines = [json.loads(line) for line in output.splitlines()]
    assert process.returncode == 0, errors
    assert errors == ""
    assert [line["event"] for line in lines] == ["call answered", "stopping", "stopped"]
    call = lines[0]
    assert call["ms"] >= 0
    assert {key: call[key] for key in ("service", "path", "run_id", "attempt", "status", "level")} == {
        "service": "ingestion",
        "path": "/trigger",
        "run_id": "run-1",
        "attempt": "2",
        "status": 200,
        "level": "info",
    }


def test_a_stop_finishes_the_call_that_is_under_way(tmp_path: Path) -> None:
    """The miner waits for a slow ingestion; it is told to stop meanwhile, and answers before it ends."""
    asked, go_on = threading.Event(), threading.Event()
    slow = socket.create_server(("127.0.0.1", 0))

    def slow_ingestion() -> None:
        connection, _ = slow.accept()
        with connection:
            connection.recv(4096)
            asked.set()
            assert go_on.wait(10)
            connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"repo": "r", "records": []}')

    ingestion = threading.Thread(target=slow_ingestion)
    ingestion.start()
    process = _start(tmp_path, "miner", DEMO_INGESTION_URL=f"http://127.0.0.1:{slow.getsockname()[1]}")
    port = _port(process)
    answers: list[bytes] = []

    def call() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/run?run_id=run-1", timeout=10) as answer:
            answers.append(answer.read())

    caller = threading.Thread(target=call)
    caller.start()
    assert asked.wait(10)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # longer than an idle service takes to stop
    assert process.poll() is None
    go_on.set()
    caller.join(10)
    ingestion.join(10)
    slow.close()
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert json.loads(answers[0])["models"] == 0


def test_a_client_that_says_nothing_does_not_delay_a_stop_by_more_than_its_timeout(tmp_path: Path) -> None:
    process = _start(tmp_path)
    with socket.create_connection(("127.0.0.1", _port(process))):
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
    assert process.returncode == 0
    assert time.monotonic() - began < 5


def test_check_follows_the_health_of_the_running_service(tmp_path: Path) -> None:
    process = _start(tmp_path)
    port = _port(process)

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fresh_poc", "--check"],
            cwd=DEMO,
            env={
                **os.environ,
                "DEMO_SERVICE": "ingestion",
                "DEMO_PORT": str(port),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    healthy = check()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    gone = check()
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert gone.returncode == 1
    assert "ingestion is not healthy" in gone.stderr


@pytest.mark.parametrize(
    ("service", "settings", "says"),
    [
        ("nobody", {}, "DEMO_SERVICE is 'nobody'"),
        ("miner", {"DEMO_PORT": "http"}, "DEMO_PORT is 'http'"),
        ("miner", {"DEMO_PORT": "65536"}, "DEMO_PORT is '65536'"),
        ("miner", {"DEMO_INGESTION_URL": "ingestion:8011"}, "DEMO_INGESTION_URL is 'ingestion:8011'"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name(
    tmp_path: Path, service: str, settings: dict[str, str], says: str
) -> None:
    process = _start(tmp_path, service, **settings)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert says in errors
    assert "Traceback" not in errors
    assert output == ""


def test_a_port_that_is_taken_stops_the_start_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        process = _start(tmp_path, DEMO_PORT=str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert errors.startswith("fresh_poc: ingestion cannot start: ")
    assert errors.count("\n") == 1
