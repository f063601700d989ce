"""DAGs arrive through S3, on the control plane and on edge hosts alike (S1, S2, S3, S4, S8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from _stack import EXAMPLES, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _stack import EdgeHost, Stack

PACKAGE = "e2e_store"


def dag_text(dag_id: str, says: str) -> str:
    """A DAG whose only task writes one line."""
    return f'''
import logging
from datetime import UTC, datetime
from airflow.sdk import dag, task

@dag(
    dag_id="{dag_id}", description="{says}", schedule=None, catchup=False,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
)
def _made():
    @task
    def speak():
        logging.getLogger(__name__).info("{says}")
    speak()

_made()
'''


@pytest.fixture(scope="module", autouse=True)
def _clean_package(stack: Stack) -> Iterator[None]:
    yield
    prefix = f"dev/{PACKAGE}/"
    found = stack.s3.list_objects_v2(Bucket="airbridge-dags", Prefix=prefix).get("Contents", [])
    stack.unpublish(row["Key"] for row in found)


def _dag_ids(stack: Stack) -> set[str]:
    """What the list of the web UI shows."""
    return {dag["dag_id"] for dag in stack.api.get("/dags", limit=100)["dags"]}


def test_dag_follows_its_file_in_s3_from_new_to_changed_to_deleted(stack: Stack, edge: EdgeHost) -> None:
    """S1, S3, S8: a plain copy is enough, and nothing is restarted."""
    assert edge
    dag_id = "e2e_store_follows"
    began = {c["Id"]: c["State"]["StartedAt"] for c in stack.compose.containers() + edge.compose.containers()}

    key = stack.put_dag(PACKAGE, "follows.py", dag_text(dag_id, "as it was first"))
    assert stack.wait_for_dag(dag_id)["description"] == "as it was first"
    first = stack.wait_for_run(stack.trigger(dag_id)).run
    assert "as it was first" in stack.log_from_s3(first, "speak")

    stack.put_dag(PACKAGE, "follows.py", dag_text(dag_id, "as it is now"))
    until(
        "the changed DAG is in the API",
        lambda: stack.wait_for_dag(dag_id)["description"] == "as it is now",
    )
    versions = until(
        "the DAG has a second version",
        lambda: [
            row
            for row in stack.api.get(f"/dags/{dag_id}/dagVersions")["dag_versions"]
            if row["version_number"] == 2
        ],
    )
    assert versions[0]["bundle_name"] == "airbridge"
    second = stack.wait_for_run(stack.trigger(dag_id)).run
    assert "as it is now" in stack.log_from_s3(second, "speak")

    stack.unpublish([key])
    until("the deleted DAG is gone from the list", lambda: dag_id not in _dag_ids(stack))
    until("the edge host has dropped the file", lambda: not _has(edge, "edge-worker", "follows.py"))
    # What it did stays to be looked at.
    assert stack.run_state(second) == "success"

    now = {c["Id"]: c["State"]["StartedAt"] for c in stack.compose.containers() + edge.compose.containers()}
    # Edge hosts of other tests may have come and gone, but these are the same as before.
    assert now == began


def _has(where: Stack | EdgeHost, service: str, file: str) -> bool:
    return where.exec(service, "test", "-e", f"/store/current/{PACKAGE}/dags/{file}", check=False).code == 0


def test_broken_dag_is_an_import_error_and_breaks_no_other(stack: Stack) -> None:
    """S4."""
    before = _dag_ids(stack)
    assert "edge_sample_dag" in before
    broken = stack.put_dag(PACKAGE, "broken.py", "from airflow.sdk import dag\nthis is no Python\n")
    bad_import = stack.put_dag(
        PACKAGE, "bad_import.py", "from airflow.sdk import dag\nimport a_module_that_nobody_has\n"
    )
    good = stack.put_dag(PACKAGE, "good.py", dag_text("e2e_store_good", "good"))

    errors = until(
        "both broken files are import errors",
        lambda: found if len(found := _import_errors(stack)) >= 2 else None,
    )
    assert errors is not None
    assert "SyntaxError" in errors["broken.py"]
    assert "a_module_that_nobody_has" in errors["bad_import.py"]
    stack.wait_for_dag("e2e_store_good")
    assert before - _dag_ids(stack) == set()

    stack.unpublish([broken, bad_import, good])
    until("the import errors are gone with their files", lambda: not _import_errors(stack))


def _import_errors(stack: Stack) -> dict[str, str]:
    rows = stack.api.get("/importErrors", limit=100)["import_errors"]
    return {row["filename"].rsplit("/", 1)[-1]: row["stack_trace"] for row in rows}


@pytest.mark.parametrize("service", ["scheduler", "dag-processor", "triggerer"])
def test_control_plane_and_edge_host_read_the_same_tree(stack: Stack, edge: EdgeHost, service: str) -> None:
    """S8: trees are named by their content."""

    def same() -> str:
        there = edge.exec("edge-worker", "readlink", "/store/current").stdout.strip()
        here = stack.exec(service, "readlink", "/store/current").stdout.strip()
        return here if here == there else ""

    tree = until("both read one tree", same)
    listing = ("sh", "-c", f"cd /store/{tree} && find . -type f -exec sha256sum {{}} + | sort -k 2")
    here, there = stack.exec(service, *listing).stdout, edge.exec("edge-worker", *listing).stdout
    assert here == there
    for file in EXAMPLES.glob("*/dags/*.py"):
        assert f"./{file.relative_to(EXAMPLES)}" in here


@pytest.mark.parametrize("service", ["scheduler", "dag-processor", "triggerer", "edge-worker"])
def test_readers_cannot_write_to_the_store(stack: Stack, edge: EdgeHost, service: str) -> None:
    """S2, S8: the DAG folder is read-only for Airflow."""
    where = edge if service == "edge-worker" else stack
    sample = "/store/current/edge_sample/dags/edge_sample_dag.py"
    assert where.exec(service, "test", "-r", sample, check=False).code == 0
    new = where.exec(service, "touch", "/store/mine", check=False)
    assert new.code != 0
    assert "Read-only file system" in new.output
    for command in (("touch", sample), ("rm", "-f", sample)):
        assert where.exec(service, *command, check=False).code != 0


def test_api_server_has_no_dag_files(stack: Stack) -> None:
    """S9: who serves the web UI runs no DAG code."""
    assert stack.exec("api-server", "find", "/store", "-mindepth", "1").stdout == ""
