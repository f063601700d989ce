"""Publish the examples in ``dags/`` to S3 and prove one of them on an edge host.

Called by ``scripts/sample_run.sh``, which puts the settings into the environment and the admin password on
stdin. Prints one plain line a step. Exit codes: see :mod:`airbridge.errors`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from airbridge.errors import AirbridgeError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

_DAG = "edge_sample_dag"
# Copy, sync, parse, two tasks: 5 to 15 s on two cores. Longer than this means that something is wrong.
_PATIENCE_S = 180.0
_POLL_S = 0.5


def _say(step: str, text: str) -> None:
    """Print one line in the form of the other steps, with the seconds since ``make`` started."""
    started = float(os.environ.get("AIRBRIDGE_STARTED", time.time()))
    print(f"[{int(time.time() - started):4d} s] {step:<13} {text}", flush=True)


def _until(what: str, fix: str, probe: Callable[[], Any]) -> Any:
    """Return the first result of ``probe`` that is not None.

    Raises:
        UnreachableError: nothing came within the patience.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while (result := probe()) is None:
        if time.monotonic() > deadline:
            raise UnreachableError(f"{what} took longer than {_PATIENCE_S:.0f} s", fix=fix)
        time.sleep(_POLL_S)
    return result


def _publish(s3: Any, root: Path, bucket: str, environment: str) -> None:
    """Copy ``<package>/dags/*.py`` below ``root``; what S3 holds already is not written again."""
    copied = same = 0
    for file in sorted(root.glob("*/dags/*.py")):
        key = f"{environment}/{file.relative_to(root).as_posix()}"
        body = file.read_bytes()
        # The entity tag of a one-part object is the MD5 of its body: a comparison, no protection.
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        try:
            if s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"') == digest:
                same += 1
                continue
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="text/x-python")
        copied += 1
    _say("publish", f"{copied} example DAG files copied to s3://{bucket}/{environment}/, {same} were there")


class _Airflow:
    """The few calls of Airflow's REST API that a trial run needs."""

    def __init__(self, base: str, user: str, password: str) -> None:
        # trust_env: a proxy of the machine must not catch calls to its own loopback.
        self._http = httpx.Client(base_url=base, timeout=30, trust_env=False)
        answer = self._http.post("/auth/token", json={"username": user, "password": password})
        if answer.status_code not in (200, 201):
            raise RefusedError(
                f"{base} refused user '{user}' ({answer.status_code})",
                fix="if the admin password was changed in the web UI, set AIRBRIDGE_ADMIN_PASSWORD to it",
            )
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._http.request(method, f"/api/v2{path}", **options)
        if answer.status_code == 404:
            return None
        if answer.is_error:
            raise AirbridgeError(f"{method} {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()


def _run(airflow: _Airflow) -> tuple[str, float, list[dict[str, Any]]]:
    """Trigger the sample and wait for its end: run id, seconds, task instances."""
    _until(
        f"the way of {_DAG} from S3 into Airflow",
        "make logs SERVICE='dag-sync dag-processor'",
        lambda: airflow.call("GET", f"/dags/{_DAG}"),
    )
    airflow.call("PATCH", f"/dags/{_DAG}", params={"update_mask": "is_paused"}, json={"is_paused": False})
    started = time.monotonic()
    run_id = airflow.call("POST", f"/dags/{_DAG}/dagRuns", json={"logical_date": None})["dag_run_id"]

    def ended() -> str | None:
        state = airflow.call("GET", f"/dags/{_DAG}/dagRuns/{run_id}")["state"]
        return state if state in ("success", "failed") else None

    state = _until(f"run {run_id} of {_DAG}", "make diag, and make logs", ended)
    seconds = time.monotonic() - started
    tasks = airflow.call("GET", f"/dags/{_DAG}/dagRuns/{run_id}/taskInstances")["task_instances"]
    if state != "success":
        states = ", ".join(f"{task['task_id']}: {task['state']}" for task in tasks)
        raise AirbridgeError(
            f"{_DAG} failed ({states})",
            fix="read the task's log in the web UI; make diag checks the edge host",
        )
    return run_id, seconds, tasks


def _log_in_s3(airflow: _Airflow, run_id: str, task_id: str) -> str | None:
    """Return where in S3 the API found the log of a task; ``None``: not there (yet)."""
    answer = airflow.call(
        "GET",
        f"/dags/{_DAG}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1",
        headers={"Accept": "application/json"},
    )
    lines = (answer or {}).get("content") or []
    sources = (source for line in lines if isinstance(line, dict) for source in line.get("sources") or [])
    return next((source for source in sources if source.startswith("s3://")), None)


def main() -> int:
    """Publish, run, show; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--s3-endpoint", required=True, help="the gateway's")
    parser.add_argument("--ui", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--dags", type=Path, default=Path("dags"))
    options = parser.parse_args()
    password = sys.stdin.read().strip()
    dag_bucket, environment = os.environ["DAG_BUCKET"], os.environ["ENVIRONMENT"]
    s3 = boto3.client(
        "s3",
        endpoint_url=options.s3_endpoint,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}),
    )
    try:
        _publish(s3, options.dags, dag_bucket, environment)
        airflow = _Airflow(options.ui, options.user, password)
        run_id, seconds, tasks = _run(airflow)
        hosts = sorted({task["hostname"] for task in tasks})
        _say("sample run", f"{_DAG} succeeded in {seconds:.1f} s on {', '.join(hosts)}")
        # A worker uploads the log when the task has ended, which can be a moment after its state.
        log = _until(
            f"the log of run {run_id} in S3",
            "make logs SERVICE='gateway s3-door', and make diag",
            lambda: _log_in_s3(airflow, run_id, tasks[-1]["task_id"]),
        )
        _say("log", log)
    except AirbridgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (BotoCoreError, ClientError) as error:
        print(f"error: S3 at {options.s3_endpoint}: {error} | fix: make status", file=sys.stderr)
        return UnreachableError.exit_code
    except httpx.HTTPError as error:
        print(
            f"error: the web UI at {options.ui} did not answer: {error} | fix: make status", file=sys.stderr
        )
        return UnreachableError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
