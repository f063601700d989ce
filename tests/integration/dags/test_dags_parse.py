"""The example DAGs as the control plane sees them: parsed and serialized in its image, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from dags_in_image import AIRFLOW_IMAGE, docker

if TYPE_CHECKING:
    from pathlib import Path

Parsed = tuple[dict[str, Any], dict[str, Any]]

DAG_IDS = {"edge_sample_dag", "FreshPoC_E2E", "feature_tour_deferral", "feature_tour_mapping"}
FRESH_POC = ["ingestion_trigger", "miner_run", "analyzer_run", "writer_apply", "report_generate"]


def test_every_example_is_found_and_none_has_an_import_error(parsed: Parsed) -> None:
    assert parsed[0]["errors"] == {}
    assert set(parsed[0]["dags"]) == DAG_IDS


def test_parsing_all_of_them_takes_less_than_three_seconds(parsed: Parsed) -> None:
    """Cold, imports of Airflow's operators included; half a second on an idle machine."""
    assert min(parse["seconds"] for parse in parsed) < 3


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
def test_two_parses_serialize_to_the_same_dag(parsed: Parsed, dag_id: str) -> None:
    """Anything else makes a new DAG version with every parse."""
    first, second = (parse["dags"][dag_id] for parse in parsed)
    assert first == second


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
def test_every_example_is_manual_documented_and_lies_in_its_package(parsed: Parsed, dag_id: str) -> None:
    dag = parsed[0]["dags"][dag_id]
    package, folder, _ = dag["file"].removeprefix("/dags/").split("/")
    assert dag["schedule"] is None
    assert dag["catchup"] is False
    assert dag["doc"]
    assert folder == "dags"
    assert package in dag["tags"]
    assert sorted(dag["tasks"]) == dag["scheduled_tasks"]


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
def test_every_task_goes_to_the_default_edge_queue_unless_it_asks_for_the_local_executor(
    parsed: Parsed, dag_id: str
) -> None:
    tasks = parsed[0]["dags"][dag_id]["tasks"]
    assert {task["queue"] for task in tasks.values()} == {"default"}
    assert {name: task["executor"] for name, task in tasks.items() if task["executor"]} == (
        {"on_control_plane": "LocalExecutor"} if dag_id == "feature_tour_mapping" else {}
    )


def test_edge_is_the_default_executor_of_the_image_and_local_executor_is_asked_for_by_name() -> None:
    """A task without an executor goes to the edge (F7); ``executor="LocalExecutor"`` stays a name."""
    asked = docker(
        *("run", "--rm", "--network", "none", "--env", "AIRFLOW__LOGGING__REMOTE_LOGGING=False"),
        *(AIRFLOW_IMAGE, "airflow", "config", "get-value", "core", "executor"),
    )
    first, *others = asked.output.splitlines()[-1].split(",")
    assert first.endswith("EdgeExecutor")
    # "alias:class": the name that a DAG writes, and what it stands for.
    assert [other.partition(":")[0] for other in others] == ["LocalExecutor"]


def test_edge_sample_starts_and_then_finishes(parsed: Parsed) -> None:
    tasks = parsed[0]["dags"]["edge_sample_dag"]["tasks"]
    assert {name: task["upstream"] for name, task in tasks.items()} == {"start": [], "finish": ["start"]}


def test_fresh_poc_runs_its_five_tasks_in_strict_sequence_one_run_at_a_time(parsed: Parsed) -> None:
    dag = parsed[0]["dags"]["FreshPoC_E2E"]
    assert {name: task["upstream"] for name, task in dag["tasks"].items()} == {
        name: FRESH_POC[position - 1 : position] if position else []
        for position, name in enumerate(FRESH_POC)
    }
    assert dag["max_active_runs"] == 1
    assert dag["params"] == {
        "repo": "https://github.com/dbt-labs/jaffle-shop-classic",
        "fail_at": "",
        "fail_times": 0,
    }


@pytest.mark.parametrize("task_id", FRESH_POC)
def test_a_task_of_fresh_poc_is_tried_again_three_times_and_stops_the_run_when_it_fails(
    parsed: Parsed, task_id: str
) -> None:
    task = parsed[0]["dags"]["FreshPoC_E2E"]["tasks"][task_id]
    assert task["retries"] == 3
    assert task["backoff"] is True
    assert task["retry_delay"] == 30
    assert task["timeout"] == 30 * 60
    assert task["trigger_rule"] == "all_success"


def test_only_the_squares_are_mapped(parsed: Parsed) -> None:
    tasks = parsed[0]["dags"]["feature_tour_mapping"]["tasks"]
    assert {name for name, task in tasks.items() if task["mapped"]} == {"square"}
    assert tasks["verify"]["upstream"] == ["on_control_plane", "square", "total"]


def test_the_wait_lies_between_two_tasks(parsed: Parsed) -> None:
    tasks = parsed[0]["dags"]["feature_tour_deferral"]["tasks"]
    assert {name: task["upstream"] for name, task in tasks.items()} == {
        "before": [],
        "wait": ["before"],
        "after": ["before", "wait"],
    }


def test_a_malformed_retry_delay_is_an_import_error_that_names_the_setting(dags_folder: Path) -> None:
    values = ["soon", "0", "-1", "601", "nan", "inf"]
    script = """
import os, runpy, sys
for value in sys.argv[1:]:
    os.environ["FRESH_POC_RETRY_DELAY_SECONDS"] = value
    try:
        runpy.run_path("/dags/fresh_poc/dags/fresh_poc_e2e.py")
    except ValueError as error:
        print("refused:", error)
"""
    done = docker(
        *("run", "--rm", "--network", "none", "--volume", f"{dags_folder}:/dags:ro"),
        *("--env", "AIRFLOW__LOGGING__REMOTE_LOGGING=False"),
        *(AIRFLOW_IMAGE, "python", "-c", script, *values),
    )
    refused = [line for line in done.output.splitlines() if line.startswith("refused: ")]
    assert refused == [
        f"refused: FRESH_POC_RETRY_DELAY_SECONDS is '{value}': set it to seconds above 0, at most 600"
        for value in values
    ]
