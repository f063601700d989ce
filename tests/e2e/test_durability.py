"""What was acknowledged is still there: after a kill, a restart, and a stack that was taken down."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from _stack import DAG_BUCKET, ENVIRONMENT, EdgeHost, Run, Stack, until
from _trouble import crash, psql, worker_state
from botocore.exceptions import BotoCoreError, ClientError

from airbridge.tree_document import references_key

if TYPE_CHECKING:
    from collections.abc import Callable

_BUCKET = "durability"
_TASK_S = 15


@pytest.fixture(scope="module")
def written(stack: Stack) -> dict[str, Any]:
    """What S3 shows of a bucket with versions, a deletion, metadata and an object without any history."""
    s3 = stack.s3
    s3.create_bucket(Bucket=_BUCKET)
    s3.put_bucket_versioning(Bucket=_BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for number in range(3):
        s3.put_object(Bucket=_BUCKET, Key="changed", Body=f"version {number}".encode())
    s3.put_object(Bucket=_BUCKET, Key="folder/described", Body=b"x" * 100_000, Metadata={"release": "7"})
    s3.put_object(Bucket=_BUCKET, Key="deleted", Body=b"gone, and not lost")
    s3.delete_object(Bucket=_BUCKET, Key="deleted")
    return _survey(s3, _BUCKET)


def _survey(s3: Any, bucket: str) -> dict[str, Any]:
    """Everything in a bucket: versions with ids, times, tags and bodies, and what was deleted."""
    listing = s3.list_object_versions(Bucket=bucket)
    versions = [
        (row["Key"], row["VersionId"], row["ETag"], row["IsLatest"], row["LastModified"], row["Size"])
        for row in listing.get("Versions", [])
        # The collector writes it anew whenever it starts.
        if row["Key"] != references_key(ENVIRONMENT)
    ]
    found = {
        "versions": versions,
        "deletions": [
            (row["Key"], row["VersionId"], row["IsLatest"]) for row in listing.get("DeleteMarkers", [])
        ],
        "versioning": s3.get_bucket_versioning(Bucket=bucket)["Status"],
    }
    for key, version, *_ in versions:
        answer = s3.get_object(Bucket=bucket, Key=key, VersionId=version)
        found[f"{key}@{version}"] = (answer["Body"].read(), answer["Metadata"], answer["ContentType"])
    return found


def _answers(s3: Any) -> bool:
    try:
        s3.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


def _kill(stack: Stack) -> None:
    stack.compose("kill", "--signal", "KILL", "localstack")
    stack.compose("start", "localstack")


def _restart(stack: Stack) -> None:
    stack.compose("restart", "localstack")


@pytest.mark.parametrize("interrupt", [_kill, _restart])
def test_s3_shows_the_same_after(
    stack: Stack, written: dict[str, Any], interrupt: Callable[[Stack], None]
) -> None:
    dags = _survey(stack.s3, DAG_BUCKET)
    body = uuid.uuid4().bytes
    last = stack.s3.put_object(Bucket=_BUCKET, Key="last", Body=body)
    interrupt(stack)
    until("S3 answers", lambda: _answers(stack.s3))
    answer = stack.s3.get_object(Bucket=_BUCKET, Key="last")
    assert (answer["VersionId"], answer["Body"].read()) == (last["VersionId"], body)
    stack.s3.delete_object(Bucket=_BUCKET, Key="last", VersionId=last["VersionId"])
    assert _survey(stack.s3, _BUCKET) == written
    assert _survey(stack.s3, DAG_BUCKET) == dags


def test_run_succeeds_although_postgres_and_the_scheduler_are_killed(stack: Stack, edge: EdgeHost) -> None:
    run = stack.trigger("e2e_work_default", {"seconds": _TASK_S})
    stack.wait_for_task(run, "work", {"running"})
    crash(stack.compose, "postgres", "scheduler")
    stack.compose.wait_until_healthy("postgres", "scheduler")
    _wait_for_api(stack)
    finished = stack.wait_for_run(run)
    assert sorted((task.task_id, task.try_number, task.hostname) for task in finished.tasks) == [
        ("after", 1, edge.name),
        ("work", 1, edge.name),
    ]
    assert "the work is done" in stack.log_from_s3(run, "work")


def _wait_for_api(stack: Stack) -> None:
    def answers() -> bool:
        try:
            return bool(stack.api.request("GET", "/version").is_success)
        except httpx.HTTPError:
            return False

    until("the API answers", answers)


def test_down_keeps_everything_and_a_plain_up_goes_on_with_it(
    stack: Stack, edge: EdgeHost, written: dict[str, Any]
) -> None:
    """As ``docker compose down`` and ``docker compose up -d`` without make; the edge host sits it out."""

    def kept() -> dict[str, Any]:
        queries = {
            "runs": "SELECT run_id, state, start_date, end_date FROM dag_run ORDER BY run_id",
            "users": "SELECT username, password FROM ab_user ORDER BY username",
            "workers": "SELECT worker_name FROM edge_worker ORDER BY worker_name",
        }
        secrets = "cat /secrets/control/* /secrets/signing/*"
        return {
            **{name: psql(stack, query) for name, query in queries.items()},
            "secrets": stack.exec("api-server", "sh", "-c", secrets).stdout,
            "authority": stack.exec("gateway", "cat", "/data/caddy/pki/authorities/local/root.crt").stdout,
        }

    before = kept()
    dags = _survey(stack.s3, DAG_BUCKET)
    worker = edge.compose.container("edge-worker")
    stack.compose("down")
    assert stack.compose.services() == []
    stack.compose("up", "--detach")

    assert _survey(stack.s3, _BUCKET) == written
    assert _survey(stack.s3, DAG_BUCKET) == dags
    stack.compose.wait_until_healthy("api-server", "gateway", "scheduler", "dag-processor")
    assert kept() == before
    assert "nothing changed" in stack.compose.logs("secrets")

    until("the edge host is back", lambda: worker_state(stack, edge.name) in {"idle", "running"})
    assert edge.compose.container("edge-worker") == worker
    run: Run = stack.trigger("e2e_work_default")
    assert stack.wait_for_run(run).one("after").hostname == edge.name
