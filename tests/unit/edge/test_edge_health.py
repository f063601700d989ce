from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.unit.edge.edge_servers import SECRET, WORKER, free_port

from airbridge.edge.health import check
from airbridge.errors import AirbridgeError


@pytest.fixture
def joined(edge_host, servers, plane):
    url = f"http://127.0.0.1:{servers.start(plane)}"
    edge_host(UPLINK_URL=url, COURIER_URL=url)
    return plane


def _unhealthy() -> AirbridgeError:
    with pytest.raises(AirbridgeError) as caught:
        check(os.environ)
    assert caught.value.fix
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("state", ["idle", "running", "starting", "terminating", "maintenance mode"])
def test_worker_that_was_heard_of_lately_is_healthy(joined, state):
    joined.heartbeat(state=state, age=0.5)
    assert f"worker {WORKER} is {state}" in check(os.environ)


@pytest.mark.parametrize("state", ["offline", "unknown", "offline maintenance"])
def test_worker_that_is_gone_is_unhealthy(joined, state):
    joined.heartbeat(state=state)
    assert state in str(_unhealthy())


def test_three_missed_heartbeats_are_unhealthy(joined):
    joined.heartbeat(age=2.5)
    check(os.environ)
    joined.heartbeat(age=3.5)
    assert "3.5 s ago" in str(_unhealthy())


def test_worker_that_never_registered_is_unhealthy(joined):
    joined.heartbeat("another")
    assert "not registered" in str(_unhealthy())


def test_refused_token_is_unhealthy(joined, monkeypatch):
    joined.heartbeat()
    monkeypatch.setenv("CONTROL_PLANE_TOKEN", f"{WORKER}.{'w' * 64}")
    assert _unhealthy().exit_code == 4


def test_control_plane_that_is_away_is_unhealthy(joined, monkeypatch):
    joined.status = 502
    assert _unhealthy().exit_code == 3
    monkeypatch.setenv("UPLINK_URL", f"http://127.0.0.1:{free_port()}")
    assert _unhealthy().exit_code == 3


def test_health_check_program_answers_in_one_line_and_imports_little(joined, installed):
    joined.heartbeat()
    heavy = {"typer", "pydantic", "httpx", "jwt", "airflow"}
    code = (
        "import sys; from airbridge.edge.__main__ import main; sys.argv = ['x', 'health']\n"
        "try: main()\n"
        f"finally: print(*({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": installed},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("healthy: worker north-1 is idle")
    assert len(done.stdout.splitlines()) == 1
    assert "courier: control plane there, spool empty" in done.stdout
    assert done.stderr.strip() == "", "health must stay light"
