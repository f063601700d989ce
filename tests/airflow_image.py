"""The control-plane image alone: SQLite, a folder of DAGs at ``/dags``; what tests need to run it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

__all__ = ["AIRFLOW_IMAGE", "SETTINGS", "Finished", "docker", "environment"]

AIRFLOW_IMAGE = os.environ.get("AIRBRIDGE_AIRFLOW_IMAGE", "airbridge/airflow:0.1.0")
#: The image's own airflow.cfg, except for what needs the rest of the stack.
SETTINGS = {
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


def environment(settings: dict[str, str]) -> list[str]:
    """Return the options of ``docker run`` and ``docker exec`` that set these."""
    return [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
