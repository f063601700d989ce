"""Runs the control-plane image for the tests beside it: generated DAGs in a real Airflow, no network."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AIRFLOW_IMAGE", "Airflow", "Finished", "docker"]

AIRFLOW_IMAGE = os.environ.get("AIRBRIDGE_AIRFLOW_IMAGE", "airbridge/airflow:0.1.0")

_HERE = Path(__file__).parent
_SETTINGS = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////tmp/airflow.db",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/tmp/logs",
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
        [
            {
                "name": "dags",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": "/dags"},
            }
        ]
    ),
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended."""

    code: int
    output: str


def docker(*arguments: str, check: bool = True) -> Finished:
    """Run the docker CLI; stdout and stderr together."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stdout}"
    return Finished(done.returncode, done.stdout)


def _environment(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]


@dataclass(frozen=True, slots=True)
class Airflow:
    """The control-plane image with SQLite, and a folder of DAGs at ``/dags``; no network."""

    container: str

    @classmethod
    @contextlib.contextmanager
    def running(cls, dags: Path) -> Iterator[Airflow]:
        """Start it, migrate its database, parse the DAGs, remove it."""
        airflow = cls(f"airbridge-test-jobs-{uuid.uuid4().hex[:8]}")
        try:
            docker(
                *("run", "--detach", "--name", airflow.container, "--network", "none"),
                *("--volume", f"{dags}:/dags:ro", "--volume", f"{_HERE}:/tests:ro"),
                *_environment(_SETTINGS),
                *(AIRFLOW_IMAGE, "sleep", "infinity"),
            )
            airflow.run("airflow", "db", "migrate", check=True)
            airflow.run("airflow", "dags", "reserialize", check=True)
            yield airflow
        finally:
            docker("rm", "--force", "--volumes", airflow.container, check=False)

    def run(self, *command: str, check: bool = False, **settings: str) -> Finished:
        """Run a command in it."""
        return docker("exec", *_environment(settings), self.container, *command, check=check)

    def parse(self) -> dict[str, Any]:
        """Parse the DAGs as the DAG processor does; see parse_jobs.py."""
        done = self.run("python", "/tests/parse_jobs.py", "/dags")
        assert done.code == 0, done.output
        parsed: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        return parsed

    def run_dag(self, dag_id: str, conf: dict[str, Any] | None = None, **settings: str) -> Finished:
        """Run a DAG to its end with ``airflow dags test``, on a copy of the database."""
        name = f"/tmp/{uuid.uuid4().hex[:8]}.db"
        self.run("cp", "/tmp/airflow.db", name, check=True)
        database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{name}"}
        given = ("--conf", json.dumps(conf)) if conf is not None else ()
        return self.run("airflow", "dags", "test", dag_id, "2026-01-31", *given, **database, **settings)

    def test_task(self, dag_id: str, **settings: str) -> Finished:
        """Run the job's task with ``airflow tasks test``."""
        return self.run("airflow", "tasks", "test", dag_id, "run", "2026-01-31", **settings)
