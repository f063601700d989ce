"""Runs the control-plane image for the tests beside it: generated DAGs in a real Airflow, no network."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.airflow_image import AIRFLOW_IMAGE, SETTINGS, Finished, docker, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AIRFLOW_IMAGE", "Airflow", "Finished", "docker"]


_HERE = Path(__file__).parent


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
                *environment(SETTINGS),
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
