from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from sync_peer import Answer, Peer, Request, error, read_tree
from tests.release_writer import ReleaseWriter

from airbridge.tree_document import document_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 20.0  # seconds; the machine may be busy


def eventually(probe: Callable[[], Any]) -> Any:
    """Wait until ``probe`` returns something true, and return it."""
    until = time.monotonic() + PATIENCE
    while not (value := probe()):
        assert time.monotonic() < until, f"waited {PATIENCE} s in vain"
        time.sleep(0.02)
    return value


class DagSync:
    """dag-sync as a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.environment = {
            "PATH": os.environ["PATH"],
            "DAG_SYNC_POLL_INTERVAL": "0.1",
            "DAG_SYNC_INTERVAL": "1",
            "HEALTH_PORT": str(self.port),
            **environment,
        }
        self._log = log
        with log.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airbridge.sync"], env=self.environment, stdout=output, stderr=output
            )

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and body; status 0 while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=3) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()
        except OSError:
            return 0, ""

    def post(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and document of the answer to a POST."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=b"", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.loads(refusal.read())

    def health(self) -> dict[str, Any]:
        return json.loads(self.ask("/healthz")[1] or "{}")

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    def metric(self, name: str) -> float:
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith(f"airbridge_dag_sync_{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def probe(self) -> int:
        command = [sys.executable, "-m", "airbridge.sync", "health"]
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal; return after how many seconds the process had ended."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        return time.monotonic() - started


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., DagSync]]:
    running: list[DagSync] = []

    def start(**changes: str) -> DagSync:
        running.append(DagSync(environment | changes, tmp_path / f"log-{len(running)}"))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.stop(signal.SIGKILL)


def test_it_is_healthy_only_once_the_first_sync_succeeded(peer: Peer, start: Callable[..., DagSync]) -> None:
    peer.put("dev/etl/dags/a.py", "a")
    gate = threading.Event()

    def wait(request: Request) -> Answer | None:
        if request.operation == "get":
            gate.wait(PATIENCE)
        return None

    peer.fault = wait
    sync = start()
    eventually(lambda: peer.count("get"))
    status, body = sync.ask("/healthz")
    assert status == 503
    assert json.loads(body)["status"] == "starting"
    assert sync.probe() == 1
    gate.set()
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    assert sync.probe() == 0
    health = sync.health()
    assert (health["status"], health["files"], health["refused_keys"]) == ("ok", 1, 0)
    assert sync.ask("/elsewhere")[0] == 404


def test_an_outage_makes_it_unhealthy_with_the_reason_and_it_recovers_by_itself(
    peer: Peer, start: Callable[..., DagSync], environment: dict[str, str]
) -> None:
    peer.put("dev/etl/dags/a.py", "a")
    sync = start()
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    tree = sync.health()["tree"]

    peer.stop()
    eventually(lambda: sync.ask("/healthz")[0] == 503)
    health = sync.health()
    assert health["status"] == "failing"
    assert f"S3_ENDPOINT_URL={peer.url}" in health["reason"]
    assert "S3_ENDPOINT_URL" in health["fix"]
    assert health["tree"] == tree
    assert sync.metric('failures_total{reason="unreachable"}') >= 1
    assert sync.metric("healthy") == 0
    assert read_tree(f"{environment['DAG_STORE']}/current") == {"etl/dags/a.py": b"a"}

    peer.put("dev/etl/dags/a.py", "changed meanwhile")
    peer.start()
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    eventually(
        lambda: read_tree(f"{environment['DAG_STORE']}/current") == {"etl/dags/a.py": b"changed meanwhile"}
    )
    assert sync.log("recovered")


def test_pauses_between_failures_grow(peer: Peer, start: Callable[..., DagSync]) -> None:
    peer.fault = lambda _request: (403, {}, error("InvalidAccessKeyId"))
    sync = start(DAG_SYNC_INTERVAL="30")
    eventually(lambda: len(sync.log("next try")) >= 5)
    pauses = [line["seconds"] for line in sync.log("next try")]
    assert 0 < pauses[0] <= 0.1
    assert 0.8 <= pauses[4] <= 1.6
    failure = sync.log("sync failed")[0]
    assert "InvalidAccessKeyId" in failure["reason"]
    assert "AWS_ACCESS_KEY_ID" in failure["fix"]
    assert failure["level"] == "error"


def test_a_store_without_room_is_reported_and_heals(peer: Peer, start: Callable[..., DagSync]) -> None:
    peer.put("dev/etl/dags/big.py", "# small")
    sync = start()
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    peer.fault = lambda request: (200, {}, huge_listing(peer)) if request.operation == "list" else None
    eventually(lambda: sync.ask("/healthz")[0] == 503)
    assert "DAG_STORE=" in sync.health()["reason"]
    assert "no space left" in sync.health()["reason"]
    assert "DAG_STORE" in sync.log("sync failed")[0]["reason"]
    peer.fault = lambda _request: None
    eventually(lambda: sync.ask("/healthz")[0] == 200)


def huge_listing(peer: Peer) -> bytes:
    """List an object larger than any disk here."""
    peer.put("dev/etl/dags/huge.py", "x")
    body = peer.listing({"prefix": "dev/"}).decode()
    peer.delete("dev/etl/dags/huge.py")
    before, _, after = body.partition("huge.py")
    return (before + "huge.py" + after.replace("<Size>1<", f"<Size>{1 << 60}<", 1)).encode()


def test_metrics_tell_what_happened(peer: Peer, start: Callable[..., DagSync]) -> None:
    peer.put("dev/etl/dags/a.py", "a")
    peer.put("dev/etl/dags/b.py", "bb")
    peer.put("dev/etl//c.py", "refused")
    sync = start()
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    peer.put("dev/etl/dags/a.py", "aaaa")
    peer.delete("dev/etl/dags/b.py")
    eventually(lambda: sync.metric('file_operations_total{operation="removed"}') == 1)
    assert sync.metric('file_operations_total{operation="added"}') == 2
    assert sync.metric('file_operations_total{operation="changed"}') == 1
    assert sync.metric("transferred_bytes_total") == 1 + 2 + 4
    assert sync.metric("tree_files") == 1
    assert sync.metric("trees_kept") >= 2
    assert sync.metric('refused_keys{reason="empty segment"}') == 1
    assert sync.metric(f'tree_info{{tree="{sync.health()["tree"]}"}}') == 1
    assert abs(sync.metric("last_success_timestamp_seconds") - time.time()) < PATIENCE
    eventually(lambda: sync.metric('passes_total{result="unchanged"}') >= 1)
    eventually(lambda: sync.metric('passes_total{result="verified"}') >= 1)
    assert sync.metric('pass_duration_seconds_count{kind="full"}') >= 1


def test_every_log_line_is_json_and_every_operation_has_one(
    peer: Peer, start: Callable[..., DagSync]
) -> None:
    peer.put("dev/etl/dags/a.py", "a")
    sync = start()
    eventually(lambda: sync.log("flipped"))
    peer.put("dev/etl/dags/a.py", "bb")
    eventually(lambda: sync.log("changed"))
    peer.delete("dev/etl/dags/a.py")
    eventually(lambda: sync.log("removed"))
    eventually(lambda: len(sync.log("flipped")) == 3)
    keys = {(line["event"], line["key"], line["bytes"]) for line in sync.log() if "key" in line}
    assert keys == {
        (event, "dev/etl/dags/a.py", size) for event, size in (("added", 1), ("changed", 2), ("removed", 2))
    }
    first, second, third = sync.log("flipped")
    assert first["old"] is None
    assert (first["new"], second["new"]) == (second["old"], third["old"])
    assert all({"timestamp", "level", "event", "service"} <= line.keys() for line in sync.log())


def publish(peer: Peer, content: str) -> None:
    """Write a release of one file, whose object is something else by the time anyone asks for it."""

    def put(key: str, body: bytes) -> tuple[str, str]:
        stored = peer.put(key, body)
        return stored.etag, stored.version

    ReleaseWriter(put).publish("released", {"dags/r.py": content})
    peer.put("dev/released/dags/r.py", "by hand")


@pytest.mark.parametrize("moment", ["idle", "listing hangs", "rclone runs", "a version is read"])
def test_sigterm_ends_it_within_a_second_whatever_it_does(
    peer: Peer, start: Callable[..., DagSync], moment: str
) -> None:
    release = threading.Event()
    peer.put("dev/etl/dags/a.py", "a")
    waits_at = "list" if moment == "listing hangs" else "get"
    if moment == "a version is read":
        publish(peer, "r")
        peer.delete("dev/etl/dags/a.py")
        peer.fault = lambda request: release.wait(PATIENCE) and None if "versionId" in request.query else None
    elif moment != "idle":
        peer.fault = lambda request: (
            release.wait(PATIENCE) and None if request.operation == waits_at else None
        )
    sync = start()
    if moment == "idle":
        eventually(lambda: sync.ask("/healthz")[0] == 200)
    elif moment == "a version is read":
        eventually(lambda: any("versionId" in request.query for request in peer.requests))
    else:
        eventually(lambda: peer.count(waits_at))
    assert sync.stop() < 1.0
    assert sync.process.returncode == 0
    release.set()


def test_a_second_one_on_the_same_store_is_refused(peer: Peer, start: Callable[..., DagSync]) -> None:
    first = start()
    eventually(lambda: first.ask("/healthz")[0] == 200)
    second = subprocess.run(
        [sys.executable, "-m", "airbridge.sync", "once"],
        env=first.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 4
    assert "in use by another dag-sync" in second.stderr
    assert f"pid {first.process.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert first.ask("/healthz")[0] == 200


def test_a_port_that_is_taken_is_named(peer: Peer, environment: dict[str, str]) -> None:
    taken = subprocess.run(
        [sys.executable, "-m", "airbridge.sync"],
        env={**environment, "PATH": os.environ["PATH"], "HEALTH_PORT": str(peer.port)},
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert taken.returncode == 2
    assert taken.stderr.startswith(f"HEALTH_PORT={peer.port} cannot be used: Address already in use")


def test_a_kill_in_the_middle_of_a_transfer_leaves_the_old_tree_and_the_next_start_heals(
    peer: Peer, start: Callable[..., DagSync], environment: dict[str, str]
) -> None:
    peer.put("dev/etl/dags/a.py", "old")
    first = start()
    eventually(lambda: first.ask("/healthz")[0] == 200)
    hang = threading.Event()
    peer.fault = lambda request: hang.wait(PATIENCE) and None if request.operation == "get" else None
    peer.put("dev/etl/dags/a.py", "new")
    peer.put("dev/etl/dags/b.py", "new")
    eventually(lambda: peer.count("get") >= 3)
    first.stop(signal.SIGKILL)
    assert read_tree(f"{environment['DAG_STORE']}/current") == {"etl/dags/a.py": b"old"}
    peer.fault = lambda _request: None
    hang.set()
    second = start()
    eventually(lambda: second.ask("/healthz")[0] == 200)
    assert read_tree(f"{environment['DAG_STORE']}/current") == {
        "etl/dags/a.py": b"new",
        "etl/dags/b.py": b"new",
    }


def test_once_says_by_its_exit_code_whether_the_store_equals_the_bucket(
    peer: Peer, environment: dict[str, str]
) -> None:
    def once() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "airbridge.sync", "once"],
            env={**environment, "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    peer.put("dev/etl/dags/a.py", "a")
    peer.put("dev/bad/dags/b.py", "b")
    peer.fault = lambda request: (403, {}, error("AccessDenied")) if "bad" in request.key else None
    assert once().returncode == 5
    peer.fault = lambda _request: None
    assert once().returncode == 0
    peer.fault = lambda _request: (404, {}, error("NoSuchBucket"))
    missing = once()
    assert missing.returncode == 4
    assert missing.stderr.startswith("DAG_BUCKET=airbridge-dags does not exist")


def test_the_probe_says_so_when_nothing_answers(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    probe = subprocess.run(
        [sys.executable, "-m", "airbridge.sync", "health"],
        env={"HEALTH_PORT": str(port)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert probe.returncode == 1
    assert f"HEALTH_PORT={port}" in probe.stderr


def test_the_probe_imports_next_to_nothing() -> None:
    script = "import sys; from airbridge.sync.__main__ import main; main(['health']); print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    ).stdout.split()
    assert "airbridge.sync._probe" in modules
    assert not {"botocore", "pydantic", "structlog", "prometheus_client", "http.client", "asyncio"} & set(
        modules
    )


def test_a_held_release_and_drift_are_in_health_and_metrics(
    peer: Peer, start: Callable[..., DagSync]
) -> None:
    publish(peer, "r")
    peer.put("dev/released/dags/stray.py", "stray")
    peer.put("dev/etl/dags/a.py", "a")
    sync = start()
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    assert sync.health()["drift_files"] == 1
    eventually(lambda: sync.metric("drift_files") == 1)
    peer.put("dev/released/metadata.json", "no manifest at all")
    eventually(lambda: sync.metric("held_packages") == 1)
    health = sync.health()
    assert "released" in health["held_packages"]
    assert "released/metadata.json is no manifest" in health["reason"]
    assert sync.metric('failures_total{reason="held"}') >= 1
    assert sync.log("package held")
    eventually(lambda: sync.ask("/healthz")[0] == 503)  # nobody looked at it for three intervals
    publish(peer, "again")
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    assert sync.health()["held_packages"] == {}


def test_a_tree_is_made_on_demand_over_http(
    peer: Peer, start: Callable[..., DagSync], environment: dict[str, str], tmp_path: Path
) -> None:
    publish(peer, "old")
    control = start(DAG_SYNC_PUBLISH_TREES="true")
    eventually(lambda: control.ask("/healthz")[0] == 200)
    old = control.health()["tree"]
    peer.put("dev/etl/dags/a.py", "new")
    eventually(lambda: control.health()["tree"] != old)
    (tmp_path / "edge").mkdir()
    edge = start(DAG_STORE=str(tmp_path / "edge"))
    eventually(lambda: edge.ask("/healthz")[0] == 200)
    assert edge.health()["tree"] == control.health()["tree"]
    assert edge.post(f"/trees/{old}") == (200, {"tree": old, "fetched": 0})  # linked, all of it
    assert read_tree(tmp_path / "edge" / "trees" / old)["released/dags/r.py"] == b"old"
    assert edge.post(f"/trees/{old}") == (200, {"tree": old, "fetched": 0})
    status, answer = edge.post(f"/trees/{'0' * 64}")
    assert status == 404
    assert "no document of it" in answer["reason"]
    assert edge.post("/elsewhere/x")[0] == 404
    assert control.metric('tree_documents_total{result="written"}') == 2
    assert edge.metric('tree_requests_total{result="present"}') == 2
    assert edge.metric('tree_requests_total{result="unknown"}') == 1


def test_s3_trouble_is_an_answer_that_is_worth_another_try(peer: Peer, start: Callable[..., DagSync]) -> None:
    peer.put("dev/etl/dags/a.py", "a")
    sync = start()
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    name = "0" * 64
    peer.put(document_key("dev", name), "damaged")
    status, answer = sync.post(f"/trees/{name}")
    assert (status, "cannot be read" in answer["reason"]) == (503, True)
    peer.stop()
    status, answer = sync.post(f"/trees/{name}")
    assert (status, "cannot be reached" in answer["reason"]) == (503, True)
    assert sync.metric('tree_requests_total{result="failed"}') == 2
    peer.start()


def test_a_document_that_cannot_be_written_is_in_health_and_metrics(
    peer: Peer, start: Callable[..., DagSync]
) -> None:
    peer.put("dev/etl/dags/a.py", "a")
    peer.fault = lambda request: (403, {}, error("AccessDenied")) if request.operation == "put" else None
    sync = start(DAG_SYNC_PUBLISH_TREES="true")
    eventually(lambda: sync.ask("/healthz")[0] == 200)
    assert "AccessDenied" in sync.health()["tree_document"]
    assert sync.metric('tree_documents_total{result="failed"}') >= 1
    peer.fault = lambda _request: None
    eventually(lambda: sync.metric('tree_documents_total{result="written"}') == 1)
    eventually(lambda: sync.health()["tree_document"] == "")
