"""What the collector asks of the metadata database, in Airflow's own tables, and its life in the image."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.integration.controlplane.controlplane_containers import AIRFLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.controlplane.conftest import Database, Secrets, Service
    from tests.integration.controlplane.controlplane_containers import Lab

MAX_RESIDENT_MIB = 60
ASK = """
import json
from airbridge.controlplane._database import connect
from airbridge.controlplane._needed_trees import needed_trees
print(json.dumps(sorted(needed_trees(connect()))))
"""


def tree(letter: str) -> str:
    return letter * 64


class Tables:
    """Rows of Airflow's tables, as scheduler and DAG processor write them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def dag(
        self, dag_id: str, version: str | None, *, stale: bool = False, bundle: str = "airbridge"
    ) -> None:
        self._insert("dag_bundle", name=bundle, active=True, on_conflict="(name) DO NOTHING")
        self._insert(
            "dag",
            dag_id=dag_id,
            is_paused=False,
            is_stale=stale,
            bundle_name=bundle,
            bundle_version=version,
            max_active_tasks=1,
            max_consecutive_failed_dag_runs=0,
            has_task_concurrency_limits=False,
            fileloc="x",
        )

    def run(self, dag_id: str, version: str | None, state: str, *tasks: str) -> None:
        """A run with one task instance for each of ``tasks``, which are their states."""
        run_id = uuid.uuid4().hex
        self._insert(
            "dag_run",
            dag_id=dag_id,
            run_id=run_id,
            run_type="manual",
            state=state,
            bundle_version=version,
            run_after="now",
            clear_number=0,
            span_status="not_started",
            log_template_id=1,
        )
        for number, task in enumerate(tasks):
            self.task(dag_id, run_id, f"t{number}", task)

    def task(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        self._insert(
            "task_instance",
            id=str(uuid.uuid4()),
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=-1,
            state=None if state == "none" else state,
            try_number=1,
            max_tries=0,
            pool="default_pool",
            pool_slots=1,
            span_status="not_started",
        )

    def bundle(self, version: str) -> None:
        self._database.ask(f"UPDATE dag_bundle SET version = '{version}' WHERE name = 'airbridge'")

    def clear(self) -> None:
        self._database.ask("DELETE FROM task_instance; DELETE FROM dag_run; DELETE FROM dag_version")
        self._database.ask("DELETE FROM dag; DELETE FROM dag_bundle")

    def _insert(self, table: str, *, on_conflict: str = "", **values: object) -> None:
        shown = ", ".join("NULL" if value is None else f"'{value}'" for value in values.values())
        conflict = f" ON CONFLICT {on_conflict}" if on_conflict else ""
        self._database.ask(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({shown}){conflict}")


@pytest.fixture
def tables(triggerer: Service, database: Database) -> Iterator[Tables]:
    tables = Tables(database)
    tables.clear()
    yield tables
    tables.clear()


def needed(triggerer: Service) -> list[str]:
    done = triggerer.container.execute("airbridge-env", "python", "-c", ASK)
    assert done.code == 0, done.text
    return [name[0] for name in json.loads(done.out)]


def test_trees_of_unfinished_runs_are_needed_and_of_finished_ones_not(
    triggerer: Service, tables: Tables
) -> None:
    tables.dag("etl", None)
    tables.run("etl", tree("a"), "running")
    tables.run("etl", tree("b"), "queued")
    tables.run("etl", tree("c"), "success", "success", "skipped", "none", "upstream_failed", "removed")
    tables.run("etl", tree("d"), "failed", "failed")
    tables.run("etl", None, "running")
    assert needed(triggerer) == ["a", "b"]


@pytest.mark.parametrize(
    "state",
    ["scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred"],
)
def test_an_unfinished_task_of_a_finished_run_needs_its_tree(
    triggerer: Service, tables: Tables, state: str
) -> None:
    tables.dag("etl", None)
    tables.run("etl", tree("a"), "failed", "failed", state)
    assert needed(triggerer) == ["a"]


def test_the_next_run_of_a_dag_needs_the_tree_that_it_was_parsed_in(
    triggerer: Service, tables: Tables
) -> None:
    tables.dag("fine", tree("a"))
    tables.dag("with_import_error", tree("b"))
    tables.dag("removed", tree("c"), stale=True)
    tables.bundle(tree("d"))
    assert needed(triggerer) == ["a", "b", "d"]


def test_versions_of_other_bundles_are_none_of_ours(triggerer: Service, tables: Tables) -> None:
    tables.dag("etl", tree("a"))
    tables.dag("foreign", tree("b"), bundle="git")
    tables.run("foreign", tree("c"), "running", "running")
    tables.dag("odd", "no-tree-at-all")
    assert needed(triggerer) == ["a"]


def test_unfinished_states_are_all_of_airflows_own(triggerer: Service) -> None:
    script = (
        "from airflow.utils.state import State; from airbridge.controlplane import _needed_trees as m; "
        "print(set(m._UNFINISHED) == {str(s) for s in State.unfinished if s is not None})"
    )
    done = triggerer.container.execute("airbridge-env", "python", "-c", script)
    assert done.out.splitlines()[-1] == "True", done.text


def test_a_database_without_tables_is_said_in_one_line(triggerer: Service, database: Database) -> None:
    empty = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.uri(database="postgres")}
    done = triggerer.container.execute("airbridge-env", "python", "-c", ASK, **empty)
    assert done.code == 1
    assert 'relation "dag_bundle" does not exist' in done.err.splitlines()[-1]


def test_the_collector_runs_with_the_database_password_alone_and_little_memory(
    lab: Lab, secrets: Secrets, triggerer: Service, tables: Tables
) -> None:
    """As compose.yaml runs it; S3 is away, so the round fails, which it must say once and survive."""
    container = lab.start(
        "collector",
        AIRFLOW,
        *("python", "-m", "airbridge.controlplane", "collect"),
        network=triggerer.network,
        environment={
            "DAG_BUCKET": "airbridge-dags",
            "ENVIRONMENT": "dev",
            "S3_ENDPOINT_URL": "http://s3-that-is-away:4566",
            "AWS_ACCESS_KEY_ID": "airbridge",
            "AWS_SECRET_ACCESS_KEY": "airbridge",
            "AIRBRIDGE_COLLECT_INTERVAL": "1",
        },
        mounts={secrets.volumes["postgres"]: "/secrets/control:ro"},
    )
    container.until("a word about S3", lambda: "s3-that-is-away" in container.logs())
    said = [line for line in container.logs().splitlines() if "s3-that-is-away" in line]
    assert len(said) == 1
    assert "Traceback" not in container.logs()
    check = container.execute("python", "-m", "airbridge.controlplane", "health", "collector")
    assert check.code == 3
    assert "has not finished a round yet" in check.err
    assert container.execute("ls", "/secrets/control").out.split() == ["db-password"]
    status = container.execute(
        "sh", "-c", "cat $(grep -l 'controlplane' /proc/[0-9]*/cmdline | sed s/cmdline/status/)"
    )
    resident = max(int(kib) for kib in re.findall(r"VmRSS:\s+(\d+) kB", status.out)) / 1024
    assert resident < MAX_RESIDENT_MIB
