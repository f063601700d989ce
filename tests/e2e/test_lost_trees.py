"""A DAG run finishes on the release that it started with, wherever its tasks run (S7, S8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from _stack import until
from tests.release_writer import ReleaseWriter

if TYPE_CHECKING:
    from _stack import EdgeHost, Stack

FILE = "generations.py"


def dag_text(dag_id: str, generation: int, executor: str) -> str:
    """A DAG whose second task says its generation, and whose first one ends when its own tree is gone."""
    return f'''
import logging
import os
import time
from datetime import UTC, datetime
from airflow.sdk import dag, task

GENERATION = {generation}

@dag(
    dag_id="{dag_id}", description="generation {generation}", schedule=None, catchup=False,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
)
def _made():
    @task(executor={executor!r} or None)
    def first(waits):
        logging.getLogger(__name__).info("first of generation %s", GENERATION)
        until = time.monotonic() + 180
        while waits == "yes" and os.path.exists(__file__) and time.monotonic() < until:
            time.sleep(0.2)

    @task(executor={executor!r} or None)
    def second():
        logging.getLogger(__name__).info("second of generation %s in %s", GENERATION, __file__)

    first("{{{{ dag_run.conf.get('waits', 'no') }}}}") >> second()

_made()
'''


@pytest.mark.parametrize("where", ["edge", "control plane"])
def test_run_finishes_on_its_release_although_two_more_were_published_and_its_tree_was_lost(
    stack: Stack, edge: EdgeHost, where: str
) -> None:
    """The worst case: the tree is gone from the store by the time the second task needs it."""
    package = f"e2e_releases_{where.partition(' ')[0]}"
    dag_id = f"{package}_generations"
    executor = "" if where == "edge" else "LocalExecutor"
    host = edge if where == "edge" else stack

    def put(key: str, body: bytes) -> tuple[str, str]:
        answer = stack.s3.put_object(Bucket="airbridge-dags", Key=key, Body=body)
        return answer["ETag"].strip('"'), answer["VersionId"]

    writer = ReleaseWriter(put)

    def publish(generation: int) -> None:
        writer.publish(package, {f"dags/{FILE}": dag_text(dag_id, generation, executor)})
        text = f"generation {generation}"
        shown = ("grep", "-q", text, f"/store/current/{package}/dags/{FILE}")
        until(f"{where} shows {text}", lambda: host.exec("dag-sync", *shown, check=False).code == 0)
        until(f"the API shows {text}", lambda: stack.wait_for_dag(dag_id)["description"] == text)

    publish(1)
    run = stack.trigger(dag_id, {"waits": "yes"})
    stack.wait_for_task(run, "first", ["running"])
    started = str(stack.api.get(run.path)["bundle_version"])
    publish(2)
    publish(3)
    tree = f"/store/trees/{started}"
    lost = f"test -d {tree} && chmod -R u+w {tree} && rm -r {tree}"
    host.exec("dag-sync", "sh", "-c", lost)
    stack.wait_for_run(run)
    said = stack.log_from_s3(run, "second")
    assert f"second of generation 1 in {tree}/" in said
    logs = edge.compose.logs("dag-sync") if where == "edge" else stack.compose.logs("dag-sync")
    assert '"tree fetched"' in logs

    again = stack.wait_for_run(stack.trigger(dag_id)).run
    assert "second of generation 3" in stack.log_from_s3(again, "second")


def test_the_collector_names_the_trees_of_runs_and_the_worker_reports_its_own(
    stack: Stack, edge: EdgeHost
) -> None:
    health = ("python", "-m", "airbridge.controlplane", "health", "collector")
    assert stack.exec("collector", *health).stdout.startswith("collector: last round")
    body = stack.s3.get_object(Bucket="airbridge-dags", Key=".airbridge/dev/references.json")["Body"].read()
    assert b"airbridge.references/1" in body
    until(
        "the edge worker reports its tree",
        lambda: _reported(stack) == _current(edge),
    )


def _current(edge: EdgeHost) -> str:
    return edge.exec("dag-sync", "readlink", "/store/current").stdout.strip().removeprefix("trees/")


def _reported(stack: Stack) -> str:
    script = (
        "from airbridge.controlplane._database import connect; c = connect().cursor(); "
        "c.execute(\"SELECT sysinfo->>'dag_tree' FROM edge_worker WHERE worker_name = 'a'\"); "
        "print(c.fetchone()[0])"
    )
    return stack.exec("scheduler", "airbridge-env", "python", "-c", script).stdout.strip()
