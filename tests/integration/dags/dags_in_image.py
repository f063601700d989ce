"""Runs the control-plane image and the demo image for the tests beside it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.airflow_image import AIRFLOW_IMAGE, SETTINGS, Finished, docker, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AIRFLOW_IMAGE", "DEMO_IMAGE", "SERVICES", "Airflow", "Finished", "Run", "Site", "docker", "probe"]

DEMO_IMAGE = os.environ.get("AIRBRIDGE_DEMO_IMAGE", "airbridge/demo:0.1.0")
SERVICES = {"ingestion": 8011, "miner": 8012, "analyzer": 8013, "writer": 8014, "reporting": 8016}

_HEALTHY_WITHIN_SECONDS = 60
_PROBE = Path(__file__).with_name("parse_probe.py")
#: As in the compose file: the services must be able to live like this.
_HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--memory", "64m", "--pids-limit", "64", "--tmpfs", "/tmp:size=8m"),
)


def probe(dags: Path, *, hash_seed: int) -> dict[str, Any]:
    """Parse a folder of DAGs in the control-plane image, without a network; see parse_probe.py."""
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--network", "none"),
            *("--volume", f"{dags}:/dags:ro", "--volume", f"{_PROBE}:/probe.py:ro"),
            *environment({**SETTINGS, "PYTHONHASHSEED": str(hash_seed)}),
            *(AIRFLOW_IMAGE, "python", "/probe.py", "/dags"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return parsed


@dataclass(frozen=True, slots=True)
class Site:
    """The five demo services on a network of their own."""

    network: str

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Site]:
        """Start them, wait until they are healthy, remove them."""
        site = cls(f"airbridge-test-dags-{uuid.uuid4().hex[:8]}")
        docker("network", "create", "--internal", site.network)
        try:
            for service in SERVICES:
                site._start(service)
            for service in SERVICES:
                site.wait_until_healthy(service)
            yield site
        finally:
            names = [site.container(service) for service in SERVICES]
            docker("rm", "--force", "--volumes", *names, check=False)
            docker("network", "rm", site.network, check=False)

    def container(self, service: str) -> str:
        """Name of a service's container."""
        return f"{self.network}-{service}"

    def _start(self, service: str) -> None:
        docker(
            *("run", "--detach", "--name", self.container(service)),
            *("--network", self.network, "--network-alias", service),
            *_HARDENED,
            *("--volume", "/data", "--env", f"DEMO_SERVICE={service}", DEMO_IMAGE),
        )

    def wait_until_healthy(self, service: str) -> None:
        """Return when the image's own health check passes."""
        deadline = time.monotonic() + _HEALTHY_WITHIN_SECONDS
        while True:
            state = docker(
                "inspect", "--format", "{{.State.Health.Status}}", self.container(service)
            ).output.strip()
            if state == "healthy":
                return
            assert time.monotonic() < deadline, docker("logs", self.container(service)).output
            time.sleep(0.3)

    def calls(self, service: str, run_id: str) -> list[dict[str, Any]]:
        """Log lines of the calls that a run's tasks made to a service, oldest first."""
        lines = map(json.loads, docker("logs", self.container(service)).output.splitlines())
        return [
            line
            for line in lines
            # Only tasks say which attempt they are.
            if line["event"] == "call answered" and line.get("run_id") == run_id and "attempt" in line
        ]

    def read(self, service: str, path_and_query: str) -> str:
        """Answer of a service to a GET, asked from inside its container."""
        url = f"http://127.0.0.1:{SERVICES[service]}{path_and_query}"
        script = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode())"
        return docker("exec", self.container(service), "python3", "-c", script).output


@dataclass(frozen=True, slots=True)
class Run:
    """A DAG run that ended, with ``(task id, state, attempts)`` of every task instance."""

    finished: Finished
    run_id: str
    state: str
    tasks: tuple[tuple[str, str, int], ...]

    def of(self, task_id: str) -> list[tuple[str, int]]:
        """State and attempts of a task's instances."""
        return [(state, attempts) for name, state, attempts in self.tasks if name == task_id]


@dataclass(frozen=True, slots=True)
class Airflow:
    """The control-plane image with SQLite: enough for ``airflow tasks test`` and ``airflow dags test``."""

    container: str

    @classmethod
    @contextlib.contextmanager
    def running(cls, network: str, dags: Path) -> Iterator[Airflow]:
        """Start it, migrate its database, parse the DAGs, remove it."""
        airflow = cls(f"{network}-airflow")
        try:
            docker(
                *("run", "--detach", "--name", airflow.container, "--network", network),
                *("--volume", f"{dags}:/dags:ro", "--volume", f"{_PROBE.parent}:/tests:ro"),
                *environment({**SETTINGS, "FRESH_POC_RETRY_DELAY_SECONDS": "0.5"}),
                *(AIRFLOW_IMAGE, "sleep", "infinity"),
            )
            airflow.run("airflow", "db", "migrate", check=True)
            airflow.run("airflow", "dags", "reserialize", check=True)
            yield airflow
        finally:
            docker("rm", "--force", "--volumes", airflow.container, check=False)

    def run(self, *command: str, check: bool = False, **settings: str) -> Finished:
        """Run a command in it."""
        return docker("exec", *environment(settings), self.container, *command, check=check)

    def run_dag(self, dag_id: str, **conf: Any) -> Run:
        """Run a DAG to its end, on a copy of the database, so that runs can go on side by side."""
        name = uuid.uuid4().hex[:8]
        database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:////tmp/{name}.db"}
        logical_date = "2024-01-01T00:00:00+00:00"
        self.run("cp", "/tmp/airflow.db", f"/tmp/{name}.db", check=True)
        done = self.run(
            "airflow", "dags", "test", dag_id, logical_date, "--conf", json.dumps(conf), **database
        )
        read = self.run("python", "/tests/read_states.py", dag_id, logical_date, **database)
        assert read.code == 0, f"{done.output}\n{read.output}"
        found = json.loads(read.output.splitlines()[-1])
        return Run(done, found["run_id"], found["state"], tuple(map(tuple, found["tasks"])))
