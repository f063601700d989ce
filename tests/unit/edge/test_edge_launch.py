"""``launch`` as a process: what it waits for, what it refuses, and what it becomes."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.controlplane.edge_requests import worker as enrolled
from tests.unit.edge.edge_servers import SECRET, WORKER, free_port

from airbridge.client_certificate import ClientCertificate
from airbridge.credential import Credential, JoinToken
from airbridge.edge._client_certificate import keep_certificate
from airbridge.identity.model import HeldCertificate

if TYPE_CHECKING:
    from collections.abc import Iterator

# What stands in for the stock worker: reports what it was started with, then heartbeats as the stock
# one does, calling the system information function before each.
WORKER_PROGRAM = """#!{python}
import asyncio, json, os, sys, time, urllib.request
from airbridge.edge.sysinfo import report
from airbridge.edge.token import request_headers

json.dump(
    {{"pid": os.getpid(), "arguments": sys.argv[1:], "environment": dict(os.environ)}},
    open(os.environ["TEST_REPORT"] + ".new", "w"),
)
os.rename(os.environ["TEST_REPORT"] + ".new", os.environ["TEST_REPORT"])
name = os.environ["AIRFLOW__API_AUTH__JWT_ISSUER"]
asyncio.run(report())
while True:
    info = asyncio.run(report())
    body = {{"state": "idle", "sysinfo": {{"airflow_version": "", "edge_provider_version": ""}} | info}}
    request = urllib.request.Request(
        os.environ["UPLINK_URL"] + "/edge_worker/v1/worker/" + name,
        json.dumps(body).encode(),
        request_headers({token!r}, name, "worker/" + name),
        method="PATCH",
    )
    urllib.request.urlopen(request).read()
    time.sleep(0.3)
"""


class Host:
    """An edge host whose launches are processes."""

    def __init__(self, folder: Path, pythonpath: str) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        self._processes: list[subprocess.Popen[str]] = []
        programs = folder / "bin"
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(Path(sys.executable).resolve())
        worker = programs / "airflow"
        worker.write_text(WORKER_PROGRAM.format(python=programs / "python", token=SECRET))
        worker.chmod(0o755)
        self.store = folder / "store"
        self.sync()
        self._environment = {
            "DAG_STORE": str(self.store),
            "PYTHONPATH": f"{pythonpath}:{sysconfig.get_path('purelib')}",
            "TEST_REPORT": str(self.report),
            # What starts is the stand-in for the provider's program above.
            "WORKER_RUNNER": "stock",
        }

    def sync(self) -> None:
        """Fill the DAG store, as the first pass of dag-sync does."""
        tree = self.store / "trees" / ("0" * 64)
        tree.mkdir(parents=True)
        (self.store / "current").symlink_to(tree.relative_to(self.store))

    def launch(self, **changes: str) -> subprocess.Popen[str]:
        """Start a launch with this process's environment, as it is now."""
        process = subprocess.Popen(
            [str(self.folder / "bin" / "python"), "-m", "airbridge.edge", "launch"],
            env={**os.environ, **self._environment, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def started(self, patience_s: float = 60.0) -> dict[str, Any]:
        """Wait until a worker was started and return what it was started with."""
        deadline = time.monotonic() + patience_s
        while not self.report.exists():
            ended = [p for p in self._processes if p.poll() not in (None, -signal.SIGKILL)]
            assert not ended, [p.communicate() for p in ended]
            assert time.monotonic() < deadline, "no worker was started"
            time.sleep(0.05)
        answer: dict[str, Any] = json.loads(self.report.read_text())
        self.report.unlink()
        return answer

    def stop(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
            process.communicate()
        for left in Path("/dev/shm").glob(f"airbridge-{os.getuid()}-{WORKER}.token"):
            left.unlink()


@pytest.fixture
def host(tmp_path, installed):
    made = Host(tmp_path / "host", installed)
    yield made
    made.stop()


@pytest.fixture
def joined(edge_host, servers, plane):
    """An edge host whose uplink reaches the control plane."""
    edge_host(UPLINK_URL=f"http://127.0.0.1:{servers.start(plane)}")
    # It asks for a client certificate when it has none, which most tests here are not about.
    issued, held = plane.authority.issue_with_key(WORKER, timedelta(days=30))
    plane.enrolments.add_certificate(issued)
    state = Path(os.environ["EDGE_STATE_DIR"])
    state.mkdir(exist_ok=True)
    keep_certificate(held, state)
    return plane


def _refused(process: subprocess.Popen[str], exit_code: int) -> str:
    out, err = process.communicate(timeout=15)
    assert process.returncode == exit_code, out + err
    assert "Traceback" not in out + err
    assert SECRET not in out + err
    return err


def _logged(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    process.kill()
    return [json.loads(line) for line in process.communicate()[0].splitlines() if line.startswith("{")]


def _wait_for(condition: Any, patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def _answering(status: int, text: str) -> Iterator[int]:
    """Answer every request on the port with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_launch_becomes_the_stock_worker(host, joined):
    process = host.launch(HTTP_PROXY="http://proxy.example.com:3128", AIRFLOW__EDGE__JOB_POLL_INTERVAL="3")
    started = host.started()
    assert started["pid"] == process.pid
    assert started["arguments"] == [
        *["edge", "worker", "--edge-hostname", WORKER, "--queues", "default,gpu", "--concurrency", "4"]
    ]
    environment = started["environment"]
    assert environment["AIRFLOW__EDGE__API_URL"] == "http://courier:8080/edge_worker/v1/rpcapi"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://courier:8080/execution/"
    assert environment["AIRFLOW__API_AUTH__JWT_ISSUER"] == WORKER
    assert environment["AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"] == "s3://airbridge-logs/dev/task-logs"
    connection = json.loads(environment["AIRFLOW_CONN_AIRBRIDGE_S3"])
    assert connection["extra"]["endpoint_url"] == "http://uplink:9000"
    assert environment["AIRFLOW__EDGE__JOB_POLL_INTERVAL"] == "3", "the operator's tuning stays"
    assert {"127.0.0.1", "courier", "uplink"} <= set(environment["NO_PROXY"].split(","))


def test_tasks_outlast_the_absence_that_the_settings_promise(host, joined):
    host.launch(EDGE_ABSENCE_LIMIT="3600")
    environment = host.started()["environment"]
    least, most = (
        float(environment[f"AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_{end}"]) for end in ("MIN", "MAX")
    )
    average = (least + most) / 2
    assert int(environment["AIRFLOW__WORKERS__EXECUTION_API_RETRIES"]) * average > 1.4 * 3600


def test_worker_reads_its_token_from_a_private_file_and_not_from_the_environment(host, joined):
    host.launch(AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH="/secrets/key", AIRFLOW__API_AUTH__JWT_SECRET="other")
    environment = host.started()["environment"]
    assert SECRET not in str(environment)
    assert "AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH" not in environment
    assert "AIRFLOW__API_AUTH__JWT_SECRET" not in environment
    program, path = environment["AIRFLOW__API_AUTH__JWT_SECRET_CMD"].split(" ")
    assert program == "cat"
    assert Path(path).read_text() == SECRET
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_stale_pid_file_of_a_killed_worker_is_removed(host, joined, tmp_path):
    pid_file = tmp_path / "airflow" / "airflow-edge-worker.pid"
    pid_file.parent.mkdir(parents=True)
    pid_file.write_text("7\n")
    host.launch(AIRFLOW_HOME=str(pid_file.parent))
    host.started()
    assert not pid_file.exists()


def test_malformed_settings_end_with_exit_code_2(host, joined):
    err = _refused(host.launch(WORKER_QUEUES="", WORKER_CONCURRENCY="0"), 2)
    assert [line.split(":")[0] for line in err.splitlines()] == ["WORKER_QUEUES", "WORKER_CONCURRENCY"]


def test_wrong_token_is_one_clear_line(host, joined):
    err = _refused(host.launch(CONTROL_PLANE_TOKEN=f"{WORKER}.{'w' * 64}"), 4)
    assert len(err.splitlines()) == 1
    assert "token_invalid" in err
    assert "CONTROL_PLANE_TOKEN" in err


def test_credential_of_another_worker_is_one_clear_line(host, joined):
    err = _refused(host.launch(CONTROL_PLANE_TOKEN=f"south-2.{SECRET}"), 2)
    assert len(err.splitlines()) == 1
    assert "is of worker south-2, but WORKER_NAME is north-1" in err


def test_worker_that_was_revoked_is_one_clear_line(host, joined):
    joined.enrolments.workers[WORKER] = enrolled(WORKER, SECRET, revoked_at=datetime.now(UTC))
    err = _refused(host.launch(), 4)
    assert len(err.splitlines()) == 1
    assert "revoked" in err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"WORKER_QUEUES": "default,mine"},
            "WORKER_QUEUES names mine, but worker north-1 is enrolled for",
        ),
        ({"WORKER_CONCURRENCY": "5"}, "WORKER_CONCURRENCY is 5, but worker north-1 is enrolled for 4"),
    ],
)
def test_more_than_the_enrolment_allows_is_one_clear_line(host, joined, changes, says):
    err = _refused(host.launch(**changes), 4)
    assert len(err.splitlines()) == 1
    assert says in err
    assert "airbridge edge update" in err


def test_join_token_is_traded_on_the_first_start_and_never_again(host, joined, tmp_path):
    join = JoinToken.new(WORKER)
    joined.enrolments.join_tokens.add(join.text)
    first = host.launch(CONTROL_PLANE_TOKEN=join.text)
    environment = host.started()["environment"]
    kept = (tmp_path / "state" / "credential").read_text().strip()
    assert Credential.parse(kept).name == WORKER
    secret = Path(environment["AIRFLOW__API_AUTH__JWT_SECRET_CMD"].split(" ")[1]).read_text()
    assert f"{WORKER}.{secret}" == kept
    assert join.text not in str(environment)
    first.kill()
    first.wait()
    joined.heartbeat(state="offline")
    host.launch(CONTROL_PLANE_TOKEN=join.text)
    host.started()
    assert (tmp_path / "state" / "credential").read_text().strip() == kept
    assert [path for _, path in joined.requests].count("/airbridge/v1/join") == 1


def test_join_token_that_was_used_elsewhere_is_one_clear_line(host, joined):
    err = _refused(host.launch(CONTROL_PLANE_TOKEN=JoinToken.new(WORKER).text), 4)
    assert len(err.splitlines()) == 1
    assert "the join token was not accepted" in err
    assert "airbridge edge join-token" in err


def test_other_airflow_version_is_one_clear_line(host, joined):
    joined.versions = type(joined.versions)(airbridge="0.1.0", airflow="3.1.0", edge_provider="5.1.0")
    err = _refused(host.launch(), 4)
    assert len(err.splitlines()) == 1
    assert "Airflow here 3.0.4, there 3.1.0" in err


def test_unwritable_state_dir_is_named(host, joined, tmp_path):
    (tmp_path / "a-file").write_text("")
    err = _refused(host.launch(EDGE_STATE_DIR=str(tmp_path / "a-file")), 1)
    assert "EDGE_STATE_DIR" in err


def test_control_plane_that_is_away_is_waited_for(host, edge_host, servers, plane):
    edge_host(UPLINK_URL=f"http://127.0.0.1:{free_port()}")
    process = host.launch()
    line = json.loads(process.stdout.readline())
    assert (line["event"], line["level"], line["attempt"]) == ("waiting for the control plane", "warning", 1)
    assert "uplink" in line["error"] + line["fix"]
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0


def test_launch_goes_on_once_the_control_plane_answers(host, joined):
    joined.status = 502
    process = host.launch()
    assert "HTTP 502" in json.loads(process.stdout.readline())["error"]
    joined.status = None
    assert host.started()["pid"] == process.pid


def test_uplink_that_cannot_reach_the_control_plane_says_why_and_names_the_setting(host, edge_host):
    reasons = {
        "dial tcp: lookup nowhere.invalid: no such host": "CONTROL_PLANE_URL",
        "tls: failed to verify certificate: x509: certificate has expired": "CONTROL_PLANE_CA_FILE",
    }
    for reason, setting in reasons.items():
        with _answering(502, f"uplink: {reason}") as port:
            edge_host(UPLINK_URL=f"http://127.0.0.1:{port}")
            process = host.launch()
            line = json.loads(process.stdout.readline())
            process.kill()
        assert line["error"].startswith("CONTROL_PLANE_URL=https://control.example.com:8443 cannot be ")
        assert reason in line["error"]
        assert setting in line["fix"]


def test_worker_starts_only_when_dag_sync_has_filled_the_store(host, joined):
    host.store.rename(host.folder / "later")
    host.store.mkdir()
    process = host.launch()
    line = json.loads(process.stdout.readline())
    assert "the DAG store is empty" in line["event"]
    assert not host.report.exists()
    host.store.rmdir()
    (host.folder / "later").rename(host.store)
    assert host.started()["pid"] == process.pid


def test_stop_while_waiting_ends_quietly(host, joined):
    joined.status = 503
    process = host.launch()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=5)
    assert process.returncode == 0
    assert err == ""
    assert json.loads(out.splitlines()[-1])["signal"] == "SIGINT"


@pytest.mark.parametrize("state", ["offline", "unknown", "offline maintenance"])
def test_name_that_was_given_back_is_taken_at_once(host, joined, state):
    joined.heartbeat(state=state)
    host.launch()
    host.started(patience_s=5)


def test_second_live_worker_of_one_name_is_refused_and_touches_nothing(host, joined):
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.2):
            joined.heartbeat()

    joined.heartbeat()
    other = threading.Thread(target=live)
    other.start()
    try:
        err = _refused(host.launch(), 4)
    finally:
        stop.set()
        other.join()
    assert "another worker named north-1 is alive" in err
    assert "WORKER_NAME" in err
    assert {verb for verb, _ in joined.requests} == {"GET"}


def test_second_worker_on_one_host_is_refused_by_the_lock(host, joined):
    host.launch()
    host.started()
    err = _refused(host.launch(), 4)
    assert "still runs on this host" in err


def test_killed_worker_is_succeeded_without_waiting_for_the_control_plane(host, joined):
    first = host.launch()
    host.started()
    _wait_for(lambda: WORKER in joined.workers)
    time.sleep(0.5)
    first.kill()
    first.wait()
    second = host.launch()
    assert host.started()["pid"] == second.pid
    lines = [line for line in _logged(second) if not line["event"].startswith("waiting")]
    assert [line["event"] for line in lines] == [
        "signed off the worker that was killed",
        "name is free",
        "starting the edge worker",
    ]
    assert lines[0]["silent_s"] >= 2, "two heartbeats of 1 s"


def _certificate() -> ClientCertificate:
    return ClientCertificate.parse(Path(os.environ["EDGE_STATE_DIR"], "client.pem").read_text())


def test_host_without_a_client_certificate_asks_for_one(host, joined):
    Path(os.environ["EDGE_STATE_DIR"], "client.pem").unlink()
    host.launch()
    host.started()
    held = _certificate()
    assert held.name == WORKER
    assert joined.enrolments.workers[WORKER].certificates[0].serial == held.serial


def test_certificate_that_is_due_is_replaced_at_the_start_and_a_young_one_is_not(host, joined):
    young = _certificate()
    host.launch()
    host.started()
    assert _certificate() == young
    host.stop()
    old = replace(young, not_before=young.not_before - timedelta(days=100))
    keep_certificate(old, Path(os.environ["EDGE_STATE_DIR"]))
    host.launch()
    host.started()
    assert _certificate().serial != young.serial


def test_certificate_that_a_rotation_ends_is_replaced_at_the_next_start(host, joined):
    before = _certificate()
    worker = joined.enrolments.workers[WORKER]
    soon = HeldCertificate(before.serial, datetime.now(UTC) + timedelta(hours=1))
    joined.enrolments.workers[WORKER] = replace(worker, certificates=(soon,))
    host.launch()
    host.started()
    assert _certificate().serial != before.serial


def test_joining_brings_a_certificate_whose_key_was_made_here(host, joined):
    join = JoinToken.new(WORKER)
    joined.enrolments.join_tokens.add(join.text)
    host.launch(CONTROL_PLANE_TOKEN=join.text)
    host.started()
    held = _certificate()
    assert held.serial in {one.serial for one in joined.enrolments.workers[WORKER].certificates}
    assert Path(os.environ["EDGE_STATE_DIR"], "client.pem").stat().st_mode & 0o777 == 0o600


def test_control_plane_without_a_client_ca_stops_nobody(host, joined):
    Path(os.environ["EDGE_STATE_DIR"], "client.pem").unlink()
    joined.issues_certificates(False)
    process = host.launch()
    host.started()
    line = next(line for line in _logged(process) if line["event"] == "no new client certificate")
    assert "HTTP 503" in line["error"]
